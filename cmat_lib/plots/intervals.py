"""Scores and their differences with intervals: tables (name, scope, metric) of ``value``, ``low``, ``high``."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cmat_lib.evaluation.metrics import SCOPES
from cmat_lib.evaluation.names import metric_name, score_name
from cmat_lib.plots.evaluation import no_skill, score_color
from cmat_lib.plots.style import DASHED, GREY, PALETTE, draw_intervals, headline, name_rows, new_figure


def score_forest(scores: pd.DataFrame, metrics: Sequence[str], confidence: float) -> Figure:
    """Scores of model, baselines and oracle (from `ScoreDraws.table`), one panel per metric."""
    names = list(scores.index.unique("score"))
    base_rate = scores.loc[(names[0], "pooled", "base_rate"), "value"]
    lines = {metric: no_skill(metric, base_rate) for metric in metrics}
    figure = _forest(scores, lines, "no skill", [score_color(name) for name in names], map(score_name, names))
    headline(figure, f"Test scores, intervals of {confidence:.0%} by block bootstrap")
    return figure


def difference_forest(
    differences: pd.DataFrame, metrics: Sequence[str], confidence: float, model: str = "model"
) -> Figure:
    """Scores of the model minus those of each baseline (`ScoreDraws.differences`), one panel per metric."""
    names = list(differences.index.unique("baseline"))
    labels = [f"{model} − {score_name(name)}" for name in names]
    lines = dict.fromkeys(metrics, 0)
    figure = _forest(differences, lines, "no difference", [score_color(name) for name in names], labels)
    for axes in figure.axes:
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    headline(figure, f"Paired differences, intervals of {confidence:.0%}")
    return figure


def ablation_forest(table: pd.DataFrame, metric: str, confidence: float) -> Figure:
    """One score of every row of `cmat ablate`."""
    names = list(table.index.unique("row"))
    figure = _forest(table, {metric: no_skill(metric, np.nan)}, "no skill", [PALETTE[0]] * len(names), names)
    headline(figure, f"Ablation, intervals of {confidence:.0%}")
    return figure


def _forest(table: pd.DataFrame, lines: dict[str, float], line: str, colors: Sequence[str], labels) -> Figure:
    """A panel per metric with its vertical line, a row per name; the within scope lies a little below, not filled."""
    names = table.index.unique(0)
    figure, panels = new_figure(max(9, 3.1 * len(lines)), 1.4 + 0.5 * len(names), columns=len(lines), sharey=True)
    for axes, (metric, reference) in zip(panels, lines.items(), strict=True):
        axes.axvline(reference, **DASHED)
        for scope, shift in zip(SCOPES, (-0.14, 0.14), strict=True):
            rows = table.xs((scope, metric), level=("scope", "metric")).loc[names]
            draw_intervals(axes, rows, colors, scope, shift, filled=scope == "pooled")
        axes.set_title(metric_name(metric), fontsize=11)
    name_rows(panels[0], list(labels))
    marks = {"linestyle": "none", "marker": "o", "color": GREY}
    handles = [
        Line2D([], [], label="symbols pooled", **marks),
        Line2D([], [], label="within symbols", markerfacecolor="white", **marks),
        Line2D([], [], label=line, **DASHED),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
