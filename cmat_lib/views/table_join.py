"""Tables of the user's own, joined to candles as of their close: the newest row that was published by then.

A row is known from its time plus the lag on. What a candle gets is made of rows that were known at its close, and of
nothing else; whatever was published later, or lies beyond `stale`, is missing there.
"""

from __future__ import annotations

import glob
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError, first_line, nearest
from cmat_lib.config import resolve_path
from cmat_lib.config.schema import TableConfig
from cmat_lib.data.sources.times import check_rows, parse_times

HOUR = 3_600 * 10**9  # nanoseconds
TEXTS = {".csv": ",", ".tsv": "\t", ".txt": ","}
DELIMITERS = ",;\t|"
LARGEST = 1e37  # ten times it is still a float32
PROBED = 200  # rows that show whether a column is one of times
NO_BAR = pd.Timedelta("1h")  # times of candles of whole days would be made dates; ours stay as they are
ELSEWHERE = "Asia/Tokyo"  # whose clocks never change
SAMPLED = 20_001  # times of a span at which the overlap is looked up


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of one table view in the order of their times; all parts have the same rows.

    `frame` has the columns ``time`` (UTC, as written: the lag is not added), ``symbol`` where the files have one, and
    the columns of numbers, NaN where a cell is empty. `others` are further columns of times, NaT where a cell is empty.
    `places` has the columns ``file`` (an index into `files`) and ``line``: of a text file the line, its header being
    line 1; of a Parquet file the row from 1.
    """

    frame: pd.DataFrame
    files: tuple[Path, ...]
    places: pd.DataFrame
    others: dict[str, pd.Series]
    time_name: str  # of the column of times in the files

    def place(self, row: int) -> str:
        """File and row that a row of `frame` comes from."""
        file, line = self.places.iloc[row]
        return f"{self.files[file]}, row {line}"

    @property
    def source(self) -> str:
        """The file, or the first one and how many more there are."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0]}{more}"

    def take(self, rows: np.ndarray) -> Table:
        """Some of the rows, in their order."""
        others = {name: times.iloc[rows].reset_index(drop=True) for name, times in self.others.items()}
        frame, places = (part.iloc[rows].reset_index(drop=True) for part in (self.frame, self.places))
        return replace(self, frame=frame, places=places, others=others)


# Reading


def read_table(name: str, config: TableConfig) -> Table:
    """Table of the view `name`, from all of its files.

    Raises
    ------
    CmatError
        For a file or a column that is not there, times without a zone, unsorted or repeated times, cells that are no
        finite numbers, and columns that say nothing; it names file, column and row.
    """
    files = find_files(name, config)
    parts = [_read_part(name, path, config) for path in files]
    if len({"symbol" in part.frame for part in parts}) > 1:
        with_symbol, without = (
            next(part.files[0] for part in parts if ("symbol" in part.frame) == has) for has in (True, False)
        )
        raise CmatError(f"{without}: no column of symbols, which {with_symbol} has; give all files of {name} one")
    table = _joined(parts, files)
    _check_repeats(table)
    _check_columns(name, table, config)
    return table


def find_files(name: str, config: TableConfig) -> list[Path]:
    """Files of a table.

    Raises
    ------
    CmatError
        If there are none.
    """
    path = resolve_path(config.file)
    if path.is_file():
        return [path]
    if glob.has_magic(config.file):
        found = sorted(Path(one) for one in glob.glob(str(path), recursive=True) if Path(one).is_file())
        if found:
            return found
        raise CmatError(f"views.{name}.file: no file fits {path}; correct the pattern, or put the files there")
    if path.is_dir():
        raise CmatError(f"views.{name}.file: {path} is a folder; name its files, as {config.file.rstrip('/')}/*.csv")
    beside = sorted(one.name for one in path.parent.iterdir() if one.is_file()) if path.parent.is_dir() else []
    known = [one for one in beside if Path(one).suffix.lower() in (*TEXTS, ".parquet")]
    hint = nearest(path.name, known) if known else "; its folder has no table" if path.parent.is_dir() else ""
    raise CmatError(f"views.{name}.file: {path} does not exist{hint or f'; there is no folder {path.parent}'}")


