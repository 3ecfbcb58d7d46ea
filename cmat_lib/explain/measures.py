"""What attribution is measured in: the loss of the trigger, and means over samples with their intervals."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from cmat_lib.config import Config
from cmat_lib.evaluation.uncertainty import Resampling, bootstrap_table
from cmat_lib.evaluation.weighted import quotient
from cmat_lib.training.optimisation import build_loss
from cmat_lib.views.panel import Panel

Loss = Callable[[np.ndarray, np.ndarray], np.ndarray]  # logits (n, ...) and triggers (n,) -> losses (n, ...)


def trigger_loss(config: Config, panel: Panel) -> Loss:
    """What the trigger of each sample costs in the training (float64); the panel gives the balanced weight."""
    training = build_loss(config, panel)

    @torch.no_grad()
    def loss(logit: np.ndarray, trigger: np.ndarray) -> np.ndarray:
        target = np.broadcast_to(trigger.reshape(-1, *[1] * (logit.ndim - 1)), logit.shape)
        logits, targets = (torch.tensor(x.ravel(), dtype=torch.float32) for x in (logit, target))
        found, _ = training.of_samples(logits, targets, torch.zeros_like(logits))  # the rise is not asked for
        return found.double().numpy().reshape(logit.shape)

    return loss


def weighted_means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means (G, M) of values (N, M) under weights (G, N); NaN where all weights are 0."""
    return quotient(weights @ values, weights.sum(axis=1, keepdims=True))


def mean_table(
    values: np.ndarray, timestamps: pd.Series, resampling: Resampling, names: Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """Means of values (n, Q) with their block-bootstrap intervals: `names`, ``value``, ``low``, ``high``, Q rows.

    A sample with a NaN does not count in its column. The limits are NaN where time holds too few blocks.
    """
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    table = bootstrap_table(timestamps, lambda weights: quotient(weights @ filled, weights @ defined), resampling)
    return pd.DataFrame(names, index=table.index).join(table)
