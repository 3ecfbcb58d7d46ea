"""Splits: which part of time fits weights, ends the training, calibrates, and is looked at once.

A split is a list of spans of time, the same for all symbols. Samples near a border are *purged* where their label
reaches into the part after theirs, or under *embargo* where their inputs reach back into a part that must not be known
yet (only where training time lies after test time).
"""

from itertools import combinations, groupby, pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.candles import Market

PARTS = ("train", "stop", "calibrate", "test")  # each may know those before it, none those after it
LEFT_OUT = ("purged", "embargo", "outside", "unlabelled")
EARLIEST = pd.Timestamp(0, tz="UTC")


class Span(NamedTuple):
    """Stretch of time that belongs to one part: the samples with ``start <= close_time < end``."""

    part: str
    start: pd.Timestamp
    end: pd.Timestamp


def split_boundaries(market: Market, data: DataConfig) -> list[pd.Timestamp]:
    """Starts (UTC) of the stop, calibrate and test parts of the holdout; a CmatError if a date is outside candles."""
    first, last = _covered_time(market, data.bar)
    if data.split_dates is None:
        return [(first + share * (last - first)).floor(data.bar) for share in np.cumsum(data.split_shares[:3])]
    dates = [pd.Timestamp(moment) for moment in data.split_dates]
    if not first < dates[0] or not dates[-1] < last:
        raise CmatError(f"data.split_dates must lie inside the candles, which run from {first} to {last}")
    return dates


def _covered_time(market: Market, bar: pd.Timedelta) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Open of the first and close of the last candle of all symbols."""
    opens = [candles.index for candles in market.values()]
    return min(own[0] for own in opens), max(own[-1] for own in opens) + bar


def split_spans(market: Market, data: DataConfig) -> list[Span]:
    """Parts of fold ``data.fold`` over time: ascending, without holes, neighbours of different parts.

    ``holdout``: the four parts, one after the other. ``walk_forward``: the test part is cut into ``folds`` intervals of
    equal length, and fold k is the holdout moved forward by k of them; the training part starts at the first candle
    (``expanding``) or moves too (``rolling``). ``combinatorial``: time is cut into ``folds`` groups, of which every
    choice of ``test_groups`` is one fold; the rest of time is cut into train, stop and calibrate in proportion to
    ``split_shares`` (López de Prado, *Advances in Financial Machine Learning*, 2018, section 12.3). Raises as
    `split_boundaries`.
    """
    first, last = _covered_time(market, data.bar)
    if data.split == "combinatorial":
        return _combinatorial(first, last, data)
    borders = split_boundaries(market, data)
    folds = data.folds if data.split == "walk_forward" else 1
    shifts = [(number * (last - borders[2]) / folds).floor(data.bar) for number in range(folds)]
    shift = shifts[data.fold]
    start = first + shift if data.fold_window == "rolling" else first
    end = borders[2] + shifts[data.fold + 1] if data.fold + 1 < folds else last
    marks = [start, *(border + shift for border in borders), end]
    return [Span(part, *pair) for part, pair in zip(PARTS, pairwise(marks), strict=True)]


def _combinatorial(first: pd.Timestamp, last: pd.Timestamp, data: DataConfig) -> list[Span]:
    edges = [(first + number * (last - first) / data.folds).floor(data.bar) for number in range(data.folds)] + [last]
    groups = list(pairwise(edges))
    tested = list(combinations(range(data.folds), data.test_groups))[data.fold]
    rest = sum((end - start for number, (start, end) in enumerate(groups) if number not in tested), pd.Timedelta(0))
    shares = np.cumsum(data.split_shares[:2]) / sum(data.split_shares[:3])
    cuts = [(share * rest).floor(data.bar) for share in shares]  # ends of train and stop on the clock of the rest
    spans, passed = [], pd.Timedelta(0)
    for number, (start, end) in enumerate(groups):
        if number in tested:
            spans.append(Span("test", start, end))
            continue
        marks = [start, *(min(max(start + cut - passed, start), end) for cut in cuts), end]
        spans += [Span(part, *pair) for part, pair in zip(PARTS[:3], pairwise(marks), strict=True) if pair[0] < pair[1]]
        passed += end - start
    merged = [list(same) for _, same in groupby(spans, key=lambda span: span.part)]
    return [Span(same[0].part, same[0].start, same[-1].end) for same in merged]


def assign_parts(close_time: pd.Series, label_end: pd.Series, input_start: pd.Series, spans: list[Span]) -> np.ndarray:
    """Part of every sample, by when it and its label are known (NaT: no label) and its oldest candle opens, (N,) each.

    One of `PARTS`; ``"purged"``: the label ends inside the next part; ``"embargo"``: the inputs reach back into a part
    of higher order; ``"outside"``: in no span; ``"unlabelled"``. As in López de Prado (2018), section 7.4, except that
    the embargo is not a share of time but what the inputs of a sample read: no more is needed, and no less is safe.
    """
    close, end_of_label = pd.DatetimeIndex(close_time), pd.DatetimeIndex(label_end)
    number = pd.DatetimeIndex([span.start for span in spans]).searchsorted(close, side="right") - 1
    ends = pd.DatetimeIndex([span.end for span in spans])
    parts = np.array([span.part for span in spans], dtype=object)[number]
    # Before the end of the last earlier span of a part of higher order, no input may reach back.
    order = PARTS.index
    ahead = [[s.end for s in spans[:n] if order(s.part) > order(span.part)] for n, span in enumerate(spans)]
    ahead_until = pd.DatetimeIndex([max(ends_ahead, default=EARLIEST) for ends_ahead in ahead])
    parts[pd.DatetimeIndex(input_start) < ahead_until.take(number)] = "embargo"
    parts[(end_of_label > ends.take(number)) & (number < len(spans) - 1)] = "purged"
    parts[(number < 0) | (close >= ends[-1])] = "outside"
    parts[end_of_label.isna()] = "unlabelled"
    return parts


def fold_stretches(market: Market, samples: pd.DataFrame, data: DataConfig) -> pd.DataFrame:
    """What becomes of time in every fold: a row per stretch of labelled samples that share their part.

    Columns ``fold``, ``part``, ``start``, ``end`` (close of the first and end of the last; the next one starts there).
    """
    moments = samples.dropna(subset="label_end").drop_duplicates("close_time").sort_values("close_time")
    close = pd.DatetimeIndex(moments["close_time"])
    frames = []
    for fold in range(data.fold_count):
        spans = split_spans(market, data.model_copy(update={"fold": fold}))
        part = assign_parts(moments["close_time"], moments["label_end"], moments["input_start"], spans)
        first = np.flatnonzero(np.append(True, part[1:] != part[:-1]))
        start = close.take(first)
        end = start[1:].append(close[-1:])
        frames.append(pd.DataFrame({"fold": fold, "part": part[first], "start": start, "end": end}))
    return pd.concat(frames, ignore_index=True)
