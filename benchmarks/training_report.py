"""Text of ``training.md``: every goal beside what was measured, then the tables."""

from __future__ import annotations

import pandas as pd
import torch
from reporting import markdown
from training_data import INDEX, TIMES

Tables = dict[str, pd.DataFrame]
COMMAND = "python benchmarks/training.py"
MS = {"batch": "{}", "ms": "{:.2f}", "median ms": "{:.2f}", "samples a second": "{:,.0f}", "times faster": "{:.2f}"}


def report(tables: Tables, before: str, device: torch.device, batch: int) -> str:
    """Text of ``training.md``."""
    intro = (
        f"Made by `{COMMAND}`. Full model with default parameters, one forward pass of {batch} samples to an optimiser "
        "step unless said otherwise, random inputs. Variants that are compared take turns; a time is the smallest of "
        "its rounds."
    )
    parts = ["# Training", before, intro, "## Goals", _goals(tables, device, batch)]
    for title, text in _sections(tables, device).items():
        parts += [f"## {title}", *text]
    return "\n\n".join(parts) + "\n"


# -- goals -------------------------------------------------------------------------------------------------------------


def _goals(tables: Tables, device: torch.device, batch: int) -> str:
    lines = [_batches(tables["ways"], batch), _memory(tables["memory"]), _attention(tables["fusions"])]
    lines += [_rate(tables["efficiency"])] if device.type == "cpu" else _gpu(tables["switches"], batch)
    return "\n".join(f"- {line}" for line in lines)


def _met(holds: bool) -> str:
    return "met" if holds else "**missed**"


def _batches(ways: pd.DataFrame, batch: int) -> str:
    others = ways[(ways["batch"] == batch) & (ways["way"] != INDEX)]
    nearest = others.loc[others[TIMES].idxmin()]
    return (
        f"Batches of {batch} by index come {nearest[TIMES]:.1f} times as fast as from the fastest form of the others "
        f"({nearest['way']}); the goal of 10 times is {_met(nearest[TIMES] >= 10)}."
    )


def _memory(memory: pd.DataFrame) -> str:
    candles, row = memory.index[-1], memory.iloc[-1]
    each, copies = row["panel"] / candles, row["growth at most"] / row["panel"]
    return (
        f"A panel of {candles:,} candles holds {each:.0f} bytes a candle, and while it was made the process grew by at "
        f"most {copies:.2f} times as much; the goal of at most 1,000 bytes and no second copy is "
        f"{_met(each <= 1000 and copies < 1.1)}."
    )


def _attention(fusions: pd.DataFrame) -> str:
    time, flops = fusions["extra time"].iloc[1], fusions["extra FLOPs"].iloc[1]
    return (
        f"Cross-modal attention takes {time:+.0%} time per step over concat, with {flops:+.0%} FLOPs; the goal of at "
        f"most 10 points above the FLOPs is {_met(time - flops <= 0.1)}."
    )


def _rate(efficiency: pd.DataFrame) -> str:
    share, rates = efficiency["share of the rate"].iloc[0], efficiency["FLOP/s"] / 1e9
    return (
        f"A training step reaches {rates.iloc[0]:.0f} GFLOP/s, {share:.0%} of the {rates.iloc[1]:.0f} GFLOP/s at which "
        f"this machine computes the step's matrix products alone; the goal of half is {_met(share >= 0.5)}."
    )


def _gpu(switches: pd.DataFrame, batch: int) -> list[str]:
    speed, gain = switches.loc["compiled, bf16", "samples a second"], switches["ms"]["eager, bf16"]
    gain /= switches["ms"]["compiled, bf16"]
    return [
        f"Compiled in bf16, batches of {batch} train at {speed:,.0f} samples a second; the goal of 1,000,000 on an "
        f"H200-class chip is {_met(speed >= 1e6)}.",
        f"Compiled is {gain:.1f} times as fast as eager in bf16; the goal of 2 times is {_met(gain >= 2)}.",
    ]


# -- tables ------------------------------------------------------------------------------------------------------------


def _sections(tables: Tables, device: torch.device) -> dict[str, list[str]]:
    efficiency, parts, encoders = tables["efficiency"], tables["parts"], tables["encoders"]
    names = {"panel": "panel, MB", "growth": "process grew by, MB", "growth at most": "on the way, MB"}
    memory = (tables["memory"] / 1e6).rename(columns={**names, "samples frame": "table of samples, MB"})
    memory["panel, bytes a candle"] = 1e6 * memory["panel, MB"] / memory.index
    return {
        "Batches per second": [
            "`Panel.batches` against a `Dataset` that cuts the same window out of arrays in memory, shuffled, with "
            "PyTorch's `DataLoader`. Both gave equal batches for equal indices in this run.",
            markdown(tables["ways"], {"batch": "{}", "way": "{}", "samples a second": "{:,.0f}"}, "{:.1f}"),
        ],
        "Memory by candles": [
            "A sample at every candle, arrays given as memory maps, each size in a fresh process. Growth is counted "
            "without pages of mapped files, from before the panel is made; the table of samples was there already.",
            markdown(memory, {"candles": "{:,}", "panel, bytes a candle": "{:.0f}"}, "{:.1f}"),
        ],
        "Cross-modal attention and concat": [
            "FLOPs of forward and backward pass, counted by PyTorch (`FlopCounterMode`).",
            markdown(tables["fusions"], {**MS, "fusion": "{}", "MFLOP a sample": "{:.1f}"}, "{:+.1%}"),
        ],
        "Switches": [_about_switches(device), markdown(tables["switches"], MS)],
        "Samples per second by batch size": [markdown(tables["sweep"].reset_index(drop=True), MS)],
        "Parts of a step": [
            "An eager step cut into parts by hand. Whole, by the trainer's own code, it takes "
            f"{parts.attrs['whole ms']:.2f} ms; the parts sum to {parts[['ms', 'backward ms']].sum().sum():.2f} ms.",
            markdown(parts, {"share": "{:.1%}", "part": "{}"}, "{:.2f}"),
            "Kernels with the largest own time, by the profiler:",
            markdown(tables["kernels"], {"ms a step": "{:.2f}", "share": "{:.1%}", "calls a step": "{:.0f}"}),
        ],
        "FLOP/s": [
            f"The {efficiency.attrs['products']} matrix products of a step's forward and backward pass "
            f"({efficiency.attrs['shapes']} shapes) were recorded with their shapes and strides, and computed again "
            f"on operands that were there, in {efficiency.attrs['dtype']}, on the same threads: that is the machine's "
            "rate. Batched products of the attention are left out of it.",
            markdown(efficiency, {"what": "{}", "seconds": "{:.4f}", "share of the rate": "{:.0%}"}, "{:.3g}"),
        ],
        "N-BEATS encoder and dropout": [
            "Forward and backward pass. The plain form runs the blocks one after the other; its answers differ by at "
            f"most {encoders.attrs['difference']:.1e}.",
            markdown(encoders, MS),
            markdown(tables["dropout"], MS),
        ],
    }


def _about_switches(device: torch.device) -> str:
    if device.type == "cuda":
        return "Eager and compiled, in float32 without and with TF32, and in bf16."
    return (
        f"Rows of a GPU are left out of this file, as it was made on a CPU: `{COMMAND}` makes them where torch sees a "
        f"GPU. Compiling for a CPU takes minutes, so it is measured only by `{COMMAND} --compile`."
    )
