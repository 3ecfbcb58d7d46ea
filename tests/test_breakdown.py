"""Scores taken apart, held against counts made by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cmat_lib.errors import CmatError
from cmat_lib.evaluation.breakdown import (
    oracle_share,
    outcomes,
    precision_by_share,
    reliability_table,
    scores_by_period,
    with_intervals,
)
from cmat_lib.evaluation.uncertainty import Resampling

RESAMPLING = Resampling(pd.Timedelta("28h"), samples=40, confidence=0.9, seed=1)


def market(days=40, seed=0):
    rng = np.random.default_rng(seed)
    frames = []
    for symbol in ("A", "B"):
        time = pd.date_range("2024-01-01", periods=24 * days, freq="1h", tz="UTC")
        oracle = np.where(rng.random(len(time)) < 0.3, 0.6, 0.05)
        frame = pd.DataFrame({"symbol": symbol, "timestamp": time, "oracle_probability": oracle})
        frame["trigger"] = (rng.random(len(time)) < oracle).astype(float)
        frame["probability"] = oracle + rng.normal(0, 0.4, len(time))
        frame["volatility"] = rng.random(len(time))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def test_outcomes_are_the_four_cells():
    found = outcomes([1, 0, 1, 0], [0.5, 0.9, 0.4, 0.1], threshold=0.5)
    assert found.tolist() == ["hit", "false alarm", "miss", "quiet"]


def test_scores_by_week_are_those_of_the_week():
    frame = market(days=21)
    table = scores_by_period(frame, ["probability", "volatility"])
    assert table.attrs["period"] == "week"
    assert table.index.tolist() == list(pd.to_datetime(["2024-01-01", "2024-01-08", "2024-01-15"]))
    second = frame[(frame["timestamp"] >= "2024-01-08") & (frame["timestamp"] < "2024-01-15")]
    assert table["probability"].iloc[1] == pytest.approx(roc_auc_score(second["trigger"], second["probability"]))
    assert table["base_rate"].iloc[1] == pytest.approx(second["trigger"].mean())
    assert table["n"].tolist() == [336, 336, 336]


def test_long_tests_go_by_month_and_a_week_of_one_class_has_no_score():
    frame = market(days=240)
    assert scores_by_period(frame, ["probability"]).attrs["period"] == "month"
    frame = market(days=14)
    frame.loc[frame["timestamp"] < "2024-01-08", "trigger"] = 0.0
    table = scores_by_period(frame, ["probability"])
    assert np.isnan(table["probability"].iloc[0]) and table["base_rate"].iloc[0] == 0
    with pytest.raises(CmatError, match="no rows"):
        scores_by_period(frame.iloc[:0], ["probability"])


def test_precision_by_share_counts_the_highest():
    frame = pd.DataFrame({"trigger": [1, 1, 0, 1, 0, 0, 0, 0], "probability": np.arange(8, 0, -1) / 10})
    table = precision_by_share(frame, ["probability"], [0.125, 0.5, 0.99])
    np.testing.assert_allclose(table["probability"], [1, 3 / 4, 3 / 8])


def test_reliability_of_groups_and_of_plateaus():
    probability = np.array([0.1, 0.1, 0.1, 0.1, 0.5, 0.5, 0.7, 0.9])
    trigger = np.array([0, 0, 1, 0, 1, 0, 1, 1])
    table = reliability_table(probability, trigger, bins=4)
    np.testing.assert_allclose(table["predicted"], [0.1, 0.5, 0.8])
    np.testing.assert_allclose(table["observed"], [0.25, 0.5, 1.0])
    assert table["n"].tolist() == [4, 2, 2]
    assert len(reliability_table(np.full(8, 0.3), trigger)) == 1, "one value, one group"


def test_oracle_share_is_the_ratio_of_lifts():
    frame = market()
    table = oracle_share(frame, ["probability", "volatility", "oracle_probability"], RESAMPLING)
    lift = {c: roc_auc_score(frame["trigger"], frame[c]) - 0.5 for c in ("probability", "oracle_probability")}
    row = table.loc[("probability", "pooled")]
    assert row["value"] == pytest.approx(lift["probability"] / lift["oracle_probability"])
    assert row["low"] < row["value"] < row["high"] < 1
    assert table.loc[("volatility", "pooled"), "low"] < 0.1, "noise has no share"
    assert table.index.unique("score").tolist() == ["probability", "volatility"]


def test_no_share_of_an_oracle_that_knows_nothing():
    table = oracle_share(market().assign(oracle_probability=0.2), ["probability"], RESAMPLING)
    assert table.isna().all(axis=None)


def test_intervals_as_text():
    table = pd.DataFrame(
        {"value": [0.7123, 0.5, np.nan], "low": [0.65, np.nan, np.nan], "high": [0.77, np.nan, np.nan]}
    )
    assert with_intervals(table).tolist() == ["0.712 (0.650 to 0.770)", "0.500", "–"]
