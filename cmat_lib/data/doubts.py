"""What may be wrong with candles that have no defect: told in the audit, refused nowhere."""

import numpy as np
import pandas as pd

SPLITS = np.array([1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50, 100])
SPLIT_NEAR = 0.04  # of the logarithm: what a market moves besides, overnight
SPLIT_MOVES = 12  # usual moves that a jump must be, or it is one of them
REPEAT = 20  # candles, of which ten at least must differ
TIME = "%Y-%m-%d %H:%M"
PART = 50  # steps by which the size of candles is judged


def doubts(candles: pd.DataFrame, bar: pd.Timedelta) -> list[str]:
    """Sentences about raw or loaded candles: those of their reader, a jump as at a split, repeats, other bars."""
    found = [*candles.attrs.get("doubts", []), _split(candles), _repeat(candles), _other_bars(candles.index, bar)]
    return [text for text in found if text]


def _split(candles: pd.DataFrame) -> str:
    """A jump from close to open by a factor of `SPLITS` after which the price stays there."""
    opens, closes = (np.log(candles[name].clip(lower=1e-300).to_numpy()) for name in ("open", "close"))
    jumps, moves = opens[1:] - closes[:-1], np.abs(np.diff(closes))
    size, usual = np.abs(jumps), np.median(moves[moves > 0]) if (moves > 0).any() else np.inf
    near = np.abs(size[:, None] - np.log(SPLITS)).min(axis=1, initial=np.inf) < SPLIT_NEAR
    rows = np.flatnonzero(near & (moves > size / 2) & (size > SPLIT_MOVES * usual))
    if not len(rows):
        return ""
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    first = candles.index[rows[0] + 1]
    return f"the price jumps by {np.exp(jumps[rows[0]]):.3g} at {first:{TIME}}{more}, as at a split"


def _repeat(candles: pd.DataFrame) -> str:
    """A stretch whose prices stood in the file before, in the same order."""
    rows = pd.util.hash_pandas_object(candles[["open", "high", "low", "close"]], index=False)
    place, _ = pd.factorize(rows)
    lag = np.arange(len(rows)) - np.flatnonzero(~rows.duplicated())[place]
    starts = np.flatnonzero(np.diff(lag, prepend=-1) != 0)
    for start, stop in zip(starts, [*starts[1:], len(lag)], strict=True):
        if lag[start] and stop - start >= REPEAT and len(np.unique(place[start:stop])) >= REPEAT // 2:
            now, before = candles.index[start], candles.index[start - lag[start]]
            return f"{stop - start} candles from {now:{TIME}} repeat those from {before:{TIME}}"
    return ""


def _other_bars(index: pd.DatetimeIndex, bar: pd.Timedelta) -> str:
    """A part of the file in which candles are of another length."""
    for part in np.array_split(np.arange(1, len(index)), min(20, len(index) // PART) or 1) if len(index) > PART else []:
        counts = pd.Series(index[part] - index[part - 1]).value_counts()
        if counts.index[0] != bar and counts.iloc[0] > 0.6 * len(part):
            return f"candles about {index[part[0] - 1]:{TIME}} are {counts.index[0]} apart"
    return ""
