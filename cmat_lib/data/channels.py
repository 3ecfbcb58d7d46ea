"""Input channels of the OHLCV view: causal, scale-free, each with a declared look-back.

A channel is one function of a gap-free stretch of candles and one line in `CHANNELS`. The function gets a frame with
the index `timestamp` and prices divided by the symbol's first close, so that no price level can matter (quote columns
stay as they are), and returns one number per candle, which may depend on that candle and earlier ones only and is
defined for any valid one. Its *look-back* is the number of candles, the newest included, that its value needs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from itertools import pairwise

import numpy as np
import pandas as pd
import talib
from numpy.typing import DTypeLike

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.config.inputs import OHLC
from cmat_lib.data.sessions import stretch_ids

RECURSIVE = 256  # candles in which Wilder's and exponential averages forget their start, to 1e-7
Z_BOUND = 6.0  # bound of the volume z-score; a candle without volume stands at the lower one
Z_SMALLEST_SIGMA = 1e-3  # of log volume; below it the volume is constant
SMALLEST_RATIO = 1e-3  # floor of volume and trade size over their trailing means, before the logarithm
SMALLEST_RANGE = 1e-6  # floor of ATR and of the Bollinger band, as a share of the close; below it the price is flat
ROUNDING = 1e-12  # relative change of a sum of prices that is none
# Candles without a price change after which RSI, a ratio of two vanishing averages, is that of flat prices.
FLAT_AFTER = 64


@dataclass(frozen=True)
class Channel:
    """One input channel."""

    function: Callable[[pd.DataFrame], np.ndarray]  # gap-free stretch -> (T,), ignored before the look-back
    look_back: int  # candles, the newest included, that a value depends on
    group: str  # ``price``, ``volume`` or ``technical``; free for a user's own
    columns: tuple[str, ...]  # candle columns that the function reads


def compute_channels(
    candles: pd.DataFrame, names: Sequence[str], bar: pd.Timedelta, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """Channels of one symbol, (T, C): NaN where the look-back is not complete inside the row's gap-free stretch.

    `names` are as in `channel_of`. Price channels are log prices minus the anchor, the log of the frame's first close;
    it keeps them precise in float32 and cancels when the window's last log close is subtracted (in float64 it leaves no
    trace in what a window holds). Raises a CmatError for an unknown channel, a column that is missing or not finite, or
    a channel that is not finite somewhere.
    """
    channels = {name: channel_of(name) for name in names}
    columns = dict.fromkeys([*OHLC, *(column for channel in channels.values() for column in channel.columns)])
    for column in columns:
        if column not in candles:
            users = ", ".join(name for name, channel in channels.items() if column in channel.columns) or "all channels"
            raise CmatError(f"candles have no column '{column}', needed by {users}: add it or change data.channels")
        bad = candles.index[~np.isfinite(candles[column].to_numpy(dtype=np.float64))]
        if len(bad):
            problem = f"column '{column}' is not finite at {bad[0]}"
            raise CmatError(f"{_origin(candles)}{problem}: complete or remove the row")
    out = np.full((len(candles), len(names)), np.nan, dtype=dtype)  # (T, C)
    if candles.empty:
        return out
    relative = candles.astype(dict.fromkeys(columns, np.float64))
    relative[list(OHLC)] /= relative["close"].iloc[0]
    for start, stop in pairwise(np.flatnonzero(np.diff(stretch_ids(candles, bar), prepend=-1, append=-1))):
        stretch = relative.iloc[start:stop]
        for place, name in enumerate(names):
            first = channels[name].look_back - 1
            if first < len(stretch):
                out[start + first : stop, place] = _evaluate(name, channels[name], stretch)[first:]
    return out


def look_back(names: Sequence[str]) -> int:
    """Candles, the newest included, that the longest-looking of these channels needs."""
    return max(channel_of(name).look_back for name in names)


def channel_of(name: str) -> Channel:
    """Entry of `CHANNELS`; ``volume_zscore:168`` is that one over 168 candles (2 or more), if it has a `window`."""
    base, colon, size = name.partition(":")
    if base not in CHANNELS:
        raise CmatError(f"data.channels: unknown channel '{base}'{nearest(base, CHANNELS)}")
    if not colon:
        return CHANNELS[base]
    function = CHANNELS[base].function
    window = signature(function).parameters.get("window")
    if window is None or not size.isdecimal() or int(size) < 2:
        raise CmatError(f"data.channels: '{name}': {base} has no such window; write a whole number, or '{base}' alone")
    reach = CHANNELS[base].look_back + int(size) - window.default
    return replace(CHANNELS[base], function=partial(function, window=int(size)), look_back=reach)


def _origin(candles: pd.DataFrame) -> str:
    return f"{candles.attrs['source']}: " if candles.attrs.get("source") else ""


def _evaluate(name: str, channel: Channel, stretch: pd.DataFrame) -> np.ndarray:
    """Values of one channel in one stretch, (T,), checked: a NaN would end in the weights of the model."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values = np.asarray(channel.function(stretch), dtype=np.float64)
        seen = values.astype(np.float32)  # by the model, whatever is asked for
    if values.shape != (len(stretch),):
        raise CmatError(f"channel '{name}' returned the shape {values.shape}: return one number for each candle")
    bad = np.flatnonzero(~np.isfinite(seen[channel.look_back - 1 :]))
    if bad.size:
        problem = f"channel '{name}' is not finite at {stretch.index[channel.look_back - 1 + bad[0]]}"
        raise CmatError(f"{_origin(stretch)}{problem}: check the candles up to it, or define the channel there")
    return values


