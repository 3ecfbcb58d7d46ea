"""Candle files of many makers as plain tables: one row per candle, columns under our names.

How a text file is written (encoding, delimiter, header line, decimal mark) is seen from its beginning; `data.columns` and
its like go before what is seen. Values are as in the file here, times and numbers of odd forms still text.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import json
import lzma
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from pyarrow import ipc

from cmat_lib.data.candle_makers import LIKE_SYMBOL, MAKERS, OHLC, known_prices, maker_of, match_columns, plain
from cmat_lib.errors import CmatError, first_line
from cmat_lib.schema import DataConfig

PACKED: dict[str, Callable[[Path], BinaryIO]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
HEAD = 1 << 16  # bytes from which a text file is understood
ENCODINGS = ("cp1252", "gb18030", "cp1251", "shift_jis", "euc_kr", "big5")  # of files that are no Unicode
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
VALUE = re.compile(r"[-+$€£¥₹ ]*\d[\d.,:/'’ \u00a0+TGU-]*[KMBTZC%]?")  # a number, a date or a clock
DATE = re.compile(r"\d{1,4}[-./ ]\w{1,9}[-./ ]\d{1,4}|\d{8}|[A-Za-z]{3,9} \d\d?,? \d{4}")
EPOCH = re.compile(r"\d{9,19}(\.\d+)?")
GROUPED = re.compile(r"[1-9]\d{0,2}(,\d{2,3})*,\d{3}")
FREQTRADE_JSON = re.compile(r".+-\d+[mhdw](-futures)?\.json(\.gz)?")
JSON_HEAD = re.compile(rb'\s*\[\s*\[\s*"?\d|.*"(\d\. )?o(pen)?"', re.DOTALL)  # rows of numbers, or a name of ours
CLOCK = re.compile(r"\d\d?:\d\d(:\d\d(\.\d+)?)?|\d{1,6}")


@dataclass(frozen=True)
class Form:
    """What a user says about files of candles; see `DataConfig`. The columns of `keep` are read besides ours."""

    columns: tuple[tuple[str, str], ...] = ()
    time_format: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    keep: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: DataConfig, keep: Sequence[str] = ()) -> Form:
        """Form of the files of a market."""
        told = tuple(sorted(data.columns.items()))
        return cls(told, data.time_format, data.encoding, data.decimal, data.thousands, tuple(sorted(keep)))


@dataclass(frozen=True)
class Layout:
    """How a file is written, as far as it was seen or told.

    Attributes
    ----------
    names : list of str
        Columns of the file, in order; their numbers from 1 if it has no header line.
    maker : str
        Name of the maker, or nothing.
    places : dict of str to int
        Our name -> place in `names`.
    encoding, delimiter, decimal, thousands
        Of a text file.
    skip : int
        Lines before the first candle.
    levels : int
        Header lines: 2 in a frame of several tickers.
    """

    names: list[str]
    maker: str = ""
    places: dict[str, int] = field(default_factory=dict)
    encoding: str = ""
    delimiter: str = ""
    decimal: str = "."
    thousands: str | None = None
    skip: int = 0
    levels: int = 1

    @property
    def plain_numbers(self) -> bool:
        """Whether numbers are written as computers do."""
        return self.decimal == "." and self.thousands is None

    def theirs(self, ours: str) -> str:
        """The file's name of a column."""
        return self.names[self.places[ours]] if ours in self.places else ours


def is_candle_file(path: Path) -> bool:
    """Whether a file may hold candles: by its ending, and where that says little (.txt, .json) by its beginning."""
    kind = _kind(path)
    if kind not in (".txt", ".tsv", ".json", ".jsonl"):
        return kind in READERS
    if FREQTRADE_JSON.fullmatch(path.name):
        return True
    try:
        head = _head(path)
        return bool(JSON_HEAD.match(head) if kind in (".json", ".jsonl") else sniff(head, Form()).places)
    except Exception:  # of a packed file that is damaged, or of what is no text
        return False


