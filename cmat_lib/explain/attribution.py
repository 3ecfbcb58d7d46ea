"""What the answers hang on: Shapley values of the modalities, and permutation of modalities, channels and features.

Values are of a loss, the trigger's own in training: the mean signed logit of an interaction is zero, however much it
explains (Covert, Lundberg, Lee, *Understanding Global Feature Contributions With Additive Importance Measures* (SAGE),
arXiv 2004.00668, section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cmat_lib.config import Config
from cmat_lib.data.panel import Panel
from cmat_lib.evaluation.uncertainty import Resampling, block_bootstrap, intervals
from cmat_lib.explain.shapley import (
    Features,
    Shapley,
    coalition_logits,
    coalitions,
    embed,
    interaction_matrix,
    logits,
    mean_embedding,
    shapley_matrix,
    shapley_of,
)
from cmat_lib.models.losses import focal_loss
from cmat_lib.models.multitask import MultiTaskCrossModalAttention, evaluation_mode
from cmat_lib.schema import MODALITIES
from cmat_lib.tda.features import feature_groups

Loss = Callable[[np.ndarray, np.ndarray], np.ndarray]  # logits (n, ...) and triggers (n,) -> losses (n, ...)


def trigger_loss(config: Config, panel: Panel) -> Loss:
    """The training's focal loss of the trigger, of each sample.

    Parameters
    ----------
    config : Config
    panel : Panel
        Its training part gives the balanced weight.

    Returns
    -------
    callable
        Logits (n, ...) and triggers (n,) -> losses (n, ...), float64.
    """
    rate = panel.samples.loc[panel.samples["part"] == "train", "trigger"].mean()
    wanted = config.training.positive_weight
    weight = float((1 - rate) / rate) if wanted == "balanced" else wanted

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
    timestamps : Series of datetimes, length n
    resampling : Resampling

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


# -- Shapley -----------------------------------------------------------------------------------------------------------


class ShapleyTables(NamedTuple):
    """Shapley values of the loss over all samples, and of the logit of each."""

    shapley: pd.DataFrame
    interactions: pd.DataFrame
    efficiency: pd.DataFrame
    samples: pd.DataFrame
    single: Shapley


@torch.no_grad()
def shapley_tables(
    model: MultiTaskCrossModalAttention,
    panel: Panel,
    index: Tensor,
    background: Tensor,
    loss: Loss,
    resampling: Resampling,
    size: int,
) -> ShapleyTables:
    """Exact Shapley values over the modalities.

    Parameters
    ----------
    model : MultiTaskCrossModalAttention
        Every module is left in the mode it was found in.
    panel : Panel
    index : Tensor of int64, shape (n,)
        Labelled samples.
    background : Tensor of int64
        Training samples, whose mean embedding stands for a modality that is left out.
    loss : callable
        From `trigger_loss`.
    resampling : Resampling
    size : int
        Samples per forward pass.

    Returns
    -------
    ShapleyTables
        ``shapley``: ``modality``, ``measure``, ``value``, ``low``, ``high``, in reduction of the loss. Measures:
        ``shapley``; ``main``, that without half of each of its interactions (Lundberg et al., arXiv 1802.03888,
        equation 6); ``alone``, with this modality only; ``last``, what is lost without it.
        ``interactions``: ``first``, ``second``, ``value``, ``low``, ``high``, the pairwise interaction index of the
        reduction of the loss. ``efficiency``: one row, ``loss_none``, ``loss_all``, ``reduction``, ``shapley_sum``,
        ``largest_gap`` (over samples, of base + Shapley values to the logit). ``samples``: ``sample``, ``trigger``,
        ``base``, ``logit``, ``shapley_<modality>``, ``interaction_<a>_<b>``. ``single``: the latter as arrays.
    """
    means = mean_embedding(model, panel, background, size)
    with evaluation_mode(model):
        worth = [coalition_logits(model, embed(model, batch), means) for batch in panel.batches(index, size)]
    worth = torch.cat(worth).double().cpu().numpy()  # (n, 2 ** K)
    modalities = tuple(means)
    single = shapley_of(worth, modalities)
    samples = panel.samples.iloc[index.cpu().numpy()]
    losses = loss(worth, samples["trigger"].to_numpy())  # (n, 2 ** K)
    effects = _effects(-losses, len(modalities))  # (n, 4 K + P)
    table = mean_table(effects, samples["timestamp"], resampling)
    count = 4 * len(modalities)
    names = [(name, measure) for measure in ("shapley", "main", "alone", "last") for name in modalities]
    shapley = pd.DataFrame(names, columns=["modality", "measure"]).join(table[:count])
    pairs = pd.DataFrame(single.pairs, columns=["first", "second"]).join(table[count:].reset_index(drop=True))
    return ShapleyTables(shapley, pairs, _efficiency(losses, shapley, single), _each(index, samples, single), single)


def _effects(worth: np.ndarray, count: int) -> np.ndarray:
    """Shapley value, main effect, effect alone and effect last of each player, then the interactions: (n, 4 K + P)."""
    members = coalitions(count)
    values, pairs = worth @ shapley_matrix(count).T, worth @ interaction_matrix(count).T
    ends = np.array(np.triu_indices(count, 1))  # (2, P)
    touches = (ends[:, :, None] == np.arange(count)).any(0)  # (P, K)
    one, rest = 2 ** np.arange(count), len(members) - 1 - 2 ** np.arange(count)
    alone, last = worth[:, one] - worth[:, :1], worth[:, -1:] - worth[:, rest]
    return np.concatenate([values, values - 0.5 * pairs @ touches, alone, last, pairs], axis=1)


def _efficiency(losses: np.ndarray, shapley: pd.DataFrame, single: Shapley) -> pd.DataFrame:
    none, everything = losses[:, 0].mean(), losses[:, -1].mean()
    row = {
        "loss_none": none,
        "loss_all": everything,
        "reduction": none - everything,
        "shapley_sum": shapley.loc[shapley["measure"] == "shapley", "value"].sum(),
        "largest_gap": np.abs(single.base + single.values.sum(axis=1) - single.logit).max(),
    }
    return pd.DataFrame([row])


def _each(index: Tensor, samples: pd.DataFrame, single: Shapley) -> pd.DataFrame:
    columns = {"sample": index.cpu().numpy(), "trigger": samples["trigger"].to_numpy()}
    columns |= {"base": single.base, "logit": single.logit}
    columns |= {f"shapley_{name}": single.values[:, i] for i, name in enumerate(single.modalities)}
    columns |= {f"interaction_{a}_{b}": single.interactions[:, i] for i, (a, b) in enumerate(single.pairs)}
    return pd.DataFrame(columns)


# -- permutation -------------------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """A part of the input that is permuted."""

    kind: str  # modality, channel, tda or complexity
    name: str
    modality: str  # whose encoder reads it
    columns: slice | int  # of the last axis of that modality's input


def modality_pieces(model: MultiTaskCrossModalAttention) -> list[Piece]:
    """Whole inputs of the modalities that the model sees."""
    return [Piece("modality", name, name, slice(None)) for name in model.fusion.parts]


def input_pieces(model: MultiTaskCrossModalAttention) -> list[Piece]:
    """Channels, groups of topology features and complexity indicators of the modalities that the model sees."""
    config = model.config
    pieces = [Piece("channel", name, "nbeats", i) for i, name in enumerate(config.data.channel_names)]
    pieces += [Piece("tda", name, "tda", columns) for name, columns in feature_groups(config.tda).items()]
    pieces += [Piece("complexity", name, "complexity", i) for i, name in enumerate(config.complexity.indicators)]
    return [piece for piece in pieces if piece.modality in model.fusion.parts]


def block_order(symbols: pd.Series, timestamps: pd.Series, block: pd.Timedelta, rng: np.random.Generator) -> np.ndarray:
    """Order of samples in which blocks of time have changed places within each symbol.

    Neighbouring samples share most of their windows, so exchanging single samples would exchange near copies, or break
    what lies within a window's memory. A block keeps its inside.

    Parameters
    ----------
    symbols, timestamps : Series, length n
        Of the samples, ascending in time within each symbol.
    block : Timedelta
        Length of a block; at least seven horizons.
    rng : numpy Generator

    Returns
    -------
    ndarray of int64, shape (n,)
        Sample i takes what belongs to sample ``order[i]``, of the same symbol. A symbol that lasts for less than two
        blocks keeps its order.
    """
    order = np.arange(len(symbols))
    times = pd.DatetimeIndex(timestamps)
    for places in pd.Series(order).groupby(np.asarray(symbols)).indices.values():
        number = (times[places] - times[places[0]]) // block  # (own,)
        blocks = np.split(places, np.flatnonzero(np.diff(number)) + 1)
        order[places] = np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
    return order


@torch.no_grad()
def permuted_logits(
    model: MultiTaskCrossModalAttention,
    panel: Panel,
    index: Tensor,
    pieces: Sequence[Piece],
    orders: np.ndarray,
    size: int,
) -> np.ndarray:
    """Trigger logits with one piece of the input taken from other samples.

    Parameters
    ----------
    model : MultiTaskCrossModalAttention
        Every module is left in the mode it was found in.
    panel : Panel
    index : Tensor of int64, shape (n,)
    pieces : sequence of Piece, length Q
    orders : ndarray of int64, shape (draws, n)
        From `block_order`.
    size : int
        Samples per forward pass.

    Returns
    -------
    ndarray, shape (n, Q, draws)
        NaN in a draw that left every sample in its place, because time holds too few blocks.
    """
    found = np.full((len(index), len(pieces), len(orders)), np.nan)
    orders = [(draw, order) for draw, order in enumerate(orders) if (order != np.arange(len(order))).any()]
    with evaluation_mode(model):
        for here in torch.arange(len(index)).split(size):
            batch = panel.gather(index[here])
            own = embed(model, batch)
            for draw, order in orders:
                donor = panel.gather(index[torch.from_numpy(order[here])])
                for place, piece in enumerate(pieces):
                    changed = own | {piece.modality: _encode_mixed(model, batch.inputs, donor.inputs, piece)}
                    found[here, place, draw] = logits(model, changed).cpu().numpy()
    return found


def _encode_mixed(model, inputs: tuple[Tensor, ...], donors: tuple[Tensor, ...], piece: Piece) -> Tensor:
    place = MODALITIES.index(piece.modality)
    mixed = inputs[place].clone()
    mixed[..., piece.columns] = donors[place][..., piece.columns]
    return model.encoders[piece.modality](mixed)


def permutation_table(
    losses: np.ndarray, reference: np.ndarray, pieces: Sequence[Piece], timestamps: pd.Series, resampling: Resampling
) -> pd.DataFrame:
    """How much the loss rises when a piece of the input comes from another time.

    Parameters
    ----------
    losses : ndarray, shape (n, Q, draws)
        With the piece permuted.
    reference : ndarray, shape (n,)
        Without.
    pieces : sequence of Piece, length Q
    timestamps : Series of datetimes, length n
    resampling : Resampling

    Returns
    -------
    DataFrame of Q rows
        ``kind``, ``name``, ``value`` (mean over samples and draws), ``low``, ``high`` (block bootstrap over time),
        ``spread`` (standard deviation over the draws), ``draws``.
    """
    rise = losses - reference[:, None, None]  # (n, Q, draws)
    table = mean_table(rise.mean(axis=2), timestamps, resampling)
    table.insert(0, "kind", [piece.kind for piece in pieces])
    table.insert(1, "name", [piece.name for piece in pieces])
    return table.assign(spread=rise.mean(axis=0).std(axis=1, ddof=1), draws=losses.shape[2])


@torch.no_grad()
def embed_samples(model: MultiTaskCrossModalAttention, panel: Panel, index: Tensor, size: int) -> Features:
    """Encoded modalities of samples, (n, width) each, in evaluation mode."""
    with evaluation_mode(model):
        parts = [embed(model, batch) for batch in panel.batches(index, size)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
