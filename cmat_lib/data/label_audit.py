"""What labels are worth before anything is learned: how often, how uneven, and what volatility alone knows of them."""

from typing import get_args

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from cmat_lib.config import Config
from cmat_lib.config.schema import LabelsConfig
from cmat_lib.data.labels import compute_labels
from cmat_lib.data.splits import Market

MODES = get_args(LabelsConfig.model_fields["mode"].annotation)


def uniqueness(samples: pd.DataFrame, horizon: int) -> np.ndarray:
    """Average uniqueness of every label: the mean, over the candles that it reads, of one over the labels reading them.

    López de Prado, *Advances in Financial Machine Learning* (2018), sections 4.3 and 4.4. Only labels of the same
    symbol count. All labels here read `horizon` candles, so it differs at the ends of stretches of candles and where
    samples are missing, and is `stride / horizon` elsewhere. Its sum is the number of labels that would carry the same
    without any overlap. From ``symbol``, ``local_row``, ``trigger`` (NaN: no label); (N,) in (0, 1], or NaN.
    """
    result = np.full(len(samples), np.nan)
    labelled = samples["trigger"].notna().to_numpy()
    for places in samples.groupby("symbol", observed=True).indices.values():
        places = places[labelled[places]]
        first = samples["local_row"].to_numpy()[places] + 1  # the label reads candles first to first + H - 1
        size = first.max(initial=0) + horizon + 1
        changes = np.bincount(first, minlength=size) - np.bincount(first + horizon, minlength=size)
        share = 1 / np.maximum(np.cumsum(changes), 1)  # of each candle, to each of its labels
        total = np.append(0.0, np.cumsum(share))
        result[places] = (total[first + horizon] - total[first]) / horizon
    return result


def uniqueness_weights(samples: pd.DataFrame, horizon: int) -> np.ndarray:
    """Weights (N,) of training rows (``part``) by `uniqueness` among training rows, mean 1; 1 for all others."""
    weights, train = np.ones(len(samples)), (samples["part"] == "train").to_numpy()
    own = uniqueness(samples[train], horizon)
    weights[train] = own / own.mean()
    return weights


def independent_symbols(samples: pd.DataFrame) -> float:
    """How many symbols' worth of news the symbols bring, from 1 (all trigger together) to their number.

    The participation ratio of the eigenvalues of the correlation matrix of triggers, ``(Σλ)² / Σλ²``. A symbol without
    triggers, or without moments in common with another, has no correlation and counts as a symbol of its own.
    """
    triggers = samples.pivot(index="timestamp", columns="symbol", values="trigger")
    correlation = triggers.corr().fillna(0.0).to_numpy(copy=True)
    np.fill_diagonal(correlation, 1.0)
    return float(len(correlation) ** 2 / (correlation**2).sum())


def label_statistics(samples: pd.DataFrame, horizon: int) -> pd.Series:
    """What there is to know about labels, from ``symbol``, ``timestamp``, ``local_row``, ``trigger``, ``volatility``.

    ``overlapping`` is the share of labels that share candles with the symbol's next one, ``independent_labels`` the sum
    of uniqueness, times the share of `independent_symbols`. The ROC-AUC of trailing volatility, pooled and the mean
    within symbols, is NaN where only one class is seen. Unlabelled rows are left out.
    """
    rows = samples.dropna(subset="trigger")
    unique = uniqueness(rows, horizon)
    months = rows.groupby(rows["timestamp"].dt.strftime("%Y-%m"))["trigger"].mean()
    by_symbol = rows.groupby("symbol", observed=True)
    values = {
        "labels": len(rows),
        "base_rate": rows["trigger"].mean(),
        "lowest_month": months.min(),
        "highest_month": months.max(),
        "overlapping": (by_symbol["local_row"].diff(-1).abs() < horizon).mean(),
        "uniqueness": unique.mean(),
        "independent_labels": unique.sum() * independent_symbols(rows) / rows["symbol"].nunique(),
        "volatility_auc": _volatility_auc(rows),
        "volatility_auc_within": pd.Series([_volatility_auc(own) for _, own in by_symbol]).mean(),
    }
    return pd.Series(values, dtype=float)


def compare_modes(market: Market, samples: pd.DataFrame, config: Config) -> pd.DataFrame:
    """`label_statistics` under each way to decide what a trigger is, and the share of rows with the configured one."""
    rows = {}
    for mode in MODES:
        labels = config.labels.model_copy(update={"mode": mode, "source": "computed"})
        trigger = np.empty(len(samples))
        for symbol, places in samples.groupby("symbol", observed=True).indices.items():
            found = compute_labels(market[symbol], labels, config.data.bar)["trigger"].to_numpy()
            trigger[places] = found[samples["local_row"].to_numpy()[places]]
        known = ~np.isnan(trigger) & samples["trigger"].notna().to_numpy()
        rows[mode] = label_statistics(samples.assign(trigger=trigger), labels.horizon)
        rows[mode]["same_as_configured"] = (trigger == samples["trigger"].to_numpy())[known].mean()
    return pd.DataFrame(rows).T.rename_axis("mode")


def _volatility_auc(rows: pd.DataFrame) -> float:
    return roc_auc_score(rows["trigger"], rows["volatility"]) if rows["trigger"].nunique() == 2 else float("nan")
