"""Views against the same functions on exactly what a sample may know: candles up to its row, tables up to its close."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cmat_lib.commands.audit.subject import Finding, Report, Subject, differs, spread
from cmat_lib.config import Config
from cmat_lib.views import View
from cmat_lib.views.compute import computed
from cmat_lib.views.registry import Asked
from cmat_lib.views.table import read
from cmat_lib.views.table_join import cut


@dataclass(frozen=True)
class Cut:
    """A view of a run, beside what it shows if each sample is computed from what it may know."""

    subject: Subject
    view: View

    @cached_property
    def names(self) -> list[str]:  # F
        return self.view.names(self.subject.config)

    @cached_property
    def stored(self) -> np.ndarray:
        """Newest numbers at each sample, (N, F)."""
        return self.subject.at_samples(self.view)

    @cached_property
    def spread(self) -> np.ndarray:  # (F,)
        return spread(self.stored)

    @cached_property
    def compared(self) -> tuple[np.ndarray, np.ndarray]:
        """Recomputed features of the chosen samples, and where the stored ones differ, (n, F) each."""
        rows = self.subject.sample_rows
        again = np.array([self.at(place) for place in rows.itertuples()])
        return again, differs(self.stored[rows.index], again, self.spread)

    def findings(self) -> Iterator[Finding]:
        """One for each feature that differs in one of the chosen samples."""
        for column in np.flatnonzero(self.compared[1].any(axis=0)):
            yield self._finding(column)

    def first_finding(self) -> Finding:
        """Of the earliest differing sample, the feature that is furthest off; a wrong window moves nearly all."""
        rows, (again, wrong) = self.subject.sample_rows, self.compared
        first = self._first(wrong.any(axis=1))
        away = np.abs(self.stored[rows.index[first]] - again[first]) / np.where(self.spread > 0, self.spread, 1.0)
        finding = self._finding(int(np.where(wrong[first], np.nan_to_num(away, nan=np.inf), -1.0).argmax()))
        total = f"{wrong.any(axis=0).sum()} of {len(self.names)} features differ"
        return replace(finding, detail=f"{finding.detail}; {total}")

    def at(self, place, shift: int = 0, longer: int = 0) -> np.ndarray:
        """Numbers of a sample that ends `shift` candles later; NaN if its candles are not there without a gap."""
        config = self.view.longer(self.subject.config, longer) if longer else self.subject.config
        end, length = self.subject.end(place.symbol, place.timestamp) + shift, self.view.look_back(config)
        runs = self.subject.runs[place.symbol]
        if end < length or end > len(runs) or runs[end - 1] != runs[end - length]:
            return np.full(len(self.names), np.nan)
        return self._shown(place.symbol, [end], end - length, end, config)[0]

    def sociable(self) -> set[str]:
        """Features that give two samples of a symbol other values together than each alone, from the same candles."""
        rows, config = self.subject.sample_rows, self.subject.config
        symbol = rows["symbol"].iloc[0]
        own = rows[rows["symbol"] == symbol].iloc[[0, -1]]
        ends = [self.subject.end(symbol, p.timestamp) for p in own.itertuples() if np.isfinite(self.at(p)).all()]
        if len(ends) < 2:
            return set()
        together = self._shown(symbol, ends, 0, ends[-1], config)
        alone = np.concatenate([self._shown(symbol, [end], 0, ends[-1], config) for end in ends])
        wrong = differs(together, alone, self.spread).any(axis=0)
        return {self.names[column] for column in np.flatnonzero(wrong)}

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

    def _finding(self, column: int) -> Finding:
        rows, (again, wrong) = self.subject.sample_rows, self.compared
        first = self._first(wrong[:, column])
        place = rows.iloc[first]
        cause, why = self._cause(place, wrong[first])
        values = float(self.stored[place.name, column]), float(again[first, column])
        detail = f"{wrong[:, column].sum()} of {len(rows)} rows differ; {why}"
        return Finding(cause, self.names[column], place.symbol, place.timestamp, *values, detail)

    def _first(self, chosen: np.ndarray) -> int:
        """Number of the earliest of the chosen samples."""
        numbers = np.flatnonzero(chosen)
        return int(numbers[self.subject.sample_rows["timestamp"].iloc[numbers].argmin()])

    def _cause(self, place, wrong: np.ndarray) -> tuple[str, str]:
        """The window near the right one that gives the stored values, if one does."""
        stored, horizon = self.stored[place.name], self.subject.config.labels.horizon
        length = self.view.look_back(self.subject.config)
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


def check_view(subject: Subject, view: View) -> Report:
    """Numbers of a view at chosen samples, each computed alone from what it may know."""
    windows = Cut(subject, view)
    sociable = windows.sociable()
    if view.groups and not sociable:  # numbers of one diagram: a wrong window moves nearly all
        findings = [windows.first_finding()] if windows.compared[1].any() else []
    else:
        findings = [_of_batch(f) if f.feature in sociable else f for f in windows.findings()]
    number, names = len(subject.sample_rows), len(windows.names)
    length = view.look_back(subject.config)
    of = f"{number:,} windows of {length} candles" if length > 1 else f"{number:,} samples"
    return Report(f"{names} numbers of {of}", findings)


def _of_batch(finding: Finding) -> Finding:
    detail = f"{finding.detail.partition(';')[0]}; alone a window has another value"
    return replace(finding, cause="batch", detail=detail)
