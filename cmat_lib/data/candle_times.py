"""Time columns of candle files: ISO 8601 text, times with or without a zone, or numbers of one epoch unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cmat_lib.errors import CmatError

UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
EARLIEST, LATEST = pd.Timestamp("1990-01-01", tz="UTC"), pd.Timestamp("2100-01-01", tz="UTC")
OFFSET = r"(?:Z|[+-]\d\d:?\d\d)$"
MIDNIGHT_WITH_OFFSET = r"[ T]00:00(?::00(?:\.0+)?)?[+-]\d\d:?\d\d$"


def parse_times(column: pd.Series, path: Path, bar: pd.Timedelta, zone: str = "UTC") -> pd.DatetimeIndex:
    """Candle opens.

    Parameters
    ----------
    column : Series
    path : Path
        For error messages.
    bar : Timedelta
        Length of a candle. A candle of whole days that opens at midnight of its own time zone means a date, and gets
        midnight UTC of that date: else daylight saving would make days of 23 hours.
    zone : str
        Time zone of times that bring none; epoch numbers are UTC.

    Returns
    -------
    DatetimeIndex, datetime64[ns, UTC]
        Named ``timestamp``.

    Raises
    ------
    CmatError
        For a time that cannot be understood; names its row.
    """
    if not pd.api.types.is_datetime64_any_dtype(column):
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.notna().mean() > 0.5:
            return _parse_epoch(numbers, column, path)
    if bar % pd.Timedelta("1D") == pd.Timedelta(0):
        column, zone = _dates(column), "UTC"
    times = pd.to_datetime(_with_zone(column, path, zone), utc=True, format="ISO8601", errors="coerce")
    check_rows(times.notna(), column, path, "is not a time; write ISO 8601 (2025-01-31 00:15:00) or one epoch unit")
    advice = "is not between the years 1990 and 2100; the file was probably written with a wrong time unit"
    check_rows((times >= EARLIEST) & (times < LATEST), column, path, advice)
    return pd.DatetimeIndex(times, name="timestamp").as_unit("ns")


def _dates(column: pd.Series) -> pd.Series:
    """The same without the zone, if every time is midnight in it."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_localize(None) if (column.dt.normalize() == column).all() else column
    text = column.map(str).astype(str)
    return text.str.slice(0, 10) if text.str.contains(MIDNIGHT_WITH_OFFSET).all() else column


def _with_zone(column: pd.Series, path: Path, zone: str) -> pd.Series:
    """Times in `zone` if they bring none of their own; UTC needs no work."""
    if zone == "UTC" or isinstance(column.dtype, pd.DatetimeTZDtype):
        return column
    if not pd.api.types.is_datetime64_any_dtype(column) and column.map(str).astype(str).str.contains(OFFSET).any():
        return column
    local = pd.to_datetime(column, format="ISO8601", errors="coerce")
    times = local.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    advice = f"does not exist, or twice, in {zone}, whose clocks change then; write UTC, or set data.file_zone right"
    check_rows(times.notna() | local.isna(), column, path, advice)
    return times.where(local.notna(), pd.NaT)


def _parse_epoch(numbers: pd.Series, column: pd.Series, path: Path) -> pd.DatetimeIndex:
    """Epoch numbers as times. The years 1990 to 2100 lie apart in the four units, so the values tell the unit."""
    low, high = EARLIEST.timestamp() * 1e9, LATEST.timestamp() * 1e9
    inside = {unit: (numbers * float(ns) >= low) & (numbers * float(ns) < high) for unit, ns in UNIT_NS.items()}
    unit = max(inside, key=lambda name: inside[name].sum())
    usual = f"{unit} as in most rows" if inside[unit].any() else "s, ms, us or ns"
    advice = f"is no epoch time of the years 1990 to 2100 in {usual}; write all rows in one unit, or ISO 8601"
    check_rows(inside[unit], column, path, advice)
    if pd.api.types.is_integer_dtype(numbers):
        stamps = numbers.to_numpy(np.int64) * UNIT_NS[unit]
    else:  # a float cannot hold nanoseconds of this century: whole milliseconds are what it can mean
        stamps = np.round(numbers.to_numpy(np.float64) * (UNIT_NS[unit] / 1e6)).astype(np.int64) * 10**6
    return pd.DatetimeIndex(stamps.astype("datetime64[ns]"), tz="UTC", name="timestamp")


def check_rows(good: pd.Series, column: pd.Series, path: Path, problem: str) -> None:
    """Name the first row (counted from 1 after the header line) that is not good."""
    bad = np.flatnonzero(~good.to_numpy(dtype=bool))
    if len(bad):
        where = f"{path}: column '{column.name}', row {bad[0] + 1}"
        raise CmatError(f"{where}: {column.iloc[bad[0]]} {problem} (rows affected: {len(bad)})")
