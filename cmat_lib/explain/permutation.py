"""What the answers hang on, by permutation: a piece of the input is taken from another time."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cmat_lib.evaluation.uncertainty import Resampling, moments_per_block
from cmat_lib.explain.measures import mean_table
from cmat_lib.explain.shapley import logits, split_features
from cmat_lib.models.fusion.tokens import Features
from cmat_lib.models.multitask import MultiTaskCrossModalAttention, evaluation_mode
from cmat_lib.views import VIEWS
from cmat_lib.views.panel import Panel


class Piece(NamedTuple):
    """A part of the input that is permuted."""

    kind: str  # modality, or the view that it is a part of
    name: str
    modality: str  # whose encoder reads it
    columns: slice | int  # of the last axis of that modality's input


def modality_pieces(model: MultiTaskCrossModalAttention) -> list[Piece]:
    """Whole inputs of the modalities that the model sees."""
    return [Piece("modality", name, name, slice(None)) for name in model.fusion.parts]


def input_pieces(model: MultiTaskCrossModalAttention) -> list[Piece]:
    """Groups of features of the views that the model sees."""
    views = VIEWS.seen(model.config)
    return [Piece(v.name, name, v.name, columns) for v in views for name, columns in v.parts(model.config).items()]


def block_order(symbols: pd.Series, timestamps: pd.Series, block: pd.Timedelta, rng: np.random.Generator) -> np.ndarray:
    """Order of samples in which blocks of time have changed places within each symbol.

    Neighbouring samples share most of their windows, so exchanging single samples would exchange near copies; a block,
    of at least seven horizons, keeps its inside. The samples (n,) ascend in time within each symbol; sample i takes
    what belongs to sample ``order[i]``. A symbol that lasts for less than two blocks keeps its order.
    """
    order = np.arange(len(symbols))
    times = pd.DatetimeIndex(timestamps).as_unit("ns").asi8
    for places in pd.Series(order).groupby(np.asarray(symbols)).indices.values():
        length = moments_per_block(times[places], block)
        blocks = np.split(places, np.arange(length, len(places), length))
        order[places] = np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
    return order


@torch.no_grad()
def permuted_logits(
    model: MultiTaskCrossModalAttention,
    panel: Panel,
    index: Tensor,
    features: Features,
    pieces: Sequence[Piece],
    orders: np.ndarray,
    size: int,
) -> np.ndarray:
    """Trigger logits (n, Q, draws) with one of Q pieces of the input taken from other samples.

    The features (n, width) are of the samples of `index` (n,), the orders (draws, n) from `block_order`. NaN in a draw
    that left every sample in its place, because time holds too few blocks.
    """
    found = np.full((len(index), len(pieces), len(orders)), np.nan)
    orders = [(draw, order) for draw, order in enumerate(orders) if (order != np.arange(len(order))).any()]
    with evaluation_mode(model):
        for here, own in zip(torch.arange(len(index)).split(size), split_features(features, size), strict=True):
            batch = panel.gather(index[here])
            for draw, order in orders:
                donor = panel.gather(index[torch.from_numpy(order[here])])
                for place, piece in enumerate(pieces):
                    changed = own | {piece.modality: encode_mixed(model, batch.inputs, donor.inputs, piece)}
                    found[here, place, draw] = logits(model, changed).cpu().numpy()
    return found


def encode_mixed(model, inputs: dict[str, Tensor], donors: dict[str, Tensor], piece: Piece) -> Tensor:
    """Encoding (B, width) of a view of which a piece, or all, comes from the donors."""
    own, donor = inputs[piece.modality], donors[piece.modality]
    if piece.kind == "modality":
        return model.encoders[piece.modality](donor)
    mixed = own.clone()
    # Where the donor shows nothing, a part of it would mask the whole view.
    mixed[..., piece.columns] = torch.where(donor.isnan(), own, donor)[..., piece.columns]
    return model.encoders[piece.modality](mixed)


def permutation_table(
    losses: np.ndarray, reference: np.ndarray, pieces: Sequence[Piece], timestamps: pd.Series, resampling: Resampling
) -> pd.DataFrame:
    """How much losses (n, Q, draws) with a piece of the input from another time exceed those without (n,): Q rows.

    ``kind``, ``name``, ``value`` (mean over samples and draws), ``low``, ``high`` (block bootstrap over time),
    ``spread`` (standard deviation over the draws), ``draws`` that moved something; NaN if there is none.
    """
    rise = losses - reference[:, None, None]  # (n, Q, draws)
    moved = ~np.isnan(rise).all(axis=(0, 1))
    rise = rise[:, :, moved] if moved.any() else rise
    names = {"kind": [piece.kind for piece in pieces], "name": [piece.name for piece in pieces]}
    table = mean_table(rise.mean(axis=2), timestamps, resampling, names)
    return table.assign(spread=rise.mean(axis=0).std(axis=1, ddof=1), draws=int(moved.sum()))
