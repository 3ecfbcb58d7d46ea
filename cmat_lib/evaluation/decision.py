"""The decision curve: net return per trade of acting on the highest scores, beside random trades in the same hours."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from cmat_lib.evaluation.metrics import score_arrays
from cmat_lib.evaluation.trades import one_at_a_time, trade_line
from cmat_lib.evaluation.uncertainty import Resampling, bootstrap_table, interval
from cmat_lib.evaluation.weighted import quotient

WIDER_SHARES = (0.1, 0.2, 0.5)  # beyond the named ones, to see where an edge ends
RANDOM_DRAWS = 500
TRIES = 10
TRAILING = pd.Timedelta(days=30)


def signals(predictions: pd.DataFrame, score: str, shares: Sequence[float]) -> list[np.ndarray]:
    """Rows of the test part whose score lies among the highest of the month before it, for each of the `shares`.

    The border moves along: at every moment it is the quantile of all symbols' scores in the `TRAILING` time before,
    which reaches back into the calibrate part. The test part's own quantile would know at its first candle how high
    later scores will be; that of the calibrate part alone may hold a crash and never be reached again. The result is
    ascending numbers among the test rows; their share is near the named one, not equal to it.
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
    line, found = trade_line(predictions[predictions["part"] == "test"]), {}
    for score in scores:
        for share, rows in zip(shares, signals(predictions, score, shares), strict=True):
            found[score, share] = {"signals": rows, "trades": one_at_a_time(*line, rows)}
    return found


def decision_table(
    predictions: pd.DataFrame, scores: Sequence[str], shares: Sequence[float], resampling: Resampling
) -> pd.DataFrame:
    """Decision curve by (score, share), from predictions of `add_outcomes` with the parts calibrate and test.

    ``signal_share`` of the test rows; ``trades``; ``net_pct`` per trade with its block-bootstrap interval ``low``,
    ``high``; ``std_pct`` over trades; ``hit_share`` of the trades whose label is a trigger, ``hit_pct`` and
    ``miss_pct``: net return per trade of these and of the others; ``random_trades``: how many trades at random moments
    of the same symbols and hours found room, a little fewer than ``trades`` where nearly all time is traded;
    ``random_pct``, ``random_low``, ``random_high``: mean and range of their net return per trade; ``beats_random``:
    share of those draws that lie below. NaN without trades.
    """
    test = predictions[predictions["part"] == "test"]
    net = test["net_pct"].to_numpy()
    decided = decide(predictions, scores, shares)
    acted = np.zeros((len(test), len(decided)))
    for column, rows in enumerate(decided.values()):
        acted[rows["trades"], column] = 1.0

    def per_trade(weights: np.ndarray) -> np.ndarray:
        return quotient((weights * net) @ acted, weights @ acted)

    table, means = {}, bootstrap_table(test["timestamp"], per_trade, resampling)
    for (key, rows), mean in zip(decided.items(), means.to_dict("records"), strict=True):
        trades = rows["trades"]
        # Hits and misses: triggers that were found, or moves that the label does not ask for.
        hit, returned = test["trigger"].iloc[trades] == 1, test["net_pct"].iloc[trades]
        table[key] = {
            "signal_share": len(rows["signals"]) / len(test),
            "trades": len(trades),
            "net_pct": mean["value"],
            "low": mean["low"],
            "high": mean["high"],
            "std_pct": net[trades].std(ddof=1) if len(trades) > 1 else np.nan,
            "hit_share": hit.mean(),
            "hit_pct": returned[hit].mean(),
            "miss_pct": returned[~hit].mean(),
            **_beside_random(mean["value"], random_trades(test, trades, resampling.seed), resampling.confidence),
        }
    return pd.DataFrame.from_dict(table, orient="index").rename_axis(["score", "share"])


def _beside_random(mean: float, random: pd.DataFrame, confidence: float) -> dict[str, float]:
    names = ("random_trades", "random_pct", "random_low", "random_high", "beats_random")
    if random.empty:
        return dict.fromkeys(names, np.nan)
    draws = random["net_pct"].to_numpy()
    found = random["trades"].mean(), draws.mean(), *interval(draws, confidence), (draws < mean).mean()
    return dict(zip(names, found, strict=True))


def random_trades(test: pd.DataFrame, trades: np.ndarray, seed: int, draws: int = RANDOM_DRAWS) -> pd.DataFrame:
    """What trades at random moments return, as many in each symbol and hour of day as `trades` (K,) rows of `test`.

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
    rng: np.random.Generator, line: tuple[np.ndarray, np.ndarray], cell: np.ndarray, trades: np.ndarray, draws: int
) -> Iterator[np.ndarray]:
    """Rows at random, as many in each cell as `trades`, drawn again where positions overlap, `TRIES` times at most.

    Of each draw ascending rows, as many as `trades` unless the hours are so full that some found no room. The line is
    that of `cmat_lib.evaluation.trades.trade_line`, a cell the symbol and hour of day of each row as a number, (N,).
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
    """Sum of the net returns, in percent, of the trades entered on each day (UTC) on which `test` has a row, or 0.

    A trade is entered at the close of its candle, `bar` after its timestamp.
    """
    day = (test["timestamp"] + bar).dt.tz_convert(None).dt.floor("D")
    days = pd.DatetimeIndex(day.unique(), name="day").sort_values()
    traded = test["net_pct"].iloc[trades]
    return traded.groupby(day.iloc[trades]).sum().reindex(days, fill_value=0.0)
