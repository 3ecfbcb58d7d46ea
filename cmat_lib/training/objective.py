"""One forward pass: losses and answers as training and validation need them, and what a model says of many samples."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cmat_lib.models import MultiTaskCrossModalAttention, MultiTaskLoss
from cmat_lib.models.multitask import evaluation_mode
from cmat_lib.views.panel import Batch, Panel


class Answer(NamedTuple):
    """Losses of a batch and what the model said."""

    losses: Tensor  # (terms,), in the order of the loss's `terms`, sums over the samples by weight
    said: Tensor  # (B, 2 or 6): trigger logit, largest rise in percent, auxiliary forecasts


class Objective(nn.Module):
    """Model and loss as one module, so that one compiled graph, and one reducer of gradients, covers both."""

    def __init__(self, model: nn.Module, loss: MultiTaskLoss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, inputs: dict[str, Tensor], targets: tuple[Tensor, ...], weight: Tensor) -> Answer:
        """Losses and answers of a `cmat_lib.views.panel.Batch` by weight (B,), see `cmat_lib.models.MultiTaskLoss`."""
        said = torch.cat([x.float() for x in self.model.answers(inputs) if x is not None], dim=1)  # (B, 2 or 6)
        losses = self.losses(said, targets, weight)
        return Answer(torch.stack([losses[name] for name in self.loss.terms]), said)

    def losses(self, said: Tensor, targets: tuple[Tensor, ...], weight: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of answers (B, 2 or 6)."""
        trigger, max_pct, auxiliary = targets
        return self.loss(said[:, :1], said[:, 1:2], trigger, max_pct, weight, said[:, 2:], auxiliary)


def compiled_graphs() -> int:
    """Graphs that ``torch.compile`` has made in this process so far."""
    dynamo = sys.modules.get("torch._dynamo.utils")  # takes seconds to import, and who does not compile need not wait
    return 0 if dynamo is None else dynamo.counters["stats"]["unique_graphs"]


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
