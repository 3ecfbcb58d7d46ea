"""The model as a ``torch.export`` program, for programs that do not have CMAT's code."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import atomic_path
from cmat_lib.models import MultiTaskCrossModalAttention, input_shapes
from cmat_lib.training.checkpoint import load_model
from cmat_lib.views.panel import CLIP

ABOUT = "cmat.json"  # name of the description inside the file
DESCRIBED = ("views", "scalers", "calibration", "threshold", "labels", "config")


class _OfViews(nn.Module):
    """The model as a function of one mapping: of each view's input to trigger logit and largest rise."""

    def __init__(self, model: MultiTaskCrossModalAttention) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        answers = self.model.answers(inputs)
        return answers.trigger_logits, answers.max_pct


def export_model(path: str | Path, output: str | Path) -> torch.export.ExportedProgram:
    """Write the model of a checkpoint as a program of ATen operations.

    The program takes a mapping of every view that is computed to its scaled numbers (B, F), or (B, L, F) of a window,
    for any B, as `cmat_lib.views.panel.Panel` gives them. It returns the trigger's logit (B, 1) and the largest rise in
    percent (B, 1). Scalers, calibration, threshold, shapes and names of all inputs and the whole configuration stand
    beside it in the file; windows and features have to be made as CMAT makes them. A CmatError if the checkpoint `path`
    cannot be used, or `output` does not end in ``.pt2``.
    """
    output = Path(output)
    if output.suffix != ".pt2":
        raise CmatError(f"{output}: torch.export files end in .pt2")
    model, config, content = load_model(path)
    shapes = input_shapes(config)
    inputs = {name: torch.zeros(3, *shape) for name, shape in shapes.items()}
    any_batch = {name: {0: Dim("batch")} for name in inputs}
    program = torch.export.export(_OfViews(model), (inputs,), dynamic_shapes=(any_batch,))
    about = {name: content[name] for name in DESCRIBED} | {"inputs": shapes, "clip": CLIP}
    with atomic_path(output) as temporary:
        torch.export.save(program, temporary, extra_files={ABOUT: json.dumps(about)})
    return program
