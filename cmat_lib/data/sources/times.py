"""Time columns of candle files: numbers of one epoch unit, ISO 8601, and the dates of spreadsheets and countries."""

import itertools
import re
from pathlib import Path
from zoneinfo import available_timezones

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError

UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
PART = 1 << 18  # rows
# Epoch numbers of these years lie apart in the four units; dates that are written out may be of any year before.
EARLIEST, LATEST = pd.Timestamp("1990-01-01", tz="UTC"), pd.Timestamp("2100-01-01", tz="UTC")
JANUARY_1970 = pd.Timestamp("1970-01-01", tz="UTC"), pd.Timestamp("1970-02-01", tz="UTC")
MIDNIGHT_WITH_OFFSET = r"[ T]00:00(?::00(?:\.0+)?)?[+-]\d\d:?\d\d$"
OFFSET = r"(?:Z|[+-]\d\d:?\d\d)$"
ZONE_NAME = r"\s(?P<zone>[A-Z][A-Za-z_]+/[A-Za-z_/]+|UTC|GMT)$"  # 20240102 09:30:00 US/Eastern
GMT_OFFSET = r"\s*(?:GMT|UTC)(?=[+-]\d)"
# Ordered so that a day before a month is the second guess; a column that both fit is refused.
DATES = """%Y-%m-%d %Y/%m/%d %Y.%m.%d %Y%m%d %d.%m.%Y %d.%m.%y %m/%d/%Y %d/%m/%Y %m-%d-%Y %d-%m-%Y %m/%d/%y %d/%m/%y
    %d-%b-%Y %d-%b-%y %d-%B-%Y %d_%b_%Y %d_%B_%Y %b_%d,_%Y %B_%d,_%Y %b_%d_%Y %B_%d_%Y %Y年%m月%d日 %a_%b_%d_%Y %d_%b_%y
    %d/%b/%Y %Y%m%d%H%M%S %Y%m%d%H%M"""
CLOCKS = "%H:%M:%S %H:%M %H:%M:%S.%f %H%M%S %H%M %I:%M_%p %I:%M:%S_%p %I-%p %H:%M:%S%z %H:%M:%S.%f_%z"
CLOCK = re.compile(r"(?P<date>.+?)(?P<gap>T|,? )(?P<clock>\d\d?:\d\d.*|\d{4,6}|\d\d?-[AP]M)", re.IGNORECASE)
COMPACT = (8, 12, 14, 17)  # digits of 20240102 and longer forms, to the millisecond
# Zones of the large markets, one for each rule by which clocks change.
MARKETS = """America/New_York America/Chicago Europe/London Europe/Paris Europe/Athens Europe/Moscow Australia/Sydney
    America/Sao_Paulo Asia/Jerusalem Pacific/Auckland America/Santiago"""
UNSURE = {"ambiguous": "NaT", "nonexistent": "NaT"}  # times that a change of the clocks skips or repeats
SWAPPED = str.maketrans("dm", "md")
ADVICE = "is not a time; write ISO 8601 (2025-01-31 00:15:00) or one epoch unit, or set data.time_format"


def parse_times(
    column: pd.Series, path: Path, bar: pd.Timedelta, zone: str = "UTC", form: str | None = None
) -> pd.DatetimeIndex:
    """Times of candles, datetime64[ns, UTC]; those that bring no zone are of `zone`, `form` is `data.time_format`.

    A candle of whole days that opens at one hour of the day, in whichever time zone, means a date, and gets midnight
    UTC of it: else daylight saving would make days of 23 hours. Raises a CmatError for a time that cannot be
    understood, naming its row, or dates that may be of two orders.
    """
    days = bar % pd.Timedelta("1D") == pd.Timedelta(0)
    numbers = None if pd.api.types.is_datetime64_any_dtype(column) else _numbers(column)
    if numbers is not None and form is None and (text := _compact(numbers)) is None:
        times = _parse_epoch(numbers, column, path)
    else:
        zone = "UTC" if days else zone
        local = _written(column if numbers is None or form else text, path, form, zone)
        times = _with_zone(_own_dates(local, column) if days and form is None else local, column, path, zone)
        check_rows(times.notna(), column, path, ADVICE)
        wrong = "the file was probably written with a wrong time unit"
        check_rows(times < LATEST, column, path, f"is not before the year 2100; {wrong}")
        if (times < JANUARY_1970[1]).all() and (times >= JANUARY_1970[0]).all():
            check_rows(times.isna(), column, path, f"is in January 1970, as all rows are; {wrong}")
    index = pd.DatetimeIndex(times, name="timestamp").as_unit("ns")
    return _midnights(index, bar, zone) if days else index


