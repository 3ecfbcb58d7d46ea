"""Scores of a predictions frame: pooled and within symbols, for any score column.

A predictions frame has one row per symbol and candle with the columns ``symbol``, ``timestamp``, ``part``, ``trigger``
(0/1) and one or more score columns (``probability`` of the model, ``volatility``, ``trees``, ``oracle_probability``),
each a calibrated probability, most with an uncalibrated twin (``raw_probability``) that ranks. A score that the rows
cannot define (one class only, no alarm) is NaN, so that a table over many symbols survives a quiet one.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.data.splits import PARTS
from cmat_lib.evaluation.weighted import Statistic, WeightedScores, pooled_and_within, quotient

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


def score_arrays(frame: pd.DataFrame, score: str = MODEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trigger, ranking and probability of a score column, (N,) float64 each.

    Isotonic calibration gives one value to all beyond its outer knots, and ties cost ranking scores. So a column is
    ranked by its uncalibrated twin ``raw_<score>`` where the frame has one; threshold, Brier score and calibration
    error always use the column itself. A missing column or value is a `CmatError`, as in all functions that score.
    """
    ranking = f"raw_{score}" if f"raw_{score}" in frame else score
    arrays = []
    for name in ("trigger", ranking, score):
        if name not in frame:
            raise CmatError(f"predictions: no column '{name}'; the columns are {', '.join(map(str, frame.columns))}")
        values = frame[name].to_numpy(np.float64)
        if count := np.isnan(values).sum():
            raise CmatError(f"predictions: column '{name}' has {count} missing values; drop these rows before scoring")
        arrays.append(values)
    return tuple(arrays)


def frame_scores(
    frame: pd.DataFrame, thresholds: Mapping[str, float], top_shares: Sequence[float] = TOP_SHARES
) -> Statistic:
    """All scores of several columns over one frame: weights (N,) to (columns, scopes, metrics).

    Pooling flatters: symbols with more triggers tend to get higher scores, which ranks symbols and not moments. Within
    a symbol nothing of that is left: the mean over symbols of each symbol's own scores, symbols that show one class
    only left out, each score over the symbols that define it. A row is an alarm when its score is at least the
    threshold of that column; NaN is none.
    """
    size = len(metric_names(top_shares))

    def of_rows(rows: slice | np.ndarray, arrays: tuple[np.ndarray, ...], threshold: float) -> WeightedScores:
        return WeightedScores(*(values[rows] for values in arrays), threshold, top_shares)

    def mean(symbols: list[np.ndarray]) -> np.ndarray:
        table = np.array([row for row in symbols if not np.isnan(row[0])]).reshape(-1, size)
        defined = ~np.isnan(table)
        return quotient(np.where(defined, table, 0.0).sum(axis=0), defined.sum(axis=0))

    columns = [partial(of_rows, arrays=score_arrays(frame, n), threshold=value) for n, value in thresholds.items()]
    return pooled_and_within(columns, list(frame.groupby("symbol", observed=True).indices.values()), mean)


def scores(
    frame: pd.DataFrame,
    threshold: float,
    top_shares: Sequence[float] = TOP_SHARES,
    score: str = MODEL,
    scope: str = "pooled",
) -> dict[str, float]:
    """The scores that `metric_names` lists, of one column over the rows of `frame`; parameters as of `frame_scores`."""
    found = frame_scores(frame, {score: threshold}, top_shares)(np.ones(len(frame)))[0, SCOPES.index(scope)]
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
    Probabilities (N,) are calibrated, timestamps have a time zone; no trigger at all is a `CmatError`.
    """
    probability, trigger = np.asarray(probability, np.float64), np.asarray(trigger)
    if not np.any(trigger == 1):
        advice = "give the calibrate part more time (data.split_shares)"
        raise CmatError(f"threshold: there is no trigger in these rows; {advice}")
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
    arrays = {name: score_arrays(part, name) for name in columns}
    return {name: choose_threshold(values[2], values[0], part["timestamp"]) for name, values in arrays.items()}


def gap_table(
    frame: pd.DataFrame, threshold: float, top_shares: Sequence[float] = TOP_SHARES, scope: str = "pooled"
) -> pd.DataFrame:
    """The model's scores (`metric_names`) in every part, and how much is lost from train to test.

    Columns: the parts that the predictions have, in order, ``gap`` (train minus test, absolute) and ``relative_gap``
    (gap over train). Precision moves with the base rate, which differs between parts.
    """
    present = [part for part in PARTS if (frame["part"] == part).any()]
    columns = {part: scores(frame[frame["part"] == part], threshold, top_shares, scope=scope) for part in present}
    table = pd.DataFrame(columns, index=metric_names(top_shares)).reindex(columns=[*PARTS])
    table["gap"] = table["train"] - table["test"]
    table["relative_gap"] = table["gap"] / table["train"].where(table["train"] != 0)
    return table[[*present, "gap", "relative_gap"]]
