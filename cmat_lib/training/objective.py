"""One forward pass as training and validation need it: inputs and targets in, losses and answers out."""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cmat_lib.models import MultiTaskLoss


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


def compiled(objective: Objective, device: torch.device, accumulates: bool) -> nn.Module:
    """`objective` through ``torch.compile`` with fixed shapes; on a GPU its kernels are replayed as CUDA graphs.

    Not so where gradients accumulate over several passes: they would live in the graph's own memory, which the next
    replay overwrites.
    """
    replay = device.type == "cuda" and not accumulates
    return torch.compile(objective, dynamic=False, mode="reduce-overhead" if replay else None)


def compiled_graphs() -> int:
    """Graphs that ``torch.compile`` has made in this process so far."""
    dynamo = sys.modules.get("torch._dynamo.utils")  # takes seconds to import, and who does not compile need not wait
    return 0 if dynamo is None else dynamo.counters["stats"]["unique_graphs"]
