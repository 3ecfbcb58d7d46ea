"""Candle files: the files of a symbol become one frame of candles.

Nothing is repaired here: a file is read as it is or refused. A row without any price is no candle, and newest-first is
an order.
"""

import difflib
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.config.inputs import OHLC
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.sources.choice import CandleSource, left_out, market_files
from cmat_lib.data.sources.makers import REQUIRED, SPELLINGS
from cmat_lib.data.sources.tables import channel_readers, read_table
from cmat_lib.data.sources.text import NO_NUMBER, NOT_NUMBERS, Layout
from cmat_lib.data.sources.times import LATEST, check_rows, join_clock, parse_times

BEFORE_ALL = pd.Timestamp.min.tz_localize("UTC")
SCALES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "万": 1e4, "亿": 1e8}


def read_market(data: DataConfig) -> dict[str, pd.DataFrame]:
    """Raw candles of every chosen file, sorted by symbol; see `read_candles`. Gaps and values are as in the file.

    Raises a CmatError if a file cannot be read as candles of `data.timeframe`, or holds none in the chosen time.
    """
    if others := [f"{path.name} ({why})" for path, why in left_out(data).items() if "timeframe" not in why]:
        warnings.warn(f"{data.data_dir}: left out: {', '.join(others)}", stacklevel=2)
    try:
        market = {symbol: read_source(source, data) for symbol, source in file_by_file(market_files(data))}
    except CmatError as error:
        raise CmatError(f"{error}; cmat candles {data.data_dir} shows how these files are understood") from None
    read_table.cache_clear()
    return dict(sorted(market.items()))


def file_by_file(sources: dict[str, CandleSource]) -> list[tuple[str, CandleSource]]:
    """Symbols and sources so that the tickers of a file, which is kept until another is read, stand in a row."""
    return sorted(sources.items(), key=lambda entry: (entry[1].paths, entry[0]))


def read_source(source: CandleSource, data: DataConfig) -> pd.DataFrame:
    """Raw candles of one symbol, see `read_market`."""
    frames = [read_candles(path, data, source.ticker) for path in source.paths]
    candles = _join_parts(frames, source) if source.parts else frames[0]
    if candles.empty:
        first, last = min(f.attrs["span"][0] for f in frames), max(f.attrs["span"][1] for f in frames)
        span = f"{first} to {last}" if last else "no price"
        raise CmatError(f"{source}: no candle between data.since and data.until; the file has {span}")
    return candles


def _join_parts(frames: list[pd.DataFrame], source: CandleSource) -> pd.DataFrame:
    """Candles of all archives of a symbol; a row that two of them share (a month and its days) is taken once."""
    in_order = all(frame.index.is_monotonic_increasing for frame in frames)
    joined = pd.concat(frames)
    joined = joined[~joined.reset_index().duplicated().to_numpy()]
    about, absent = f"{len(frames)} archives, {min(source.parts)} to {max(source.parts)}", ""
    if all(len(part) in (7, 10) for part in source.parts) and source.ticker is None:
        months = pd.PeriodIndex([part[:7] for part in source.parts], freq="M")
        absent = ", ".join(map(str, pd.period_range(months.min(), months.max(), freq="M").difference(months)))
    if absent:
        warnings.warn(f"{source}: no archive for {absent}; get it, or its candles are a gap", stacklevel=2)
    joined.attrs = frames[0].attrs | {"source": about + (f" without {absent}" if absent else "")}
    return joined.sort_index(kind="stable") if in_order else joined


