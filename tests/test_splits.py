"""No part knows a part it must not know, whatever calendar, horizon and fold; and no other row is lost."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.data.splits import PARTS, Span, assign_parts, split_boundaries, split_spans

HOUR = pd.Timedelta("1h")
SHARES = [0.5, 0.125, 0.125, 0.25]
ORDER = {part: number for number, part in enumerate(PARTS)}


def calendar(rows, start="2025-01-01", missing=()):
    index = pd.date_range(start, periods=rows, freq="h", tz="UTC")
    return pd.DataFrame(index=index.delete(list(missing)))


def split_config(**data):
    return load_config(changes={"data": {"timeframe": "1h", **data}}).data


def spans_of(market, **data):
    return split_spans(market, split_config(**data))


@st.composite
def splits(draw):
    """Samples of two symbols over calendars with gaps, and a split of any kind over them."""
    lengths = draw(st.tuples(st.integers(250, 600), st.integers(100, 600)))
    market = {
        name: calendar(rows, f"2025-01-0{day}", draw(st.sets(st.integers(1, rows - 2), max_size=20)))
        for name, rows, day in zip("AB", lengths, (1, draw(st.integers(1, 9))), strict=True)
    }
    kind = draw(st.sampled_from(["holdout", "walk_forward", "combinatorial"]))
    folds = 1 if kind == "holdout" else draw(st.integers(2, 6))
    keys = {"split": kind, "folds": folds, "fold_window": draw(st.sampled_from(["expanding", "rolling"]))}
    keys["test_groups"] = draw(st.integers(1, folds - 1)) if kind == "combinatorial" else 1
    keys["fold"] = draw(st.integers(0, split_config(**keys).fold_count - 1))
    horizon = draw(st.integers(1, 30))
    samples = pd.concat(pd.DataFrame({"close_time": c.index + HOUR}) for c in market.values()).reset_index(drop=True)
    samples["label_end"] = samples["close_time"] + horizon * HOUR
    samples.loc[sorted(draw(st.sets(st.integers(0, len(samples) - 1), max_size=9))), "label_end"] = pd.NaT
    return samples, spans_of(market, **keys), draw(st.integers(1, 60)) * HOUR


def leaks(samples, spans, look_back):
    """Rows whose label reaches into the next part, and rows whose inputs reach back into a part of higher order."""
    label, inputs = 0, 0
    order = samples["part"].map(ORDER)  # NaN for rows that are left out
    for span in spans:
        label += (order.notna() & (samples["close_time"] < span.start) & (samples["label_end"] > span.start)).sum()
        reaches_back = (samples["close_time"] >= span.end) & (samples["close_time"] - look_back < span.end)
        inputs += (reaches_back & (order < ORDER[span.part])).sum()
    return label, inputs


@given(splits())
def test_no_part_knows_what_it_must_not(split):
    samples, spans, look_back = split
    samples["part"] = assign_parts(
        samples["close_time"], samples["label_end"], samples["close_time"] - look_back, spans
    )
    assert leaks(samples, spans, look_back) == (0, 0)


def ahead_of(span, spans):
    """Spans before this one that it must not know."""
    return [other for other in spans if other.end <= span.start and ORDER[other.part] > ORDER[span.part]]


@given(splits())
def test_every_other_row_is_used(split):
    samples, spans, look_back = split
    part = assign_parts(samples["close_time"], samples["label_end"], samples["close_time"] - look_back, spans)
    for row, found in zip(samples.itertuples(), part, strict=True):
        span = next((s for s in spans if s.start <= row.close_time < s.end), None)
        if pd.isna(row.label_end):
            expected = "unlabelled"
        elif span is None:
            expected = "outside"
        elif row.label_end > span.end and span is not spans[-1]:
            expected = "purged"
        elif any(other.end > row.close_time - look_back for other in ahead_of(span, spans)):
            expected = "embargo"
        else:
            expected = span.part
        assert found == expected


def test_the_property_fails_without_purge_and_without_embargo():
    """The tests above can fail: with nothing left out, both kinds of leak are seen."""
    market = {"A": calendar(400)}
    spans = spans_of(market, split="combinatorial", folds=4, test_groups=1, fold=1)
    close = pd.Series(market["A"].index + HOUR)
    samples = pd.DataFrame({"close_time": close, "label_end": close + 5 * HOUR})
    nothing = assign_parts(close, close, close, spans)  # labels of length 0, inputs of length 0
    no_purge = assign_parts(close, close, close - 20 * HOUR, spans)
    no_embargo = assign_parts(close, samples["label_end"], close, spans)
    counts = [leaks(samples.assign(part=part), spans, 20 * HOUR) for part in (nothing, no_purge, no_embargo)]
    # Four borders, four rows each; behind the test group the training rows of one look-back.
    assert counts == [(16, 20), (16, 0), (0, 20)]


def test_parts_at_the_boundary():
    times = pd.Series(pd.date_range("2025-01-01", periods=6, freq="h", tz="UTC"))
    ends = times + 2 * HOUR
    ends.iloc[4] = pd.NaT
    marks = [*times.iloc[[0, 2, 3, 4]], times.iloc[5]]
    spans = [Span(part, marks[i], marks[i + 1]) for i, part in enumerate(PARTS)]
    found = list(assign_parts(times, ends, times - HOUR, spans))
    assert found == ["train", "purged", "purged", "purged", "unlabelled", "outside"]


def test_holdout_is_four_spans_of_the_shares():
    spans = spans_of({"A": calendar(160), "B": calendar(60)}, split_shares=SHARES)
    assert [span.part for span in spans] == list(PARTS)
    assert [(span.end - span.start) / HOUR for span in spans] == [80, 20, 20, 40]


@pytest.mark.parametrize(("window", "train"), [("expanding", [80, 90, 100, 110]), ("rolling", [80, 80, 80, 80])])
def test_walk_forward_tests_the_last_part_of_time_once(window, train):
    market = {"A": calendar(160)}
    folds = [spans_of(market, split="walk_forward", fold=k, fold_window=window, split_shares=SHARES) for k in range(4)]
    assert [[(span.end - span.start) / HOUR for span in spans] for spans in folds] == [[n, 20, 20, 10] for n in train]
    tests = [spans[-1] for spans in folds]
    assert tests[0].start == market["A"].index[120] and tests[-1].end == market["A"].index[-1] + HOUR
    assert all(a.end == b.start for a, b in pairwise(tests))
    assert all(span.start == market["A"].index[0] for span in (spans[0] for spans in folds)) == (window == "expanding")


def test_walk_forward_with_one_fold_is_the_holdout():
    market = {"A": calendar(333)}
    assert spans_of(market, split="walk_forward", folds=1) == spans_of(market)


def test_walk_forward_starts_where_the_dates_say():
    dates = ["2025-01-05 00:30", "2025-01-06", "2025-01-07"]
    spans = spans_of({"A": calendar(24 * 8)}, split="walk_forward", folds=2, fold=1, split_dates=dates)
    assert [span.start for span in spans[1:]] == [pd.Timestamp(d, tz="UTC") + 24 * HOUR for d in dates]


def test_combinatorial_tests_every_choice_of_groups():
    market = {"A": calendar(120)}
    keys = {"split": "combinatorial", "folds": 4, "test_groups": 2, "split_shares": [0.4, 0.1, 0.1, 0.4]}
    folds = [spans_of(market, fold=k, **keys) for k in range(6)]
    shape = [[(span.part, (span.end - span.start) / HOUR) for span in spans] for spans in folds]
    assert shape[0] == [("test", 60), ("train", 40), ("stop", 10), ("calibrate", 10)]
    assert shape[1] == [("test", 30), ("train", 30), ("test", 30), ("train", 10), ("stop", 10), ("calibrate", 10)]
    assert shape[5] == [("train", 40), ("stop", 10), ("calibrate", 10), ("test", 60)]
    tested = np.zeros(120, int)
    for spans in folds:
        for span in spans:
            hours = [int((t - market["A"].index[0]) / HOUR) for t in span[1:]]
            tested[slice(*hours)] += span.part == "test"
    assert (tested == 3).all(), "each group is in the test part of C(3, 1) folds"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"split": "walk_forward", "fold": 4}, "fold 4 does not exist: split walk_forward has the folds 0 to 3"),
        ({"fold": 1}, "fold 1 does not exist: split holdout"),
        ({"split": "combinatorial", "fold": 6}, "the folds 0 to 5"),
        ({"split": "combinatorial", "folds": 2}, "test_groups 2 must be below folds 2"),
        ({"split": "combinatorial", "split_dates": ["2025-01-02", "2025-01-03", "2025-01-04"]}, "use split_shares"),
    ],
)
def test_impossible_folds_are_errors(data, message):
    with pytest.raises(CmatError, match=message):
        split_config(**data)


def test_split_dates_outside_the_candles_are_an_error():
    data = split_config(split_dates=["2025-01-05", "2025-01-06", "2026-01-01"])
    with pytest.raises(CmatError, match="must lie inside the candles"):
        split_boundaries({"A": calendar(700)}, data)
