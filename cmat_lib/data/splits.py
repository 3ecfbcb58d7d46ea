"""Splits: which part of time fits weights, ends the training, calibrates, and is looked at once."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmat_lib.errors import CmatError
from cmat_lib.schema import DataConfig

PARTS = ("train", "stop", "calibrate", "test")
Market = dict[str, pd.DataFrame]


def split_boundaries(market: Market, data: DataConfig) -> list[pd.Timestamp]:
    """Starts of the stop, calibrate and test parts, the same for all symbols.

    Parameters
    ----------
    market : dict of str to DataFrame
        Candles per symbol.
    data : DataConfig
        ``split_dates`` if given, else ``split_shares`` of the time that the market covers.

    Returns
    -------
    list of Timestamp
        Three moments in UTC.

    Raises
    ------
    CmatError
        If a given date lies outside the candles.
    """
    first = min(candles.index[0] for candles in market.values())
    last = max(candles.index[-1] for candles in market.values()) + data.bar
    if data.split_dates is None:
        return [(first + share * (last - first)).floor(data.bar) for share in np.cumsum(data.split_shares[:3])]
    dates = [pd.Timestamp(moment) for moment in data.split_dates]
    if not first < dates[0] or not dates[-1] < last:
        raise CmatError(f"data.split_dates must lie inside the candles, which run from {first} to {last}")
    return dates


def assign_parts(close_time: pd.Series, label_end: pd.Series, boundaries: list[pd.Timestamp]) -> np.ndarray:
    """Part of every sample; one whose label ends after the next part's start is purged, as it knows that part's future.

    Parameters
    ----------
    close_time, label_end : Series of Timestamp, length N
        When the sample is known and when its label is; no label is NaT.
    boundaries : list of Timestamp
        From `split_boundaries`.

    Returns
    -------
    ndarray of str, shape (N,)
        One of `PARTS`, ``"purged"`` or ``"unlabelled"``.
    """
    starts = pd.DatetimeIndex(boundaries)
    number = starts.searchsorted(pd.DatetimeIndex(close_time), side="right")
    next_start = pd.Series(starts.append(pd.DatetimeIndex([pd.Timestamp.max.tz_localize("UTC")])).take(number))
    parts = np.array(PARTS, dtype=object)[number]
    parts[(label_end.reset_index(drop=True) > next_start).to_numpy()] = "purged"
    parts[label_end.isna().to_numpy()] = "unlabelled"
    return parts
