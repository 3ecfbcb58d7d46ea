"""Channels: known values, no look-ahead, sufficient look-backs, no scale, defined everywhere."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib

from cmat_lib.base.errors import CmatError
from cmat_lib.config.inputs import PRICE_CHANNELS, TAKER_SWAP, TECHNICAL_CHANNELS, VOLUME_CHANNELS, DataConfig
from cmat_lib.data.channels import CHANNELS, Channel, channel_of, compute_channels, look_back

BAR = pd.Timedelta("15min")
NAMES = list(CHANNELS)
OTHERS = [name for name in NAMES if name not in PRICE_CHANNELS]


def make_candles(count=1600, seed=0, price=50.0):
    """Random walk with heavy-tailed volume and taker columns."""
    rng = np.random.default_rng(seed)
    close = price * np.exp(np.cumsum(0.004 * rng.standard_t(4, count)))
    opens = np.r_[price, close[:-1]]
    wick = np.exp(0.002 * np.abs(rng.standard_normal((2, count))))
    volume = 1000 * rng.lognormal(0, 1, count)
    frame = {
        "open": opens,
        "high": np.maximum(opens, close) * wick[0],
        "low": np.minimum(opens, close) / wick[1],
        "close": close,
        "volume": volume,
        "trades": rng.integers(10, 500, count).astype(float),
        "taker_buy_volume": volume * rng.uniform(0, 1, count),
    }
    index = pd.date_range("2025-01-01", periods=count, freq=BAR, tz="UTC", name="timestamp")
    return pd.DataFrame(frame, index=index)


def set_prices(candles, rows, price):
    candles.loc[candles.index[rows], ["open", "high", "low", "close"]] = price


def channel(candles, name):
    return compute_channels(candles, [name], BAR)[:, 0]


@pytest.fixture(scope="module")
def candles():
    return make_candles()


def test_registry_holds_the_names_of_the_schema():
    groups = {group: [n for n, c in CHANNELS.items() if c.group == group] for group in ("price", "volume", "technical")}
    assert groups["price"] == list(PRICE_CHANNELS)
    assert set(groups["volume"]) == {*VOLUME_CHANNELS, *TAKER_SWAP.values()}
    assert groups["technical"] == list(TECHNICAL_CHANNELS)
    assert compute_channels(make_candles(700), DataConfig().channel_names, BAR).shape == (700, 14)


def test_rows_before_the_look_back_and_only_they_are_nan(candles):
    values = compute_channels(candles, NAMES, BAR)
    assert values.dtype == np.float32
    for column, name in enumerate(NAMES):
        first = CHANNELS[name].look_back - 1
        assert np.isnan(values[:first, column]).all() and np.isfinite(values[first:, column]).all(), name


def test_look_back_is_the_longest():
    assert look_back(["log_close", "mfi", "roc"]) == 25
    assert look_back(DataConfig().channel_names) == 672
    assert look_back(["log_close"]) == 1


def test_the_future_changes_no_past_value(candles):
    whole = compute_channels(candles, NAMES, BAR)
    changed = candles.copy()
    changed.iloc[1200:] = changed.iloc[1200:] * 7
    np.testing.assert_array_equal(compute_channels(candles.iloc[:1200], NAMES, BAR), whole[:1200])
    np.testing.assert_array_equal(compute_channels(changed, NAMES, BAR)[:1200], whole[:1200])


def assert_look_back_suffices(candles, rows):
    """The declared candles alone give the value of the whole history; price channels up to their anchor."""
    whole = compute_channels(candles, NAMES, BAR)
    for row in rows:
        for column, name in enumerate(NAMES):
            part = candles.iloc[row - CHANNELS[name].look_back + 1 : row + 1]
            shift = np.log(part["close"].iloc[0] / candles["close"].iloc[0]) if name in PRICE_CHANNELS else 0.0
            assert channel(part, name)[-1] + shift == pytest.approx(whole[row, column], abs=1e-5), (name, row)


def test_declared_look_backs_suffice(candles):
    assert_look_back_suffices(candles, range(700, 1600, 75))


@pytest.mark.skipif("CMAT_TEST_DATA" not in os.environ, reason="CMAT_TEST_DATA names no folder of real candles")
def test_declared_look_backs_suffice_on_real_candles():
    real = pd.read_parquet(Path(os.environ["CMAT_TEST_DATA"]) / "SOLUSDT_15m.parquet").set_index("timestamp")
    real = real.loc["2025-09-25":"2025-10-16"].astype(float)  # with the crash of 10 October
    crash = int(real["low"].pct_change().argmin())
    assert_look_back_suffices(real, [700, crash, crash + 1, crash + 30, crash + 200, crash + 255, crash + 300])


def test_declared_look_backs_suffice_after_a_halt():
    halted = make_candles()
    set_prices(halted, slice(900, 1300), halted["close"].iloc[899])
    halted.iloc[900:1300, halted.columns.get_loc("volume")] = 0.0
    rows = [900, 930, 962, 963, 970, 1100, 1155, 1299, 1300, 1301, 1320, 1400, 1500, 1560, 1599]
    assert_look_back_suffices(halted, rows)


def test_scale_of_price_and_volume_does_not_matter(candles):
    scaled = candles.copy()
    scaled[["open", "high", "low", "close"]] *= 1000
    scaled[["volume", "taker_buy_volume"]] *= 1e-3
    # prices too: the anchor takes their scale
    np.testing.assert_allclose(
        compute_channels(scaled, NAMES, BAR), compute_channels(candles, NAMES, BAR), rtol=1e-5, atol=1e-6
    )


def test_nothing_looks_across_a_gap(candles):
    gapped = candles.drop(candles.index[800:805])
    values = compute_channels(gapped, OTHERS, BAR)
    np.testing.assert_array_equal(values[:800], compute_channels(candles, OTHERS, BAR)[:800])
    alone = compute_channels(candles.iloc[805:], OTHERS, BAR)
    np.testing.assert_allclose(values[800:], alone, rtol=1e-5, atol=1e-6)  # another anchor, same values
    assert np.isnan(values[800 : 800 + 671, OTHERS.index("volume_zscore")]).all()


def test_a_run_shorter_than_every_look_back_is_nan(candles):
    values = compute_channels(candles.drop(candles.index[5:8]).iloc[:9], OTHERS, BAR)
    assert np.isnan(np.delete(values, OTHERS.index("taker_imbalance"), axis=1)).all()
    assert compute_channels(candles.iloc[:0], NAMES, BAR).shape == (0, len(NAMES))


def test_price_channels_are_log_prices_from_the_first_close(candles):
    expected = np.log(candles[["open", "high", "low", "close"]] / candles["close"].iloc[0])
    np.testing.assert_allclose(compute_channels(candles, PRICE_CHANNELS, BAR), expected, atol=1e-6)


def test_rsi_by_wilders_own_recursion(candles):
    change = np.diff(candles["close"])
    gain, loss = change[:14].clip(min=0).mean(), -change[:14].clip(max=0).mean()
    for step in change[14:]:
        gain, loss = (13 * gain + max(step, 0)) / 14, (13 * loss + max(-step, 0)) / 14
    assert channel(candles, "rsi")[-1] == pytest.approx(2 * gain / (gain + loss) - 1, abs=1e-6)


def test_rsi_of_two_up_one_down():
    zigzag = make_candles(601)
    zigzag["close"] = 100 + np.r_[0, np.cumsum(np.tile([2.0, 2.0, -1.0], 200))]
    # after a down step the newest of the period weighs most: gains 2 (q + q²), losses 1, each over 1 - q³
    q = 13 / 14
    gain, loss = 2 * (q + q**2), 1.0
    assert channel(zigzag, "rsi")[-1] == pytest.approx(2 * gain / (gain + loss) - 1, abs=1e-5)


def test_bollinger_is_half_the_z_score_of_twenty_closes(candles):
    last = candles["close"].to_numpy()[-20:]
    expected = (last[-1] - last.mean()) / (2 * last.std())
    assert channel(candles, "bollinger")[-1] == pytest.approx(expected, abs=1e-6)


def test_atr_and_macd_against_plain_recursions(candles):
    high, low, close = (candles[name].to_numpy() for name in ("high", "low", "close"))
    before = close[:-1]
    true_range = np.maximum(high[1:], before) - np.minimum(low[1:], before)
    wilder = pd.Series(true_range).ewm(alpha=1 / 14, adjust=False).mean().to_numpy()[-1]
    line = pd.Series(close).ewm(span=12, adjust=False).mean() - pd.Series(close).ewm(span=26, adjust=False).mean()
    histogram = (line - line.ewm(span=9, adjust=False).mean()).to_numpy()[-1]
    assert channel(candles, "atr")[-1] == pytest.approx(np.log(wilder / close[-1]), abs=1e-6)
    assert channel(candles, "macd")[-1] == pytest.approx(histogram / wilder, abs=1e-6)


def test_volume_channels_against_numpy(candles):
    high, low, close, volume = (candles[name].to_numpy() for name in ("high", "low", "close", "volume"))
    logs = np.log(volume[-672:])
    vwap = np.average(((high + low + close) / 3)[-96:], weights=volume[-96:])
    on_balance = talib.OBV(close, volume)
    expected = {
        "volume_zscore": (logs[-1] - logs.mean()) / logs.std(),
        "volume_ratio": np.log(volume[-1] / volume[-96:].mean()),
        "obv_change": (on_balance[-1] - on_balance[-25]) / volume[-24:].sum(),
        "vwap_distance": np.log(close[-1] / vwap),
        "roc": close[-1] / close[-25] - 1,
    }
    for name, value in expected.items():
        assert channel(candles, name)[-1] == pytest.approx(value, abs=1e-6), name


def test_mfi_equals_talib_where_its_running_sums_are_sound(candles):
    reference = talib.MFI(*(candles[name].to_numpy() for name in ("high", "low", "close", "volume")), 14)
    np.testing.assert_allclose(channel(candles, "mfi")[14:], reference[14:] / 50 - 1, atol=1e-6)


def test_taker_channels_by_hand():
    day = make_candles(96)
    day["volume"], day["trades"], day["taker_buy_volume"] = 10.0, 5.0, 7.5
    day.iloc[-1, day.columns.get_indexer(["volume", "trades", "taker_buy_volume"])] = [40.0, 10.0, 10.0]
    usual = (95 * 10 + 40) / (95 * 5 + 10)
    assert channel(day, "taker_imbalance")[[0, -1]] == pytest.approx([0.5, -0.5])
    assert channel(day, "trade_size")[-1] == pytest.approx(np.log(4 / usual), abs=1e-6)


def test_flat_prices():
    flat = make_candles(800)
    set_prices(flat, slice(None), 3.7)
    last = dict(zip(NAMES, compute_channels(flat, NAMES, BAR)[-1], strict=True))
    assert [last[name] for name in ("rsi", "mfi", "bollinger", "macd", "obv_change", "roc")] == [-1, -1, 0, 0, 0, 0]
    assert last["atr"] == pytest.approx(np.log(1e-6))
    assert last["vwap_distance"] == pytest.approx(0, abs=1e-6)


def test_prices_that_stop_moving_become_flat_prices():
    halted = make_candles(1600)
    set_prices(halted, slice(1200, None), halted["close"].iloc[1199])
    last = dict(zip(NAMES, compute_channels(halted, NAMES, BAR)[-1], strict=True))
    assert last["rsi"] == -1 and last["bollinger"] == 0 and last["mfi"] == -1
    assert last["atr"] == pytest.approx(np.log(1e-6)) and last["macd"] == pytest.approx(0, abs=1e-6)


def test_no_volume_at_all():
    silent = make_candles(800)
    silent[["volume", "trades", "taker_buy_volume"]] = 0.0
    last = dict(zip(NAMES, compute_channels(silent, NAMES, BAR)[-1], strict=True))
    zero = ("volume_zscore", "volume_ratio", "obv_change", "vwap_distance", "taker_imbalance", "trade_size")
    assert [last[name] for name in zero] == [0] * 6
    assert last["mfi"] == -1


def test_one_candle_without_volume_stands_at_the_lower_bound():
    candles = make_candles(800)
    candles.iloc[-1, candles.columns.get_indexer(["volume", "trades", "taker_buy_volume"])] = 0.0
    last = dict(zip(NAMES, compute_channels(candles, NAMES, BAR)[-1], strict=True))
    assert last["volume_zscore"] == -6
    assert last["volume_ratio"] == pytest.approx(np.log(1e-3))
    assert last["taker_imbalance"] == 0 and last["trade_size"] == 0


def test_huge_volume_leaves_no_trace_after_its_window():
    """Running sums would keep its rounding residue; sums made afresh forget it."""
    quiet, after = make_candles(1000), make_candles(1000)
    after.iloc[500, after.columns.get_loc("volume")] = 1e18
    for name in ("volume_ratio", "obv_change", "vwap_distance", "mfi"):
        np.testing.assert_array_equal(channel(after, name)[600:], channel(quiet, name)[600:], err_msg=name)


@pytest.mark.parametrize("price", [1e-9, 1e9])
@pytest.mark.parametrize("volume", [1e-12, 1e15])
def test_finite_and_bounded_for_tiny_and_huge_markets(price, volume):
    candles = make_candles(900, seed=3, price=price)
    candles[["volume", "taker_buy_volume"]] *= volume
    candles.iloc[800, candles.columns.get_indexer(["open", "high"])] *= 1000.0  # a wild print
    candles.iloc[850:, candles.columns.get_indexer(["open", "high", "low", "close"])] /= 100.0
    values = compute_channels(candles, NAMES, BAR)
    assert np.isfinite(values[671:]).all()
    for name in ("obv_change", "mfi", "taker_imbalance", "rsi"):
        assert np.abs(values[671:, NAMES.index(name)]).max() <= 1


def test_unknown_channel_names_the_nearest(candles):
    with pytest.raises(CmatError, match=r"unknown channel 'volume_zscor'; did you mean 'volume_zscore'"):
        compute_channels(candles, ["volume_zscor"], BAR)
    with pytest.raises(CmatError, match="valid names are log_open"):
        look_back(["qqq"])


WINDOWED = ["volume_zscore", "volume_ratio", "obv_change", "vwap_distance", "mfi", "trade_size", "roc"]


def test_another_window_is_another_channel(candles):
    for name in WINDOWED:
        usual = next(iter(channel_of(f"{name}:10").function.keywords.values()))
        assert usual == 10 and look_back([f"{name}:10"]) in (10, 11)
        assert not np.allclose(*(channel(candles, n)[700:] for n in (name, f"{name}:10")))
    np.testing.assert_array_equal(channel(candles, "roc:24"), channel(candles, "roc"))
    change = np.diff(np.log(candles["close"].to_numpy()))
    np.testing.assert_allclose(np.log1p(channel(candles, "roc:2")[2:]), change[1:] + change[:-1], atol=1e-6)


def test_declared_look_backs_of_other_windows_suffice(candles):
    for name in (f"{name}:{size}" for name in WINDOWED for size in (2, 10, 300)):
        reach, whole = look_back([name]), channel(candles, name)
        part = candles.iloc[900 - reach + 1 : 901]
        assert channel(part, name)[-1] == pytest.approx(whole[900], abs=1e-5)
        assert np.isnan(channel(part.iloc[1:], name)).all()


@pytest.mark.parametrize("name", ["rsi:7", "roc:", "roc:x", "roc:1", "roc:2.5", "roc:-3", "log_close:4"])
def test_a_window_that_cannot_be(name):
    with pytest.raises(CmatError, match=rf"'{name}': {name.split(':')[0]} has no such window"):
        channel_of(name)


def test_missing_taker_column_is_named(candles):
    with pytest.raises(CmatError, match=r"no column 'taker_buy_volume', needed by taker_imbalance"):
        compute_channels(candles.drop(columns="taker_buy_volume"), ["log_close", "taker_imbalance"], BAR)


def test_a_nan_never_gets_into_an_indicator(candles):
    broken = candles.copy()
    broken.iloc[40, broken.columns.get_loc("close")] = np.nan
    with pytest.raises(CmatError, match=r"column 'close' is not finite at 2025-01-01 10:00"):
        compute_channels(broken, ["rsi"], BAR)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rows", "columns", "value", "name"),
    [(slice(40, 41), ["high", "close"], 1e300, "roc"), (slice(None), ["volume"], 1e308, "obv_change")],
)
def test_what_32_bits_cannot_hold_is_refused_with_its_file(candles, dtype, rows, columns, value, name):
    huge = candles.copy()
    huge.loc[huge.index[rows], columns] = value
    huge.attrs["source"] = "A.csv"
    with pytest.raises(CmatError, match=rf"^A\.csv: channel '{name}' is not finite at 2025-01-01 \d\d:"):
        compute_channels(huge, [name], BAR, dtype)


def test_own_channel_is_one_function_and_one_line(candles, monkeypatch):
    def hour(run):
        return np.sin(2 * np.pi * run.index.hour / 24)

    monkeypatch.setitem(CHANNELS, "hour_sine", Channel(hour, 1, "clock", ()))
    values = compute_channels(candles, ["hour_sine", "log_close"], BAR)
    assert values[6 * 4, 0] == pytest.approx(1) and values[18 * 4, 0] == pytest.approx(-1)


def test_own_channel_with_holes_is_refused(candles, monkeypatch):
    monkeypatch.setitem(CHANNELS, "hole", Channel(lambda run: np.log(run["volume"] * 0), 1, "own", ("volume",)))
    with pytest.raises(CmatError, match=r"channel 'hole' is not finite at 2025-01-01 00:00"):
        compute_channels(candles, ["hole"], BAR)
    monkeypatch.setitem(CHANNELS, "short", Channel(lambda run: run["close"].to_numpy()[1:], 1, "own", ("close",)))
    with pytest.raises(CmatError, match="one number for each candle"):
        compute_channels(candles, ["short"], BAR)
