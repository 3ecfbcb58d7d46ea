"""Markets that close: which missing candles are nights, weekends and holidays, and which are really missing.

The calendar is read off the candles. A slot of the week, such as Monday 09:30 to 09:45, belongs to the session if the
symbol has a candle there in at least half of its weeks, by the clock of `data.clock_zone`. A gap is a *regular closure*
if no candle of a session is missing in it. A day without any candle is a holiday, and an early close, of an hour at
least, is regular if the market closed early at the same time on an earlier day. No price enters what is inferred. A gap
is judged by candles up to its end, but by slots of the session that come from all candles, later ones too.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.config.schema import DataConfig

CLOSED = "closed_before"  # column: candles that are missing before this one because the market was closed
MIN_WEEKS = 4
LONGEST = pd.Timedelta(days=12)  # China's new year, with both weekends
EARLY_CLOSE = pd.Timedelta(hours=1)  # at least, and more than one candle: one that is missing is no close
MINUTE = 60 * 10**9
DAY_MINUTES, WEEK_MINUTES = 24 * 60, 7 * 24 * 60


class Closures(NamedTuple):
    """Gaps of a symbol, judged."""

    before: np.ndarray  # (T,), missing candles of the regular closure right before each, or 0; a lunch may be 1.5
    absent: pd.DatetimeIndex  # candles of the session that are missing


def find_closures(index: pd.DatetimeIndex, bar: pd.Timedelta, zone: str) -> Closures:
    """Regular closures of one symbol: none in fewer than four weeks, or in a market that never closes.

    `index` has T candle opens (UTC), strictly ascending; in `zone` the session has the same hours all year.
    """
    opens, step = index.as_unit("ns").asi8, bar.as_unit("ns").value
    lengths = np.diff(opens) / step - 1  # (T − 1,) missing candles after each candle
    gaps = np.flatnonzero(lengths > 0)
    # A session may begin off the grid of the one before: then the slots between are looked at minute by minute, or as
    # finely as the times ask for. A slot that overlaps a candle is none that is missing.
    grid = int(np.gcd.reduce(np.diff(opens), initial=step))
    grid = grid if grid % MINUTE == 0 else step
    slots = np.maximum((opens[gaps + 1] - opens[gaps]) // grid - 2 * (step // grid) + 1, 0)
    owner = np.repeat(np.arange(len(gaps)), slots)  # gap of each missing candle
    last = np.cumsum(slots) - 1
    first = last - slots + 1
    missing = opens[gaps][owner] + step + (np.arange(len(owner)) - first[owner]) * grid
    minute, day = _local(missing, zone)
    in_session, traded = _calendar(opens, zone)
    sleeps = ~in_session[minute]
    if not len(owner) or not sleeps.any() or opens[-1] - opens[0] < MIN_WEEKS * WEEK_MINUTES * MINUTE:
        return Closures(np.zeros(len(index)), pd.DatetimeIndex(missing[:: step // grid], tz="UTC"))
    lacking = ~sleeps & np.isin(day, traded)
    later = lacking & (day != day[first][owner])  # on another day than the gap's first
    lost = np.bincount(owner[lacking], minlength=len(gaps))
    long = (lost > 1) & (lost * step >= EARLY_CLOSE.value)
    early = np.flatnonzero(sleeps[last] & (np.bincount(owner[later], minlength=len(gaps)) == 0) & long)
    regular = lost == 0
    regular[early[pd.Series(minute[first[early]] % DAY_MINUTES).duplicated()]] = True  # not the first at its hour
    regular &= lengths[gaps] * step <= LONGEST.value
    before = np.zeros(len(index))
    before[gaps[regular] + 1] = lengths[gaps[regular]]
    return Closures(before, pd.DatetimeIndex(missing[lacking & ~regular[owner]], tz="UTC"))


def closed_when_filled(index: pd.DatetimeIndex, bar: pd.Timedelta) -> np.ndarray:
    """Missing candles of the closure before each candle, (T,), once all that sessions lack has been filled in."""
    # Not judged again: an early close that was filled, the first of its hour, would no longer vouch for the second.
    opens, step = index.as_unit("ns").asi8, bar.as_unit("ns").value
    lengths = np.diff(opens, prepend=opens[:1] - step) / step - 1
    return np.where(lengths * step <= LONGEST.value, lengths, 0.0)


def join_sessions(candles: pd.DataFrame, bar: pd.Timedelta, zone: str, name: str) -> pd.DataFrame:
    """Candles with the column ``closed_before``, by which windows, channels and labels run over regular closures.

    Raises a CmatError that begins with `name` if there are gaps, but too few weeks to tell a calendar.
    """
    span = candles.index[-1] - candles.index[0]
    if len(candles) * bar <= span and span < pd.Timedelta(weeks=MIN_WEEKS):
        needed = f"the market's calendar off {MIN_WEEKS} weeks of candles or more, and these are {span.days} days"
        advice = "give more candles, or set data.sessions: continuous"
        raise CmatError(f"{name}: data.sessions: join reads {needed}; {advice}")
    return candles.assign(**{CLOSED: find_closures(candles.index, bar, zone).before})


def closure_hint(candles: pd.DataFrame, data: DataConfig) -> str:
    """What to set if it is regular closures that cut the candles of a symbol into pieces; else nothing."""
    before, absent = find_closures(candles.index, data.bar, data.clock_zone)
    if data.sessions == "join":
        zone = f"if data.clock_zone ({data.clock_zone}) is not the market's, set it: a change of the clocks makes gaps"
        return f"{len(absent)} candles of its sessions are missing; {zone}" if len(absent) else ""
    closures = (before > 0).sum()
    if closures < (candles.index[-1] - candles.index[0]) / pd.Timedelta(weeks=2):
        return ""
    closed = f"The market closes ({closures} nights, weekends or holidays)"
    zone = "; also set data.clock_zone to the market's time zone" if data.clock_zone == "UTC" else ""
    return f"{closed}, and no window runs over a closure unless data.sessions: join says so{zone}"


def off_session(index: pd.DatetimeIndex, zone: str) -> np.ndarray:
    """Whether each candle opens at no time of the week at which the session has candles, (T,) bool."""
    opens = index.as_unit("ns").asi8
    return ~_calendar(opens, zone)[0][_local(opens, zone)[0]]


def _calendar(opens: np.ndarray, zone: str) -> tuple[np.ndarray, np.ndarray]:
    """Whether each minute of the week opens a candle of the session, (10080,) bool, and the days with candles."""
    minute, day = _local(opens, zone)
    weeks = (opens[-1] - opens[0]) / (WEEK_MINUTES * MINUTE)
    return np.bincount(minute, minlength=WEEK_MINUTES) >= weeks / 2, np.unique(day)


def _local(stamps: np.ndarray, zone: str) -> tuple[np.ndarray, np.ndarray]:
    """Minute of the week and number of the day of moments, by the clock of a zone, (n,) each."""
    local = pd.DatetimeIndex(stamps, tz="UTC").tz_convert(zone).tz_localize(None).as_unit("ns").asi8 // MINUTE
    return (local + 3 * DAY_MINUTES) % WEEK_MINUTES, local // DAY_MINUTES  # 1970-01-01 was a Thursday


def stretch_ids(candles: pd.DataFrame, bar: pd.Timedelta) -> np.ndarray:
    """Number of the gap-free stretch that each candle belongs to, (T,): 0 for the first, one more after each gap.

    A step over exactly as many candles as the column ``closed_before`` tells, if there is one, is no gap.
    """
    opens, step = candles.index.as_unit("ns").asi8, bar.as_unit("ns").value
    closed = candles[CLOSED].to_numpy(np.float64) if CLOSED in candles else 0
    gap = np.diff(opens, prepend=opens[:1] - step) != np.rint(step * (1 + closed))
    gap[:1] = False
    return np.cumsum(gap)
