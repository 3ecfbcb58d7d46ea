"""Views of other symbols and of trades: equal to slow loops, nothing from later, defined over gaps and in halts."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.data.candles import load_market
from cmat_lib.data.sessions import CLOSED
from cmat_lib.views.flow import flow_look_back, flow_names, flow_values
from cmat_lib.views.market import market_look_back, market_names, market_values

RANGES = [1, 4, 16]
WINDOW = 64


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def configured(ranges=tuple(RANGES), window=WINDOW, **data):
    return load_config(changes={"complexity": {"ranges": [*ranges], "window_size": window}, "data": data})


CONFIG = configured()
BAR = CONFIG.data.bar


def make_candles(seed=0, n=300):
    """A walk with volumes over five orders of magnitude."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=n, freq=BAR, tz="UTC", name="timestamp")
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    start = np.append(100.0, close[:-1])
    wicks = np.exp(np.abs(rng.normal(0, 0.004, (2, n))))
    volume = 10 ** rng.uniform(-1, 4, n)
    columns = {
        "open": start,
        "high": np.maximum(start, close) * wicks[0],
        "low": np.minimum(start, close) / wicks[1],
        "close": close,
        "volume": volume,
        "trades": np.ceil(volume / rng.uniform(0.5, 2, n)),
        "taker_buy_volume": volume * rng.uniform(0, 1, n),
    }
    return pd.DataFrame(columns, index=index)


def make_market(n=300):
    """Four symbols; B lacks three candles, C starts later, D ends earlier."""
    market = {name: make_candles(seed, n) for seed, name in enumerate("ABCD")}
    market["B"] = market["B"].drop(market["B"].index[[120, 121, 200]])
    market["C"] = market["C"].iloc[40:]
    market["D"] = market["D"].iloc[:-30]
    return market


def last_candles(candles, time, k):
    """k + 1 candles up to `time`, or None if one is missing; closures that are known are no gap."""
    if time not in candles.index:
        return None
    last = candles.index.get_loc(time)
    if last < k:
        return None
    part = candles.iloc[last - k : last + 1]
    closed = part[CLOSED].to_numpy()[1:] if CLOSED in part else np.zeros(k)
    steps = [(b - a) / BAR - 1 for a, b in zip(part.index[:-1], part.index[1:], strict=True)]
    return part if list(closed) == steps else None


def two_numbers(candles, time, k):
    """Log range and log return of k candles; NaN if they are not complete."""
    part = last_candles(candles, time, k)
    if part is None:
        return np.nan, np.nan
    spread = math.log(max(part["high"].iloc[1:]) / min(part["low"].iloc[1:]))
    return math.log(100 * spread + 0.01), math.log(part["close"].iloc[-1] / part["close"].iloc[0])


def market_row(symbol, market, time, leader, ranges):
    """One row of the view, by a loop over scales and symbols."""
    row = []
    for k in ranges:
        others = [two_numbers(market[name], time, k) for name in market if name != symbol]
        others = np.array([pair for pair in others if not math.isnan(pair[0])])
        lead = two_numbers(market[leader], time, k)
        if not len(others) or math.isnan(lead[0]):
            return [np.nan] * 6 * len(ranges)
        spread, change = others.T
        row += [np.mean(spread), np.std(spread), np.mean(change), np.std(change), *lead]
    return row


def assert_market_equals_loop(symbol, market, rows, config, leader):
    times = market[symbol].index[rows]
    expected = [market_row(symbol, market, time, leader, config.complexity.ranges) for time in times]
    found = market_values(symbol, market, rows, config)
    assert found.dtype == np.float32 and found.shape == (len(rows), len(market_names(config)))
    # float32, and a log range that was rounded to float32 before it was averaged
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-6, atol=1e-6)
    return found


def flow_row(candles, row, config):
    """One row of the view, by exact sums."""
    window, out = config.complexity.window_size, []

    def sums(length):
        part = candles.iloc[row - length + 1 : row + 1]
        return [math.fsum(part[name]) for name in ("volume", "trades", "taker_buy_volume")]

    volume_w, trades_w, _ = sums(window)
    for k in config.complexity.ranges:
        volume, trades, bought = sums(k)
        out.append(2 * bought / volume - 1 if volume else 0.0)
        out.append(math.log(max((trades / k) / (trades_w / window), 1e-3)) if trades_w else 0.0)
        size = (volume / trades) / (volume_w / trades_w) if trades and volume else 1.0
        out.append(math.log(min(max(size, 1e-3), 1e3)))
    return out


def assert_flow_equals_loop(candles, rows, config):
    expected = np.array([flow_row(candles, row, config) for row in rows])
    found = flow_values("A", candles, rows, config)
    assert found.dtype == np.float32 and found.shape == (len(rows), len(flow_names(config)))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)  # float32, and a log near 0
    return found