def read_candles(path: Path, data: DataConfig, ticker: str | None = None) -> pd.DataFrame:
    """Raw candles of one file, or of its rows of one `ticker`; oldest first if it is in any order of time.

    Index `timestamp` (candle open, datetime64[ns, UTC]), float64 columns open, high, low, close, volume, then those of
    quote_volume, trades, taker_buy_volume, taker_buy_quote_volume, trigger and max_pct that the file has, and what a
    channel reads. No volume if there is none and no channel reads it. ``attrs``: ``source`` (what it was read from),
    ``layout``, ``span`` (first and last time), ``unread`` (other columns), ``doubts`` (list of sentences).

    Raises a CmatError if the file is empty or unreadable, lacks a required column, has text in a number column or a
    time that cannot be understood, or if its candles are not `data.bar` apart.
    """
    readers, table = channel_readers(data), read_table(path, data)
    about: Layout = table.attrs["layout"]
    for ours in (*REQUIRED, *(["volume"] if "volume" in readers else [])):
        if ours not in about.places:
            raise CmatError(f"{path}: {_no_column(ours, about, readers)}; name it in data.columns")
    if table.empty:
        raise CmatError(f"{path}: the file has no rows; download it again or remove it")
    rows, doubts = _priced_rows(table, ticker, path)
    times = candle_times(rows, path, data)
    span = [f"{time:%Y-%m-%d %H:%M}" for time in (times.min(), times.max())] if len(times) else ["", ""]
    if times.is_monotonic_decreasing and span[0] != span[1]:
        rows, times = rows[::-1], times[::-1]
    chosen = (times >= (data.since or BEFORE_ALL)) & (times < (data.until or LATEST))
    if not chosen.all():
        rows, times = rows[chosen], times[chosen]
    if (usual := usual_step(times) or data.bar) != data.bar:  # repeats, disorder and gaps are found later
        timeframe = timeframe_of(usual)
        advice = f"set data.timeframe: {timeframe}" if timeframe else "no candle length, so check the time unit"
        apart = f"candles are {usual} apart, data.timeframe is {timeframe_of(data.bar)}"
        raise CmatError(f"{path}: column '{about.theirs('timestamp')}': {apart}; {advice}")
    ours = [name for name in (*SPELLINGS, *rows.columns) if name in rows and name not in NOT_NUMBERS]
    numbers = {name: _parse_numbers(rows[name].rename(about.theirs(name)), path, about) for name in dict.fromkeys(ours)}
    candles = pd.DataFrame(_one_volume(numbers, "volume" in readers), index=times)
    kind = ", ".join(filter(None, [about.maker and about.maker.name, ticker]))
    doubts += [f"column {name} has few values, each in one stretch of rows" for name in table.attrs["blocks"]]
    candles.attrs = {"source": path.name + (f" ({kind})" if kind else ""), "unread": table.attrs["unread"]}
    candles.attrs |= {"layout": about, "span": span, "doubts": doubts}
    return candles


def _no_column(ours: str, about: Layout, readers: dict[str, list[str]]) -> str:
    names = [name for name in about.names if name]
    close = difflib.get_close_matches(ours, [name.lower() for name in names], n=1)
    advice = f"is '{close[0]}' meant" if close else f"it has {', '.join(names)}"
    spelled = " or ".join(SPELLINGS[ours].split()[: 4 if ours == "timestamp" else 1])
    other = f"; or change data.channels ({', '.join(readers['volume'])} read it)" if ours == "volume" else ""
    return f"no column {spelled}; {advice}{other}"


