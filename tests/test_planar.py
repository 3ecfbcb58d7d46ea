"""Exact planar Rips persistence against giotto-tda, and against the textbook reduction on small clouds full of ties."""

import subprocess
import sys
import threading
import time
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import pdist

from cmat_lib.tda import filling, planar, sliding
from cmat_lib.tda.persistence import diagrams_batch, rips_diagrams
from cmat_lib.tda.planar import planar_loops
from cmat_lib.tda.point_cloud import takens_embedding

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
FLOAT32 = 2e-7  # the reference works in float32: relative error of its lengths


def textbook_rips(points: np.ndarray) -> list[np.ndarray]:
    """H0 and H1 by reduction of the full boundary matrix (Edelsbrunner and Harer 2010, chapter VII.1), float64."""
    points = np.unique(points, axis=0)
    number = len(points)
    delta = points[:, None] - points[None]  # (P, P, 2)
    length = np.sqrt(delta[..., 0] ** 2 + delta[..., 1] ** 2)
    simplices = [(v,) for v in range(number)]
    simplices += list(combinations(range(number), 2)) + list(combinations(range(number), 3))
    value = {s: max((length[a, b] for a, b in combinations(s, 2)), default=0.0) for s in simplices}
    simplices.sort(key=lambda s: (value[s], len(s), s))
    position = {s: i for i, s in enumerate(simplices)}
    owner: dict[int, set[int]] = {}
    bars: list[list[tuple[float, float]]] = [[], []]
    for simplex in simplices[1:]:
        column = {position[face] for face in combinations(simplex, len(simplex) - 1)} if len(simplex) > 1 else set()
        while column and max(column) in owner:
            column ^= owner[max(column)]
        if column:
            owner[max(column)] = column
            birth, death = value[simplices[max(column)]], value[simplex]
            if death > birth:
                bars[len(simplex) - 2].append((birth, death))
    return [np.array(b).reshape(-1, 2) for b in bars]


def rounding(points: np.ndarray) -> float:
    """How far a bar may move: not at all, but for the last bit, unless points are closer than 2**-43 of the extent."""
    extent = np.ptp(points, axis=0).max() if len(points) else 0.0
    distances = pdist(np.unique(points, axis=0))
    return (3 * 2.0**-44 if distances.min(initial=np.inf) < 2.0**-43 * extent else 1e-15) * extent


def in_order(bars: np.ndarray) -> np.ndarray:
    return bars[np.lexsort(bars.T)]


def assert_same_bars(bars: np.ndarray, expected: np.ndarray, rtol: float = 1e-12) -> None:
    """Equal as multisets, number of bars included."""
    assert bars.shape == expected.shape
    np.testing.assert_allclose(in_order(bars), in_order(expected), rtol=rtol, atol=0)


