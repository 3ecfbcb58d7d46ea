"""One forward pass as training and validation need it: inputs and targets in, losses and answers out."""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cmat_lib.models import MultiTaskLoss

TERMS = ("total", "trigger", "max_pct")


class Answer(NamedTuple):
    """Losses of a batch and what the model said."""

    losses: Tensor  # (3,), in the order of TERMS, sums over the samples by weight
    trigger_logits: Tensor  # (B,)
    max_pct: Tensor  # (B,), percent


class Objective(nn.Module):
    """Model and loss as one module, so that one compiled graph, and one reducer of gradients, covers both.

    Parameters
    ----------
    model : nn.Module
        Inputs (B, T, C), (B, F), (B, K) to logits (B, 1) and percent (B, 1).
    loss : MultiTaskLoss
    """

    def __init__(self, model: nn.Module, loss: MultiTaskLoss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(
        self, ohlcv: Tensor, tda: Tensor, complexity: Tensor, trigger: Tensor, max_pct: Tensor, weight: Tensor
    ) -> Answer:
        """Losses and answers of a batch.

        Parameters
        ----------
        ohlcv, tda, complexity : Tensor, shape (B, T, C), (B, F), (B, K)
        trigger, max_pct, weight : Tensor, shape (B,)
            See `cmat_lib.models.MultiTaskLoss`.

        Returns
        -------
        Answer
        """
        logits, predicted = (x.float() for x in self.model(ohlcv, tda, complexity))  # (B, 1) each
        losses = self.loss(logits, predicted, trigger, max_pct, weight)
        return Answer(torch.stack([losses[name] for name in TERMS]), logits[:, 0], predicted[:, 0])


def compiled(objective: Objective, device: torch.device) -> nn.Module:
    """`objective` through ``torch.compile`` with fixed shapes; on a GPU its kernels are replayed as CUDA graphs."""
    return torch.compile(objective, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else None)


def compiled_graphs() -> int:
    """Graphs that ``torch.compile`` has made in this process so far."""
    dynamo = sys.modules.get("torch._dynamo.utils")  # takes seconds to import, and who does not compile need not wait
    return 0 if dynamo is None else dynamo.counters["stats"]["unique_graphs"]
