"""Candle files: the files of a symbol become one frame of candles.

Accepted are the column names of Binance klines (also header-less), freqtrade, yfinance, MetaTrader and this project, in
any case; times are ISO 8601 or numbers of one epoch unit. Nothing is repaired here: a file is read as it is or refused.
"""

from __future__ import annotations

import difflib
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from cmat_lib.data.candle_sources import CandleSource, market_files
from cmat_lib.data.candle_tables import read_table
from cmat_lib.data.candle_times import EARLIEST, LATEST, check_rows, parse_times
from cmat_lib.errors import CmatError
from cmat_lib.schema import DataConfig

REQUIRED = ("timestamp", "open", "high", "low", "close", "volume")

# Our name -> accepted spellings, without case, blanks and punctuation; the first one that a file has counts.
SPELLINGS = {
    "timestamp": ("timestamp", "opentime", "date", "datetime", "time"),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume",),
    "quote_volume": ("quotevolume", "quoteassetvolume"),
    "trades": ("trades", "numberoftrades", "count"),
    "taker_buy_volume": ("takerbuyvolume", "takerbuybaseassetvolume", "takerbuybasevolume"),
    "taker_buy_quote_volume": ("takerbuyquotevolume", "takerbuyquoteassetvolume"),
    "trigger": ("trigger",),
    "max_pct": ("maxpct",),
}


def read_market(data: DataConfig) -> dict[str, pd.DataFrame]:
    """Raw candles of every chosen file from `data.since` to `data.until`; order, gaps and values are as in the file.

    Parameters
    ----------
    data : DataConfig
        `data_dir`, `symbols`, `timeframe`, `file_zone`, `since` and `until` are read.

    Returns
    -------
    dict of str to DataFrame
        Candles per symbol, sorted by symbol; see `read_candles`. ``attrs["source"]`` says what they were read from.

    Raises
    ------
    CmatError
        If a file cannot be read as candles of `data.timeframe`, or holds none in the chosen time.
    """
    market = {}
    for symbol, source in market_files(data).items():
        candles = _read_source(source, data)
        chosen = (candles.index >= (data.since or EARLIEST)) & (candles.index < (data.until or LATEST))
        if not chosen.any():
            span = f"{candles.index.min():%Y-%m-%d %H:%M} to {candles.index.max():%Y-%m-%d %H:%M}"
            raise CmatError(f"{source}: no candle between data.since and data.until; the file has {span}")
        market[symbol] = candles[chosen]
    return market


def _read_source(source: CandleSource, data: DataConfig) -> pd.DataFrame:
    frames = [read_candles(path, data.bar, data.file_zone, source.ticker) for path in source.paths]
    if not source.parts:
        return frames[0]
    return _join_parts(frames, source)


def _join_parts(frames: list[pd.DataFrame], source: CandleSource) -> pd.DataFrame:
    """Candles of all archives of a symbol; a row that two of them share (a month and its days) is taken once."""
    in_order = all(frame.index.is_monotonic_increasing for frame in frames)
    joined = pd.concat(frames)
    joined = joined[~joined.reset_index().duplicated().to_numpy()]
    months = pd.PeriodIndex([part[:7] for part in source.parts], freq="M")
    absent = ", ".join(map(str, pd.period_range(months.min(), months.max(), freq="M").difference(months)))
    if absent:
        warnings.warn(f"{source}: no archive for {absent}; get it, or its candles are a gap", stacklevel=2)
    about = f"{len(frames)} archives, {min(source.parts)} to {max(source.parts)}"
    joined.attrs = {"source": about + (f" without {absent}" if absent else "")}
    return joined.sort_index(kind="stable") if in_order else joined


