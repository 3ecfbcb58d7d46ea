"""Channels against their functions on exactly the candles that they declare to read, with the label columns changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.audit.subject import Finding, Report, Subject, differs, earliest, spread
from cmat_lib.config.schema import PRICE_CHANNELS
from cmat_lib.data.channels import channel_of, compute_channels
from cmat_lib.data.splits import Market


def check_channels(subject: Subject) -> Report:
    """Every channel at chosen rows, from its declared look-back alone; where it differs, the reason is looked for."""
    names, rows = subject.config.data.channel_names, subject.candle_rows
    stored = subject.channels[rows["row"].to_numpy()]  # (n, C)
    again = np.full(stored.shape, np.nan)
    for look_back in {channel_of(name).look_back for name in names}:
        columns = [column for column, name in enumerate(names) if channel_of(name).look_back == look_back]
        group = [names[column] for column in columns]
        for number, place in enumerate(rows.itertuples()):
            again[number, columns] = _declared(subject, subject.hidden, group, place)
    wrong = differs(stored, again, spread(subject.channels))
    findings = [_finding(subject, column, again, wrong) for column in np.flatnonzero(wrong.any(axis=0))]
    return Report(f"{len(names)} channels at {len(rows):,} rows, from their declared look-backs alone", findings)


def _finding(subject: Subject, column: int, again: np.ndarray, wrong: np.ndarray) -> Finding:
    rows, name = subject.candle_rows, subject.config.data.channel_names[column]
    place = earliest(rows[wrong[:, column]])
    stored = float(subject.channels[place.row, column])
    cause, why = _cause(subject, name, place, stored, spread(subject.channels[:, [column]])[0])
    detail = f"{wrong[:, column].sum()} of {len(rows)} rows differ; {why}"
    return Finding(cause, name, place.symbol, place.timestamp, stored, float(again[place.name, column]), detail)


def _cause(subject: Subject, name: str, place: pd.Series, stored: float, tolerance: float) -> tuple[str, str]:
    """What has to be given back to the function before it makes the stored value."""
    candles, row, anchor = subject.market[place.symbol], place.local_row, _anchor(subject, place.symbol)
    if not differs(stored, _declared(subject, subject.market, [name], place)[0], tolerance):
        return "label", "with the label columns as they are it is the stored value"
    if not differs(stored, _values(candles.iloc[: row + 1], [name], row, anchor, subject)[0], tolerance):
        return "look_back", f"it takes more earlier candles than the {channel_of(name).look_back} declared"
    if not differs(stored, _values(candles, [name], row, anchor, subject)[0], tolerance):
        return "future", "it takes candles after the row"
    return "stored", "no choice of candles gives the stored value"


def _declared(subject: Subject, market: Market, names: Sequence[str], place) -> np.ndarray:
    """Values of channels with one look-back from its candles alone, shape (len(names),)."""
    first = max(place.local_row - channel_of(names[0]).look_back + 1, 0)
    candles = market[place.symbol].iloc[first : place.local_row + 1]
    return _values(candles, names, place.local_row - first, _anchor(subject, place.symbol), subject)


def _values(candles: pd.DataFrame, names: Sequence[str], row: int, anchor: float, subject: Subject) -> np.ndarray:
    """Values of channels at a row of these candles, NaN where there is none or where it is not finite."""
    try:
        values = compute_channels(candles, names, subject.config.data.bar, np.float64)[row]
    except CmatError:  # of one channel; the others must not suffer from it
        single = [_values(candles, [name], row, anchor, subject) for name in names] if len(names) > 1 else [[np.nan]]
        return np.concatenate(single)
    price = np.isin(names, PRICE_CHANNELS)  # log prices are stored relative to the symbol's first close
    return values + price * (np.log(candles["close"].iloc[0]) - anchor)


def _anchor(subject: Subject, symbol: str) -> float:
    return float(np.log(subject.market[symbol]["close"].iloc[0]))
