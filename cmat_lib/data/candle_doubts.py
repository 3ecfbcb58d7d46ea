"""What may be wrong with candles that have no defect: told in the audit, refused nowhere."""

from __future__ import annotations

import numpy as np
import pandas as pd

SPLITS = np.array([1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50, 100])
SPLIT_NEAR = 0.04  # of the logarithm: what a market moves besides, overnight
SPLIT_MOVES = 12  # usual moves that a jump must be, or it is one of them
REPEAT = 20  # candles, of which ten at least must differ
PART = 50  # steps by which the size of candles is judged


def doubts(candles: pd.DataFrame, bar: pd.Timedelta) -> list[str]:
    """Sentences about a symbol's candles, such as those of its reader, a jump that a split makes, copied stretches.

    Parameters
    ----------
    candles : DataFrame of T rows
        Raw or loaded; ``attrs["doubts"]`` are what their reader saw.
    bar : Timedelta
        Length of a candle.
    """
    found = [*candles.attrs.get("doubts", []), _split(candles), _repeat(candles), _other_bars(candles.index, bar)]
    return [text for text in found if text]


def _split(candles: pd.DataFrame) -> str:
    """A jump from close to open by a factor of `SPLITS` after which the price stays there."""
    opens, closes = (np.log(candles[name].clip(lower=1e-300).to_numpy()) for name in ("open", "close"))
    jumps, moves = opens[1:] - closes[:-1], np.abs(np.diff(closes))
    near = np.abs(np.abs(jumps)[:, None] - np.log(SPLITS)).min(axis=1, initial=np.inf) < SPLIT_NEAR
    jump = (
        near & (moves > np.abs(jumps) / 2) & (np.abs(jumps) > SPLIT_MOVES * np.median(moves[moves > 0], axis=0))
        if (moves > 0).any()
        else near & False
    )
    if not jump.any():
        return ""
    row = int(jump.argmax())
    more = f" and {jump.sum() - 1} more" if jump.sum() > 1 else ""
    return f"the price jumps by {np.exp(jumps[row]):.3g} at {_when(candles.index[row + 1])}{more}, as at a split"


def _repeat(candles: pd.DataFrame) -> str:
    """The longest stretch whose prices stood in the file before, in the same order."""
    rows = pd.util.hash_pandas_object(candles[["open", "high", "low", "close"]], index=False).to_numpy()
    _, first, place = np.unique(rows, return_index=True, return_inverse=True)
    lag = np.arange(len(rows)) - first[place]
    starts = np.flatnonzero(np.diff(lag, prepend=-1) != 0)
    lengths = np.where(lag[starts] > 0, np.diff(starts, append=len(lag)), 0)
    for run in np.flatnonzero(lengths >= REPEAT):
        start, stop = starts[run], starts[run] + lengths[run]
        if len(np.unique(place[start:stop])) >= REPEAT // 2:
            before = _when(candles.index[start - lag[start]])
            return f"{stop - start} candles from {_when(candles.index[start])} repeat those from {before}"
    return ""


def _other_bars(index: pd.DatetimeIndex, bar: pd.Timedelta) -> str:
    """A part of the file in which candles are of another length."""
    steps = np.diff(index.as_unit("ns").asi8)
    for number, part in enumerate(np.array_split(steps, min(20, len(steps) // PART)) if len(steps) >= 2 * PART else []):
        values, counts = np.unique(part, return_counts=True)
        usual = pd.Timedelta(int(values[counts.argmax()]), unit="ns")
        if usual != bar and counts.max() > 0.6 * len(part):
            row = sum(len(other) for other in np.array_split(steps, min(20, len(steps) // PART))[:number])
            return f"candles about {_when(index[row])} are {usual} apart"
    return ""


def _when(time: pd.Timestamp) -> str:
    return f"{time:%Y-%m-%d %H:%M}"
