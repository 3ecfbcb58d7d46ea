"""Shapley values of the views that a model sees.

A view that is not in a coalition shows what it showed in training samples drawn at random, and the mean of the
predicted probabilities counts, as in SAGE (Covert, Lundberg, Lee, arXiv 2004.00668). One mean embedding in their place
is cheaper and can be chosen, but lies where the model has seen nothing: its answer there is arbitrary, and every view
that puts an end to that gets credit for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import factorial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cmat_lib.models.fusion.tokens import Features
from cmat_lib.models.multitask import MultiTaskCrossModalAttention, evaluation_mode
from cmat_lib.views.panel import Batch, Panel

ALL_ASKED = 8  # views of which all coalitions are asked
ORDERS = 64  # orders of arrival that are drawn above it, half of them the others reversed


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
    """Shapley values of K players as a linear map (K, 2 ** K) of the worths of all `coalitions`.

    Shapley (1953), *A value for n-person games*: player i gets the mean of what it adds over all orders of arrival,
    ``sum_S |S|! (K - |S| - 1)! / K! (v(S + i) - v(S))`` over the S without i.
    """
    members = coalitions(count)
    size = members.sum(axis=1)
    share = np.array([factorial(s) * factorial(count - s - 1) / factorial(count) for s in range(count)] + [0])
    return np.where(members, share[size - 1][:, None], -share[size][:, None]).T


def interaction_matrix(count: int) -> np.ndarray:
    """Shapley interaction indices of the P = K (K - 1) / 2 pairs of K players as a linear map (P, 2 ** K) of worths.

    Grabisch & Roubens (1999), *An axiomatic approach to the concept of interaction among players*: the mean of
    ``v(S + ij) - v(S + i) - v(S + j) + v(S)`` with the weights ``|S|! (K - |S| - 2)! / (K - 1)!``. Pairs are in the
    order of ``itertools.combinations``.
    """
    members, rows = coalitions(count), []
    weights = np.array([factorial(s) * factorial(count - s - 2) / factorial(count - 1) for s in range(count - 1)])
    for i, j in combinations(range(count), 2):
        others = members.sum(axis=1) - members[:, i] - members[:, j]
        rows.append(np.where(members[:, i] == members[:, j], weights[others], -weights[others]))
    return np.array(rows).reshape(-1, 2**count)


@dataclass(frozen=True)
class Game:
    """Coalitions of K players whose worth has to be known, none first and all last, and what follows from it."""

    members: np.ndarray  # (R, K) bool
    values: np.ndarray  # (K, R), Shapley values as a linear map of the worths
    interactions: np.ndarray  # (P, R), interaction indices of `pairs`
    pairs: list[tuple[int, int]]  # none where orders are sampled
    orders: np.ndarray | None = None  # (draws, K + 1) coalitions on the way from none to all, where sampled
    arrivals: np.ndarray | None = None  # (draws, K) who comes

    def sampling_error(self, worth: np.ndarray) -> np.ndarray:
        """Standard error of the mean Shapley values (K,) of worths (n, R), by the orders that were drawn; 0 if all."""
        if self.orders is None:
            return np.zeros(self.members.shape[1])
        gains = np.diff(worth.mean(axis=0)[self.orders], axis=1)  # (draws, K), in the order of arrival
        of_players = np.take_along_axis(gains, np.argsort(self.arrivals, axis=1), axis=1)
        pairs = of_players.reshape(2, -1, of_players.shape[1]).mean(axis=0)  # an order and its reverse
        return pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs))


def places(members: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Numbers at which the coalitions `wanted` (n, K) stand among `members` (R, K)."""
    powers = 2 ** np.arange(members.shape[1])
    own = members @ powers
    return np.argsort(own)[np.searchsorted(np.sort(own), wanted @ powers)]


