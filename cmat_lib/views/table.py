"""Views made of tables: funding, news, other markets; a name and a few keys in the parameters, and no code.

Tables are joined to candles as of their close. A row is known from its time plus the lag on; what was published later,
or lies beyond `stale`, is missing at a close.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.config import Config
from cmat_lib.config.inputs import TableConfig
from cmat_lib.data.splits import Market
from cmat_lib.views.registry import Asked, Values, View
from cmat_lib.views.table_files import Table, find_files, nanoseconds, read_table

if TYPE_CHECKING:
    from torch import nn

HOUR = 3_600 * 10**9  # nanoseconds
SAMPLED = 20_001  # times of a span at which the overlap is looked up
Spans = Mapping[str, tuple[pd.Timestamp, pd.Timestamp]]  # symbol -> its first and last close


def table_view(name: str, table: TableConfig) -> View:
    """The view of a table of the section ``views``."""
    own = _TableView(name, table)
    return View(
        name,
        title=name,
        names=lambda config: [f"{name}.{column}" for column in table.feature_names],
        compute=own.compute,
        encoder=own.encoder,
        window=lambda config: table.rows if table.is_sequence else 0,
        check=own.check,
        identity=own.identity,
        files=lambda config: find_files(name, table),
        admit=own.admit,
        problem=own.problem,
        may_be_absent=True,
    )


def read(name: str, table: TableConfig) -> Table:
    """Content of a table, read again only if one of its files has changed."""
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in find_files(name, table)]
    return _read(name, table.model_dump_json(), tuple(states))


@lru_cache(maxsize=16)
def _read(name: str, table: str, states: tuple[tuple[str, int, int], ...]) -> Table:
    return read_table(name, TableConfig.model_validate_json(table))


@dataclass(frozen=True)
class _TableView:
    """What the record of a table's view refers to."""

    name: str
    table: TableConfig

    def compute(self, asked: Asked) -> Values:
        closes = asked.candles.index[asked.rows] + asked.config.data.bar
        content = (asked.table or read)(self.name, self.table)
        if not self.table.is_sequence:
            return Values(as_of(content, asked.symbol, closes, self.table))
        return Values(*as_sequence(content, asked.symbol, closes, self.table))

    def encoder(self, config: Config) -> nn.Module:
        from cmat_lib.encoders.plain import ENCODERS

        where, kind = f"views.{self.name}.encoder", self.table.encoder
        if kind not in ENCODERS:
            raise CmatError(f"{where}: there is no encoder '{kind}'{nearest(kind, ENCODERS)}")
        try:
            return ENCODERS[kind](len(self.table.feature_names), self.table.rows, config)
        except ValueError as error:
            raise CmatError(f"{where}: {kind} does not fit model.view_encoder_dim: {error}") from None

    def check(self, config: Config) -> None:
        read(self.name, self.table)
        self.encoder(config)

    def identity(self, config: Config) -> Any:
        files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in find_files(self.name, self.table)]
        return [self.table.model_dump(mode="json", exclude={"file"}), files]

    def admit(self, market: Market, config: Config) -> None:
        ends = {symbol: candles.index[[0, -1]] + config.data.bar for symbol, candles in market.items() if len(candles)}
        check_overlap(self.name, read(self.name, self.table), ends, self.table)

    def problem(self, asked: Asked) -> str | None:
        close = asked.candles.index[asked.rows[-1]] + asked.config.data.bar
        return newest_problem(self.name, (asked.table or read)(self.name, self.table), asked.symbol, close, self.table)


def known_at(table: Table, config: TableConfig) -> pd.Series:
    """When each row was known."""
    return table.frame["time"] + config.lag_span


def cut(table: Table, close: pd.Timestamp, config: TableConfig) -> Table:
    """The table as it was known at a close."""
    return table.take((known_at(table, config) <= close).to_numpy())


def _own_rows(table: Table, symbol: str, columns: Sequence[str]) -> pd.DataFrame:
    """Rows that a symbol reads, as far as they have a value in all of `columns`."""
    frame = table.frame
    own = frame[frame["symbol"] == symbol] if "symbol" in frame else frame
    return own[["time", *columns]].dropna()


def _of_rows(rows: pd.DataFrame, column: str, config: TableConfig) -> np.ndarray:
    """Value, change and z-score of a column in each of its rows, shape (n, 3)."""
    series = pd.Series(rows[column].to_numpy(np.float64), pd.DatetimeIndex(rows["time"]))
    rolling = series.rolling(config.look_back_span)
    values, mean, deviation = series.to_numpy(), rolling.mean().to_numpy(), rolling.std(ddof=0).to_numpy()
    zscore = np.divide(values - mean, deviation, out=np.zeros(len(values)), where=deviation > 0)
    return np.column_stack([values, np.diff(values, prepend=np.nan), zscore])