def _kind(path: Path) -> str:
    """Ending of a file without that of a packer."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return suffixes[-2] if len(suffixes) == 2 and suffixes[-1] in PACKED else suffixes[-1] if suffixes else ""


def read_table(path: Path, form: Form) -> pd.DataFrame:
    """Rows of one file, in its order.

    Parameters
    ----------
    path : Path
    form : Form
        What is known of it.

    Returns
    -------
    DataFrame
        Columns under our names: timestamp, open, high, low, close and, if there, clock (time of day), symbol, volume and
        those of `SPELLINGS`, and of ``form.keep``. ``attrs["layout"]`` is a `Layout`, ``attrs["unread"]`` the names of
        the other columns, ``attrs["tickers"]`` whether symbols stand in the header.

    Raises
    ------
    CmatError
        If the file is empty, damaged, of no known form, or has a row that is longer than its header.
    """
    return _read(path, form, *_state(path))


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


@lru_cache(maxsize=1)  # the symbols of a file are read one after the other
def _read(path: Path, form: Form, size: int, _modified: int) -> pd.DataFrame:
    if size == 0:
        raise CmatError(f"{path}: the file is empty; download it again or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)  # odd values are named by their row, later
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row that is longer than the header
            table, layout = READERS[_kind(path)](path, form)
    except CmatError:
        raise
    except pd.errors.ParserWarning:
        raise CmatError(
            f"{path}: rows have more fields than the header line; name all columns, or quote numbers"
        ) from None
    except Exception as error:  # bytes may ask of the readers of five formats whatever they like
        problem = f"{path}: cannot be read ({first_line(error)})"
        raise CmatError(f"{problem}; the file may be truncated, get it again; cmat candles {path} shows more") from None
    return _under_our_names(table, layout, form, path)


read_table.cache_clear = _read.cache_clear


def _under_our_names(table: pd.DataFrame, layout: Layout, form: Form, path: Path) -> pd.DataFrame:
    tickers = table.columns.nlevels == 2
    if tickers:
        table = _one_row_per_ticker(table, path)
    table = _with_index(table)
    if not layout.places:
        names = [str(name) for name in table.columns]
        places = match_columns(names, dict(form.columns), str(path))
        maker = maker_of(names)
        layout = Layout(names, "yfinance" if tickers else maker.name if maker else layout.maker, places)
    others = {name: place for place, name in enumerate(layout.names) if place not in layout.places.values()}
    places = layout.places | {name: others[name] for name in form.keep if name in others and name not in layout.places}
    found = table.iloc[:, list(places.values())].set_axis(list(places), axis=1).reset_index(drop=True)
    unread = [name for name in others if name not in places and name.strip() and not name.startswith("Unnamed:")]
    for name in unread if "symbol" not in places else []:
        if LIKE_SYMBOL.search(plain(name)) and (values := table.iloc[:, others[name]].nunique()) > 1:
            advice = f"data.columns: {{symbol: {name}}}, or remove the column if it is none"
            raise CmatError(f"{path}: column '{name}' has {values} values; if it tells instruments apart, set {advice}")
    texts = [name for name in unread if not pd.api.types.is_numeric_dtype(table.iloc[:, others[name]])]
    found.attrs = {
        "layout": layout,
        "unread": unread,
        "tickers": tickers,
        "blocks": [name for name in texts if _in_blocks(table.iloc[:, others[name]])],
    }
    return found


def _in_blocks(column: pd.Series) -> bool:
    """Whether a column has a few values, each in one stretch of rows, as the name of a contract has."""
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
    kinds = [table.index.get_level_values(level) for level in range(table.index.nlevels)]
    guess = [
        "timestamp" if isinstance(kind, pd.DatetimeIndex) else "symbol" if len(kinds) > 1 else None for kind in kinds
    ]
    names = [name if name is not None else other for name, other in zip(table.index.names, guess, strict=True)]
    return table if names == [None] else table.rename_axis(index=names).reset_index()


# -- text --------------------------------------------------------------------------------------------------------------


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


def _read_text(path: Path, form: Form) -> tuple[pd.DataFrame, Layout]:
    layout = sniff(_head(path), form, str(path))
    options: dict[str, Any] = {"sep": layout.delimiter if layout.delimiter != " " else r"\s+", "skipinitialspace": True}
    options |= {"encoding": layout.encoding, "encoding_errors": "replace"}
    with closing(_open(path)) as stream:
        if layout.levels == 2:
            return pd.read_csv(stream, skiprows=layout.skip, header=[0, 1], index_col=0, **options), Layout([])
        # What pandas would make of 02.01.2024, of 1,234 and of a ticker 000001 are numbers.
        odd = layout.decimal == "," or layout.thousands is not None
        texts = [place for ours, place in layout.places.items() if odd or ours in ("symbol", "clock")]
        options |= {"dtype": dict.fromkeys(texts, str), "skiprows": layout.skip, "header": None}
        # index_col=False: with a delimiter at the end of each row, pandas would else take the first column as the index.
        return pd.read_csv(stream, names=range(len(layout.names)), index_col=False, **options), layout


def sniff(head: bytes, form: Form, where: str = "") -> Layout:
    """How a text file is written, from its beginning.

    Parameters
    ----------
    head : bytes
        The first `HEAD` bytes, or the whole file.
    form : Form
        What is told goes before what is seen.
    where : str
        File for error messages.

    Raises
    ------
    CmatError
        If it is no text, if rows without a header line are of no known order, or if the decimal mark is doubtful.
    """
    found: list[Layout] = []
    for encoding, lines in _decoded(head, form, where).items():
        rows = {mark: [_fields(line, mark) for line in lines] for mark in "\t;|, "}
        starts = {mark: start for mark in rows if (start := _start(rows[mark], form)) is not None}
        # A comma may stand in numbers, and a blank in times.
        mark = max(starts, key=lambda mark: (mark != " ", len(rows[mark][starts[mark]])), default=",")
        found.append(
            _layout(rows[mark], starts.get(mark, 0), Layout([], encoding=encoding, delimiter=mark), form, where)
        )
    return max(found, key=lambda layout: len(layout.places))


def _decoded(head: bytes, form: Form, where: str) -> dict[str, list[str]]:
    """Beginning of a text in every encoding that it may have, as lines."""
    mark = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    wide = b"\0" in head[:400] and ("utf-16-le" if head[1:2] == b"\0" else "utf-16-be")
    texts = {}
    for encoding in [form.encoding] if form.encoding else [mark or wide or "utf-8"]:
        texts[encoding] = _lines(head, encoding)
    if texts[encoding] is None and not form.encoding:
        texts = {encoding: _lines(head, encoding) for encoding in ENCODINGS}
    if not (texts := {encoding: lines for encoding, lines in texts.items() if lines}):
        raise CmatError(
            f"{where}: no text in {form.encoding or 'a known encoding'}; set data.encoding, or save it as UTF-8"
        )
    return texts


def _lines(head: bytes, encoding: str) -> list[str] | None:
    """The first lines, without one that is cut off; None if this is not the encoding."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except (UnicodeError, LookupError):
        return None
    lines = text.split("\n")[:60]
    return [line.rstrip("\r") for line in (lines[:-1] if len(head) == HEAD and len(lines) < 60 else lines)]


