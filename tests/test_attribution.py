"""Attribution on a market whose trigger follows from one topology feature: that one, and nothing else, matters."""

import numpy as np
import pandas as pd
import pytest
import torch
from slim import panel_of, slim

from cmat_lib.evaluation.uncertainty import Resampling
from cmat_lib.explain.attribution import shapley_tables
from cmat_lib.explain.measures import mean_table, trigger_loss
from cmat_lib.explain.permutation import block_order, input_pieces, modality_pieces, permutation_table, permuted_logits
from cmat_lib.explain.shapley import StandIns, coalition_logits, embed_samples
from cmat_lib.models import MultiTaskLoss
from cmat_lib.models.losses import LOSSES
from cmat_lib.training.trainer import train

RESAMPLING = Resampling(pd.Timedelta("6h"), samples=100)


def _trained(config, panel):
    with pytest.warns(UserWarning, match="optimiser steps"):
        return train(config, panel).model.eval()


@pytest.fixture(scope="module")
def market():
    config = slim(epochs=12)
    panel = panel_of(config, n=1200)
    panel.samples["symbol"] = np.where(np.arange(1200) % 2, "A", "B")
    panel.samples["timestamp"] = panel.samples["close_time"]
    torch.manual_seed(0)
    return config, panel, _trained(config, panel)


@pytest.fixture(scope="module")
def tables(market):
    config, panel, model = market
    loss, background = trigger_loss(config, panel), embed_samples(model, panel, panel.index("train"), 100)
    index, tables = panel.index("test"), {}
    features = embed_samples(model, panel, index, 100)
    for name, draws in (("mean", 0), ("draws", 32)):
        worth = coalition_logits(model, features, StandIns(background, draws, 0), 100)
        tables[name] = shapley_tables(worth, tuple(features), panel.samples.iloc[index], loss, RESAMPLING)
    return tables


@pytest.mark.parametrize("weight", ["balanced", 1.5])
def test_the_loss_is_the_training_s(weight):
    config = slim(positive_weight=weight)
    panel = panel_of(config)
    trigger = panel.samples["trigger"].to_numpy()[:50]
    logit = np.random.default_rng(0).normal(size=(50, 2))
    found = trigger_loss(config, panel)(logit, trigger)
    positive = panel.samples.loc[panel.samples["part"] == "train", "trigger"].mean()
    training = MultiTaskLoss(2.0, (1 - positive) / positive if weight == "balanced" else weight)
    for column in range(2):
        said = torch.tensor(logit[:, [column]])
        expected = training(said, said, torch.tensor(trigger), torch.tensor(trigger))["trigger"]
        assert found[:, column].mean() == pytest.approx(expected.item(), rel=1e-5)


def test_a_loss_of_one_s_own_is_measured(monkeypatch):
    class Hinge(MultiTaskLoss):
        def of_samples(self, logits, trigger, error):
            return torch.relu(1 - (2 * trigger - 1) * logits), error.abs()

    monkeypatch.setitem(LOSSES, "hinge", Hinge)
    config = slim(loss="hinge")
    logit, trigger = np.array([[0.5, 2.0], [0.5, -3.0]]), np.array([1.0, 0.0])
    found = trigger_loss(config, panel_of(config))(logit, trigger)
    np.testing.assert_allclose(found, [[0.5, 0.0], [1.5, 0.0]])


@pytest.mark.parametrize("absent", ["mean", "draws"])
def test_shapley_finds_the_view_that_matters(tables, absent):
    values = tables[absent].shapley.set_index(["measure", "modality"])
    for measure in ("shapley", "main", "alone", "last"):
        own = values.loc[measure]
        assert own.loc["tda", "low"] > 0.05 and own.loc["tda", "low"] > 5 * own.drop("tda")["value"].abs().max()
    row = tables[absent].efficiency.iloc[0]
    assert row["shapley_sum"] == pytest.approx(row["reduction"], abs=1e-9) and row["largest_gap"] < 1e-5


@pytest.mark.parametrize("draws", [0, 3])
def test_batches_change_no_shapley_value(market, draws):
    _, panel, model = market
    absent = StandIns(embed_samples(model, panel, panel.index("train")[:50], 64), draws, 0)
    features = {size: embed_samples(model, panel, panel.index("test")[:90], size) for size in (90, 17)}
    one, many = (coalition_logits(model, own, absent, size) for size, own in features.items())
    np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-5)


def test_without_draws_the_mean_embedding_stands_in(tables, market):
    row = tables["mean"].efficiency.iloc[0]
    config, panel, model = market
    batch = panel.gather(panel.index("test"))
    trigger, loss = batch.trigger.numpy(), trigger_loss(config, panel)
    with torch.no_grad():
        logit = model.answers(batch.inputs).trigger_logits[:, 0].numpy()
        encoded, train = (model.encode(of.inputs) for of in (batch, panel.gather(panel.index("train"))))
        means = {name: x.mean(0, keepdim=True).expand(len(trigger), -1) for name, x in train.items()}
        only = model.read_off(model.fusion(**means | {"tda": encoded["tda"]})).trigger_logits[:, 0].numpy()
    assert row["loss_all"] == pytest.approx(loss(logit, trigger).mean(), rel=1e-5)
    alone = row["loss_none"] - loss(only, trigger).mean()
    values = tables["mean"].shapley.set_index(["measure", "modality"])["value"]
    assert values["alone", "tda"] == pytest.approx(alone, rel=1e-4)