def _newest(rows: pd.DataFrame, closes: np.ndarray, config: TableConfig) -> tuple[np.ndarray, np.ndarray]:
    """Newest row known at each close, -1 where there is none or it is stale; and for how many nanoseconds it is."""
    known = nanoseconds(rows["time"]) + config.lag_span.value
    newest = np.searchsorted(known, closes, side="right") - 1
    age = closes - np.append(known, 0)[newest]
    if config.stale_span is not None:
        newest = np.where(age > config.stale_span.value, -1, newest)
    return newest, np.where(newest < 0, 0, age)


def as_of(table: Table, symbol: str, closes: pd.DatetimeIndex, config: TableConfig) -> np.ndarray:
    """What was known of each column at the close of candles, for an mlp: float32 of shape (closes, 4 · columns).

    In the order of `TableConfig.feature_names`; all NaN where a column has no value yet, or one alone, or a stale one.
    """
    at, parts = nanoseconds(closes), []
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

    Values float32 (R, features) in the order of `TableConfig.feature_names`, and rows int64 (closes,). The window of a
    candle is ``values[row - rows + 1 : row + 1]``. Rows without a value in every column are left out. The values begin
    with `rows` rows of NaN, whose last one stands for a candle that has no whole window, or a stale one.
    """
    own = _own_rows(table, symbol, config.columns)
    gap = np.log1p(np.diff(nanoseconds(own["time"]) / HOUR, prepend=np.nan))
    features = np.column_stack([*(_of_rows(own, column, config) for column in config.columns), gap])
    values = np.pad(features, ((config.rows, 0), (0, 0)), constant_values=np.nan).astype(np.float32)
    newest, _ = _newest(own, nanoseconds(closes), config)
    # The first row has neither a change nor a gap, so that a whole window begins with the second.
    return values, np.where(newest >= config.rows, newest + config.rows, config.rows - 1).astype(np.int64)


def has_row(table: Table, symbol: str, closes: pd.DatetimeIndex, config: TableConfig) -> np.ndarray:
    """Whether the view says something at the close of each candle."""
    if config.is_sequence:
        return as_sequence(table, symbol, closes, config)[1] >= config.rows
    return np.isfinite(as_of(table, symbol, closes, config)).all(axis=1)


def check_overlap(name: str, table: Table, spans: Spans, config: TableConfig) -> dict[str, float]:
    """Share of each symbol's time at which the view says something; a CmatError if it is 0 for all."""
    shares = {}
    for symbol, (first, last) in spans.items():
        closes = pd.date_range(first, last, periods=SAMPLED if last > first else 1)
        shares[symbol] = float(has_row(table, symbol, closes, config).mean())
    if any(shares.values()):
        return shares
    if "symbol" in table.frame and not set(spans) & (own := set(table.frame["symbol"])):
        problem = f"the symbols are {_few(own)}, those of the candles {_few(spans)}"
        advice = f"write them as the candles do, or set views.{name}.symbol to another column"
        raise CmatError(f"{table.source}: {problem}; {advice}")
    known = known_at(table, config)
    first, last = min(first for first, _ in spans.values()), max(last for _, last in spans.values())
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
    if has_row(table, symbol, pd.DatetimeIndex([close]), config)[0]:
        return None
    if "symbol" in table.frame and symbol not in set(table.frame["symbol"]):
        return f"views.{name}: {table.source} has no rows of {symbol}; add them"
    needed = config.rows + 1 if config.is_sequence else 2
    for columns in [config.columns] if config.is_sequence else [[column] for column in config.columns]:
        of = "" if columns == config.columns else f" of column '{columns[0]}'"
        rows = _own_rows(table, symbol, columns)
        rows = rows[rows["time"] + config.lag_span <= close]
        if len(rows) < needed:
            has = f"has {len(rows)} rows{of} that were known at {close}, and {needed} are needed"
            return f"views.{name}: {table.source} {has}; get earlier rows"
        row, time = rows.index[-1], rows["time"].iloc[-1]
        age = close - time - config.lag_span
        if config.stale_span is not None and age > config.stale_span:
            old = f"has been known for {age} at {close}, more than stale {config.stale}"
            return f"views.{name}: the newest row{of}, {table.place(row)} (time {time}), {old}; get newer rows"
    return None
