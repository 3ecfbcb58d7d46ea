"""Persistence engines beside each other: the same windows, one thread, one run.

``python benchmarks/tda.py`` writes ``results/tda.md`` (tables) and ``results/tda.png`` (plot) beside this file. Real
windows are measured too if the environment variable CMAT_TEST_DATA names a folder of 15-minute candles.

The unit of a cloud is the standard deviation of its window (σ). A difference is the bottleneck distance to the diagram
of the planar engine, the largest over windows, in H0 and H1. ripser.py is measured if it is installed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from gph import ripser_parallel
from gtda.diagrams import PairwiseDistance
from gtda.homology import VietorisRipsPersistence
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from reporting import machine, markdown, say
from threadpoolctl import threadpool_limits

from cmat_lib.data.candles import load_market, window_ends
from cmat_lib.data.synthetic import synthetic_market
from cmat_lib.plots.style import PALETTE, use_style
from cmat_lib.schema import DataConfig, TdaConfig
from cmat_lib.tda import rips_diagrams, takens_embedding, tda_features

CONFIG = TdaConfig()
POINTS = (165, 330, 660, 1320, 2640)
REFERENCE = "giotto-tda"
WARM_UP = 2  # windows that are computed untimed first, so that no engine pays for loading
PACKAGES = ("cmat", "giotto-tda", "giotto-ph", "ripser", "numba", "numpy", "scipy")

Engine = Callable[[np.ndarray], list[np.ndarray]]


# -- engines -----------------------------------------------------------------------------------------------------------


def giotto_tda(cloud: np.ndarray) -> list[np.ndarray]:
    """`VietorisRipsPersistence` as its users call it; one diagram (n, 3) becomes H0 and H1."""
    diagram = VietorisRipsPersistence(homology_dimensions=(0, 1), n_jobs=1).fit_transform(cloud[None])[0]
    return [diagram[diagram[:, 2] == dimension, :2] for dimension in (0, 1)]


def giotto_ph(cloud: np.ndarray) -> list[np.ndarray]:
    """`ripser_parallel` on one thread."""
    return [bars[np.isfinite(bars[:, 1])] for bars in ripser_parallel(cloud, maxdim=1, n_threads=1)["dgms"]]


def engines() -> dict[str, Engine]:
    """Engines by name; ripser.py only where it is installed."""
    found: dict[str, Engine] = {
        "planar": lambda cloud: rips_diagrams(cloud, "planar"),
        "giotto-tda": giotto_tda,
        "giotto-ph": giotto_ph,
        "weak alpha": lambda cloud: rips_diagrams(cloud, "weak_alpha"),
    }
    try:
        from ripser import ripser
    except ImportError:
        return found
    return found | {"ripser.py": lambda cloud: [b[np.isfinite(b[:, 1])] for b in ripser(cloud, maxdim=1)["dgms"]]}


# -- windows -----------------------------------------------------------------------------------------------------------


def market_windows(market: dict[str, pd.DataFrame], rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Windows (N, W) of log closes at random moments, the symbols in turn."""
    windows, symbols = [], list(market)
    for number in range(count):
        candles = market[symbols[number % len(symbols)]]
        end = rng.choice(window_ends(candles, DataConfig().bar, width))
        windows.append(np.log(candles["close"].to_numpy()[end - width + 1 : end + 1]))
    return np.stack(windows)


def window_sources(seed: int) -> dict[str, Callable[[int, int], np.ndarray]]:
    """Functions ``(N, W) -> windows (N, W)`` by name; real candles only where they are."""
    rng = np.random.default_rng(seed)
    synthetic = synthetic_market(symbols=4, days=120, timeframe="15m", horizon=16, seed=seed)
    found = {
        "synthetic market": lambda count, width: market_windows(synthetic, rng, count, width),
        "random walk": lambda count, width: rng.normal(size=(count, width)).cumsum(axis=1),
    }
    if folder := os.environ.get("CMAT_TEST_DATA"):
        real = load_market(DataConfig(data_dir=folder))
        found = {"real candles": lambda count, width: market_windows(real, rng, count, width)} | found
    return found


def clouds_of(windows: np.ndarray) -> np.ndarray:
    """Takens clouds (N, P, 2) in σ."""
    windows = (windows - windows.mean(axis=1, keepdims=True)) / windows.std(axis=1, keepdims=True)
    return takens_embedding(windows, CONFIG.embedding_dim, CONFIG.time_delay)


def arc(rng: np.random.Generator, points: int, turn: float, noise: float) -> np.ndarray:
    """Points (P, 2) at random on an arc of the unit circle; `turn` and `noise` in radians and radii."""
    angle = rng.uniform(0, turn, points)
    return np.column_stack([np.cos(angle), np.sin(angle)]) + noise * rng.normal(size=(points, 2))


