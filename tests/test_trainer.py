"""The training loop: groups, schedule, freezing, stopping, accumulation."""

import itertools
import math

import pytest
import torch
from slim import panel_of, slim

from cmat_lib.base.errors import CmatError
from cmat_lib.models import MultiTaskLoss, build_model
from cmat_lib.training import trainer
from cmat_lib.training.devices import make_fabric, pick_device
from cmat_lib.training.optimisation import build_loss, parameter_groups, schedule
from cmat_lib.training.steps import Steps
from cmat_lib.training.trainer import train

pytestmark = pytest.mark.filterwarnings("ignore:an epoch has")


@pytest.mark.parametrize("metric", ["loss", "roc_auc"])
def test_training_learns_and_keeps_the_best_epoch(metric):
    config = slim(epochs=15, early_stopping_metric=metric)
    panel = panel_of(config)
    result = train(config, panel)
    sign = {"loss": 1, "roc_auc": -1}[metric]
    best = min(range(len(result.history)), key=lambda i: sign * result.history[i][f"stop_{metric}"])
    assert result.best_epoch == best + 1
    assert result.history[best]["stop_roc_auc"] > 0.9
    steps = Steps(make_fabric(config.training), panel, config)
    steps.raw.load_state_dict(result.model.state_dict())
    again = steps.evaluate()
    assert again["loss"] == pytest.approx(result.history[best]["stop_loss"], rel=1e-5), "not the weights of that epoch"


def test_evaluation_does_not_depend_on_the_batch_size():
    configs = [slim(batch_size=size) for size in (7, 40)]
    rows = [Steps(make_fabric(config.training), panel_of(config), config).evaluate() for config in configs]
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)


def test_same_seed_same_training_other_seed_not():
    runs = [train(config, panel_of(config)) for config in (slim(), slim())]
    other = slim().model_copy(update={"seed": 1})
    runs.append(train(other, panel_of(other)))
    losses = [[row["stop_loss"] for row in run.history] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    for a, b in zip(runs[0].model.state_dict().values(), runs[1].model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_accumulation_equals_one_large_batch():
    """Dropout is 0 and BatchNorm frozen with the encoders, so that batches of 10 in fours and of 40 must agree."""
    frozen = {"freeze_encoder_epochs": 1, "epochs": 2, "early_stopping_patience": 1}
    weights = []
    for size, group in ((40, 1), (10, 4)):
        config = slim(batch_size=size, gradient_accumulation_steps=group, **frozen)
        panel = panel_of(config, n=350)  # 210 training samples: the last step is cut short
        steps = Steps(make_fabric(config.training), panel, config)
        steps.freeze_encoders(True)
        order = steps.new_order()
        for number in range(steps.per_epoch):
            steps.step(order, number)
        assert steps.per_epoch == 6
        weights.append(steps.raw.trigger_head[0].weight.detach().clone())
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


def test_frozen_encoders_stand_still():
    config = slim(freeze_encoder_epochs=1, epochs=2)
    panel = panel_of(config)
    torch.manual_seed(config.seed)
    before = {name: tensor.clone() for name, tensor in build_model(config).state_dict().items()}
    states = []
    original = trainer.TrainingLoop.run_epoch

    def spy(loop):
        row = original(loop)
        states.append({name: tensor.clone() for name, tensor in loop.steps.raw.state_dict().items()})
        return row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.TrainingLoop, "run_epoch", spy)
        train(config, panel)
    for name, tensor in states[0].items():
        same = torch.equal(tensor, before[name])
        if name.startswith("encoders."):
            assert same, f"{name} moved while frozen (BatchNorm statistics count)"
    moved = [name for name, tensor in states[1].items() if not torch.equal(tensor, before[name])]
    assert any(name.startswith("encoders.nbeats.") for name in moved)
    assert any("running_mean" in name for name in moved)
    assert not torch.equal(states[0]["trigger_head.0.weight"], before["trigger_head.0.weight"])


def test_early_stopping_waits_for_patience():
    config = slim(epochs=60, early_stopping_patience=4, learning_rate=0.03, transformer_learning_rate=0.03)
    result = train(config, panel_of(config, n=200))
    assert len(result.history) == result.best_epoch + 4 < 60


@pytest.mark.parametrize("term", ["trigger", "max_pct"])
def test_a_loss_that_is_not_finite_stops_and_is_named(term):
    config = slim(batch_size=32)
    panel = panel_of(config)
    column = panel.labels[("trigger", "max_pct").index(term)]
    panel.samples["max_pct"] = panel.samples["max_pct"].clip(-3, 3)
    column[10] = float("nan")
    with pytest.raises(CmatError, match=rf"the {term} loss is not finite at step \d+ of epoch 1"):
        train(config, panel)


def test_answers_that_are_not_finite_stop_the_training():
    """With one step an epoch the losses are still finite when the weights no longer are."""
    config = slim(batch_size=10_000, learning_rate=1e30, transformer_learning_rate=1e30)
    with pytest.raises(CmatError, match="answers on the stop part are not finite"):
        train(config, panel_of(config))


def test_parameter_groups():
    config = slim(learning_rate=0.001, transformer_learning_rate=0.0001, weight_decay=0.5, task_weighting="learned")
    model = build_model(config)
    loss = MultiTaskLoss(task_weighting="learned")
    groups = parameter_groups(model, loss, config.training)
    names = {id(parameter): name for name, parameter in [*model.named_parameters(), *loss.named_parameters()]}
    seen = {}
    for group in groups:
        for parameter in group["params"]:
            assert id(parameter) not in seen
            seen[id(parameter)] = group
    assert len(seen) == len(names)
    for key, group in seen.items():
        name = names[key]
        assert group["lr"] == (0.0001 if "fusion.transformer" in name else 0.001), name
        exempt = name.endswith("bias") or "norm" in name or "pos_embedding" in name or name == "log_variance"
        assert group["weight_decay"] == (0.0 if exempt else 0.5), name


def test_schedule():
    factors = [schedule(step, 100, 0.05) for step in range(100)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[5] == 1.0 and all(a > b for a, b in itertools.pairwise(factors[5:]))
    assert schedule(52, 99, 0.05) == pytest.approx(0.5 * (1 + math.cos(math.pi * 47 / 94)))
    assert schedule(100, 100, 0.05) == pytest.approx(0.0, abs=1e-12)


def test_few_steps_are_warned_about():
    config = slim(epochs=1)
    with pytest.warns(UserWarning, match=r"an epoch has 8 optimiser steps \(fewer than 50\)"):
        train(config, panel_of(config))


def test_missing_gpu_is_a_clear_error():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(CmatError, match="torch sees no GPU"):
        pick_device(slim(device="cuda").training)


def test_loss_scales_come_from_the_training_part():
    config = slim()
    panel = panel_of(config)
    base = build_loss(config, panel)
    panel.samples.loc[panel.samples["part"] != "train", ["trigger", "max_pct"]] = 1.0
    after = build_loss(config, panel)
    assert (base.positive_weight, base.max_pct_std) == (after.positive_weight, after.max_pct_std)
    train_part = panel.samples[panel.samples["part"] == "train"]["trigger"]
    assert base.positive_weight == pytest.approx((train_part == 0).sum() / (train_part == 1).sum())