def _fields(line: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return line.split()
    return [name.strip() for row in csv.reader([line], delimiter=delimiter, skipinitialspace=True) for name in row]


def _start(rows: list[list[str]], form: Form) -> int | None:
    """Line of the column names, or of the first values where there are none."""
    told = {name.strip().lower() for _, name in form.columns}
    for number, row in enumerate(rows[:15]):
        named = len(row) >= len(OHLC) and known_prices(row) >= 3 and len(set(row)) > 3
        if named or (told and told <= {name.lower() for name in row}) or _values(row) > len(OHLC):
            return number
    return None


def _values(row: Sequence[str]) -> int:
    return sum(bool(VALUE.fullmatch(name)) for name in row)


def _layout(rows: list[list[str]], start: int, seen: Layout, form: Form, where: str) -> Layout:
    names, told = rows[start], dict(form.columns)
    below = [row for row in rows[start + 1 :] if row]
    if _values(names) > len(OHLC):
        return _without_header(rows[start:], replace(seen, skip=start), form, where)
    over = rows[start - 1] if start else []
    if below and known_prices(names) >= 3 and len(over) == len(names) and all(over[1:]):
        return replace(seen, skip=start - 1, levels=2)
    if below and len(below[0]) == len(names) and all(below[0][1:]) and not _values(below[0][1:]):
        return replace(seen, skip=start, levels=2)
    if len(below) > 1 and len(below[1]) > 2 and below[1][0].isalpha() and not any(below[1][1:]):  # Date,,,,,
        return replace(seen, skip=start, levels=2)
    places = match_columns(names, told, where)
    decimal, thousands = _marks(below, places, seen.delimiter, form, where)
    maker = maker_of(names)
    about = {"maker": maker.name if maker else "", "places": places, "decimal": decimal, "thousands": thousands}
    return replace(seen, names=names, skip=start + 1, **about)


def _without_header(rows: list[list[str]], seen: Layout, form: Form, where: str) -> Layout:
    """Columns of a file that does not name them, by the makers' orders: high and low must be what they are called."""
    rows = [row[:-1] if row[-1:] == [""] else row for row in rows if row]
    first, width = rows[0], len(rows[0])
    names = [str(number + 1) for number in range(width)]
    lead = ["symbol"] * first[0][:1].isalpha()
    lead += ["period"] * (len(lead) == 1 and len(first[1]) < 5) + ["timestamp"]
    stamp, clock = first[len(lead) - 1], first[len(lead)]
    lead += ["clock"] * (bool(CLOCK.fullmatch(clock)) and bool(DATE.fullmatch(stamp)) and (":" in clock or width > 7))
    orders = [maker.columns.replace("clock ", "").split()[1:] for maker in MAKERS if not maker.header]
    known = [order for order in orders if len(order) == width - len(lead)]
    if form.columns:
        places = match_columns(names, dict(form.columns), where)
    elif not known or not (DATE.match(stamp) or EPOCH.fullmatch(stamp)):
        advice = "name them by their numbers, data.columns: {timestamp: 1, open: 2, …}, or add a header line"
        raise CmatError(f"{where}: {width} columns without a header line, in no order that is known; {advice}")
    else:
        numbers = _sample([row[len(lead) :] for row in rows if len(row) == width])
        order = next((order for order in known if _fits(order, numbers)), known[0])
        places = {ours: place for place, ours in enumerate([*lead, *order]) if ours not in ("period", "ignore", "vwap")}
        places.pop("close_time", None)
    maker = next(
        (m.name for m in MAKERS if not m.header and not form.columns and m.columns.split()[-len(order) :] == order), ""
    )
    decimal, thousands = _marks(rows, places, seen.delimiter, form, where)
    return replace(seen, names=names, maker=maker, places=places, decimal=decimal, thousands=thousands)


def _sample(rows: list[list[str]]) -> np.ndarray:
    """Values of some rows, (n, columns); a decimal comma is read as a point, which keeps their order."""
    text = pd.DataFrame(rows).replace(",", ".", regex=True)
    return text.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)