def assert_bottleneck(bars: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Bottleneck distance at most `tolerance`: an assignment exists in which no pair, or bar left alone, exceeds it."""
    n, m = len(bars), len(expected)
    cost = np.zeros((n + m, m + n))
    cost[:n, :m] = np.abs(bars[:, None] - expected[None]).max(axis=2)
    cost[:n, m:] = (bars[:, 1] - bars[:, 0])[:, None] / 2
    cost[n:, :m] = (expected[:, 1] - expected[:, 0])[None] / 2
    excess = np.maximum(cost - tolerance, 0.0)
    assert excess[linear_sum_assignment(excess)].max(initial=0.0) == 0.0


def assert_equals_giotto(points: np.ndarray, tolerance: float) -> None:
    """H0 by sorted deaths (short bars may be missing in float32), H1 by bottleneck distance; `tolerance` absolute."""
    (h0, h1), (expected0, expected1) = rips_diagrams(points), rips_diagrams(points, engine="giotto")
    deaths = np.zeros((2, len(points)))
    deaths[0, : len(h0)], deaths[1, : len(expected0)] = h0[:, 1], expected0[:, 1]
    assert np.abs(np.sort(deaths[0]) - np.sort(deaths[1])).max(initial=0.0) <= tolerance
    assert not h0[:, 0].any()
    assert_bottleneck(h1, expected1, tolerance)


def circle(rng: np.random.Generator, number: int) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi, number)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def grid(columns: int, rows: int) -> np.ndarray:
    return np.argwhere(np.ones((columns, rows))).astype(float)


def hexagonal(columns: int, rows: int) -> np.ndarray:
    return grid(columns, rows) @ np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]])


CLOUDS = {
    "walk": lambda rng, p: rng.normal(size=(p, 2)).cumsum(axis=0),
    "takens_walk": lambda rng, p: takens_embedding(rng.normal(size=(1, p + 12)).cumsum(axis=1), 2, 12)[0],
    "takens_ticks": lambda rng, p: takens_embedding(rng.integers(-2, 3, (1, p + 12)).cumsum(axis=1) * 0.1, 2, 12)[0],
    "uniform": lambda rng, p: rng.random((p, 2)),
    "circle": lambda rng, p: circle(rng, p),
    "regular_polygon": lambda rng, p: np.exp(2j * np.pi * np.arange(p) / p).view(float).reshape(p, 2),
    "noisy_circle": lambda rng, p: circle(rng, p) + 0.1 * rng.normal(size=(p, 2)),
    "two_circles": lambda rng, p: np.concatenate([circle(rng, p // 2), 2 * circle(rng, p - p // 2) + [2.5, 0]]),
    "grid": lambda rng, p: grid(p // 12, 12),
    "rounded_grid": lambda rng, p: grid(p // 12, 12) * 0.1 + 11.5,
    "holed_grid": lambda rng, p: rng.permutation(grid(14, 14))[:p],
    "hexagonal": lambda rng, p: hexagonal(p // 12, 12),
    "clusters": lambda rng, p: rng.normal(size=(6, 2))[rng.integers(0, 6, p)] + 0.02 * rng.normal(size=(p, 2)),
    "line": lambda rng, p: rng.random((p, 1)) * [[3.0, 4.0]],
    "almost_line": lambda rng, p: np.column_stack([rng.random(p), 1e-9 * rng.random(p)]),
    "two_lines": lambda rng, p: np.column_stack([rng.random(p), 0.3 * rng.integers(0, 2, p)]),
    "duplicates": lambda rng, p: rng.random((p // 3, 2))[rng.integers(0, p // 3, p)],
    "almost_duplicates": lambda rng, p: (
        rng.random((p // 3, 2))[rng.integers(0, p // 3, p)] + 1e-15 * rng.random((p, 2))
    ),
}


def real_clouds(folder, per_symbol: int, seed: int) -> list[np.ndarray]:
    """Takens clouds (660, 2) of 672 log closes at random places of each symbol."""
    rng, clouds = np.random.default_rng(seed), []
    for symbol in SYMBOLS:
        close = pd.read_parquet(folder / f"{symbol}_15m.parquet", columns=["close"])["close"].to_numpy(np.float64)
        starts = rng.integers(0, len(close) - 672, per_symbol)
        windows = np.log(np.stack([close[start : start + 672] for start in starts]))  # (N, 672)
        clouds += list(takens_embedding(windows, 2, 12))
    return clouds


def test_known_diagrams():
    rectangle = rips_diagrams([[0, 0], [3, 0], [3, 4], [0, 4]])
    np.testing.assert_array_equal(rectangle[0], [[0, 3], [0, 3], [0, 4]])
    np.testing.assert_array_equal(rectangle[1], [[4, 5]])
    hexagon = np.exp(1j * np.pi * np.arange(6) / 3).view(float).reshape(6, 2)
    h0, h1 = rips_diagrams(hexagon)
    np.testing.assert_allclose(h0[h0[:, 1] > 0.5], [[0, 1]] * 5, rtol=1e-12)
    np.testing.assert_allclose(h1[h1[:, 1] - h1[:, 0] > 1e-9], [[1, np.sqrt(3)]], rtol=1e-12)


@settings(max_examples=150, deadline=None)
@given(arrays(np.int64, st.tuples(st.integers(1, 13), st.just(2)), elements=st.integers(0, 4)))
def test_ties_and_duplicates_equal_the_textbook(points):
    for bars, expected in zip(rips_diagrams(points), textbook_rips(points.astype(float)), strict=True):
        assert_same_bars(bars, expected)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 14), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-3, 1e-9, 1e-14, 3e-16]))
def test_perturbed_lattice_equals_the_textbook(number, seed, noise):
    """Ties split by rounding, where a decision taken from geometry could contradict the order of computed lengths."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 4, (number, 2)) * 0.1 + noise * rng.normal(size=(number, 2))
    for bars, expected in zip(rips_diagrams(points), textbook_rips(points), strict=True):
        assert_bottleneck(bars, expected, rounding(points))


@pytest.mark.parametrize("height", 1 - np.sqrt(0.75) + np.array([-1e-2, -1e-3, -1e-6, 1e-6, 1e-3, 1e-2]))
def test_lune_near_the_limit_of_150_degrees(height):
    """A point over the middle of an edge and one near its lune's far apex, just within or beyond d of each other."""
    depth = np.sqrt(0.75) - min(1e-3, abs(height - 1 + np.sqrt(0.75)) / 2)
    lune = np.array([[-0.5, 0], [0.5, 0], [0, height], [0, -depth]])
    for angle in np.arange(8):
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        (h0, h1), (expected0, expected1) = rips_diagrams(lune @ turn), textbook_rips(lune @ turn)
        assert_bottleneck(h0, expected0, 1e-15)
        assert_bottleneck(h1, expected1, 1e-15)
        assert (np.ptp(h1, axis=1) > 1e-7).sum() == (height + depth > 1)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CLOUDS)
