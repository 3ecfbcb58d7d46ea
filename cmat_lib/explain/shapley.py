"""Exact Shapley values of the modalities.

With K modalities there are ``2 ** K`` coalitions (8, or 16 with the clock), so nothing is sampled. A modality that is
not in a coalition is replaced by its mean embedding over training samples: it is there, and says nothing.
"""

from __future__ import annotations

from itertools import combinations
from math import factorial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cmat_lib.models.multitask import MultiTaskCrossModalAttention, evaluation_mode
from cmat_lib.schema import MODALITIES

if TYPE_CHECKING:
    from cmat_lib.data.panel import Batch, Panel

Features = dict[str, Tensor]  # modality that the model sees -> (B, width)


class Shapley(NamedTuple):
    """What each modality adds to the trigger's logit of each sample: ``base + values.sum(1) = logit``."""

    modalities: tuple[str, ...]  # K
    values: np.ndarray  # (B, K)
    pairs: list[tuple[str, str]]  # P = K (K - 1) / 2
    interactions: np.ndarray  # (B, P)
    base: np.ndarray  # (B,), logit with every modality at its mean
    logit: np.ndarray  # (B,), of the model


def coalitions(count: int) -> np.ndarray:
    """All coalitions of K players, (2 ** K, K) bool; row r has player i where bit i of r is set."""
    return (np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(bool)


def shapley_matrix(count: int) -> np.ndarray:
    """Shapley values of K players as a linear map of the worths of all coalitions.

    Shapley (1953), *A value for n-person games*: player i gets the mean of what it adds over all orders of arrival,
    ``sum_S |S|! (K - |S| - 1)! / K! (v(S + i) - v(S))`` over the S without i.

    Parameters
    ----------
    count : int
        Players K.

    Returns
    -------
    ndarray, shape (K, 2 ** K)
        Columns in the order of `coalitions`.
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

    Parameters
    ----------
    count : int
        Players K.

    Returns
    -------
    ndarray, shape (K (K - 1) / 2, 2 ** K)
        Pairs in the order of ``itertools.combinations``.
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
    encoded = dict(zip(MODALITIES, model.encode(*batch.inputs), strict=True))
    return {name: x for name, x in encoded.items() if x is not None}


@torch.no_grad()
def embed_samples(model: MultiTaskCrossModalAttention, panel: Panel, index: Tensor, size: int) -> Features:
    """Encoded modalities of samples, (n, width) each, in evaluation mode."""
    with evaluation_mode(model):
        parts = [embed(model, batch) for batch in panel.batches(index, size)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def logits(model: MultiTaskCrossModalAttention, features: Features) -> Tensor:
    """Trigger logits (B,) from encoded modalities."""
    return model.read_off(model.fusion(*(features.get(name) for name in MODALITIES))).trigger_logits[:, 0]


@torch.no_grad()
def mean_embedding(model: MultiTaskCrossModalAttention, panel: Panel, index: Tensor, size: int) -> Features:
    """Mean embedding of every modality over samples, (width,) each, in evaluation mode.

    Parameters
    ----------
    model : MultiTaskCrossModalAttention
    panel : Panel
    index : Tensor of int64, shape (n,)
        Training samples.
    size : int
        Samples per forward pass.
    """
    with evaluation_mode(model):
        sums = [{name: x.double().sum(0) for name, x in embed(model, b).items()} for b in panel.batches(index, size)]
    return {name: (sum(part[name] for part in sums) / len(index)).float() for name in sums[0]}


@torch.no_grad()
def coalition_logits(model: MultiTaskCrossModalAttention, features: Features, means: Features) -> Tensor:
    """Trigger logits under every coalition of modalities, in evaluation mode.

    Parameters
    ----------
    model : MultiTaskCrossModalAttention
    features : dict of str to Tensor, shape (B, width)
        From `embed`.
    means : dict of str to Tensor, shape (width,)
        From `mean_embedding`.

    Returns
    -------
    Tensor, shape (B, 2 ** K)
        In the order of `coalitions`, of the modalities as `features` has them.
    """
    columns = []
    with evaluation_mode(model):
        for members in coalitions(len(features)):
            chosen = {
                name: x if seen else means[name].expand_as(x)
                for seen, (name, x) in zip(members, features.items(), strict=True)
            }
            columns.append(logits(model, chosen))
    return torch.stack(columns, dim=1)  # (B, 2 ** K)


def modality_shapley(model: MultiTaskCrossModalAttention, batch: Batch, means: Features) -> Shapley:
    """Exact Shapley values and pairwise interactions of the modalities for the trigger's logit.

    Parameters
    ----------
    model : MultiTaskCrossModalAttention
        Every module is left in the mode it was found in.
    batch : Batch
        B samples.
    means : dict of str to Tensor, shape (width,)
        From `mean_embedding` over training samples.

    Returns
    -------
    Shapley
    """
    with torch.no_grad(), evaluation_mode(model):
        features = embed(model, batch)
    worth = coalition_logits(model, features, means).double().cpu().numpy()  # (B, 2 ** K)
    return shapley_of(worth, tuple(features))


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
