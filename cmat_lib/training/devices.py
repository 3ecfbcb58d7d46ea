"""Where training runs and with which switches: device, precision, determinism, processes."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric

from cmat_lib.errors import CmatError
from cmat_lib.schema import TrainingConfig


def pick_device(training: TrainingConfig) -> torch.device:
    """Device that ``training.device`` asks for.

    Raises
    ------
    CmatError
        If a GPU is asked for and torch sees none.
    """
    if training.device == "cuda" and not torch.cuda.is_available():
        raise CmatError("training.device is 'cuda' but torch sees no GPU; use 'auto' or 'cpu'")
    use_gpu = training.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def is_on(switch: str, device: torch.device) -> bool:
    return switch == "on" or (switch == "auto" and device.type == "cuda")


def make_fabric(training: TrainingConfig, device: torch.device) -> Fabric:
    """Fabric on one device, with the switches of the parameters applied."""
    torch.backends.cudnn.benchmark = is_on(training.cudnn_benchmark, device)
    torch.set_float32_matmul_precision("high" if is_on(training.tf32, device) else "highest")
    torch.use_deterministic_algorithms(training.determinism == "strict")
    precision = "32-true"
    if is_on(training.mixed_precision, device):
        bf16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16-mixed" if bf16 else "16-mixed"
    return Fabric(accelerator=device.type, devices=1, precision=precision)
