"""How a text file of candles is written, seen from its beginning: encoding, delimiter, header line, decimal mark."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from cmat_lib.data.candle_makers import MAKERS, OHLC, known_prices, maker_of, match_columns
from cmat_lib.errors import CmatError
from cmat_lib.schema import DataConfig

HEAD = 1 << 16  # bytes from which a text file is understood
ENCODINGS = ("cp1252", "gb18030", "cp1251", "shift_jis", "euc_kr", "big5")  # of files that are no Unicode
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
VALUE = re.compile(r"[-+$€£¥₹ ]*\d[\d.,:/'’ \u00a0+TGU-]*[KMBTZC%]?")  # a number, a date or a clock
DATE = re.compile(r"\d{1,4}[-./ ]\w{1,9}[-./ ]\d{1,4}|\d{8}|[A-Za-z]{3,9} \d\d?,? \d{4}")
EPOCH = re.compile(r"\d{9,19}(\.\d+)?")
GROUPED = re.compile(r"[1-9]\d{0,2}(,\d{2,3})*,\d{3}")
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
        known = len(told & {name.lower() for name in row})
        if (len(row) >= len(OHLC) and known_prices(row) >= 3 and len(set(row)) > 3) or (
            told and 2 * known >= len(told)
        ):
            return number
        if _values(row) > len(OHLC):
            above = rows[number - 1] if number else []
            return number - (len(above) == len(row) and not _values(above))
    return None


def _values(row: Sequence[str]) -> int:
    return sum(bool(VALUE.fullmatch(name)) for name in row)


def _layout(rows: list[list[str]], start: int, seen: Layout, form: Form, where: str) -> Layout:
    names, told = rows[start], dict(form.columns)
    below = [row for row in rows[start + 1 :] if row]
    if _values(names) > len(OHLC):
        return without_header(rows[start:], replace(seen, skip=start), form, where)
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


def without_header(rows: list[list[str]], seen: Layout, form: Form, where: str) -> Layout:
    """Columns of a file that does not name them, by the makers' orders: high and low must be what they are called."""
    rows = [row[:-1] if row[-1:] == [""] else row for row in rows if row]
    first, width = rows[0], len(rows[0])
    names = [str(number + 1) for number in range(width)]
    lead = ["symbol"] * (first[0][:1].isalpha() and not DATE.match(first[0]))
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
