"""Scores of the second task, the largest rise within the horizon (``max_pct``, in percent)."""

from functools import partial

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.evaluation.metrics import SCOPES
from cmat_lib.evaluation.uncertainty import Resampling, bootstrap_table
from cmat_lib.evaluation.weighted import pooled_and_within, quotient

RISE_METRICS = ("mae", "r2", "spearman", "hit_quantile")
PREDICTED = "predicted_max_pct"
MEDIAN = "training median"


class _RiseScores:
    """`RISE_METRICS` of one prediction over some rows, under row weights."""

    def __init__(self, trigger: np.ndarray, realised: np.ndarray, predicted: np.ndarray, in_percent: bool):
        self.trigger, self.realised, self.in_percent = trigger, realised, in_percent
        self.errors = predicted - realised
        self.groups = [np.unique(values, return_inverse=True)[1] for values in (predicted, realised)]  # of ties

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        n = weights.sum()
        if n == 0:
            return np.full(len(RISE_METRICS), np.nan)
        ranked, expected = (_ranks(group, weights) for group in self.groups)
        mae, r2 = np.nan, np.nan
        if self.in_percent:
            variance = weights @ (self.realised - weights @ self.realised / n) ** 2
            mae = weights @ np.abs(self.errors) / n
            r2 = 1 - quotient(weights @ self.errors**2, variance)
        quantile = quotient(weights @ (self.trigger * ranked), weights @ self.trigger)
        return np.array([mae, r2, _correlation(ranked, expected, weights), quantile])


def _ranks(group: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rank of each row from 0 to 1, (N,), from its number among the ascending values; ties share their middle."""
    rows = np.bincount(group, weights)
    return ((np.cumsum(rows) - rows / 2) / rows.sum())[group]


def _correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    a, b = (values - weights @ values / weights.sum() for values in (a, b))
    spread = np.sqrt((weights @ a**2) * (weights @ b**2))
    return float(weights @ (a * b) / spread) if spread > 1e-12 * weights.sum() else np.nan


def rise_table(predictions: pd.DataFrame, rankings: list[str], resampling: Resampling) -> pd.DataFrame:
    """Scores of the predicted rise on the test part, beside a constant and beside scores of the trigger.

    Index (score, scope, metric), columns ``value``, ``low``, ``high``. ``mae`` in percentage points; ``r2`` (0 is the
    mean of these very rows); ``spearman`` rank correlation with the realised rise; ``hit_quantile``: mean place of the
    rows with a trigger in the ranking by prediction, from 0 (lowest) to 1, where 0.5 is chance. A score of the trigger
    has no unit: it gets the last two only. The constant, the median of the training part, is the best for `mae` without
    looking at a row. Within is the mean over the symbols that show both classes. No train or test row: `CmatError`.
    """
    parts = {part: predictions[predictions["part"] == part] for part in ("train", "test")}
    for part, rows in parts.items():
        if rows.empty:
            raise CmatError(f"max_pct: the {part} part has no rows; check the shares of data.split_shares")
    test = parts["test"].assign(**{MEDIAN: parts["train"]["max_pct"].median()})
    names = [PREDICTED, MEDIAN, *rankings]

    def of_rows(rows: slice | np.ndarray, name: str) -> _RiseScores:
        columns = [test[column].to_numpy(np.float64)[rows] for column in ("trigger", "max_pct", name)]
        return _RiseScores(*columns, name in (PREDICTED, MEDIAN))

    def mean(symbols: list[np.ndarray]) -> np.ndarray:
        return np.mean(symbols, axis=0) if symbols else np.full(len(RISE_METRICS), np.nan)

    members = test.groupby("symbol", observed=True).indices.values()
    members = [rows for rows in members if 0 < test["trigger"].iloc[rows].mean() < 1]
    statistic = pooled_and_within([partial(of_rows, name=name) for name in names], members, mean)
    index = pd.MultiIndex.from_product([names, SCOPES, RISE_METRICS], names=["score", "scope", "metric"])
    return bootstrap_table(test["timestamp"], statistic, resampling, index)
