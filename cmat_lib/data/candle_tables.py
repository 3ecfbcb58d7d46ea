"""Candle files of many makers as plain tables: one row per candle, columns still under their own names."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from cmat_lib.errors import CmatError, first_line

# Binance publishes kline files without a header line (some months have one), in this order.
KLINE_COLUMNS = [
    *("timestamp", "open", "high", "low", "close", "volume"),
    *("close_time", "quote_volume", "trades", "taker_buy_volume", "taker_buy_quote_volume", "ignore"),
]
METATRADER_COLUMNS = ["date", "time", "open", "high", "low", "close", "tickvol"]  # of MetaTrader 4, without a header
CLOCK = r"\d\d?:\d\d(:\d\d(\.\d+)?)?"
FREQTRADE_JSON = re.compile(r".+-\d+[mhdw](-futures)?\.json(\.gz)?")


def is_candle_file(path: Path) -> bool:
    """Whether a file name promises candles; of JSON files only freqtrade's do."""
    return path.suffix.lower() in READERS or bool(FREQTRADE_JSON.fullmatch(path.name))


def read_table(path: Path, ticker: str | None = None) -> pd.DataFrame:
    """Rows and columns of one file as they are; ``attrs["kind"]`` names the maker if it is not a plain table.

    Parameters
    ----------
    path : Path
    ticker : str, optional
        Which of the tickers of a yfinance frame; rows in which it has nothing (others traded) are left out.

    Raises
    ------
    CmatError
        If the file is empty, damaged, or of no known form.
    """
    if path.stat().st_size == 0:
        raise CmatError(f"{path}: the file is empty; download it again or remove it")
    try:
        table = _read_json(path) if FREQTRADE_JSON.fullmatch(path.name) else READERS[path.suffix.lower()](path)
    except CmatError:
        raise
    except Exception as error:  # bytes may ask of the readers of five formats whatever they like
        problem = f"{path}: cannot be read ({first_line(error)})"
        raise CmatError(f"{problem}; the file may be truncated, get it again") from None
    if table.columns.nlevels == 2:
        table = table.xs(ticker, axis=1, level=_ticker_level(table.columns)).dropna(how="all")
        table.attrs["kind"] = f"yfinance, {ticker}"
    if isinstance(table.index, pd.DatetimeIndex) and table.index.name is None:
        table.index.name = "timestamp"
    return table if table.index.name is None else table.reset_index()


def tickers_in(path: Path) -> list[str]:
    """Tickers of a yfinance frame (two header lines: price and ticker), in order; empty for other files."""
    try:
        if path.suffix.lower() == ".csv":
            columns = _read_csv_text(_head(path)).columns
        elif path.suffix.lower() == ".parquet":
            columns = pq.read_schema(path).empty_table().to_pandas().columns
        else:
            return []
    except Exception:
        return []  # reading the file will say what is wrong
    if columns.nlevels != 2:
        return []
    tickers = list(dict.fromkeys(columns.get_level_values(_ticker_level(columns))))
    if odd := [ticker for ticker in tickers if not isinstance(ticker, str)]:
        raise CmatError(f"{path}: the ticker {odd[0]!r} is no text; name the second level of the columns by symbols")
    return tickers


def _head(path: Path) -> str:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return "".join(line for _, line in zip(range(4), stream, strict=False))


def _ticker_level(columns: pd.MultiIndex) -> int:
    """yfinance puts prices over tickers, or tickers over prices (group_by="ticker")."""
    return 1 if "close" in {str(name).lower() for name in columns.get_level_values(0)} else 0


def _read_csv(path: Path) -> pd.DataFrame:
    return _read_csv_text(_text(path.read_bytes(), path), str(path))


def _text(content: bytes, path: Path) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # every other byte of UTF-16
        raise CmatError(f"{path}: the text is not UTF-8 (UTF-16, perhaps); save the file as UTF-8")
    return text


def _read_zip(path: Path) -> pd.DataFrame:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".csv")]
        if len(names) != 1:
            raise CmatError(f"{path}: {len(names)} CSV files inside; an archive of candles has one")
        return _read_csv_text(_text(archive.read(names[0]), path), str(path))


def _read_csv_text(text: str, name: str = "") -> pd.DataFrame:
    line = text[: text.find("\n") if "\n" in text else len(text)]
    delimiter = max(",\t;", key=line.count)
    rows = [row for _, row in zip(range(3), csv.reader(io.StringIO(text), delimiter=delimiter), strict=False)]
    first = rows[0] if rows else []
    # index_col=False: with a delimiter at the end of each row, pandas would else take the first column as the index.
    options = {"sep": delimiter, "index_col": False}
    if len(rows) == 3 and len(rows[2]) > 2 and rows[2][0].isalpha() and not any(rows[2][1:]):  # Date,,,,,
        return pd.read_csv(io.StringIO(text), sep=delimiter, header=[0, 1], index_col=0)
    if first and first[0].upper() == "<DATE>":
        return _metatrader(pd.read_csv(io.StringIO(text), **options))
    if first and re.fullmatch(r"\d{4}\.\d\d\.\d\d", first[0]) and len(first) == len(METATRADER_COLUMNS):
        return _metatrader(pd.read_csv(io.StringIO(text), header=None, names=METATRADER_COLUMNS, **options))
    if not first or not all(_is_number(field) for field in first):
        table = pd.read_csv(io.StringIO(text), **options)
        spelled = dict(zip(table.columns, first, strict=False))  # the second of two columns close is not "close.1"
        return _with_clock(table).rename(columns=spelled)
    if len(first) != len(KLINE_COLUMNS):
        raise CmatError(f"{name}: {len(first)} columns without a header line (only Binance's 12 may be); add one")
    return pd.read_csv(io.StringIO(text), header=None, names=KLINE_COLUMNS, **options)


def _with_clock(table: pd.DataFrame) -> pd.DataFrame:
    """The column of the date with the time of day, if that is in a column of its own."""
    names = {str(name).lower(): name for name in table.columns}
    if "date" not in names or "time" not in names:
        return table
    date, clock = (table[names[which]].astype(str) for which in ("date", "time"))
    if date.str.contains(":").any() or not clock.str.fullmatch(CLOCK).all():
        return table
    joined = date.str.replace(".", "-", regex=False) + " " + clock.str.replace(r"^(\d):", r"0\1:", regex=True)
    return table.assign(**{names["date"]: joined}).drop(columns=names["time"])


def _metatrader(table: pd.DataFrame) -> pd.DataFrame:
    """Columns by their usual names. Volume is the traded one if there is any, else the number of ticks."""
    table.columns = [str(name).strip("<>").lower() for name in table.columns]
    clock = " " + table.pop("time").astype(str) if "time" in table else ""
    table.insert(0, "timestamp", table.pop("date").astype(str).str.replace(".", "-", regex=False) + clock)
    if "vol" in table and (pd.to_numeric(table["vol"], errors="coerce") > 0).any():
        table["volume"] = table["vol"]
    elif "tickvol" in table:
        table["volume"] = table["tickvol"]
    table.attrs["kind"] = "MetaTrader"
    return table


def _read_json(path: Path) -> pd.DataFrame:
    """freqtrade's JSON: a list of [milliseconds, open, high, low, close, volume]."""
    content = path.read_bytes()
    rows = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 6 for row in rows):
        raise CmatError(f"{path}: no list of candles as freqtrade writes it; correct or remove the file")
    return pd.DataFrame(rows, columns=KLINE_COLUMNS[:6])


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".parquet": pd.read_parquet,
    ".feather": pd.read_feather,
    ".zip": _read_zip,
}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
