"""Shapley values of the modalities over many samples, with intervals.

They are of a loss: the mean signed logit of an interaction is zero, however much it explains (Covert, Lundberg, Lee,
*Understanding Global Feature Contributions With Additive Importance Measures* (SAGE), arXiv 2004.00668, section 2).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmat_lib.evaluation.uncertainty import Resampling
from cmat_lib.explain.measures import Loss, mean_table
from cmat_lib.explain.shapley import Shapley, game_of, places, shapley_of


class ShapleyTables(NamedTuple):
    """Shapley values of the loss over all samples, and of the logit of each."""

    shapley: pd.DataFrame
    interactions: pd.DataFrame
    efficiency: pd.DataFrame
    samples: pd.DataFrame
    single: Shapley


def shapley_tables(
    worth: np.ndarray, modalities: Sequence[str], samples: pd.DataFrame, loss: Loss, resampling: Resampling
) -> ShapleyTables:
    """Shapley values over the views, from the logits (n, R) of `cmat_lib.explain.shapley.coalition_logits`.

    ``shapley``: ``modality``, ``measure``, ``value``, ``low``, ``high``, ``sampling_error`` (standard error of drawn
    orders, 0 where all coalitions are asked), in reduction of the loss. Measures: ``shapley``; ``main``, that without
    half of each of its interactions (Lundberg et al., arXiv 1802.03888, equation 6); ``alone``, with this modality
    only; ``last``, what is lost without it. ``interactions``: ``first``, ``second``, ``value``, ``low``, ``high``, the
    pairwise interaction index of the reduction of the loss. ``efficiency``: one row, ``loss_none``, ``loss_all``,
    ``reduction``, ``shapley_sum``, ``largest_gap`` (over samples, of base + Shapley values to the logit). ``samples``:
    from `sample_table`. ``single``: the same as arrays.
    """
    single = shapley_of(worth, tuple(modalities))
    losses = loss(worth, samples["trigger"].to_numpy())  # (n, R)
    table = mean_table(_effects(-losses, len(modalities)), samples["timestamp"], resampling)  # 4 K + P rows
    count = 4 * len(modalities)
    names = [(name, measure) for measure in ("shapley", "main", "alone", "last") for name in modalities]
    shapley = pd.DataFrame(names, columns=["modality", "measure"]).join(table[:count])
    error = dict(zip(modalities, game_of(len(modalities)).sampling_error(-losses), strict=True))
    shapley["sampling_error"] = shapley["modality"].map(error).where(shapley["measure"] == "shapley", 0.0)
    pairs = pd.DataFrame(single.pairs, columns=["first", "second"]).join(table[count:].reset_index(drop=True))
    return ShapleyTables(shapley, pairs, _efficiency(losses, shapley, single), sample_table(single, samples), single)


def _effects(worth: np.ndarray, count: int) -> np.ndarray:
    """Shapley value, main effect, effect alone and effect last of each player, then the interactions: (n, 4 K + P)."""
    game, one = game_of(count), np.eye(count, dtype=bool)
    values, pairs = worth @ game.values.T, worth @ game.interactions.T
    touches = np.array([[k in pair for k in range(count)] for pair in game.pairs], float).reshape(-1, count)  # (P, K)
    main = values - 0.5 * pairs @ touches if game.pairs else np.full_like(values, np.nan)
    single, others = places(game.members, one), places(game.members, ~one)
    alone, last = worth[:, single] - worth[:, :1], worth[:, -1:] - worth[:, others]
    return np.concatenate([values, main, alone, last, pairs], axis=1)


def _efficiency(losses: np.ndarray, shapley: pd.DataFrame, single: Shapley) -> pd.DataFrame:
    none, everything = losses[:, 0].mean(), losses[:, -1].mean()
    total = shapley.loc[shapley["measure"] == "shapley", "value"].sum()
    gap = np.abs(single.base + single.values.sum(axis=1) - single.logit).max()
    names = ["loss_none", "loss_all", "reduction", "shapley_sum", "largest_gap"]
    return pd.DataFrame([(none, everything, none - everything, total, gap)], columns=names)


def sample_table(single: Shapley, samples: pd.DataFrame) -> pd.DataFrame:
    """``sample`` (the index), ``trigger``, ``base``, ``logit``, ``shapley_<modality>``, ``interaction_<a>_<b>``."""
    columns = {"sample": samples.index.to_numpy(), "trigger": samples["trigger"].to_numpy()}
    columns |= {"base": single.base, "logit": single.logit}
    columns |= {f"shapley_{name}": single.values[:, i] for i, name in enumerate(single.modalities)}
    columns |= {f"interaction_{a}_{b}": single.interactions[:, i] for i, (a, b) in enumerate(single.pairs)}
    return pd.DataFrame(columns)
