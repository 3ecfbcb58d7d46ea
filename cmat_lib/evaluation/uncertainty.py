"""Intervals by a block bootstrap over time, and paired differences of scores.

Labels of neighbouring candles share most of their horizon and symbols move together, so rows are far from independent.
Whole blocks of consecutive moments are resampled, each with the rows of all symbols at these moments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cmat_lib.config import Config
from cmat_lib.errors import CmatError
from cmat_lib.evaluation.metrics import METRICS, SCOPES
from cmat_lib.evaluation.weighted import FrameScores

MIN_BLOCKS = 5  # with fewer blocks the resamples are nearly the sample itself, and an interval would be far too narrow
MIN_DEFINED = 0.9  # share of resamples in which a score must exist for its interval to mean something


@dataclass(frozen=True)
class Resampling:
    """How rows are resampled.

    Attributes
    ----------
    block : pd.Timedelta
        Length of a block in time.
    samples : int
        Resamples (S).
    confidence : float
        Coverage of the intervals, in (0, 1).
    seed : int
        Equal seeds give equal resamples for equal timestamps, which makes differences of two columns paired.
    """

    block: pd.Timedelta
    samples: int = 500
    confidence: float = 0.95
    seed: int = 0

    @classmethod
    def from_config(cls, config: Config) -> Resampling:
        """Blocks of ``evaluation.block_horizons`` label horizons, and the other keys of the evaluation section."""
        evaluation = config.evaluation
        block = evaluation.block_horizons * config.labels.horizon * config.data.bar
        return cls(block, evaluation.bootstrap_samples, evaluation.confidence, config.seed)


def block_bootstrap(
    timestamps: pd.Series | pd.Index, statistic: Callable[[np.ndarray], np.ndarray | float], resampling: Resampling
) -> np.ndarray:
    """Circular moving-block bootstrap of a weighted statistic.

    Politis & Romano (1992), *A circular block-resampling procedure for stationary data*. The units are the distinct
    sorted timestamps; a block is as many of them as fit ``resampling.block`` at their median spacing, so that samples
    taken every k-th candle get blocks of the same duration. All rows of one timestamp move together.

    Parameters
    ----------
    timestamps : (N,) Series or Index of datetimes
        Moment of each row; rows may be in any order, several may share a moment.
    statistic : callable
        Maps weights (N,) float64 (how often each row was drawn) to a number or an array.
    resampling : Resampling

    Returns
    -------
    (S, ...) float64 array
        The statistic of each resample; all NaN when time holds fewer than five blocks.

    Raises
    ------
    CmatError
        If there are no rows.
    """
    if len(timestamps) == 0:
        raise CmatError("block bootstrap: there are no rows to resample; check the shares of data.split_shares")
    moments, moment_of_row = np.unique(pd.DatetimeIndex(timestamps).as_unit("ns").asi8, return_inverse=True)
    shape = np.shape(statistic(np.ones(len(moment_of_row))))
    results = np.full((resampling.samples, *shape), np.nan)
    length = _moments_per_block(moments, resampling.block)
    if len(moments) < MIN_BLOCKS * length:
        return results
    rng = np.random.default_rng(resampling.seed)
    for sample in range(resampling.samples):
        results[sample] = statistic(_draw_counts(len(moments), length, rng)[moment_of_row])
    return results


def _moments_per_block(moments: np.ndarray, block: pd.Timedelta) -> int:
    """Blocks across a gap last longer than asked, never shorter."""
    if len(moments) < 2:
        return 1
    return max(1, math.ceil(block.as_unit("ns").value / np.median(np.diff(moments))))


def _draw_counts(moments: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """How often each moment is drawn, (moments,) float64; the last block is cut so that the total is exact."""
    starts = rng.integers(0, moments, size=-(-moments // length))
    drawn = (starts[:, None] + np.arange(length)).ravel()[:moments] % moments
    return np.bincount(drawn, minlength=moments).astype(np.float64)


def interval(samples: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap samples.

    Parameters
    ----------
    samples : (S,) array
        NaN where the statistic was undefined in a resample.
    confidence : float
        Coverage, in (0, 1).

    Returns
    -------
    low, high : float
        Both NaN when the statistic was undefined in more than a tenth of the resamples.
    """
    defined = samples[~np.isnan(samples)]
    if len(defined) < MIN_DEFINED * len(samples):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def interval_table(
    frame: pd.DataFrame, thresholds: Mapping[str, float], top_share: float, resampling: Resampling
) -> pd.DataFrame:
    """Every score of every column with its block-bootstrap interval, pooled and within symbols.

    Parameters
    ----------
    frame : pd.DataFrame
        Predictions of one part.
    thresholds : mapping
        Score column -> threshold.
    top_share : float
        See `cmat_lib.evaluation.metrics.scores`.
    resampling : Resampling

    Returns
    -------
    pd.DataFrame
        Index (score, scope, metric), columns ``value``, ``low``, ``high``.

    Raises
    ------
    CmatError
        If there are no rows, or a column is missing or has a missing value.
    """
    statistic = FrameScores(frame, thresholds, top_share)
    samples = block_bootstrap(frame["timestamp"], statistic, resampling)
    values = statistic(np.ones(len(frame)))
    index = pd.MultiIndex.from_product([list(thresholds), SCOPES, METRICS], names=["score", "scope", "metric"])
    flat = samples.reshape(len(samples), -1)
    limits = np.array([interval(column, resampling.confidence) for column in flat.T])
    return pd.DataFrame({"value": values.ravel(), "low": limits[:, 0], "high": limits[:, 1]}, index=index)


def paired_difference(
    frame: pd.DataFrame,
    column_a: str,
    column_b: str,
    metric: str,
    resampling: Resampling,
    *,
    thresholds: Mapping[str, float] | None = None,
    top_share: float = 0.02,
) -> pd.DataFrame:
    """Score of one column minus that of another on the same resamples.

    Both columns face the same easy and hard weeks in each resample, so what they share cancels; two overlapping
    intervals can therefore hide a difference that this one shows.

    Parameters
    ----------
    frame : pd.DataFrame
        Predictions of one part.
    column_a, column_b : str
        Score columns.
    metric : str
        One of `METRICS`.
    resampling : Resampling
    thresholds : mapping, optional
        Score column -> threshold; needed by the metrics at the threshold only.
    top_share : float
        Needed by ``precision_top`` only.

    Returns
    -------
    pd.DataFrame
        Index ``pooled``, ``within``; columns the two scores (``a``, ``b``), ``difference`` (a minus b), ``low``,
        ``high``.

    Raises
    ------
    CmatError
        If `metric` is unknown, or a column is missing or has a missing value.
    """
    if metric not in METRICS:
        raise CmatError(f"unknown metric '{metric}'; valid names are {', '.join(METRICS)}")
    chosen = {name: (thresholds or {}).get(name, math.nan) for name in (column_a, column_b)}
    statistic = FrameScores(frame, chosen, top_share)
    place = METRICS.index(metric)

    def both(weights: np.ndarray) -> np.ndarray:
        found = statistic(weights)[..., place]  # (columns, scopes); equal columns share one entry
        return np.stack([found[0], found[-1]])

    a, b = both(np.ones(len(frame)))
    samples = block_bootstrap(frame["timestamp"], lambda weights: np.subtract(*both(weights)), resampling)
    limits = np.array([interval(column, resampling.confidence) for column in samples.T])
    return pd.DataFrame(
        {"a": a, "b": b, "difference": a - b, "low": limits[:, 0], "high": limits[:, 1]}, index=list(SCOPES)
    )
