"""Scores under row weights, fast enough for a bootstrap: rows are sorted once, a resample only counts.

scikit-learn has these scores with ``sample_weight`` and the tests hold every one against it, but it sorts 30,000 rows
anew for each of 500 resamples, columns and symbols.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BINS = 10  # groups of equal size for the calibration error and the reliability plot


class Ranking:
    """Rows in the order of a score, highest first, with equal scores as one group.

    Parameters
    ----------
    trigger, score : (N,) arrays
        Triggers are 0 or 1.
    """

    def __init__(self, trigger: np.ndarray, score: np.ndarray):
        self.order = np.argsort(-score, kind="stable")
        self.ends = np.flatnonzero(np.append(np.diff(score[self.order]) != 0, True))  # last row of each group of ties
        self.trigger = trigger[self.order]

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cumulative rows and triggers at the end of each group of ties, for weights (N,)."""
        ranked = weights[self.order]
        return np.cumsum(ranked)[self.ends], np.cumsum(ranked * self.trigger)[self.ends]


def roc_auc(rows: np.ndarray, triggers: np.ndarray) -> float:
    """Area by trapezoids over cumulative counts (see `Ranking.counts`); NaN when a class is missing."""
    others = rows - triggers
    if not (triggers[-1] > 0 and others[-1] > 0):
        return np.nan
    heights = triggers + np.append(0.0, triggers[:-1])
    return float(np.diff(others, prepend=0.0) @ heights / (2 * triggers[-1] * others[-1]))


def average_precision(rows: np.ndarray, triggers: np.ndarray) -> float:
    """Precision at each group of ties, weighted by the recall that it adds; NaN when a class is missing."""
    if not 0 < triggers[-1] < rows[-1]:
        return np.nan
    precision = np.divide(triggers, rows, out=np.zeros_like(rows), where=rows > 0)
    return float(np.diff(triggers, prepend=0.0) @ precision / triggers[-1])


def hits_at_top(rows: np.ndarray, triggers: np.ndarray, top_share: float) -> tuple[float, float]:
    """Triggers among the highest ``round(top_share * rows)`` rows (at least one), and that number of rows.

    Rows tied at the border count in proportion, so the result does not depend on the order of rows.
    """
    k = max(1.0, round(top_share * rows[-1]))
    group = int(np.searchsorted(rows, k))
    rows_above, triggers_above = (rows[group - 1], triggers[group - 1]) if group else (0.0, 0.0)
    share = (k - rows_above) / (rows[group] - rows_above)
    return float(triggers_above + share * (triggers[group] - triggers_above)), k


def equal_mass_bins(probability: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Bin of each row, (N,) int, about as many rows in each; equal probabilities share a bin, so some stay empty."""
    _, group, sizes = np.unique(probability, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - (sizes + 1) / 2  # mean rank of a group of ties, from 0
    return ((middle + 0.5) * bins / max(1, len(probability))).astype(int)[group]


class WeightedScores:
    """All scores of one column under row weights.

    Parameters
    ----------
    trigger, ranking, probability : (N,) arrays
        See `cmat_lib.evaluation.metrics.score_arrays`.
    """

    def __init__(
        self,
        trigger: np.ndarray,
        ranking: np.ndarray,
        probability: np.ndarray,
        threshold: float,
        top_shares: Sequence[float],
    ):
        self.ranking = Ranking(trigger, ranking)
        self.trigger, self.probability, self.top_shares = trigger, probability, top_shares
        self.errors = (probability - trigger) ** 2
        self.bin = equal_mass_bins(probability)
        alarms = np.where(np.isnan(threshold), np.nan, probability >= threshold)
        self.alarms, self.hits = alarms, alarms * trigger

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Scores in the order of `cmat_lib.evaluation.metrics.metric_names` for weights (N,); NaN where undefined."""
        n, positives = weights.sum(), weights @ self.trigger
        if n == 0:
            return np.full(11 + 3 * len(self.top_shares), np.nan)
        rows, triggers = self.ranking.counts(weights)
        top = [_precision_recall_lift(*hits_at_top(rows, triggers, share), positives, n) for share in self.top_shares]
        hits, alarms = weights @ self.hits, weights @ self.alarms
        brier, base_rate = weights @ self.errors / n, positives / n
        return np.array(
            [
                roc_auc(rows, triggers),
                average_precision(rows, triggers),
                *_precision_recall_lift(hits, alarms, positives, n),
                _matthews(hits, alarms, positives, n),
                alarms / n,
                *np.ravel(top),
                brier,
                1 - _quotient(brier, base_rate * (1 - base_rate)),
                self._calibration_error(weights) / n,
                base_rate,
            ]
        )

    def _calibration_error(self, weights: np.ndarray) -> float:
        """Sum over the bins of the absolute difference between announced and observed triggers."""
        return np.abs(np.bincount(self.bin, weights * (self.probability - self.trigger))).sum()


def _precision_recall_lift(hits: float, alarms: float, positives: float, n: float) -> tuple[float, float, float]:
    precision = _quotient(hits, alarms)
    return precision, _quotient(hits, positives), _quotient(precision * n, positives)


def _matthews(hits: float, alarms: float, positives: float, n: float) -> float:
    """Matthews (1975): correlation of alarm and trigger; NaN where either is constant."""
    return _quotient(n * hits - alarms * positives, np.sqrt(alarms * (n - alarms) * positives * (n - positives)))


def _quotient(part: float, whole: float) -> float:
    return part / whole if whole > 0 else np.nan
