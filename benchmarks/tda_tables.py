"""What ``benchmarks/tda.py`` measures, a table per question; engines that are compared take turns."""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from gtda.diagrams import PairwiseDistance
from joblib import Parallel, delayed
from numpy.lib.stride_tricks import sliding_window_view
from reporting import say
from tda_clouds import CONFIG, Path1d, adversarial_clouds, growing_clouds
from tda_engines import Diagrams, Engine, Failed

from cmat_lib.config import project_root
from cmat_lib.data.cache import Sliding, cached_features
from cmat_lib.tda import takens_embedding
from cmat_lib.tda.features import path_features

OURS, BEFORE, GEOPH, TRUTH = "scratch", "before", "geoph", "giotto-ph"
LONG = 1e-4  # length in σ from which a bar cannot be the rounding of single precision
STRIDES, ROUNDS = (16, 4, 1), 3
SCALE = {"window": CONFIG.window_size, "delay": CONFIG.time_delay}

Engines = dict[str, Engine]


# -- turns -------------------------------------------------------------------------------------------------------------


def take_turns(engines: Engines, clouds: np.ndarray, limit: float, rounds: int = 1) -> dict[str, tuple[list, list]]:
    """Milliseconds of each turn and diagrams of each cloud (of its last round), by engine: A B C, A B C, ...

    An engine that fails, or needs more than a second, gets no further rounds on that cloud; where it failed, its text
    stands for the diagrams.
    """
    found: dict[str, tuple[list, list]] = {name: ([], []) for name in engines}
    for cloud in clouds:
        results, going = {}, dict(engines)
        for _ in range(rounds):
            for name, engine in list(going.items()):
                try:
                    seconds, results[name] = engine.ask("diagrams", cloud, limit=limit)
                    found[name][0].append(1000 * seconds)
                except Failed as failure:
                    seconds, results[name] = np.inf, str(failure)
                if seconds > 1:
                    del going[name]
        for name, result in results.items():
            found[name][1].append(result)
    return found


def difference(ours: Diagrams, theirs: Diagrams) -> np.ndarray:
    """Bottleneck distances (2,) of H0 and H1, by giotto-tda's exact algorithm."""
    distances = []
    for pair in zip(ours, theirs, strict=True):
        size = max(1, *map(len, pair))
        padded = [np.vstack([bars, np.zeros((size - len(bars), 2))]) for bars in pair]
        stacked = np.stack([np.column_stack([bars, np.zeros(size)]) for bars in padded])  # (2, n, 3)
        metric = PairwiseDistance(metric="bottleneck", metric_params={"delta": 0.0})
        distances.append(metric.fit_transform(stacked)[0, 1])
    return np.array(distances)


def long_loops(diagrams: Diagrams, sigma: float) -> int:
    """Bars of H1 that are there in single precision too."""
    return int((np.diff(diagrams[1], axis=1) > LONG * sigma).sum())


# -- from scratch ------------------------------------------------------------------------------------------------------


def compare(engines: Engines, clouds: dict[str, np.ndarray], limit: float) -> pd.DataFrame:
    """Median milliseconds, how many times ours, largest difference to ours, missing bars of H1, by kind and engine."""
    rows = []
    for kind, batch in clouds.items():
        found = take_turns(engines, batch, limit)
        ours, own_time = found[OURS][1], np.median(found[OURS][0])
        for name, (milliseconds, diagrams) in found.items():
            held = [(own, other) for own, other in zip(ours, diagrams, strict=True) if not isinstance(other, str)]
            gaps = np.array([difference(*pair) for pair in held])
            lost = sum(max(0, long_loops(own, 1.0) - long_loops(other, 1.0)) for own, other in held)
            median = np.median(milliseconds)
            rows.append((kind, len(batch), name, median, median / own_time, *gaps.max(axis=0), lost))
        say(f"{kind}: " + ", ".join(f"{row[2]} {row[3]:.2f} ms" for row in rows if row[0] == kind))
    columns = ["cloud", "windows", "engine", "ms", "times scratch", "H0 difference", "H1 difference", "H1 bars lost"]
    return pd.DataFrame(rows, columns=columns)


