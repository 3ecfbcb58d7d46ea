"""Scores of a predictions frame: pooled and within symbols, for any score column.

A predictions frame has one row per symbol and candle with the columns ``symbol``, ``timestamp``, ``part``,
``trigger`` (0/1) and one or more score columns (``probability``, ``volatility``, ``trees``,
``oracle_probability``). A score that the rows cannot define (one class only, no alarm) is NaN, never an exception, so
that a table over many symbols survives a quiet one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from cmat_lib.data.splits import PARTS
from cmat_lib.errors import CmatError

METRICS = (
    "roc_auc",
    "pr_auc",
    "precision_at_threshold",
    "recall_at_threshold",
    "precision_top",
    "brier",
    "base_rate",
)
SCOPES = ("pooled", "within")
NOT_PROBABILITIES = ("volatility",)


def score_arrays(frame: pd.DataFrame, score: str = "probability") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns of `frame` that a score needs, checked.

    Calibration by isotonic regression maps whole ranges to one value, and ties cost ranking scores. So a column is
    ranked by its uncalibrated twin ``raw_<score>`` where the frame has one (``raw_probability``), and by itself
    otherwise; threshold and Brier score always use the column itself.

    Parameters
    ----------
    frame : pd.DataFrame
        Predictions, N rows.
    score : str
        Score column.

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


def scores(frame: pd.DataFrame, threshold: float, top_share: float, score: str = "probability") -> dict[str, float]:
    """All scores of one column over the rows of `frame`, symbols pooled.

    Parameters
    ----------
    frame : pd.DataFrame
        Predictions, N rows.
    threshold : float
        A row is an alarm when its score is at least this; NaN leaves precision and recall at the threshold undefined.
    top_share : float
        Share of the highest scores for ``precision_top``, in (0, 1).
    score : str
        Score column; see `score_arrays` for what ranks it.

    Returns
    -------
    dict
        The entries of `METRICS` (each in [0, 1] or NaN), ``n`` rows and ``triggers`` among them. ``brier`` is NaN for
        the columns in `NOT_PROBABILITIES`.

    Raises
    ------
    CmatError
        If a column is missing or has a missing value.
    """
    trigger, ranking, probability = score_arrays(frame, score)
    n, triggers = len(trigger), int(trigger.sum())
    alarms = probability >= threshold
    hits = trigger[alarms].sum()
    return {
        "roc_auc": roc_auc_score(trigger, ranking) if 0 < triggers < n else math.nan,
        "pr_auc": average_precision_score(trigger, ranking) if 0 < triggers < n else math.nan,
        "precision_at_threshold": _ratio(hits, alarms.sum()),
        "recall_at_threshold": math.nan if math.isnan(threshold) else _ratio(hits, triggers),
        "precision_top": precision_top(trigger, ranking, top_share),
        "brier": math.nan if score in NOT_PROBABILITIES or n == 0 else float(np.mean((probability - trigger) ** 2)),
        "base_rate": _ratio(triggers, n),
        "n": n,
        "triggers": triggers,
    }


def precision_top(trigger: np.ndarray, ranking: np.ndarray, top_share: float) -> float:
    """Share of triggers among the highest ``round(top_share * N)`` scores (at least one row).

    Rows tied at the border count in proportion, so the result does not depend on the order of rows.

    Parameters
    ----------
    trigger, ranking : (N,) arrays
    top_share : float
        In (0, 1).

    Returns
    -------
    float
        In [0, 1]; NaN without rows.
    """
    if len(trigger) == 0:
        return math.nan
    k = max(1, round(top_share * len(trigger)))
    border = np.partition(ranking, -k)[-k]
    above, tied = ranking > border, ranking == border
    return float((trigger[above].sum() + (k - above.sum()) * trigger[tied].mean()) / k)


def scores_within(
    frame: pd.DataFrame, threshold: float, top_share: float, score: str = "probability"
) -> dict[str, float]:
    """Mean over symbols of each symbol's own scores; symbols that show one class only are left out.

    Pooling flatters: symbols with more triggers tend to get higher scores, which ranks symbols and not moments.
    Within a symbol nothing of that is left.

    Parameters
    ----------
    frame, threshold, top_share, score
        As for `scores`; ``precision_top`` takes the share of each symbol's rows.

    Returns
    -------
    dict
        As `scores`; an entry undefined for a symbol is averaged over the others. ``n`` and ``triggers`` count the
        rows of the symbols that are in the mean.

    Raises
    ------
    CmatError
        If a column is missing or has a missing value.
    """
    per_symbol = [scores(rows, threshold, top_share, score) for _, rows in frame.groupby("symbol", observed=True)]
    used = [result for result in per_symbol if 0 < result["triggers"] < result["n"]]
    means = {name: mean_of_defined([result[name] for result in used]) for name in METRICS}
    return means | {name: sum(result[name] for result in used) for name in ("n", "triggers")}


def mean_of_defined(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN, without a warning, if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def choose_threshold(probability: np.ndarray, trigger: np.ndarray) -> float:
    """Threshold with the highest F1 score, to be chosen on the calibrate part.

    F1 needs no costs of misses and false alarms, which nobody has given, and unlike accuracy it does not answer
    "never" at a base rate of a few percent. The stop part has already chosen the epoch and the test part must stay
    unseen: neither may choose the threshold. Among equal F1 the highest threshold wins (fewest alarms).

    Parameters
    ----------
    probability : (N,) array
        Any score.
    trigger : (N,) array
        0 or 1.

    Returns
    -------
    float
        One of the values of `probability`.

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
    precision, recall, thresholds = precision_recall_curve(trigger, probability)
    precision, recall = precision[:-1], recall[:-1]  # the last point is (1, 0) and belongs to no threshold
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return float(thresholds[np.flatnonzero(f1 == f1.max())[-1]])


