"""Trades worked out by hand: barriers, costs, one position at a time, random moments."""

import numpy as np
import pandas as pd
import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.config.schema import LabelsConfig
from cmat_lib.data.labels import compute_labels, trailing_volatility
from cmat_lib.evaluation.decision import (
    daily_returns,
    decide,
    decision_table,
    random_moments,
    random_trades,
    signals,
)
from cmat_lib.evaluation.trades import add_outcomes, one_at_a_time, trade_line, trade_outcomes
from cmat_lib.evaluation.uncertainty import Resampling

BAR = pd.Timedelta("1h")
RESAMPLING = Resampling(pd.Timedelta("28h"), samples=60, seed=2)


def candles(close, high=None, low=None):
    time = pd.date_range("2024-01-01", periods=len(close), freq=BAR, tz="UTC", name="timestamp")
    close = np.asarray(close, float)
    high, low = close if high is None else high, close if low is None else low
    return pd.DataFrame({"open": close, "high": high, "low": low, "close": close}, index=time)


def test_take_profit_and_end_of_the_horizon():
    labels = LabelsConfig(horizon=2, threshold_pct=3.0)
    market = candles([100, 101, 102, 100, 100], high=[100, 101, 104, 100, 100])
    found = trade_outcomes(market, labels, BAR)
    # 0: the high of candle 2 is +4 %, sold at +3 %; 1: 104/101 is +2.97 %, so the close of 3; 2: flat from 102 to 100
    np.testing.assert_allclose(found["gross_pct"], [3.0, 100 * (100 / 101 - 1), 100 * (100 / 102 - 1), np.nan, np.nan])
    assert found["exit"].tolist()[:3] == [2, 3, 4]
    at_once = trade_outcomes(candles([100, 100, 100], high=[100, 110, 100]), labels, BAR)
    assert at_once["gross_pct"].iloc[0] == 3.0 and at_once["exit"].iloc[0] == 1, "never better than the barrier"


def test_the_candle_of_the_signal_does_not_count():
    found = trade_outcomes(candles([100, 100, 100], high=[200, 100, 100]), LabelsConfig(horizon=2), BAR)
    assert found["gross_pct"].iloc[0] == 0


def test_triple_barrier_sells_at_the_first_and_the_lower_wins_a_tie():
    labels = LabelsConfig(mode="triple_barrier", horizon=3, upper_pct=3.0, lower_pct=2.0)
    upper_first = candles([100] * 4, high=[100, 103, 100, 100], low=[100, 100, 97, 100])
    lower_first = candles([100] * 4, high=[100, 100, 103, 100], low=[100, 97, 100, 100])
    both = candles([100] * 4, high=[100, 103, 100, 100], low=[100, 97, 100, 100])
    for market, gross, leave in ((upper_first, 3.0, 1), (lower_first, -2.0, 1), (both, -2.0, 1)):
        row = trade_outcomes(market, labels, BAR).iloc[0]
        assert (row["gross_pct"], row["exit"]) == (gross, leave)


def test_a_stop_loss_that_the_market_jumps_over_fills_at_the_open():
    labels = LabelsConfig(mode="triple_barrier", horizon=2, upper_pct=3.0, lower_pct=2.0)
    market = candles([100, 95, 95], low=[100, 94, 95])
    assert trade_outcomes(market, labels, BAR)["gross_pct"].iloc[0] == pytest.approx(-5.0), "opens at 95"
    slow = market.assign(open=[100, 99, 95])
    assert trade_outcomes(slow, labels, BAR)["gross_pct"].iloc[0] == -2.0


def test_sigma_barrier_is_the_labels():
    rng = np.random.default_rng(0)
    market = candles(100 * np.exp(np.cumsum(rng.normal(0, 0.01, 300))))
    labels = LabelsConfig(mode="sigma", horizon=4, threshold_sigma=0.5)
    found = trade_outcomes(market, labels, BAR)
    trigger = compute_labels(market, labels, BAR)["trigger"]
    known = trigger.notna()
    barrier = 100 * 0.5 * trailing_volatility(market, BAR, 96) * 2
    hit = known & (trigger == 1)
    np.testing.assert_allclose(found["gross_pct"][hit], barrier[hit])
    assert (found["gross_pct"][known & (trigger == 0)] < barrier[known & (trigger == 0)]).all()
    assert hit.sum() > 10


