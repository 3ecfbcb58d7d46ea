"""Points with intervals: scores and differences of scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cmat_lib.evaluation.metrics import SCOPES
from cmat_lib.evaluation.names import metric_name, score_name
from cmat_lib.plots.evaluation import SCORE_COLORS, no_skill
from cmat_lib.plots.style import GREY, PALETTE

SCOPE_FILL = {"pooled": True, "within": False}  # a filled point pools all symbols


def score_forest(scores: pd.DataFrame, metrics: Sequence[str], confidence: float) -> Figure:
    """Scores of model, baselines and oracle with their intervals, one panel per metric.

    Parameters
    ----------
    scores : DataFrame
        Index (score, scope, metric), columns ``value``, ``low``, ``high``; from `ScoreDraws.table`.
    """
    names = list(scores.index.unique("score"))
    figure = Figure(figsize=(3.1 * len(metrics), 1.4 + 0.5 * len(names)))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    base_rate = scores.loc[(names[0], "pooled", "base_rate"), "value"]
    for axes, metric in zip(panels, metrics, strict=True):
        axes.axvline(no_skill(metric, base_rate), color=GREY, linestyle="--", linewidth=1)
        for scope in SCOPES:
            table = scores.xs((scope, metric), level=("scope", "metric")).loc[names]
            _points(axes, table, scope, [SCORE_COLORS.get(name, PALETTE[5]) for name in names])
        axes.set_title(metric_name(metric), fontsize=11)
    _name_rows(panels[0], [score_name(name) for name in names])
    _scope_legend(figure, "no skill")
    figure.suptitle(f"Test scores, intervals of {confidence:.0%} by block bootstrap", x=0.01, ha="left", weight="bold")
    return figure


def difference_forest(
    differences: pd.DataFrame, metrics: Sequence[str], confidence: float, model: str = "model"
) -> Figure:
    """Scores of the model minus those of each baseline, on the same resamples, one panel per metric.

    Parameters
    ----------
    differences : DataFrame
        Index (baseline, scope, metric), columns ``value``, ``low``, ``high``; from `ScoreDraws.differences`.
    """
    names = list(differences.index.unique("baseline"))
    figure = Figure(figsize=(max(8, 3.1 * len(metrics)), 1.5 + 0.5 * len(names)))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        axes.axvline(0, color=GREY, linestyle="--", linewidth=1)
        for scope in SCOPES:
            table = differences.xs((scope, metric), level=("scope", "metric")).loc[names]
            _points(axes, table, scope, [SCORE_COLORS.get(name, PALETTE[5]) for name in names])
        axes.set_title(metric_name(metric), fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    _name_rows(panels[0], [f"{model} − {score_name(name)}" for name in names])
    _scope_legend(figure, "no difference")
    figure.suptitle(f"Paired differences, intervals of {confidence:.0%}", x=0.01, ha="left", weight="bold")
    return figure


def ablation_forest(table: pd.DataFrame, metric: str, confidence: float) -> Figure:
    """One score of every row of the ablation.

    Parameters
    ----------
    table : DataFrame
        Index (row, scope, metric), columns ``value``, ``low``, ``high``.
    """
    names = list(table.index.unique("row"))
    figure = Figure(figsize=(9, 1.4 + 0.45 * len(names)))
    axes = figure.subplots()
    for scope in SCOPES:
        rows = table.xs((scope, metric), level=("scope", "metric")).loc[names]
        _points(axes, rows, scope, [PALETTE[0]] * len(names))
    axes.axvline(no_skill(metric, np.nan), color=GREY, linestyle="--", linewidth=1)
    _name_rows(axes, names)
    axes.set(title=f"Ablation: {metric_name(metric)}, intervals of {confidence:.0%}", xlabel=metric_name(metric))
    _scope_legend(figure, "no skill")
    return figure


def _points(axes: Axes, table: pd.DataFrame, scope: str, colors: Sequence[str]) -> None:
    """One point and interval per row of `table` (value, low, high); the within scope lies a little below."""
    filled = SCOPE_FILL[scope]
    for row, ((_, entry), color) in enumerate(zip(table.iterrows(), colors, strict=True)):
        height = row if filled else row + 0.28
        axes.plot([entry["low"], entry["high"]], [height, height], color=color, linewidth=2, alpha=0.7)
        face = color if filled else "white"
        axes.plot(entry["value"], height, "o", color=color, markerfacecolor=face, markersize=7, label=scope)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)) + 0.14, names)
    axes.set_ylim(len(names) - 0.4, -0.4)  # the first row is on top


def _scope_legend(figure: Figure, line: str) -> None:
    marks = {"linestyle": "none", "marker": "o", "color": GREY}
    handles = [
        Line2D([], [], label="symbols pooled", **marks),
        Line2D([], [], label="within symbols", markerfacecolor="white", **marks),
        Line2D([], [], label=line, linestyle="--", color=GREY, linewidth=1),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
