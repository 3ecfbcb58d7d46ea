"""Speed and memory of training: batches, steps, their parts, and how near they come to what the machine can do.

``python benchmarks/training.py`` writes ``results/training.md`` (tables) and ``results/training.png`` (plot) beside
this file, for the GPU if torch sees one, else for the CPU. All numbers come from one run. Variants that are compared
take turns; a time is the smallest of its rounds.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from matplotlib.figure import Figure
from reporting import machine, say
from training_data import WindowDataset, batches_per_second, check_same, make_panel, memory_by_candles
from training_parts import compare_dropout, compare_encoders, parts_of_step, top_kernels
from training_report import report
from training_steps import compare_fusions, compare_steps, config_of, efficiency, switch_variants

from cmat_lib.config import load_config
from cmat_lib.config.schema import TrainingConfig
from cmat_lib.plots.style import PALETTE, use_style
from cmat_lib.training.devices import pick_device
from cmat_lib.views.panel import Panel

PACKAGES = ("cmat", "torch", "lightning-fabric", "numpy")
Tables = dict[str, pd.DataFrame]


class Sizes(NamedTuple):
    """How much is measured."""

    batch: int  # of all that is not about batch sizes
    sweep: tuple[int, ...]  # batch sizes
    candles: int  # of the panel that the steps draw from
    memory: tuple[int, ...]  # candles of the panels whose memory is looked at
    rounds: int
    calls: int  # per round: more where a call takes less than a clock or a queue can tell
    warm_up: int  # rounds before the first that counts


FULL = Sizes(2048, (512, 1024, 2048, 4096), 50_000, (10_000, 100_000, 1_000_000), rounds=5, calls=1, warm_up=1)
GPU = FULL._replace(sweep=(512, 1024, 2048, 4096, 8192), calls=20, warm_up=3)
QUICK = Sizes(64, (32, 64), 6_000, (6_000, 10_000), rounds=1, calls=1, warm_up=1)


def measure(sizes: Sizes, device: torch.device, compiles: bool) -> Tables:
    """All tables, by name."""
    with tempfile.TemporaryDirectory() as folder:
        panel, arrays = make_panel(Path(folder), sizes.candles, load_config(), device)
        dataset = WindowDataset(arrays, panel.samples, load_config())
    check_same(panel, dataset)
    turns = [(size, max(2, 16_384 // size)) for size in (256, sizes.batch)]
    ways = [batches_per_second(panel, dataset, size, 2 * sizes.rounds, batches) for size, batches in turns]
    return {"ways": pd.concat(ways), "memory": memory_by_candles(sizes.memory)} | _steps(panel, sizes, compiles)


def _steps(panel: Panel, sizes: Sizes, compiles: bool) -> Tables:
    batch, rounds, calls = sizes.batch, sizes.rounds, sizes.calls
    options = {"rounds": rounds, "calls": calls, "warm_up": sizes.warm_up}
    sweep = {str(size): config_of(size) for size in sizes.sweep}
    return {
        "fusions": compare_fusions(panel, batch, **options),
        "efficiency": efficiency(panel, batch, rounds, calls),
        "parts": parts_of_step(panel, batch, rounds),
        "kernels": top_kernels(panel, batch, min(2, rounds), sizes.warm_up),
        "encoders": compare_encoders(panel, batch, rounds, calls),
        "dropout": compare_dropout(panel, batch, 128, rounds, 20 * calls),
        "sweep": compare_steps(panel, sweep, kind="batch size", **{**options, "rounds": min(3, rounds)}),
        "switches": compare_steps(panel, switch_variants(batch, panel.device, compiles), kind="switches", **options),
    }


def plot(tables: Tables) -> Figure:
    """Samples per second by batch size, shares of a step, memory by candles."""
    use_style()
    figure = Figure(figsize=(13, 4))
    left, middle, right = figure.subplots(1, 3, width_ratios=(3, 4, 3))
    sweep, parts, memory = tables["sweep"], tables["parts"], tables["memory"]
    left.plot(sweep["batch"], sweep["samples a second"], "o-", color=PALETTE[0])
    left.set_xscale("log", base=2)
    left.set_xticks(sweep["batch"], [str(size) for size in sweep["batch"]])
    left.set(title="Training speed", xlabel="batch size in samples", ylabel="samples per second")
    left.set_ylim(0, 1.1 * sweep["samples a second"].max())
    total = parts[["ms", "backward ms"]].to_numpy().sum() / 100
    middle.barh(parts.index, parts["ms"] / total, color=PALETTE[0], label="forward, or the whole part")
    middle.barh(parts.index, parts["backward ms"] / total, left=parts["ms"] / total, color=PALETTE[1], label="backward")
    middle.invert_yaxis()
    middle.set(title="Parts of an eager step", xlabel="share of the time in percent")
    middle.legend(loc="lower right")
    right.loglog(memory.index, memory["growth at most"] / 1e6, "o", color=PALETTE[1], label="process, largest growth")
    right.loglog(memory.index, memory["panel"] / 1e6, "-", color=PALETTE[0], label="tensors of the panel")
    right.loglog(memory.index, memory.index / 1e3, "--", color=PALETTE[-1], label="1,000 bytes a candle")
    right.set(title="Memory of a panel", xlabel="candles", ylabel="MB")
    right.legend(loc="lower right")
    return figure


def arguments_of(words: list[str] | None) -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--compile", action="store_true", help="also compile on a CPU, which takes minutes")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Measure, then write tables and plot."""
    arguments, began = arguments_of(words), time.perf_counter()
    device = pick_device(TrainingConfig(device=arguments.device))
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    before = f"{machine(PACKAGES)} · on the {chip} · load at the start {load:.1f}"
    sizes = QUICK if arguments.quick else GPU if device.type == "cuda" else FULL
    tables = measure(sizes, device, arguments.compile)
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = report(tables, before, device, sizes.batch)
    (arguments.out / "training.md").write_text(text, encoding="utf-8")
    plot(tables).savefig(arguments.out / "training.png", dpi=96)
    say(f"{arguments.out / 'training.md'} after {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
