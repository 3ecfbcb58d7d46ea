"""Intervals by a block bootstrap over time, and paired differences of scores.

Labels of neighbouring candles share most of their horizon and symbols move together, so rows are far from independent.
Whole blocks of consecutive moments are resampled, each with the rows of all symbols at these moments.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config
from cmat_lib.evaluation.metrics import SCOPES, TOP_SHARES, frame_scores, metric_names
from cmat_lib.evaluation.weighted import Statistic

MIN_BLOCKS = 5  # with fewer blocks the resamples are nearly the sample itself, and an interval would be far too narrow
MIN_DEFINED = 0.9  # share of resamples in which a score must exist for its interval to mean something


@dataclass(frozen=True)
class Resampling:
    """How rows are resampled."""

    block: pd.Timedelta  # length of a block in time
    samples: int = 500  # resamples (S)
    confidence: float = 0.95
    seed: int = 0  # equal seeds, equal resamples for equal timestamps: differences of two columns are paired

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Blocks of ``evaluation.block_horizons`` label horizons, and the other keys of the evaluation section."""
        evaluation = config.evaluation
        block = evaluation.block_horizons * config.labels.horizon * config.data.bar
        return cls(block, evaluation.bootstrap_samples, evaluation.confidence, config.seed)


def block_bootstrap(timestamps: pd.Series | pd.Index, statistic: Statistic, resampling: Resampling) -> np.ndarray:
    """Circular moving-block bootstrap of a weighted statistic.

    Politis & Romano (1992), *A circular block-resampling procedure for stationary data*. The units are the distinct
    sorted timestamps; a block is as many of them as fit ``resampling.block`` at their median spacing, also for samples
    of every k-th candle. The statistic maps weights (N,), how often each row was drawn, to a number or an array (...);
    the result is (S, ...), all NaN when time holds fewer than five blocks. No rows are a `CmatError`.
    """
    if len(timestamps) == 0:
        raise CmatError("block bootstrap: there are no rows to resample; check the shares of data.split_shares")
    moments, moment_of_row = np.unique(pd.DatetimeIndex(timestamps).as_unit("ns").asi8, return_inverse=True)
    shape = np.shape(statistic(np.ones(len(moment_of_row))))
    results = np.full((resampling.samples, *shape), np.nan)
    length = moments_per_block(moments, resampling.block)
    if len(moments) < MIN_BLOCKS * length:
        return results
    rng = np.random.default_rng(resampling.seed)
    for sample in range(resampling.samples):
        results[sample] = statistic(_draw_counts(len(moments), length, rng)[moment_of_row])
    return results


def moments_per_block(moments: np.ndarray, block: pd.Timedelta) -> int:
    """Samples in a block, by the median step of `moments`, (n,) in ns; a block across a gap lasts longer than asked."""
    if len(moments) < 2:
        return 1
    return max(1, math.ceil(block.as_unit("ns").value / np.median(np.diff(moments))))


def _draw_counts(moments: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """How often each moment is drawn, (moments,) float64; the last block is cut so that the total is exact."""
    starts = rng.integers(0, moments, size=-(-moments // length))
    drawn = (starts[:, None] + np.arange(length)).ravel()[:moments] % moments
    return np.bincount(drawn, minlength=moments).astype(np.float64)


def interval(samples: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap samples (S,); NaN when more than a tenth of them are NaN, that is undefined."""
    defined = samples[~np.isnan(samples)]
    if len(defined) < MIN_DEFINED * len(samples):
        return math.nan, math.nan
    return tuple(np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist())


def interval_table(
    value: np.ndarray, samples: np.ndarray, confidence: float, index: pd.Index | None = None
) -> pd.DataFrame:
    """Columns ``value``, ``low``, ``high``: a row for each number of `value` (...) and its `samples` (S, ...)."""
    limits = np.array([interval(one, confidence) for one in samples.reshape(len(samples), -1).T]).reshape(-1, 2)
    return pd.DataFrame({"value": np.ravel(value), "low": limits[:, 0], "high": limits[:, 1]}, index=index)


def bootstrap_table(
    timestamps: pd.Series, statistic: Statistic, resampling: Resampling, index: pd.Index | None = None
) -> pd.DataFrame:
    """`interval_table` of a weighted statistic on the rows and on the resamples of `block_bootstrap`."""
    samples = block_bootstrap(timestamps, statistic, resampling)
    return interval_table(statistic(np.ones(len(timestamps))), samples, resampling.confidence, index)


@dataclass(frozen=True)
class ScoreDraws:
    """All scores of several columns on the rows and on the same resamples of them."""

    names: list[str]  # score columns (K)
    metrics: list[str]  # see `cmat_lib.evaluation.metrics.metric_names` (M)
    value: np.ndarray  # (K, 2, M), on the rows; the second axis is `SCOPES`
    samples: np.ndarray  # (S, K, 2, M), on the resamples
    confidence: float

    def table(self) -> pd.DataFrame:
        """Index (score, scope, metric), columns ``value``, ``low``, ``high``."""
        return self._table("score", self.names, self.value, self.samples)

    def differences(self, reference: str) -> pd.DataFrame:
        """Scores of `reference` minus those of every other column, on the same resamples.

        Both columns face the same easy and hard weeks in each resample, so what they share cancels; two overlapping
        intervals can therefore hide a difference that this one shows. Index (baseline, scope, metric), columns
        ``value``, ``low``, ``high``.
        """
        place = self.names.index(reference)
        others = [number for number in range(len(self.names)) if number != place]
        value = self.value[place] - self.value[others]
        samples = self.samples[:, [place]] - self.samples[:, others]
        return self._table("baseline", [self.names[number] for number in others], value, samples)

    def _table(self, level: str, names: list[str], value: np.ndarray, samples: np.ndarray) -> pd.DataFrame:
        index = pd.MultiIndex.from_product([names, SCOPES, self.metrics], names=[level, "scope", "metric"])
        return interval_table(value, samples, self.confidence, index)


def draw_scores(
    frame: pd.DataFrame,
    thresholds: Mapping[str, float],
    resampling: Resampling,
    top_shares: Sequence[float] = TOP_SHARES,
) -> ScoreDraws:
    """Score columns of one part on its rows and on resamples of them (see `cmat_lib.evaluation.metrics.frame_scores`).

    The calibration error of a resample lies above that of the rows, because a resample adds chance of its own: its
    interval is to be read from its lower end.
    """
    statistic = frame_scores(frame, thresholds, top_shares)
    samples = block_bootstrap(frame["timestamp"], statistic, resampling)
    value = statistic(np.ones(len(frame)))
    return ScoreDraws(list(thresholds), metric_names(top_shares), value, samples, resampling.confidence)
