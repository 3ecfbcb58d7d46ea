"""The model as a ``torch.export`` program, for programs that do not have CMAT's code."""

from __future__ import annotations

import json
from inspect import Parameter, Signature, signature
from pathlib import Path

import torch
from torch.export import Dim

from cmat_lib.errors import CmatError
from cmat_lib.files import atomic_path
from cmat_lib.models import input_shapes
from cmat_lib.schema import SOURCE_MODALITIES
from cmat_lib.training.checkpoint import load_model
from cmat_lib.views.panel import CLIP

ABOUT = "cmat.json"  # name of the description inside the file
DESCRIBED = ("views", "scalers", "calibration", "threshold", "labels", "config")


def export_model(path: str | Path, output: str | Path) -> torch.export.ExportedProgram:
    """Write the model of a checkpoint as a program of ATen operations.

    The program takes the scaled numbers of every view that is computed, as `cmat_lib.views.panel.Panel` gives them: the
    source's three, ohlcv (B, T, C), tda (B, F), complexity (B, K), in order, the others by name, for any B. It returns
    the trigger's logit (B, 1) and the largest rise in percent (B, 1).
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
    inputs = {name: torch.zeros(3, *shape) for name, shape in shapes.items()}
    source = tuple(inputs.pop(name) for name in SOURCE_MODALITIES)
    forward, names = model.forward, (*list(signature(model.forward).parameters)[: len(source)], *inputs)
    model.forward = lambda *source, **others: forward(*source, **others)  # torch.export loses its way in **others,
    model.forward.__signature__ = Signature([Parameter(n, Parameter.POSITIONAL_OR_KEYWORD) for n in names])
    shapes_of = dict.fromkeys(names, {0: Dim("batch")})  # so that each view has an argument of its own
    program = torch.export.export(model, source, inputs, dynamic_shapes=shapes_of)
    about = {name: content[name] for name in DESCRIBED} | {"inputs": shapes, "clip": CLIP}
    with atomic_path(output) as temporary:
        torch.export.save(program, temporary, extra_files={ABOUT: json.dumps(about)})
    return program