def _read_part(name: str, path: Path, config: TableConfig) -> Table:
    """Rows of one file in its order, checked one by one."""
    raw = _read_file(path)
    for column in [*config.columns, *filter(None, (config.time, config.symbol))]:
        if column not in raw:
            raise CmatError(f"{path}: no column '{column}', which views.{name} names{nearest(column, list(raw))}")
    symbol = config.symbol or next((column for column in raw if column.lower() == "symbol"), None)
    rest = [column for column in raw if column not in config.columns and column != symbol]
    read = {column: times for column in rest if (times := _other_times(raw[column], path, config)) is not None}
    starts = [column for column in rest if _other_times(raw[column].head(1), path, config) is not None]
    time = config.time or _only_one(name, path, rest, list(read) or starts)
    frame = {"time": _times_of(name, raw[time], path, config)}
    if symbol is not None:
        check_rows(raw[symbol].notna(), raw[symbol], path, "is no symbol; write one in each row")
        frame["symbol"] = raw[symbol].astype(str).str.strip()
    frame |= {column: _numbers_of(raw[column], path) for column in config.columns}
    table = pd.DataFrame(frame)
    _check_order(table, raw[time], path)
    places = pd.DataFrame({"file": 0, "line": raw.index + 1}, index=raw.index)
    return Table(table, (path,), places, {column: read[column] for column in read if column != time}, time)


def _read_file(path: Path) -> pd.DataFrame:
    """Cells of a file; the index counts from 0 so that its rows are named as `check_rows` names them, by index + 1."""
    kind = path.suffix.lower()
    if kind not in (*TEXTS, ".parquet"):
        raise CmatError(f"{path}: neither CSV nor Parquet; save it as one of them")
    if path.stat().st_size == 0:
        raise CmatError(f"{path}: the file is empty; get it again, or leave it out")
    try:
        raw = _with_index(pd.read_parquet(path)) if kind == ".parquet" else _read_text(path)
    except Exception as error:  # bytes may ask of the readers whatever they like
        raise CmatError(
            f"{path}: no table that can be read ({first_line(error)}); correct it, or get it again"
        ) from None
    raw.columns = [str(column).strip() for column in raw]
    if len(set(raw.columns)) < len(raw.columns):
        twice = next(column for column in raw if list(raw.columns).count(column) > 1)
        raise CmatError(f"{path}: two columns are named '{twice}'; rename one")
    raw = raw[raw.notna().any(axis=1)]
    if raw.empty:
        raise CmatError(f"{path}: no rows; get it again, or leave it out")
    return raw


def _with_index(raw: pd.DataFrame) -> pd.DataFrame:
    return raw if isinstance(raw.index, pd.RangeIndex) else raw.reset_index()


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


def _only_one(name: str, path: Path, rest: Sequence[str], read: Sequence[str]) -> str:
    """The column of times, if there is no doubt; where none reads as times, one that begins so will say why."""
    if len(read) == 1:
        return read[0]
    if read:
        raise CmatError(f"{path}: the columns {', '.join(read)} all read as times; set views.{name}.time to one")
    among = f"of the columns {', '.join(rest)} none reads as times" if rest else "there is no column beside the numbers"
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
    """Times of the rows in UTC.

    Times that bring their zone are the same ones whichever zone is told.
    """
    check_rows(column.notna(), column, path, "is no time; write one in each row")
    try:
        if config.zone is None:
            part = column.head(PROBED)
            here, there = (parse_times(part, path, NO_BAR, zone) for zone in ("UTC", ELSEWHERE))
            if not here.equals(there):
                where = f"{path}: column '{column.name}', row {column.index[0] + 1}"
                advice = f"set views.{name}.zone to that of the times, such as UTC or America/New_York"
                raise CmatError(f"{where}: {column.iloc[0]} brings no time zone; {advice}")
        return pd.Series(parse_times(column, path, NO_BAR, config.zone or "UTC"), column.index)
    except CmatError as error:
        raise CmatError(_for_tables(name, str(error))) from None


def _for_tables(name: str, problem: str) -> str:
    """What the times of candles complain about, with the parameters of a table."""
    problem = problem.replace(", or set data.time_format", "").replace("data.file_zone", f"views.{name}.zone")
    return re.sub(r"set data\.time_format to .*", "write ISO 8601 (2025-01-31)", problem)


def _numbers_of(column: pd.Series, path: Path) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    advice = "is no number; write numbers with a point, or leave it empty"
    check_rows(numbers.notna() | column.isna(), column, path, advice)
    advice = "is infinite, or too large for a float32; correct it, or leave it empty"
    check_rows(~(numbers.abs() > LARGEST), column, path, advice)
    return numbers


def _check_order(table: pd.DataFrame, written: pd.Series, path: Path) -> None:
    """Within each symbol, times ascend. Repeated ones are looked for when all files are read."""
    groups = table.groupby("symbol", sort=False)["time"] if "symbol" in table else table["time"]
    check_rows(~(groups.diff() < pd.Timedelta(0)), written, path, "lies before the row above; sort rows by time")