def hard_clouds(seed: int, count: int, points: int) -> dict[str, np.ndarray]:
    """Clouds (N, P, 2) on which the planar engine is at its worst, and how little noise ends that."""
    rng, turn = np.random.default_rng(seed), 2 * np.pi
    kinds = {
        "circle, noise 10 %": (turn, 0.1),
        "circle, noise 0.1 %": (turn, 0.001),
        "circle": (turn, 0.0),
        "half circle, noise 3 %": (turn / 2, 0.03),
        "half circle": (turn / 2, 0.0),
    }
    return {name: np.stack([arc(rng, points, *kind) for _ in range(count)]) for name, kind in kinds.items()}


# -- measurements ------------------------------------------------------------------------------------------------------


def timed(function: Callable, *arguments) -> tuple[float, object]:
    """Seconds of wall clock, and the result."""
    began = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - began, result


def difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> tuple[float, float]:
    """Bottleneck distances of H0 and H1, by giotto-tda's exact algorithm."""
    distances = []
    for pair in zip(ours, theirs, strict=True):
        size = max(1, *map(len, pair))
        padded = [np.vstack([bars, np.zeros((size - len(bars), 2))]) for bars in pair]
        stacked = np.stack([np.column_stack([bars, np.zeros(size)]) for bars in padded])  # (2, n, 3)
        distances.append(
            PairwiseDistance(metric="bottleneck", metric_params={"delta": 0.0}).fit_transform(stacked)[0, 1]
        )
    return distances[0], distances[1]


def compare(clouds: dict[str, np.ndarray]) -> pd.DataFrame:
    """Median milliseconds, ratio to the reference and largest difference, per kind of cloud and engine."""
    rows = []
    for kind, batch in clouds.items():
        ours = [rips_diagrams(cloud, "planar") for cloud in batch]
        for name, engine in engines().items():
            runs = [timed(engine, cloud) for cloud in batch]
            gaps = np.array([difference(own, diagrams) for own, (_, diagrams) in zip(ours, runs, strict=True)])
            rows.append((kind, len(batch), name, 1000 * np.median([s for s, _ in runs]), *gaps.max(axis=0)))
        say(f"{kind}: " + ", ".join(f"{row[2]} {row[3]:.1f} ms" for row in rows if row[0] == kind))
    table = pd.DataFrame(rows, columns=["cloud", "windows", "engine", "median ms", "H0 difference", "H1 difference"])
    reference = table[table["engine"] == REFERENCE].set_index("cloud")["median ms"]
    table.insert(4, "times faster", table["cloud"].map(reference) / table["median ms"])
    return table


