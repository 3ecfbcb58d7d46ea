"""The view ``flow``: who trades, how often and in what size, from columns that files of Binance klines have.

For each scale k of ``complexity.ranges``, with W = ``complexity.window_size``:

* ``taker_imbalance_k``: taker buys minus taker sells per volume of the last k candles; in [-1, 1], 0 without volume.
* ``trade_count_k``: log of the mean trades a candle over the last k candles over that of the last W; in
  [log 0.001, log(W / k)], 0 if nothing traded in W.
* ``trade_size_k``: the same of the mean trade size; within ±log 1000, 0 without trades.

No number has a unit, so that symbols can be pooled, and all are finite, in halts too.
"""

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config
from cmat_lib.data.channels import SMALLEST_RATIO, ratio
from cmat_lib.views.market import scales
from cmat_lib.views.registry import Values, View

READ = ["volume", "trades", "taker_buy_volume"]
COLUMNS = ("taker_imbalance", "trade_count", "trade_size")


def flow_names(config: Config) -> list[str]:
    """Columns of the view, such as ``trade_count_16``: all of the first scale, then all of the second."""
    return [f"{name}_{length}" for length in scales(config, "flow") for name in COLUMNS]


def flow_look_back(config: Config) -> int:
    """Candles that one row reads, its own included; no scale is longer than the window."""
    scales(config, "flow")
    return config.complexity.window_size


def flow_values(symbol: str, candles: pd.DataFrame, rows: np.ndarray, config: Config) -> np.ndarray:
    """Trading activity at `rows` (n,) that have `flow_look_back` candles without a gap, float32 (n, len(flow_names)).

    Finite; candles before a row's look-back leave no trace in it. A CmatError if ``complexity.ranges`` is empty, or one
    of the columns `READ` is missing or not finite; a ValueError if a row has fewer candles than its look-back.
    """
    lengths, window = scales(config, "flow"), flow_look_back(config)
    if not len(rows):
        return np.empty((0, len(COLUMNS) * len(lengths)), np.float32)
    begin = np.min(rows) - window + 1
    if begin < 0:
        raise ValueError(f"the view 'flow' looks back {window} candles, row {np.min(rows)} of {symbol} has fewer")
    amounts, ends = _amounts(symbol, candles.iloc[begin : np.max(rows) + 1]), np.asarray(rows) - begin  # (3, t), (n,)
    usual = _sums(amounts, ends, window) / window  # (3, n), a candle
    return np.concatenate([_ratios(_sums(amounts, ends, n) / n, usual) for n in lengths]).T.astype(np.float32)


def _amounts(symbol: str, candles: pd.DataFrame) -> np.ndarray:
    """Volume, trades and taker buys, (3, t)."""
    instead = "take 'flow' out of model.modalities"
    if missing := [name for name in READ if name not in candles]:
        reads = f"the view 'flow' reads the columns {', '.join(READ)}, as in Binance klines"
        lack = f"these candles have no {' and no '.join(missing)}"
        advice = f"add that, or name its column in data.columns, or {instead}"
        raise CmatError(f"{symbol}: {reads}, and {lack}: {advice}")
    amounts = candles[READ].to_numpy(np.float64)
    for row, column in np.argwhere(~np.isfinite(amounts))[:1]:
        where = f"column '{READ[column]}', which the view 'flow' reads, is not finite at {candles.index[row]}"
        raise CmatError(f"{symbol}: {where}: complete or remove the row, or {instead}")
    return amounts.T


def _sums(amounts: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """Sums over the `length` candles up to each end, (3, n)."""
    # Each afresh: running sums keep a rounding residue of what left the window, all that is seen where trading is thin.
    return sliding_window_view(amounts, length, axis=1).sum(axis=2)[:, ends - length + 1]


def _ratios(recent: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """The three numbers of one scale, (3, n), from means a candle (3, n) over it and over the window."""
    volume, trades, bought = recent
    imbalance = np.clip(2 * ratio(bought, volume, otherwise=0.5) - 1, -1.0, 1.0)
    count = np.maximum(ratio(trades, usual[1], otherwise=1.0), SMALLEST_RATIO)
    usual_size = ratio(usual[0], usual[1], otherwise=0.0)
    size = ratio(ratio(volume, trades, otherwise=0.0), usual_size, otherwise=0.0)
    size = np.clip(np.where(size > 0, size, 1.0), SMALLEST_RATIO, 1 / SMALLEST_RATIO)
    return np.stack([imbalance, np.log(count), np.log(size)])


VIEW = View(
    name="flow",
    title="Flow",
    names=flow_names,
    compute=lambda asked: Values(flow_values(asked.symbol, asked.candles, asked.rows, asked.config)),
    look_back=flow_look_back,
    check=flow_names,
    admit=lambda market, config: [_amounts(symbol, candles) for symbol, candles in market.items()],
)
