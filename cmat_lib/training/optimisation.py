"""What is minimised and how: loss of both tasks, parameter groups, steps of an epoch, learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.config import Config
from cmat_lib.config.schema import AUXILIARY_TARGETS, TrainingConfig
from cmat_lib.models.losses import LOSSES, MultiTaskLoss
from cmat_lib.training.devices import half_precision, is_on
from cmat_lib.views.panel import Panel


def parameter_groups(model: nn.Module, loss: nn.Module, training: TrainingConfig) -> list[dict[str, Any]]:
    """Parameter groups of AdamW: transformer layers have their own rate; biases, norms and positions do not decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        transformer = name.startswith("fusion.transformer.")
        decays = parameter.ndim >= 2 and "pos_embedding" not in name and "cls_token" not in name
        groups.setdefault((transformer, decays), []).append(parameter)
    groups.setdefault((False, False), []).extend(loss.parameters())
    rates = {False: training.learning_rate, True: training.transformer_learning_rate}
    return [
        {"params": parameters, "lr": rates[transformer], "weight_decay": training.weight_decay if decays else 0.0}
        for (transformer, decays), parameters in groups.items()
    ]


def build_loss(config: Config, panel: Panel) -> MultiTaskLoss:
    """Loss of all tasks on the CPU, with the positive weight and the scales of the targets from the training part.

    A target that is the same in every training row is a CmatError.
    """
    training = config.training
    rows = panel.samples[panel.samples["part"] == "train"]
    auxiliary = rows[list(AUXILIARY_TARGETS) if config.model.auxiliary_head else []]
    clip = rows["max_pct"].quantile(training.max_pct_clip_quantile)
    clipped = rows["max_pct"].clip(upper=clip)
    for name, target in {"max_pct": clipped, **auxiliary}.items():
        if not target.std() > 0:
            raise CmatError(f"{name} is the same in every row of the train part; check prices and label columns")
    if training.loss not in LOSSES:
        raise CmatError(f"training.loss: there is no loss '{training.loss}'{nearest(training.loss, LOSSES)}")
    return LOSSES[training.loss](
        gamma=training.focal_gamma,
        positive_weight=positive_weight(training, panel),
        max_pct_std=float(clipped.std()),
        max_pct_clip=float(clip),
        task_weighting=training.task_weighting,
        task_weights=(training.trigger_weight, training.max_pct_weight),
        auxiliary_scales=list(zip(auxiliary.mean(), auxiliary.std(), strict=True)),
        auxiliary_weight=training.auxiliary_weight,
    )


def _base_rate(panel: Panel) -> float:
    return panel.samples.loc[panel.samples["part"] == "train", "trigger"].mean()


def positive_weight(training: TrainingConfig, panel: Panel) -> float:
    """Weight of a trigger in the loss; ``balanced`` is negatives over positives of the training part."""
    rate = _base_rate(panel)
    return float((1 - rate) / rate if training.positive_weight == "balanced" else training.positive_weight)


def prior(loss: MultiTaskLoss, panel: Panel) -> float:
    """Share of triggers in the training part, counted by their weight in the loss."""
    weighted = loss.positive_weight * _base_rate(panel)
    return float(weighted / (weighted + 1 - _base_rate(panel)))


def micro_batch(samples: int, training: TrainingConfig, processes: int = 1) -> int:
    """Samples of one forward pass over all processes: ``training.batch_size``, or all samples where they are fewer.

    A batch that cannot be shared equally among the processes is a CmatError.
    """
    if training.batch_size % processes:
        raise CmatError(
            f"training.batch_size {training.batch_size} is shared among {processes} processes (training.devices times "
            f"training.num_nodes) and must be a multiple of them"
        )
    return min(training.batch_size, math.ceil(samples / processes) * processes)


def count_steps(samples: int, training: TrainingConfig, processes: int = 1) -> int:
    """Optimiser steps of an epoch over `samples` samples; an accumulation that the epoch cuts short still steps."""
    forward_passes = math.ceil(samples / micro_batch(samples, training, processes))
    return math.ceil(forward_passes / training.gradient_accumulation_steps)


def adamw(model: nn.Module, loss: nn.Module, training: TrainingConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`, as one kernel for all parameters.

    With fp16 the fused kernel would unscale the gradients itself, which leaves no place to clip them before.
    """
    scales = is_on(training.mixed_precision, device) and half_precision(device) == "16-mixed"
    return torch.optim.AdamW(parameter_groups(model, loss, training), fused=not scales)


def schedule(step: int, total: int, warmup_share: float) -> float:
    """Factor of the learning rate at an optimiser step: linear warm-up, then half a cosine down to 0."""
    warmup = max(1, round(total * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
