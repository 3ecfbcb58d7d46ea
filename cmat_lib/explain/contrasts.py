"""Differences of attention between two kinds of moments, with paired intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cmat_lib.evaluation.breakdown import volatility_groups
from cmat_lib.evaluation.uncertainty import Resampling, block_bootstrap, intervals
from cmat_lib.explain.groups import MIN_GROUP


def volatility_deciles(volatility: pd.Series, symbols: pd.Series) -> pd.Series:
    """Tenth of its own symbol's samples that each sample falls into, ``" 1"`` (calmest) to ``"10"``."""
    own = pd.DataFrame({"symbol": symbols.to_numpy(), "volatility": volatility.to_numpy()}, volatility.index)
    return volatility_groups(own, "volatility").map("{:2d}".format)


def kinds_of_moments(samples: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of kinds of samples that people ask about.

    Parameters
    ----------
    samples : DataFrame of N rows
        From `describe_samples`.

    Returns
    -------
    dict
        Name of the contrast -> two boolean masks (N,): first minus second. Contrasts with fewer than 20 samples on one
        side are left out.
    """
    kinds = {
        "before a trigger against quiet times": (
            samples["trigger"] == 1,
            samples["max_pct"] < samples["max_pct"].median(),
        ),
        "hit against false alarm": (samples["outcome"] == "hit", samples["outcome"] == "false alarm"),
        "wild against calm": (samples["volatility"] == "wild", samples["volatility"] == "calm"),
    }
    if "latent" in samples:
        for name in ("pattern", "regime"):
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
    of a wild week holds more of it on both sides.

    Parameters
    ----------
    shares : ndarray, shape (N, M)
    kinds : mapping
        From `kinds_of_moments`.

    Returns
    -------
    DataFrame
        Index (contrast, token), columns ``value``, ``low``, ``high``, ``n_first``, ``n_second``.
    """
    first, second = (np.array([pair[side] for pair in kinds.values()], dtype=np.float64) for side in (0, 1))  # (K, N)

    def difference(weights: np.ndarray) -> np.ndarray:
        return _means(first * weights, shares) - _means(second * weights, shares)  # (K, M)

    index = pd.MultiIndex.from_product([kinds, tokens], names=["contrast", "token"])
    if not kinds:
        return pd.DataFrame(columns=["value", "low", "high", "n_first", "n_second"], index=index, dtype=float)
    limits = intervals(block_bootstrap(timestamps, difference, resampling), resampling.confidence).reshape(-1, 2)
    counts = [np.repeat(mask.sum(axis=1).astype(int), len(tokens)) for mask in (first, second)]
    columns = {"value": difference(np.ones(len(shares))).ravel(), "low": limits[:, 0], "high": limits[:, 1]}
    return pd.DataFrame({**columns, "n_first": counts[0], "n_second": counts[1]}, index=index)


def _means(weights: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(K, M) from weights (K, N); NaN where all weights are 0."""
    total = weights.sum(axis=1, keepdims=True)  # (K, 1)
    absent = np.full((len(weights), shares.shape[1]), np.nan)
    return np.divide(weights @ shares, total, out=absent, where=total > 0)