def _fits(order: list[str], values: np.ndarray) -> bool:
    prices = {name: values[:, place] for place, name in enumerate(order)}
    rows = np.array([prices[name] for name in OHLC])  # (4, n)
    whole = "trades" not in prices or bool((prices["trades"] % 1 == 0).all())
    return whole and bool((prices["high"] >= rows.max(axis=0)).all() and (prices["low"] <= rows.min(axis=0)).all())


def _marks(
    rows: list[list[str]], places: dict[str, int], delimiter: str, form: Form, where: str
) -> tuple[str, str | None]:
    """Decimal mark, and the mark between thousands if there is one.

    Raises
    ------
    CmatError
        If numbers such as 1,234 may be both.
    """
    columns = {place for ours, place in places.items() if ours not in ("timestamp", "clock", "symbol")}
    texts = [row[place] for row in rows for place in columns if place < len(row) and VALUE.fullmatch(row[place])]
    commas = [text for text in texts if "," in text]
    if form.decimal or not commas:
        thousands = form.thousands or ({",": ".", ".": ","}[form.decimal] if form.decimal and commas else None)
        return form.decimal or ".", thousands
    both = [text for text in commas if "." in text]
    if form.thousands == "," or any(text.rfind(".") > text.rfind(",") for text in both):
        return ".", ","
    if both or form.thousands or not all(GROUPED.fullmatch(text) for text in commas):
        return ",", form.thousands or "."
    if delimiter == "," or any(text.count(",") > 1 for text in commas):
        return ".", ","
    raise CmatError(f"{where}: {commas[0]} may be a decimal or thousands; set data.decimal to ',' or '.'")


