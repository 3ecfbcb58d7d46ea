"""What acting on a score would have returned per trade, net of costs, beside acting at random in the same hours.

One trade: buy at the close of candle t, for which the score was computed. Sell at the take-profit barrier, the rise
that the label calls a trigger, if a high of the next H candles reaches it; otherwise at the close of candle t+H. With
``triple_barrier`` labels a low at the lower barrier sells there, and a candle that touches both counts as the lower. An
order at a barrier fills at the barrier, never better. Costs are one number per round trip. There is one position per
symbol at a time: a signal while one is open is skipped. Size, funding, and whether the close can be bought at all are
not in these numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from cmat_lib.data.labels import trailing_volatility
from cmat_lib.errors import CmatError
from cmat_lib.evaluation.metrics import score_arrays
from cmat_lib.evaluation.uncertainty import Resampling, block_bootstrap, interval
from cmat_lib.schema import LabelsConfig

WIDER_SHARES = (0.1, 0.2, 0.5)  # beyond the named ones, to see where an edge ends
RANDOM_DRAWS = 500


def trade_outcomes(candles: pd.DataFrame, labels: LabelsConfig, bar: pd.Timedelta) -> pd.DataFrame:
    """Outcome of one trade per candle, as the module describes it, before costs.

    Parameters
    ----------
    candles : DataFrame, shape (T, ...)
        Checked candles of one symbol, indexed by open time.
    labels : LabelsConfig
        Horizon H, mode and thresholds.
    bar : Timedelta
        Length of a candle.

    Returns
    -------
    DataFrame, shape (T, 2), index as `candles`
        ``gross_pct`` and ``exit`` (number of the candle at whose close the position is gone, at most t + H); NaN and
        t + H where the horizon runs past the end or the barrier is unknown. Gaps are not looked at: rows with a gap in
        their horizon have no label and are never acted on.
    """
    close, rows = candles["close"].to_numpy(), np.arange(len(candles))
    highs, lows, closes = (_ahead(candles[name], labels.horizon) for name in ("high", "low", "close"))  # (T, H)
    upper, lower = _barriers(candles, labels, bar)
    touched_upper = _first(100 * (highs / close[:, None] - 1) >= upper[:, None])
    touched_lower = _first(100 * (lows / close[:, None] - 1) <= lower[:, None])
    gross = 100 * (closes[:, -1] / close - 1)
    gross = np.where(touched_upper < labels.horizon, upper, gross)
    gross = np.where((touched_lower < labels.horizon) & (touched_lower <= touched_upper), lower, gross)
    gross[np.isnan(closes[:, -1]) | np.isnan(upper)] = np.nan
    held = np.minimum(np.minimum(touched_upper, touched_lower) + 1, labels.horizon)
    return pd.DataFrame({"gross_pct": gross, "exit": rows + held}, index=candles.index)


def _barriers(candles: pd.DataFrame, labels: LabelsConfig, bar: pd.Timedelta) -> tuple[np.ndarray, np.ndarray]:
    """Take-profit and stop-loss in percent, (T,) each; without a stop-loss it is minus infinity."""
    size = len(candles)
    if labels.mode == "triple_barrier":
        return np.full(size, labels.upper_pct), np.full(size, -labels.lower_pct)
    no_stop = np.full(size, -np.inf)
    if labels.mode == "percent":
        return np.full(size, labels.threshold_pct), no_stop
    return 100 * labels.threshold_sigma * trailing_volatility(candles, bar) * np.sqrt(labels.horizon), no_stop


def _ahead(prices: pd.Series, horizon: int) -> np.ndarray:
    padded = np.concatenate([prices.to_numpy(np.float64)[1:], np.full(horizon, np.nan)])
    return sliding_window_view(padded, horizon)  # (T, H)


def _first(touched: np.ndarray) -> np.ndarray:
    """Place of the first True of each row, H where there is none."""
    return np.where(touched.any(axis=1), touched.argmax(axis=1), touched.shape[1])


def add_outcomes(
    predictions: pd.DataFrame, market: Mapping[str, pd.DataFrame], labels: LabelsConfig, bar: pd.Timedelta, cost: float
) -> pd.DataFrame:
    """Predictions with the outcome of a trade at each row.

    Parameters
    ----------
    predictions : DataFrame
        With ``symbol`` and ``timestamp``.
    market : mapping
        Symbol -> candles.
    labels, bar
        See `trade_outcomes`.
    cost : float
        Fees and spread of one round trip, in percent.

    Returns
    -------
    DataFrame
        With ``net_pct``, and ``candle`` and ``exit`` (numbers among the candles of the symbol), sorted by symbol and
        time.

    Raises
    ------
    CmatError
        If a row has no outcome.
    """
    outcomes = {symbol: trade_outcomes(candles, labels, bar) for symbol, candles in market.items()}
    table = pd.concat(
        {s: o.assign(candle=np.arange(len(o))) for s, o in outcomes.items()}, names=["symbol", "timestamp"]
    )
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
    """Signals that are acted on: one position per symbol at a time, the earliest signal first.

    Parameters
    ----------
    enter, leave : (N,) int arrays
        From `trade_line`.
    rows : (R,) int array
        Rows with a signal, ascending.

    Returns
    -------
    (K,) int array
        Rows of the trades.
    """
    following = np.searchsorted(enter[rows], leave[rows]).tolist()
    taken, place = [], 0
    while place < len(rows):
        taken.append(place)
        place = following[place]
    return rows[taken]


def signals(predictions: pd.DataFrame, score: str, shares: Sequence[float]) -> list[np.ndarray]:
    """Rows of the test part whose score lies among the highest, for each of the `shares`.

    The border is the quantile of the calibrate part: the test part's own would know at its first candle how high the
    scores of later ones will be. So the share of the test part that gives a signal is near the named one, not equal,
    and a score with few values gives them in plateaus.

    Parameters
    ----------
    predictions : DataFrame
        With the parts calibrate and test.
    score : str
        Score column.
    shares : sequence of float

    Returns
    -------
    list of int arrays
        Ascending numbers among the test rows.
    """
    ranking = {p: score_arrays(predictions[predictions["part"] == p], score)[1] for p in ("calibrate", "test")}
    borders = np.quantile(ranking["calibrate"], 1 - np.array(shares))
    return [np.flatnonzero(ranking["test"] >= border) for border in borders]


def decide(
    predictions: pd.DataFrame, scores: Sequence[str], shares: Sequence[float]
) -> dict[tuple[str, float], dict[str, np.ndarray]]:
    """Signals and trades of every score column and share: (score, share) -> ``signals``, ``trades`` (test rows)."""
    line = trade_line(predictions[predictions["part"] == "test"])
    found = {
        (score, p): rows
        for score in scores
        for p, rows in zip(shares, signals(predictions, score, shares), strict=True)
    }
    return {key: {"signals": rows, "trades": one_at_a_time(*line, rows)} for key, rows in found.items()}


def decision_table(
    predictions: pd.DataFrame, scores: Sequence[str], shares: Sequence[float], resampling: Resampling
) -> pd.DataFrame:
    """Decision curve: net return per trade of acting on the highest scores of each column.

    Parameters
    ----------
    predictions : DataFrame
        From `add_outcomes`, with the parts calibrate and test.
    scores : sequence of str
        Score columns.
    shares : sequence of float
    resampling : Resampling

    Returns
    -------
    DataFrame
        Index (score, share). ``signal_share`` of the test rows; ``trades``; ``net_pct`` per trade with its
        block-bootstrap interval ``low``, ``high``; ``std_pct`` over trades; ``random_pct``, ``random_low``,
        ``random_high``: mean and range of as many trades at random moments of the same symbols and hours of the day;
        ``beats_random``: share of those draws that lie below. NaN without trades.
    """
    test = predictions[predictions["part"] == "test"]
    net = test["net_pct"].to_numpy()
    decided = decide(predictions, scores, shares)
    acted = np.zeros((len(test), len(decided)))
    for column, rows in enumerate(decided.values()):
        acted[rows["trades"], column] = 1.0

    def per_trade(weights: np.ndarray) -> np.ndarray:
        trades = weights @ acted
        return np.divide((weights * net) @ acted, trades, out=np.full(len(trades), np.nan), where=trades > 0)

    samples = block_bootstrap(test["timestamp"], per_trade, resampling)
    means = per_trade(np.ones(len(test)))
    table = {}
    for (key, rows), mean, drawn in zip(decided.items(), means, samples.T, strict=True):
        low, high = interval(drawn, resampling.confidence)
        table[key] = {
            "signal_share": len(rows["signals"]) / len(test),
            "trades": len(rows["trades"]),
            "net_pct": mean,
            "low": low,
            "high": high,
            "std_pct": net[rows["trades"]].std(ddof=1) if len(rows["trades"]) > 1 else np.nan,
            **_beside_random(mean, random_trades(test, rows["trades"], resampling.seed), resampling.confidence),
        }
    return pd.DataFrame.from_dict(table, orient="index").rename_axis(["score", "share"])


def _beside_random(mean: float, draws: np.ndarray, confidence: float) -> dict[str, float]:
    if not len(draws):
        return dict.fromkeys(("random_pct", "random_low", "random_high", "beats_random"), np.nan)
    low, high = interval(draws, confidence)
    return {
        "random_pct": draws.mean(),
        "random_low": low,
        "random_high": high,
        "beats_random": (draws < mean).mean(),
    }


def random_trades(test: pd.DataFrame, trades: np.ndarray, seed: int, draws: int = RANDOM_DRAWS) -> np.ndarray:
    """Net return per trade at random moments, as many in each symbol and hour of day as `trades`, one at a time.

    Parameters
    ----------
    test : DataFrame
        Rows from `add_outcomes`.
    trades : (K,) int array
        Rows that were traded.
    seed : int
    draws : int

    Returns
    -------
    (draws,) array
        Empty without trades.
    """
    if not len(trades):
        return np.empty(0)
    rng = np.random.default_rng(seed)
    net, line = test["net_pct"].to_numpy(), trade_line(test)
    cell = test.groupby(["symbol", test["timestamp"].dt.hour], observed=True).ngroup().to_numpy()
    order, size = np.argsort(cell, kind="stable"), np.bincount(cell)
    start = (np.cumsum(size) - size)[cell[trades]]
    size = size[cell[trades]]
    picks = ((rng.random(len(trades)) * size).astype(int) + start for _ in range(draws))
    return np.array([net[one_at_a_time(*line, np.unique(order[pick]))].mean() for pick in picks])


def daily_returns(test: pd.DataFrame, trades: np.ndarray, bar: pd.Timedelta) -> pd.Series:
    """Sum of the net returns of the trades that are entered on each day (UTC), in percent; 0 on days without a trade.

    Parameters
    ----------
    test : DataFrame
        Rows from `add_outcomes`, N.
    trades : (K,) int array
        Rows that were traded.
    bar : Timedelta
        Length of a candle; the entry is at its close.

    Returns
    -------
    Series
        Index: every day from the first to the last row of `test`.
    """
    day = (test["timestamp"] + bar).dt.tz_convert(None).dt.floor("D")
    days = pd.date_range(day.min(), day.max(), freq="D", name="day")
    traded = test["net_pct"].iloc[trades]
    return traded.groupby(day.iloc[trades]).sum().reindex(days, fill_value=0.0)