def test_synthetic_clouds_equal_giotto(name, seed):
    points = CLOUDS[name](np.random.default_rng(seed), 144)
    assert_equals_giotto(points, FLOAT32 * np.ptp(points, axis=0).max() * np.sqrt(2))


def test_real_windows_equal_giotto(real_candles):
    for points in real_clouds(real_candles, per_symbol=6, seed=0):
        assert_equals_giotto(points, 1e-6 * points[:, 0].std())


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(CLOUDS)), st.integers(0, 2**32 - 1), st.floats(1e-100, 1e100))
def test_order_and_scale_do_not_matter(name, seed, factor):
    rng = np.random.default_rng(seed)
    points = CLOUDS[name](rng, 96)
    tolerance = max(1e-15 * np.abs(points).max(), rounding(points))
    for bars, shuffled, scaled in zip(
        rips_diagrams(points), rips_diagrams(rng.permutation(points)), rips_diagrams(points * factor), strict=True
    ):
        np.testing.assert_array_equal(bars, shuffled)
        assert_bottleneck(bars, scaled / factor, 4 * tolerance)


@pytest.mark.parametrize("number", [0, 1])
def test_too_few_points_have_no_bars(number):
    h0, h1 = rips_diagrams(np.full((number, 2), 11.5))
    assert h0.shape == h1.shape == (0, 2)
    assert h0.dtype == h1.dtype == np.float64


def test_few_points():
    np.testing.assert_array_equal(rips_diagrams([[0, 0], [3, 4]])[0], [[0, 5]])
    np.testing.assert_array_equal(rips_diagrams([[0, 0], [3, 4], [0, 0]])[0], [[0, 5]])
    h0, h1 = rips_diagrams([[0, 0], [3, 4], [3, 0]])
    np.testing.assert_array_equal(h0, [[0, 3], [0, 4]])
    assert len(h1) == 0


