"""How candle files are understood, before anything is made of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from cmat_lib.data.candle_files import channel_readers, read_source, timeframe_of, usual_step
from cmat_lib.data.candle_makers import BY_NAME, maker_by_file
from cmat_lib.data.candle_sources import CandleSource, candle_files, market_files, told_length
from cmat_lib.data.candle_tables import read_table
from cmat_lib.data.candle_text import Form
from cmat_lib.data.candle_times import join_clock, parse_times
from cmat_lib.data.sessions import closure_hint
from cmat_lib.errors import CmatError
from cmat_lib.schema import DataConfig

TIMES = "%Y-%m-%d %H:%M"


def understood(data: DataConfig) -> pd.DataFrame:
    """What each symbol's files are taken for.

    Parameters
    ----------
    data : DataConfig
        With a `data_dir`.

    Returns
    -------
    DataFrame, one row per symbol
        files; maker; text (encoding, delimiter, marks in numbers); columns (ours = theirs); left_out (columns that
        nothing reads); candles; timeframe; first and last open in UTC, and in `data.clock_zone` if that is another;
        gaps; problem (why the files cannot be read; what comes after `left_out` is then empty).

    Raises
    ------
    CmatError
        If there are no candle files, or a symbol has two.
    """
    sources = market_files(data)
    rows = {symbol: _row(sources[symbol], data) for symbol in sorted(sources, key=lambda s: (sources[s].paths, s))}
    read_table.cache_clear()
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("symbol").sort_index().fillna("")


def _row(source: CandleSource, data: DataConfig) -> dict[str, Any]:
    parts = f" and {len(source.paths) - 1} more" if len(source.paths) > 1 else ""
    row: dict[str, Any] = {"files": source.paths[0].name + parts}
    try:
        about = read_table(source.paths[0], Form.of(data, channel_readers(data))).attrs
    except CmatError as error:
        return row | {"problem": str(error)}
    layout = about["layout"]
    marks = [f"thousands {layout.thousands!r}"] if layout.thousands else []
    marks += [f"decimal {layout.decimal!r}"] if layout.decimal != "." else []
    named = maker_by_file(source.paths[0])
    row |= {
        "maker": layout.maker or (named.name if named else ""),
        "text": ", ".join(
            filter(None, [layout.encoding, layout.delimiter and f"delimiter {layout.delimiter!r}", *marks])
        ),
        "columns": ", ".join(f"{ours} = {layout.theirs(ours)}" for ours in layout.places),
        "left_out": ", ".join(about["unread"]),
    }
    try:
        candles = read_source(source, data)
    except CmatError as error:
        return row | {"problem": str(error)}
    steps = candles.index.unique().sort_values().to_series().diff().dropna()
    row |= {"candles": f"{len(candles):,}", "timeframe": data.timeframe}
    for zone in dict.fromkeys(("UTC", data.clock_zone)):
        local = candles.index.tz_convert(zone)
        row |= {f"first ({zone})": local.min().strftime(TIMES), f"last ({zone})": local.max().strftime(TIMES)}
    return row | {"gaps": f"{(steps > data.bar).sum():,}", "problem": ""}


def proposed(data: DataConfig) -> tuple[dict[str, Any], list[str]]:
    """Parameters under which a folder of unknown candles can be read, and what else to think of.

    Parameters
    ----------
    data : DataConfig
        Its `data_dir` and what is told already.

    Returns
    -------
    (dict, list of str)
        Keys of the section ``data`` that differ from `data`, and sentences.
    """
    files = candle_files(data)
    found: dict[str, Any] = {}
    lengths = Counter(length for path in files if (length := told_length(path)) is not None)
    bar = lengths.most_common(1)[0][0] if lengths else _step(files, data)
    if bar is not None and (timeframe := timeframe_of(bar)):
        found["timeframe"] = timeframe
    data = data.model_copy(update=found)
    chosen, *_ = market_files(data).values()
    maker = maker_by_file(chosen.paths[0])
    notes: list[str] = []
    try:
        about = read_table(chosen.paths[0], Form.of(data)).attrs["layout"]
        if "volume" not in about.places:
            readers = channel_readers(data).get("volume", [])
            found["channels"] = [name for name in data.channels if name not in readers]
            notes.append(f"There is no volume, so that no channel may read it: {', '.join(readers)} are left out.")
        maker = maker or BY_NAME.get(about.maker)
        found |= maker.advice if maker else {}
        if maker and maker.advice:
            notes.append(f"{maker.name}: {maker.note}.")
        data = data.model_copy(update=found)
        notes.append(closure_hint(read_source(chosen, data), data))
    except CmatError:
        pass  # the table says why
    return found, [note for note in notes if note]


def _step(files: list[Path], data: DataConfig) -> pd.Timedelta | None:
    """Usual step of the first file that can be read."""
    for path in files:
        try:
            table = read_table(path, Form.of(data))
            column = join_clock(table["timestamp"], table["clock"]) if "clock" in table else table["timestamp"]
            step = usual_step(parse_times(column, path, pd.Timedelta("1min"), "UTC", data.time_format))
        except (CmatError, KeyError):
            continue
        if step is not None:  # days of 23 hours are days
            return (
                step.round("1D")
                if abs(step - step.round("1D")) <= pd.Timedelta("1h") and step > pd.Timedelta("20h")
                else step
            )
    return None
