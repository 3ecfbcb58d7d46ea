"""Candles, labels and the index of samples against what the candles give."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from cmat_lib.commands.audit.subject import Finding, Report, Subject, differs, spread
from cmat_lib.data.candles import data_hash
from cmat_lib.data.labels import compute_labels
from cmat_lib.views.samples import LABELS, sample_rows


def check_candles(subject: Subject) -> Report:
    """The run's candles against the hash that was taken when they were read; all else is held to these candles."""
    recorded = subject.run.read_json("data/data.json")["data_hash"]
    found = data_hash(subject.market)
    looked_at = f"{sum(map(len, subject.market.values())):,} candles of {len(subject.market)} symbols"
    if found == recorded:
        return Report(looked_at)
    detail = "data/candles.parquet is not what stage 01 read"
    return Report(looked_at, [Finding("stored", "candles", stored=found[:12], recomputed=recorded[:12], detail=detail)])


def check_labels(subject: Subject) -> Report:
    """All labels against recomputed ones; chosen rows also against those of candles cut at the label's end."""
    config = subject.config
    whole = {s: compute_labels(candles, config.labels, config.data.bar) for s, candles in subject.market.items()}
    cut = {symbol: _cut_labels(subject, symbol, rows) for symbol, rows in _by_symbol(subject.candle_rows)}
    findings = _against(subject, whole, "all rows")
    known = {finding.feature for finding in findings}
    findings += [f for f in _against(subject, cut, "candles cut at the label's end") if f.feature not in known]
    total = sum(map(len, subject.labels.values()))
    return Report(f"{total:,} rows; {len(subject.candle_rows):,} of them from candles cut at the label's end", findings)


def _cut_labels(subject: Subject, symbol: str, rows: np.ndarray) -> pd.DataFrame:
    """Labels of chosen rows, each from the trailing volatility's candles, its own, and the H after it.

    The label ends with the last of these candles.
    """
    candles, config = subject.market[symbol], subject.config
    parts = []
    for row in rows:
        first = max(row - config.labels.volatility_window, 0)
        part = candles.iloc[first : row + config.labels.horizon + 1]
        label = compute_labels(part, config.labels, config.data.bar).iloc[[row - first]]
        end = (part.index[[-1]] + config.data.bar).as_unit("ns")
        parts.append(label.assign(label_end=end.where(label["trigger"].notna().to_numpy())))
    return pd.concat(parts)


def _against(subject: Subject, recomputed: dict[str, pd.DataFrame], what: str) -> list[Finding]:
    """Findings of the stored labels against other ones, which may be of fewer rows."""
    stored = {symbol: subject.labels[symbol].loc[again.index] for symbol, again in recomputed.items()}
    return compare_frames(stored, recomputed, LABELS, "stored", what)


def check_samples(subject: Subject) -> Report:
    """Every sample against the candle that it stands for: place, time, close and labels."""
    stored = {symbol: frame.drop(columns="symbol").set_index("timestamp") for symbol, frame in _frames(subject.samples)}
    again = {symbol: _expected(subject, symbol, frame.index) for symbol, frame in stored.items()}
    columns = ("row", "local_row", "close_time", "close", *LABELS)
    findings = compare_frames(stored, again, columns, "stored", "the sample stands for another candle")
    findings += [finding for symbol in subject.market for finding in _sample_times(subject, symbol, stored)]
    return Report(f"{len(subject.samples):,} samples", findings)


def _sample_times(subject: Subject, symbol: str, stored: dict[str, pd.DataFrame]) -> Iterator[Finding]:
    """A symbol must have a sample wherever all inputs are complete, once, and nowhere else."""
    candles = subject.market[symbol]
    right = candles.index[sample_rows(candles, subject.config)]
    there = stored[symbol].index if symbol in stored else right[:0]
    for times, found, wanted in (
        (there[there.duplicated()], "twice", "once"),
        (right.difference(there), "not there", "there"),
        (there.difference(right), "there", "not there"),
    ):
        if len(times):
            detail = f"{len(times)} samples; there is one wherever all inputs are complete"
            yield Finding("stored", "samples", symbol, times.min(), found, wanted, detail)


def _expected(subject: Subject, symbol: str, times: pd.DatetimeIndex) -> pd.DataFrame:
    """What the samples of a symbol should say, found by their time."""
    candles, bar = subject.market[symbol], subject.config.data.bar
    local = candles.index.get_indexer(times)
    close = candles["close"].reindex(times).to_numpy()
    places = {"local_row": local, "row": local + subject.offsets[symbol], "close_time": times + bar, "close": close}
    return subject.labels[symbol].reindex(times).assign(**places)


def compare_frames(
    stored: dict[str, pd.DataFrame], again: dict[str, pd.DataFrame], columns: tuple[str, ...], cause: str, what: str
) -> list[Finding]:
    """One finding for each column that differs somewhere.

    Parameters
    ----------
    stored, again : dict of str to DataFrame
        By symbol, indexed by candle open, rows in the same order.
    """
    left, right = (pd.concat(frames, names=["symbol", "timestamp"]).reset_index() for frames in (stored, again))
    findings = []
    for name in columns:
        wrong = np.flatnonzero(_unequal(left[name], right[name]))
        if len(wrong):
            first = wrong[int(left["timestamp"].iloc[wrong].argmin())]
            row, detail = left.iloc[first], f"{len(wrong)} of {len(left)} rows differ; {what}"
            findings.append(
                Finding(cause, name, row["symbol"], row["timestamp"], row[name], right[name].iloc[first], detail)
            )
    return findings


def _unequal(stored: pd.Series, again: pd.Series) -> np.ndarray:
    if isinstance(stored.dtype, pd.DatetimeTZDtype):
        stored, again = (pd.DatetimeIndex(x).as_unit("ns") for x in (stored, again))
        return np.asarray((stored != again) & ~(stored.isna() & again.isna()))
    return differs(stored.to_numpy(), again.to_numpy(), spread(stored.to_numpy()[:, None])[0])


def _by_symbol(rows: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    return [(symbol, frame["local_row"].to_numpy()) for symbol, frame in _frames(rows)]


def _frames(rows: pd.DataFrame):
    return rows.groupby("symbol", sort=False)
