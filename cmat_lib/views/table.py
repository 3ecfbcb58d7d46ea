"""Views made of tables: funding, news, other markets; a name and a few keys in the parameters, and no code."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

from cmat_lib.config import Config
from cmat_lib.data.splits import Market
from cmat_lib.schema import TableConfig
from cmat_lib.views.registry import Asked, Values, View
from cmat_lib.views.table_join import (
    Table,
    as_of,
    as_sequence,
    check_overlap,
    newest_problem,
    read_table,
    table_files,
    table_names,
)

if TYPE_CHECKING:
    from torch import nn


def table_view(name: str, table: TableConfig) -> View:
    """The view of a table of the section ``views``."""
    is_sequence = table.encoder != "mlp"
    return View(
        name=name,
        title=name,
        names=lambda config: [f"{name}.{column}" for column in table_names(table)],
        compute=partial(_compute, name, table),
        encoder=partial(_encoder, table),
        window=lambda config: table.rows if is_sequence else 0,
        check=lambda config: read_table(name, table),
        identity=partial(_identity, name, table),
        admit=partial(_admit, name, table),
        problem=partial(_problem, name, table),
        may_be_absent=True,
    )


def _table(name: str, table: TableConfig, asked: Asked) -> Table:
    return (asked.table or read_table)(name, table)


def _compute(name: str, table: TableConfig, asked: Asked) -> Values:
    content, closes = _table(name, table, asked), asked.candles.index[asked.rows] + asked.config.data.bar
    if table.encoder == "mlp":
        return Values(as_of(content, asked.symbol, closes, table))
    return Values(*as_sequence(content, asked.symbol, closes, table))


def _identity(name: str, table: TableConfig, config: Config) -> Any:
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in table_files(name, table)]
    return [table.model_dump(mode="json"), files]


def _admit(name: str, table: TableConfig, market: Market, config: Config) -> None:
    closes = {symbol: candles.index + config.data.bar for symbol, candles in market.items()}
    check_overlap(name, read_table(name, table), closes, table)


def _problem(name: str, table: TableConfig, asked: Asked) -> str | None:
    close = asked.candles.index[asked.rows[-1]] + asked.config.data.bar
    return newest_problem(name, _table(name, table, asked), asked.symbol, close, table)


def _encoder(table: TableConfig, config: Config) -> nn.Module:
    from cmat_lib.models.encoders import GRUEncoder, MLPEncoder, OHLCVNBEATSEncoder

    model, width = config.model, len(table_names(table))
    if table.encoder == "mlp":
        return MLPEncoder(width, model.view_encoder_dim, model.encoder_dropout)
    if table.encoder == "gru":
        return GRUEncoder(width, model.view_encoder_dim)
    return OHLCVNBEATSEncoder(
        input_size=table.rows,
        hidden_size=model.view_encoder_dim,
        num_stacks=model.nbeats_num_stacks,
        num_blocks=model.nbeats_num_blocks,
        num_layers=model.nbeats_num_layers,
        dropout=model.encoder_dropout,
        stack_types=model.nbeats_stack_types,
        num_channels=width,
        use_attention=False,
        block_width=model.nbeats_block_width,
    )
