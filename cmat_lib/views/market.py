"""The view ``market``: the other symbols at the same moment, and one of them, the leader, by itself.

Markets move together, and where they do not, that tells something too. For each scale k of ``complexity.ranges`` there
are the mean and the dispersion of two numbers over the other symbols, and these two numbers of the leader: the log
range of the last k candles (see `cmat_lib.data.complexity.log_ranges`) and the log return over them. The leader is the
first of ``data.symbols``, else the first symbol by name, and a model keeps the one that it was trained with; its own
samples hold its own numbers there, so that a column means the same for every symbol.

Candles of one open time have one close time: whatever is read is known at the close of the row's own candle.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config
from cmat_lib.data.candles import window_ends
from cmat_lib.data.complexity import log_ranges
from cmat_lib.data.splits import Market
from cmat_lib.views.registry import Asked, Values, View

OTHERS = ("others_range_mean", "others_range_std", "others_return_mean", "others_return_std")
COLUMNS = (*OTHERS, "leader_range", "leader_return")


def market_names(config: Config) -> list[str]:
    """Columns of the view, such as ``others_range_mean_16``: all of the first scale, then all of the second."""
    return [f"{name}_{length}" for length in scales(config, "market") for name in COLUMNS]


def market_look_back(config: Config) -> int:
    """Candles of each symbol that one row reads, its own time included: a return over k has k + 1 closes."""
    return scales(config, "market")[-1] + 1


def market_values(symbol: str, market: Market, rows: np.ndarray, config: Config) -> np.ndarray:
    """Numbers of the market around one symbol at `rows` (n,) of its candles, float32 (n, len(market_names(config))).

    Without a unit of price. Of the symbol's own candles only the times are read, unless it is the leader. Another
    symbol counts at a scale k if it has a candle at the row's time and k before it without a gap. A row is NaN as a
    whole if at any scale no other symbol counts, or the leader does not.

    Raises
    ------
    CmatError
        If ``complexity.ranges`` is empty, or the market has one symbol only.
    """
    leader, others = _leader(market, config), [name for name in market if name != symbol]
    if not len(rows):
        return np.empty((0, len(market_names(config))), np.float32)
    times = market[symbol].index[rows]
    mean, deviation = _moments(_numbers_at(times, market[name], config) for name in others)  # (n, S, 2) each
    both = np.stack([mean, deviation], axis=-1).reshape(*mean.shape[:2], 4)  # range and return, mean and deviation
    values = np.concatenate([both, _numbers_at(times, market[leader], config)], axis=2)  # (n, S, 6)
    values = values.reshape(len(rows), -1)
    return np.where(np.isfinite(values).all(axis=1, keepdims=True), values, np.nan).astype(np.float32)


def scales(config: Config, view: str) -> list[int]:
    """Scales of a view in candles, ascending: ``complexity.ranges``, which must not be empty then."""
    if not config.complexity.ranges:
        problem = f"the view '{view}' looks back over the candles that complexity.ranges lists, and it is empty"
        advice = f"set complexity.ranges, for example [4, 16, 96], or take '{view}' out of model.modalities"
        raise CmatError(f"{problem}: {advice}")
    return config.complexity.ranges


def _leader(market: Market, config: Config) -> str:
    """The leader of a market; a CmatError for one that cannot be used."""
    scales(config, "market")
    if len(market) < 2:
        few = f"the view 'market' needs at least two symbols, and the market has {', '.join(market)} only"
        advice = "add candles of others (data.data_dir, data.symbols), or take 'market' out of model.modalities"
        raise CmatError(f"{few}: {advice}")
    leader = config.data.symbols[0] if config.data.symbols else min(market)
    if leader not in market:
        raise CmatError(f"the view 'market' reads its leader {leader}, and the market has only {', '.join(market)}")
    return leader


def _numbers_at(times: pd.DatetimeIndex, candles: pd.DataFrame, config: Config) -> np.ndarray:
    """Log range and log return of one symbol at moments and scales, (n, S, 2); NaN where it does not count."""
    begin = max(candles.index.searchsorted(times.min()) - market_look_back(config) + 1, 0)
    read = candles.iloc[begin : candles.index.searchsorted(times.max(), side="right")]
    lengths = config.complexity.ranges
    ranges, log_close = log_ranges(read, lengths), np.log(read["close"].to_numpy(np.float64))  # (T, S), (T,)
    out = np.full((len(read) + 1, len(lengths), 2), np.nan)  # the last row, -1, is for times without a candle
    for column, length in enumerate(lengths):
        ends = window_ends(read, config.data.bar, length + 1)
        out[ends, column, 0] = ranges[ends, column]
        out[ends, column, 1] = log_close[ends] - log_close[ends - length]
    return out[read.index.get_indexer(times)]


def _moments(symbols: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (ddof 0) over arrays of one shape without their NaN; the latter NaN where all are.

    One array at a time (Welford 1962, Technometrics 4, 419), so that memory does not grow with the symbols.
    """
    count = mean = squares = 0.0
    for values in symbols:
        known = np.isfinite(values)
        count = count + known
        step = np.where(known, values - mean, 0.0)
        mean = mean + step / np.maximum(count, 1)
        squares = squares + step * np.where(known, values - mean, 0.0)
    return mean, np.sqrt(squares / np.where(count > 0, count, np.nan))


def _problem(asked: Asked) -> str | None:
    """Another symbol without the newest candle would change what the others say."""
    time = asked.candles.index[asked.rows[-1]]
    absent = [symbol for symbol, candles in asked.market.items() if time not in candles.index]
    if absent:
        return f"the view 'market' reads the candle of {absent[0]} that opens at {time}, and it is not there yet"
    values = market_values(asked.symbol, asked.market, asked.rows[-1:], asked.config)
    return None if np.isfinite(values).all() else f"the view 'market' has gaps in the candles before {time}"


VIEW = View(
    name="market",
    title="Market",
    names=market_names,
    compute=lambda asked: Values(market_values(asked.symbol, asked.market, asked.rows, asked.config)),
    look_back=market_look_back,
    check=market_names,
    admit=_leader,
    problem=_problem,
    reads_others=True,
    may_be_absent=True,
)