def test_percent_trades_win_where_the_label_says_so():
    rng = np.random.default_rng(1)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, 400)))
    market = candles(close, high=close * 1.01, low=close * 0.99)
    labels = LabelsConfig(horizon=4, threshold_pct=3.0)
    found, label = trade_outcomes(market, labels, BAR), compute_labels(market, labels, BAR)
    known = label["trigger"].notna()
    assert ((found["gross_pct"] == 3.0) == (label["trigger"] == 1))[known].all()


def test_the_past_does_not_hang_on_the_future():
    market = candles(100 + np.arange(50.0) % 7)
    labels = LabelsConfig(horizon=4)
    early = trade_outcomes(market, labels, BAR)
    changed = market.copy()
    changed.iloc[30:] *= 2
    np.testing.assert_array_equal(trade_outcomes(changed, labels, BAR)[:26], early[:26])


def frame(days=40, seed=0, skill=0.0):
    """Two symbols, calibrate then test; `score` knows the outcome of a trade as far as `skill` says."""
    rng = np.random.default_rng(seed)
    market = {s: candles(100 * np.exp(np.cumsum(rng.normal(0, 0.01, 24 * days)))) for s in "BA"}
    rows = pd.concat({s: c.iloc[:-4, :0] for s, c in market.items()}, names=["symbol", "timestamp"]).reset_index()
    middle = rows["timestamp"].iloc[0] + pd.Timedelta(days=days / 4)
    rows["part"] = np.where(rows["timestamp"] < middle, "calibrate", "test")
    traded = add_outcomes(rows, market, LabelsConfig(horizon=4, threshold_pct=1.5), BAR, 0.2)
    traded["trigger"] = (traded["net_pct"] > 1.2).astype(float)
    traded["score"] = rng.normal(size=len(traded)) + skill * traded["net_pct"]
    return traded


def test_costs_come_off_and_rows_stay_with_their_candles():
    traded = frame()
    assert traded["symbol"].is_monotonic_increasing
    assert traded["net_pct"].max() == pytest.approx(1.5 - 0.2)
    assert (traded["exit"] - traded["candle"]).between(1, 4).all()


def test_momentum_is_the_change_over_the_candles_before():
    market = {"A": candles([100, 110, 121, 121, 60.5, 60.5])}
    rows = pd.DataFrame({"symbol": "A", "timestamp": market["A"].index[2:4]})
    found = add_outcomes(rows, market, LabelsConfig(horizon=2), BAR, 0.2)["momentum"]
    assert found.tolist() == pytest.approx([21, 10])


def test_a_row_without_a_horizon_is_an_error():
    market = {"A": candles(np.full(10, 100.0))}
    rows = pd.DataFrame({"symbol": "A", "timestamp": market["A"].index[-2:]})
    with pytest.raises(CmatError, match="A at 2024-01-01 08:00"):
        add_outcomes(rows, market, LabelsConfig(horizon=4), BAR, 0.2)


def test_one_position_per_symbol_at_a_time():
    rows = pd.DataFrame({"symbol": list("AAAAABB"), "candle": [0, 1, 2, 3, 4, 0, 1], "exit": [3, 5, 6, 7, 8, 4, 5]})
    line = trade_line(rows)
    assert one_at_a_time(*line, np.arange(7)).tolist() == [0, 3, 5], "0 leaves at 3, where the next may enter"
    assert one_at_a_time(*line, np.array([1, 2, 4, 6])).tolist() == [1, 6]
    assert one_at_a_time(*line, np.array([], int)).tolist() == []


def test_the_border_is_the_quantile_of_the_month_before():
    traded = frame(days=80)
    test = traded[traded["part"] == "test"].reset_index(drop=True)
    (rows,) = signals(traded, "score", [0.05])
    for row in (0, 500, len(test) - 1):
        moment = test["timestamp"][row]
        before = traded[(traded["timestamp"] < moment) & (traded["timestamp"] >= moment - pd.Timedelta(days=30))]
        assert (row in rows) == (test["score"][row] >= np.quantile(before["score"], 0.95))
    assert len(rows) / len(test) == pytest.approx(0.05, abs=0.01)


def test_a_signal_knows_nothing_of_later_rows():
    traded = frame(days=80)
    later = traded["timestamp"] > pd.Timestamp("2024-02-15", tz="UTC")
    changed = traded.assign(score=np.where(later, traded["score"] + 99, traded["score"]))
    test = traded[traded["part"] == "test"]
    early = np.flatnonzero(~later[test.index])
    (a,), (b,) = (signals(frame_, "score", [0.1]) for frame_ in (traded, changed))
    assert set(a) & set(early) == set(b) & set(early) and len(b) > len(a)