# --- market


@pytest.mark.parametrize("symbol", "ABCD")
def test_market_equals_a_loop(symbol):
    market = make_market()
    found = assert_market_equals_loop(symbol, market, np.arange(len(market[symbol])), CONFIG, "A")
    missing = np.isnan(found).any(axis=1)
    assert missing.sum() == (0 if symbol == "C" else 16)  # all but C have 16 rows before the leader's window is full
    assert np.isnan(found[missing]).all()


def test_market_equals_a_loop_on_real_candles(real_candles):
    config = configured((4, 16, 96), 672, data_dir=str(real_candles), since="2025-09-20", until="2025-10-20")
    market = load_market(config.data)
    crash = market["SOLUSDT"].index.get_loc(pd.Timestamp("2025-10-10 21:15", tz="UTC"))
    rows = np.r_[95:98, 400:2800:60, crash - 1 : crash + 3, crash + 94 : crash + 98]
    for symbol in ("BTCUSDT", "SOLUSDT"):
        found = assert_market_equals_loop(symbol, market, rows, config, "BTCUSDT")
        assert np.isnan(found).all(axis=1).tolist() == [True] + [False] * (len(rows) - 1)


def test_market_names_say_what_the_columns_hold():
    assert market_names(configured((4, 16)))[:7] == [
        "others_range_mean_4",
        "others_range_std_4",
        "others_return_mean_4",
        "others_return_std_4",
        "leader_range_4",
        "leader_return_4",
        "others_range_mean_16",
    ]


def test_market_changes_nothing_before():
    market = make_market()
    rows, after = np.arange(150), market["A"].index[149]
    for symbol in market:
        later = {name: own.copy() for name, own in market.items()}
        later[symbol].loc[later[symbol].index > after, ["open", "high", "low", "close"]] *= 3.0
        np.testing.assert_array_equal(market_values("A", later, rows, CONFIG), market_values("A", market, rows, CONFIG))
        cut = {name: own[own.index <= after] for name, own in market.items()}
        np.testing.assert_array_equal(market_values("A", cut, rows, CONFIG), market_values("A", market, rows, CONFIG))
    later = {name: own.copy() for name, own in market.items()}
    later["B"].loc[after, "high"] *= 3.0  # the row's own candle is read
    assert (market_values("A", later, rows, CONFIG) != market_values("A", market, rows, CONFIG))[149].any()


def test_market_look_back_suffices_and_is_needed():
    market, back = make_market(), market_look_back(CONFIG)
    row = market["A"].index.get_loc(pd.Timestamp("2024-01-02 01:00", tz="UTC"))
    whole = market_values("A", market, np.array([row]), CONFIG)
    assert np.isfinite(whole).all() and back == 17

    def with_only(candles):
        start = market["A"].index[row - candles + 1]
        part = {name: own[own.index >= start] for name, own in market.items()}
        return market_values("A", part, np.array([candles - 1]), CONFIG)

    np.testing.assert_array_equal(with_only(back), whole)
    assert np.isnan(with_only(back - 1)).all()


def test_market_rows_alone_are_as_in_a_batch():
    market = make_market()
    rows = np.array([250, 100, 137, 5])  # in any order
    alone = [market_values("A", market, rows[i : i + 1], CONFIG)[0] for i in range(len(rows))]
    np.testing.assert_array_equal(market_values("A", market, rows, CONFIG), alone)
    none = market_values("A", market, rows[:0], CONFIG)
    assert none.shape == (0, 18) and none.dtype == np.float32


def test_market_leaves_out_a_symbol_with_a_gap():
    market = {name: make_candles(seed) for seed, name in enumerate("ABC")}
    gapped = {**market, "C": market["C"].drop(market["C"].index[100])}
    rows, config = np.arange(80, 140), configured((4,))
    found = market_values("B", gapped, rows, config)
    without = market_values("B", {name: market[name] for name in "AB"}, rows, config)
    whole = market_values("B", market, rows, config)
    reach = np.arange(20, 25)  # rows 100 to 104: C has no candle, or fewer than five since the gap
    np.testing.assert_array_equal(found[reach], without[reach])
    rest = np.delete(np.arange(60), reach)
    np.testing.assert_array_equal(found[rest], whole[rest])
    leaderless = {**market, "A": market["A"].drop(market["A"].index[100])}
    missing = np.isnan(market_values("B", leaderless, rows, config)).all(axis=1)
    assert np.flatnonzero(missing).tolist() == reach.tolist()