def _rolling_sum(values: np.ndarray, window: int) -> np.ndarray:
    """Sum over the last `window` values, shape (T,), NaN before; each sum is made afresh.

    Running sums (TA-Lib, pandas) keep a rounding residue of what left the window, which tells where trading stops.
    """
    out = np.full(values.size, np.nan)
    if values.size >= window:
        out[window - 1 :] = np.lib.stride_tricks.sliding_window_view(values, window).sum(axis=1)
    return out


def ratio(top: np.ndarray, bottom: np.ndarray, otherwise: float) -> np.ndarray:
    """top / bottom, and `otherwise` where bottom is 0."""
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), otherwise)


def _arrays(stretch: pd.DataFrame, *columns: str) -> list[np.ndarray]:
    return [stretch[column].to_numpy() for column in columns]


def _log_price(stretch: pd.DataFrame, column: str) -> np.ndarray:
    return np.log(stretch[column].to_numpy())


def volume_zscore(stretch: pd.DataFrame, window: int = 672) -> np.ndarray:
    """Log volume, z-scored over the traded of the last `window`; in [-6, 6], -6 without volume, 0 if none or equal."""
    volume = stretch["volume"].to_numpy()
    traded = volume > 0
    log_volume = np.log(np.where(traded, volume, 1.0))
    count = np.maximum(_rolling_sum(traded.astype(np.float64), window), 1.0)
    mean = _rolling_sum(log_volume, window) / count
    variance = _rolling_sum(log_volume**2, window) / count - mean**2
    z = np.clip((log_volume - mean) / np.sqrt(np.maximum(variance, Z_SMALLEST_SIGMA**2)), -Z_BOUND, Z_BOUND)
    return np.where(traded, z, np.where(_rolling_sum(volume, window) > 0, -Z_BOUND, 0.0))


def volume_ratio(stretch: pd.DataFrame, window: int = 96) -> np.ndarray:
    """Log of volume over its mean of the last `window` candles; in [log 0.001, log `window`], 0 if nothing traded."""
    volume = stretch["volume"].to_numpy()
    relative = ratio(volume, _rolling_sum(volume, window) / window, otherwise=1.0)
    return np.log(np.maximum(relative, SMALLEST_RATIO))


def obv_change(stretch: pd.DataFrame, window: int = 24) -> np.ndarray:
    """Change of on-balance volume (Granville 1963) over `window` candles per volume of those; in [-1, 1]."""
    close, volume = _arrays(stretch, "close", "volume")
    signed = np.sign(np.diff(close, prepend=close[:1])) * volume
    return ratio(_rolling_sum(signed, window), _rolling_sum(volume, window), otherwise=0.0)


def vwap_distance(stretch: pd.DataFrame, window: int = 96) -> np.ndarray:
    """Log of the close over the volume-weighted typical price of `window` candles; 0 if nothing traded."""
    high, low, close, volume = _arrays(stretch, "high", "low", "close", "volume")
    money = _rolling_sum((high + low + close) / 3 * volume, window)
    vwap = ratio(money, _rolling_sum(volume, window), otherwise=0.0)
    return np.log(ratio(close, vwap, otherwise=1.0))


def mfi(stretch: pd.DataFrame, window: int = 14) -> np.ndarray:
    """Money flow index (Quong and Soudack 1989), mapped from [0, 100] to [-1, 1]; -1 if no money flows."""
    high, low, close, volume = _arrays(stretch, "high", "low", "close", "volume")
    typical = (high + low + close) / 3
    money, change = typical * volume, np.diff(typical, prepend=typical[:1]) / typical
    rising = _rolling_sum(np.where(change > ROUNDING, money, 0.0), window)
    moving = _rolling_sum(np.where(np.abs(change) > ROUNDING, money, 0.0), window)
    return 2 * ratio(rising, moving, otherwise=0.0) - 1


