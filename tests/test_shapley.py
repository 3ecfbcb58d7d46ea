"""Shapley values against their definition by orders of arrival, and of a model against coalitions made by hand."""

from itertools import permutations

import numpy as np
import pytest
import torch
from slim import panel_of, slim

from cmat_lib.config import load_config
from cmat_lib.config.schema import SOURCE_MODALITIES
from cmat_lib.explain.shapley import (
    StandIns,
    coalition_logits,
    coalitions,
    embed_samples,
    interaction_matrix,
    modality_shapley,
    shapley_matrix,
)
from cmat_lib.models import build_model


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_values_are_means_over_orders_of_arrival(count):
    worth = np.random.default_rng(count).normal(size=2**count)
    expected = np.zeros(count)
    orders = list(permutations(range(count)))
    for order in orders:
        there = 0
        for player in order:
            expected[player] += (worth[there | 1 << player] - worth[there]) / len(orders)
            there |= 1 << player
    np.testing.assert_allclose(shapley_matrix(count) @ worth, expected, atol=1e-12)
    assert coalitions(count)[-1].all() and not coalitions(count)[0].any()


def test_interactions_of_known_games():
    members = coalitions(4)
    a, b, c, _ = members.T.astype(float)
    pairs = interaction_matrix(4)
    np.testing.assert_allclose(pairs @ (3 * a + 2 * b - c), 0, atol=1e-12)  # an additive game has none
    np.testing.assert_allclose(pairs @ (5 * a * c), [0, 5, 0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(pairs @ (6 * a * b * c), [3, 3, 0, 3, 0, 0], atol=1e-12)  # half: c comes first or not
    np.testing.assert_allclose(shapley_matrix(4) @ (5 * a * c), [2.5, 0, 2.5, 0], atol=1e-12)
    assert interaction_matrix(1).shape == (0, 2)


def test_interaction_matrix_is_the_change_of_a_shapley_value():
    """Grabisch and Roubens: the value of i with j there, minus the value of i with j away."""
    worth = np.random.default_rng(0).normal(size=8)
    with_last, without = worth[4:], worth[:4]
    change = shapley_matrix(2) @ with_last - shapley_matrix(2) @ without
    np.testing.assert_allclose(interaction_matrix(3)[1:] @ worth, change, atol=1e-12)


@pytest.mark.parametrize("clock", [False, True])
@pytest.mark.parametrize("fusion", ["cross_modal_attention", "bottleneck", "gated", "concat"])
@torch.no_grad()
def test_a_model_s_values_add_up_and_come_from_its_coalitions(fusion, clock):
    base = slim()
    seen = (*SOURCE_MODALITIES, "clock") if clock else SOURCE_MODALITIES
    changes = {"model": {"modalities": list(seen)}, "fusion": {"fusion_type": fusion, "tokens": "fine"}}
    config = load_config(base=base.model_dump(mode="json"), changes=changes)
    panel = panel_of(config)
    torch.manual_seed(0)
    model = build_model(config).train()
    train, batch = panel.index("train"), panel.gather(panel.index("test"))
    background = embed_samples(model, panel, train, 64)
    found = modality_shapley(model, batch, StandIns(background, 0, 0))
    assert model.training and found.modalities == tuple(seen) and len(found.pairs) == (6 if clock else 3)
    model.eval()
    logit = model.answers(batch.inputs).trigger_logits[:, 0].numpy()
    np.testing.assert_allclose(found.logit, logit, atol=1e-5)
    np.testing.assert_allclose(found.base + found.values.sum(1), logit, atol=1e-5)
    every = {name: x.mean(0) for name, x in model.encode(panel.gather(train).inputs).items()}
    assert background.keys() == every.keys() == set(seen)
    for name, wanted in every.items():
        torch.testing.assert_close(background[name].mean(0), wanted, atol=1e-5, rtol=0)
    alone = {name: m.expand(len(logit), -1) for name, m in every.items()}
    base_logit = model.read_off(model.fusion(**alone)).trigger_logits[:, 0].numpy()
    np.testing.assert_allclose(found.base, base_logit, atol=1e-5)
    assert np.abs(found.values).max(axis=0).min() > 1e-4


@torch.no_grad()
def test_absent_modalities_come_from_training_samples_and_probabilities_are_averaged():
    panel = panel_of(config := slim())
    torch.manual_seed(0)
    model = build_model(config).eval()
    background = embed_samples(model, panel, panel.index("train")[:5], 64)
    own = model.encode(panel.gather(panel.index("test")[:7]).inputs)
    found = torch.from_numpy(coalition_logits(model, own, StandIns(background, 4000, 1))).sigmoid()
    for row, members in enumerate(coalitions(3)):
        said = []  # the mean over all five, which many draws approach
        for k in range(5):
            seen = {
                name: x if there else background[name][k].expand_as(x)
                for there, (name, x) in zip(members, own.items(), strict=True)
            }
            said.append(model.read_off(model.fusion(**seen)).trigger_logits[:, 0].double().sigmoid())
        said = torch.stack(said)
        error = (said.std(0) / 4000**0.5).clamp(min=1e-7)
        assert ((found[:, row] - said.mean(0)).abs() < 5 * error).all()
        assert members.all() or error.max() > 1e-6
    few = [StandIns(background, 3, seed) for seed in (1, 1, 2)]
    again = [coalition_logits(model, own, absent) for absent in few]
    assert (again[0] == again[1]).all() and not (again[0] == again[2]).all()