@cache
def game_of(count: int) -> Game:
    """All coalitions of up to `ALL_ASKED` players; of more those that some drawn orders of arrival pass.

    Castro, Gomez, Tejada (2009), *Polynomial calculation of the Shapley value based on sampling*; each order with its
    reverse, which cancels much of what depends on the place of arrival. Single players and all but one are there too.
    """
    if count <= ALL_ASKED:
        pairs = list(combinations(range(count), 2))
        return Game(coalitions(count), shapley_matrix(count), interaction_matrix(count), pairs)
    rng = np.random.default_rng(0)
    arrivals = np.stack([rng.permutation(count) for _ in range(ORDERS // 2)])
    arrivals = np.concatenate([arrivals, arrivals[:, ::-1]])  # (draws, K)
    ways = np.concatenate([np.zeros((ORDERS, 1, count)), np.cumsum(np.eye(count)[arrivals], axis=1)], axis=1) > 0
    one = np.eye(count, dtype=bool)
    members = np.unique(np.concatenate([ways.reshape(-1, count), one, ~one]), axis=0)
    members = members[np.argsort(members.sum(axis=1), kind="stable")]
    orders = places(members, ways.reshape(-1, count)).reshape(ORDERS, count + 1)
    values = np.zeros((count, len(members)))
    for way, arrival in zip(orders, arrivals, strict=True):
        np.add.at(values, (arrival, way[1:]), 1 / ORDERS)
        np.add.at(values, (arrival, way[:-1]), -1 / ORDERS)
    return Game(members, values, np.empty((0, len(members))), [], orders, arrivals)


@torch.no_grad()
def embed_samples(model: MultiTaskCrossModalAttention, panel: Panel, index: Tensor, size: int) -> dict[str, Tensor]:
    """Encoded modalities of samples that the model sees, (n, width) each, in evaluation mode."""
    with evaluation_mode(model):
        parts = [model.encode(batch.inputs) for batch in panel.batches(index, size)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def split_features(features: Features, size: int) -> Iterator[dict[str, Tensor]]:
    """Encoded modalities in batches."""
    parts = (x.split(size) for x in features.values())
    return (dict(zip(features, batch, strict=True)) for batch in zip(*parts, strict=True))


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
def coalition_logits(
    model: MultiTaskCrossModalAttention, features: Features, absent: StandIns, size: int | None = None
) -> np.ndarray:
    """Trigger logits (n, R) under the R coalitions of `game_of`, in evaluation mode, `size` samples at a time or all.

    Log-odds of the mean probability over the stand-ins, float64.
    """
    count, found = len(next(iter(features.values()))), []
    size = size or count
    with evaluation_mode(model):
        for part, rows in zip(split_features(features, size), absent.rows(count).split(size, dim=1), strict=True):
            said = [_of_coalitions(model, part, other) for other in absent.show(rows)]
            said = torch.stack(said).double()  # (draws, B, R)
            yes, no = (torch.logsumexp(F.logsigmoid(sign * said), dim=0) for sign in (1, -1))
            found.append((yes - no).cpu().numpy())
    return np.concatenate(found)


def _of_coalitions(model: MultiTaskCrossModalAttention, features: Features, other: Features) -> Tensor:
    """Logits (B, R), the modalities that are not in a coalition being those of `other`."""
    chosen = [
        {name: x if seen else other[name] for seen, (name, x) in zip(members, features.items(), strict=True)}
        for members in game_of(len(features)).members
    ]
    return torch.stack([logits(model, own) for own in chosen], dim=1)


def modality_shapley(model: MultiTaskCrossModalAttention, batch: Batch, absent: StandIns) -> Shapley:
    """Shapley values and pairwise interactions of the K views for the trigger's logit.

    Parameters
    ----------
    absent : StandIns
        What the model reads in place of a view that is absent, over which the logit is averaged.

    Returns
    -------
    Shapley
        Values (B, K) and the interactions of pairs.
    """
    with torch.no_grad(), evaluation_mode(model):
        features = model.encode(batch.inputs)
    return shapley_of(coalition_logits(model, features, absent), tuple(features))


def shapley_of(worth: np.ndarray, modalities: tuple[str, ...]) -> Shapley:
    """Shapley values from the logits under every coalition of `game_of`, (B, R)."""
    game = game_of(len(modalities))
    pairs = [(modalities[i], modalities[j]) for i, j in game.pairs]
    values, interactions = worth @ game.values.T, worth @ game.interactions.T
    return Shapley(modalities, values, pairs, interactions, worth[:, 0], worth[:, -1])