def adversaries(engines: Engines, sources: dict[str, Path1d], seed: int, points: int, limit: float) -> pd.DataFrame:
    """A row per shape: milliseconds of each engine, the better of the others against ours, equality with giotto-ph."""
    rows, rivals = {}, {name: engines[name] for name in (OURS, BEFORE, GEOPH) if name in engines}
    for name, cloud in adversarial_clouds(sources, seed, points).items():
        found = take_turns(rivals, cloud, limit, rounds=3)
        truth = take_turns({TRUTH: engines[TRUTH]}, cloud, 4 * limit)[TRUTH][1][0]
        cells = {n: np.median(times) if times else diagrams[0] for n, (times, diagrams) in found.items()}
        others = [cells[n] for n in rivals if n != OURS and not isinstance(cells[n], str)]
        row = cells | {"better / scratch": min(others) / cells[OURS] if others else np.nan}
        sigma = float(np.linalg.norm(cloud[0].std(axis=0)))
        for engine in (n for n in (OURS, GEOPH) if n in rivals):
            row[f"{engine} against giotto-ph"] = _against(found[engine][1][0], truth, sigma)
        rows[name] = row
        say(f"{name}: {row}")
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("shape")


def _against(diagrams: Diagrams | str, truth: Diagrams | str, sigma: float) -> str:
    """Larger bottleneck distance of H0 and H1 in σ, and how many bars of H1 are missing."""
    if isinstance(diagrams, str) or isinstance(truth, str):
        return diagrams if isinstance(diagrams, str) else f"giotto-ph: {truth}"
    lost = long_loops(truth, sigma) - long_loops(diagrams, sigma)
    return f"{difference(diagrams, truth).max() / sigma:.0e}" + (f", {lost} bars lost" if lost > 0 else "")


# -- sliding -----------------------------------------------------------------------------------------------------------


