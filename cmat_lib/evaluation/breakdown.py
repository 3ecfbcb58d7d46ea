"""Scores taken apart: by outcome, by period, by share of alarms, by probability, and against the oracle."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.evaluation.metrics import SCOPES, score_arrays
from cmat_lib.evaluation.uncertainty import Resampling, ScoreDraws, bootstrap_table, interval_table
from cmat_lib.evaluation.weighted import EQUAL_BINS, Ranking, equal_mass_bins, hits_at_top, quotient, roc_auc

OUTCOMES = ("hit", "false alarm", "miss", "quiet")
ORACLE = "oracle_probability"
MIN_ORACLE_LIFT = 0.05  # ROC-AUC over 0.5; a share of less than this is a share of chance
MONTHLY_FROM = pd.Timedelta(days=200)  # tests at least this long are shown by month, shorter ones by week


def outcomes(trigger: np.ndarray, probability: np.ndarray, threshold: float) -> np.ndarray:
    """What became of every row, (N,) of `OUTCOMES`, when each probability of at least `threshold` is an alarm."""
    alarm, rose = np.asarray(probability) >= threshold, np.asarray(trigger) == 1
    return np.select([alarm & rose, alarm, rose], OUTCOMES[:3], OUTCOMES[3])


def time_groups(frame: pd.DataFrame) -> pd.Series:
    """Start of each row's month (UTC), or of its week when `frame` is short, as its name says; no rows: `CmatError`."""
    if frame.empty:
        raise CmatError("scores by period: there are no rows; check the shares of data.split_shares")
    time = frame["timestamp"].dt.tz_convert(None)
    name, code = ("month", "M") if time.max() - time.min() >= MONTHLY_FROM else ("week", "W")
    return time.dt.to_period(code).dt.start_time.rename(name)


def hour_groups(frame: pd.DataFrame) -> pd.Series:
    """Hour of day (UTC) of each row, 0 to 23."""
    return frame["timestamp"].dt.hour.rename("hour of day")


def volatility_groups(frame: pd.DataFrame, volatility: str = "raw_volatility") -> pd.Series:
    """Tenth of trailing volatility of each row, 1 to 10, each symbol by its own: a wild symbol is no wild moment."""
    own = frame.groupby("symbol", observed=True)[volatility]
    tenth = (own.rank(method="average") - 0.5) * 10 / own.transform("size")
    return (tenth.astype(int) + 1).rename("volatility decile")


def auc_by_group(
    frame: pd.DataFrame, groups: pd.Series, columns: Sequence[str], resampling: Resampling
) -> pd.DataFrame:
    """ROC-AUC inside each group of rows, all symbols together, with intervals from resamples of the whole frame.

    Index (group, score), the group level named as `groups`; columns ``value``, ``low``, ``high`` (NaN where a group has
    one class only), ``base_rate``, ``n``.
    """
    members = frame.groupby(groups.to_numpy()).indices
    arrays = {name: score_arrays(frame, name)[:2] for name in columns}
    rankings = [[Ranking(*(v[rows] for v in pair)) for pair in arrays.values()] for rows in members.values()]

    def statistic(weights: np.ndarray) -> np.ndarray:
        parts = [weights[rows] for rows in members.values()]
        return np.array([[roc_auc(*r.counts(w)) for r in row] for row, w in zip(rankings, parts, strict=True)])

    index = pd.MultiIndex.from_product([list(members), columns], names=[groups.name, "score"])
    table = bootstrap_table(frame["timestamp"], statistic, resampling, index)
    sizes = frame.groupby(groups.to_numpy())["trigger"].agg(["mean", "size"]).loc[list(members)]
    table["base_rate"] = np.repeat(sizes["mean"].to_numpy(), len(columns))
    table["n"] = np.repeat(sizes["size"].to_numpy(), len(columns))
    return table


def precision_by_share(frame: pd.DataFrame, columns: Sequence[str], shares: Sequence[float]) -> pd.DataFrame:
    """Precision among the highest scores, for several shares, in (0, 1), of all rows: index `shares`."""
    table = {}
    for column in columns:
        counts = Ranking(*score_arrays(frame, column)[:2]).counts(np.ones(len(frame)))
        table[column] = [np.divide(*hits_at_top(*counts, share)) for share in shares]
    return pd.DataFrame(table, index=pd.Index(shares, name="share"))


def reliability_table(frame: pd.DataFrame, column: str, resampling: Resampling, bins: int = EQUAL_BINS) -> pd.DataFrame:
    """Mean probability beside the observed share of triggers, in groups of about equal size, ascending.

    ``predicted``, ``observed``, ``low``, ``high`` (of the observed share), ``n``. Equal probabilities stay in one
    group, so calibrated ones, which come in plateaus, give fewer.
    """
    trigger, _, probability = score_arrays(frame, column)
    group = np.unique(equal_mass_bins(probability, bins), return_inverse=True)[1]

    def observed(weights: np.ndarray) -> np.ndarray:
        return quotient(np.bincount(group, weights * trigger), np.bincount(group, weights))

    table = bootstrap_table(frame["timestamp"], observed, resampling).rename(columns={"value": "observed"})
    size = np.bincount(group)
    table.insert(0, "predicted", np.bincount(group, probability) / size)
    return table.assign(n=size)


def oracle_share(draws: ScoreDraws) -> pd.DataFrame:
    """Share of the oracle's lift: ``(AUC - 0.5) / (AUC of the oracle - 0.5)``, on the same resamples.

    The oracle knows the true probability of every row and still errs, as the future has chance in it. Its ROC-AUC,
    not 1, is what a model could reach. Its column must be among the draws. Index (score, scope), columns ``value``,
    ``low``, ``high``; NaN where the oracle itself has no lift.
    """
    place, metric = draws.names.index(ORACLE), draws.metrics.index("roc_auc")
    names = [name for name in draws.names if name != ORACLE]

    def share(scores: np.ndarray) -> np.ndarray:
        lift = scores[..., metric] - 0.5  # (..., columns, scopes)
        oracle = lift[..., [place], :]
        return np.delete(lift / np.where(oracle > MIN_ORACLE_LIFT, oracle, np.nan), place, axis=-2)

    index = pd.MultiIndex.from_product([names, SCOPES], names=["score", "scope"])
    return interval_table(share(draws.value), share(draws.samples), draws.confidence, index)


def with_intervals(table: pd.DataFrame, digits: int = 3) -> pd.Series:
    """``value``, ``low``, ``high`` as text: ``0.712 (0.650 to 0.770)``, ``0.712`` without an interval, or ``–``."""

    def text(row: pd.Series) -> str:
        if np.isnan(row["value"]):
            return "–"
        value = f"{row['value']:.{digits}f}"
        return value if np.isnan(row["low"]) else f"{value} ({row['low']:.{digits}f} to {row['high']:.{digits}f})"

    return table.apply(text, axis=1)
