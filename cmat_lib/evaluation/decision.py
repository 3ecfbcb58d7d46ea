"""The decision curve: net return per trade of acting on the highest scores, beside acting at random in the same hours.

What a trade is stands in `cmat_lib.evaluation.trades`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from cmat_lib.evaluation.metrics import score_arrays
from cmat_lib.evaluation.trades import one_at_a_time, trade_line
from cmat_lib.evaluation.uncertainty import Resampling, block_bootstrap, interval

WIDER_SHARES = (0.1, 0.2, 0.5)  # beyond the named ones, to see where an edge ends
RANDOM_DRAWS = 500
TRIES = 10
TRAILING = pd.Timedelta(days=30)

Line = tuple[np.ndarray, np.ndarray]


def signals(predictions: pd.DataFrame, score: str, shares: Sequence[float]) -> list[np.ndarray]:
    """Rows of the test part whose score lies among the highest of the month before it, for each of the `shares`.

    The border moves along: at every moment it is the quantile of all symbols' scores in the `TRAILING` time before,
    which reaches back into the calibrate part and knows nothing of later rows. The test part's own quantile would know
    at its first candle how high later scores will be; that of the calibrate part alone may hold a crash and never be
    reached again. The share of rows with a signal is near the named one, not equal to it. The result is ascending
    numbers among the test rows.

    Parameters
    ----------
    predictions : DataFrame
        With the parts calibrate and test.
    """
    rows = predictions[predictions["part"].isin(["calibrate", "test"])]
    _, ranking, _ = score_arrays(rows, score)
    order = np.argsort(rows["timestamp"].to_numpy(), kind="stable")
    before = pd.Series(ranking[order], rows["timestamp"].to_numpy()[order]).rolling(TRAILING, closed="left")
    is_test, found = (rows["part"] == "test").to_numpy(), []
    for share in shares:
        border = np.empty(len(rows))
        border[order] = before.quantile(1 - share)  # NaN, and no signal, where nothing lies before
        found.append(np.flatnonzero((ranking >= border)[is_test]))
    return found


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

    Returns
    -------
    DataFrame
        Index (score, share). ``signal_share`` of the test rows; ``trades``; ``net_pct`` per trade with its
        block-bootstrap interval ``low``, ``high``; ``std_pct`` over trades; ``hit_share`` of the trades whose label is
        a trigger, ``hit_pct`` and ``miss_pct``: net return per trade of these and of the others; ``random_trades``:
        how many trades at random moments of the same symbols and hours of the day found room, a little fewer than
        ``trades`` where nearly all time is traded; ``random_pct``, ``random_low``, ``random_high``: mean and range of
        their net return per trade; ``beats_random``: share of those draws that lie below. NaN without trades.
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
            **_hits_and_misses(test.iloc[rows["trades"]]),
            **_beside_random(mean, random_trades(test, rows["trades"], resampling.seed), resampling.confidence),
        }
    return pd.DataFrame.from_dict(table, orient="index").rename_axis(["score", "share"])


def _hits_and_misses(traded: pd.DataFrame) -> dict[str, float]:
    """Which of the two a net return comes from: triggers that were found, or moves that the label does not ask for."""
    hit = traded["trigger"] == 1
    return {
        "hit_share": hit.mean(),
        "hit_pct": traded.loc[hit, "net_pct"].mean(),
        "miss_pct": traded.loc[~hit, "net_pct"].mean(),
    }


def _beside_random(mean: float, random: pd.DataFrame, confidence: float) -> dict[str, float]:
    if random.empty:
        names = ("random_trades", "random_pct", "random_low", "random_high", "beats_random")
        return dict.fromkeys(names, np.nan)
    draws = random["net_pct"].to_numpy()
    low, high = interval(draws, confidence)
    return {
        "random_trades": random["trades"].mean(),
        "random_pct": draws.mean(),
        "random_low": low,
        "random_high": high,
        "beats_random": (draws < mean).mean(),
    }


def random_trades(test: pd.DataFrame, trades: np.ndarray, seed: int, draws: int = RANDOM_DRAWS) -> pd.DataFrame:
    """What trades at random moments return, as many in each symbol and hour of day as `trades`, one at a time.

    Parameters
    ----------
    test : DataFrame
        Rows from `add_outcomes`.
    trades : (K,) int array
        Rows that were traded.

    Returns
    -------
    DataFrame
        One row per draw: ``net_pct`` per trade, and how many ``trades`` there were. Empty without trades.
    """
    if not len(trades):
        return pd.DataFrame(columns=["net_pct", "trades"])
    rng = np.random.default_rng(seed)
    net, line = test["net_pct"].to_numpy(), trade_line(test)
    cell = test.groupby(["symbol", test["timestamp"].dt.hour], observed=True).ngroup().to_numpy()
    drawn = [net[rows] for rows in random_moments(rng, line, cell, trades, draws)]
    return pd.DataFrame([(values.mean(), len(values)) for values in drawn], columns=["net_pct", "trades"])


def random_moments(
    rng: np.random.Generator, line: Line, cell: np.ndarray, trades: np.ndarray, draws: int
) -> Iterator[np.ndarray]:
    """Rows at random, as many in each cell as `trades`, drawn again where positions overlap, `TRIES` times at most.

    Parameters
    ----------
    line : tuple of (N,) int arrays
        From `cmat_lib.evaluation.trades.trade_line`.
    cell : (N,) int array
        Symbol and hour of day of each row, as a number.
    trades : (K,) int array
        Rows that were traded.

    Yields
    ------
    int array
        Of each draw ascending rows, K of them unless the hours are so full that trades found no room.
    """
    order, size = np.argsort(cell, kind="stable"), np.bincount(cell)
    start, wanted = np.cumsum(size) - size, np.bincount(cell[trades], minlength=len(size))
    for _ in range(draws):
        taken = np.empty(0, dtype=np.int64)
        for _ in range(TRIES):
            missing = np.repeat(np.arange(len(size)), wanted - np.bincount(cell[taken], minlength=len(size)))
            if not len(missing):
                break
            drawn = order[start[missing] + (rng.random(len(missing)) * size[missing]).astype(np.int64)]
            taken = one_at_a_time(*line, np.union1d(taken, drawn))
        yield taken


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
        Index: every day on which `test` has a row; a market that closes at weekends earns nothing by them.
    """
    day = (test["timestamp"] + bar).dt.tz_convert(None).dt.floor("D")
    days = pd.DatetimeIndex(day.unique(), name="day").sort_values()
    traded = test["net_pct"].iloc[trades]
    return traded.groupby(day.iloc[trades]).sum().reindex(days, fill_value=0.0)
