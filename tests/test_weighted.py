"""Weighted scores against scikit-learn with sample weights, and integer weights against repeated rows."""

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    matthews_corrcoef,
    precision_score,
    recall_score,
    roc_auc_score,
)

from cmat_lib.evaluation.metrics import frame_scores, metric_names, scores
from cmat_lib.evaluation.weighted import WeightedScores, equal_mass_bins


def named(statistic, weights):
    return dict(zip(metric_names([0.05]), statistic(weights), strict=True))


@pytest.mark.parametrize("decimals", [1, 15], ids=["ties", "distinct"])
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_sklearn_under_weights(decimals, seed):
    rng = np.random.default_rng(seed)
    trigger = (rng.random(601) < 0.2).astype(float)
    score = np.clip(rng.normal(0.4 + 0.2 * trigger, 0.2), 0, 1).round(decimals)
    weights = rng.integers(0, 4, 601).astype(float)
    found = named(WeightedScores(trigger, score, score, 0.5, [0.05]), weights)
    alarms = score >= 0.5
    expected = {
        "roc_auc": roc_auc_score(trigger, score, sample_weight=weights),
        "pr_auc": average_precision_score(trigger, score, sample_weight=weights),
        "brier": brier_score_loss(trigger, score, sample_weight=weights),
        "precision": precision_score(trigger, alarms, sample_weight=weights),
        "recall": recall_score(trigger, alarms, sample_weight=weights),
        "mcc": matthews_corrcoef(trigger, alarms, sample_weight=weights),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_calibration_error_equals_sklearns_quantile_bins():
    rng = np.random.default_rng(2)
    score = rng.random(1000)
    trigger = (rng.random(1000) < score**2).astype(float)
    observed, announced = calibration_curve(trigger, score, n_bins=10, strategy="quantile")
    found = WeightedScores(trigger, score, score, 0.5, (0.02,))(np.ones(1000))
    assert found[metric_names([0.02]).index("ece")] == pytest.approx(np.abs(observed - announced).mean(), abs=1e-9)


def test_bins_have_equal_mass_and_keep_ties_together():
    assert np.bincount(equal_mass_bins(np.random.default_rng(0).random(1000))).tolist() == [100] * 10
    plateaus = np.array([0.1] * 50 + [0.2] * 30 + [0.9] * 20)
    bins = equal_mass_bins(plateaus)
    assert [len(set(bins[plateaus == value])) for value in (0.1, 0.2, 0.9)] == [1, 1, 1] and len(set(bins)) == 3


def test_weights_equal_repeated_rows():
    """An integer weight is the same as so many copies of the row; the bins of the calibration error do not move."""
    rng = np.random.default_rng(7)
    frame = pd.DataFrame({"symbol": "A", "trigger": rng.random(301) < 0.3, "probability": rng.random(301).round(1)})
    weights = rng.integers(0, 5, 301)
    arrays = (frame["trigger"].to_numpy(float), *[frame["probability"].to_numpy()] * 2)
    found = named(WeightedScores(*arrays, 0.7, [0.05]), weights.astype(float))
    expected = scores(frame.loc[frame.index.repeat(weights)], 0.7, [0.05])
    del found["ece"], expected["ece"]
    assert found == pytest.approx(expected, abs=1e-12)


def test_frame_scores_are_those_of_the_symbols():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"symbol": rng.choice(list("ABC"), 500), "trigger": rng.random(500) < 0.2})
    frame.loc[frame["symbol"] == "C", "trigger"] = False  # leaves the mean over symbols
    frame["probability"] = rng.random(500)
    pooled, within = frame_scores(frame, {"probability": 0.5})(np.ones(500))[0]
    assert pooled[0] == pytest.approx(roc_auc_score(frame["trigger"], frame["probability"]))
    parts = [frame[frame["symbol"] == symbol] for symbol in "AB"]
    assert within[0] == pytest.approx(np.mean([roc_auc_score(p["trigger"], p["probability"]) for p in parts]))


def test_weights_that_leave_one_class_give_nan():
    trigger, score = np.array([1.0, 0, 0]), np.array([0.1, 0.2, 0.3])
    found = named(WeightedScores(trigger, score, score, 0.9, [0.05]), np.array([0.0, 2, 1]))
    assert all(np.isnan(found[name]) for name in ("roc_auc", "pr_auc", "precision", "recall", "mcc", "brier_skill"))
    assert found["base_rate"] == 0