def _priced_rows(table: pd.DataFrame, ticker: str | None, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Rows of one symbol that have any price, and a word about the others."""
    priced = table[list(OHLC)].notna().any(axis=1)
    if ticker is not None:
        check_rows(table["symbol"].notna() | ~priced, table["symbol"], path, "is no symbol; complete the row")
        own = table["symbol"] == ticker
        table, priced = table[own], priced[own]
    if priced.all():
        return table, []
    return table[priced], [f"{(~priced).sum()} rows without any price, which are gaps"]


def candle_times(rows: pd.DataFrame, path: Path, data: DataConfig) -> pd.DatetimeIndex:
    """Opens of the candles of a table."""
    column = join_clock(rows["timestamp"], rows["clock"]) if "clock" in rows else rows["timestamp"]
    column = column.rename(rows.attrs["layout"].theirs("timestamp"))
    times = parse_times(column, path, data.bar, data.file_zone, data.time_format)
    # 23:59:59.999 is the end that an exchange writes.
    return times if data.stamp == "open" else times.ceil("1min") - data.bar


def _parse_numbers(column: pd.Series, path: Path, about: Layout) -> np.ndarray:
    """Values of a column, (T,); missing ones are NaN."""
    try:
        numbers = pd.to_numeric(column, errors="coerce") if about.plain_numbers else column.map(lambda _: np.nan)
        good = numbers.notna() | column.isna()
        if not good.all():
            odd = column[~good].map(str).astype(str).str.strip()
            numbers = numbers.astype(np.float64).where(good, _odd_numbers(odd, about))
            good |= numbers.notna() | odd.reindex(column.index).isin(NO_NUMBER)
        values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    except Exception as error:  # not all that a file can hold can be coerced
        problem = f"{path}: column '{column.name}' has no numbers ({error})"
        raise CmatError(f"{problem}; correct or remove the file") from None
    has_commas = column[~good].map(str).astype(str).str.contains(",").any()
    advice = "set data.decimal and data.thousands" if has_commas else "correct the row or remove it"
    check_rows(good, column, path, f"is not a number; {advice}")
    return values


def _odd_numbers(text: pd.Series, about: Layout) -> pd.Series:
    """Values of $1,234.50, 1.234,50, 52.59K and their like; NaN for what is none."""
    bare = text.str.replace(r"[$€£¥₹+\s'’]", "", regex=True)
    unit = bare.str.extract(r"(?<=\d)([KMBT万亿])$", flags=re.IGNORECASE)[0].str.upper()
    bare = bare.where(unit.isna(), bare.str.slice(0, -1))
    point, group = re.escape(about.decimal), re.escape(about.thousands or "")
    whole = rf"\d{{1,3}}(?:{group}\d{{2,3}})*{group}\d{{3}}|\d+" if group else r"\d+"
    fits = bare.str.fullmatch(rf"-?(?:{whole})?(?:{point}\d*)?(?:[eE][-+]?\d+)?")
    if about.thousands:
        bare = bare.str.replace(about.thousands, "", regex=False)
    numbers = pd.to_numeric(bare.str.replace(about.decimal, ".", regex=False).where(fits), errors="coerce")
    return numbers * unit.map(SCALES).fillna(1.0)


def _one_volume(columns: dict[str, np.ndarray], needed: bool) -> dict[str, np.ndarray]:
    """MetaTrader's traded volume if there is any, else its ticks; TradeStation's two halves; none if it is empty."""
    traded, down = columns.pop("real_volume", None), columns.pop("volume_down", None)
    if traded is not None and (traded > 0).any():
        columns["volume"] = traded
    if down is not None:
        columns["volume"] = columns["volume"] + down
    if "volume" in columns and not needed and not (columns["volume"] >= 0).any():
        del columns["volume"]
    return columns


def usual_step(times: pd.DatetimeIndex) -> pd.Timedelta | None:
    """Most frequent step between neighbouring times; None if there is no step."""
    steps = np.diff(times.asi8 if times.is_monotonic_increasing else np.sort(times.asi8))
    counts = pd.Series(steps[steps > 0]).value_counts()
    return pd.Timedelta(int(counts.index[counts == counts.iloc[0]].min()), unit="ns") if len(counts) else None


def timeframe_of(step: pd.Timedelta) -> str | None:
    """Text of a candle length as `data.timeframe` spells it; None if it is not whole minutes."""
    for unit, length in (("d", "1D"), ("h", "1h"), ("m", "1min")):
        if step % pd.Timedelta(length) == pd.Timedelta(0):
            return f"{step // pd.Timedelta(length)}{unit}"
    return None