def sliding(engines: Engines, sources: dict[str, Path1d], count: int, samples: int, limit: float) -> pd.DataFrame:
    """Milliseconds a window from scratch and sliding, `count` windows at each stride; whether diagrams are equal."""
    rows, rivals = {}, {name: engines[name] for name in (BEFORE, GEOPH, OURS) if name in engines}
    for name, path in sources.items():
        series = path(max(STRIDES) * (count - 1) + CONFIG.window_size)
        begins = np.linspace(0, (count - 1) // max(STRIDES), samples).astype(int) * max(STRIDES)  # of every stride
        windows = sliding_window_view(series, CONFIG.window_size)[begins]
        clouds = np.stack([takens_embedding(window, 2, CONFIG.time_delay) for window in windows])
        slides: dict[int, list] = {stride: [] for stride in STRIDES}
        for part in np.array_split(clouds, ROUNDS):
            found = _merged(rows.setdefault(name, {}), take_turns(rivals, part, limit))
            for stride, runs in slides.items():
                own = series[: stride * (count - 1) + CONFIG.window_size]
                runs.append(engines[OURS].ask("slide", own, *SCALE.values(), stride, begins // stride))
        row = {engine: np.median(times) for engine, (times, _) in found.items()}
        row |= {f"stride {s}": 1000 * np.median([flat for flat, _, _ in runs]) for s, runs in slides.items()}
        row["stride 1, lists"] = 1000 * np.median([lists for _, lists, _ in slides[1]])
        row |= {f"{n} / stride 1": row[n] / row["stride 1"] for n in (BEFORE, GEOPH) if n in rivals}
        equal = [_same_bytes(found[OURS][1], diagrams) for runs in slides.values() for _, _, diagrams in runs]
        rows[name] = row | {"same bytes": "yes" if all(equal) else "NO"}
        say(f"sliding, {name}: {rows[name]}")
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("series")


def _merged(found: dict, more: dict) -> dict:
    """Times and diagrams of further clouds behind those that are there."""
    for name, (times, diagrams) in more.items():
        own = found.setdefault(name, ([], []))
        own[0].extend(times)
        own[1].extend(diagrams)
    return found


def _same_bytes(first: list[Diagrams], second: list[Diagrams]) -> bool:
    pairs = (pair for ours, theirs in zip(first, second, strict=True) for pair in zip(ours, theirs, strict=True))
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


# -- growth ------------------------------------------------------------------------------------------------------------


def growth(
    engines: Engines, sources: dict[str, Path1d], seed: int, sizes: tuple[int, ...], limit: float
) -> pd.DataFrame:
    """Milliseconds by kind of cloud, engine and number of points; an engine stops at a tenth of the `limit`."""
    rows, names, out = [], [n for n in (OURS, BEFORE, GEOPH, TRUTH) if n in engines], set()
    for points in sizes:
        for kind, cloud in growing_clouds(sources, seed, points).items():
            going = {name: engines[name] for name in names if (kind, name) not in out}
            for name, (times, _) in take_turns(going, cloud[None], limit, rounds=3).items():
                rows.append((kind, name, points, np.median(times) if times else np.nan))
                if not times or times[-1] > 1000 * limit / 10:  # four times the points would take too long
                    out.add((kind, name))
            say(f"{points} points, {kind}: " + ", ".join(f"{r[1]} {r[3]:.2f} ms" for r in rows[-len(going) :]))
    table = pd.DataFrame(rows, columns=["cloud", "engine", "points", "ms"])
    table = table.pivot(index=["cloud", "engine"], columns="points", values="ms")
    table["exponent"] = [exponent(row.dropna()) for _, row in table.iterrows()]
    return table.reindex([(kind, name) for kind in ("random", "window", "circle") for name in names])


def exponent(times: pd.Series, least: int = 600) -> float:
    """Power of (n log n) with which times grow from `least` points on, least squares in logarithms."""
    times = times[times.index >= least]
    if len(times) < 2:
        return np.nan
    size = np.asarray(times.index, dtype=float)
    return float(np.polyfit(np.log(size * np.log(size)), np.log(times.to_numpy(dtype=float)), 1)[0])


def memory(sources: dict[str, Path1d], seed: int, points: int) -> pd.DataFrame:
    """Peak memory in MB of a fresh process before and after one large cloud of each kind."""
    rows = {}
    for kind, cloud in growing_clouds(sources, seed, points).items():
        engine = Engine("planar")
        before, after = engine.ask("peak_memory", cloud)
        engine.close()
        rows[kind] = {"points": points, "MB before": before, "MB after": after, "MB more": after - before}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cloud")


# -- features, loops ---------------------------------------------------------------------------------------------------


def features(engines: Engines, sources: dict[str, Path1d], count: int, samples: int) -> pd.DataFrame:
    """Features alone, whole vectors of sliding windows, of windows from scratch and of the engine before, by source."""
    rows = {}
    for name, path in sources.items():
        series = path(count + CONFIG.window_size - 1)
        ends = np.arange(CONFIG.window_size - 1, len(series))
        chosen = np.linspace(0, count - 1, samples).astype(int)
        windows, row = np.ascontiguousarray(sliding_window_view(series, CONFIG.window_size)[chosen]), {}
        runs = []
        for _ in range(3):
            runs.append({"slid": engines[OURS].ask("vectors", series, ends)})
            runs[-1] |= {n: engines[n].ask("scratch_vectors", windows) for n in (OURS, BEFORE) if n in engines}
        row["features alone, µs"] = 1e6 * np.median([run["slid"][1] for run in runs])
        row["vectors a second, stride 1"] = 1 / np.median([run["slid"][0] for run in runs])
        for n in (n for n in (OURS, BEFORE) if n in engines):
            row[f"vectors a second, {n}"] = 1 / np.median([run[n][0] for run in runs])
        same = runs[0]["slid"][2][chosen].tobytes() == runs[0][OURS][1].tobytes()
        rows[name] = row | {"same bytes": "yes" if same else "NO"}
        say(f"features, {name}: {rows[name]}")
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("series")


def through_the_cache(path: Path1d, count: int) -> pd.DataFrame:
    """Vectors per second of wall clock that arrive in an empty cache, by number of processes that have started."""
    series = path(count + CONFIG.window_size - 1)
    ends = np.arange(CONFIG.window_size - 1, len(series))
    times = pd.date_range("2025", periods=len(series), freq="15min", tz="UTC")
    compute = functools.partial(path_features, **SCALE, config=CONFIG)
    arguments = (Sliding("tda", series, CONFIG.window_size, compute, CONFIG.feature_dim, {}), "X", times, ends, ends)
    seconds: dict[int, list] = {1: [], 2: []}
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(4):
            for jobs, found in seconds.items():
                Parallel(n_jobs=jobs)(delayed(compute)(series, ends[:2]) for _ in range(2 * jobs))
                began, cpu = time.perf_counter(), time.process_time()
                cached_features(*arguments, Path(folder) / f"{turn}_{jobs}", jobs=jobs, progress=False)
                found.append(time.perf_counter() - began)
                if jobs == 1:
                    spent.append(time.process_time() - cpu)
    rows = {jobs: {"windows": count, "vectors a second": count / np.median(s[1:])} for jobs, s in seconds.items()}
    rows[1]["vectors a second of CPU"] = count / np.median(spent[1:])
    say(f"through the cache: {rows}")
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("processes")


def loops(engines: Engines, clouds: dict[str, np.ndarray]) -> pd.DataFrame:
    """Microseconds of the compiled part and of the whole call, without and with loops."""
    rows = {}
    for kind, batch in clouds.items():
        bars, walks, plain, whole = 1e6 * np.median([engines[OURS].ask("loops", cloud) for cloud in batch], axis=0)
        rows[kind] = {"bars, µs": bars, "with loops, µs": walks, "surplus": walks / bars - 1}
        rows[kind] |= {"rips_diagrams, µs": plain, "planar_loops, µs": whole, "surplus of the call": whole / plain - 1}
    say(f"loops: {rows}")
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cloud")


# -- commands ----------------------------------------------------------------------------------------------------------


def command(words: list[str], numba_cache: Path | None = None) -> dict[str, float]:
    """Seconds of wall clock and of CPU of one ``cmat`` command, the processes that it started included."""
    environment = os.environ | {"PYTHONPATH": str(project_root())}
    if numba_cache is not None:
        environment |= {"NUMBA_CACHE_DIR": str(numba_cache)}
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "cmat_lib", *words], cwd=project_root(), env=environment, check=True, capture_output=True
    )
    wall, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall s": wall, "CPU s": now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime}


def year(candles: Path) -> pd.DataFrame:
    """``cmat cache build`` at stride 1 for all symbols of a folder: without kernels or features, then with kernels."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        kernels = Path(folder) / "kernels"
        for what in ("nothing is there", "kernels are compiled"):
            words = ["cache", "build", "--params", "params/crypto_15m.yaml", "--set", "data.stride=1"]
            words += ["--set", f"data.data_dir={candles}", "--set", f"cache.dir={folder}/{what.split()[0]}"]
            rows[f"cache build, {what}"] = command(words, kernels)
            say(f"cache build, {what}: {rows[f'cache build, {what}']}")
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("command")


def six_symbols(candles: Path, since: str) -> pd.DataFrame:
    """``cmat predict`` for six symbols (two under a second name) at every candle from a day on, after one epoch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = sorted(candles.glob("*_15m.parquet"))
        (folder / "six").mkdir()
        for file in files:
            (folder / "six" / file.name).symlink_to(file.resolve())
        for number, file in enumerate(files[: 6 - len(files)]):
            (folder / "six" / f"COPY{number}USDT_15m.parquet").symlink_to(file.resolve())
        words = ["train", "--params", "params/crypto_15m.yaml", "--run-dir", f"{folder}/run", "--epochs", "1"]
        command([*words, "--set", f"data.data_dir={candles}", "--set", f"cache.dir={folder}/cache"])
        words = ["predict", "--run", f"{folder}/run", "--data-dir", f"{folder}/six", "--since", since, "--jobs", "2"]
        row = command([*words, "--output", f"{folder}/scores.parquet"])
        scored = pd.read_parquet(folder / "scores.parquet")
    say(f"predict: {row}, {len(scored)} candles")
    table = pd.DataFrame.from_dict({f"predict, six symbols, {len(scored):,} candles": row}, orient="index")
    return table.rename_axis("command")
