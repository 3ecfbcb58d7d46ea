"""Scores of a predictions frame: pooled and within symbols, for any score column.

A predictions frame has one row per symbol and candle with the columns ``symbol``, ``timestamp``, ``part``, ``trigger``
(0/1) and one or more score columns (``probability`` of the model, ``volatility``, ``trees``, ``oracle_probability``),
each a calibrated probability, most with an uncalibrated twin (``raw_probability``) that ranks. A score that the rows
cannot define (one class only, no alarm) is NaN, never an exception, so that a table over many symbols survives a quiet
one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.data.splits import PARTS
from cmat_lib.evaluation.weighted import WeightedScores

MODEL = "probability"  # the column of the calibrated answer of the model
SCOPES = ("pooled", "within")
TOP_SHARES = (0.01, 0.02, 0.05)


def metric_names(top_shares: Sequence[float] = TOP_SHARES) -> list[str]:
    """Names of all scores, in order.

    ``roc_auc``, ``pr_auc`` (average precision); at the threshold ``precision``, ``recall``, ``lift`` (precision over
    base rate), ``mcc`` (Matthews' correlation) and ``alarm_share``; precision, recall and lift among the highest
    ``top_shares`` of the rows (``precision_top_2`` for 0.02: percent); ``brier``, ``brier_skill`` (1 minus Brier over
    that of the base rate, which the rows themselves reveal: a hard opponent), ``ece`` (expected calibration error over
    ten bins of equal size; Naeini, Cooper & Hauskrecht 2015), ``base_rate``.
    """
    tops = [f"{name}_top_{top_name(share)}" for share in top_shares for name in ("precision", "recall", "lift")]
    at_threshold = ["precision", "recall", "lift", "mcc", "alarm_share"]
    return ["roc_auc", "pr_auc", *at_threshold, *tops, "brier", "brier_skill", "ece", "base_rate"]


def top_name(share: float) -> str:
    """Share as percent without superfluous digits: ``2`` for 0.02, ``0.5`` for 0.005."""
    return f"{100 * share:.6g}"


def score_arrays(frame: pd.DataFrame, score: str = "probability") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns of `frame` that a score needs, checked.

    Isotonic calibration gives one value to all beyond its outer knots, and ties cost ranking scores. So a column is
    ranked by its uncalibrated twin ``raw_<score>`` where the frame has one, and by itself otherwise; threshold, Brier
    score and calibration error always use the column itself.

    Returns
    -------
    trigger, ranking, probability : (N,) float64 arrays

    Raises
    ------
    CmatError
        If a column is missing or has a missing value.
    """
    ranking = f"raw_{score}" if f"raw_{score}" in frame else score
    columns = ("trigger", ranking, score)
    absent = [name for name in columns if name not in frame]
    if absent:
        raise CmatError(f"predictions: no column '{absent[0]}'; the columns are {', '.join(map(str, frame.columns))}")
    arrays = {name: frame[name].to_numpy(np.float64) for name in columns}
    for name, values in arrays.items():
        if np.isnan(values).any():
            missing = np.isnan(values).sum()
            raise CmatError(
                f"predictions: column '{name}' has {missing} missing values; drop these rows before scoring"
            )
    return arrays["trigger"], arrays[ranking], arrays[score]


class FrameScores:
    """All scores of several columns over one frame, pooled and within symbols, as one weighted statistic.

    Pooling flatters: symbols with more triggers tend to get higher scores, which ranks symbols and not moments. Within
    a symbol nothing of that is left: the mean over symbols of each symbol's own scores, symbols that show one class
    only left out, each score over the symbols that define it.

    Parameters
    ----------
    thresholds : mapping
        Score column -> threshold; a row is an alarm when its score is at least this, NaN is no threshold.

    Raises
    ------
    CmatError
        If a column is missing or has a missing value.
    """

    def __init__(self, frame: pd.DataFrame, thresholds: Mapping[str, float], top_shares: Sequence[float] = TOP_SHARES):
        self.members = list(frame.groupby("symbol", observed=True).indices.values())
        self.columns = []
        for name, threshold in thresholds.items():
            arrays = score_arrays(frame, name)
            within = [WeightedScores(*(v[rows] for v in arrays), threshold, top_shares) for rows in self.members]
            self.columns.append((WeightedScores(*arrays, threshold, top_shares), within))
        self.size = len(metric_names(top_shares))

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """(columns, scopes, metrics) scores for weights (N,)."""
        parts = [weights[rows] for rows in self.members]
        return np.array(
            [
                [pooled(weights), self._mean([score(part) for score, part in zip(within, parts, strict=True)])]
                for pooled, within in self.columns
            ]
        )

    def _mean(self, rows: list[np.ndarray]) -> np.ndarray:
        """Mean over the symbols that show both classes, (metrics,)."""
        table = np.array([row for row in rows if not np.isnan(row[0])]).reshape(-1, self.size)
        defined = ~np.isnan(table)
        count = defined.sum(axis=0)
        total = np.where(defined, table, 0.0).sum(axis=0)
        return np.divide(total, count, out=np.full(self.size, np.nan), where=count > 0)


def scores(
    frame: pd.DataFrame,
    threshold: float,
    top_shares: Sequence[float] = TOP_SHARES,
    score: str = "probability",
    scope: str = "pooled",
) -> dict[str, float]:
    """All scores of one column over the rows of `frame`.

    Returns the entries of `metric_names`.

    Parameters
    ----------
    threshold : float
        A row is an alarm when its score is at least this; NaN leaves the scores at the threshold undefined.
    top_shares : sequence of float
        Shares of the highest scores, each in (0, 1).
    score : str
        Score column; see `score_arrays` for what ranks it.
    scope : {"pooled", "within"}
        See `FrameScores`.

    Raises
    ------
    CmatError
        If a column is missing or has a missing value.
    """
    found = FrameScores(frame, {score: threshold}, top_shares)(np.ones(len(frame)))[0, SCOPES.index(scope)]
    return dict(zip(metric_names(top_shares), found.tolist(), strict=True))


def choose_threshold(probability: np.ndarray, trigger: np.ndarray, timestamps: pd.Series) -> float:
    """Threshold with the highest F1 score, mean over the weeks of the calibrate part.

    F1 needs no costs of misses and false alarms, which nobody has given, and unlike accuracy it does not answer
    "never" at a base rate of a few percent. Triggers come in clusters: over all rows at once, the one week of a crash
    that has half of them decides, and answers with a probability that quiet weeks never reach; on real candles that
    threshold raised no alarm in the whole test part. So each week that has a trigger counts the same. The threshold is
    put halfway to the next lower probability, because a probability that many rows share, as an isotonic fit may give,
    is not to be decided by rounding. Among equal F1 the highest threshold wins (fewest alarms).

    The stop part has already chosen the epoch and the test part must stay unseen: neither may choose the threshold.

    Parameters
    ----------
    probability : (N,) array
        Calibrated.
    timestamps : (N,) Series of Timestamp
        With time zone.

    Raises
    ------
    CmatError
        If there is no trigger to hit.
    """
    probability, trigger = np.asarray(probability, np.float64), np.asarray(trigger)
    if not np.any(trigger == 1):
        raise CmatError(
            "threshold: there is no trigger in these rows; give the calibrate part more time (data.split_shares)"
        )
    steps = np.unique(probability)
    week = pd.DatetimeIndex(timestamps).tz_convert(None).to_period("W")
    members = [rows for rows in pd.Series(trigger).groupby(week).indices.values() if trigger[rows].any()]
    f1 = np.mean([_f1_scores(probability[rows], trigger[rows], steps) for rows in members], axis=0)
    best = int(np.flatnonzero(f1 == f1.max())[-1])
    return float(steps[max(0, best - 1) : best + 1].mean())


def _f1_scores(probability: np.ndarray, trigger: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """F1 score when each probability of at least a threshold is an alarm, for each of the thresholds."""
    found = np.sort(probability[trigger == 1])
    alarms = len(probability) - np.searchsorted(np.sort(probability), thresholds)
    return 2 * (len(found) - np.searchsorted(found, thresholds)) / (alarms + len(found))


def choose_thresholds(frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, float]:
    """Threshold of each score column, chosen on the calibrate part of a predictions frame (see `choose_threshold`)."""
    part = frame[frame["part"] == "calibrate"]
    chosen = {}
    for name in columns:
        trigger, _, probability = score_arrays(part, name)
        chosen[name] = choose_threshold(probability, trigger, part["timestamp"])
    return chosen


def gap_table(
    frame: pd.DataFrame,
    threshold: float,
    top_shares: Sequence[float] = TOP_SHARES,
    score: str = "probability",
    scope: str = "pooled",
) -> pd.DataFrame:
    """Scores of one column in every part, and how much is lost from train to test.

    The base rate differs between parts, and precision moves with it; it stands in the table for that reason.

    Parameters
    ----------
    frame : pd.DataFrame
        Predictions of all parts.
    threshold, top_shares, score, scope
        See `scores`.

    Returns
    -------
    pd.DataFrame
        Index `metric_names`; columns the parts that the frame has, in order, ``gap`` (train minus test, absolute) and
        ``relative_gap`` (gap over train).

    Raises
    ------
    CmatError
        If a column is missing or has a missing value.
    """
    present = [part for part in PARTS if (frame["part"] == part).any()]
    columns = {part: scores(frame[frame["part"] == part], threshold, top_shares, score, scope) for part in present}
    table = pd.DataFrame(columns, index=metric_names(top_shares)).reindex(columns=[*PARTS])
    table["gap"] = table["train"] - table["test"]
    table["relative_gap"] = table["gap"] / table["train"].where(table["train"] != 0)
    return table[[*present, "gap", "relative_gap"]]
