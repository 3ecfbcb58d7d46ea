"""Tables of the user's own as they are read: every time and number checked, what is wrong named by file and row."""

import glob
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError, first_line, nearest
from cmat_lib.config import resolve_path
from cmat_lib.config.inputs import TableConfig
from cmat_lib.data.sources.times import check_rows, parse_times

TEXTS = (".csv", ".tsv", ".txt")
DELIMITERS = ",;\t|"
LARGEST = 1e37  # ten times it is still a float32
PROBED = 200  # rows that show whether a column is one of times
NO_BAR = pd.Timedelta("1h")  # times of candles of whole days would be made dates; ours stay as they are
ELSEWHERE = "Asia/Tokyo"  # whose clocks never change


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of one table view in the order of their times; all parts have the same rows.

    `frame` has the columns ``time`` (UTC, as written: the lag is not added), ``symbol`` where the files have one, and
    the columns of numbers, NaN where a cell is empty.
    """

    frame: pd.DataFrame
    files: tuple[Path, ...]
    places: pd.DataFrame  # ``file``, an index into `files`, and ``line`` of it (the header is 1), or Parquet row from 1
    others: pd.DataFrame  # further columns of times, NaT where a cell is empty
    time_name: str  # of the column of times in the files

    def place(self, row: int) -> str:
        """File and row that a row of `frame` comes from."""
        file, line = self.places.iloc[row]
        return f"{self.files[file]}, row {line}"

    @property
    def source(self) -> str:
        """The file, or the first one and how many more there are."""
        return str(self.files[0]) + (f" and {len(self.files) - 1} more" if len(self.files) > 1 else "")

    def take(self, rows: np.ndarray) -> Self:
        """Some of the rows, in their order."""
        parts = {"frame": self.frame, "places": self.places, "others": self.others}
        return replace(self, **{name: part.iloc[rows].reset_index(drop=True) for name, part in parts.items()})


def read_table(name: str, config: TableConfig) -> Table:
    """Table of the view `name`, from all of its files; a CmatError names file, column and row of what is wrong."""
    files = find_files(name, config)
    parts = [_read_part(name, path, config) for path in files]
    kinds = {"symbol" in part.frame: part.source for part in parts}
    if len(kinds) > 1:
        raise CmatError(f"{kinds[False]}: no column of symbols, which {kinds[True]} has; give all files of {name} one")
    frame = pd.concat([part.frame for part in parts], ignore_index=True)
    places = pd.concat([part.places.assign(file=number) for number, part in enumerate(parts)], ignore_index=True)
    others = pd.concat([part.others for part in parts], ignore_index=True, join="inner")
    table = Table(frame, tuple(files), places, others, parts[0].time_name)
    table = table.take(np.argsort(nanoseconds(frame["time"]), kind="stable"))
    _check_repeats(table)
    for column in config.columns:
        known = table.frame[column].dropna()
        if known.nunique() < 2:
            problem = f"is empty in all {len(table.frame):,} rows"
            if len(known):
                problem = f"is {known.iloc[0]:g} in all {len(known):,} rows that have a value, which says nothing"
            raise CmatError(f"{table.source}: column '{column}' {problem}; take it out of views.{name}.columns")
    return table


def find_files(name: str, config: TableConfig) -> list[Path]:
    """Files of a table; a CmatError if there are none."""
    path = resolve_path(config.file)
    if path.is_file():
        return [path]
    if glob.has_magic(config.file):
        if found := sorted(file for file in map(Path, glob.glob(str(path), recursive=True)) if file.is_file()):
            return found
        raise CmatError(f"views.{name}.file: no file fits {path}; correct the pattern, or put the files there")
    if path.is_dir():
        raise CmatError(f"views.{name}.file: {path} is a folder; name its files, as {config.file.rstrip('/')}/*.csv")
    beside = sorted(one.name for one in path.parent.iterdir() if one.is_file()) if path.parent.is_dir() else []
    known = [one for one in beside if Path(one).suffix.lower() in (*TEXTS, ".parquet")]
    hint = nearest(path.name, known) if known else "; its folder has no table" if path.parent.is_dir() else ""
    raise CmatError(f"views.{name}.file: {path} does not exist{hint or f'; there is no folder {path.parent}'}")


def nanoseconds(times: pd.Series | pd.DatetimeIndex) -> np.ndarray:
    """Times since 1970, int64."""
    return pd.DatetimeIndex(times).as_unit("ns").asi8


def _read_part(name: str, path: Path, config: TableConfig) -> Table:
    """Rows of one file in its order, checked one by one."""
    raw = _read_file(path)
    for column in [*config.columns, *filter(None, (config.time, config.symbol))]:
        if column not in raw:
            raise CmatError(f"{path}: no column '{column}', which views.{name} names{nearest(column, list(raw))}")
    symbol = config.symbol or next((column for column in raw if column.lower() == "symbol"), None)
    rest = [column for column in raw if column not in config.columns and column != symbol]
    read = {column: times for column in rest if (times := _other_times(raw[column], path, config)) is not None}
    time = config.time or _time_column(name, raw[rest], path, list(read), config)
    frame = {"time": _times_of(name, raw[time], path, config)}
    if symbol is not None:
        check_rows(raw[symbol].notna(), raw[symbol], path, "is no symbol; write one in each row")
        frame["symbol"] = raw[symbol].astype(str).str.strip()
    table = pd.DataFrame(frame | {column: _numbers_of(raw[column], path) for column in config.columns})
    # Repeated times are looked for when all files are read.
    times = table.groupby("symbol", sort=False)["time"] if symbol is not None else table["time"]
    check_rows(~(times.diff() < pd.Timedelta(0)), raw[time], path, "lies before the row above; sort rows by time")
    places = pd.DataFrame({"file": 0, "line": raw.index + 1}, index=raw.index)
    others = pd.DataFrame({column: read[column] for column in read if column != time}, index=raw.index)
    return Table(table, (path,), places, others, time)


def _read_file(path: Path) -> pd.DataFrame:
    """Cells of a file; the index counts from 0 so that its rows are named as `check_rows` names them, by index + 1."""
    kind = path.suffix.lower()
    if kind not in (*TEXTS, ".parquet"):
        raise CmatError(f"{path}: neither CSV nor Parquet; save it as one of them")
    if path.stat().st_size == 0:
        raise CmatError(f"{path}: the file is empty; get it again, or leave it out")
    try:
        raw = pd.read_parquet(path) if kind == ".parquet" else _read_text(path)
    except Exception as error:  # bytes may ask of the readers whatever they like
        advice = "correct it, or get it again"
        raise CmatError(f"{path}: no table that can be read ({first_line(error)}); {advice}") from None
    if kind == ".parquet" and not isinstance(raw.index, pd.RangeIndex):
        raw = raw.reset_index()
    raw.columns = [str(column).strip() for column in raw]
    if twice := raw.columns[raw.columns.duplicated()].tolist():
        raise CmatError(f"{path}: two columns are named '{twice[0]}'; rename one")
    raw = raw[raw.notna().any(axis=1)]
    if raw.empty:
        raise CmatError(f"{path}: no rows; get it again, or leave it out")
    return raw


def _read_text(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig") as stream:
        header = stream.readline()
    mark = max(DELIMITERS, key=header.count) if path.suffix.lower() != ".tsv" else "\t"
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # a row that is longer than the header
        # Blank lines stay, so that rows keep their line numbers.
        options = {"skip_blank_lines": False, "skipinitialspace": True, "encoding": "utf-8-sig"}
        raw = pd.read_csv(path, sep=mark, dtype=str, index_col=False, **options)
    return raw.set_index(raw.index + 1)  # the header is a line too


def _time_column(name: str, rest: pd.DataFrame, path: Path, read: Sequence[str], config: TableConfig) -> str:
    """The column of times, if there is no doubt; where none reads as times, one that begins so will say why."""
    read = read or [column for column in rest if _other_times(rest[column].head(1), path, config) is not None]
    if len(read) == 1:
        return read[0]
    if read:
        raise CmatError(f"{path}: the columns {', '.join(read)} all read as times; set views.{name}.time to one")
    none = f"of the columns {', '.join(rest)} none reads as times"
    among = none if len(rest.columns) else "there is no column beside the numbers"
    raise CmatError(f"{path}: {among}; set views.{name}.time, and write ISO 8601 (2025-01-31 00:15:00)")


def _other_times(column: pd.Series, path: Path, config: TableConfig) -> pd.Series | None:
    """Times of a column in UTC, NaT in empty cells; None if there is anything else in it."""
    known = column.dropna()
    try:
        for part in (known.head(PROBED), known):
            times = pd.Series(parse_times(part, path, NO_BAR, config.zone or "UTC"), part.index)
    except CmatError:
        return None
    return times.reindex(column.index) if len(known) else None


def _times_of(name: str, column: pd.Series, path: Path, config: TableConfig) -> pd.Series:
    """Times of the rows in UTC; errors name the parameters of a table, not those of candles."""
    check_rows(column.notna(), column, path, "is no time; write one in each row")
    try:
        probes = ("UTC", ELSEWHERE) if config.zone is None else ()
        # Times that bring their zone are the same ones whichever zone is told.
        if len({tuple(parse_times(column.head(PROBED), path, NO_BAR, zone)) for zone in probes}) > 1:
            where = f"{path}: column '{column.name}', row {column.index[0] + 1}"
            advice = f"set views.{name}.zone to that of the times, such as UTC or America/New_York"
            raise CmatError(f"{where}: {column.iloc[0]} brings no time zone; {advice}")
        return pd.Series(parse_times(column, path, NO_BAR, config.zone or "UTC"), column.index)
    except CmatError as error:
        problem = str(error).replace(", or set data.time_format", "").replace("data.file_zone", f"views.{name}.zone")
        problem = re.sub(r"set data\.time_format to .*", "write ISO 8601 (2025-01-31)", problem)
        raise CmatError(problem) from None


def _numbers_of(column: pd.Series, path: Path) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    known, is_small = numbers.notna() | column.isna(), ~(numbers.abs() > LARGEST)
    check_rows(known, column, path, "is no number; write numbers with a point, or leave it empty")
    check_rows(is_small, column, path, "is infinite, or too large for a float32; correct it, or leave it empty")
    return numbers


def _check_repeats(table: Table) -> None:
    keys = [column for column in ("symbol", "time") if column in table.frame]
    again = table.frame.duplicated(keys)
    if again.any():
        row = int(again.to_numpy().argmax())
        first = int((table.frame[keys] == table.frame[keys].iloc[row]).all(axis=1).to_numpy().argmax())
        of = f"of {table.frame['symbol'].iloc[row]} " if "symbol" in table.frame else ""
        times = table.frame["time"].set_axis(table.places["line"] - 1).rename(table.time_name)
        path = table.files[table.places["file"].iloc[row]]
        advice = "keep one row for each time, or name the column of symbols"
        check_rows(~again, times, path, f"{of}is in {table.place(first)} already; {advice}")
