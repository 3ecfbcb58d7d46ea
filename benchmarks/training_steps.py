"""Time and arithmetic of whole training steps, for ``training.py``: all through `cmat_lib.training.steps.Steps`."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import pandas as pd
import torch
from reporting import say
from timing import take_turns
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from cmat_lib.config import Config, load_config, merge
from cmat_lib.models import MultiTaskLoss, build_model, input_shapes
from cmat_lib.training.devices import half_precision, is_on, make_fabric
from cmat_lib.training.objective import Objective
from cmat_lib.training.steps import Steps
from cmat_lib.views.panel import Panel

STEP, PRODUCTS = "step", "its matrix products"
CONCAT = {"fusion": {"fusion_type": "concat"}}
EAGER = {"compile": "off"}
FLOAT32 = {"mixed_precision": "off", "tf32": "off"}


def config_of(batch: int, changes: dict | None = None, **training) -> Config:
    """The full default model with one forward pass to an optimiser step, and `changes`."""
    plain = {"training": {"batch_size": batch, "gradient_accumulation_steps": 1, **training}}
    return load_config(changes=merge(plain, changes or {}))


class Stepper:
    """Optimiser steps on whole batches, one after the other; each has the switches of its own parameters."""

    def __init__(self, panel: Panel, config: Config) -> None:
        self.fabric = make_fabric(config.training)
        self.fabric.launch()
        self.matmul_precision = torch.get_float32_matmul_precision()  # global, and the next variant may change it
        self.steps = Steps(self.fabric, panel, config)
        self.steps.freeze_encoders(False)
        self.order = self.steps.new_order()
        self.numbers = itertools.cycle(range(len(self.order) // self.steps.size))

    def __call__(self) -> Tensor:
        """One step."""
        torch.set_float32_matmul_precision(self.matmul_precision)
        return self.steps.step(self.order, next(self.numbers))

    def next_index(self) -> Tensor:
        """Samples of the next batch."""
        return self.order.split(self.steps.size)[next(self.numbers)]


# -- what a step computes ----------------------------------------------------------------------------------------------


class MatrixProducts(TorchDispatchMode):
    """Counts the products of two matrices by the shapes and strides of both."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            left, right = arguments[-2:]
            self.counts[(left.shape, left.stride(), right.shape, right.stride())] += 1
        return function(*arguments, **(keywords or {}))


def work_of(config: Config) -> tuple[int, Counter]:
    """FLOPs of a forward and backward pass of one batch, and its matrix products; nothing is computed."""
    batch, shapes = config.training.batch_size, input_shapes(config)
    with torch.device("meta"):
        objective = Objective(build_model(config), MultiTaskLoss())
        inputs, targets = (
            {name: torch.empty(batch, *shape) for name, shape in shapes.items()},
            [torch.empty(batch), torch.empty(batch), None],
        )
        weight = torch.empty(batch)
    with FlopCounterMode(display=False) as flops, MatrixProducts() as products:
        objective(inputs, targets, weight).losses[0].backward()
    return flops.get_total_flops(), products.counts


def products_alone(counts: Counter, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
    """Function that computes all products of a step, on operands that are there, and nothing else."""
    work = []
    for (shape_a, stride_a, shape_b, stride_b), count in counts.items():
        a = torch.empty_strided(shape_a, stride_a, device=device, dtype=dtype).normal_()
        b = torch.empty_strided(shape_b, stride_b, device=device, dtype=dtype).normal_()
        work += [(a, b, torch.empty(shape_a[0], shape_b[1], device=device, dtype=dtype))] * count

    def run() -> None:
        for a, b, out in work:
            torch.mm(a, b, out=out)

    if device.type == "cpu":
        return run
    run()
    graph = torch.cuda.CUDAGraph()  # else starting the kernels would be measured
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def efficiency(panel: Panel, batch: int, rounds: int, calls: int) -> pd.DataFrame:
    """FLOP/s of a step beside those of its matrix products alone, in the same precision on the same threads."""
    config = config_of(batch)
    flops, counts = work_of(config)
    half = is_on(config.training.mixed_precision, panel.device) and half_precision(panel.device)
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(half, torch.float32)
    variants = {STEP: Stepper(panel, config), PRODUCTS: products_alone(counts, panel.device, dtype)}
    best = take_turns(variants, panel.device, rounds, calls, warm_up=2).min()
    in_products = sum(2 * a[0] * a[1] * b[1] * count for (a, _, b, _), count in counts.items())
    rows = [(name, done, best[name], done / best[name]) for name, done in ((STEP, flops), (PRODUCTS, in_products))]
    table = pd.DataFrame(rows, columns=["what", "FLOP", "seconds", "FLOP/s"])
    table["share of the rate"] = table["FLOP/s"] / table["FLOP/s"].iloc[1]
    table.attrs["shapes"], table.attrs["products"], table.attrs["dtype"] = len(counts), counts.total(), str(dtype)
    say("rate: " + ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in table[["what", "FLOP/s"]].values))
    return table


# -- variants of a step ------------------------------------------------------------------------------------------------


def compare_steps(
    panel: Panel, variants: dict[str, Config], rounds: int, calls: int, warm_up: int, kind: str
) -> pd.DataFrame:
    """Milliseconds and samples per second of steps that take turns."""
    torch.compiler.reset()  # the compiler keeps a few graphs of a function and then gives up
    steppers = {name: Stepper(panel, config) for name, config in variants.items()}
    seconds = take_turns(steppers, panel.device, rounds, calls, warm_up)
    sizes = {name: stepper.steps.size for name, stepper in steppers.items()}
    table = pd.DataFrame({"batch": sizes, "ms": 1000 * seconds.min(), "median ms": 1000 * seconds.median()})
    table["samples a second"] = 1000 * table["batch"] / table["ms"]
    say(f"{kind}: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in table["ms"].items()))
    return table.rename_axis(kind)


def compare_fusions(panel: Panel, batch: int, **options) -> pd.DataFrame:
    """Cross-modal attention against concat: time, and FLOPs per sample."""
    variants = {"concat": config_of(batch, CONCAT), "cross-modal attention": config_of(batch)}
    table = compare_steps(panel, variants, kind="fusion", **options)
    table["MFLOP a sample"] = [work_of(config)[0] / batch / 1e6 for config in variants.values()]
    for extra, column in (("extra time", "ms"), ("extra FLOPs", "MFLOP a sample")):
        table[extra] = table[column] / table[column].iloc[0] - 1
    return table


def switch_variants(batch: int, device: torch.device, compiles: bool) -> dict[str, Config]:
    """Parameters by name: on a GPU eager and compiled in three precisions; on a CPU what costs little."""
    half = {"mixed_precision": "on"}
    if device.type == "cpu":
        found = {"eager, fp32": config_of(batch, **EAGER), "eager, bf16": config_of(batch, **EAGER, **half)}
        return found | ({"compiled, fp32": config_of(batch, compile="on")} if compiles else {})
    precisions = {"fp32": FLOAT32, "TF32": {"mixed_precision": "off"}, "bf16": half}
    modes = {"eager": EAGER, "compiled": {"compile": "on"}}
    pairs = itertools.product(modes.items(), precisions.items())
    return {f"{mode}, {name}": config_of(batch, **switch, **precision) for (mode, switch), (name, precision) in pairs}
