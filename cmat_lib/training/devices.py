"""Where training runs and with which switches: device, precision, determinism, processes."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies import DDPStrategy

from cmat_lib.base.errors import CmatError
from cmat_lib.config.schema import TrainingConfig

PATIENCE = timedelta(days=1)  # while the first process prepares the data, which may take hours, the others wait


def pick_device(training: TrainingConfig) -> torch.device:
    """Device that ``training.device`` asks for; a CmatError for a GPU that torch does not see."""
    if training.device == "cuda" and not torch.cuda.is_available():
        raise CmatError("training.device is 'cuda' but torch sees no GPU; use 'auto' or 'cpu'")
    use_gpu = training.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def is_on(switch: str, device: torch.device) -> bool:
    """Whether a switch is on; ``auto`` is on for a GPU only."""
    return switch == "on" or (switch == "auto" and device.type == "cuda")


def processes(training: TrainingConfig) -> int:
    """Processes of the training, over all nodes."""
    return training.devices * training.num_nodes


class UnroundedInputs(MixedPrecision):
    """Mixed precision whose inputs stay as they are: targets and sample weights must not be rounded to 8 bits."""

    def convert_input(self, data: Any) -> Any:
        """Inputs as they came; autocast converts what a kernel takes in half precision."""
        return data


def make_fabric(training: TrainingConfig) -> Fabric:
    """Fabric for the processes of `training`, not launched, with the switches of the parameters applied.

    A CmatError if GPUs are asked for and torch sees none, or fewer than ``training.devices``.
    """
    device = pick_device(training)
    if device.type == "cuda" and training.devices > torch.cuda.device_count():
        raise CmatError(f"training.devices is {training.devices} but torch sees {torch.cuda.device_count()} GPUs")
    if training.determinism == "strict":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS is not deterministic
    torch.use_deterministic_algorithms(training.determinism == "strict")
    torch.backends.cudnn.benchmark = is_on(training.cudnn_benchmark, device)
    torch.set_float32_matmul_precision("high" if is_on(training.tf32, device) else "highest")
    plugins = [UnroundedInputs(half_precision(device), device.type)] if is_on(training.mixed_precision, device) else []
    strategy = "auto"
    if processes(training) > 1:
        # Frozen encoders have no gradient in the first epochs, which the reducer must be told to expect.
        strategy = DDPStrategy(find_unused_parameters=training.freeze_encoder_epochs > 0, timeout=PATIENCE)
    places = {"devices": training.devices, "num_nodes": training.num_nodes}
    return Fabric(accelerator=device.type, strategy=strategy, plugins=plugins, **places)


def half_precision(device: torch.device) -> str:
    """Kind of mixed precision: bf16 where the chip computes in it, else fp16, whose gradients need scaling."""
    bf16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if bf16 else "16-mixed"