def taker_imbalance(stretch: pd.DataFrame) -> np.ndarray:
    """Taker buys minus taker sells per volume of the candle; in [-1, 1], 0 without volume."""
    volume, bought = _arrays(stretch, "volume", "taker_buy_volume")
    return np.clip(2 * ratio(bought, volume, otherwise=0.5) - 1, -1.0, 1.0)


def trade_size(stretch: pd.DataFrame, window: int = 96) -> np.ndarray:
    """Log of the mean trade size over that of the last `window` candles; within ±log 1000, 0 without trades."""
    volume, trades = _arrays(stretch, "volume", "trades")
    usual = ratio(_rolling_sum(volume, window), _rolling_sum(trades, window), otherwise=0.0)
    size = ratio(ratio(volume, trades, otherwise=0.0), usual, otherwise=0.0)
    return np.log(np.clip(np.where(size > 0, size, 1.0), SMALLEST_RATIO, 1 / SMALLEST_RATIO))


def _is_flat(close: np.ndarray) -> np.ndarray:
    """Whether the close stood still for so long that a ratio of its vanishing averages means nothing, shape (T,)."""
    return _rolling_sum(np.abs(np.diff(close, prepend=close[:1])), FLAT_AFTER) == 0


def rsi(stretch: pd.DataFrame) -> np.ndarray:
    """Relative strength index (Wilder 1978), 14 candles, mapped from [0, 100] to [-1, 1]; -1 for flat prices."""
    close = stretch["close"].to_numpy()
    return np.where(_is_flat(close), 0.0, talib.RSI(close, 14)) / 50 - 1


def _average_true_range(stretch: pd.DataFrame) -> np.ndarray:
    """ATR(14) in price units, at least a millionth of the close: flat prices have an ATR of 0."""
    high, low, close = _arrays(stretch, "high", "low", "close")
    return np.maximum(talib.ATR(high, low, close, 14), SMALLEST_RANGE * close)


def macd(stretch: pd.DataFrame) -> np.ndarray:
    """MACD(12, 26, 9) histogram (Appel 1979) over ATR(14); 0 for flat prices."""
    close = stretch["close"].to_numpy()
    return np.where(_is_flat(close), 0.0, talib.MACD(close, 12, 26, 9)[2] / _average_true_range(stretch))


def bollinger(stretch: pd.DataFrame) -> np.ndarray:
    """Bollinger's %B(20, 2), mapped so that the bands are at ±1; within ±sqrt(19)/2, 0 for flat prices."""
    close = stretch["close"].to_numpy()
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2)
    return np.where(upper - lower > SMALLEST_RANGE * close, 2 * (close - middle) / (upper - lower), 0.0)


def atr(stretch: pd.DataFrame) -> np.ndarray:
    """Log of ATR(14) over the close (Wilder 1978); at least log 1e-6, which flat prices have."""
    return np.log(_average_true_range(stretch) / stretch["close"].to_numpy())


def roc(stretch: pd.DataFrame, window: int = 24) -> np.ndarray:
    """Rate of change over `window` candles, as a share of the price then."""
    return talib.ROCP(stretch["close"].to_numpy(), window)


CHANNELS: dict[str, Channel] = {
    **{f"log_{price}": Channel(partial(_log_price, column=price), 1, "price", (price,)) for price in OHLC},
    "volume_zscore": Channel(volume_zscore, 672, "volume", ("volume",)),
    "volume_ratio": Channel(volume_ratio, 96, "volume", ("volume",)),
    "obv_change": Channel(obv_change, 25, "volume", ("close", "volume")),
    "vwap_distance": Channel(vwap_distance, 96, "volume", ("high", "low", "close", "volume")),
    "mfi": Channel(mfi, 15, "volume", ("high", "low", "close", "volume")),
    "taker_imbalance": Channel(taker_imbalance, 1, "volume", ("volume", "taker_buy_volume")),
    "trade_size": Channel(trade_size, 96, "volume", ("volume", "trades")),
    "rsi": Channel(rsi, RECURSIVE, "technical", ("close",)),
    "macd": Channel(macd, RECURSIVE, "technical", ("high", "low", "close")),
    "bollinger": Channel(bollinger, 20, "technical", ("close",)),
    "atr": Channel(atr, RECURSIVE, "technical", ("high", "low", "close")),
    "roc": Channel(roc, 25, "technical", ("close",)),
}
