"""Windows that slide against the same windows from scratch: equal to the last bit, however one came there."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from cmat_lib.tda import SlidingRips, rips_diagrams, sliding_diagrams, takens_embedding
from cmat_lib.tda.persistence import diagrams_batch
from cmat_lib.tda.sliding import RELOAD, path_diagrams

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")


def smooth(rng: np.random.Generator, length: int, width: int) -> np.ndarray:
    return np.convolve(rng.normal(size=length + width - 1).cumsum(), np.ones(width) / width, "valid")


SERIES = {
    "walk": lambda rng, n: rng.normal(size=n).cumsum(),
    "noise": lambda rng, n: rng.normal(size=n),
    "integers": lambda rng, n: rng.integers(-2, 3, n).cumsum().astype(float),
    "coins": lambda rng, n: rng.integers(0, 2, n).astype(float),
    "ticks": lambda rng, n: np.log(np.round(20 + 0.3 * rng.normal(size=n).cumsum().clip(-30, 30), 1)),
    "plateaus": lambda rng, n: np.repeat(rng.normal(size=n // 7 + 1).cumsum(), 7)[:n],
    "flat, then not": lambda rng, n: np.concatenate([np.full(n // 2, 11.5), rng.normal(size=n - n // 2).cumsum()]),
    "one jump": lambda rng, n: np.where(np.arange(n) < n // 2, 1.0, 2.0),
    "sine": lambda rng, n: np.sin(np.arange(n) / 9),
    "trend": lambda rng, n: np.arange(n) * 0.1,
    "smooth walk": lambda rng, n: smooth(rng, n, 20),
    "ulp noise": lambda rng, n: np.round(rng.normal(size=n).cumsum()) + 1e-15 * rng.normal(size=n),
    "zeros of both signs": lambda rng, n: rng.integers(0, 2, n) * np.where(rng.random(n) < 0.5, -0.0, 1.0),
    "tiny": lambda rng, n: 1e-170 * rng.normal(size=n).cumsum(),
    "huge": lambda rng, n: 1e140 * rng.normal(size=n).cumsum(),
}


def scratch(series: np.ndarray, window: int, delay: int, stride: int = 1) -> list[list[np.ndarray]]:
    clouds = takens_embedding(sliding_window_view(series, window)[::stride], 2, delay)
    h0, h1 = diagrams_batch(clouds)
    return [[d.bars[d.offsets[w] : d.offsets[w + 1]] for d in (h0, h1)] for w in range(len(clouds))]


def assert_identical(diagrams, expected) -> None:
    assert len(diagrams) == len(expected)
    for number, (own, other) in enumerate(zip(diagrams, expected, strict=True)):
        for bars, others in zip(own, other, strict=True):
            assert bars.tobytes() == others.tobytes() and bars.shape == others.shape, f"window {number}"


@pytest.mark.parametrize("stride", [1, 3, 10, 60])
@pytest.mark.parametrize("name", SERIES)
def test_sliding_equals_scratch(name, stride):
    series = SERIES[name](np.random.default_rng(stride), 420)
    expected = scratch(series, 140, 6, stride)
    assert_identical(list(sliding_diagrams(series, 140, 6, stride)), expected)
    assert sum(len(h1) for _, h1 in expected) > 0 or name in ("flat, then not", "one jump", "trend", "coins")


@pytest.mark.parametrize("delay", [1, 40, 138])
def test_few_points_and_many(delay):
    series = SERIES["ticks"](np.random.default_rng(0), 300)
    assert_identical(list(sliding_diagrams(series, 139, delay)), scratch(series, 139, delay))


def test_real_windows_slide_as_from_scratch(real_candles):
    for symbol in SYMBOLS:
        close = pd.read_parquet(real_candles / f"{symbol}_15m.parquet", columns=["close"])["close"]
        series = np.log(close.to_numpy(np.float64)[9000 : 9000 + 672 + 300])
        assert_identical(list(sliding_diagrams(series, 672, 12)), scratch(series, 672, 12))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SERIES)), st.integers(0, 2**32 - 1), st.data())
def test_history_does_not_matter(name, seed, data):
    """Whatever was appended, dropped and read before: the same window has the same bytes."""
    series, window, done, first = SERIES[name](np.random.default_rng(seed), 400), SlidingRips(delay=5), 0, 0
    for _ in range(data.draw(st.integers(1, 12))):
        count = data.draw(st.integers(0, min(40, len(series) - done)))
        window.append(series[done : done + count])
        done += count
        count = data.draw(st.integers(0, done - first))
        window.drop(count)
        first += count
        if data.draw(st.booleans()):
            assert_identical([window.diagram()], [rips_diagrams(cloud(series[first:done], 5))])
    assert len(window) == done - first
    assert_identical([window.diagram()], [rips_diagrams(cloud(series[first:done], 5))])


def cloud(values: np.ndarray, delay: int) -> np.ndarray:
    points = max(len(values) - delay, 0)
    return np.column_stack([values[:points], values[len(values) - points :]])


def test_windows_with_gaps_and_leaps_between_them():
    series = SERIES["walk"](np.random.default_rng(3), 1500)
    ends = np.concatenate(
        [[120], np.arange(200, 203), [400, 401, 700], np.arange(900, 1300, 120 // RELOAD + 1), [1499]]
    )
    expected, found = scratch(series, 120, 4), [None] * len(ends)
    for block, diagrams in path_diagrams(series, ends, 120, 4):
        for w in range(block.start, block.stop):
            own = w - block.start
            found[w] = [d.bars[d.offsets[own] : d.offsets[own + 1]] for d in diagrams]
    assert_identical(found, [expected[end - 119] for end in ends])


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(SERIES)), st.integers(0, 2**32 - 1), st.integers(-300, 300))
def test_powers_of_two_scale_bars_exactly(name, seed, exponent):
    series = SERIES[name](np.random.default_rng(seed), 150)
    if name in ("tiny", "huge"):
        exponent = 0
    scaled = [[np.ldexp(bars, exponent) for bars in own] for own in sliding_diagrams(series, 100, 5)]
    assert_identical(list(sliding_diagrams(np.ldexp(series, exponent), 100, 5)), scaled)


def test_unusable_input_is_named():
    series = np.zeros(50)
    series[31] = np.nan
    with pytest.raises(ValueError, match="value 31 of the series is nan"):
        list(sliding_diagrams(series, 20, 2))
    window = SlidingRips(delay=2)
    window.append(range(10))
    with pytest.raises(ValueError, match="value 1 of the series is inf"):
        window.append([1.0, np.inf])
    with pytest.raises(ValueError, match="11 values cannot be dropped: the window has 10"):
        window.drop(11)
    assert len(window) == 10
    for wrong in ({"window": 20, "delay": 0}, {"window": 20, "delay": 20}):
        with pytest.raises(ValueError, match="delay must be at least 1 and below the window"):
            list(sliding_diagrams(np.zeros(50), **wrong))
    with pytest.raises(ValueError, match="stride must be at least 1"):
        list(sliding_diagrams(np.zeros(50), 20, 2, stride=0))
    with pytest.raises(ValueError, match="reaches beyond the series"):
        list(path_diagrams(np.zeros(50), np.array([10]), 20, 2))
    with pytest.raises(ValueError, match="delay must be at least 1"):
        SlidingRips(delay=0)


def test_a_series_shorter_than_the_window_has_no_diagrams():
    assert list(sliding_diagrams(np.zeros(10), 20, 2)) == []
    assert [len(bars) for bars in SlidingRips(delay=3).diagram()] == [0, 0]


@pytest.mark.long
def test_100000_consecutive_real_windows(real_candles):
    for symbol in SYMBOLS:
        close = pd.read_parquet(real_candles / f"{symbol}_15m.parquet", columns=["close"])["close"]
        series = np.log(close.to_numpy(np.float64))
        assert len(series) - 671 > 25_000
        for first in range(0, len(series) - 671, 2048):
            part = series[first : first + 2048 + 671]
            assert_identical(list(sliding_diagrams(part, 672, 12)), scratch(part, 672, 12))


@pytest.mark.long
@pytest.mark.parametrize("name", SERIES)
def test_long_series_with_ties(name):
    for seed in range(12):
        series = SERIES[name](np.random.default_rng(100 + seed), 1200)
        window = 30 + 40 * seed
        assert_identical(list(sliding_diagrams(series, window, 1 + 2 * seed)), scratch(series, window, 1 + 2 * seed))
