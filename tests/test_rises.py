"""Scores of the second task against scikit-learn and SciPy, also under weights."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score

from cmat_lib.base.errors import CmatError
from cmat_lib.evaluation.rises import MEDIAN, RISE_METRICS, _RiseScores, rise_table
from cmat_lib.evaluation.uncertainty import Resampling

RESAMPLING = Resampling(pd.Timedelta("28h"), samples=60)


def predictions(seed=0, count=600):
    rng = np.random.default_rng(seed)
    parts = []
    for symbol, level in (("A", 1.0), ("B", 3.0)):
        time = pd.date_range("2024-01-01", periods=count, freq="1h", tz="UTC")
        rise = rng.exponential(level, count)
        frame = pd.DataFrame(
            {"symbol": symbol, "timestamp": time, "max_pct": rise, "trigger": (rise > 3).astype(float)}
        )
        frame["part"] = np.where(np.arange(count) < 200, "train", "test")
        frame["predicted_max_pct"] = 0.5 * rise + rng.normal(0, 0.5, count)
        frame["raw_trees"] = rise > 2  # ties
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def test_pooled_scores_are_those_of_the_libraries():
    frame = predictions()
    test, table = frame[frame["part"] == "test"], rise_table(frame, ["raw_trees"], RESAMPLING)
    found = table["value"].xs(("predicted_max_pct", "pooled"), level=("score", "scope"))
    assert found["mae"] == pytest.approx(mean_absolute_error(test["max_pct"], test["predicted_max_pct"]))
    assert found["r2"] == pytest.approx(r2_score(test["max_pct"], test["predicted_max_pct"]))
    for name in ("predicted_max_pct", "raw_trees"):
        expected = spearmanr(test[name].astype(float), test["max_pct"]).statistic
        assert table.loc[(name, "pooled", "spearman"), "value"] == pytest.approx(expected)
    # mean rank of the triggers and ROC-AUC are two ways to say one thing
    auc, rate = roc_auc_score(test["trigger"], test["predicted_max_pct"]), test["trigger"].mean()
    assert found["hit_quantile"] == pytest.approx(rate / 2 + (1 - rate) * auc)
    rows = table.drop(MEDIAN, level="score").dropna()
    assert (rows["low"] < rows["value"]).all() and (rows["value"] < rows["high"]).all()


def test_within_is_the_mean_over_symbols():
    frame = predictions()
    table = rise_table(frame, [], RESAMPLING)
    test = frame[frame["part"] == "test"]
    expected = np.mean([spearmanr(p["predicted_max_pct"], p["max_pct"]).statistic for _, p in test.groupby("symbol")])
    assert table.loc[("predicted_max_pct", "within", "spearman"), "value"] == pytest.approx(expected)
    pooled = table.loc[("predicted_max_pct", "pooled", "spearman"), "value"]
    assert pooled != pytest.approx(expected, abs=1e-4)


def test_the_constant_knows_the_training_part_alone():
    frame = predictions()
    moved = frame.assign(max_pct=frame["max_pct"] + 100 * (frame["part"] == "test"))
    errors = [rise_table(f, [], RESAMPLING).loc[(MEDIAN, "pooled", "mae"), "value"] for f in (frame, moved)]
    assert errors[1] > 95
    found = rise_table(frame, [], RESAMPLING)["value"].loc[MEDIAN, "pooled"]
    assert found["hit_quantile"] == 0.5 and np.isnan(found["spearman"])
    train, test = (frame.loc[frame["part"] == part, "max_pct"] for part in ("train", "test"))
    assert found["mae"] == pytest.approx((test - train.median()).abs().mean())


def test_scores_of_the_trigger_have_no_unit():
    table = rise_table(predictions(), ["raw_trees"], RESAMPLING)["value"].loc["raw_trees"]
    assert table.unstack("metric")[["mae", "r2"]].isna().all(axis=None)


def test_weights_equal_repeated_rows():
    rng = np.random.default_rng(4)
    weights = rng.integers(0, 4, 300)
    columns = [rng.random(300) < 0.3, rng.random(300).round(1), rng.random(300).round(1)]
    columns = [column.astype(float) for column in columns]
    found = _RiseScores(*columns, True)(weights.astype(float))
    expected = _RiseScores(*(np.repeat(column, weights) for column in columns), True)(np.ones(weights.sum()))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert len(found) == len(RISE_METRICS)


def test_a_missing_part_is_an_error():
    frame = predictions()
    with pytest.raises(CmatError, match="the train part has no rows"):
        rise_table(frame[frame["part"] == "test"], [], RESAMPLING)
