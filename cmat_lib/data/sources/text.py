"""How a text file of candles is written, seen from its beginning: encoding, delimiter, header line, decimal mark."""

import codecs
import csv
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.config.inputs import OHLC
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.sources.makers import MAKERS, Maker, known_prices, maker_of, match_columns

HEAD = 1 << 16  # bytes from which a text file is understood
LINES = 60
ENCODINGS = ("cp1252", "gb18030", "cp1251", "shift_jis", "euc_kr", "big5")  # of files that are no Unicode
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
VALUE = re.compile(r"[-+$€£¥₹ ]*\d[\d.,:/'’ \u00a0+TGU-]*[KMBTZC%]?([eE][-+]?\d+)?")  # a number, a date or a clock
DATE = re.compile(r"\d{1,4}[-./ ]\w{1,9}[-./ ]\d{1,4}|\d{8}|[A-Za-z]{3,9} \d\d?,? \d{4}")
EPOCH = re.compile(r"\d{9,19}(\.\d+)?")
GROUPED = re.compile(r"[1-9]\d{0,2}(,\d{2,3})*,\d{3}")
CLOCK = re.compile(r"\d\d?:\d\d(:\d\d(\.\d+)?)?|\d{1,6}")
NOT_NUMBERS = ("timestamp", "clock", "symbol")
NO_NUMBER = ("-", "--", "—", "", "N/A", "null", "None", "nan", "NaN", "<NA>")


@dataclass(frozen=True)
class Layout:
    """How a file is written, as far as it was seen or told."""

    names: list[str]  # of its columns, or their numbers from 1
    maker: Maker | None = None
    places: dict[str, int] = field(default_factory=dict)  # which of our names is where
    encoding: str = ""
    delimiter: str = ""
    decimal: str = "."
    thousands: str | None = None
    skip: int = 0  # lines before the first candle
    levels: int = 1  # header lines: 2 in a frame of several tickers

    @property
    def plain_numbers(self) -> bool:
        """Whether numbers are written as computers do."""
        return self.decimal == "." and self.thousands is None

    def theirs(self, ours: str) -> str:
        """The file's name of a column."""
        return self.names[self.places[ours]] if ours in self.places else ours


def sniff(head: bytes, data: DataConfig, where: str = "") -> Layout:
    """How a text file is written, from its first `HEAD` bytes; what `data` tells goes before what is seen."""
    found: list[Layout] = []
    for encoding, text in _decoded(head, data.encoding, where).items():
        lines = re.split(r"\r\n|\r|\n", text)[:LINES]
        lines = lines[:-1] if len(head) == HEAD and len(lines) < LINES else lines  # the last one is cut off
        rows = {mark: [_fields(line, mark) for line in lines] for mark in "\t;|, "}
        starts = {mark: start for mark in rows if (start := _start(rows[mark], data)) is not None}
        # A comma may stand in numbers, and a blank in times.
        mark = max(starts, key=lambda mark: (mark != " ", len(rows[mark][starts[mark]])), default=",")
        seen = Layout([], encoding=encoding, delimiter=mark, skip=starts.get(mark, 0))
        found.append(_layout(rows[mark], seen, data, where))
    return max(found, key=lambda layout: len(layout.places))


def _decoded(head: bytes, told: str | None, where: str) -> dict[str, str]:
    """Beginning of a file in every encoding that it may have."""
    usual = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8")
    if b"\0" in head[:400] and usual == "utf-8":
        usual = "utf-16-le" if head[1:2] == b"\0" else "utf-16-be"
    texts: dict[str, str] = {}
    for encoding in (told,) if told else (usual, *ENCODINGS):
        if usual not in texts:  # bytes that are Unicode are nothing else
            with suppress(ValueError, LookupError):
                "".encode(encoding)  # not all that Python knows are encodings of text
                texts[encoding] = codecs.getincrementaldecoder(encoding)().decode(head)
    if not texts:
        raise CmatError(f"{where}: no text in {told or 'a known encoding'}; set data.encoding, or save it as UTF-8")
    return texts


def _fields(line: str, delimiter: str) -> list[str]:
    rows = [line.split()] if delimiter == " " else csv.reader([line], delimiter=delimiter, skipinitialspace=True)
    return [name.strip() for row in rows for name in row]


def _start(rows: list[list[str]], data: DataConfig) -> int | None:
    """Line of the column names, or of the first values where there are none."""
    told = {name.strip().lower() for name in data.columns.values()}
    for number, row in enumerate(rows[:15]):
        known = 2 * len(told & {name.lower() for name in row}) >= len(told) > 0
        if known or (known_prices(row) >= 3 and len(set(row)) > 3):
            return number
        if _values(row) > len(OHLC):
            above = rows[number - 1] if number else []
            return number - (len(above) == len(row) and not _values(above))
    return None


