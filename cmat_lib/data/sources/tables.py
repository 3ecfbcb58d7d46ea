"""Candle files of many makers as plain tables: a row per candle, columns under our names, values as in the file."""

import bz2
import gzip
import json
import lzma
import re
import warnings
import zipfile
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow.parquet as pq
from pyarrow import ipc

from cmat_lib.base.errors import CmatError, first_line
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.channels import channel_of
from cmat_lib.data.sources.makers import LIKE_SYMBOL, YFINANCE, known_prices, maker_of, match_columns, plain
from cmat_lib.data.sources.text import HEAD, Layout, sniff, without_header

PACKED: dict[str, Callable[[Path], BinaryIO]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
PART = 1 << 18  # rows
FREQTRADE_JSON = re.compile(r".+-\d+[mhdw](-futures)?\.json(\.gz)?")
JSON_ROWS = re.compile(rb'\s*\[\s*\[\s*"?\d')
JSON_NAMES = re.compile(rb'.*"(\d\. )?o(pen)?"', re.DOTALL)


def is_candle_file(path: Path) -> bool:
    """Whether a file may hold candles: by its ending, and where that says little (.txt, .json) by its beginning."""
    kind = _kind(path)
    if kind not in (".txt", ".tsv", ".json", ".jsonl") or FREQTRADE_JSON.fullmatch(path.name):
        return kind in READERS
    try:
        if _is_text(path):
            return bool(sniff(_head(path), DataConfig()).places)
        return bool(JSON_ROWS.match(_head(path)) or JSON_NAMES.match(_head(path)))
    except Exception:  # of a packed file that is damaged, or of what is no text
        return False


def has_header(path: Path) -> bool:
    """Whether a file names its columns."""
    try:
        return not _is_text(path) or sniff(_head(path), DataConfig()).names[:1] != ["1"]
    except Exception:
        return True  # reading the file will say what is wrong


def _is_text(path: Path) -> bool:
    return READERS[_kind(path)] is _read_text


def _kind(path: Path) -> str:
    """Ending of a file without that of a packer."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return suffixes[-2] if len(suffixes) == 2 and suffixes[-1] in PACKED else suffixes[-1] if suffixes else ""


def read_table(path: Path, data: DataConfig) -> pd.DataFrame:
    """Rows of one file in its order, columns under our names: those of `SPELLINGS` that it has, and what channels read.

    ``attrs``: ``layout`` (a `Layout`), ``unread`` (names of the other columns), ``blocks`` (those of them that may tell
    instruments apart), ``tickers`` (whether symbols stand in the header). Raises a CmatError if the file is empty,
    damaged, of no known form, or has a row that is longer than its header.
    """
    return _read(path, data, *_state(path))


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


@lru_cache(maxsize=1)  # the symbols of a file are read one after the other
def _read(path: Path, data: DataConfig, size: int, _modified: int) -> pd.DataFrame:
    if size == 0:
        raise CmatError(f"{path}: the file is empty; download it again or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)  # odd values are named by their row, later
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row that is longer than the header
            table, layout = READERS[_kind(path)](path, data)
    except CmatError:
        raise
    except Exception as error:  # bytes may ask of the readers of five formats whatever they like
        problem = f"cannot be read ({first_line(error)}); the file may be truncated, get it again"
        if isinstance(error, pd.errors.ParserWarning):
            problem = "rows have more fields than the header line; name all columns, or quote numbers"
        raise CmatError(f"{path}: {problem}") from None
    return _under_our_names(table, layout, data, path)


read_table.cache_clear = _read.cache_clear


def _under_our_names(table: pd.DataFrame, layout: Layout, data: DataConfig, path: Path) -> pd.DataFrame:
    tickers = table.columns.nlevels == 2
    table = _with_index(_one_row_per_ticker(table, path) if tickers else table)
    if not layout.names:
        names = [str(name) for name in table.columns]
        layout = Layout(names, YFINANCE if tickers else maker_of(names), match_columns(names, data.columns, str(path)))
    others = {name: place for place, name in enumerate(layout.names) if place not in layout.places.values()}
    places = layout.places | {n: p for n, p in others.items() if n in channel_readers(data) and n not in layout.places}
    found = table if list(places.values()) == [*range(len(table.columns))] else table.iloc[:, list(places.values())]
    found = found.set_axis(list(places), axis=1).reset_index(drop=True)
    unread = [name for name in others if name not in places and name.strip() and not name.startswith("Unnamed:")]
    for name in unread if "symbol" not in places else []:
        if LIKE_SYMBOL.search(plain(name)) and (values := table.iloc[:, others[name]].nunique()) > 1:
            advice = f"data.columns: {{symbol: {name}}}, or remove the column if it is none"
            raise CmatError(f"{path}: column '{name}' has {values} values; if it tells instruments apart, set {advice}")
    blocks = [name for name in unread if _in_blocks(table.iloc[:, others[name]])]
    found.attrs = {"layout": layout, "unread": unread, "tickers": tickers, "blocks": blocks}
    return found


def channel_readers(data: DataConfig) -> dict[str, list[str]]:
    """Columns that the configured channels read -> the channels that do."""
    readers: dict[str, list[str]] = {}
    for name in data.channel_names:
        for column in channel_of(name).columns:
            readers.setdefault(column, []).append(name)
    return readers


def _in_blocks(column: pd.Series) -> bool:
    """Whether a column has a few words, each in one stretch of rows, as the name of a contract has."""
    if pd.api.types.is_numeric_dtype(column):
        return False
    values = column.dropna().astype(str)
    return 1 < (values != values.shift()).sum() == values.nunique() < 1 + len(values) / 10


def _one_row_per_ticker(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """yfinance puts prices over tickers, or tickers over prices (group_by="ticker")."""
    level = 1 if known_prices(table.columns.get_level_values(0)) else 0
    tickers = dict.fromkeys(table.columns.get_level_values(level))
    if odd := [ticker for ticker in tickers if not isinstance(ticker, str)]:
        raise CmatError(f"{path}: the ticker {odd[0]!r} is no text; name the second level of the columns by symbols")
    own = {ticker: table.xs(ticker, axis=1, level=level).dropna(how="all") for ticker in tickers}
    return pd.concat(own, names=["symbol", table.index.name or "timestamp"]).reset_index()


def _with_index(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its index as columns, if that says something."""
    levels = [table.index.get_level_values(level) for level in range(table.index.nlevels)]
    other = "symbol" if len(levels) > 1 else None
    guess = ["timestamp" if isinstance(level, pd.DatetimeIndex) else other for level in levels]
    names = [name if level.name is None else level.name for level, name in zip(levels, guess, strict=True)]
    return table if names == [None] else table.rename_axis(index=names).reset_index()


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() != ".zip":
        return PACKED.get(path.suffix.lower(), lambda path: path.open("rb"))(path)
    archive = zipfile.ZipFile(path)
    names = [name for name in archive.namelist() if name.lower().endswith(".csv")]
    if len(names) != 1:
        raise CmatError(f"{path}: {len(names)} CSV files inside; an archive of candles has one")
    return archive.open(names[0])


def _head(path: Path) -> bytes:
    with closing(_open(path)) as stream:
        return stream.read(HEAD)


def _read_text(path: Path, data: DataConfig) -> tuple[pd.DataFrame, Layout]:
    layout = sniff(_head(path), data, str(path))
    options: dict[str, Any] = {"sep": layout.delimiter if layout.delimiter != " " else r"\s+", "skipinitialspace": True}
    options |= {"encoding": layout.encoding, "encoding_errors": "replace", "skiprows": layout.skip}
    with closing(_open(path)) as stream:
        if layout.levels == 2:
            return pd.read_csv(stream, header=[0, 1], index_col=0, **options), Layout([])
        # What pandas would make of 02.01.2024, of 1,234 and of a ticker 000001 are numbers.
        odd = not layout.plain_numbers
        texts = [place for ours, place in layout.places.items() if odd or ours in ("symbol", "clock")]
        # index_col=False: with a delimiter at the end of each row, pandas would take the first column as the index.
        options |= {"dtype": dict.fromkeys(texts, str), "header": None, "index_col": False}
        # In parts, as pandas holds texts several times larger until all is read.
        return pd.concat(pd.read_csv(stream, chunksize=PART, names=range(len(layout.names)), **options)), layout


def _read_json(path: Path, data: DataConfig) -> tuple[pd.DataFrame, Layout]:
    """Candles in JSON: a list of lists (freqtrade, an exchange's answer) or of objects, somewhere inside."""
    with closing(_open(path)) as stream:
        content = stream.read()
    lines = content.splitlines() if _kind(path) == ".jsonl" else []
    rows = [json.loads(line) for line in lines if line.strip()] or _rows_in(json.loads(content))
    kinds = {type(row) for row in (rows.values() if isinstance(rows, dict) else rows)}
    if isinstance(rows, list) and kinds == {list} and len(rows[0]) > 4 and len({len(row) for row in rows}) == 1:
        text = [[str(value) for value in row] for row in rows[:60]]
        return pd.DataFrame(rows), without_header(text, Layout([]), data, str(path))
    if isinstance(rows, dict) and kinds == {dict}:  # time -> candle
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("timestamp"), Layout([])
    if kinds == {list if isinstance(rows, dict) else dict}:
        return pd.DataFrame(rows), Layout([])
    raise CmatError(f"{path}: no list of candles; correct or remove the file")


def _rows_in(content: Any) -> Any:
    """The longest list, or table of lists or of objects, inside of what an interface answered."""
    if isinstance(content, list):
        return content
    if not isinstance(content, dict):
        return []
    lists = {key: value for key, value in content.items() if isinstance(value, list)}
    if known_prices(content) >= 3 and lists:  # {"s": "ok", "t": [...], "o": [...]}
        return lists
    if all(isinstance(value, dict) and known_prices(value) >= 3 for value in content.values()):
        return content
    return max((_rows_in(value) for value in content.values()), key=len, default=[])


# Ending -> table, and the layout as far as it was seen: without names where the table has them.
READERS: dict[str, Callable[[Path, DataConfig], tuple[pd.DataFrame, Layout]]] = {
    **dict.fromkeys((".csv", ".txt", ".tsv", ".zip"), _read_text),
    **dict.fromkeys((".json", ".jsonl"), _read_json),
    ".parquet": lambda path, data: (pd.read_parquet(path), Layout([])),
    ".feather": lambda path, data: (pd.read_feather(path), Layout([])),
}


def symbols_in(path: Path, data: DataConfig) -> list[str]:
    """Symbols that a file tells apart by a column or in its header, in order; none where its name is the symbol."""
    try:
        return _symbols_in(path, data, *_state(path))
    except Exception as error:
        if isinstance(error, CmatError) and "ticker" in str(error):
            raise
        return []  # reading the file will say what is wrong


@lru_cache(maxsize=4096)
def _symbols_in(path: Path, data: DataConfig, _size: int, _modified: int) -> list[str]:
    if _is_text(path):
        layout = sniff(_head(path), data)
        worth = layout.levels == 2 or "symbol" in layout.places
    elif READERS[_kind(path)] is _read_json:
        worth = not JSON_ROWS.match(_head(path))
    else:
        names = (pq.read_schema(path) if _kind(path) == ".parquet" else ipc.open_file(path).schema).names
        worth = any(name.startswith("('") for name in names) or "symbol" in match_columns(names, data.columns)
    if not worth:  # to read all of the file
        return []
    table = read_table(path, data)
    symbols = [str(symbol) for symbol in table["symbol"].dropna().unique()] if "symbol" in table else []
    return symbols if table.attrs["tickers"] or len(symbols) > 1 else []
