"""Candle files: one CSV, Parquet or Feather file per symbol becomes one frame of candles.

Accepted are the column names of Binance klines (also header-less), freqtrade, yfinance and this project, in any case;
times are ISO 8601 or numbers of one epoch unit. Nothing is repaired here: a file is read as it is or refused.
"""

from __future__ import annotations

import csv
import difflib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from cmat_lib.config import resolve_path
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

# Binance publishes monthly kline files without a header line, in this order.
KLINE_COLUMNS = [
    *REQUIRED,
    "close_time",
    "quote_volume",
    "trades",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "ignore",
]

UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
EARLIEST, LATEST = pd.Timestamp("1990-01-01", tz="UTC"), pd.Timestamp("2100-01-01", tz="UTC")


def symbol_of(path: Path) -> str:
    """Symbol that a file name stands for: the name without its ending and a trailing timeframe.

    Examples
    --------
    >>> [symbol_of(Path(name)) for name in ("BTCUSDT_15m.parquet", "BTC_USDT-15m.feather", "SOL.csv")]
    ['BTCUSDT', 'BTC_USDT', 'SOL']
    """
    return re.sub(r"(?<=.)[-_]\d+[mhdw]$", "", path.stem)


def market_files(data: DataConfig) -> dict[str, Path]:
    """Candle file of every chosen symbol, sorted by symbol; sub-folders and hidden files are not looked at.

    Raises
    ------
    CmatError
        If `data.data_dir` is null, missing or without candle files, if a chosen symbol has no file or two,
        or if a symbol could not be used as a file name.
    """
    folder = _data_folder(data)
    visible = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    files = [path for path in visible if path.suffix.lower() in READERS]
    if not files:
        raise CmatError(f"{folder}: no .csv, .parquet or .feather file in this folder (data.data_dir)")
    if data.symbols is not None:
        _check_symbols_exist(data.symbols, [symbol_of(path) for path in files], folder)
        files = [path for path in files if symbol_of(path) in data.symbols]
    return dict(sorted(_by_symbol(files).items()))


def _data_folder(data: DataConfig) -> Path:
    if data.data_dir is None:
        raise CmatError("data.data_dir is null (the synthetic market): set it to a folder of candle files")
    folder = resolve_path(data.data_dir)
    if not folder.is_dir():
        raise CmatError(f"{folder}: no such folder; set data.data_dir to a folder with one candle file per symbol")
    return folder