def _joined(parts: Sequence[Table], files: Sequence[Path]) -> Table:
    frame = pd.concat([part.frame for part in parts], ignore_index=True)
    places = pd.concat([part.places.assign(file=number) for number, part in enumerate(parts)], ignore_index=True)
    shared = [column for column in parts[0].others if all(column in part.others for part in parts)]
    others = {column: pd.concat([part.others[column] for part in parts], ignore_index=True) for column in shared}
    table = Table(frame, tuple(files), places, others, parts[0].time_name)
    return table.take(np.argsort(_nanoseconds(frame["time"]), kind="stable"))


def _check_repeats(table: Table) -> None:
    keys = [column for column in ("symbol", "time") if column in table.frame]
    again = table.frame.duplicated(keys)
    if again.any():
        row = int(again.to_numpy().argmax())
        first = int((table.frame[keys] == table.frame[keys].iloc[row]).all(axis=1).to_numpy().argmax())
        time = table.frame["time"].iloc[row]
        of = f" of {table.frame['symbol'].iloc[row]}" if "symbol" in table.frame else ""
        path, line = table.place(row).rsplit(", ", 1)
        advice = "keep one row for each time, or name the column of symbols"
        problem = f"{time}{of} is in {table.place(first)} already; {advice} (rows affected: {again.sum()})"
        raise CmatError(f"{path}: column '{table.time_name}', {line}: {problem}")


def _check_columns(name: str, table: Table, config: TableConfig) -> None:
    out = f"take it out of views.{name}.columns"
    for column in config.columns:
        values = table.frame[column].dropna().unique()
        if len(values) == 0:
            raise CmatError(f"{table.source}: column '{column}' is empty in all {len(table.frame):,} rows; {out}")
        if len(values) == 1:
            problem = f"is {values[0]:g} in all {table.frame[column].notna().sum():,} rows that have a value"
            raise CmatError(f"{table.source}: column '{column}' {problem}, which says nothing; {out}")


# Joining


def known_at(table: Table, config: TableConfig) -> pd.Series:
    """When each row was known."""
    return table.frame["time"] + config.lag_span


def _own_rows(table: Table, symbol: str, columns: Sequence[str]) -> pd.DataFrame:
    """Rows that a symbol reads, as far as they have a value in all of `columns`."""
    frame = table.frame
    if "symbol" in frame:
        frame = frame[frame["symbol"] == symbol]
    return frame[["time", *columns]].dropna()


def _of_rows(rows: pd.DataFrame, column: str, config: TableConfig) -> np.ndarray:
    """Value, change and z-score of a column in each of its rows, shape (n, 3)."""
    series = pd.Series(rows[column].to_numpy(np.float64), pd.DatetimeIndex(rows["time"]))
    rolling = series.rolling(config.look_back_span)
    values, mean, deviation = series.to_numpy(), rolling.mean().to_numpy(), rolling.std(ddof=0).to_numpy()
    zscore = np.divide(values - mean, deviation, out=np.zeros(len(values)), where=deviation > 0)
    return np.column_stack([values, np.diff(values, prepend=np.nan), zscore])


def _nanoseconds(times: pd.Series | pd.DatetimeIndex) -> np.ndarray:
    return pd.DatetimeIndex(times).as_unit("ns").asi8


def _newest(rows: pd.DataFrame, closes: np.ndarray, config: TableConfig) -> tuple[np.ndarray, np.ndarray]:
    """Newest row known at each close, -1 where there is none or it is stale; and for how many nanoseconds it is."""
    known = _nanoseconds(rows["time"]) + config.lag_span.value
    newest = np.searchsorted(known, closes, side="right") - 1
    age = closes - np.append(known, 0)[newest]
    if config.stale_span is not None:
        newest = np.where(age > config.stale_span.value, -1, newest)
    return newest, np.where(newest < 0, 0, age)


def as_of(table: Table, symbol: str, closes: pd.DatetimeIndex, config: TableConfig) -> np.ndarray:
    """What was known of each column at the close of candles, in the order of `TableConfig.feature_names`, for an mlp.

    A candle at which a column has no value yet, or no earlier one that its change could be taken from, or one that is
    stale, has no row at all: NaN in all columns.

    Returns
    -------
    numpy.ndarray
        Shape (closes, 4 · columns), float32.
    """
    at, parts = _nanoseconds(closes), []
    for column in config.columns:
        rows = _own_rows(table, symbol, [column])
        newest, age = _newest(rows, at, config)
        features = np.vstack([_of_rows(rows, column, config), np.full(3, np.nan)])[newest]
        parts += [features, np.log1p(age / HOUR)[:, None]]
    joined = np.concatenate(parts, axis=1).astype(np.float32)
    joined[~np.isfinite(joined).all(axis=1)] = np.nan
    return joined


