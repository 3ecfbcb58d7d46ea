"""What a model says of many samples."""

import numpy as np
import torch

from cmat_lib.models.multitask import MultiTaskCrossModalAttention, evaluation_mode
from cmat_lib.views.panel import Panel


def predict(
    model: MultiTaskCrossModalAttention, panel: Panel, index: torch.Tensor, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Raw trigger probability and largest rise in percent of the samples of `index`, float64 (n,) each."""
    dtype, found = next(model.parameters()).dtype, []  # of the weights, which compute in it
    with evaluation_mode(model), torch.no_grad():
        for batch in panel.batches(index, size):
            said = model.answers({name: x.to(dtype) for name, x in batch.inputs.items()})
            found.append((said.trigger_logits.sigmoid(), said.max_pct))
    return tuple(torch.cat(column)[:, 0].double().cpu().numpy() for column in zip(*found, strict=True))
