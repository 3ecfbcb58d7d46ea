"""Topology and complexity against the same functions on exactly the candles of the window that ends at the row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cmat_lib.audit.subject import Finding, Report, Subject, differs, spread
from cmat_lib.data.complexity import complexity_features, log_ranges
from cmat_lib.data.topology import window_topology
from cmat_lib.tda.features import feature_names


@dataclass(frozen=True)
class Windows:
    """Features that are made from one window of candles each."""

    subject: Subject
    names: Sequence[str]  # F of them
    stored: np.ndarray  # (N, F)
    length: int  # candles of a window, W
    # symbol, number of candles up to the window's end, length -> (F,), from these candles alone
    compute: Callable[[str, int, int], np.ndarray]

    @cached_property
    def spread(self) -> np.ndarray:
        """Of each feature over all samples, shape (F,)."""
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
        bad = np.flatnonzero(wrong.any(axis=1))
        first = bad[int(rows["timestamp"].iloc[bad].argmin())]
        away = np.abs(self.stored[rows.index[first]] - again[first]) / np.where(self.spread > 0, self.spread, 1.0)
        finding = self._finding(int(np.where(wrong[first], np.nan_to_num(away, nan=np.inf), -1.0).argmax()))
        total = f"{wrong.any(axis=0).sum()} of {len(self.names)} features differ"
        return replace(finding, detail=f"{finding.detail}; {total}")

    def at(self, place, shift: int = 0, longer: int = 0) -> np.ndarray:
        """Features of the window that ends `shift` candles after a sample; NaN if it is not there without a gap."""
        end, length = self.subject.end(place.symbol, place.timestamp) + shift, self.length + longer
        runs = self.subject.runs[place.symbol]
        if end < length or end > len(runs) or runs[end - 1] != runs[end - length]:
            return np.full(len(self.names), np.nan)
        return self.compute(place.symbol, end, length)

    def _finding(self, column: int) -> Finding:
        rows, (again, wrong) = self.subject.sample_rows, self.compared
        bad = np.flatnonzero(wrong[:, column])
        first = bad[int(rows["timestamp"].iloc[bad].argmin())]
        place = rows.iloc[first]
        cause, why = self._cause(place, wrong[first])
        values = float(self.stored[place.name, column]), float(again[first, column])
        detail = f"{len(bad)} of {len(rows)} rows differ; {why}"
        return Finding(cause, self.names[column], place.symbol, place.timestamp, *values, detail)

    def _cause(self, place, wrong: np.ndarray) -> tuple[str, str]:
        """The window near the right one that gives the stored values, if one does."""
        stored, horizon = self.stored[place.name], self.subject.config.labels.horizon
        for shift in sorted(range(-horizon, horizon + 1), key=abs):
            for longer in (0, 1, -1):
                if differs(stored, self.at(place, shift, longer), self.spread)[wrong].any():
                    continue
                window = f"a window of {self.length + longer} candles that ends {_relative(shift)} gives it"
                return "future" if shift > 0 else "window", window
        return "stored", "no window of nearly this length and place gives it"


def _relative(shift: int) -> str:
    if shift == 0:
        return "at the row"
    return f"{abs(shift)} candle{'s' * (abs(shift) > 1)} {'after' if shift > 0 else 'before'} the row"


def check_topology(subject: Subject) -> Report:
    """Topology features of chosen samples, each window computed alone."""
    config = subject.config.tda

    def compute(symbol: str, end: int, length: int) -> np.ndarray:
        windows, delays = zip(*config.scales, strict=True)
        longer = [window + length - config.longest_window for window in windows]
        changed = config.model_copy(update={"windows": longer, "delays": list(delays)})
        return window_topology(subject.market[symbol].iloc[end - length : end], changed)

    windows = Windows(subject, feature_names(config), subject.tda, config.longest_window, compute)
    findings = [windows.first_finding()] if windows.compared[1].any() else []
    return _report(windows, findings, "features")


def check_complexity(subject: Subject) -> Report:
    """Complexity indicators and ranges of chosen samples, each window computed alone."""
    config = subject.config.complexity

    def compute(symbol: str, end: int, length: int) -> np.ndarray:
        candles = subject.market[symbol].iloc[end - length : end]
        indicators = complexity_features(_log_closes(subject, symbol, end, length)[None], config)[0]
        return np.concatenate([indicators, log_ranges(candles, config.ranges)[-1]])

    windows = Windows(subject, config.names, subject.complexity, config.window_size, compute)
    sociable = _sociable(windows)
    findings = [
        replace(finding, cause="batch", detail=f"{finding.detail.partition(';')[0]}; alone a window has another value")
        if finding.feature in sociable
        else finding
        for finding in windows.findings()
    ]
    return _report(windows, findings, "indicators and ranges")


def _report(windows: Windows, findings: list[Finding], what: str) -> Report:
    number = len(windows.subject.sample_rows)
    return Report(f"{len(windows.names)} {what} of {number:,} windows of {windows.length} candles", findings)


def _log_closes(subject: Subject, symbol: str, end: int, length: int) -> np.ndarray:
    """Log closes of the `length` candles before candle number `end`, shape (length,)."""
    return np.log(subject.market[symbol]["close"].to_numpy()[end - length : end])


def _sociable(windows: Windows) -> set[str]:
    """Indicators that give two windows other values together than each alone."""
    subject, config = windows.subject, windows.subject.config.complexity
    places = [place for place in subject.sample_rows.iloc[[0, -1]].itertuples() if np.isfinite(windows.at(place)).all()]
    if len(places) < 2:
        return set()
    ends = [(place.symbol, subject.end(place.symbol, place.timestamp)) for place in places]
    together = complexity_features(np.array([_log_closes(subject, *end, windows.length) for end in ends]), config)
    alone = np.array([windows.at(place) for place in places])[:, : len(config.indicators)]
    differing = differs(together, alone, windows.spread[: len(config.indicators)]).any(axis=0)
    return {name for name, differs_here in zip(config.indicators, differing, strict=True) if differs_here}