# -- other forms -------------------------------------------------------------------------------------------------------


def _read_json(path: Path, form: Form) -> tuple[pd.DataFrame, Layout]:
    """Candles in JSON: a list of lists (freqtrade, an exchange's answer) or of objects, somewhere inside."""
    with closing(_open(path)) as stream:
        content = stream.read()
    lines = content.splitlines() if _kind(path) == ".jsonl" else [content]
    loaded = [json.loads(line) for line in lines if line.strip()]
    rows = _rows_in(loaded if _kind(path) == ".jsonl" else loaded[0])
    if isinstance(rows, list) and rows and all(isinstance(row, list) and len(row) == len(rows[0]) > 4 for row in rows):
        text = [[str(value) for value in row] for row in rows[:60]]
        return pd.DataFrame(rows), _without_header(text, Layout([]), form, str(path))
    if isinstance(rows, dict) or (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        by_time = isinstance(rows, dict) and isinstance(next(iter(rows.values()), None), dict)
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("timestamp") if by_time else pd.DataFrame(rows)
        return table, Layout([])
    raise CmatError(f"{path}: no list of candles; correct or remove the file")


def _rows_in(content: Any) -> Any:
    """The longest list or table inside of what an interface answered."""
    if not isinstance(content, dict):
        return content
    lists = [value for value in content.values() if isinstance(value, list)]
    if known_prices(content) >= 3 and lists:  # {"t": [...], "o": [...]}
        return {key: value for key, value in content.items() if isinstance(value, list) and len(value) == len(lists[0])}
    if content and all(isinstance(value, dict) and known_prices(value) >= 3 for value in content.values()):
        return content
    inner = [_rows_in(value) for value in content.values() if isinstance(value, dict | list)]
    return max(filter(None, inner), key=len, default=None)


def _read_parquet(path: Path, form: Form) -> tuple[pd.DataFrame, Layout]:
    return pd.read_parquet(path), Layout([])


def _read_feather(path: Path, form: Form) -> tuple[pd.DataFrame, Layout]:
    return pd.read_feather(path), Layout([])


READERS: dict[str, Callable[[Path, Form], tuple[pd.DataFrame, Layout]]] = {
    **dict.fromkeys((".csv", ".txt", ".tsv", ".zip"), _read_text),
    **dict.fromkeys((".json", ".jsonl"), _read_json),
    ".parquet": _read_parquet,
    ".feather": _read_feather,
}


@lru_cache(maxsize=4096)
def _symbols_in(path: Path, form: Form, _size: int, _modified: int) -> list[str]:
    table = read_table(path, form)
    symbols = [str(symbol) for symbol in table["symbol"].dropna().unique()] if "symbol" in table else []
    return symbols if table.attrs["tickers"] or len(symbols) > 1 else []


def symbols_in(path: Path, form: Form) -> list[str]:
    """Symbols that a file tells apart by a column or in its header, in its order; empty where its name is the symbol."""
    try:
        if not _may_have_symbols(path, form):
            return []
        return _symbols_in(path, form, *_state(path))
    except CmatError as error:
        if "ticker" in str(error):
            raise
    except Exception:
        pass
    return []  # reading the file will say what is wrong


def _may_have_symbols(path: Path, form: Form) -> bool:
    """Whether it is worth to read all of a file for its symbols."""
    if READERS[_kind(path)] is _read_text:
        layout = sniff(_head(path), form)
        return layout.levels == 2 or "symbol" in layout.places
    if READERS[_kind(path)] is _read_json:
        return re.match(rb'\s*\[\s*\[\s*"?\d', _head(path)) is None
    schema = pq.read_schema(path) if _kind(path) == ".parquet" else ipc.open_file(path).schema
    levels = any(name.startswith("('") for name in schema.names)
    return levels or "symbol" in match_columns(schema.names, dict(form.columns))


def has_header(path: Path) -> bool:
    """Whether a file names its columns."""
    try:
        return READERS[_kind(path)] is not _read_text or sniff(_head(path), Form()).names[:1] != ["1"]
    except Exception:
        return True  # reading the file will say what is wrong
