"""Labels against values worked out by hand."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.config.schema import DataConfig, LabelsConfig
from cmat_lib.data.candles import load_market
from cmat_lib.data.labels import auxiliary_targets, compute_labels, label_agreement, trailing_volatility

BAR = pd.Timedelta("15min")
START = pd.Timestamp("2025-03-01", tz="UTC")


def make_candles(close, high=None, low=None) -> pd.DataFrame:
    close = np.asarray(close, dtype=float)
    high = close if high is None else np.asarray(high, dtype=float)
    low = close if low is None else np.asarray(low, dtype=float)
    index = pd.date_range(START, periods=len(close), freq=BAR, name="timestamp")
    return pd.DataFrame({"open": close, "high": high, "low": low, "close": close, "volume": 1.0}, index=index)


def walk(rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, rows)))
    reach = np.exp(np.abs(rng.normal(0, 0.01, (2, rows))))
    return make_candles(close, close * reach[0], close / reach[1])


def same(values, expected) -> bool:
    return np.allclose(values, expected, rtol=1e-12, atol=0, equal_nan=True)


nan = np.nan


def test_percent_by_hand():
    candles = make_candles([100, 100, 100, 200, 100, 100], high=[150, 102, 104, 200, 101, 103])
    result = compute_labels(candles, LabelsConfig(horizon=2, threshold_pct=3.0), BAR)
    # The high of candle t itself (150 at the first) does not count.
    assert same(result["max_pct"], [4, 100, 100, -48.5, nan, nan])
    assert same(result["trigger"], [1, 1, 1, 0, nan, nan])
    ends = [START + k * BAR for k in (3, 4, 5, 6)]  # close of candle t+2 is the open of candle t+3
    assert result["label_end"].tolist()[:4] == ends and result["label_end"].isna().tolist()[4:] == [True, True]
    assert str(result["label_end"].dtype) == "datetime64[ns, UTC]" and result.index.equals(candles.index)


def test_threshold_itself_is_a_trigger():
    candles = make_candles([64, 66, 66])
    labels = [LabelsConfig(horizon=1, threshold_pct=pct) for pct in (3.125, 3.126)]
    assert [compute_labels(candles, each, BAR)["trigger"].iloc[0] for each in labels] == [1, 0]


@pytest.mark.parametrize("mode", ["percent", "sigma", "triple_barrier"])
def test_last_rows_and_rows_before_a_gap_have_no_label(mode):
    candles = walk(400).drop(index=walk(400).index[200])
    result = compute_labels(candles, LabelsConfig(mode=mode, horizon=16), BAR)
    past = 96 if mode == "sigma" else 0  # sigma also needs 96 returns behind it, in the same run
    expected = np.zeros(399, dtype=bool)
    expected[past : 200 - 16] = True
    expected[200 + past : 399 - 16] = True
    for column in result:
        assert (result[column].notna() == expected).all(), column


def test_series_shorter_than_the_horizon():
    assert compute_labels(walk(16), LabelsConfig(horizon=16), BAR).isna().all(axis=None)
    assert compute_labels(walk(17), LabelsConfig(horizon=16), BAR)["trigger"].notna().tolist() == [True] + [False] * 16


@pytest.mark.parametrize("mode", ["percent", "sigma", "triple_barrier"])
def test_labels_see_h_candles_and_no_further(mode):
    labels = LabelsConfig(mode=mode, horizon=8, threshold_pct=3.0, threshold_sigma=1.0, upper_pct=3.0)
    candles, t = walk(200), 150
    before = compute_labels(candles, labels, BAR)
    far, near = candles.copy(), candles.copy()
    prices = ["open", "high", "low", "close"]
    far.iloc[t + 9 :, :4] = far[prices].iloc[t + 9 :] * 3
    assert compute_labels(far, labels, BAR).iloc[: t + 1].equals(before.iloc[: t + 1])
    near.iloc[t + 8, near.columns.get_loc("high")] *= 3
    changed = compute_labels(near, labels, BAR)
    assert changed["max_pct"].iloc[t] > 100 > before["max_pct"].iloc[t]
    assert changed.iloc[:t].equals(before.iloc[:t])


@pytest.mark.parametrize("mode", ["percent", "triple_barrier"])
def test_labels_do_not_look_behind(mode):
    labels, candles = LabelsConfig(mode=mode, horizon=8), walk(200)
    whole, tail = compute_labels(candles, labels, BAR), compute_labels(candles.iloc[120:], labels, BAR)
    assert tail.equals(whole.iloc[120:])


def test_trailing_volatility_by_hand():
    candles = make_candles([1, 1, np.e, np.e, np.e**3, np.e**3, 1])  # log returns -, 0, 1, 0, 2, 0, -3
    expected = [nan, nan, nan, 3**-0.5, 1, 4 / 3**0.5 / 2, nan]
    expected[6] = np.std([2, 0, -3], ddof=1)
    assert np.allclose(trailing_volatility(candles, BAR, window=3), expected, atol=1e-12, equal_nan=True)
    with_gap = candles.drop(index=candles.index[2])  # runs of 2 and 4: the return across the gap is not used
    expected = [nan, nan, nan, nan, nan, expected[6]]
    assert np.allclose(trailing_volatility(with_gap, BAR, window=3), expected, atol=1e-12, equal_nan=True)


def test_sigma_by_hand():
    """Log returns +r, -r, +r, ... have the sample deviation r * sqrt(96/95); the threshold is 2 * that * sqrt(4)."""
    r = 0.01
    close = 100 * np.exp(r * (np.arange(140) % 2))  # 100 at even rows
    threshold = 100 * 2 * r * np.sqrt(96 / 95) * np.sqrt(4)
    for rise, trigger in ((threshold * 1.000001, 1), (threshold * 0.999999, 0)):
        candles = make_candles(close)
        candles.iloc[124, candles.columns.get_loc("high")] = 100 * (1 + rise / 100)
        labels = LabelsConfig(mode="sigma", horizon=4, threshold_sigma=2.0)
        result = compute_labels(candles, labels, BAR)
        assert result["trigger"].iloc[120] == trigger and result["max_pct"].iloc[120] == pytest.approx(rise, rel=1e-12)
        assert result["trigger"].iloc[119] == 0 and result["trigger"].notna().idxmax() == candles.index[96]


def test_flat_past_has_no_sigma_label():
    close = np.full(150, 100.0)
    close[130:] = 110
    result = compute_labels(make_candles(close), LabelsConfig(mode="sigma", horizon=4), BAR)
    assert result["trigger"].iloc[:130].isna().all() and result["trigger"].iloc[130] == 0


# Candles 1 to 3 after a close of 100; barriers at 103 and 98. (highs, lows, trigger)
BARRIERS = {
    "upper first": ([101, 104, 101], [99, 99, 97], 1),
    "lower first": ([101, 101, 104], [99, 97, 99], 0),
    "both in one candle": ([101, 104, 101], [99, 97, 99], 0),
    "neither": ([101, 102, 101], [99, 99, 99], 0),
    "upper alone, last candle": ([101, 101, 104], [99, 99, 99], 1),
    "lower alone, first candle": ([101, 101, 101], [97, 99, 99], 0),
    "exactly the upper": ([103, 101, 101], [99, 99, 99], 1),
    "lower before both": ([101, 104, 104], [97, 99, 97], 0),
}


@pytest.mark.parametrize("case", BARRIERS)
def test_triple_barrier(case):
    highs, lows, trigger = BARRIERS[case]
    # 104 after the horizon and 104 in candle 0 must not matter.
    candles = make_candles([100] * 5, high=[104, *highs, 104], low=[90, *lows, 90])
    labels = LabelsConfig(mode="triple_barrier", horizon=3, upper_pct=3.0, lower_pct=2.0)
    result = compute_labels(candles, labels, BAR)
    assert result["trigger"].iloc[0] == trigger
    assert result["max_pct"].iloc[0] == pytest.approx(max(highs) - 100, rel=1e-12)


@pytest.mark.parametrize(("low", "trigger"), [(62, 0), (62.001, 1)])
def test_reaching_a_barrier_exactly_counts(low, trigger):
    """66 / 64 and 62 / 64 are 3.125 % up and down without rounding."""
    candles = make_candles([64, 64, 64], high=[64, 64, 66], low=[64, low, 64])
    labels = LabelsConfig(mode="triple_barrier", horizon=2, upper_pct=3.125, lower_pct=3.125)
    assert compute_labels(candles, labels, BAR)["trigger"].iloc[0] == trigger


def test_triple_barrier_against_a_plain_loop():
    candles = walk(300, seed=3)
    result = compute_labels(candles, LabelsConfig(mode="triple_barrier", horizon=10, upper_pct=2.5, lower_pct=2.0), BAR)
    expected = []
    for t in range(290):
        outcome = 0.0
        for _, candle in candles.iloc[t + 1 : t + 11].iterrows():
            if candle["low"] <= candles["close"].iloc[t] * 0.98:
                break
            if candle["high"] >= candles["close"].iloc[t] * 1.025:
                outcome = 1.0
                break
        expected.append(outcome)
    assert result["trigger"].iloc[:290].tolist() == expected and 0.2 < np.mean(expected) < 0.8


# --- labels in the file


def flagged() -> pd.DataFrame:
    candles = make_candles([100] * 8, high=[100, 104, 100, 100, 104, 100, 100, 100])
    return candles.assign(trigger=[1, 0, 0, 1, 0, 1, 0, 0], max_pct=[4, 0.5, 4, 4, 0, 9, nan, 0])


def test_file_labels_are_used_where_the_horizon_is_there():
    result = compute_labels(flagged(), LabelsConfig(source="file", horizon=2), BAR)
    assert same(result["trigger"], [1, 0, 0, 1, 0, 1, nan, nan])
    assert same(result["max_pct"], [4, 0.5, 4, 4, 0, 9, nan, nan])
    assert result["label_end"].iloc[0] == START + 3 * BAR


def test_a_row_that_lacks_one_of_the_two_has_no_label():
    candles = flagged()
    candles.loc[candles.index[1], "max_pct"] = nan
    row = compute_labels(candles, LabelsConfig(source="file", horizon=2), BAR).iloc[1]
    assert row.isna().all()


@pytest.mark.parametrize("source", ["file", "computed"])
def test_label_agreement(source):
    # Computed triggers 1 0 1 1 0 0 and rises 4 0 4 4 0 0: two of six triggers differ, rises by 0 .5 0 0 0 9.
    result = label_agreement(flagged(), LabelsConfig(source=source, horizon=2), BAR)
    assert result == {
        "rows": 6,
        "trigger_disagreement": pytest.approx(2 / 6),
        "max_pct_difference": pytest.approx(9.5 / 6),
    }


def test_label_agreement_without_common_rows():
    result = label_agreement(flagged().iloc[:2], LabelsConfig(horizon=2), BAR)
    assert result["rows"] == 0 and np.isnan(result["trigger_disagreement"]) and np.isnan(result["max_pct_difference"])


def test_bad_file_labels():
    labels = LabelsConfig(source="file", horizon=2)
    with pytest.raises(CmatError, match=r"column 'trigger' at 2025-03-01 00:00 UTC: 2 is neither 0 nor 1"):
        compute_labels(flagged().assign(trigger=2.0), labels, BAR)
    with pytest.raises(CmatError, match=r"column 'max_pct' at 2025-03-01 00:00 UTC: inf is no rise"):
        compute_labels(flagged().assign(max_pct=np.inf), labels, BAR)
    with pytest.raises(CmatError, match=r"needs a column 'max_pct'"):
        compute_labels(flagged().drop(columns="max_pct"), labels, BAR)


# --- real candles


@pytest.mark.skipif("CMAT_TEST_DATA" not in os.environ, reason="CMAT_TEST_DATA (folder of real candles) is not set")
def test_base_rates_of_2025():
    """+3 % within 4 hours: 1.2 % of the candles of BTC and 8.1 % of those of SOL in 2025."""
    data = DataConfig(data_dir=os.environ["CMAT_TEST_DATA"], since="2025-01-01", until="2026-01-01")
    market = load_market(data)
    rates = {name: compute_labels(market[name], LabelsConfig(), data.bar)["trigger"].mean() for name in market}
    assert rates["BTCUSDT"] == pytest.approx(0.012, abs=0.001) and rates["SOLUSDT"] == pytest.approx(0.081, abs=0.001)


def test_auxiliary_targets_by_hand():
    """Closes 100, 101, 99, 102; highs and lows one above and below: H = 2 ahead of the first candle."""
    close = np.array([100.0, 101.0, 99.0, 102.0])
    index = pd.date_range("2025-01-01", periods=4, freq="15min", tz="UTC")
    candles = pd.DataFrame({"close": close, "high": close + 1, "low": close - 1}, index=index)
    found = auxiliary_targets(candles, 2, pd.Timedelta("15min"))
    returns = 100 * np.log([101 / 100, 99 / 101])
    volatility, rise, fall = np.sqrt((returns**2).mean()), 2.0, 2.0  # high 102 and low 98 around 100
    expected = np.log([volatility + 0.01, rise + fall + 0.05, rise + 0.1, fall + 0.1])
    np.testing.assert_allclose(found.iloc[0], expected, rtol=1e-6)
    assert found.iloc[2:].isna().all(axis=None) and found.iloc[:2].notna().all(axis=None)
    flat = candles.assign(close=100.0, high=100.0, low=100.0)
    np.testing.assert_allclose(
        auxiliary_targets(flat, 2, pd.Timedelta("15min")).iloc[0], np.log([0.01, 0.05, 0.1, 0.1]), rtol=1e-6
    )


def test_auxiliary_targets_do_not_cross_a_gap():
    close = np.linspace(100, 110, 9)
    index = pd.date_range("2025-01-01", periods=10, freq="15min", tz="UTC").delete(4)
    candles = pd.DataFrame({"close": close, "high": close, "low": close}, index=index)
    known = auxiliary_targets(candles, 2, pd.Timedelta("15min")).notna().all(axis=1)
    assert known.tolist() == [True, True, False, False, True, True, True, False, False]
