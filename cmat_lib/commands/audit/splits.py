"""The split from first principles: what a part knows, in time, whatever function made it."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd

from cmat_lib.commands.audit.subject import Finding, Report, Subject
from cmat_lib.data.splits import PARTS, Span, split_spans
from cmat_lib.views import VIEWS


def check_split(subject: Subject) -> Report:
    """Parts in the fold's order of time, no label that ends in the next part, no input from a part not to be known.

    And nothing left out without need: who may drop rows may drop the ones that were lost.
    """
    everything = _with_input_start(subject).sort_values("close_time", kind="stable")
    samples = everything[everything["part"].isin(PARTS)]
    spans = split_spans(subject.market, subject.config.data)
    stretches = [(span, samples[_is_in(samples, span)]) for span in spans]
    filled = [(span.part, rows) for span, rows in stretches if len(rows)]
    findings = [*_places(samples, spans), *_left_out(everything, spans), *_borders(stretches), *_embargo(filled)]
    return Report(f"{len(samples):,} samples in {len(filled)} stretches of time", findings)


def _with_input_start(subject: Subject) -> pd.DataFrame:
    """Samples with the open of the oldest candle that an input reads, found by their time."""
    parts = []
    for symbol, frame in subject.samples.groupby("symbol", sort=False):
        index = subject.market[symbol].index
        first = index.searchsorted(frame["timestamp"], side="right") - VIEWS.look_back(subject.config)
        parts.append(frame.assign(input_start=index[np.maximum(first, 0)]))
    return pd.concat(parts)


def _closes_in(samples: pd.DataFrame, span: Span) -> pd.Series:
    """Whether each row, of whatever part, lies in the time of a span."""
    return (samples["close_time"] >= span.start) & (samples["close_time"] < span.end)


def _is_in(samples: pd.DataFrame, span: Span) -> pd.Series:
    return (samples["part"] == span.part) & _closes_in(samples, span)


def _places(samples: pd.DataFrame, spans: list[Span]) -> Iterator[Finding]:
    """Rows that lie outside the time that the fold gives to their part, or have no label."""
    allowed = np.any([_is_in(samples, span) for span in spans], axis=0)
    for part, rows in samples[~allowed].groupby("part", sort=False):
        own = [f"{span.start:%Y-%m-%d %H:%M} to {span.end:%Y-%m-%d %H:%M}" for span in spans if span.part == part]
        yield _finding("overlap", part, rows, f"close {rows['close_time'].iloc[0]:%Y-%m-%d %H:%M}", "; ".join(own))
    for part, rows in samples[samples["label_end"].isna()].groupby("part", sort=False):
        yield _finding("overlap", part, rows, "no label", "left out")


def _left_out(samples: pd.DataFrame, spans: list[Span]) -> Iterator[Finding]:
    """Rows in no part whose part's name is not the reason."""
    close, label_end = samples["close_time"], samples["label_end"]
    purged, embargo = pd.Series(False, samples.index), pd.Series(False, samples.index)
    for number, span in enumerate(spans):
        inside = _closes_in(samples, span)
        if number + 1 < len(spans):
            purged |= inside & (label_end > span.end)
        for other in spans[:number]:
            if PARTS.index(other.part) > PARTS.index(span.part):
                embargo |= inside & (samples["input_start"] < other.end)
    outside = (close < spans[0].start) | (close >= spans[-1].end)
    reasons = {"unlabelled": label_end.isna(), "outside": outside, "purged": purged, "embargo": embargo}
    for name, rows in samples[~samples["part"].isin(PARTS)].groupby("part", sort=False):
        if len(chosen := rows[~reasons[name][rows.index]] if name in reasons else rows):
            yield _finding("selection", name, chosen, name, "in the part of its time")


def _borders(stretches: list[tuple[Span, pd.DataFrame]]) -> Iterator[Finding]:
    """Rows whose label ends after their part, whether or not the next one has a row that early."""
    for (span, rows), (later, _) in pairwise(stretches):
        if len(late := rows[rows["label_end"] > span.end]):
            end = f"label ends {late['label_end'].iloc[0]:%Y-%m-%d %H:%M}"
            yield _finding("border", span.part, late, end, f"{later.part} begins {span.end:%Y-%m-%d %H:%M}")


def _embargo(stretches: list[tuple[str, pd.DataFrame]]) -> Iterator[Finding]:
    """Rows whose inputs reach into an earlier stretch of a part of higher order."""
    for number, (part, rows) in enumerate(stretches):
        barred = [(other, frame) for other, frame in stretches[:number] if PARTS.index(other) > PARTS.index(part)]
        known_at = max((frame["label_end"].max() for _, frame in barred), default=None)
        if barred and len(near := rows[rows["input_start"] < known_at]):
            begin = f"inputs from {near['input_start'].iloc[0]:%Y-%m-%d %H:%M}"
            yield _finding("embargo", part, near, begin, f"{barred[-1][0]} known until {known_at:%Y-%m-%d %H:%M}")


def _finding(cause: str, part: str, rows: pd.DataFrame, stored: str, recomputed: str) -> Finding:
    row = rows.iloc[0]
    return Finding(cause, f"part {part}", row["symbol"], row["timestamp"], stored, recomputed, f"{len(rows)} rows")
