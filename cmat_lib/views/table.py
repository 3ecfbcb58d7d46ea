"""Views made of tables: funding, news, other markets; a name and a few keys in the parameters, and no code."""

from __future__ import annotations

import hashlib
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.config import Config
from cmat_lib.config.schema import TableConfig
from cmat_lib.data.splits import Market
from cmat_lib.views.registry import Asked, Values, View
from cmat_lib.views.table_join import (
    Table,
    as_of,
    as_sequence,
    check_overlap,
    find_files,
    newest_problem,
    read_table,
)

if TYPE_CHECKING:
    from torch import nn


def table_view(name: str, table: TableConfig) -> View:
    """The view of a table of the section ``views``."""
    return View(
        name=name,
        title=name,
        names=lambda config: [f"{name}.{column}" for column in table.feature_names],
        compute=partial(_compute, name, table),
        encoder=partial(_encoder, name, table),
        window=lambda config: table.rows if table.is_sequence else 0,
        check=partial(_check, name, table),
        identity=partial(_identity, name, table),
        files=lambda config: find_files(name, table),
        admit=partial(_admit, name, table),
        problem=partial(_problem, name, table),
        may_be_absent=True,
    )


def read(name: str, table: TableConfig) -> Table:
    """Content of a table, read again only if one of its files has changed."""
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in find_files(name, table)]
    return _read(name, table.model_dump_json(), tuple(states))


@lru_cache(maxsize=16)
def _read(name: str, table: str, states: tuple[tuple[str, int, int], ...]) -> Table:
    return read_table(name, TableConfig.model_validate_json(table))


def _check(name: str, table: TableConfig, config: Config) -> None:
    read(name, table)
    _encoder(name, table, config)


def _table(name: str, table: TableConfig, asked: Asked) -> Table:
    return (asked.table or read)(name, table)


def _compute(name: str, table: TableConfig, asked: Asked) -> Values:
    content, closes = _table(name, table, asked), asked.candles.index[asked.rows] + asked.config.data.bar
    if not table.is_sequence:
        return Values(as_of(content, asked.symbol, closes, table))
    return Values(*as_sequence(content, asked.symbol, closes, table))


def _identity(name: str, table: TableConfig, config: Config) -> Any:
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in find_files(name, table)]
    return [table.model_dump(mode="json", exclude={"file"}), files]


def _admit(name: str, table: TableConfig, market: Market, config: Config) -> None:
    closes = {symbol: candles.index[[0, -1]] + config.data.bar for symbol, candles in market.items() if len(candles)}
    check_overlap(name, read(name, table), {symbol: tuple(ends) for symbol, ends in closes.items()}, table)


def _problem(name: str, table: TableConfig, asked: Asked) -> str | None:
    close = asked.candles.index[asked.rows[-1]] + asked.config.data.bar
    return newest_problem(name, _table(name, table, asked), asked.symbol, close, table)


def _encoder(name: str, table: TableConfig, config: Config) -> nn.Module:
    from cmat_lib.encoders.plain import ENCODERS

    if table.encoder not in ENCODERS:
        hint = nearest(table.encoder, ENCODERS)
        raise CmatError(f"views.{name}.encoder: there is no encoder '{table.encoder}'{hint}")
    try:
        return ENCODERS[table.encoder](len(table.feature_names), table.rows, config)
    except ValueError as error:
        raise CmatError(f"views.{name}.encoder: {table.encoder} does not fit model.view_encoder_dim: {error}") from None
