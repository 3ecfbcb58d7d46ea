"""How candle files are understood, before anything is made of them."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.sources.choice import CandleSource, candle_files, market_files, told_length
from cmat_lib.data.sources.files import candle_times, file_by_file, read_source, timeframe_of, usual_step
from cmat_lib.data.sources.makers import maker_by_file
from cmat_lib.data.sources.tables import channel_readers, read_table

TIMES = "%Y-%m-%d %H:%M"


def understood(data: DataConfig, market: Mapping[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """What each symbol's files are taken for, one row per symbol; `market` is what `read_market` gave, if at hand.

    ``columns`` are ours = theirs, ``left_out`` those that nothing reads; first and last open are in UTC, and in
    `data.clock_zone` if that is another. Where ``problem`` says why files cannot be read, the rest is empty.
    """
    market = market or {}
    rows = {symbol: _row(source, data, market.get(symbol)) for symbol, source in file_by_file(market_files(data))}
    read_table.cache_clear()
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("symbol").sort_index().fillna("")


def _row(source: CandleSource, data: DataConfig, candles: pd.DataFrame | None) -> dict[str, Any]:
    parts = f" and {len(source.paths) - 1} more" if len(source.paths) > 1 else ""
    row: dict[str, Any] = {"files": source.paths[0].name + parts}
    try:
        about = read_table(source.paths[0], data).attrs if candles is None else candles.attrs
        layout = about["layout"]
        marks = {"delimiter": layout.delimiter, "thousands": layout.thousands, "decimal": layout.decimal.strip(".")}
        maker = maker_by_file(source.paths[0]) or layout.maker
        row |= {"maker": maker.name, "to know": maker.note} if maker else {}
        row["text"] = ", ".join([layout.encoding, *(f"{name} {mark!r}" for name, mark in marks.items() if mark)])
        row["columns"] = ", ".join(f"{ours} = {layout.theirs(ours)}" for ours in layout.places)
        row["left_out"] = ", ".join(about["unread"])
        candles = read_source(source, data) if candles is None else candles
    except CmatError as error:
        return row | {"problem": str(error)}
    steps = candles.index.unique().sort_values().diff()
    row |= {"candles": f"{len(candles):,}", "timeframe": data.timeframe}
    for zone in dict.fromkeys(("UTC", data.clock_zone)):
        local = candles.index.tz_convert(zone)
        row |= {f"first ({zone})": local.min().strftime(TIMES), f"last ({zone})": local.max().strftime(TIMES)}
    return row | {"gaps": f"{(steps > data.bar).sum():,}", "problem": ""}


def proposed(data: DataConfig) -> dict[str, Any]:
    """Keys of the section ``data`` under which its files can be read."""
    lengths = Counter(length for path in candle_files(data) if (length := told_length(path)) is not None)
    bar = lengths.most_common(1)[0][0] if lengths else _step(data)
    found = {"timeframe": timeframe} if bar is not None and (timeframe := timeframe_of(bar)) else {}
    path = next(iter(market_files(data.model_copy(update=found)).values())).paths[0]
    maker = maker_by_file(path)
    with suppress(CmatError):  # the table says why it cannot be read
        layout = read_table(path, data).attrs["layout"]
        if "volume" not in layout.places and (readers := channel_readers(data).get("volume")):
            found["channels"] = [name for name in data.channels if name not in readers]
        maker = maker or layout.maker
    return found | (maker.advice if maker else {})


def _step(data: DataConfig) -> pd.Timedelta | None:
    """Usual step of the first file that can be read."""
    for path in candle_files(data):
        try:
            step = usual_step(candle_times(read_table(path, data), path, data.model_copy(update={"timeframe": "1m"})))
        except (CmatError, KeyError):
            continue
        if step is not None:
            return step.round("1D") if step > pd.Timedelta("20h") else step  # days of 23 hours are days
    return None