def test_market_without_common_times_is_nan():
    market = {"A": make_candles(0), "B": make_candles(1)}
    for shift in (-1000, 1000):
        away = {**market, "B": market["B"].shift(shift, freq=BAR)}
        assert np.isnan(market_values("A", away, np.arange(300), CONFIG)).all()
    off_grid = {**market, "B": market["B"].shift(5, freq="min")}
    assert np.isnan(market_values("A", off_grid, np.arange(300), CONFIG)).all()
    assert np.isnan(market_values("A", {**market, "B": market["B"].iloc[:0]}, np.arange(300), CONFIG)).all()


def test_market_looks_over_closures_that_are_joined():
    whole = make_market()
    open_hours = {name: own[own.index.hour < 8] for name, own in whole.items()}
    joined = {}
    for name, own in open_hours.items():
        steps = np.diff(own.index, prepend=own.index[:1] - BAR) / BAR - 1
        joined[name] = own.assign(**{CLOSED: np.where(steps >= 64, 64.0, 0.0)})
    rows = np.arange(len(joined["A"]))
    found = assert_market_equals_loop("A", joined, rows, CONFIG, "A")
    assert np.isnan(market_values("A", open_hours, rows, CONFIG)).sum() > np.isnan(found).sum()


def test_market_of_two_has_no_dispersion():
    market = {"A": make_candles(0), "B": make_candles(1)}
    table = pd.DataFrame(market_values("A", market, np.arange(20, 300), CONFIG), columns=market_names(CONFIG))
    assert (table[["others_range_std_4", "others_return_std_16"]] == 0).all(axis=None)
    assert (table["others_range_mean_4"] != table["leader_range_4"]).all()  # A leads itself


@pytest.mark.parametrize(("symbols", "leader"), [(None, "A"), (["C", "A", "B", "D"], "C"), (["D"], "D")])
def test_market_leader(symbols, leader):
    market = {name: make_candles(seed) for seed, name in enumerate("ABCD")}
    config = configured(symbols=symbols)
    for symbol in market:
        assert_market_equals_loop(symbol, market, np.arange(100, 120), config, leader)


def test_market_without_its_leader():
    market = {name: make_candles(seed) for seed, name in enumerate("AB")}
    with pytest.raises(CmatError, match="reads its leader X, and the market has only A, B"):
        market_values("A", market, np.arange(100, 120), configured(symbols=["X", "B"]))


def test_market_order_of_symbols_does_not_matter():
    market = make_market()
    turned = {name: market[name] for name in reversed(market)}
    for symbol in market:
        rows = np.arange(len(market[symbol]))
        np.testing.assert_array_equal(
            market_values(symbol, turned, rows, CONFIG), market_values(symbol, market, rows, CONFIG)
        )


def test_market_has_no_unit():
    market = make_market()
    cheap = {name: own.assign(**(own[["open", "high", "low", "close"]] / 4096)) for name, own in market.items()}
    rows = np.arange(300)
    np.testing.assert_allclose(
        market_values("A", cheap, rows, CONFIG), market_values("A", market, rows, CONFIG), rtol=1e-6, atol=1e-9
    )


def test_flat_market_is_finite():
    flat = make_candles().assign(open=5.0, high=5.0, low=5.0, close=5.0)
    found = market_values("A", {"A": flat, "B": flat}, np.arange(16, 300), CONFIG)
    np.testing.assert_allclose(found, np.tile([np.log(0.01), 0, 0, 0, np.log(0.01), 0], (284, 3)), rtol=1e-6)


def test_market_errors():
    market = make_market()
    with pytest.raises(CmatError, match=r"at least two symbols.* A only.*model\.modalities"):
        market_values("A", {"A": market["A"]}, np.array([100]), CONFIG)
    empty = configured(())
    for call in (market_names, market_look_back, lambda config: market_values("A", market, np.array([100]), config)):
        with pytest.raises(CmatError, match=r"'market'.*set complexity\.ranges, for example \[4, 16, 96\]"):
            call(empty)


# --- flow


def test_flow_equals_a_loop():
    assert_flow_equals_loop(make_candles(), np.arange(WINDOW - 1, 300), CONFIG)


def test_flow_equals_a_loop_on_real_candles(real_candles):
    config = configured((4, 16, 96, 672), 672, data_dir=str(real_candles), since="2025-09-20", until="2025-10-20")
    for candles in load_market(config.data).values():
        crash = candles.index.get_loc(pd.Timestamp("2025-10-10 21:15", tz="UTC"))
        rows = np.r_[671, 700:2800:100, crash - 1 : crash + 3, crash + 95 : crash + 97, crash + 671 : crash + 673]
        found = assert_flow_equals_loop(candles, rows, config)
        assert (found[:, -2:] == 0).all()  # the window beside itself


def test_flow_names_say_what_the_columns_hold():
    columns = ["taker_imbalance_4", "trade_count_4", "trade_size_4", "taker_imbalance_16", "trade_count_16"]
    assert flow_names(configured((4, 16)))[:5] == columns


