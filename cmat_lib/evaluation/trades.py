"""What one trade per candle would have returned, and which trades a series of signals makes.

One trade: buy at the close of candle t, for which the score was computed. Sell at the take-profit barrier, the rise
that the label calls a trigger, if a high of the next H candles reaches it; otherwise at the close of candle t+H. With
``triple_barrier`` labels a low at the lower barrier sells there, and a candle that touches both counts as the lower. An
order at the upper barrier fills there, never better; one at the lower barrier fills at the open where that is worse
already. Costs are one number per round trip. There is one position per symbol at a time: a signal while one is open is
skipped. Size, funding, and whether the close can be bought at all are not in these numbers.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.base.numba_cache import njit
from cmat_lib.config.schema import LabelsConfig
from cmat_lib.data.candles import PRICES
from cmat_lib.data.labels import candles_ahead, trailing_volatility


def trade_outcomes(candles: pd.DataFrame, labels: LabelsConfig, bar: pd.Timedelta) -> pd.DataFrame:
    """Outcome of one trade per candle, as the module describes it, before costs: ``gross_pct`` and ``exit``, T rows.

    The exit is the number of the candle at whose close the position is gone, at most t + H; NaN and t + H where the
    horizon runs past the end or the barrier is unknown. Rows with a gap in their horizon have no label: never acted on.
    """
    close, rows = candles["close"].to_numpy(), np.arange(len(candles))
    opens, highs, lows, closes = (candles_ahead(candles[name], labels.horizon) for name in PRICES)  # (T, H) each
    upper, lower = _barriers(candles, labels, bar)
    touched_upper = _first(100 * (highs / close[:, None] - 1) >= upper[:, None])
    touched_lower = _first(100 * (lows / close[:, None] - 1) <= lower[:, None])
    gross = np.where(touched_upper < labels.horizon, upper, 100 * (closes[:, -1] / close - 1))
    stopped = (touched_lower < labels.horizon) & (touched_lower <= touched_upper)
    gap = 100 * (opens[rows, np.minimum(touched_lower, labels.horizon - 1)] / close - 1)
    gross = np.where(stopped, np.minimum(lower, gap), gross)
    gross[np.isnan(closes[:, -1]) | np.isnan(upper)] = np.nan
    held = np.minimum(np.minimum(touched_upper, touched_lower) + 1, labels.horizon)
    return pd.DataFrame({"gross_pct": gross, "exit": rows + held}, index=candles.index)


def _barriers(candles: pd.DataFrame, labels: LabelsConfig, bar: pd.Timedelta) -> tuple[np.ndarray, np.ndarray]:
    """Take-profit and stop-loss in percent, (T,) each; without a stop-loss it is minus infinity."""
    constant = np.ones(len(candles))
    if labels.mode == "triple_barrier":
        return labels.upper_pct * constant, -labels.lower_pct * constant
    if labels.mode == "percent":
        return labels.threshold_pct * constant, -np.inf * constant
    volatility = trailing_volatility(candles, bar, labels.volatility_window)
    return 100 * labels.threshold_sigma * volatility * np.sqrt(labels.horizon), -np.inf * constant


def _first(touched: np.ndarray) -> np.ndarray:
    """Place of the first True of each row, H where there is none."""
    return np.where(touched.any(axis=1), touched.argmax(axis=1), touched.shape[1])


def add_outcomes(
    predictions: pd.DataFrame, market: Mapping[str, pd.DataFrame], labels: LabelsConfig, bar: pd.Timedelta, cost: float
) -> pd.DataFrame:
    """Predictions, sorted by symbol and time, with the outcome of a trade at each row; a row without is a `CmatError`.

    New columns are ``net_pct``, after the `cost` of one round trip (fees and spread) in percent; ``momentum`` (change
    of the close over the last H candles, in percent: what a trader without a model may look at); ``candle`` and
    ``exit`` (numbers among the candles of the symbol).
    """
    outcomes = {}
    for symbol, candles in market.items():
        momentum = 100 * candles["close"].pct_change(labels.horizon)
        own = trade_outcomes(candles, labels, bar)
        outcomes[symbol] = own.assign(candle=np.arange(len(candles)), momentum=momentum)
    table = pd.concat(outcomes, names=["symbol", "timestamp"])
    table["net_pct"] = table.pop("gross_pct") - cost
    merged = predictions.merge(table.reset_index(), on=["symbol", "timestamp"], how="left")
    if merged["net_pct"].isna().any():
        row = merged[merged["net_pct"].isna()].iloc[0]
        raise CmatError(f"decision curve: {row['symbol']} at {row['timestamp']} has no candles for its horizon")
    return merged.sort_values(["symbol", "timestamp"], ignore_index=True)


def trade_line(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Entry and exit of each row of `frame` (from `add_outcomes`), (N,) int each, all symbols on one ascending line."""
    symbol = np.unique(frame["symbol"], return_inverse=True)[1].astype(np.int64)
    span = frame["exit"].max() + 1
    return symbol * span + frame["candle"].to_numpy(np.int64), symbol * span + frame["exit"].to_numpy(np.int64)


def one_at_a_time(enter: np.ndarray, leave: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which rows of a `trade_line` with a signal, ascending, are acted on: one position per symbol, first come."""
    return rows[_walk(enter[rows], leave[rows])]


@njit(nogil=True, cache=True)
def _walk(enter: np.ndarray, leave: np.ndarray) -> np.ndarray:
    """Whether each signal finds its symbol free; compiled, since thousands of random draws take this walk."""
    taken = np.zeros(len(enter), dtype=np.bool_)
    free = -1
    for place in range(len(enter)):
        if enter[place] >= free:
            taken[place] = True
            free = leave[place]
    return taken