def as_sequence(
    table: Table, symbol: str, closes: pd.DatetimeIndex, config: TableConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a symbol one after the other, and the newest of them at the close of each candle, for gru and nbeats.

    The window of a candle is ``values[row - rows + 1 : row + 1]``. Rows without a value in every column are left out.
    `values` begins with `rows` rows of NaN, whose last one stands for a candle without a whole window: too few rows, or
    the newest is stale.

    Returns
    -------
    tuple[numpy.ndarray, numpy.ndarray]
        Values, shape (R, features), float32, in the order of `TableConfig.feature_names`; rows, shape (closes,), int64.
    """
    own = _own_rows(table, symbol, config.columns)
    gap = np.log1p(np.diff(_nanoseconds(own["time"]) / HOUR, prepend=np.nan))
    features = np.column_stack([*(_of_rows(own, column, config) for column in config.columns), gap])
    absent = np.full((config.rows, features.shape[1]), np.nan)
    values = np.concatenate([absent, features]).astype(np.float32)
    newest, _ = _newest(own, _nanoseconds(closes), config)
    # The first row has neither a change nor a gap, so that a whole window begins with the second.
    rows = np.where(newest >= config.rows, newest + config.rows, config.rows - 1)
    return values, rows.astype(np.int64)


def has_row(table: Table, symbol: str, closes: pd.DatetimeIndex, config: TableConfig) -> np.ndarray:
    """Whether the view says something at the close of each candle."""
    if config.is_sequence:
        return as_sequence(table, symbol, closes, config)[1] >= config.rows
    return np.isfinite(as_of(table, symbol, closes, config)).all(axis=1)


# Checks


def check_overlap(
    name: str, table: Table, market_spans: Mapping[str, tuple[pd.Timestamp, pd.Timestamp]], config: TableConfig
) -> dict[str, float]:
    """Share of the time between first and last close of each symbol at which the view says something.

    Raises
    ------
    CmatError
        If it is 0 for all symbols.
    """
    shares = {}
    for symbol, (first, last) in market_spans.items():
        span = pd.date_range(first, last, periods=SAMPLED if last > first else 1)
        shares[symbol] = float(has_row(table, symbol, span, config).mean())
    if any(shares.values()):
        return shares
    if "symbol" in table.frame and not set(market_spans) & (own := set(table.frame["symbol"])):
        raise CmatError(
            f"{table.source}: the symbols are {_few(own)}, those of the candles {_few(market_spans)}; write them as "
            f"the candles do, or set views.{name}.symbol to another column"
        )
    known = known_at(table, config)
    first, last = min(span[0] for span in market_spans.values()), max(span[1] for span in market_spans.values())
    needed = f"{config.rows + 1} rows" if config.is_sequence else "two values of each column"
    stale = f", the newest no older than stale {config.stale}" if config.stale else ""
    raise CmatError(
        f"{table.source}: its rows are known from {known.iloc[0]} to {known.iloc[-1]}, and candles close from {first} "
        f"to {last}: none has a value of views.{name} (it takes {needed} by its close{stale}); get rows of that time"
    )


def _few(names: object) -> str:
    listed = sorted(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")


def newest_problem(name: str, table: Table, symbol: str, close: pd.Timestamp, config: TableConfig) -> str | None:
    """Why the view says nothing at a close, and what to do about it; None if it says something."""
    at = pd.DatetimeIndex([close])
    if has_row(table, symbol, at, config)[0]:
        return None
    if "symbol" in table.frame and symbol not in set(table.frame["symbol"]):
        return f"views.{name}: {table.source} has no rows of {symbol}; add them"
    unbounded = config.model_copy(update={"stale": None})
    for columns in [config.columns] if config.is_sequence else [[column] for column in config.columns]:
        rows = _own_rows(table, symbol, columns)
        newest = int(_newest(rows, _nanoseconds(at), unbounded)[0][0])
        of = "" if columns == config.columns else f" of column '{columns[0]}'"
        needed = config.rows + 1 if config.is_sequence else 2
        if newest + 1 < needed:
            return (
                f"views.{name}: {table.source} has {newest + 1} rows{of} that were known at {close}, and {needed} are "
                "needed; get earlier rows"
            )
        row = rows.index[newest]
        age = close - rows["time"].iloc[newest] - config.lag_span
        if config.stale_span is not None and age > config.stale_span:
            where = f"{table.place(row)} (time {rows['time'].iloc[newest]})"
            old = f"has been known for {age} at {close}, more than stale {config.stale}"
            return f"views.{name}: the newest row{of}, {where}, {old}; get newer rows"
    return None


def cut(table: Table, close: pd.Timestamp, config: TableConfig) -> Table:
    """The table as it was known at a close."""
    return table.take((known_at(table, config) <= close).to_numpy())
