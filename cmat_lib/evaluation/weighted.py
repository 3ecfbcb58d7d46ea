"""The scores of `metrics` under row weights, fast enough for a bootstrap: rows are sorted once, then only counted."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from cmat_lib.evaluation.metrics import METRICS, NOT_PROBABILITIES, SCOPES, score_arrays


class WeightedScores:
    """Scores of one column under row weights, equal to scikit-learn's with ``sample_weight``.

    Rows are sorted once; a resample then costs two cumulative sums instead of a sort.

    Parameters
    ----------
    trigger, ranking, probability : (N,) arrays
        See `cmat_lib.evaluation.metrics.score_arrays`.
    threshold, top_share : float
        See `cmat_lib.evaluation.metrics.scores`.
    """

    def __init__(
        self, trigger: np.ndarray, ranking: np.ndarray, probability: np.ndarray, threshold: float, top_share: float
    ):
        self.order = np.argsort(-ranking, kind="stable")
        self.ends = np.flatnonzero(np.append(np.diff(ranking[self.order]) != 0, True))  # last row of each group of ties
        self.trigger, self.trigger_ranked = trigger, trigger[self.order]
        self.alarms = (probability >= threshold).astype(np.float64)
        self.hits = self.alarms * trigger
        self.errors = (probability - trigger) ** 2
        self.has_threshold, self.top_share = not math.isnan(threshold), top_share

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Scores in the order of `METRICS`, (7,), for weights (N,); NaN where undefined."""
        ranked = weights[self.order]
        rows = np.cumsum(ranked)[self.ends]
        triggers = np.cumsum(ranked * self.trigger_ranked)[self.ends]
        n, positives, hits = rows[-1], triggers[-1], weights @ self.hits
        both = 0 < positives < n
        return np.array(
            [
                _roc_auc(rows, triggers) if both else np.nan,
                _average_precision(rows, triggers) if both else np.nan,
                _quotient(hits, weights @ self.alarms),
                _quotient(hits, positives) if self.has_threshold else np.nan,
                _precision_top(rows, triggers, self.top_share) if n else np.nan,
                _quotient(weights @ self.errors, n),
                _quotient(positives, n),
            ]
        )


def _roc_auc(rows: np.ndarray, triggers: np.ndarray) -> float:
    """Area by trapezoids over cumulative counts; a group of ties is one trapezoid."""
    others = rows - triggers
    heights = triggers + np.append(0.0, triggers[:-1])
    return float(np.diff(others, prepend=0.0) @ heights / (2 * triggers[-1] * others[-1]))


def _average_precision(rows: np.ndarray, triggers: np.ndarray) -> float:
    """Precision at each group of ties, weighted by the recall that it adds."""
    precision = np.divide(triggers, rows, out=np.zeros_like(rows), where=rows > 0)
    return float(np.diff(triggers, prepend=0.0) @ precision / triggers[-1])


def _precision_top(rows: np.ndarray, triggers: np.ndarray, top_share: float) -> float:
    """Straight line inside a group of ties: tied rows count in proportion."""
    k = max(1.0, round(top_share * rows[-1]))
    group = int(np.searchsorted(rows, k))
    rows_above, triggers_above = (rows[group - 1], triggers[group - 1]) if group else (0.0, 0.0)
    share = (k - rows_above) / (rows[group] - rows_above)
    return float((triggers_above + share * (triggers[group] - triggers_above)) / k)


def _quotient(part: float, whole: float) -> float:
    return part / whole if whole > 0 else np.nan


class FrameScores:
    """All metrics of several columns over one frame, pooled and within symbols, as one weighted statistic."""

    def __init__(self, frame: pd.DataFrame, thresholds: Mapping[str, float], top_share: float):
        self.members = list(frame.groupby("symbol", observed=True).indices.values())
        self.columns = []
        for name, threshold in thresholds.items():
            arrays = score_arrays(frame, name)
            pooled = WeightedScores(*arrays, threshold, top_share)
            within = [
                WeightedScores(*(values[rows] for values in arrays), threshold, top_share) for rows in self.members
            ]
            self.columns.append((pooled, within))
        self.undefined = np.zeros((len(self.columns), len(SCOPES), len(METRICS)), bool)
        self.undefined[np.isin(list(thresholds), NOT_PROBABILITIES), :, METRICS.index("brier")] = True

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """(columns, scopes, metrics) scores for weights (N,)."""
        parts = [weights[rows] for rows in self.members]
        result = np.array(
            [
                [pooled(weights), _mean_over_symbols([score(part) for score, part in zip(within, parts, strict=True)])]
                for pooled, within in self.columns
            ]
        )
        result[self.undefined] = np.nan
        return result


def _mean_over_symbols(rows: list[np.ndarray]) -> np.ndarray:
    """Mean over the symbols that show both classes, (metrics,); each metric over the symbols that define it."""
    table = np.array([row for row in rows if not np.isnan(row[METRICS.index("roc_auc")])]).reshape(-1, len(METRICS))
    defined = ~np.isnan(table)
    count = defined.sum(axis=0)
    total = np.where(defined, table, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(METRICS), np.nan), where=count > 0)
