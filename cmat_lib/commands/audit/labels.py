"""Candles, labels and the index of samples against what the candles give."""

import numpy as np
import pandas as pd

from cmat_lib.commands.audit.subject import Finding, Report, Subject, differing, differs, odd_rows, spread
from cmat_lib.data.candles import data_hash
from cmat_lib.data.labels import compute_labels
from cmat_lib.views.samples import LABELS, sample_rows


def check_candles(subject: Subject) -> Report:
    """The run's candles against the hash that was taken when they were read; all else is held to these candles."""
    recorded = subject.run.read_json("data/data.json")["data_hash"]
    found = data_hash(subject.market)
    looked_at = f"{sum(map(len, subject.market.values())):,} candles of {len(subject.market)} symbols"
    what = "data/candles.parquet is not what stage 01 read"
    finding = Finding("stored", "candles", stored=found[:12], recomputed=recorded[:12], detail=what)
    return Report(looked_at, [finding] if found != recorded else ())


def check_labels(subject: Subject) -> Report:
    """All labels against recomputed ones; chosen rows also against those of candles cut at the label's end."""
    config = subject.config
    whole = {s: compute_labels(candles, config.labels, config.data.bar) for s, candles in subject.market.items()}
    places = subject.candle_rows.groupby("symbol", sort=False)["local_row"]
    cut = {symbol: _cut_labels(subject, symbol, rows) for symbol, rows in places}
    short = {symbol: subject.labels[symbol].loc[labels.index] for symbol, labels in cut.items()}
    findings = _compared(subject.labels, whole, LABELS, "all rows")
    known = {finding.feature for finding in findings}
    findings += [f for f in _compared(short, cut, LABELS, "candles cut at the label's end") if f.feature not in known]
    total = sum(map(len, subject.labels.values()))
    return Report(f"{total:,} rows; {len(subject.candle_rows):,} of them from candles cut at the label's end", findings)


def _cut_labels(subject: Subject, symbol: str, rows: pd.Series) -> pd.DataFrame:
    """Labels of chosen rows, each from the trailing volatility's candles, its own, and the H to its end."""
    candles, config = subject.market[symbol], subject.config
    parts = []
    for row in rows:
        first = max(row - config.labels.volatility_window, 0)
        part = candles.iloc[first : row + config.labels.horizon + 1]
        label = compute_labels(part, config.labels, config.data.bar).iloc[[row - first]]
        end = (part.index[[-1]] + config.data.bar).as_unit("ns")
        parts.append(label.assign(label_end=end.where(label["trigger"].notna().to_numpy())))
    return pd.concat(parts)


def check_samples(subject: Subject) -> Report:
    """Every sample against the candle that it stands for: place, time, close and labels."""
    samples = subject.samples
    frames = samples.groupby("symbol", sort=False)
    stored = {symbol: frame.drop(columns="symbol").set_index("timestamp") for symbol, frame in frames}
    again = {symbol: _expected(subject, symbol, frame.index) for symbol, frame in stored.items()}
    columns = ("row", "local_row", "close_time", "close", *LABELS)
    findings = _compared(stored, again, columns, "the sample stands for another candle")
    for symbol, candles in subject.market.items():
        right = pd.DataFrame({"symbol": symbol, "timestamp": candles.index[sample_rows(candles, subject.config)]})
        what = "samples; there is one wherever all inputs are complete"
        findings += odd_rows("samples", samples[samples["symbol"] == symbol], right, what)
    return Report(f"{len(samples):,} samples", findings)


def _expected(subject: Subject, symbol: str, times: pd.DatetimeIndex) -> pd.DataFrame:
    """What the samples of a symbol should say, found by their time."""
    candles, bar = subject.market[symbol], subject.config.data.bar
    local, close = candles.index.get_indexer(times), candles["close"].reindex(times).to_numpy()
    places = {"local_row": local, "row": local + subject.offsets[symbol], "close_time": times + bar, "close": close}
    return subject.labels[symbol].reindex(times).assign(**places)


def _compared(
    stored: dict[str, pd.DataFrame], again: dict[str, pd.DataFrame], columns: tuple[str, ...], what: str
) -> list[Finding]:
    """One finding for each column that differs somewhere; frames by candle open, rows in the same order."""
    left, right = (pd.concat(frames, names=["symbol", "timestamp"]).reset_index() for frames in (stored, again))
    both = left.assign(**{f"{name}_again": right[name] for name in columns})
    wrong = ((name, _unequal(left[name], right[name])) for name in columns)
    return [f for name, unequal in wrong for f in differing("stored", name, both, unequal, f"differ; {what}")]


def _unequal(stored: pd.Series, again: pd.Series) -> np.ndarray:
    if isinstance(stored.dtype, pd.DatetimeTZDtype):
        stored, again = (pd.DatetimeIndex(x).as_unit("ns") for x in (stored, again))
        return np.asarray((stored != again) & ~(stored.isna() & again.isna()))
    return differs(stored.to_numpy(), again.to_numpy(), spread(stored.to_numpy()[:, None])[0])
