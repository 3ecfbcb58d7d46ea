"""Scores taken apart: by outcome, by period, by share of alarms, by probability, and against the oracle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cmat_lib.errors import CmatError
from cmat_lib.evaluation.metrics import METRICS, SCOPES, precision_top, score_arrays, scores
from cmat_lib.evaluation.uncertainty import Resampling, block_bootstrap, interval
from cmat_lib.evaluation.weighted import FrameScores

OUTCOMES = ("hit", "false alarm", "miss", "quiet")
ORACLE = "oracle_probability"
MIN_ORACLE_LIFT = 0.05  # ROC-AUC over 0.5; a share of less than this is a share of chance
MONTHLY_FROM = pd.Timedelta(days=200)  # tests at least this long are shown by month, shorter ones by week


def outcomes(trigger: np.ndarray, probability: np.ndarray, threshold: float) -> np.ndarray:
    """What became of every row when each probability of at least `threshold` is an alarm.

    Parameters
    ----------
    trigger : (N,) array
        0 or 1.
    probability : (N,) array
    threshold : float

    Returns
    -------
    (N,) array of str
        Entries of `OUTCOMES`: hit (alarm and trigger), false alarm, miss (trigger without alarm), quiet.
    """
    alarm, rose = np.asarray(probability) >= threshold, np.asarray(trigger) == 1
    return np.select([alarm & rose, alarm, rose], OUTCOMES[:3], OUTCOMES[3])


def scores_by_period(frame: pd.DataFrame, columns: Sequence[str], metric: str = "roc_auc") -> pd.DataFrame:
    """One score per calendar week, or per month when `frame` is long, all symbols together.

    Parameters
    ----------
    frame : DataFrame
        Predictions of one part.
    columns : sequence of str
        Score columns.
    metric : str
        An entry of `METRICS` that needs no threshold.

    Returns
    -------
    DataFrame
        Index: start of the period (UTC, without zone); columns `columns` (NaN where the period has one class only),
        ``base_rate``, ``n``. Its ``attrs["period"]`` is ``"week"`` or ``"month"``.

    Raises
    ------
    CmatError
        If there are no rows.
    """
    if frame.empty:
        raise CmatError("scores by period: there are no rows; check the shares of data.split_shares")
    time = pd.DatetimeIndex(frame["timestamp"]).tz_convert(None)
    name, code = ("month", "M") if time.max() - time.min() >= MONTHLY_FROM else ("week", "W")
    rows = {}
    for period, part in frame.groupby(time.to_period(code).start_time):
        found = {column: scores(part, np.nan, 0.5, column) for column in columns}
        first = found[columns[0]]
        rows[period] = {column: found[column][metric] for column in columns} | {k: first[k] for k in ("base_rate", "n")}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("period")
    table.attrs["period"] = name
    return table


def precision_by_share(frame: pd.DataFrame, columns: Sequence[str], shares: Sequence[float]) -> pd.DataFrame:
    """Precision among the highest scores, for several shares of all rows.

    Parameters
    ----------
    frame : DataFrame
        Predictions of one part, N rows.
    columns : sequence of str
        Score columns.
    shares : sequence of float
        In (0, 1).

    Returns
    -------
    DataFrame
        Index `shares`, columns `columns`.
    """
    arrays = {column: score_arrays(frame, column)[:2] for column in columns}
    table = {column: [precision_top(*pair, share) for share in shares] for column, pair in arrays.items()}
    return pd.DataFrame(table, index=pd.Index(shares, name="share"))


def reliability_table(probability: np.ndarray, trigger: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Mean probability beside the observed share of triggers, in groups of about equal size.

    Equal probabilities stay in one group, so calibrated ones, which come in plateaus, give fewer groups.

    Parameters
    ----------
    probability, trigger : (N,) arrays
    bins : int
        Largest number of groups.

    Returns
    -------
    DataFrame
        One row per group, ascending: ``predicted``, ``observed``, ``n``.
    """
    frame = pd.DataFrame({"predicted": np.asarray(probability, np.float64), "observed": np.asarray(trigger)})
    rank = frame["predicted"].rank(method="average") - 0.5  # 0.5 to N - 0.5
    group = (rank * bins / len(frame)).astype(int).to_numpy()
    table = frame.groupby(group).mean()
    return table.assign(n=np.bincount(group)[table.index]).reset_index(drop=True)


def oracle_share(frame: pd.DataFrame, columns: Sequence[str], resampling: Resampling) -> pd.DataFrame:
    """Share of the oracle's lift: ``(AUC - 0.5) / (AUC of the oracle - 0.5)``, on the same resamples.

    The oracle knows the true probability of every row and still errs, as the future has chance in it. Its ROC-AUC,
    not 1, is what a model could reach.

    Parameters
    ----------
    frame : DataFrame
        Predictions of one part, with the column ``oracle_probability``.
    columns : sequence of str
        Score columns to compare.
    resampling : Resampling

    Returns
    -------
    DataFrame
        Index (score, scope), columns ``value``, ``low``, ``high``; NaN where the oracle itself has no lift.
    """
    names = [name for name in columns if name != ORACLE]
    statistic = FrameScores(frame, dict.fromkeys([*names, ORACLE], np.nan), top_share=0.5)

    def share(weights: np.ndarray) -> np.ndarray:
        lift = statistic(weights)[..., METRICS.index("roc_auc")] - 0.5  # (columns + 1, scopes)
        nothing = np.full_like(lift[:-1], np.nan)
        return np.divide(lift[:-1], lift[-1], out=nothing, where=lift[-1] > MIN_ORACLE_LIFT).ravel()

    samples = block_bootstrap(frame["timestamp"], share, resampling)
    limits = np.array([interval(column, resampling.confidence) for column in samples.T])
    index = pd.MultiIndex.from_product([names, SCOPES], names=["score", "scope"])
    values = share(np.ones(len(frame)))
    return pd.DataFrame({"value": values, "low": limits[:, 0], "high": limits[:, 1]}, index=index)


def with_intervals(table: pd.DataFrame, digits: int = 3) -> pd.Series:
    """Values and their intervals as text, such as ``0.712 (0.650 to 0.770)``; the value alone without an interval.

    Parameters
    ----------
    table : DataFrame
        Columns ``value``, ``low``, ``high``.
    digits : int
        After the decimal point.

    Returns
    -------
    Series of str
        Index as `table`; a value that is not defined is ``–``.
    """

    def text(row: pd.Series) -> str:
        if np.isnan(row["value"]):
            return "–"
        value = f"{row['value']:.{digits}f}"
        return value if np.isnan(row["low"]) else f"{value} ({row['low']:.{digits}f} to {row['high']:.{digits}f})"

    return table.apply(text, axis=1)