def test_constant_prices_and_lines():
    assert [len(bars) for bars in rips_diagrams(np.full((660, 2), 11.5))] == [0, 0]
    position = np.array([0.0, 5.0, 1.0, 2.5])
    h0, h1 = rips_diagrams(np.column_stack([3 * position, 4 * position]))
    np.testing.assert_array_equal(h0, [[0, 5], [0, 7.5], [0, 12.5]])
    assert len(h1) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e151])
def test_unusable_coordinate_names_the_row(bad):
    clouds = np.zeros((3, 8, 2))
    clouds[1, 6, 1] = bad
    with pytest.raises(ValueError, match="cloud 1, row 6"):
        diagrams_batch(clouds)
    with pytest.raises(ValueError, match="row 6"):
        rips_diagrams(clouds[1])


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"\(N, P, 2\), got \(1, 5, 3\)"):
        planar_loops(np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"\(N, P, d\), got \(5, 2\)"):
        diagrams_batch(np.zeros((5, 2)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_equals_single_clouds(dtype):
    rng = np.random.default_rng(3)
    names = ["walk", "line", "duplicates", "grid", "circle", "walk"]
    clouds = np.stack([CLOUDS[name](rng, 60) for name in names]).astype(dtype)
    for dimension, (bars, offsets) in enumerate(diagrams_batch(clouds)):
        assert bars.dtype == np.float64 and len(offsets) == len(clouds) + 1 and offsets[-1] == len(bars)
        for i, cloud in enumerate(clouds):
            alone = rips_diagrams(cloud.astype(np.float64))[dimension]
            np.testing.assert_array_equal(bars[offsets[i] : offsets[i + 1]], alone)


def test_empty_batches():
    for shape in [(0, 5, 2), (3, 0, 2), (0, 0, 2)]:
        for bars, offsets in diagrams_batch(np.empty(shape)):
            assert bars.shape == (0, 2)
            np.testing.assert_array_equal(offsets, np.zeros(shape[0] + 1))


def test_kernels_are_compiled_again_when_those_they_call_change():
    """numba's cache looks at a kernel's own file only: the line in that file must follow the files it builds on."""
    for module, sources in ((planar, [filling]), (sliding, [filling, planar])):
        content = b"".join(Path(source.__file__).read_bytes() for source in sources)
        assert sha256(content).hexdigest()[:16] == module.BUILT_ON, module.__name__


def test_gil_is_released():
    clouds = np.stack([CLOUDS["walk"](np.random.default_rng(i), 660) for i in range(40)])
    worker = threading.Thread(target=diagrams_batch, args=(clouds,))
    ticks = 0
    worker.start()
    while worker.is_alive():
        time.sleep(0.002)
        ticks += 1
    assert ticks > 10  # with the GIL held, this thread would wake up once


@pytest.mark.long
def test_2000_real_windows_equal_giotto(real_candles):
    for points in real_clouds(real_candles, per_symbol=500, seed=1):
        assert_equals_giotto(points, 1e-6 * points[:, 0].std())


@pytest.mark.long
@pytest.mark.parametrize("name", CLOUDS)
def test_2000_small_clouds_equal_the_textbook(name):
    """The same bars, and exactly, where no points are so close that they are rounded."""
    rng = np.random.default_rng(11)
    for _ in range(112):  # 18 kinds
        points = CLOUDS[name](rng, 144)[rng.permutation(132)[: rng.integers(2, 15)]]
        close = rounding(points) > 1e-15 * np.ptp(points, axis=0).max()
        for bars, expected in zip(rips_diagrams(points), textbook_rips(points), strict=True):
            if close:
                assert_bottleneck(bars, expected, rounding(points))
            else:
                np.testing.assert_array_equal(in_order(bars), in_order(expected))


@pytest.mark.long
@pytest.mark.parametrize("name", CLOUDS)
def test_500_synthetic_clouds_equal_giotto(name):
    rng = np.random.default_rng(7)
    for _ in range(28):  # 18 kinds
        points = CLOUDS[name](rng, int(rng.integers(24, 192)))
        assert_equals_giotto(points, FLOAT32 * np.ptp(points, axis=0).max() * np.sqrt(2))


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("kind", ["walk", "circle", "uniform"])
def test_10000_points_within_a_gigabyte(kind):
    code = (
        "import numpy as np; from cmat_lib.tda import rips_diagrams; rng = np.random.default_rng(0);"
        f"angle = rng.uniform(0, 2 * np.pi, 10_000); kind = {kind!r};"
        "clouds = {'walk': rng.normal(size=(10_000, 2)).cumsum(axis=0), 'uniform': rng.random((10_000, 2)),"
        "'circle': np.column_stack([np.cos(angle), np.sin(angle)])};"
        "h0, h1 = rips_diagrams(clouds[kind]); assert len(h0) == 9_999 and len(h1) > (0 if kind == 'circle' else 1000);"
        "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )  # rusage would count what this process, from which it is forked, holds
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 50e6 < int(out.stdout) * 1024 < 1e9


# -- the fillings of faces ---------------------------------------------------------------------------------------------


def textbook_filling(points: np.ndarray) -> float:
    """Klincsek's programme over the whole table, one minimum at a time."""
    count, (x, y) = len(points), points.T
    d2 = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    best = np.zeros((count, count))
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            cuts = np.maximum(best[i, i + 1 : j], best[i + 1 : j, j])
            best[i, j] = max(d2[i, j], cuts.min(initial=np.inf)) if length > 1 else d2[i, j]
    return best[0, -1]


def closed_walks(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    around = np.column_stack([np.cos(angle), np.sin(angle)])
    there = np.cumsum(rng.normal(size=(count // 2 + 1, 2)), axis=0)
    return {
        "circle": around,
        "star": around * (1 + 0.5 * np.sin(5 * angle))[:, None],
        "noisy circle": around * (1 + 0.05 * rng.normal(size=(count, 1))),
        "there and back": np.concatenate([there, there[::-1]])[:count],
        "anything": rng.random((count, 2)),
        "ties": rng.integers(0, 6, (count, 2)).astype(float),
    }


@pytest.mark.parametrize("count", [3, 4, 5, 17, filling.SHORT, filling.SHORT + 1, 90, 131])
def test_filling_of_a_walk_equals_the_textbook(count):
    """Exactly: both are one of the squared distances."""
    for name, walk in closed_walks(np.random.default_rng(count), count).items():
        assert filling.filling(*np.ascontiguousarray(walk.T)) == textbook_filling(walk), name


# -- loops -------------------------------------------------------------------------------------------------------------


def test_loop_of_a_square():
    (loop,) = planar_loops([[0, 0], [9, 9], [3, 0], [3, 4], [0, 4], [0, 0]])
    assert (loop.birth, loop.death) == (4, 5)
    assert sorted(loop.points) == [0, 2, 3, 4] and sorted(loop.killer) in ([0, 3], [2, 4])


@pytest.mark.parametrize("name", CLOUDS)
def test_loops_are_walks_that_are_filled_when_their_bar_ends(name):
    points = CLOUDS[name](np.random.default_rng(2), 96)
    loops, (_, bars) = planar_loops(points), rips_diagrams(points)
    np.testing.assert_array_equal([loop[:2] for loop in loops] or np.empty((0, 2)), bars)
    for loop in loops:
        walk, scale = points[loop.points], np.ptp(points)
        sides = np.linalg.norm(walk - np.roll(walk, 1, axis=0), axis=1)
        assert sides.max() < loop.death and set(loop.killer) <= set(loop.points)
        assert abs(np.linalg.norm(np.subtract(*points[list(loop.killer)])) - loop.death) <= 1e-12 * scale
        assert abs(np.sqrt(textbook_filling(walk)) - loop.death) <= 1e-12 * scale


def test_cloud_without_loops():
    assert planar_loops(np.empty((0, 2))) == planar_loops([[0, 0]]) == planar_loops([[0, 0], [1, 1], [2, 2]]) == []
