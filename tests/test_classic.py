"""Classic baselines: what they may know, what they find, and that the clock reaches them."""

import numpy as np
import pandas as pd
import pytest
import torch
from slim import panel_of, slim

from cmat_lib.config.schema import AUXILIARY_TARGETS
from cmat_lib.evaluation.classic import CLASSIC, classic_rows, classic_scores
from cmat_lib.views import VIEWS

PARTS = ("train", "calibrate", "test")


def auc(panel, scores):
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(panel.samples["trigger"].to_numpy()[panel.index("test")], scores["test"])


@pytest.fixture(scope="module")
def config():
    ranges = slim().complexity.model_copy(update={"ranges": [1, 4]})
    return slim().model_copy(update={"complexity": ranges})


def clocked(config):
    """Triggers that follow from the hour alone."""
    close_time = pd.date_range("2025-01-01", periods=1000, freq="1h", tz="UTC")
    return panel_of(config, n=1000, labels=(close_time.hour < 6).astype(float))


@pytest.mark.parametrize("name", CLASSIC)
def test_every_part_is_scored_in_the_order_of_its_index(config, name):
    panel = panel_of(config)
    panel.samples["volatility"] = np.linspace(0.001, 0.01, len(panel))
    scores = classic_scores(name, panel, PARTS, config)
    assert {part: len(score) for part, score in scores.items()} == {p: len(panel.index(p)) for p in PARTS}
    assert all(((score >= 0) & (score <= 1)).all() for score in scores.values())


def test_plain_ones_are_what_they_say(config):
    panel = panel_of(config)
    panel.samples["volatility"] = np.linspace(0.001, 0.01, len(panel))
    train = panel.samples["part"] == "train"
    base = classic_scores("base_rate", panel, PARTS, config)
    assert (base["test"] == panel.samples.loc[train, "trigger"].mean()).all()
    volatility = classic_scores("volatility", panel, PARTS, config)["test"]
    np.testing.assert_array_equal(volatility, panel.samples["volatility"].to_numpy()[panel.index("test")])


def test_har_reads_ranges_and_clock_and_learns_volatility(config):
    panel = panel_of(config, n=1000)
    complexity, tda = panel.shown["complexity"].values, panel.shown["tda"].values
    ranges, target = complexity[:, -2:].sum(1), AUXILIARY_TARGETS.index("log_volatility")
    panel.labels[2][:, target] = ranges
    panel.labels[0][:] = (ranges > 1).float()
    panel.samples["trigger"] = panel.labels[0].numpy()
    before = classic_scores("har+clock", panel, PARTS, config)
    assert auc(panel, before) > 0.95
    complexity[:, :-2] = 0.0
    tda[:] = 0.0
    after = classic_scores("har+clock", panel, PARTS, config)
    np.testing.assert_array_equal(before["test"], after["test"])
    panel.labels[2][:, target] = -ranges
    assert auc(panel, classic_scores("har+clock", panel, PARTS, config)) > 0.95, "less volatility, fewer triggers"
    panel.labels[2][:, target] = complexity[:, 0]
    assert auc(panel, classic_scores("har+clock", panel, PARTS, config)) < 0.7, "it forecasts volatility and no trigger"


def test_har_does_not_take_the_topology_of_ranges_for_ranges(config):
    """Features of an embedded range have names that begin like those of ranges."""
    series = config.tda.model_copy(update={"series": ["log_close", "log_range"]})
    config = config.model_copy(update={"tda": series})
    panel = panel_of(config, n=1000)
    ranges, target = panel.shown["complexity"].values[:, -2:].sum(1), AUXILIARY_TARGETS.index("log_volatility")
    panel.labels[2][:, target] = ranges
    panel.labels[0][:] = (ranges > 1).float()
    panel.samples["trigger"] = panel.labels[0].numpy()
    assert auc(panel, classic_scores("har+clock", panel, PARTS, config)) > 0.95


def test_har_needs_ranges():
    assert "har+clock" not in classic_rows(slim())


@pytest.mark.parametrize("name", ["logistic", "trees"])
def test_signal_in_the_inputs_is_found(config, name):
    panel = panel_of(config, n=1000)
    assert auc(panel, classic_scores(name, panel, PARTS, config)) > 0.85


@pytest.mark.parametrize("name", ["logistic", "trees"])
def test_only_with_the_clock_the_hour_is_known(config, name):
    panel = clocked(config)
    assert auc(panel, classic_scores(name, panel, PARTS, config)) < 0.65
    assert auc(panel, classic_scores(f"{name}+clock", panel, PARTS, config)) > 0.95


def test_nothing_is_fitted_on_calibrate_or_test(config):
    panel = panel_of(config, n=600)
    before = classic_scores("logistic", panel, PARTS, config)
    for part in ("calibrate", "test"):
        panel.labels[0][panel.index(part)] = 1.0
        panel.samples.loc[panel.samples["part"] == part, "trigger"] = 1.0
    after = classic_scores("logistic", panel, PARTS, config)
    for part in PARTS:
        np.testing.assert_array_equal(before[part], after[part])


def test_clock_as_harmonics():
    clock = VIEWS.views["clock"]
    found = clock.summaries(torch.tensor([[0.25, 0.5]]), slim())
    assert clock.summary_names(slim()) == [
        *("day", "week", "day_sin_1", "day_cos_1", "day_sin_2", "day_cos_2", "week_sin_1", "week_cos_1")
    ]
    np.testing.assert_allclose(found, [[0.25, 0.5, 1, 0, 0, -1, 0, -1]], atol=1e-6)