def join_clock(date: pd.Series, clock: pd.Series) -> pd.Series:
    """Dates with the time of day beside them, if they are dates and it is one; 93000 is 09:30 of a spreadsheet."""
    days, hours = _text(date), _text(clock)
    if days.str.contains(r":|^\d{9,}$").any():
        return date
    if hours.str.fullmatch(r"\d{1,9}").all():
        largest = pd.to_numeric(hours).max()
        hours = hours.str.zfill(4 if largest < 2400 else 6 if largest < 240_000 else 9).str.slice(0, 6)
    elif not hours.str.fullmatch(r"\d\d?:\d\d(:\d\d(\.\d+)?)?( ?[AaPp][Mm])?").all():
        return date
    return (days + " " + hours).rename(date.name)


def _text(column: pd.Series) -> pd.Series:
    return column if isinstance(column.dtype, pd.StringDtype) else column.map(str).astype(str)


def _numbers(column: pd.Series) -> pd.Series | None:
    """Values of a column of numbers; None for text. Judged by a part, as text of millions of rows takes long."""
    for part in (column.head(1000), column):
        numbers = pd.to_numeric(part, errors="coerce")
        if not numbers.notna().mean() > 0.5:
            return None
    return numbers


def _compact(numbers: pd.Series) -> pd.Series | None:
    """Numbers such as 20240102 or 202401020930 as text; None if they are none of these."""
    known = numbers.dropna()
    if not len(known) or (known % 1 != 0).any() or known.min() < 17_000_101:
        return None
    text = known.astype(np.int64).astype(str)
    if len(text.iloc[0]) not in COMPACT or not text.str.match(r"(1[789]|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])").all():
        return None
    return text.str.slice(0, 14).reindex(numbers.index)


def _written(column: pd.Series, path: Path, form: str | None, zone: str) -> pd.Series:
    """Times that are written out, as far as they can be read; in UTC if they bring a zone."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return column
    text = _text(column)
    if form is not None:
        return _by_format(text, form)
    sample = (text if len(text) < 400 else pd.concat([text.head(200), text.tail(200)])).str.strip()
    is_time = pd.to_datetime(sample, format="ISO8601", errors="coerce", utc=True).notna()
    if not len(sample) or is_time.mean() > 0.5:
        zoned = sample.str.contains(OFFSET)[is_time]
        check_rows(zoned == zoned.iloc[:1].any(), column[zoned.index], path, "has a zone, or none, unlike other rows")
        utc = zone == "UTC" or text.str.contains(OFFSET).any()
        known = text if text is column else text.where(column.notna())
        # In parts, as pandas makes Python's own texts of all that it is given.
        parts = [known.iloc[start : start + PART] for start in range(0, max(len(known), 1), PART)]
        return pd.concat([pd.to_datetime(part, format="ISO8601", errors="coerce", utc=utc) for part in parts])
    text = text.str.strip().str.replace(GMT_OFFSET, " ", regex=True).str.replace(r"\s+", " ", regex=True)
    zones = text.str.extract(ZONE_NAME)["zone"].unique()
    own = zones[0] if len(zones) == 1 and zones[0] in available_timezones() else None
    local = _guessed(text.str.replace(ZONE_NAME, "", regex=True) if own else text, sample.index, path, column.name)
    return local.dt.tz_localize(own, **UNSURE) if own else local


def _by_format(text: pd.Series, form: str) -> pd.Series:
    try:
        return pd.to_datetime(text.str.strip(), format=form, errors="coerce", utc="%z" in form)
    except ValueError as error:
        raise CmatError(f"data.time_format: {error}; write it as strptime does, %d/%m/%Y %H:%M") from None


def _guessed(text: pd.Series, sample: pd.Index, path: Path, name: object) -> pd.Series:
    """Times by the first form that all rows fit; an error if they fit with day and month in either order."""
    some, first = text.loc[sample], text.iloc[0]
    dates, clocks = ([f.replace("_", " ") for f in written.split()] for written in (DATES, CLOCKS))
    forms = _fitting(first, dates)
    if parts := CLOCK.fullmatch(first):
        both = itertools.product(_fitting(parts["date"], dates), _fitting(parts["clock"], clocks))
        forms += [f"{date}{parts['gap']}{clock}" for date, clock in both]
    fitting = [form for form in forms if _by_format(some, form).notna().mean() > 0.9] or forms[:1]
    best = {form: _by_format(text, form) for form in fitting}
    whole = [form for form, times in best.items() if times.notna().all()]
    usual = next(iter(whole), "")
    other = usual.translate(SWAPPED)
    if other != usual and other in whole and (best[usual] != best[other]).any():
        advice = f"set data.time_format to '{usual}' or '{other}'"
        raise CmatError(f"{path}: column '{name}': {first} may have its day or its month first; {advice}")
    form = usual or max(best, key=lambda form: best[form].notna().sum(), default=None)
    return best[form] if form else pd.Series(pd.NaT, index=text.index, dtype="datetime64[ns]")


def _fitting(text: str, forms: list[str]) -> list[str]:
    return [form for form in forms if _by_format(pd.Series([text]), form).notna().all()]


def _own_dates(local: pd.Series, column: pd.Series) -> pd.Series:
    """The same without the zone, if every time is midnight in it."""
    if not pd.api.types.is_datetime64_any_dtype(column) and _text(column).str.contains(MIDNIGHT_WITH_OFFSET).all():
        return pd.to_datetime(_text(column).str.slice(0, 10), format="ISO8601", errors="coerce")
    if isinstance(local.dtype, pd.DatetimeTZDtype) and (local.dt.normalize() == local).all():
        return local.dt.tz_localize(None)
    return local


def _with_zone(local: pd.Series, column: pd.Series, path: Path, zone: str) -> pd.Series:
    """Times in UTC; those that bring no zone are of `zone`."""
    if isinstance(local.dtype, pd.DatetimeTZDtype):
        return local.dt.tz_convert("UTC")
    if zone == "UTC":
        return local.dt.tz_localize("UTC")
    times = local.dt.tz_localize(zone, **UNSURE)
    advice = f"does not exist, or twice, in {zone}, whose clocks change then; write UTC, or set data.file_zone right"
    check_rows(times.notna() | local.isna(), column, path, advice)
    return times.dt.tz_convert("UTC")


def _midnights(index: pd.DatetimeIndex, bar: pd.Timedelta, zone: str) -> pd.DatetimeIndex:
    """Days that a zone's clocks move (midnight, or the opening, of a market) as midnights UTC of the nearest date."""
    if len(index) < 2 or not ((index - index[0]) % bar != pd.Timedelta(0)).any():
        return index
    for name in (zone, *MARKETS.split()):
        local = index.tz_convert(name).tz_localize(None)
        if len((local - local.normalize()).unique()) == 1:
            return local.round("D").tz_localize("UTC").as_unit("ns").rename("timestamp")
    return index


