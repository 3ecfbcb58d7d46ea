"""Scores under row weights, fast enough for a bootstrap: rows are sorted once, a resample only counts.

scikit-learn has these scores with ``sample_weight`` and the tests hold every one against it, but it sorts 30,000 rows
anew for each of 500 resamples, columns and symbols.
"""

from collections.abc import Callable, Sequence

import numpy as np

EQUAL_BINS = 10  # of equal size, for the calibration error and the reliability plot
Statistic = Callable[[np.ndarray], np.ndarray]  # weights (N,) -> numbers


def quotient(part: np.ndarray | float, whole: np.ndarray | float) -> np.ndarray:
    """Part over whole, as of a weighted mean; NaN where the whole is not positive."""
    return part / np.where(whole > 0, whole, np.nan)


def pooled_and_within(
    columns: Sequence[Callable[[slice | np.ndarray], Statistic]],
    members: Sequence[np.ndarray],
    mean: Callable[[list[np.ndarray]], np.ndarray],
) -> Statistic:
    """Statistics (columns, 2 scopes, metrics) over all rows, and as the mean over symbols of each one's own.

    Each column gives the statistic of some rows, such as the `members` of a symbol; `mean` makes one of the symbols'.
    """
    found = [(column(slice(None)), [column(rows) for rows in members]) for column in columns]

    def statistic(weights: np.ndarray) -> np.ndarray:
        parts = [weights[rows] for rows in members]
        within = [mean([one(part) for one, part in zip(own, parts, strict=True)]) for _, own in found]
        return np.array([[pooled(weights), own] for (pooled, _), own in zip(found, within, strict=True)])

    return statistic


class Ranking:
    """Rows in the order of a score (N,), highest first, with equal scores as one group."""

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


def equal_mass_bins(probability: np.ndarray, bins: int = EQUAL_BINS) -> np.ndarray:
    """Bin of each row, (N,) int, about as many rows in each; equal probabilities share a bin, so some stay empty."""
    _, group, sizes = np.unique(probability, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - (sizes + 1) / 2  # mean rank of a group of ties, from 0
    return ((middle + 0.5) * bins / max(1, len(probability))).astype(int)[group]


class WeightedScores:
    """All scores of one column under row weights; arrays (N,) as of `cmat_lib.evaluation.metrics.score_arrays`."""

    def __init__(
        self,
        trigger: np.ndarray,
        ranking: np.ndarray,
        probability: np.ndarray,
        threshold: float,
        top_shares: Sequence[float],
    ):
        self.ranking = Ranking(trigger, ranking)
        self.trigger, self.top_shares = trigger, top_shares
        self.errors = probability - trigger
        self.squares = self.errors**2
        self.bin = equal_mass_bins(probability)
        self.alarms = np.where(np.isnan(threshold), np.nan, probability >= threshold)
        self.hits = self.alarms * trigger

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Scores in the order of `cmat_lib.evaluation.metrics.metric_names` for weights (N,); NaN where undefined."""
        n, positives = weights.sum(), weights @ self.trigger
        if n == 0:
            return np.full(11 + 3 * len(self.top_shares), np.nan)
        rows, triggers = self.ranking.counts(weights)
        hits, alarms = weights @ self.hits, weights @ self.alarms
        tops = [hits_at_top(rows, triggers, share) for share in self.top_shares]
        found, raised = np.array([(hits, alarms), *tops]).T  # at the threshold, then at each share
        precision = quotient(found, raised)
        triples = np.stack([precision, quotient(found, positives), quotient(precision * n, positives)], axis=1)
        # Matthews (1975): correlation of alarm and trigger
        spread = np.sqrt(alarms * (n - alarms) * positives * (n - positives))
        matthews = quotient(n * hits - alarms * positives, spread)
        brier, base_rate = weights @ self.squares / n, positives / n
        skill = 1 - quotient(brier, base_rate * (1 - base_rate))
        calibration = np.abs(np.bincount(self.bin, weights * self.errors)).sum() / n
        ranked, probable = (roc_auc(rows, triggers), average_precision(rows, triggers)), (brier, skill, calibration)
        return np.array([*ranked, *triples[0], matthews, alarms / n, *triples[1:].ravel(), *probable, base_rate])
