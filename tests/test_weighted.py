"""Weighted scores against scikit-learn with sample weights, and against the plain scores at weight 1."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, precision_score, recall_score, roc_auc_score

from cmat_lib.evaluation.metrics import METRICS, scores, scores_within
from cmat_lib.evaluation.weighted import FrameScores, WeightedScores


@pytest.mark.parametrize("decimals", [1, 15], ids=["ties", "distinct"])
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_sklearn_under_weights(decimals, seed):
    rng = np.random.default_rng(seed)
    trigger = (rng.random(601) < 0.2).astype(float)
    score = np.clip(rng.normal(0.4 + 0.2 * trigger, 0.2), 0, 1).round(decimals)
    weights = rng.integers(0, 4, 601).astype(float)
    found = dict(zip(METRICS, WeightedScores(trigger, score, score, 0.5, 0.02)(weights), strict=True))
    alarms = score >= 0.5
    assert found["roc_auc"] == pytest.approx(roc_auc_score(trigger, score, sample_weight=weights), abs=1e-12)
    assert found["pr_auc"] == pytest.approx(average_precision_score(trigger, score, sample_weight=weights), abs=1e-12)
    assert found["brier"] == pytest.approx(brier_score_loss(trigger, score, sample_weight=weights), abs=1e-12)
    expected = precision_score(trigger, alarms, sample_weight=weights)
    assert found["precision_at_threshold"] == pytest.approx(expected, abs=1e-12)
    assert found["recall_at_threshold"] == pytest.approx(
        recall_score(trigger, alarms, sample_weight=weights), abs=1e-12
    )


def test_weights_equal_repeated_rows():
    """An integer weight is the same as so many copies of the row; also for the top share, which scikit-learn lacks."""
    rng = np.random.default_rng(7)
    frame = pd.DataFrame({"trigger": rng.random(301) < 0.3, "probability": rng.random(301).round(1)})
    weights = rng.integers(0, 5, 301)
    arrays = (frame["trigger"].to_numpy(float), *[frame["probability"].to_numpy()] * 2)
    found = WeightedScores(*arrays, 0.7, 0.05)(weights.astype(float))
    expected = scores(frame.loc[frame.index.repeat(weights)], 0.7, 0.05)
    np.testing.assert_allclose(found, [expected[name] for name in METRICS], rtol=0, atol=1e-12)


def test_frame_scores_at_weight_one_equal_the_tables():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"symbol": rng.choice(list("ABC"), 500), "trigger": rng.random(500) < 0.2})
    frame.loc[frame["symbol"] == "C", "trigger"] = False  # leaves the mean over symbols
    frame["probability"], frame["volatility"] = rng.random(500), rng.random(500)
    found = FrameScores(frame, {"probability": 0.5, "volatility": np.nan}, 0.02)(np.ones(500))
    for i, (name, threshold) in enumerate({"probability": 0.5, "volatility": np.nan}.items()):
        for j, function in enumerate((scores, scores_within)):
            expected = function(frame, threshold, 0.02, name)
            np.testing.assert_allclose(found[i, j], [expected[metric] for metric in METRICS], rtol=0, atol=1e-12)


def test_weights_that_leave_one_class_give_nan():
    trigger, score = np.array([1.0, 0, 0]), np.array([0.1, 0.2, 0.3])
    found = WeightedScores(trigger, score, score, 0.9, 0.02)(np.array([0.0, 2, 1]))
    assert np.isnan(found[: len(METRICS) - 3]).all()  # both areas; no alarm; no trigger to recall
    assert found[METRICS.index("base_rate")] == 0