def _parse_epoch(numbers: pd.Series, column: pd.Series, path: Path) -> pd.DatetimeIndex:
    """Epoch numbers as times; the unit is that of most values, which lie apart in the four units."""
    low, high = EARLIEST.timestamp() * 1e9, LATEST.timestamp() * 1e9
    inside = {unit: (numbers * float(ns) >= low) & (numbers * float(ns) < high) for unit, ns in UNIT_NS.items()}
    unit = max(inside, key=lambda name: inside[name].sum())
    usual = f"{unit} as in most rows" if inside[unit].any() else "s, ms, us or ns"
    if inside[unit].any():  # years before 1990 too, where they can be nothing else
        else_where = np.logical_or.reduce([inside[name] for name in UNIT_NS if name != unit])
        older = (numbers * float(UNIT_NS[unit]) < low) & (numbers * float(UNIT_NS[unit]) > pd.Timestamp.min.value)
        inside[unit] |= older & ~else_where & ((numbers < 0) | (unit == "s"))
    problem = f"is no epoch time of the years 1990 to 2100 in {usual}; write all rows in one unit, or ISO 8601"
    check_rows(inside[unit], column, path, problem)
    if pd.api.types.is_integer_dtype(numbers):
        stamps = numbers.to_numpy(np.int64) * UNIT_NS[unit]
    else:  # a float cannot hold nanoseconds of this century: whole milliseconds are what it can mean
        stamps = np.round(numbers.to_numpy(np.float64) * (UNIT_NS[unit] / 1e6)).astype(np.int64) * 10**6
    return pd.DatetimeIndex(stamps.astype("datetime64[ns]"), tz="UTC", name="timestamp")


def check_rows(good: pd.Series, column: pd.Series, path: Path, problem: str) -> None:
    """Name the first row (counted from 1 after the header line) that is not good."""
    bad = np.flatnonzero(~np.asarray(good, dtype=bool))
    if len(bad):
        where = f"{path}: column '{column.name}', row {column.index[bad[0]] + 1}"
        raise CmatError(f"{where}: {column.iloc[bad[0]]} {problem} (rows affected: {len(bad)})")
