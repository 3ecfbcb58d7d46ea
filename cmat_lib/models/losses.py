"""Loss of the two tasks: focal loss on the trigger, squared error on the largest rise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def focal_loss(logits: Tensor, target: Tensor, gamma: float, positive_weight: float) -> Tensor:
    """Binary focal loss, ``-w y (1 - p)^gamma log p - (1 - y) p^gamma log(1 - p)`` with ``p = sigmoid(logit)``.

    Of each sample, in the shape of `logits` and `target` (0 or 1). Written in log-sigmoids, so that neither the value
    nor its gradient overflows for large logits; `gamma` 0 is the weighted cross-entropy. Lin et al., *Focal Loss for
    Dense Object Detection*, arXiv 1708.02002, eq. 5 (here with the weight 1 on negatives).

    Examples
    --------
    >>> round(focal_loss(torch.zeros(1), torch.ones(1), gamma=2, positive_weight=4).item(), 4)  # log 2
    0.6931
    """
    logits, target = logits.float(), target.float()  # half precision would lose what the exponent leaves of easy cases
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)  # (B,)
    positive = positive_weight * target * torch.exp(gamma * log_q) * log_p  # (B,)
    negative = (1 - target) * torch.exp(gamma * log_p) * log_q  # (B,)
    return -(positive + negative)


class MultiTaskLoss(nn.Module):
    """Weighted sum of a focal loss on the trigger, a squared error on the largest rise, and auxiliary losses.

    ``fixed``: ``total = w_1 L_1 + w_2 L_2``. ``learned``: ``total = sum_i exp(-s_i) L_i + s_i`` with the log variances
    ``s_i`` as parameters that start at ``-log w_i``, that is at the fixed weights (Kendall, Gal, Cipolla, *Multi-Task
    Learning Using Uncertainty to Weigh Losses*, arXiv 1705.07115, section 3.2).

    Parameters
    ----------
    positive_weight : float
        Weight of the triggers.
    max_pct_std, max_pct_clip : float
        In percent: the training standard deviation, in which errors are counted, and what targets are clipped to.
    task_weighting : {"fixed", "learned"}
        Whether the weights of the two tasks are parameters of the loss.
    task_weights : (float, float)
        Of trigger and max_pct; for ``learned`` those at the start, which must be positive.
    auxiliary_scales : sequence of (float, float)
        Training mean and standard deviation of each auxiliary target, in its own unit; empty without such targets.
        Their loss is the Huber loss in standard deviations, summed over the targets.

    Attributes
    ----------
    terms : tuple of str
        Names of the losses, in order, the total first.
    log_variance : nn.Parameter, shape (2,), or None
        Log variances of trigger and max_pct; None for ``fixed``.

    Raises
    ------
    ValueError
        If a number is out of its range or `task_weighting` is unknown.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        positive_weight: float = 1.0,
        max_pct_std: float = 1.0,
        max_pct_clip: float = math.inf,
        task_weighting: str = "fixed",
        task_weights: Sequence[float] = (1.0, 1.0),
        auxiliary_scales: Sequence[tuple[float, float]] = (),
        auxiliary_weight: float = 1.0,
    ) -> None:
        super().__init__()
        learned = task_weighting == "learned"
        checks = (
            ("gamma", gamma, gamma >= 0, "at least 0"),
            ("positive_weight", positive_weight, 0 < positive_weight < math.inf, "positive: are there triggers?"),
            ("max_pct_std", max_pct_std, 0 < max_pct_std < math.inf, "positive: does max_pct vary?"),
            ("max_pct_clip", max_pct_clip, not math.isnan(max_pct_clip), "a number"),
            ("task_weighting", task_weighting, task_weighting in ("fixed", "learned"), "'fixed' or 'learned'"),
            ("task_weights", task_weights, not learned or min(task_weights) > 0, "positive to be learned"),
        )
        for name, value, holds, wanted in checks:
            if not holds:
                raise ValueError(f"{name} is {value}, it must be {wanted}")
        self.gamma, self.positive_weight = gamma, positive_weight
        self.max_pct_std, self.max_pct_clip = max_pct_std, max_pct_clip
        self.auxiliary_weight = auxiliary_weight
        self.terms = ("total", "trigger", "max_pct", *(["auxiliary"] if auxiliary_scales else []))
        scales = torch.tensor(auxiliary_scales, dtype=torch.float32).reshape(-1, 2)  # (4 or 0, 2)
        self.register_buffer("auxiliary_scales", scales, persistent=False)
        weights = torch.tensor(task_weights, dtype=torch.float32)  # (2,)
        self.register_buffer("weights", None if learned else weights, persistent=False)
        self.log_variance = nn.Parameter(-weights.log()) if learned else None  # (2,)

    def forward(
        self,
        trigger_logits: Tensor,
        max_pct: Tensor,
        trigger: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        forecast: Tensor | None = None,
        auxiliary: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch, computed in float32: weighted sums over the samples, one number each.

        They are ``total``, and before their weights ``trigger``, ``max_pct`` and, with auxiliary targets,
        ``auxiliary``.

        Parameters
        ----------
        trigger_logits, max_pct : Tensor, shape (B, 1)
            The latter in percent, as its `target`.
        trigger, target : Tensor, shape (B,)
        weight : Tensor, shape (B,), optional
            Weight of each sample; ``1 / B`` each, and so means, by default. The losses of several batches whose weights
            sum to 1 add up to the loss of one large batch.
        forecast, auxiliary : Tensor, shape (B, 4), optional
            The auxiliary targets in standard deviations around the mean as forecast, and as they were.

        Raises
        ------
        ValueError
            If predictions and targets differ in shape, which would otherwise broadcast to (B, B).
        """
        logits, predicted = trigger_logits.squeeze(1), max_pct.squeeze(1)  # (B,)
        if not logits.shape == predicted.shape == trigger.shape == target.shape:
            shapes = [tuple(x.shape) for x in (trigger_logits, max_pct, trigger, target)]
            raise ValueError(f"expected shapes (B, 1), (B, 1), (B,), (B,), got {', '.join(map(str, shapes))}")
        error = (predicted - target.float().clamp(max=self.max_pct_clip)) / self.max_pct_std  # (B,)
        weight = torch.full_like(error, 1 / len(error)) if weight is None else weight  # (B,)
        losses = (torch.stack(self.of_samples(logits, trigger, error)) * weight).sum(1)  # (2,)
        if self.log_variance is None:
            total = (self.weights * losses).sum()
        else:
            total = (torch.exp(-self.log_variance) * losses + weight.sum() * self.log_variance).sum()
        found = {"total": total, "trigger": losses[0], "max_pct": losses[1]}
        if "auxiliary" in self.terms:
            center, scale = self.auxiliary_scales.unbind(1)
            huber = F.huber_loss(forecast.float(), (auxiliary - center) / scale, reduction="none").sum(1)  # (B,)
            found["auxiliary"] = (huber * weight).sum()
            found["total"] = found["total"] + self.auxiliary_weight * found["auxiliary"]
        return found

    def of_samples(self, logits: Tensor, trigger: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of each sample, (B,): of the trigger, and of the largest rise by its error in standard deviations."""
        return focal_loss(logits, trigger, self.gamma, self.positive_weight), error.square()


LOSSES: dict[str, type[MultiTaskLoss]] = {"multi_task": MultiTaskLoss}
