"""Controls of attention: rank agreement against SciPy, and readings that differ from the model where they must."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kendalltau, spearmanr
from slim import panel_of, slim

from cmat_lib.config import load_config
from cmat_lib.evaluation.uncertainty import Resampling
from cmat_lib.explain.attention import rollout
from cmat_lib.explain.controls import (
    agreement_table,
    control_readings,
    control_table,
    mean_maps,
    modality_shares,
    read_model,
    row_kendall,
    row_spearman,
    untrained,
)
from cmat_lib.explain.layers import uniform
from cmat_lib.explain.measures import trigger_loss
from cmat_lib.explain.shapley import embed_samples
from cmat_lib.models import build_model

RESAMPLING = Resampling(pd.Timedelta("6h"), samples=100)


def subject(**fusion):
    config = load_config(base=slim().model_dump(mode="json"), changes={"fusion": fusion})
    panel = panel_of(config)
    torch.manual_seed(0)
    model = build_model(config).eval()
    index = panel.index("test")
    return config, panel, model, index, embed_samples(model, panel, index, 32)


def times(count):
    return pd.Series(pd.date_range("2025-01-01", periods=count, freq="1h", tz="UTC"))


def test_rank_correlations_are_scipy_s():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20, 5)), rng.integers(0, 4, size=(20, 5)).astype(float)  # b has ties
    np.testing.assert_allclose(row_spearman(a, b), [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(row_kendall(a, b), [kendalltau(x, y).statistic for x, y in zip(a, b, strict=True)])
    assert np.isnan(row_spearman(np.ones((1, 3)), a[:1, :3])).all()
    assert np.isnan(row_kendall(np.ones((1, 3)), a[:1, :3])).all()


def test_shares_of_tokens_become_those_of_modalities():
    shares = np.array([[0.2, 0.1, 0.3, 0.3, 0.1]])
    parts = {"nbeats": ("a", "b"), "tda": ("c",)}
    found = modality_shares(shares, ("cls", "a", "b", "c", "bottleneck 1"), parts)
    np.testing.assert_allclose(found, [[0.4 / 0.7, 0.3 / 0.7]])


def test_agreement_is_one_where_attention_is_the_reference():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([4, 2, 1], size=300)
    signs = rng.choice([-1, 1], size=shares.shape)
    references = {"same": (shares.mean(0), signs * shares), "none": (-shares.mean(0), rng.normal(size=shares.shape))}
    found = agreement_table(shares, references, ["x", "y", "z"], times(300), RESAMPLING)
    same, none = (found[found["reference"] == name] for name in ("same", "none"))
    np.testing.assert_allclose(same["value"], 1, atol=1e-12)
    assert none.loc[none["scope"] == "global", "value"].eq(-1).all()
    chance = none[none["scope"] != "global"]
    assert (chance["low"] < 0.05).all() and (chance["high"] > -0.05).all() and (chance["value"].abs() < 0.2).all()
    assert len(found) == 2 * (2 + 2 + 3)


@pytest.mark.parametrize("fusion", ["cross_modal_attention", "bottleneck"])
def test_readings(fusion):
    config, panel, model, index, features = subject(fusion_type=fusion)
    orders = [np.random.default_rng(i).permutation(len(index)) for i in range(3)]
    readings = control_readings(model, features, orders, 17)
    batch = panel.gather(index)
    with torch.no_grad():
        mixed = {n: batch.inputs[n][o] for n, o in zip(("nbeats", "tda", "complexity"), orders, strict=True)}
        for control, inputs in (("model", batch.inputs), ("shuffled tokens", mixed)):
            expected = model.answers(inputs).trigger_logits[:, 0].numpy()
            np.testing.assert_allclose(readings[control].logits, expected, atol=1e-5)
    readings["same"] = readings["model"]
    trigger = panel.samples["trigger"].to_numpy()[index]
    table = control_table(readings, trigger, times(len(index)), trigger_loss(config, panel), RESAMPLING)
    table = table.set_index(["control", "measure"])["value"]
    assert ("uniform attention", "agreement") not in table and ("model", "agreement") not in table
    assert table["same", "agreement"] == pytest.approx(1) and abs(table["shuffled tokens", "agreement"]) < 1
    assert table["same", "loss increase"] == 0 and table["shuffled tokens", "loss increase"] != 0
    if fusion == "cross_modal_attention":
        assert table["uniform attention", "entropy"] == pytest.approx(1)
        assert table["model", "entropy"] < 0.99999
    assert np.abs(readings["uniform attention"].logits - readings["model"].logits).max() > 1e-5
    means = mean_maps(readings).set_index(["control", "from", "to"])["weight"]
    assert list(means.index.unique("control")) == ["model", "same"]
    tokens = readings["model"].tokens
    expected = rollout(readings["same"].maps)[:, 0, 1].mean()
    assert means["same", tokens[0], tokens[1]] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(means.groupby(["control", "from"]).sum(), 1, atol=1e-5)


def test_fusions_without_attention_have_controls_too():
    _, _, model, _, features = subject(fusion_type="gated")
    readings = control_readings(model, features, [np.arange(80)[::-1].copy()] * 3, 32)
    assert list(readings) == ["model", "shuffled tokens"] and readings["model"].maps is None


def test_uniform_reading_has_even_maps():
    _, _, model, _, features = subject(tokens="fine")
    np.testing.assert_allclose(read_model(model, features, 32, uniform).maps, 1 / 9, atol=1e-7)


def test_an_untrained_model_is_another_one_and_draws_nothing_from_the_session():
    config, _, model, _, _ = subject()
    before = torch.get_rng_state()
    fresh = untrained(model, config.seed)
    assert torch.equal(torch.get_rng_state(), before) and not fresh.training
    torch.manual_seed(config.seed)
    start = dict(build_model(config).named_parameters())  # of a training with this seed
    drawn = {name: weight for name, weight in fresh.named_parameters() if weight.dim() > 1 and weight.std() > 0}
    assert drawn and not any(torch.equal(weight, start[name]) for name, weight in drawn.items())
    again = untrained(model, config.seed)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), again.parameters(), strict=True))
