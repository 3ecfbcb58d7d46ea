"""Persistence engines beside each other: the same windows, one thread, one run, in turns.

``python benchmarks/tda.py`` writes ``results/tda.md`` (tables) and ``results/tda.png`` (plot) beside this file. Real
windows, a year of four symbols and ``cmat predict`` are measured too if the environment variable CMAT_TEST_DATA names a
folder of 15-minute candles.

Two engines are measured if one says where they are:
``--before PATH`` is a checkout of an earlier version (``git worktree add PATH acf2ce7``);
``--geoph PYTHON`` an interpreter that has geoph (``V/bin/python`` after ``python3.12 -m venv V`` and
``V/bin/pip install geoph numpy``).

Every engine runs in a process of its own and reports the CPU time of that process, so other work on the machine counts
as little as it can. The unit of a cloud is the standard deviation of its window (σ).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from reporting import machine, say
from tda_clouds import POINTS, market_clouds, path_sources
from tda_engines import Engine
from tda_report import plot, report
from tda_tables import (
    BEFORE,
    GEOPH,
    OURS,
    TRUTH,
    adversaries,
    compare,
    features,
    growth,
    loops,
    memory,
    six_symbols,
    sliding,
    through_the_cache,
    year,
)

PACKAGES = ("cmat", "giotto-tda", "giotto-ph", "numba", "numpy", "scipy")


class Sizes(NamedTuple):
    """How much is measured."""

    windows: int  # of each source, from scratch
    slides: int  # windows of a sliding stretch at each stride; a chunk of the feature cache has 2,048
    samples: int  # windows of a stretch that others compute from scratch
    shape: int  # points of an adversarial shape
    growth: tuple[int, ...]  # points
    vectors: int  # through the cache
    limit: float  # seconds after which a cloud is given up
    commands: bool  # whether a year is built and predicted


FULL = Sizes(16, 2048, 24, POINTS, (165, 330, 660, 1320, 2640, 5280, 10_000), 32_768, 20.0, True)
SHORT = FULL._replace(windows=3, samples=9, growth=(165, 660, 2640, 10_000), vectors=8192, limit=10.0)
QUICK = Sizes(1, 64, 3, 100, (165, 330, 660), 256, 20.0, False)


def engines_of(arguments: argparse.Namespace) -> dict[str, Engine]:
    """Engines by name; two of them only where they are."""
    found = {OURS: Engine("planar")}
    if arguments.before:
        found[BEFORE] = Engine("planar", library=arguments.before)
    if arguments.geoph:
        found[GEOPH] = Engine("geoph", python=arguments.geoph)
    return found | {
        TRUTH: Engine("giotto_ph"),
        "giotto-tda": Engine("giotto_tda"),
        "weak alpha": Engine("weak_alpha"),
    }


def measure(engines: dict[str, Engine], sizes: Sizes, seed: int, state: Path) -> dict[str, pd.DataFrame]:
    """All tables, by name; those that `state` has are read from there, the others are kept there."""
    sources, folder, limit = path_sources(seed), os.environ.get("CMAT_TEST_DATA"), sizes.limit
    clouds = market_clouds(sources, sizes.windows)
    stages = {
        "windows": lambda: compare(engines, clouds, limit),
        "sliding": lambda: sliding(engines, sources, sizes.slides, sizes.samples, limit),
        "features": lambda: features(engines, sources, sizes.slides, sizes.samples),
        "cache": lambda: through_the_cache(next(iter(sources.values())), sizes.vectors),
        "loops": lambda: loops(engines, clouds),
        "shapes": lambda: adversaries(engines, sources, seed, sizes.shape, limit),
        "growth": lambda: growth(engines, sources, seed, sizes.growth, limit),
        "memory": lambda: memory(sources, seed, sizes.growth[-1]),
    }
    if sizes.commands and folder:
        stages["commands"] = lambda: pd.concat([year(Path(folder)), six_symbols(Path(folder), "2025-09-01")])
    state.mkdir(parents=True, exist_ok=True)
    for name, stage in stages.items():
        if not (state / name).exists():
            stage().to_pickle(state / name)
    return {name: pd.read_pickle(state / name) for name in stages}


def described(arguments: argparse.Namespace) -> list[str]:
    """Which version and which interpreter the other two engines came from."""
    lines = []
    if arguments.before:
        commit = ["git", "-C", str(arguments.before), "log", "-1", "--format=%h of %as"]
        known = subprocess.run(commit, capture_output=True, text=True, check=False).stdout.strip()
        lines.append(f"*{BEFORE}* is the planar engine of {known or 'an earlier version'}")
    if arguments.geoph:
        ask = "from importlib.metadata import version; import platform as p; "
        ask += "print(version('geoph'), 'on Python', p.python_version())"
        known = subprocess.run([arguments.geoph, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
        lines.append(f"*{GEOPH}* is version {known}")
    return lines


def arguments_of(words: list[str] | None) -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="checkout of an earlier version, to compare with")
    parser.add_argument("--geoph", help="interpreter that has geoph and numpy")
    parser.add_argument("--short", action="store_true", help="fewer windows, in a third of the time")
    parser.add_argument("--quick", action="store_true", help="to see that it runs; the numbers mean little")
    parser.add_argument(
        "--no-commands", action="store_true", help="without cache build and predict: they need idle cores"
    )
    parser.add_argument("--state", type=Path, help="folder that keeps each table: a run that was cut off goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Measure, then write table and plot."""
    arguments, before = arguments_of(words), machine(PACKAGES)
    sizes = QUICK if arguments.quick else SHORT if arguments.short else FULL
    sizes = sizes._replace(commands=sizes.commands and not arguments.no_commands)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    engines, began = engines_of(arguments), time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            tables = measure(engines, sizes, arguments.seed, arguments.state or Path(folder))
    finally:
        for engine in engines.values():
            engine.close()
    lines = [
        before,
        f"load at the start {load:.1f}, {(time.perf_counter() - began) / 60:.0f} minutes",
        *described(arguments),
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "tda.md").write_text(report(tables, " · ".join(lines)), encoding="utf-8")
    plot(tables["growth"], tables["sliding"]).savefig(arguments.out / "tda.png", dpi=96)
    say(f"{arguments.out / 'tda.md'} after {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