def read_candles(path: Path, bar: pd.Timedelta, zone: str = "UTC", ticker: str | None = None) -> pd.DataFrame:
    """Raw candles of one file.

    Parameters
    ----------
    path : Path
        CSV, Parquet or Feather file, freqtrade's JSON, or a zip with one CSV.
    bar : Timedelta
        Length of a candle.
    zone : str
        Time zone of times that bring none.
    ticker : str, optional
        Which of the symbols of a file that has several.

    Returns
    -------
    DataFrame, shape (T, 5 or more)
        Index `timestamp` (candle open, datetime64[ns, UTC]), float64 columns open, high, low, close, volume, then those
        of quote_volume, trades, taker_buy_volume, taker_buy_quote_volume, trigger and max_pct that the file has.

    Raises
    ------
    CmatError
        If the file is empty or unreadable, lacks a required column, has text in a number column or a time that
        cannot be understood, or if its candles are not `bar` apart.
    """
    table = read_table(path, ticker)
    columns = _match_columns(list(table.columns), path)
    if table.empty:
        raise CmatError(f"{path}: the file has no rows; download it again or remove it")
    time_column = table[columns.pop("timestamp")]
    times = parse_times(time_column, path, bar, zone)
    _check_spacing(times, bar, f"{path}: column '{time_column.name}'")
    candles = pd.DataFrame({name: _parse_numbers(table[column], path) for name, column in columns.items()}, index=times)
    candles.attrs["source"] = path.name + (f" ({kind})" if (kind := table.attrs.get("kind")) else "")
    return candles


def _match_columns(names: list, path: Path) -> dict[str, str]:
    """Map our column names to those of the file."""
    spelled: dict[str, list] = {}
    for name in names:
        spelled.setdefault(re.sub(r"[^a-z0-9]", "", str(name).lower()), []).append(name)
    found = {}
    for ours, spellings in SPELLINGS.items():
        hits = next((spelled[spelling] for spelling in spellings if spelling in spelled), [])
        if not hits and ours in REQUIRED:
            wanted = " or ".join(spellings)
            raise CmatError(f"{path}: no column {wanted}{_nearest(ours, names)}; it has {', '.join(map(str, names))}")
        if len(hits) > 1:
            raise CmatError(f"{path}: columns {' and '.join(map(repr, hits))} both mean '{ours}'; remove one")
        if hits:
            found[ours] = hits[0]
    return found


def _nearest(ours: str, names: list) -> str:
    by_lower = {str(name).lower(): name for name in names}
    close = difflib.get_close_matches(ours, list(by_lower), n=1)
    return f"; is '{by_lower[close[0]]}' meant? then rename it" if close else " (is there a header line?)"


def _parse_numbers(column: pd.Series, path: Path) -> np.ndarray:
    try:
        numbers = pd.to_numeric(column, errors="coerce")
        good = numbers.notna() | column.isna()
        values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    except Exception as error:  # not all that a file can hold can be coerced
        raise CmatError(
            f"{path}: column '{column.name}' has no numbers ({error}); correct or remove the file"
        ) from None
    commas = column[~good].map(str).astype(str).str.fullmatch(r"[-+]?[\d.]*,\d+").any()
    advice = "decimals after a comma; save the file with decimal points" if commas else "correct the row or remove it"
    check_rows(good, column, path, f"is not a number; {advice}")
    return values


def _check_spacing(times: pd.DatetimeIndex, bar: pd.Timedelta, where: str) -> None:
    """The most frequent step must be one candle; repeats, disorder and gaps are found later."""
    steps, counts = np.unique(np.diff(np.unique(times.asi8)), return_counts=True)
    usual = pd.Timedelta(int(steps[counts.argmax()]), unit="ns") if len(steps) else bar
    if usual != bar:
        timeframe = _timeframe(usual)
        advice = f"set data.timeframe: {timeframe}" if timeframe else "no candle length, so check the time unit"
        raise CmatError(f"{where}: candles are {usual} apart, data.timeframe is {_timeframe(bar)}; {advice}")


def _timeframe(step: pd.Timedelta) -> str | None:
    """Text of a candle length as `data.timeframe` spells it; None if it is not whole minutes."""
    for unit, length in (("d", "1D"), ("h", "1h"), ("m", "1min")):
        if step % pd.Timedelta(length) == pd.Timedelta(0):
            return f"{step // pd.Timedelta(length)}{unit}"
    return None