def test_shapley_tables_fit_together(tables):
    tables = tables["draws"]
    wide = tables.shapley.pivot(index="modality", columns="measure", values="value")
    pairs = tables.interactions
    touching = {name: pairs[(pairs["first"] == name) | (pairs["second"] == name)]["value"].sum() for name in wide.index}
    np.testing.assert_allclose(wide["main"], wide["shapley"] - 0.5 * pd.Series(touching), atol=1e-12)
    assert (tables.shapley["low"] <= tables.shapley["value"]).all()
    each = tables.samples
    columns = [f"shapley_{name}" for name in ("nbeats", "tda", "complexity")]
    np.testing.assert_allclose(each["base"] + each[columns].sum(axis=1), each["logit"], atol=1e-5)
    assert list(each)[:4] == ["sample", "trigger", "base", "logit"] and "interaction_nbeats_tda" in each


def test_permutation_finds_the_feature_that_matters(market):
    config, panel, model = market
    index, rng = panel.index("test"), np.random.default_rng(0)
    samples = panel.samples.iloc[index.numpy()]
    orders = np.stack([block_order(samples["symbol"], samples["timestamp"], RESAMPLING.block, rng) for _ in range(4)])
    pieces = [*modality_pieces(model), *input_pieces(model)]
    said = permuted_logits(model, panel, index, embed_samples(model, panel, index, 100), pieces, orders, 100)
    loss, trigger = trigger_loss(config, panel), samples["trigger"].to_numpy()
    inputs = panel.gather(index).inputs
    seen = inputs["nbeats"], inputs["tda"], inputs["complexity"]
    reference = loss(model.predict(*seen)[0].logit()[:, 0].numpy(), trigger)
    table = permutation_table(loss(said, trigger), reference, pieces, samples["timestamp"], RESAMPLING)
    stuck = np.dstack([loss(said, trigger), np.full((*said.shape[:2], 1), np.nan)])  # a draw that moved nothing
    pd.testing.assert_frame_equal(table, permutation_table(stuck, reference, pieces, samples["timestamp"], RESAMPLING))
    table = table.set_index(["kind", "name"])
    names = {"modality": 3, "nbeats": 2, "tda": 4, "complexity": 6}
    assert table.groupby("kind").size().to_dict() == names and (table["draws"] == 4).all()
    matters = [("modality", "tda"), ("tda", "H0 curve")]
    assert (table.loc[matters, "low"] > 0.05).all() and (table.loc[matters, "spread"] > 0).all()
    assert table.drop(matters)["value"].abs().max() < 0.2 * table.loc[matters, "value"].min()
    with torch.no_grad():  # one entry by hand
        mixed = inputs["tda"].clone()
        mixed[:, :2] = panel.gather(index[orders[1]]).inputs["tda"][:, :2]
        expected = model(inputs["nbeats"], mixed, inputs["complexity"])[0][:, 0].numpy()
    assert pieces[5].name == "H0 curve"
    np.testing.assert_allclose(said[:, 5, 1], expected, atol=1e-5)


def test_blocks_change_places_within_their_symbol():
    times = pd.Series(pd.date_range("2025-01-01", periods=60, freq="1h", tz="UTC"))
    symbols, stamps = pd.Series(np.repeat(["A", "B"], 60)), pd.concat([times, times], ignore_index=True)
    order = block_order(symbols, stamps, pd.Timedelta("10h"), np.random.default_rng(3))
    assert sorted(order[:60]) == list(range(60)) and sorted(order[60:]) == list(range(60, 120))
    for own in (order[:60], order[60:]):
        blocks = own.reshape(6, 10)
        assert (np.diff(blocks, axis=1) == 1).all() and (blocks[:, 0] % 10 == 0).all()
    assert (order[60:] - 60 != order[:60]).any() and (order[:60] != np.arange(60)).any()
    short = block_order(symbols, stamps, pd.Timedelta("60h"), np.random.default_rng(0))
    assert (short == np.arange(120)).all()


def test_a_closed_night_shortens_no_block():
    """Six hours a day: a block of twelve hours of trading is two days, not a half."""
    days = pd.date_range("2025-01-01 10:00", periods=20, freq="D", tz="UTC")
    times = pd.Series([day + pd.Timedelta(hours=hour) for day in days for hour in range(6)])
    symbols = pd.Series(np.repeat("A", 120))
    blocks = block_order(symbols, times, pd.Timedelta("12h"), np.random.default_rng(3)).reshape(10, 12)
    assert (np.diff(blocks, axis=1) == 1).all() and (np.diff(blocks[:, 0]) != 12).any()


def test_too_little_time_gives_no_number(market):
    _, panel, model = market
    index = panel.index("test")[:6]
    pieces = modality_pieces(model)
    features = embed_samples(model, panel, index, 100)
    said = permuted_logits(model, panel, index, features, pieces, np.arange(6)[None], 100)
    assert np.isnan(said).all() and said.shape == (6, 3, 1)


def test_mean_table_leaves_out_what_is_missing():
    times = pd.Series(pd.date_range("2025-01-01", periods=200, freq="1h", tz="UTC"))
    values = np.random.default_rng(0).normal([0, 5], size=(200, 2))
    values[::2, 1] = np.nan
    table = mean_table(values, times, RESAMPLING)
    assert table.loc[1, "value"] == pytest.approx(np.nanmean(values[:, 1]))
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    assert table.loc[1, "high"] - table.loc[1, "low"] < 1
