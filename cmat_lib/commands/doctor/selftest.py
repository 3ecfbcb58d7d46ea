"""Ten seconds of work that touch what most often breaks: compiled topology, torch, and the notebook kernel."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import cmat_lib
from cmat_lib.config import Config

FLOAT32 = 1e-6  # giotto-tda computes in single precision: 6e-8 of the largest distance, here below 10
KERNEL = "python3"
KERNEL_SECONDS = 60


class Finding(NamedTuple):
    """One line of the report."""

    check: str
    state: str  # ok, warning or problem
    text: str
    mend: str = ""


def check_topology() -> Iterator[Finding]:
    """Whether our exact engine and giotto-tda find the same diagrams."""
    from cmat_lib.tda import rips_diagrams, takens_embedding

    walk = np.random.default_rng(0).normal(size=200).cumsum()
    cloud = takens_embedding((walk - walk.mean()) / walk.std(), 2, 12)  # (P, 2)
    started = time.perf_counter()
    ours = rips_diagrams(cloud, "planar")
    seconds = time.perf_counter() - started
    for dimension, (found, expected) in enumerate(zip(ours, rips_diagrams(cloud, "giotto"), strict=True)):
        if found.shape != expected.shape or not np.allclose(_ordered(found), _ordered(expected), rtol=0, atol=FLOAT32):
            text = f"the engines planar and giotto disagree in H{dimension} of {len(cloud)} points"
            yield Finding(
                "", "problem", text, "remove the folders __pycache__ in cmat_lib (compiled kernels), and try again"
            )
            return
    bars = " and ".join(f"{len(bars)} bars of H{n}" for n, bars in enumerate(ours))
    yield Finding(
        "", "ok", f"planar equals giotto: {bars} in {len(cloud)} points ({seconds:.1f} s, compilation included)"
    )


def _ordered(bars: np.ndarray) -> np.ndarray:
    return np.sort(bars, axis=0)


def check_model(config: Config) -> Iterator[Finding]:
    """Whether the model of the parameters is built, answers, and gets gradients, on the device of the training."""
    import torch

    from cmat_lib.models import build_model, input_shapes
    from cmat_lib.training.devices import pick_device

    device = pick_device(config.training)
    model = build_model(config).to(device).train()
    shapes, generator = input_shapes(config), torch.Generator().manual_seed(0)
    inputs = {name: torch.rand(8, *shape, generator=generator).to(device) for name, shape in shapes.items()}
    answers = model.answers(inputs)
    torch.cat([answer.flatten() for answer in answers if answer is not None]).square().mean().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not gradients or not all(bool(gradient.isfinite().all()) for gradient in gradients):
        yield Finding(
            "", "problem", f"gradients on {device} are missing or not finite", "reinstall torch for this machine"
        )
        return
    trainable, _ = model.get_num_parameters()
    yield Finding("", "ok", f"{trainable:,} parameters, forward and backward on {device}")


def check_kernel() -> Iterator[Finding]:
    """Whether the kernel that pages run in starts, and is this Python with this CMAT."""
    import nbformat
    from nbclient import NotebookClient

    cell = nbformat.v4.new_code_cell("import sys, cmat_lib\nprint(sys.executable, cmat_lib.__file__, sep='\\n')")
    page = nbformat.v4.new_notebook(cells=[cell])
    quiet = ["--log-level=ERROR"]
    NotebookClient(page, kernel_name=KERNEL, timeout=KERNEL_SECONDS, extra_arguments=quiet).execute()
    python, library = (Path(line).resolve() for line in page.cells[0].outputs[0].text.splitlines())
    own = Path(sys.executable).resolve(), Path(cmat_lib.__file__).resolve()
    if (python, library) != own:
        text = f"the kernel '{KERNEL}' is {python} with {library}, not {own[0]} with {own[1]}"
        yield Finding("", "problem", text, f"{sys.executable} -m ipykernel install --sys-prefix --name {KERNEL}")
        return
    yield Finding("", "ok", f"'{KERNEL}' runs pages in {sys.executable}")
