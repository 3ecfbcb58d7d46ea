"""Views made of tables: funding, news, other markets; a name and a few keys in the parameters, and no code."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.config import Config
from cmat_lib.config.schema import TableConfig
from cmat_lib.data.splits import Market
from cmat_lib.views.registry import Asked, Values, View
from cmat_lib.views.table_files import Table, find_files, read_table
from cmat_lib.views.table_join import as_of, as_sequence, check_overlap, newest_problem

if TYPE_CHECKING:
    from torch import nn


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