def test_skill_earns_and_noise_does_not():
    clever, noise = (decision_table(frame(days=120, skill=s), ["score"], [0.05, 0.2], RESAMPLING) for s in (1.0, 0.0))
    assert (clever["low"] > clever["random_high"]).all() and (clever["beats_random"] == 1).all()
    assert (noise["low"] < noise["random_pct"]).all() and (noise["high"] > noise["random_pct"]).all()
    assert noise["beats_random"].between(0.01, 0.99).all()
    assert noise["signal_share"].to_numpy() == pytest.approx([0.05, 0.2], abs=0.03)


def test_table_holds_the_means_of_the_trades():
    traded = frame(days=60)
    test = traded[traded["part"] == "test"]
    trades = decide(traded, ["score"], [0.1])["score", 0.1]["trades"]
    row = decision_table(traded, ["score"], [0.1], RESAMPLING).loc[("score", 0.1)]
    net = test["net_pct"].iloc[trades]
    assert row[["trades", "net_pct", "std_pct"]].tolist() == pytest.approx([len(net), net.mean(), net.std()])
    assert row["low"] < row["net_pct"] < row["high"]
    hit = test["trigger"].iloc[trades] == 1
    expected = [hit.mean(), net[hit].mean(), net[~hit].mean()]
    assert row[["hit_share", "hit_pct", "miss_pct"]].tolist() == pytest.approx(expected) and 0 < hit.mean() < 1


def test_no_trades_give_nan():
    traded = frame()
    traded["score"] = -np.arange(len(traded), dtype=float)  # ever lower
    traded = traded[traded["symbol"] == "A"]
    row = decision_table(traded, ["score"], [0.1], RESAMPLING).loc[("score", 0.1)]
    assert row["trades"] == 0 and row.drop(["trades", "signal_share"]).isna().all()


def test_random_moments_keep_symbol_and_hour():
    traded = frame(days=80)
    test = traded[traded["part"] == "test"]
    at_three = (test["timestamp"].dt.hour == 3) & (test["symbol"] == "A")
    test = test.assign(net_pct=np.where(at_three, 7.0, -1.0))
    rows = np.flatnonzero(at_three)[::5]
    draws = random_trades(test, rows, seed=0, draws=50)
    assert (draws["net_pct"] == 7.0).all() and (draws["trades"] == len(rows)).all()
    pd.testing.assert_frame_equal(draws, random_trades(test, rows, seed=0, draws=50))
    other = random_trades(test, np.flatnonzero(test["timestamp"].dt.hour == 4)[::5], seed=0, draws=50)
    assert (other["net_pct"] == -1.0).all()


def test_random_moments_are_as_many_as_the_trades_and_do_not_overlap():
    rng = np.random.default_rng(0)
    enter = np.arange(2400)
    line, cell = (enter, enter + 4), enter % 24
    trades = one_at_a_time(*line, np.flatnonzero(rng.random(2400) < 0.04))
    for rows in random_moments(rng, line, cell, trades, 20):
        assert (np.diff(rows) >= 4).all()
        assert np.array_equal(np.bincount(cell[rows], minlength=24), np.bincount(cell[trades], minlength=24))
    (full,) = random_moments(rng, line, cell, enter[::4], 1)
    assert 0.5 * 600 < len(full) < 600 and (np.diff(full) >= 4).all(), "no room for all"


def test_days_without_a_trade_return_nothing():
    traded = frame()
    test = traded[traded["part"] == "test"]
    rows = np.array([0, 1, 30])
    daily = daily_returns(test, rows, BAR)
    assert daily.sum() == pytest.approx(test["net_pct"].iloc[rows].sum()) and (daily != 0).sum() == 2
    assert len(daily) == (test["timestamp"].max() + BAR).dayofyear - (test["timestamp"].min() + BAR).dayofyear + 1
    assert daily.index.is_monotonic_increasing


def test_days_on_which_the_market_is_closed_are_no_days():
    traded = frame()
    test = traded[traded["part"] == "test"]
    closed = (test["timestamp"] + BAR).dt.dayofyear == (test["timestamp"].iloc[0] + BAR).dayofyear + 1
    open_days = test[~closed]
    assert len(daily_returns(open_days, np.array([0]), BAR)) == len(daily_returns(test, np.array([0]), BAR)) - 1
