"""The panel: the numbers of all views, samples as an index into them, and batches gathered on the device.

A sample is a row of each view's array (R, F), or the window that ends there, cut from a strided view (``unfold``) by
``index_select``, so that memory grows with candles, not with candles times look-back.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil
import torch
from torch import Tensor

from cmat_lib.config import Config
from cmat_lib.config.schema import AUXILIARY_TARGETS
from cmat_lib.views import VIEWS, View
from cmat_lib.views.registry import Scaler
from cmat_lib.views.scaling import sample_rows_of

LARGEST_SHARE = 0.5  # of a GPU's free memory that the panel may take; the rest is for training
CLIP = 10.0  # robustly scaled inputs beyond this say "extreme", and nothing more


class Batch(NamedTuple):
    """Samples as tensors on one device; targets are NaN where there is no label."""

    inputs: dict[str, Tensor]  # view -> (B, F), or (B, L, F) where it shows windows
    trigger: Tensor  # (B,)
    max_pct: Tensor  # (B,)
    auxiliary: Tensor  # (B, 4)
    weight: Tensor  # (B,)

    @property
    def targets(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the loss takes."""
        return self.trigger, self.max_pct, self.auxiliary


class _Shown:
    """Scaled numbers of one view on a device, and how a sample is cut out of them."""

    def __init__(self, view: View, values: np.ndarray, rows: np.ndarray, scaler: Scaler, config: Config, home):
        self.length, self.rebase = view.window(config), view.rebase(config)
        self.values = torch.tensor(values, device=home)  # (R, F)
        self.values.sub_(self.values.new_tensor(scaler["center"]))
        self.values.div_(self.values.new_tensor(scaler["scale"]))
        if not self.length:
            self.values.clamp_(-CLIP, CLIP)
        self.rows = torch.tensor(rows, device=home)  # (N,)

    def gather(self, index: Tensor) -> Tensor:
        """Samples by number: (B, F), or (B, L, F); windows are clipped after they are rebased."""
        rows = self.rows[index]
        if not self.length:
            return self.values[rows].float()
        windows = self.values.unfold(0, self.length, 1).index_select(0, rows - self.length + 1)  # (B, F, L)
        windows = windows if self.rebase is None else self.rebase(windows)
        return windows.clamp_(-CLIP, CLIP).transpose(1, 2).float()


class Panel:
    """All inputs and targets of a run on one device; a sample is a number from 0 to N − 1.

    `arrays` (R, F) are the numbers of every view, unscaled; they may be memory maps and keep their precision, while
    batches are float32. What does not fit into a GPU's memory stays in the machine's, with a warning; batches are cut
    there and sent over. `weight` (N,) is that of each sample in the loss: the samples' column ``weight``, else 1.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        samples: pd.DataFrame,
        scalers: Mapping[str, Scaler],
        config: Config,
        device: torch.device | str = "cpu",
    ):
        self.samples, self.scalers, self.device = samples, scalers, torch.device(device)
        self._home = _home(self.device, 4 * sum(values.size for values in arrays.values()))
        self.shown = {}
        for view in VIEWS.active(config):
            if (name := view.name) in arrays:
                rows = sample_rows_of(view, samples)
                self.shown[name] = _Shown(view, arrays[name], rows, scalers[name], config, self._home)
        columns = ("trigger", "max_pct", list(AUXILIARY_TARGETS))  # (N,), (N,), (N, 4)
        self.labels = tuple(torch.tensor(samples[c].to_numpy(np.float32), device=self.device) for c in columns)
        weight = samples["weight"].to_numpy(np.float32) if "weight" in samples else np.ones(len(samples), np.float32)
        self.weight = torch.from_numpy(weight).to(self.device)  # (N,)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def everything(self) -> Tensor:
        """Numbers of all samples, on the device."""
        return torch.arange(len(self), device=self.device)

    def index(self, part: str) -> Tensor:
        """Numbers of a part's samples, in time order within each symbol, shape (n,), on the device."""
        return torch.from_numpy(np.flatnonzero(self.samples["part"] == part)).to(self.device)

    def gather(self, index: Tensor) -> Batch:
        """Samples by number, (B,) int64."""
        home = index.to(self._home)
        inputs = {name: shown.gather(home).to(self.device) for name, shown in self.shown.items()}
        return Batch(inputs, *self.targets(index), self.weight[index])

    def targets(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Trigger (B,), largest rise in percent (B,) and auxiliary targets (B, 4) of the samples of `index`."""
        return tuple(target[index] for target in self.labels)

    def batches(self, index: Tensor, size: int) -> Iterator[Batch]:
        """Batches over `index`, in its order; the last one may be smaller."""
        return map(self.gather, index.split(size))


def _home(device: torch.device, size: int) -> torch.device:
    """Where inputs of `size` bytes live: on the device unless they would take most of its free memory."""
    free = free_memory(device)
    if device.type == "cpu" or size < LARGEST_SHARE * free:
        return device
    much = f"the panel ({size / 1e9:.1f} GB) leaves too little of the {free / 1e9:.1f} GB that are free on {device}"
    stays = "it stays in the machine's memory, and batches are sent over, which is slower"
    warnings.warn(f"{much}: {stays}", stacklevel=3)
    return torch.device("cpu")


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, what torch keeps for reuse included, or in the machine."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
