"""Numbers of the run against the same functions on exactly what they may know.

A channel may know the candles that it declares to read, with the label columns changed; a sample of any other view may
know candles up to its row, and tables up to its close.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.audit.subject import Finding, Report, Subject, differs, earliest, spread
from cmat_lib.config import Config
from cmat_lib.config.inputs import PRICE_CHANNELS
from cmat_lib.data.channels import channel_of, compute_channels
from cmat_lib.data.splits import Market
from cmat_lib.views import View
from cmat_lib.views.compute import computed
from cmat_lib.views.registry import Asked
from cmat_lib.views.table import cut, read


class Compared(NamedTuple):
    """Stored and recomputed numbers of the n rows looked at, and where they differ."""

    rows: pd.DataFrame  # index 0 to n - 1
    names: list[str]  # F
    stored: np.ndarray  # (n, F)
    again: np.ndarray  # (n, F)
    wrong: np.ndarray  # (n, F)

    def findings(self, cause: Callable[[pd.Series, int], tuple[str, str]]) -> Iterator[Finding]:
        """One for each feature that differs in one of the rows; `cause` tells it of the earliest one and the column."""
        for column in np.flatnonzero(self.wrong.any(axis=0)):
            yield self.finding(column, cause)

    def finding(self, column: int, cause: Callable[[pd.Series, int], tuple[str, str]]) -> Finding:
        """Of the earliest row in which a feature differs."""
        place = earliest(self.rows[self.wrong[:, column]])
        kind, why = cause(place, column)
        values = float(self.stored[place.name, column]), float(self.again[place.name, column])
        detail = f"{self.wrong[:, column].sum()} of {len(self.rows)} rows differ; {why}"
        return Finding(kind, self.names[column], place.symbol, place.timestamp, *values, detail)


def check_channels(subject: Subject) -> Report:
    """Every channel at chosen rows, from its declared look-back alone; where it differs, the reason is looked for."""
    names, rows = subject.config.data.channel_names, subject.candle_rows
    stored, own_spread = subject.channels[rows["row"].to_numpy()], spread(subject.channels)
    again = np.full(stored.shape, np.nan)
    for look_back in {channel_of(name).look_back for name in names}:
        columns = [column for column, name in enumerate(names) if channel_of(name).look_back == look_back]
        group = [names[column] for column in columns]
        for number, place in enumerate(rows.itertuples()):
            again[number, columns] = _declared(subject, subject.hidden, group, place)
    compared = Compared(rows, names, stored, again, differs(stored, again, own_spread))

    def cause(place: pd.Series, column: int) -> tuple[str, str]:
        return _channel_cause(subject, names[column], place, stored[place.name, column], own_spread[column])

    findings = list(compared.findings(cause))
    return Report(f"{len(names)} channels at {len(rows):,} rows, from their declared look-backs alone", findings)


def _channel_cause(subject: Subject, name: str, place: pd.Series, stored: float, tolerance: float) -> tuple[str, str]:
    """What has to be given back to the function before it makes the stored value."""
    symbol, row, candles = place.symbol, place.local_row, subject.market[place.symbol]
    if not differs(stored, _declared(subject, subject.market, [name], place)[0], tolerance):
        return "label", "with the label columns as they are it is the stored value"
    if not differs(stored, _channels(subject, symbol, [name], candles.iloc[: row + 1])[0], tolerance):
        return "look_back", f"it takes more earlier candles than the {channel_of(name).look_back} declared"
    if not differs(stored, _channels(subject, symbol, [name], candles, row)[0], tolerance):
        return "future", "it takes candles after the row"
    return "stored", "no choice of candles gives the stored value"


def _declared(subject: Subject, market: Market, names: Sequence[str], place) -> np.ndarray:
    """Values of channels with one look-back from its candles alone, shape (len(names),)."""
    first = max(place.local_row - channel_of(names[0]).look_back + 1, 0)
    return _channels(subject, place.symbol, names, market[place.symbol].iloc[first : place.local_row + 1])


def _channels(subject: Subject, symbol: str, names: Sequence[str], candles: pd.DataFrame, row: int = -1) -> np.ndarray:
    """Values of channels at a row of these candles, NaN where there is none or where it is not finite."""
    try:
        values = compute_channels(candles, names, subject.config.data.bar, np.float64)[row]
    except CmatError:  # of one channel; the others must not suffer from it
        if len(names) == 1:
            return np.array([np.nan])
        return np.concatenate([_channels(subject, symbol, [name], candles, row) for name in names])
    price = np.isin(names, PRICE_CHANNELS)  # log prices are stored relative to the symbol's first close
    anchor = float(np.log(subject.market[symbol]["close"].iloc[0]))
    return values + price * (np.log(candles["close"].iloc[0]) - anchor)


def check_view(subject: Subject, view: View) -> Report:
    """Numbers of a view at chosen samples, each computed alone from what it may know."""
    cut_off = Cut(subject, view)
    compared = cut_off.compared
    if view.groups and not cut_off.sociable:  # numbers of one diagram: a wrong window moves nearly all
        findings = [cut_off.first_finding()] if compared.wrong.any() else []
    else:
        findings = list(compared.findings(cut_off.cause))
    length = view.look_back(subject.config)
    of = f"{len(compared.rows):,} windows of {length} candles" if length > 1 else f"{len(compared.rows):,} samples"
    return Report(f"{len(compared.names)} numbers of {of}", findings)


@dataclass(frozen=True)
class Cut:
    """A view of a run, beside what it shows if each sample is computed from what it may know."""

    subject: Subject
    view: View

    @cached_property
    def spread(self) -> np.ndarray:  # (F,)
        return spread(self.subject.at_samples(self.view))

    @cached_property
    def compared(self) -> Compared:
        """Of the chosen samples."""
        rows = self.subject.sample_rows
        stored = self.subject.at_samples(self.view)[rows.index]
        again = np.array([self.at(place) for place in rows.itertuples()])
        names, wrong = self.view.names(self.subject.config), differs(stored, again, self.spread)
        return Compared(rows.reset_index(drop=True), names, stored, again, wrong)

    def first_finding(self) -> Finding:
        """Of the earliest differing sample, the feature that is furthest off; a wrong window moves nearly all."""
        rows, names, stored, again, wrong = self.compared
        first = earliest(rows[wrong.any(axis=1)]).name
        away = np.abs(stored[first] - again[first]) / np.where(self.spread > 0, self.spread, 1.0)
        furthest = int(np.where(wrong[first], np.nan_to_num(away, nan=np.inf), -1.0).argmax())
        finding = self.compared.finding(furthest, self.cause)
        return replace(finding, detail=f"{finding.detail}; {wrong.any(axis=0).sum()} of {len(names)} features differ")

    def at(self, place, shift: int = 0, longer: int = 0) -> np.ndarray:
        """Numbers of a sample that ends `shift` candles later; NaN if its candles are not there without a gap."""
        config = self.view.longer(self.subject.config, longer) if longer else self.subject.config
        end, length = self.subject.end(place.symbol, place.timestamp) + shift, self.view.look_back(config)
        runs = self.subject.runs[place.symbol]
        if end < length or end > len(runs) or runs[end - 1] != runs[end - length]:
            return np.full(len(self.spread), np.nan)
        return self._shown(place.symbol, [end], end - length, end, config)[0]

    @cached_property
    def sociable(self) -> set[int]:
        """Columns that give two samples of a symbol other values together than each alone, from the same candles."""
        rows, config = self.subject.sample_rows, self.subject.config
        symbol = rows["symbol"].iloc[0]
        own = rows[rows["symbol"] == symbol].iloc[[0, -1]]
        ends = [self.subject.end(symbol, p.timestamp) for p in own.itertuples() if np.isfinite(self.at(p)).all()]
        if len(ends) < 2:
            return set()
        alone = np.concatenate([self._shown(symbol, [end], 0, ends[-1], config) for end in ends])
        wrong = differs(self._shown(symbol, ends, 0, ends[-1], config), alone, self.spread).any(axis=0)
        return set(np.flatnonzero(wrong).tolist())

    def _shown(self, symbol: str, ends: list[int], start: int, until: int, config: Config) -> np.ndarray:
        """Newest numbers of samples that end before candles of these numbers, from the candles `start` to `until`.

        Of the other symbols, where they are read, from the candles that were over then.
        """
        hidden = self.subject.hidden
        market = {symbol: hidden[symbol].iloc[start:until]}
        if self.view.reads_others:
            last = market[symbol].index[-1]
            market = {s: market[s] if s == symbol else candles.loc[:last] for s, candles in hidden.items()}
        rows, close = np.array(ends) - 1 - start, market[symbol].index[-1] + config.data.bar
        windows = computed(symbol, market[symbol], rows)
        asked = Asked(symbol, market, rows, config, windows, table=lambda n, t: cut(read(n, t), close, t))
        found = self.view.compute(asked)
        return found.values if found.rows is None else found.values[found.rows]

    def cause(self, place: pd.Series, column: int) -> tuple[str, str]:
        """Company of other windows, or the window near the right one that gives the stored values, if one does."""
        if column in self.sociable:
            return "batch", "alone a window has another value"
        stored, wrong = self.compared.stored[place.name], self.compared.wrong[place.name]
        horizon, length = self.subject.config.labels.horizon, self.view.look_back(self.subject.config)
        for shift in sorted(range(-horizon, horizon + 1), key=abs):
            for longer in (0, 1, -1) if self.view.longer else (0,):
                if differs(stored, self.at(place, shift, longer), self.spread)[wrong].any():
                    continue
                there = f"{abs(shift)} candle{'s' * (abs(shift) > 1)} {'after' if shift > 0 else 'before'} the row"
                window = f"a window of {length + longer} candles that ends {there if shift else 'at the row'} gives it"
                return "future" if shift > 0 else "window", window
        runs, end = self.subject.runs[place.symbol], self.subject.end(place.symbol, place.timestamp)
        until = end - 1 + int((runs[end - 1 :] == runs[end - 1]).sum())
        later = self._shown(place.symbol, [end], end - length, until, self.subject.config)[0]
        if not differs(stored, later, self.spread)[wrong].any():
            return "future", "it takes candles after the row"
        return "stored", "no window of nearly this length and place gives it"
