"""Moving average of a model's weights over the optimiser steps."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average of weights and buffers, ``average = decay * average + (1 - decay) * now``.

    Averaging makes small steps out of noisy ones and needs no learning-rate schedule of its own (Polyak and Juditsky
    1992). `module` is the average; the first step is taken over as it is. Nothing here makes a GPU wait, which is why
    it is not `torch.optim.swa_utils.AveragedModel`: that one counts its updates on the CPU.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = deepcopy(model).requires_grad_(False)
        self._decay, self._started = decay, False

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in one step of `model`."""
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        floats = [(average, now) for average, now in pairs if average.is_floating_point()]
        averages, nows = (list(tensors) for tensors in zip(*floats, strict=True))
        torch._foreach_lerp_(averages, nows, 1 - self._decay if self._started else 1.0)
        for average, now in pairs:
            if not average.is_floating_point():
                average.copy_(now)
        self._started = True

    def state_dict(self) -> dict[str, object]:
        """State for a save point."""
        return {"module": self.module.state_dict(), "started": self._started}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Inverse of `state_dict`."""
        self.module.load_state_dict(state["module"])
        self._started = bool(state["started"])