def growth_in_points(source: Callable[[int, int], np.ndarray], sizes: tuple[int, ...]) -> pd.DataFrame:
    """Median milliseconds per window by number of points; the fewer windows, the more points."""
    delay, rows = CONFIG.time_delay, []
    for points in sizes:
        clouds = clouds_of(source(max(1, 3 * 660 // points), points + delay))
        rows.append({n: 1000 * np.median([timed(e, cloud)[0] for cloud in clouds]) for n, e in engines().items()})
        say(f"{points} points: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in rows[-1].items()))
    return pd.DataFrame(rows, index=pd.Index(sizes, name="points"))


def growth_in_windows(source: Callable[[int, int], np.ndarray], largest: int) -> pd.DataFrame:
    """Seconds of the planar features of 1/8, 1/4, 1/2 and all of `largest` windows."""
    windows = source(largest, CONFIG.window_size)
    counts = [largest // parts for parts in (8, 4, 2, 1)]
    seconds = [timed(tda_features, windows[:count], CONFIG)[0] for count in counts]
    table = pd.DataFrame({"seconds": seconds}, index=pd.Index(counts, name="windows"))
    table["ms a window"] = 1000 * table["seconds"] / table.index
    return table


def throughput(source: Callable[[int, int], np.ndarray], counts: dict[str, int]) -> pd.DataFrame:
    """Whole feature vectors per second by engine, with one and with two processes; their start is not counted."""
    rows = []
    for engine, count in counts.items():
        config = CONFIG.model_copy(update={"engine": engine})
        windows = source(2 * count, CONFIG.window_size)
        with Parallel(n_jobs=2) as workers:
            tasks = [delayed(_features)(part, config) for part in np.array_split(windows, 8)]
            workers(delayed(_features)(windows[:WARM_UP], config) for _ in range(4))
            two, _ = timed(workers, tasks)
        with threadpool_limits(1):
            tda_features(windows[:WARM_UP], config)
            one, _ = timed(tda_features, windows[:count], config)
        rows.append((engine, count / one, 2 * count / two, 2 * one / two))
        say(f"features, {engine}: {count / one:.1f} a second, {2 * count / two:.1f} with two processes")
    return pd.DataFrame(rows, columns=["engine", "1 process", "2 processes", "gain"]).set_index("engine")


def _features(windows: np.ndarray, config: TdaConfig) -> np.ndarray:
    """Task of a worker; at module level, so that a worker can find it."""
    with threadpool_limits(1):
        return tda_features(windows, config)


# -- report ------------------------------------------------------------------------------------------------------------


def report(tables: dict[str, pd.DataFrame], before: str, load: float) -> str:
    """Text of ``tda.md``."""
    engines_table = {
        "median ms": "{:.1f}",
        "times faster": "{:.3g}",
        "H0 difference": "{:.1e}",
        "H1 difference": "{:.1e}",
    }
    parts = [
        "# Persistence engines",
        f"{before} · load at the start {load:.1f}",
        "Made by `python benchmarks/tda.py` (real candles: with CMAT_TEST_DATA set to their folder). One thread; "
        f"median per window of 672 candles (660 points) unless said otherwise. *Times faster* is against {REFERENCE}. "
        "A difference is the largest bottleneck distance to the planar engine in standard deviations (σ). "
        "The other engines compute in single precision. Weak alpha is another filtration, so its H1 must differ.",
        "## Market windows",
        markdown(tables["market"], engines_table),
        "## Where the planar engine is weak",
        "On a smooth curve that turns, a quadratic number of pairs must be looked at. Where the loop is open, general "
        "engines are faster. A little noise ends that, and windows of prices have it.",
        markdown(tables["hard"], engines_table),
        "## Growth with the number of points",
        f"Milliseconds per window, {tables['points'].attrs['source']}.",
        markdown(tables["points"], {"points": "{}"}, "{:.1f}"),
        "## Growth with the number of windows",
        f"Whole vectors of {CONFIG.feature_dim} features, planar engine, one process.",
        markdown(tables["windows"], {"windows": "{}", "seconds": "{:.2f}", "ms a window": "{:.2f}"}),
        "## Feature vectors per second",
        markdown(tables["throughput"], {"engine": "{}", "gain": "{:.2f}"}, "{:.1f}"),
    ]
    return "\n\n".join(parts) + "\n"


def plot(tables: dict[str, pd.DataFrame]) -> Figure:
    """Time by number of points, and by number of windows."""
    use_style()
    figure = Figure(figsize=(10, 4))
    left, right = figure.subplots(1, 2)
    for color, (name, column) in zip(PALETTE, tables["points"].items(), strict=False):
        left.loglog(column.index, column, "o-", color=color, label=name)
    left.set(title="Time per window", xlabel="points", ylabel="milliseconds")
    left.set_xticks(tables["points"].index, [str(points) for points in tables["points"].index])
    left.minorticks_off()
    left.legend()
    right.plot(tables["windows"].index, tables["windows"]["seconds"], "o-", color=PALETTE[0])
    right.set(
        title=f"{CONFIG.feature_dim} features, planar, one process", xlabel="windows", ylabel="seconds", ylim=(0, None)
    )
    return figure


def measure(arguments: argparse.Namespace) -> dict[str, pd.DataFrame]:
    """All tables, by name."""
    sources = window_sources(arguments.seed)
    first = next(iter(sources))
    clouds = {name: clouds_of(make(arguments.windows, CONFIG.window_size)) for name, make in sources.items()}
    for name in engines():  # load and compile
        engines()[name](clouds[first][0][:50])
    with threadpool_limits(1):
        tables = {
            "market": compare(clouds),
            "hard": compare(hard_clouds(arguments.seed, max(1, arguments.windows // 8), CONFIG.points)),
            "points": growth_in_points(sources[first], tuple(p for p in POINTS if p <= arguments.points)),
            "windows": growth_in_windows(sources[first], 64 * arguments.windows),
        }
    counts = {"planar": 32 * arguments.windows, "giotto": max(4, arguments.windows)}
    tables["throughput"] = throughput(sources[first], counts)
    tables["points"].attrs["source"] = first
    return tables


def arguments_of(words: list[str] | None) -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=16, help="windows of each kind (default 16)")
    parser.add_argument("--points", type=int, default=POINTS[-1], help="largest cloud of the growth table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Measure, then write table and plot."""
    arguments, before = arguments_of(words), machine(PACKAGES)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    began = time.perf_counter()
    tables = measure(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "tda.md").write_text(report(tables, before, load), encoding="utf-8")
    plot(tables).savefig(arguments.out / "tda.png", dpi=96)
    say(f"{arguments.out / 'tda.md'} after {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
