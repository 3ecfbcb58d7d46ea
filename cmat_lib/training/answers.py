"""What a model says of many samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cmat_lib.models.multitask import MultiTaskCrossModalAttention, evaluation_mode
from cmat_lib.views.panel import Batch, Panel


def predict(
    model: MultiTaskCrossModalAttention, panel: Panel, index: Tensor, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Raw trigger probability and largest rise in percent of the samples of `index`, shape (n,) each, float64."""
    return joined([said(model, batch) for batch in panel.batches(index, size)])


def said(model: MultiTaskCrossModalAttention, batch: Batch) -> Tensor:
    """Raw trigger probability and largest rise in percent, (B, 2), in the precision of the model's weights."""
    dtype = next(model.parameters()).dtype
    with evaluation_mode(model), torch.no_grad():
        answers = model.answers({name: x.to(dtype) for name, x in batch.inputs.items()})
    return torch.cat([answers.trigger_logits.sigmoid(), answers.max_pct], dim=1)


def joined(found: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Both columns of what `said` gave of several batches, as `predict` returns them."""
    columns = torch.cat(list(found)).double().cpu().numpy()
    return columns[:, 0].copy(), columns[:, 1].copy()
