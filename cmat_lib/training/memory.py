"""How much memory a training needs, asked before it starts."""

from __future__ import annotations

from typing import NamedTuple

import psutil
import torch
from torch import Tensor

from cmat_lib.config import Config
from cmat_lib.data.panel import free_memory
from cmat_lib.errors import CmatError
from cmat_lib.models import build_model
from cmat_lib.schema import TrainingConfig
from cmat_lib.training.devices import is_on

COPIES = 5  # of every weight: itself, its gradient, two moments of AdamW, and the best epoch's


class Need(NamedTuple):
    """Bytes that training needs on its device."""

    fixed: float  # whatever the batch
    per_sample: float  # of the batch

    def total(self, batch: int) -> float:
        """Bytes for a batch of this size."""
        return self.fixed + batch * self.per_sample


def memory_need(config: Config) -> Need:
    """What weights, optimiser and the tensors kept for the backward pass need, in float32.

    The model runs on torch's ``meta`` device, which computes shapes and nothing else, once with a small and once with a
    larger batch; every tensor that autograd keeps is counted.

    Parameters
    ----------
    config : Config

    Returns
    -------
    Need
        A lower bound: temporaries of single kernels come on top.
    """
    with torch.device("meta"):
        model = build_model(config).train()
    small, large = (_kept_bytes(model, config, batch) for batch in (64, 128))
    per_sample = (large - small) / 64
    weights = sum(parameter.numel() for parameter in model.parameters()) * 4
    return Need(COPIES * weights + small - 64 * per_sample, per_sample)


def _kept_bytes(model: torch.nn.Module, config: Config, batch: int) -> int:
    """Bytes that autograd keeps of one forward pass, weights not counted."""
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    shapes = ((config.data.sequence_length, len(config.data.channel_names)), (config.tda.feature_dim,))
    shapes += ((len(config.complexity.names),), (2,))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        answers = model.answers(*(torch.empty(batch, *shape, device="meta") for shape in shapes))
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    sizes = [tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights]
    del answers  # the graph has to live until here, or storages would be counted that share one address
    return sum(sizes)


def check_memory(config: Config, device: torch.device, batch: int) -> None:
    """Stop before training if the device surely cannot hold a batch.

    Parameters
    ----------
    config : Config
    device : torch.device
    batch : int
        Samples of one forward pass on this device.

    Raises
    ------
    CmatError
        With a batch that fits, and the accumulation that keeps the samples of an optimiser step.
    """
    need, free = memory_need(config), free_memory(device)
    half = 0.5 if is_on(config.training.mixed_precision, device) else 1.0  # half precision keeps half as much
    need = need._replace(per_sample=half * need.per_sample)
    if need.total(batch) <= free:
        return
    advice = _advice(config.training, batch, (free - need.fixed) / need.per_sample)
    raise CmatError(
        f"training.batch_size {config.training.batch_size} needs at least {need.total(batch) / 1e9:.1f} GB on "
        f"{device}, where {free / 1e9:.1f} GB are free; {advice}"
    )


def _advice(training: TrainingConfig, batch: int, fits: float) -> str:
    parts = next((2**k for k in range(1, 32) if batch / 2**k <= 0.7 * fits), None)  # a margin for temporaries
    if parts is None or parts >= training.batch_size:
        return "no batch fits: use a smaller model, or another device"
    size, group = -(-training.batch_size // parts), training.gradient_accumulation_steps * parts
    return (
        f"training.batch_size: {size} with training.gradient_accumulation_steps: {group} fits and takes as many "
        "samples to an optimiser step"
    )


def out_of_memory(training: TrainingConfig) -> CmatError:
    """Error for a device that ran out of memory although the estimate fitted."""
    size, group = -(-training.batch_size // 2), 2 * training.gradient_accumulation_steps
    return CmatError(
        f"the device ran out of memory with training.batch_size {training.batch_size}; training.batch_size: {size} "
        f"with training.gradient_accumulation_steps: {group} takes as many samples to an optimiser step"
    )


def memory_in_use(device: torch.device) -> int:
    """Largest number of bytes that tensors have held on a GPU so far; on a CPU what the process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