def choose_thresholds(frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, float]:
    """Threshold of each score column, chosen on the calibrate part of a predictions frame (see `choose_threshold`)."""
    part = frame[frame["part"] == "calibrate"]
    chosen = {}
    for name in columns:
        trigger, _, probability = score_arrays(part, name)
        chosen[name] = choose_threshold(probability, trigger)
    return chosen


def score_table(
    frame: pd.DataFrame, thresholds: Mapping[str, float], top_share: float, parts: Sequence[str] = ("test",)
) -> pd.DataFrame:
    """Scores of several columns side by side, pooled and within symbols.

    Parameters
    ----------
    frame : pd.DataFrame
        Predictions of all parts.
    thresholds : mapping
        Score column -> threshold; its order is the order of rows.
    top_share : float
        See `scores`.
    parts : sequence of str
        Parts to score.

    Returns
    -------
    pd.DataFrame
        Index (part, score, scope), columns `METRICS`, ``n``, ``triggers``.

    Raises
    ------
    CmatError
        If a column is missing or has a missing value.
    """
    rows = {}
    for part in parts:
        chosen = frame[frame["part"] == part]
        for name, threshold in thresholds.items():
            rows[part, name, "pooled"] = scores(chosen, threshold, top_share, name)
            rows[part, name, "within"] = scores_within(chosen, threshold, top_share, name)
    index = pd.MultiIndex.from_tuples(rows, names=["part", "score", "scope"])
    return pd.DataFrame(list(rows.values()), index=index)


def gap_table(
    frame: pd.DataFrame, threshold: float, top_share: float, score: str = "probability", scope: str = "pooled"
) -> pd.DataFrame:
    """Scores of one column in every part, and how much is lost from train to test.

    The base rate differs between parts, and precision moves with it; it stands in the table for that reason.

    Parameters
    ----------
    frame : pd.DataFrame
        Predictions of all parts.
    threshold, top_share, score
        See `scores`.
    scope : {"pooled", "within"}

    Returns
    -------
    pd.DataFrame
        Index `METRICS`; columns the parts that the frame has, in order, ``gap`` (train minus test, absolute) and
        ``relative_gap`` (gap over train).

    Raises
    ------
    CmatError
        If a column is missing or has a missing value.
    """
    score_rows = scores if scope == "pooled" else scores_within
    present = [part for part in PARTS if (frame["part"] == part).any()]
    columns = {part: score_rows(frame[frame["part"] == part], threshold, top_share, score) for part in present}
    table = pd.DataFrame(columns, index=list(METRICS)).reindex(columns=[*PARTS])
    table["gap"] = table["train"] - table["test"]
    table["relative_gap"] = table["gap"] / table["train"].where(table["train"] != 0)
    return table[[*present, "gap", "relative_gap"]]


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else math.nan
