"""Shapley values of the views that a model sees.

With K views there are ``2 ** K`` coalitions; up to `MOST` views all of them are asked, so that no order of arrival is
sampled, and above it some orders are drawn, with a standard error. A view that is not in a coalition shows what it
showed in training samples drawn at random, and the mean of the predicted probabilities counts, as in SAGE (Covert,
Lundberg, Lee, arXiv 2004.00668). One mean embedding in their place is cheaper and can be chosen, but lies where the
model has seen nothing: its answer there is arbitrary, and every view that puts an end to that gets credit for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
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

MOST = 8  # views of which all coalitions are asked
ORDERS = 64  # orders of arrival that are drawn above it, half of them the others reversed
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


@dataclass(frozen=True)
class Game:
    """Coalitions of K players whose worth has to be known, none first and all last, and what follows from it."""

    members: np.ndarray  # (R, K) bool
    values: np.ndarray  # (K, R), Shapley values as a linear map of the worths
    interactions: np.ndarray  # (P, R), interaction indices of `pairs`
    pairs: list[tuple[int, int]]  # none where orders are sampled
    orders: np.ndarray | None = None  # (draws, K + 1) coalitions on the way from none to all, where sampled
    arrivals: np.ndarray | None = None  # (draws, K) who comes

    def rows(self, members: np.ndarray) -> np.ndarray:
        """Numbers of coalitions (n, K)."""
        powers = 2 ** np.arange(self.members.shape[1])
        return np.argsort(own := self.members @ powers)[np.searchsorted(np.sort(own), members @ powers)]

    def sampling_error(self, worth: np.ndarray) -> np.ndarray:
        """Standard error of the mean Shapley values (K,) of worths (n, R), by the orders that were drawn; 0 if all."""
        if self.orders is None:
            return np.zeros(self.members.shape[1])
        gains = np.diff(worth.mean(axis=0)[self.orders], axis=1)  # (draws, K), in the order of arrival
        of_players = np.take_along_axis(gains, np.argsort(self.arrivals, axis=1), axis=1)
        pairs = of_players.reshape(2, -1, of_players.shape[1]).mean(axis=0)  # an order and its reverse
        return pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs))


@cache
def game_of(count: int) -> Game:
    """All coalitions of up to `MOST` players; of more those that some drawn orders of arrival pass.

    Castro, Gomez, Tejada (2009), *Polynomial calculation of the Shapley value based on sampling*; each order with its
    reverse, which cancels much of what depends on the place of arrival. Single players and all but one are there too.
    """
    if count <= MOST:
        pairs = list(combinations(range(count), 2))
        return Game(coalitions(count), shapley_matrix(count), interaction_matrix(count), pairs)
    rng = np.random.default_rng(0)
    arrivals = np.stack([rng.permutation(count) for _ in range(ORDERS // 2)])
    arrivals = np.concatenate([arrivals, arrivals[:, ::-1]])  # (draws, K)
    ways = np.concatenate([np.zeros((ORDERS, 1, count)), np.cumsum(np.eye(count)[arrivals], axis=1)], axis=1) > 0
    one = np.eye(count, dtype=bool)
    members = np.unique(np.concatenate([ways.reshape(-1, count), one, ~one]), axis=0)
    members = members[np.argsort(members.sum(axis=1), kind="stable")]
    game = Game(members, np.empty(0), np.empty((0, len(members))), [])
    orders = game.rows(ways.reshape(-1, count)).reshape(ORDERS, count + 1)
    values = np.zeros((count, len(members)))
    for way, arrival in zip(orders, arrivals, strict=True):
        np.add.at(values, (arrival, way[1:]), 1 / ORDERS)
        np.add.at(values, (arrival, way[:-1]), -1 / ORDERS)
    return replace(game, values=values, orders=orders, arrivals=arrivals)


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
    Tensor of float64, shape (B, R)
        Log-odds of the mean probability over the stand-ins, of the R coalitions of `game_of`.
    """
    said = []
    with evaluation_mode(model):
        for other in absent:
            chosen = [
                {name: x if seen else other[name] for seen, (name, x) in zip(members, features.items(), strict=True)}
                for members in game_of(len(features)).members
            ]
            said.append(torch.stack([logits(model, own) for own in chosen], dim=1))
    said = torch.stack(said).double()  # (draws, B, R)
    yes, no = (torch.logsumexp(F.logsigmoid(sign * said), dim=0) for sign in (1, -1))
    return yes - no  # (B, R)


def modality_shapley(model: MultiTaskCrossModalAttention, batch: Batch, absent: StandIns) -> Shapley:
    """Shapley values and pairwise interactions of the views for the trigger's logit."""
    with torch.no_grad(), evaluation_mode(model):
        features = embed(model, batch)
    stand_ins = absent.show(absent.rows(len(batch.trigger)))
    return shapley_of(coalition_logits(model, features, stand_ins).cpu().numpy(), tuple(features))


def shapley_of(worth: np.ndarray, modalities: tuple[str, ...]) -> Shapley:
    """Shapley values from the logits under every coalition of `game_of`, (B, R)."""
    game = game_of(len(modalities))
    return Shapley(
        modalities,
        worth @ game.values.T,
        [(modalities[i], modalities[j]) for i, j in game.pairs],
        worth @ game.interactions.T,
        worth[:, 0],
        worth[:, -1],
    )