def test_flow_forgets_a_spike():
    candles = make_candles(n=1200)
    columns = ["volume", "trades", "taker_buy_volume"]
    candles.iloc[:400, [candles.columns.get_loc(name) for name in columns]] *= 1e10
    candles.loc[candles.index[470:], columns] = [1e-6, 1.0, 0.9e-6]
    found = assert_flow_equals_loop(candles, np.arange(WINDOW - 1, 1200), CONFIG)
    np.testing.assert_allclose(found[-1], np.tile([0.8, 0, 0], 3), atol=1e-6)


def test_flow_needs_its_look_back_and_no_more():
    candles = make_candles()
    candles.iloc[:150, candles.columns.get_loc("volume")] *= 1e9
    back = flow_look_back(CONFIG)
    assert back == WINDOW
    rows = np.array([299, 150, WINDOW - 1, 213, 214])
    parts = [flow_values("A", candles.iloc[row - back + 1 : row + 1], np.array([back - 1]), CONFIG)[0] for row in rows]
    np.testing.assert_allclose(parts, flow_values("A", candles, rows, CONFIG), rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match=f"looks back {WINDOW} candles"):
        flow_values("A", candles, np.array([100, WINDOW - 2]), CONFIG)


def test_flow_changes_nothing_before():
    candles, rows = make_candles(), np.arange(WINDOW - 1, 150)
    later = candles.copy()
    later.iloc[150:] *= 7.0
    np.testing.assert_array_equal(flow_values("A", later, rows, CONFIG), flow_values("A", candles, rows, CONFIG))
    np.testing.assert_array_equal(
        flow_values("A", candles.iloc[:150], rows, CONFIG), flow_values("A", candles, rows, CONFIG)
    )


def test_flow_in_halts():
    candles = make_candles(n=600)
    columns = ["volume", "trades", "taker_buy_volume"]
    candles.loc[candles.index[100:350], columns] = 0.0  # longer than the window
    candles.loc[candles.index[400:402], "trades"] = 0.0  # volume without trades
    candles.loc[candles.index[420:425], ["volume", "taker_buy_volume"]] = 0.0  # trades without volume
    candles.loc[candles.index[500], "trades"] *= 1e6
    candles.loc[candles.index[590], ["volume", "trades"]] = [1e9, 1.0]
    found = assert_flow_equals_loop(candles, np.arange(WINDOW - 1, 600), CONFIG)
    table = pd.DataFrame(found, index=np.arange(WINDOW - 1, 600), columns=flow_names(CONFIG))
    assert np.isfinite(found).all()
    assert table.loc[110, "trade_count_4"] == pytest.approx(np.log(1e-3)) and table.loc[110, "trade_size_4"] == 0
    assert (table.loc[200] == 0).all()
    assert table.loc[350, "trade_count_1"] == pytest.approx(np.log(WINDOW))  # all trades of the window in one candle
    assert table.loc[500, "trade_size_1"] < 0 and table.loc[590, "trade_size_1"] == pytest.approx(np.log(1000))


def test_flow_has_no_unit():
    candles = make_candles()
    scaled = candles.assign(
        volume=candles["volume"] * 1e-3,
        taker_buy_volume=candles["taker_buy_volume"] * 1e-3,
        trades=9 * candles["trades"],
    )
    rows = np.arange(WINDOW - 1, 300)
    np.testing.assert_allclose(
        flow_values("A", scaled, rows, CONFIG), flow_values("A", candles, rows, CONFIG), rtol=1e-5, atol=1e-7
    )


def test_flow_of_no_rows():
    none = flow_values("A", make_candles(n=10), np.array([], dtype=int), CONFIG)
    assert none.shape == (0, 9) and none.dtype == np.float32


def test_flow_errors():
    candles, rows = make_candles(), np.array([200])
    with pytest.raises(CmatError, match=r"^A: .*'flow' reads .* no taker_buy_volume: .*model\.modalities"):
        flow_values("A", candles.drop(columns="taker_buy_volume"), rows, CONFIG)
    with pytest.raises(CmatError, match="no trades and no taker_buy_volume"):
        flow_values("A", candles[["open", "high", "low", "close", "volume"]], rows, CONFIG)
    broken = candles.copy()
    broken.loc[broken.index[190], "trades"] = np.nan
    with pytest.raises(CmatError, match=r"A: column 'trades'.*not finite at 2024-01-02 23:30"):
        flow_values("A", broken, rows, CONFIG)
    assert np.isfinite(flow_values("A", broken, np.array([189]), CONFIG)).all()
    empty = configured(())
    for call in (flow_names, flow_look_back, lambda config: flow_values("A", candles, rows, config)):
        with pytest.raises(CmatError, match=r"'flow'.*set complexity\.ranges, for example \[4, 16, 96\]"):
            call(empty)
