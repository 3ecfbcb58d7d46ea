"""Scores taken apart, held against counts made by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cmat_lib.base.errors import CmatError
from cmat_lib.evaluation.breakdown import (
    auc_by_group,
    hour_groups,
    oracle_share,
    outcomes,
    precision_by_share,
    reliability_table,
    time_groups,
    volatility_groups,
    with_intervals,
)
from cmat_lib.evaluation.uncertainty import Resampling, draw_scores

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
    table = auc_by_group(frame, time_groups(frame), ["probability", "volatility"], RESAMPLING)
    assert table.index.names == ["week", "score"]
    weeks = table.index.unique("week").tolist()
    assert weeks == list(pd.to_datetime(["2024-01-01", "2024-01-08", "2024-01-15"]))
    second = frame[(frame["timestamp"] >= "2024-01-08") & (frame["timestamp"] < "2024-01-15")]
    row = table.loc[(weeks[1], "probability")]
    assert row["value"] == pytest.approx(roc_auc_score(second["trigger"], second["probability"]))
    assert row["low"] < row["value"] < row["high"]
    assert row["base_rate"] == pytest.approx(second["trigger"].mean()) and row["n"] == 336


def test_long_tests_go_by_month_and_a_week_of_one_class_has_no_score():
    assert time_groups(market(days=240)).name == "month"
    frame = market(days=14)
    frame.loc[frame["timestamp"] < "2024-01-08", "trigger"] = 0.0
    table = auc_by_group(frame, time_groups(frame), ["probability"], RESAMPLING)
    assert table["value"].isna().tolist() == [True, False] and table["base_rate"].iloc[0] == 0
    with pytest.raises(CmatError, match="no rows"):
        time_groups(frame.iloc[:0])


def test_groups_of_hours_and_of_volatility():
    frame = market(days=10).assign(raw_volatility=lambda f: f["volatility"] * np.where(f["symbol"] == "A", 1, 100))
    hours = auc_by_group(frame, hour_groups(frame), ["probability"], RESAMPLING)
    at_five = frame[frame["timestamp"].dt.hour == 5]
    assert hours.loc[(5, "probability"), "value"] == roc_auc_score(at_five["trigger"], at_five["probability"])
    decile = volatility_groups(frame)
    assert pd.crosstab(frame["symbol"], decile).to_numpy().tolist() == [[24] * 10] * 2, "each symbol by its own"
    quietest = frame[decile == 1]
    assert quietest.groupby("symbol")["raw_volatility"].max()["A"] < frame["volatility"].quantile(0.15)


def test_precision_by_share_counts_the_highest():
    frame = pd.DataFrame({"trigger": [1, 1, 0, 1, 0, 0, 0, 0], "probability": np.arange(8, 0, -1) / 10})
    table = precision_by_share(frame, ["probability"], [0.125, 0.5, 0.99])
    np.testing.assert_allclose(table["probability"], [1, 3 / 4, 3 / 8])


def test_reliability_of_groups_and_of_plateaus():
    frame = pd.DataFrame({"timestamp": pd.date_range("2024-01-01", periods=8, freq="1h", tz="UTC")})
    frame["probability"] = [0.1, 0.1, 0.1, 0.1, 0.5, 0.5, 0.7, 0.9]
    frame["trigger"] = [0, 0, 1, 0, 1, 0, 1, 1]
    table = reliability_table(frame, "probability", RESAMPLING, bins=4)
    np.testing.assert_allclose(table["predicted"], [0.1, 0.5, 0.8])
    np.testing.assert_allclose(table["observed"], [0.25, 0.5, 1.0])
    assert table["n"].tolist() == [4, 2, 2] and table["low"].isna().all(), "too little time for an interval"
    assert len(reliability_table(frame.assign(probability=0.3), "probability", RESAMPLING)) == 1, "one value, one group"


def test_reliability_intervals_hold_the_truth():
    frame = market(days=60)
    resampling = Resampling(pd.Timedelta("28h"), samples=200, confidence=0.99)
    table = reliability_table(frame, "oracle_probability", resampling)
    np.testing.assert_allclose(table["predicted"], [0.05, 0.6])
    assert (table["low"] < table["predicted"]).all() and (table["predicted"] < table["high"]).all()
    assert (table["high"] - table["low"] < 0.1).all()


def draws(frame, *columns):
    return draw_scores(frame, dict.fromkeys(columns, np.nan), RESAMPLING)


def test_oracle_share_is_the_ratio_of_lifts():
    frame = market()
    table = oracle_share(draws(frame, "probability", "volatility", "oracle_probability"))
    lift = {c: roc_auc_score(frame["trigger"], frame[c]) - 0.5 for c in ("probability", "oracle_probability")}
    row = table.loc[("probability", "pooled")]
    assert row["value"] == pytest.approx(lift["probability"] / lift["oracle_probability"])
    assert row["low"] < row["value"] < row["high"] < 1
    assert table.loc[("volatility", "pooled"), "low"] < 0.1, "noise has no share"
    assert table.index.unique("score").tolist() == ["probability", "volatility"]


def test_no_share_of_an_oracle_that_knows_nothing():
    table = oracle_share(draws(market().assign(oracle_probability=0.2), "probability", "oracle_probability"))
    assert table.isna().all(axis=None)


def test_intervals_as_text():
    table = pd.DataFrame(
        {"value": [0.7123, 0.5, np.nan], "low": [0.65, np.nan, np.nan], "high": [0.77, np.nan, np.nan]}
    )
    assert with_intervals(table).tolist() == ["0.712 (0.650 to 0.770)", "0.500", "–"]