def _check_symbols_exist(symbols: list[str], present: list[str], folder: Path) -> None:
    if not symbols:
        raise CmatError("data.symbols is an empty list: name at least one symbol, or null for every file")
    for symbol in symbols:
        if symbol not in present:
            close = difflib.get_close_matches(symbol.upper(), present, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"the folder has {', '.join(present)}"
            raise CmatError(f"data.symbols: no file for '{symbol}' in {folder}; {hint}")


def _by_symbol(files: list[Path]) -> dict[str, Path]:
    """Files by symbol; names are compared without case because some file systems cannot tell them apart."""
    taken: dict[str, Path] = {}
    for path in files:
        symbol = symbol_of(path)
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", symbol):
            raise CmatError(f"{path}: symbol '{symbol}' may only have letters, digits, '.', '_' and '-'; rename it")
        other = taken.setdefault(symbol.lower(), path)
        if other is not path:
            raise CmatError(f"{path}: symbol '{symbol}' already comes from {other.name}; keep one file per symbol")
    return {symbol_of(path): path for path in files}


def read_market(data: DataConfig) -> dict[str, pd.DataFrame]:
    """Raw candles of every chosen file from `data.since` to `data.until`; order, gaps and values are as in the file.

    Parameters
    ----------
    data : DataConfig
        `data_dir`, `symbols`, `timeframe`, `since` and `until` are read.

    Returns
    -------
    dict of str to DataFrame
        Candles per symbol, sorted by symbol; see `read_candles`.

    Raises
    ------
    CmatError
        If a file cannot be read as candles of `data.timeframe`, or holds none in the chosen time.
    """
    market = {}
    for symbol, path in market_files(data).items():
        candles = read_candles(path, data.bar)
        chosen = (candles.index >= (data.since or EARLIEST)) & (candles.index < (data.until or LATEST))
        if not chosen.any():
            span = f"{candles.index.min():%Y-%m-%d %H:%M} to {candles.index.max():%Y-%m-%d %H:%M}"
            raise CmatError(f"{path}: no candle between data.since and data.until; the file has {span}")
        market[symbol] = candles[chosen]
    return market


def read_candles(path: Path, bar: pd.Timedelta) -> pd.DataFrame:
    """Raw candles of one file.

    Parameters
    ----------
    path : Path
        CSV, Parquet or Feather file.
    bar : Timedelta
        Length of a candle.

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
    table = _read_table(path)
    columns = _match_columns(list(table.columns), path)
    if table.empty:
        raise CmatError(f"{path}: the file has no rows; download it again or remove it")
    time_column = table[columns.pop("timestamp")]
    times = _parse_times(time_column, path)
    _check_spacing(times, bar, f"{path}: column '{time_column.name}'")
    return pd.DataFrame({name: _parse_numbers(table[column], path) for name, column in columns.items()}, index=times)


def _read_table(path: Path) -> pd.DataFrame:
    if path.stat().st_size == 0:
        raise CmatError(f"{path}: the file is empty; download it again or remove it")
    try:
        table = READERS[path.suffix.lower()](path)
        if isinstance(table.index, pd.DatetimeIndex) and table.index.name is None:
            table.index.name = "timestamp"
        return table if table.index.name is None else table.reset_index()
    except CmatError:
        raise
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise CmatError(f"{path}: cannot be read ({reason}); the file may be truncated, get it again") from None


def _read_csv(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        first = next(csv.reader(stream), [])
    # index_col=False: with a delimiter at the end of each row, pandas would else take the first column as the index.
    options = {"encoding": "utf-8-sig", "index_col": False}
    if not first or not all(_is_number(field) for field in first):
        return pd.read_csv(path, **options)
    if len(first) != len(KLINE_COLUMNS):
        raise CmatError(f"{path}: {len(first)} columns without a header line (only Binance's 12 may be); add one")
    return pd.read_csv(path, header=None, names=KLINE_COLUMNS, **options)


READERS = {".csv": _read_csv, ".parquet": pd.read_parquet, ".feather": pd.read_feather}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
    numbers = pd.to_numeric(column, errors="coerce")
    _check_rows(numbers.notna() | column.isna(), column, path, "is not a number; correct the row or remove it")
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan)


def _parse_times(column: pd.Series, path: Path) -> pd.DatetimeIndex:
    """Candle opens as datetime64[ns, UTC]; times without a zone are UTC."""
    if not pd.api.types.is_datetime64_any_dtype(column):
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.notna().mean() > 0.5:
            return _parse_epoch(numbers, column, path)
    times = pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce")
    _check_rows(times.notna(), column, path, "is not a time; write ISO 8601 (2025-01-31 00:15:00) or one epoch unit")
    advice = "is not between the years 1990 and 2100; the file was probably written with a wrong time unit"
    _check_rows((times >= EARLIEST) & (times < LATEST), column, path, advice)
    return pd.DatetimeIndex(times, name="timestamp").as_unit("ns")


def _parse_epoch(numbers: pd.Series, column: pd.Series, path: Path) -> pd.DatetimeIndex:
    """Epoch numbers as times. The years 1990 to 2100 lie apart in the four units, so the values tell the unit."""
    low, high = EARLIEST.timestamp() * 1e9, LATEST.timestamp() * 1e9
    inside = {unit: (numbers * float(ns) >= low) & (numbers * float(ns) < high) for unit, ns in UNIT_NS.items()}
    unit = max(inside, key=lambda name: inside[name].sum())
    usual = f"{unit} as in most rows" if inside[unit].any() else "s, ms, us or ns"
    advice = f"is no epoch time of the years 1990 to 2100 in {usual}; write all rows in one unit, or ISO 8601"
    _check_rows(inside[unit], column, path, advice)
    if pd.api.types.is_integer_dtype(numbers):
        stamps = numbers.to_numpy(np.int64) * UNIT_NS[unit]
    else:  # a float cannot hold nanoseconds of this century: whole milliseconds are what it can mean
        stamps = np.round(numbers.to_numpy(np.float64) * (UNIT_NS[unit] / 1e6)).astype(np.int64) * 10**6
    return pd.DatetimeIndex(stamps.astype("datetime64[ns]"), tz="UTC", name="timestamp")


def _check_rows(good: pd.Series, column: pd.Series, path: Path, problem: str) -> None:
    """Name the first row (counted from 1 after the header line) that is not good."""
    bad = np.flatnonzero(~good.to_numpy(dtype=bool))
    if len(bad):
        where = f"{path}: column '{column.name}', row {bad[0] + 1}"
        raise CmatError(f"{where}: {column.iloc[bad[0]]} {problem} (rows affected: {len(bad)})")


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
