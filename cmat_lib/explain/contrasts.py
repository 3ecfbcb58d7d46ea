"""Differences of attention between two kinds of moments, with paired intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cmat_lib.evaluation.breakdown import volatility_groups
from cmat_lib.evaluation.uncertainty import Resampling, bootstrap_table
from cmat_lib.explain.groups import LATENT, MIN_GROUP
from cmat_lib.explain.measures import weighted_means


def volatility_deciles(volatility: pd.Series, symbols: pd.Series) -> pd.Series:
    """Tenth of its own symbol's samples that each sample falls into, ``" 1"`` (calmest) to ``"10"``."""
    own = pd.DataFrame({"symbol": symbols.to_numpy(), "volatility": volatility.to_numpy()}, volatility.index)
    return volatility_groups(own, "volatility").map("{:2d}".format)


def kinds_of_moments(samples: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of kinds of samples that people ask about: name -> two boolean masks (N,), first minus second.

    Of N samples from `describe_samples`. Contrasts with fewer than `MIN_GROUP` on one side are left out.
    """
    quiet = samples["max_pct"] < samples["max_pct"].median()
    kinds = {
        "before a trigger against quiet times": (samples["trigger"] == 1, quiet),
        "hit against false alarm": (samples["outcome"] == "hit", samples["outcome"] == "false alarm"),
        "wild against calm": (samples["volatility"] == "wild", samples["volatility"] == "calm"),
    }
    if "latent" in samples:
        for name in LATENT:
            plus = samples["latent"].str.contains(f"{name} +", regex=False)
            kinds[f"{name} + against {name} −"] = (plus, ~plus)
    masks = {name: (first.to_numpy(), second.to_numpy()) for name, (first, second) in kinds.items()}
    return {name: pair for name, pair in masks.items() if min(pair[0].sum(), pair[1].sum()) >= MIN_GROUP}


def contrast_table(
    shares: np.ndarray,
    tokens: Sequence[str],
    kinds: Mapping[str, tuple[np.ndarray, np.ndarray]],
    timestamps: pd.Series,
    resampling: Resampling,
) -> pd.DataFrame:
    """Mean share in the first kind of samples minus that in the second, both on the same resamples.

    Two overlapping intervals of groups can hide a difference that this one shows, because a resample that holds more
    of a wild week holds more of it on both sides. Of shares (N, M) and `kinds_of_moments`; index (contrast, token),
    columns ``value``, ``low``, ``high``, ``n_first``, ``n_second``.
    """
    first, second = (np.array([pair[side] for pair in kinds.values()], dtype=np.float64) for side in (0, 1))  # (K, N)

    def difference(weights: np.ndarray) -> np.ndarray:
        return weighted_means(first * weights, shares) - weighted_means(second * weights, shares)  # (K, M)

    index = pd.MultiIndex.from_product([kinds, tokens], names=["contrast", "token"])
    if not kinds:
        return pd.DataFrame(columns=["value", "low", "high", "n_first", "n_second"], index=index, dtype=float)
    table = bootstrap_table(timestamps, difference, resampling, index)
    counts = [np.repeat(mask.sum(axis=1).astype(int), len(tokens)) for mask in (first, second)]
    return table.assign(n_first=counts[0], n_second=counts[1])
