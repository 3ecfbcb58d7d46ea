"""Figures of page 05: curves, calibration, gap, and scores over time (intervals and timelines have their own files)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import precision_recall_curve, roc_curve

from cmat_lib.evaluation.breakdown import ORACLE, reliability_table
from cmat_lib.evaluation.metrics import score_arrays
from cmat_lib.plots.style import GREY, PALETTE, SEQUENTIAL

SCORE_NAMES = {
    "probability": "model",
    "volatility": "volatility alone",
    "trees": "boosted trees",
    ORACLE: "oracle",
}
SCORE_COLORS = {"probability": PALETTE[0], "volatility": PALETTE[4], "trees": PALETTE[2], ORACLE: GREY}
METRIC_NAMES = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "precision_at_threshold": "precision at the threshold",
    "recall_at_threshold": "recall at the threshold",
    "precision_top": "precision at the top",
    "brier": "Brier score (lower is better)",
    "base_rate": "base rate",
}
SHOWN = 0.995  # quantile of the realised rise that still fits the picture


def no_skill(metric: str, base_rate: float) -> float:
    """Score that is reached without knowing anything but the base rate."""
    return {"roc_auc": 0.5, "brier": base_rate * (1 - base_rate)}.get(metric, base_rate)


def gap_chart(gap: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """The model's scores in every part, symbols pooled, each over its own no-skill line.

    Parameters
    ----------
    gap : DataFrame
        Index (scope, metric), one column per part; from `gap_table`.
    metrics : sequence of str
        Metrics to show.

    Returns
    -------
    matplotlib Figure
    """
    parts = [column for column in gap if column not in ("gap", "relative_gap")]
    figure = Figure(figsize=(3.2 * len(metrics), 3.2))
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        reference = [no_skill(metric, rate) for rate in gap.loc[("pooled", "base_rate"), parts]]
        axes.plot(parts, gap.loc[("pooled", metric), parts], "o-", color=PALETTE[0], label="model")
        axes.plot(parts, reference, "--", color=GREY, linewidth=1, label="no skill")
        axes.set_title(METRIC_NAMES[metric], fontsize=11)
        axes.tick_params(axis="x", rotation=30)
    axes.legend()
    figure.suptitle("From training to test: what was learned by heart is lost", x=0.01, ha="left", weight="bold")
    return figure


def roc_and_pr(test: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """ROC curves and precision-recall curves, symbols pooled.

    Parameters
    ----------
    test : DataFrame
        Predictions of one part.
    columns : sequence of str
        Score columns.

    Returns
    -------
    matplotlib Figure
    """
    figure = Figure(figsize=(10, 4.4))
    roc, pr = figure.subplots(1, 2)
    for name in columns:
        trigger, ranking, _ = score_arrays(test, name)
        style = {"color": SCORE_COLORS.get(name, PALETTE[5]), "label": SCORE_NAMES.get(name, name), "linewidth": 1.6}
        false_alarms, recall, _ = roc_curve(trigger, ranking)
        roc.plot(false_alarms, recall, **style)
        precision, recall, _ = precision_recall_curve(trigger, ranking)
        pr.plot(recall[:-1], precision[:-1], drawstyle="steps-pre", **style)  # the last point belongs to no threshold
    base_rate = test["trigger"].mean()
    roc.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    pr.axhline(base_rate, linestyle="--", color=GREY, linewidth=1, label=f"base rate {base_rate:.1%}")
    roc.set(title="ROC", xlabel="share of quiet candles that raise an alarm", ylabel="share of triggers found")
    pr.set(title="Precision and recall", xlabel="share of triggers found", ylabel="share of alarms that are right")
    pr.set_ylim(0, min(1.0, _highest(pr, from_recall=0.02)))
    pr.legend(loc="upper right")
    return figure


def _highest(axes: Axes, from_recall: float) -> float:
    """Upper limit that the first few alarms, which jump between 0 and 1, do not stretch."""
    heights = [np.max(line.get_ydata()[line.get_xdata() >= from_recall], initial=0.0) for line in axes.lines[:-1]]
    return 1.15 * max(*heights, axes.lines[-1].get_ydata()[0])


def reliability(test: pd.DataFrame) -> Figure:
    """Probability against the observed share of triggers, before and after calibration.

    Parameters
    ----------
    test : DataFrame
        Predictions of one part with ``raw_probability`` and ``probability``.

    Returns
    -------
    matplotlib Figure
    """
    figure = Figure(figsize=(10, 4.4))
    trigger = test["trigger"].to_numpy()
    titles = {"raw_probability": "Before calibration", "probability": "After calibration"}
    for axes, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        table = reliability_table(test[name].to_numpy(), trigger)
        end = 1.1 * table[["predicted", "observed"]].to_numpy().max()
        axes.plot([0, end], [0, end], "--", color=GREY, linewidth=1, label="says what happens")
        sizes = 20 + 180 * table["n"] / table["n"].max()
        axes.plot(table["predicted"], table["observed"], color=PALETTE[0], linewidth=1)
        axes.scatter(table["predicted"], table["observed"], s=sizes, color=PALETTE[0], label="tenths (size: samples)")
        brier = np.mean((test[name] - trigger) ** 2)
        axes.set(title=f"{title}: Brier score {brier:.4f}", xlim=(0, end), ylim=(0, end))
        axes.set(xlabel="mean probability", ylabel="observed share of triggers")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="upper left")
    return figure


def score_over_time(table: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """ROC-AUC per week or month, and how many triggers there were.

    Parameters
    ----------
    table : DataFrame
        From `scores_by_period`.
    columns : sequence of str
        Score columns.

    Returns
    -------
    matplotlib Figure
    """
    period = table.attrs.get("period", "period")
    figure = Figure(figsize=(10, 4.8))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for name in columns:
        style = {"color": SCORE_COLORS.get(name, PALETTE[5]), "label": SCORE_NAMES.get(name, name)}
        top.plot(table.index, table[name], "o-", linewidth=2 if name == "probability" else 1, markersize=4, **style)
    top.axhline(0.5, linestyle="--", color=GREY, linewidth=1)
    top.set(title=f"ROC-AUC per {period} (0.5: chance)", ylabel="ROC-AUC")
    top.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    width = 0.8 * (np.diff(table.index).min() / np.timedelta64(1, "D") if len(table) > 1 else 1)
    bottom.bar(table.index, table["base_rate"], width=width, color=GREY)
    bottom.set(ylabel="base rate", xlabel=f"start of the {period} (UTC)")
    bottom.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    locator = AutoDateLocator()
    bottom.xaxis.set_major_locator(locator)
    bottom.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    return figure


def precision_curve(table: pd.DataFrame, base_rate: float, top_share: float) -> Figure:
    """Precision among the highest scores, from a few alarms to all rows.

    Parameters
    ----------
    table : DataFrame
        From `precision_by_share`.
    base_rate, top_share : float
        Where no skill would be, and the share that the score table uses.

    Returns
    -------
    matplotlib Figure
    """
    figure = Figure(figsize=(9, 4))
    axes = figure.subplots()
    for name in table:
        style = {"color": SCORE_COLORS.get(name, PALETTE[5]), "label": SCORE_NAMES.get(name, name)}
        axes.plot(table.index, table[name], linewidth=1.8, **style)
    axes.axhline(base_rate, linestyle="--", color=GREY, linewidth=1, label=f"base rate {base_rate:.1%}")
    axes.axvline(top_share, linestyle=":", color=GREY, linewidth=1, label=f"top {top_share:.1%}")
    axes.set(title="Precision among the highest scores", xscale="log", ylabel="share of triggers among them")
    axes.set_xlabel("share of all candles that raise an alarm (log scale)")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def predicted_and_realised(test: pd.DataFrame, bins: int = 10) -> Figure:
    """Predicted against realised largest rise: all samples as a cloud, medians and quartiles per tenth.

    Parameters
    ----------
    test : DataFrame
        Predictions of one part with ``predicted_max_pct`` and ``max_pct``, in percent.
    bins : int
        Groups along the prediction.

    Returns
    -------
    matplotlib Figure
    """
    predicted, realised = test["predicted_max_pct"], test["max_pct"]
    group = (predicted.rank(method="first") - 1) * bins // len(test)
    middle = predicted.groupby(group).median()
    quartiles = realised.groupby(group).quantile([0.25, 0.5, 0.75]).unstack()
    shown = realised <= realised.quantile(SHOWN)
    figure = Figure(figsize=(9, 4.6))
    axes = figure.subplots()
    cells = axes.hexbin(predicted[shown], realised[shown], gridsize=45, bins="log", cmap=SEQUENTIAL, mincnt=1)
    figure.colorbar(cells, ax=axes, label="samples (log scale)")
    axes.fill_between(
        middle, quartiles[0.25], quartiles[0.75], color=PALETTE[1], alpha=0.35, label="realised quartiles"
    )
    axes.plot(middle, quartiles[0.5], "o-", color=PALETTE[1], label="realised median of each tenth")
    ends = [predicted.min(), predicted.max()]
    axes.plot(ends, ends, "--", color=GREY, linewidth=1.5, label="predicted = realised")
    correlation = predicted.corr(realised, method="spearman")
    axes.set(title=f"Largest rise in the horizon: rank correlation {correlation:.2f}")
    axes.set(xlabel="predicted (%)", ylabel=f"realised (%), up to the {SHOWN:.1%} quantile")
    axes.legend(loc="upper right", facecolor="white", frameon=True, framealpha=0.8)
    return figure
