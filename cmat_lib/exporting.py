"""The model as a ``torch.export`` program, for programs that do not have CMAT's code."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.export import Dim

from cmat_lib.data.panel import CLIP
from cmat_lib.errors import CmatError
from cmat_lib.files import atomic_path
from cmat_lib.models import input_shapes
from cmat_lib.training.checkpoint import load_model

ABOUT = "cmat.json"  # name of the description inside the file
DESCRIBED = (
    "channel_names",
    "feature_names",
    "complexity_names",
    "scalers",
    "calibration",
    "threshold",
    "labels",
    "config",
)


def export_model(path: str | Path, output: str | Path) -> torch.export.ExportedProgram:
    """Write the model of a checkpoint as a program of ATen operations.

    The program takes scaled inputs, as `cmat_lib.data.panel.Panel` gives them: ohlcv (B, T, C), tda (B, F), complexity
    (B, K) and clock (B, 2), for any B, and returns the trigger's logit (B, 1) and the largest rise in percent (B, 1).
    Scalers, calibration, threshold, and shapes and names of all inputs stand beside it in the file,
    and so does the whole configuration; windows and features have to be made as CMAT makes them.

    Parameters
    ----------
    path : str or Path
        ``best_model.pt``.
    output : str or Path
        File to write, ending in ``.pt2``.

    Raises
    ------
    CmatError
        If the checkpoint cannot be used, or `output` has another ending.
    """
    output = Path(output)
    if output.suffix != ".pt2":
        raise CmatError(f"{output}: torch.export files end in .pt2")
    model, config, content = load_model(path)
    shapes = input_shapes(config)
    inputs = tuple(torch.zeros(3, *shape) for shape in shapes.values())
    batch = Dim("batch")
    program = torch.export.export(model, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))
    about = {name: content[name] for name in DESCRIBED} | {"inputs": shapes, "clip": CLIP}
    with atomic_path(output) as temporary:
        torch.export.save(program, temporary, extra_files={ABOUT: json.dumps(about)})
    return program
