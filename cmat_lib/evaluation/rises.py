"""Scores of the second task, the largest rise within the horizon (``max_pct``, in percent)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.evaluation.metrics import SCOPES
from cmat_lib.evaluation.uncertainty import Resampling, block_bootstrap, intervals

RISE_METRICS = ("mae", "r2", "spearman", "hit_quantile")
MODEL = "predicted_max_pct"
CONSTANT = "training median"


class _Ranks:
    """Mid-ranks of one column under row weights: rows are sorted once, a resample only counts."""

    def __init__(self, values: np.ndarray):
        _, self.group = np.unique(values, return_inverse=True)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Rank of each row from 0 to 1, (N,), for weights (N,); ties share the middle of their ranks."""
        rows = np.bincount(self.group, weights)
        return ((np.cumsum(rows) - rows / 2) / rows.sum())[self.group]


class _RiseScores:
    """`RISE_METRICS` of one prediction over some rows, under row weights."""

    def __init__(self, trigger: np.ndarray, realised: np.ndarray, predicted: np.ndarray, in_percent: bool):
        self.trigger, self.realised, self.in_percent = trigger, realised, in_percent
        self.errors = predicted - realised
        self.ranks = _Ranks(predicted), _Ranks(realised)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        n, hits = weights.sum(), weights @ self.trigger
        if n == 0:
            return np.full(len(RISE_METRICS), np.nan)
        ranked, expected = (ranks(weights) for ranks in self.ranks)
        mae, r2 = np.nan, np.nan
        if self.in_percent:
            variance = weights @ (self.realised - weights @ self.realised / n) ** 2
            mae = weights @ np.abs(self.errors) / n
            r2 = 1 - weights @ self.errors**2 / variance if variance > 0 else np.nan
        quantile = weights @ (self.trigger * ranked) / hits if hits > 0 else np.nan
        return np.array([mae, r2, _correlation(ranked, expected, weights), quantile])


def _correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    a, b = (values - weights @ values / weights.sum() for values in (a, b))
    spread = np.sqrt((weights @ a**2) * (weights @ b**2))
    return float(weights @ (a * b) / spread) if spread > 1e-12 * weights.sum() else np.nan


def rise_table(predictions: pd.DataFrame, rankings: list[str], resampling: Resampling) -> pd.DataFrame:
    """Scores of the predicted rise on the test part, beside a constant and beside scores of the trigger.

    ``mae`` in percentage points; ``r2`` (0 is the mean of these very rows); ``spearman`` rank correlation with the
    realised rise; ``hit_quantile``: mean place of the rows with a trigger in the ranking by prediction, from 0 (lowest)
    to 1, where 0.5 is chance. A score of the trigger has no unit: it gets the last two only. The constant is the median
    of the training part, the best answer for `mae` without looking at a row; it ranks nothing.

    Parameters
    ----------
    predictions : DataFrame
        Train and test part with ``symbol``, ``timestamp``, ``part``, ``trigger``, ``max_pct``, ``predicted_max_pct``.

    Returns
    -------
    DataFrame
        Index (score, scope, metric), columns ``value``, ``low``, ``high``.

    Raises
    ------
    CmatError
        If the train or test part has no rows.
    """
    parts = {part: predictions[predictions["part"] == part] for part in ("train", "test")}
    for part, rows in parts.items():
        if rows.empty:
            raise CmatError(f"max_pct: the {part} part has no rows; check the shares of data.split_shares")
    test = parts["test"].assign(**{CONSTANT: parts["train"]["max_pct"].median()})
    names = [MODEL, CONSTANT, *rankings]
    statistic = _frame_statistic(test, names)
    limits = intervals(block_bootstrap(test["timestamp"], statistic, resampling), resampling.confidence)
    index = pd.MultiIndex.from_product([names, SCOPES, RISE_METRICS], names=["score", "scope", "metric"])
    table = pd.DataFrame({"value": statistic(np.ones(len(test))).ravel()}, index=index)
    table["low"], table["high"] = limits.reshape(-1, 2).T
    return table


def _mean(rows: list[np.ndarray]) -> np.ndarray:
    return np.mean(rows, axis=0) if rows else np.full(len(RISE_METRICS), np.nan)


def _frame_statistic(test: pd.DataFrame, names: list[str]) -> Callable[[np.ndarray], np.ndarray]:
    """Weighted statistic (names, scopes, metrics); within is the mean over symbols that show both classes."""
    members = test.groupby("symbol", observed=True).indices.values()
    members = [rows for rows in members if 0 < test["trigger"].iloc[rows].mean() < 1]
    scores = []
    for name in names:
        columns = [test[column].to_numpy(np.float64) for column in ("trigger", "max_pct", name)]
        in_percent = name in (MODEL, CONSTANT)
        within = [_RiseScores(*(values[rows] for values in columns), in_percent) for rows in members]
        scores.append((_RiseScores(*columns, in_percent), within))

    def statistic(weights: np.ndarray) -> np.ndarray:
        parts = [weights[rows] for rows in members]
        return np.array(
            [
                [pooled(weights), _mean([score(part) for score, part in zip(within, parts, strict=True)])]
                for pooled, within in scores
            ]
        )

    return statistic
