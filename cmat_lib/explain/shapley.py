"""Exact Shapley values of the modalities.

With K modalities there are ``2 ** K`` coalitions (8, or 16 with the clock), so no order of arrival is sampled. A
modality that is not in a coalition shows what it showed in training samples drawn at random, and the mean of the
predicted probabilities counts, as in SAGE (Covert, Lundberg, Lee, arXiv 2004.00668). One mean embedding in their place
is cheaper and can be chosen, but lies where the model has seen nothing: its answer there is arbitrary, and every
modality that puts an end to that gets credit for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from math import factorial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cmat_lib.models.multitask import MultiTaskCrossModalAttention, evaluation_mode

if TYPE_CHECKING:
    from cmat_lib.views.panel import Batch, Panel

Features = dict[str, Tensor]  # modality that the model sees -> (B, width)


class Shapley(NamedTuple):
    """What each modality adds to the trigger's logit of each sample: ``base + values.sum(1) = logit``."""

    modalities: tuple[str, ...]  # K
    values: np.ndarray  # (B, K)
    pairs: list[tuple[str, str]]  # P = K (K - 1) / 2
    interactions: np.ndarray  # (B, P)
    base: np.ndarray  # (B,), logit with every modality absent
    logit: np.ndarray  # (B,), of the model


def coalitions(count: int) -> np.ndarray:
    """All coalitions of K players, (2 ** K, K) bool; row r has player i where bit i of r is set."""
    return (np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(bool)


def shapley_matrix(count: int) -> np.ndarray:
    """Shapley values of K players as a linear map of the worths of all coalitions.

    Shapley (1953), *A value for n-person games*: player i gets the mean of what it adds over all orders of arrival,
    ``sum_S |S|! (K - |S| - 1)! / K! (v(S + i) - v(S))`` over the S without i.

    Shape (K, 2 ** K) for `count` K players; columns in the order of `coalitions`.
    """
    members = coalitions(count)
    size = members.sum(axis=1)
    share = np.array([factorial(s) * factorial(count - s - 1) / factorial(count) for s in range(count)] + [0])
    matrix = np.where(members, share[size - 1][:, None], -share[size][:, None])
    return matrix.T


def interaction_matrix(count: int) -> np.ndarray:
    """Shapley interaction indices of all pairs of K players as a linear map of the worths of all coalitions.

    Grabisch & Roubens (1999), *An axiomatic approach to the concept of interaction among players*: the mean of
    ``v(S + ij) - v(S + i) - v(S + j) + v(S)`` with the weights ``|S|! (K - |S| - 2)! / (K - 1)!``.

    Shape (K (K - 1) / 2, 2 ** K) for `count` K players; pairs in the order of ``itertools.combinations``.
    """
    rows = []
    for i, j in combinations(range(count), 2):
        row = np.zeros(2**count)
        for bits in range(2**count):
            others = (bits & ~(1 << i | 1 << j)).bit_count()
            weight = factorial(others) * factorial(count - others - 2) / factorial(count - 1)
            row[bits] = weight if (bits >> i & 1) == (bits >> j & 1) else -weight
        rows.append(row)
    return np.array(rows).reshape(-1, 2**count)


def embed(model: MultiTaskCrossModalAttention, batch: Batch) -> Features:
    """Encoded modalities that the model sees."""
    return model.encode(batch.inputs)


@torch.no_grad()
def embed_samples(model: MultiTaskCrossModalAttention, panel: Panel, index: Tensor, size: int) -> Features:
    """Encoded modalities of samples, (n, width) each, in evaluation mode."""
    with evaluation_mode(model):
        parts = [embed(model, batch) for batch in panel.batches(index, size)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def logits(model: MultiTaskCrossModalAttention, features: Features) -> Tensor:
    """Trigger logits (B,) from encoded modalities."""
    return model.read_off(model.fusion(**features)).trigger_logits[:, 0]


class StandIns(NamedTuple):
    """What absent modalities show in place of their own."""

    background: Features  # embeddings of training samples, from `embed_samples`
    draws: int  # stand-ins of each sample, each a whole training sample; with 0, the mean embedding is the only one
    seed: int

    def rows(self, count: int) -> Tensor:
        """Rows of the background for `count` samples, (draws, count) int64: drawn at once, whatever the batches."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randint(len(next(iter(self.background.values()))), (self.draws, count), generator=generator)

    def show(self, rows: Tensor) -> Iterator[Features]:
        """Stand-ins by their `rows` (draws, B), one (B, width) per modality and draw; without draws the mean."""
        if not self.draws:
            yield {name: x.mean(0).expand(rows.shape[1], -1) for name, x in self.background.items()}
        for row in rows:
            yield {name: x[row.to(x.device)] for name, x in self.background.items()}


@torch.no_grad()
def coalition_logits(model: MultiTaskCrossModalAttention, features: Features, absent: Iterable[Features]) -> Tensor:
    """Trigger logits under every coalition of modalities, in evaluation mode.

    Parameters
    ----------
    features : dict of str to Tensor, shape (B, width)
        From `embed`.
    absent : iterable of dict of str to Tensor, shape (B, width)
        From `StandIns.take`; at least one.

    Returns
    -------
    Tensor of float64, shape (B, 2 ** K)
        Log-odds of the mean probability over the stand-ins, in the order of `coalitions`, of the modalities as
        `features` has them.
    """
    said = []
    with evaluation_mode(model):
        for other in absent:
            chosen = [
                {name: x if seen else other[name] for seen, (name, x) in zip(members, features.items(), strict=True)}
                for members in coalitions(len(features))
            ]
            said.append(torch.stack([logits(model, own) for own in chosen], dim=1))
    said = torch.stack(said).double()  # (draws, B, 2 ** K)
    yes, no = (torch.logsumexp(F.logsigmoid(sign * said), dim=0) for sign in (1, -1))
    return yes - no  # (B, 2 ** K)


def modality_shapley(model: MultiTaskCrossModalAttention, batch: Batch, absent: StandIns) -> Shapley:
    """Exact Shapley values and pairwise interactions of the modalities for the trigger's logit."""
    with torch.no_grad(), evaluation_mode(model):
        features = embed(model, batch)
    stand_ins = absent.show(absent.rows(len(batch.trigger)))
    return shapley_of(coalition_logits(model, features, stand_ins).cpu().numpy(), tuple(features))


def shapley_of(worth: np.ndarray, modalities: tuple[str, ...]) -> Shapley:
    """Shapley values from the logits under every coalition, (B, 2 ** K)."""
    count = len(modalities)
    return Shapley(
        modalities,
        worth @ shapley_matrix(count).T,
        list(combinations(modalities, 2)),
        worth @ interaction_matrix(count).T,
        worth[:, 0],
        worth[:, -1],
    )
