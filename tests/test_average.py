"""The moving average of the weights: its formula, that it is what is judged and kept, and that it survives a kill."""

import pytest
import torch
from slim import panel_of, slim

from cmat_lib.training.devices import make_fabric
from cmat_lib.training.resume import SavePoint
from cmat_lib.training.steps import Steps
from cmat_lib.training.trainer import train

pytestmark = pytest.mark.filterwarnings("ignore:an epoch has")


def test_average_follows_its_formula():
    config = slim(ema_decay=0.9)
    steps = Steps(make_fabric(config.training), panel_of(config), config)
    steps.freeze_encoders(False)
    order, expected = steps.new_order(), None
    for number in range(4):
        steps.step(order, number)
        now = steps.raw.trigger_head[0].weight.detach()
        expected = now.clone() if expected is None else 0.9 * expected + 0.1 * now
    torch.testing.assert_close(steps.best_model.trigger_head[0].weight, expected)
    assert not torch.allclose(steps.best_model.trigger_head[0].weight, now)


def test_the_average_is_judged_and_kept():
    config = slim(ema_decay=0.95, epochs=3)
    panel = panel_of(config)
    result = train(config, panel)
    again = Steps(make_fabric(config.training), panel, config)
    again.best_model.load_state_dict(result.model.state_dict())
    assert again.evaluate()["loss"] == pytest.approx(result.history[result.best_epoch - 1]["stop_loss"], rel=1e-5)
    plain = train(slim(epochs=3), panel)
    assert plain.history[0]["train_loss"] == result.history[0]["train_loss"], "averaging must not change the steps"
    assert plain.history[0]["stop_loss"] != result.history[0]["stop_loss"]


def test_resuming_goes_on_with_the_average(tmp_path):
    config = slim(ema_decay=0.95, epochs=4)
    whole = train(config, panel_of(config))
    point = SavePoint(tmp_path / "last.pt", "print")

    def stop_after_two(row):
        if row["epoch"] == 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(config, panel_of(config), stop_after_two, save_point=point)
    resumed = train(config, panel_of(config), save_point=point._replace(resume=True))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_auxiliary_head_is_trained():
    config = slim(epochs=6, learning_rate=0.01)
    config = config.model_copy(update={"model": config.model.model_copy(update={"auxiliary_head": True})})
    history = train(config, panel_of(config)).history
    assert history[-1]["train_auxiliary_loss"] < 0.9 * history[0]["train_auxiliary_loss"]
    assert {"stop_auxiliary_loss", "stop_trigger_loss"} <= set(history[0])
