"""How much memory a training needs, asked before it starts."""

from typing import NamedTuple

import psutil
import torch
from torch import Tensor

from cmat_lib.base.errors import LocalError
from cmat_lib.config import Config
from cmat_lib.config.schema import TrainingConfig
from cmat_lib.models import build_model, input_shapes
from cmat_lib.training.devices import is_on
from cmat_lib.views.panel import free_memory

COPIES = 5  # of every weight: itself, its gradient, two moments of AdamW, and the best epoch's; one more of an average
# Share of what eager float32 keeps that is still kept, measured at full size: (half precision, compiled) -> share.
KEPT = {(False, False): 1.0, (True, False): 0.53, (False, True): 0.73, (True, True): 0.41}


class Need(NamedTuple):
    """Bytes that training needs on its device: `fixed` whatever the batch, and for each of its samples."""

    fixed: float
    per_sample: float

    def total(self, batch: int) -> float:
        """Bytes for a batch of this size."""
        return self.fixed + batch * self.per_sample


def memory_need(config: Config) -> Need:
    """What weights, optimiser and the tensors kept for the backward pass need, in float32.

    Every tensor that autograd keeps is counted on torch's ``meta`` device, which computes nothing, for two sizes of the
    batch. A lower bound: temporaries of single kernels come on top.
    """
    with torch.device("meta"):
        model = build_model(config).train()
    small, large = (_kept_bytes(model, config, batch) for batch in (64, 128))
    per_sample, copies = (large - small) / 64, COPIES + (config.training.ema_decay > 0)
    weights = sum(parameter.numel() for parameter in model.parameters()) * 4
    return Need(copies * weights + small - 64 * per_sample, per_sample)


def _kept_bytes(model: torch.nn.Module, config: Config, batch: int) -> int:
    """Bytes that autograd keeps of one forward pass, weights not counted."""
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    inputs = {name: torch.empty(batch, *shape, device="meta") for name, shape in input_shapes(config).items()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        answers = model.answers(inputs)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    sizes = [tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights]
    del answers  # the graph has to live until here, or storages would be counted that share one address
    return sum(sizes)


def check_memory(config: Config, device: torch.device, batch: int, processes: int = 1) -> None:
    """A LocalError, which says what would fit, if the device cannot hold a `batch`, which the processes share."""
    need, free, training = memory_need(config), free_memory(device), config.training
    share = KEPT[is_on(training.mixed_precision, device), is_on(training.compile, device)]
    need = need._replace(per_sample=need.per_sample * share)
    if need.total(batch // processes) <= free:
        return
    fits = 0.7 * (free - need.fixed) / need.per_sample  # a margin for what single kernels take for a while
    parts = next((2**k for k in range(1, 32) if batch / processes / 2**k <= fits), 2 * batch)
    raise LocalError(
        f"a batch of {batch} samples (training.batch_size) needs about {need.total(batch // processes) / 1e9:.1f} GB "
        f"on {device}, where {free / 1e9:.1f} GB are free; {_smaller(training, batch, parts, processes)}"
    )


def _smaller(training: TrainingConfig, batch: int, parts: int, processes: int) -> str:
    """Advice: a batch of one of `parts`, and the accumulation that keeps about as many samples in a step."""
    size = batch // parts // processes * processes
    if size == 0:
        return "no batch fits: use a smaller model, or another device"
    group = round(batch * training.gradient_accumulation_steps / size)
    keys = f"training.batch_size: {size} and training.gradient_accumulation_steps: {group}"
    return f"{keys} take about as many samples to an optimiser step"


def out_of_memory(training: TrainingConfig, batch: int, processes: int) -> LocalError:
    """Error for a device that ran out of memory although the estimate fitted."""
    advice = _smaller(training, batch, 2, processes)
    return LocalError(f"the device ran out of memory with a batch of {batch} samples (training.batch_size); {advice}")


def memory_in_use(device: torch.device) -> int:
    """Largest number of bytes that tensors have held on a GPU so far; on a CPU what the process holds now."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss
