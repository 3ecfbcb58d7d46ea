"""What attribution is measured in: the loss of the trigger, and means over samples with their intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from cmat_lib.config import Config
from cmat_lib.evaluation.uncertainty import Resampling, block_bootstrap, intervals
from cmat_lib.models.losses import focal_loss
from cmat_lib.training.optimisation import positive_weight
from cmat_lib.views.panel import Panel

Loss = Callable[[np.ndarray, np.ndarray], np.ndarray]  # logits (n, ...) and triggers (n,) -> losses (n, ...)


def trigger_loss(config: Config, panel: Panel) -> Loss:
    """The training's focal loss of the trigger, of each sample.

    Parameters
    ----------
    panel : Panel
        Its training part gives the balanced weight.

    Returns
    -------
    callable
        Logits (n, ...) and triggers (n,) -> losses (n, ...), float64.
    """
    weight = positive_weight(config.training, panel)

    def loss(logit: np.ndarray, trigger: np.ndarray) -> np.ndarray:
        target = np.broadcast_to(trigger.reshape(-1, *[1] * (logit.ndim - 1)), logit.shape)
        found = focal_loss(torch.tensor(logit), torch.tensor(target.copy()), config.training.focal_gamma, weight)
        return found.double().numpy()

    return loss


def mean_table(values: np.ndarray, timestamps: pd.Series, resampling: Resampling) -> pd.DataFrame:
    """Means over samples with their moving-block bootstrap intervals.

    Parameters
    ----------
    values : ndarray, shape (n, Q)
        A sample with a NaN does not count in its column.

    Returns
    -------
    DataFrame of Q rows
        ``value``, ``low``, ``high``; the limits are NaN where time holds too few blocks.
    """
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)

    def means(weights: np.ndarray) -> np.ndarray:
        total = weights @ defined  # (Q,)
        return np.divide(weights @ filled, total, out=np.full(len(total), np.nan), where=total > 0)

    limits = intervals(block_bootstrap(timestamps, means, resampling), resampling.confidence)
    return pd.DataFrame({"value": means(np.ones(len(values))), "low": limits[:, 0], "high": limits[:, 1]})