def _values(row: Sequence[str]) -> int:
    return sum(bool(VALUE.fullmatch(name)) for name in row)


def _layout(rows: list[list[str]], seen: Layout, data: DataConfig, where: str) -> Layout:
    start, names = seen.skip, rows[seen.skip]
    below = [row for row in rows[start + 1 :] if row]
    if _values(names) > len(OHLC):
        return without_header(rows[start:], seen, data, where)
    over = rows[start - 1] if start else []
    if below and known_prices(names) >= 3 and len(over) == len(names) and all(over[1:]):
        return replace(seen, skip=start - 1, levels=2)
    if below and len(below[0]) == len(names) and _are_tickers(below):
        return replace(seen, levels=2)
    places = match_columns(names, data.columns, where)
    named = replace(seen, names=names, skip=start + 1, maker=maker_of(names), places=places)
    return _with_marks(named, below, data, where)


def _are_tickers(below: list[list[str]]) -> bool:
    """Whether the row below the names has tickers: words, or numbers above a row that names the index (Date,,,)."""
    date, *others = below[0]
    if len(below) > 1 and below[1][0].isalpha() and len(below[1]) > 2 and not any(below[1][1:]):
        return True
    return all(other not in NO_NUMBER for other in others) and not _values(others) and not VALUE.fullmatch(date)


def without_header(rows: list[list[str]], seen: Layout, data: DataConfig, where: str) -> Layout:
    """Columns of a file that does not name them, by the makers' orders: high and low must be what they are called."""
    rows = [row[:-1] if row[-1:] == [""] else row for row in rows if row]
    first, width = rows[0], len(rows[0])
    names = [str(number + 1) for number in range(width)]
    lead = ["symbol"] * (first[0][:1].isalpha() and not DATE.match(first[0]))
    lead += ["period"] * (len(lead) == 1 and len(first[1]) < 5) + ["timestamp"]
    stamp, clock = first[len(lead) - 1], first[len(lead)]
    lead += ["clock"] * (bool(CLOCK.fullmatch(clock)) and bool(DATE.fullmatch(stamp)) and (":" in clock or width > 7))
    known = [maker for maker in MAKERS if not maker.header and len(maker.order) == width - len(lead)]
    maker = None
    if data.columns:
        places = match_columns(names, data.columns, where)
    elif not known or not (DATE.match(stamp) or EPOCH.fullmatch(stamp)):
        advice = "name them by their numbers, data.columns: {timestamp: 1, open: 2, …}, or add a header line"
        raise CmatError(f"{where}: {width} columns without a header line, in no order that is known; {advice}")
    else:
        text = pd.DataFrame([row[len(lead) :] for row in rows if len(row) == width])
        # A decimal comma is read as a point, which keeps the order of the values.
        values = text.replace(",", ".", regex=True).apply(pd.to_numeric, errors="coerce")
        maker = next((maker for maker in known if _fits(values.set_axis(maker.order, axis=1))), known[0])
        unread = ("period", "ignore", "vwap", "close_time")
        places = {ours: place for place, ours in enumerate([*lead, *maker.order]) if ours not in unread}
    return _with_marks(replace(seen, names=names, maker=maker, places=places), rows, data, where)


def _fits(values: pd.DataFrame) -> bool:
    """Whether high and low are what they are called, and trades are whole."""
    prices = values[list(OHLC)].to_numpy()  # whose largest is NaN beside a NaN
    whole = "trades" not in values or (values["trades"] % 1 == 0).all()
    return whole and (values["high"] >= prices.max(axis=1)).all() and (values["low"] <= prices.min(axis=1)).all()


def _with_marks(seen: Layout, rows: list[list[str]], data: DataConfig, where: str) -> Layout:
    """The layout with its decimal mark and that between thousands; an error if 1,234 may be either."""
    columns = {place for ours, place in seen.places.items() if ours not in NOT_NUMBERS}
    texts = [row[place] for row in rows for place in columns if place < len(row) and VALUE.fullmatch(row[place])]
    commas = [text for text in texts if "," in text]
    both = [text for text in commas if "." in text]
    if data.decimal or not commas:
        other = {",": ".", ".": ","}.get(data.decimal) if commas else None
        return replace(seen, decimal=data.decimal or ".", thousands=data.thousands or other)
    if data.thousands == "," or any(text.rfind(".") > text.rfind(",") for text in both):
        return replace(seen, decimal=".", thousands=",")
    if both or data.thousands or not all(GROUPED.fullmatch(text) for text in commas):
        return replace(seen, decimal=",", thousands=data.thousands or ".")
    if seen.delimiter == "," or any(text.count(",") > 1 for text in commas):
        return replace(seen, decimal=".", thousands=",")
    raise CmatError(f"{where}: {commas[0]} may be a decimal or thousands; set data.decimal to ',' or '.'")
