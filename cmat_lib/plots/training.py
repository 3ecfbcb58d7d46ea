"""Figures and tables of page 04: what is learned from, schedule, curves (also live), threshold and calibration."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from IPython.display import DisplayHandle, display
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from cmat_lib.config.schema import TrainingConfig
from cmat_lib.data.splits import PARTS
from cmat_lib.evaluation.calibration import apply_calibration
from cmat_lib.plots.candles import evenly
from cmat_lib.plots.style import DASHED, GREY, PALETTE, PART_COLORS, new_figure

MOST_POINTS = 1000  # of a line whose shape shows with fewer
CLASS_COLORS = {"no trigger": PALETTE[0], "trigger": PALETTE[1]}
TERMS = {"trigger": "focal loss", "max_pct": "squared error (variances)", "auxiliary": "Huber loss (4 targets)"}
Row = Mapping[str, float]  # of the history
UPPER_RIGHT = {"loc": "upper left", "bbox_to_anchor": (1, 1)}  # a legend beside its panel


def part_table(samples: pd.DataFrame) -> pd.DataFrame:
    """What every part holds, in order of time: ``samples``, ``triggers``, ``base rate``, ``from``, ``to``."""
    groups = samples[samples["part"].isin(PARTS)].groupby("part")
    columns = {
        "samples": groups.size(),
        "triggers": groups["trigger"].sum().astype(int),
        "base rate": groups["trigger"].mean(),
        "from": groups["timestamp"].min().dt.strftime("%Y-%m-%d %H:%M"),
        "to": groups["timestamp"].max().dt.strftime("%Y-%m-%d %H:%M"),
    }
    return pd.DataFrame(columns).loc[list(PARTS)].rename_axis(None)


def base_rate_bars(samples: pd.DataFrame) -> Figure:
    """Share of triggers in every part, in percent: a group of bars per symbol, and one for all of them pooled."""
    chosen = samples.loc[samples["part"].isin(PARTS), ["symbol", "part", "trigger"]]
    both = pd.concat([chosen, chosen.assign(symbol="all")])
    rates = both.groupby(["symbol", "part"], sort=False)["trigger"].mean().mul(100).reset_index()
    figure, (ax,) = new_figure(9, 3.6)
    sns.barplot(rates, x="symbol", y="trigger", hue="part", hue_order=PARTS, palette=PART_COLORS, ax=ax)
    ax.set(title="How often a trigger happens", xlabel="symbol", ylabel="base rate (% of samples)")
    ax.legend(**UPPER_RIGHT, title="part")
    return figure


def schedule_curve(factors: np.ndarray, steps_per_epoch: int, training: TrainingConfig) -> go.Figure:
    """Learning rate of both parameter groups over all optimiser steps; early stopping may end before the last.

    `factors`, (steps,), multiply the rates at each step, see `cmat_lib.training.optimisation.schedule`.
    """
    steps = evenly(len(factors), MOST_POINTS)
    parts, layers = training.learning_rate, training.transformer_learning_rate
    rates = {"encoders, projections, heads": parts, "transformer layers": layers}
    figure = go.Figure()
    hover = {"customdata": steps // steps_per_epoch + 1, "hovertemplate": "%{y:.2e}, epoch %{customdata}"}
    for name, rate in rates.items():
        figure.add_scatter(x=steps, y=rate * factors[steps], name=name, **hover)
    figure.update_layout(title="Learning rate: warm-up, then half a cosine", height=360, xaxis_title="optimiser step")
    return figure.update_yaxes(title="learning rate", exponentformat="e", rangemode="tozero")


def training_curves(history: pd.DataFrame, best_epoch: int | None) -> go.Figure:
    """Loss, AUC (dotted: chance) and learning rate over the epochs; the best epoch is marked, if it is known."""
    lines = (
        ("train_loss", "train loss", PART_COLORS["train"], 1),
        ("stop_loss", "stop loss", PART_COLORS["stop"], 1),
        ("stop_roc_auc", "stop AUC", PALETTE[2], 2),
        ("learning_rate", "learning rate (encoders)", GREY, 3),
    )
    figure = make_subplots(rows=3, shared_xaxes=True, vertical_spacing=0.05, row_heights=[0.5, 0.3, 0.2])
    for column, name, color, row in lines:
        look = {"name": name, "mode": "lines+markers", "line_color": color, "marker_size": 5}
        figure.add_scatter(x=history["epoch"], y=history[column], **look, row=row, col=1)
    figure.add_hline(y=0.5, line={"color": GREY, "dash": "dot"}, row=2, col=1)
    auc = history["stop_roc_auc"]
    figure.update_yaxes(range=[min(0.48, auc.min() - 0.02), max(0.6, auc.max() + 0.02)], tickformat=".2f", row=2)
    figure.update_yaxes(exponentformat="e", nticks=4, row=3)
    if best_epoch is not None:
        figure.add_vline(x=best_epoch, line={"color": GREY, "dash": "dash"})
        side = "right" if best_epoch > history["epoch"].median() else "left"
        place = {"x": best_epoch, "xanchor": side, "y": 1, "yref": "y domain", "yanchor": "top"}
        figure.add_annotation(text=f" best epoch {best_epoch} ", showarrow=False, **place)
    figure.update_xaxes(dtick=math.ceil(len(history) / 12))
    figure.update_layout(yaxis_title="loss", yaxis2_title="ROC-AUC", yaxis3_title="learning rate")
    return figure.update_layout(title="Training", height=640, xaxis3_title="epoch")


def loss_terms(history: pd.DataFrame, best_epoch: int) -> Figure:
    """The terms of the loss, before weighting, on the train and the stop part: one panel per term that there is."""
    terms = [term for term in TERMS if f"train_{term}_loss" in history]
    figure, panels = new_figure(2 + 4.5 * len(terms), 3.4, columns=len(terms))
    for ax, term in zip(panels, terms, strict=True):
        for part in ("train", "stop"):
            look = {"color": PART_COLORS[part], "marker": "o", "markersize": 3, "label": part}
            ax.plot(history["epoch"], history[f"{part}_{term}_loss"], **look)
        ax.axvline(best_epoch, **DASHED, label="best epoch")
        ax.set(title=term, xlabel="epoch", ylabel=TERMS[term])
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(**UPPER_RIGHT)
    return figure


def epoch_table(history: pd.DataFrame, best_epoch: int) -> pd.DataFrame:
    """Best and last epoch side by side; one row per number of the history."""
    rows = history.set_index("epoch")
    last = rows.index[-1]
    return pd.DataFrame({f"best ({best_epoch})": rows.loc[best_epoch], f"last ({last})": rows.loc[last]})


def calibration_map(calibration: Mapping[str, Any], raw: np.ndarray, threshold: float) -> Figure:
    """What `fit_calibration` makes of raw scores and where the threshold cuts; below, those of the calibrate part."""
    figure, (above, below) = new_figure(7.5, 5.6, rows=2, sharex=True, height_ratios=(3, 1))
    grid = np.unique([*np.linspace(0, 1, 201), *calibration.get("x", [])])
    label = f"{calibration['method']} map"
    above.plot(grid, apply_calibration(grid, calibration), color=PALETTE[0], linewidth=2, label=label)
    above.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="no change")
    above.axhline(threshold, color=PALETTE[1], linestyle="--", label=f"threshold {threshold:.3f}")
    above.set(title="From raw score to probability", ylabel="calibrated probability", xlim=(0, 1))
    above.legend(**UPPER_RIGHT)
    sns.histplot(x=raw, bins=np.linspace(0, 1, 51), color=GREY, ax=below)
    below.set(xlabel="raw score of the model", ylabel="samples")
    return figure


def probability_distribution(
    scores: Mapping[str, np.ndarray], trigger: np.ndarray, threshold: float | None = None
) -> Figure:
    """Distribution of scores (n,), a panel per name, by class, each with area 1; the threshold is in the last panel."""
    kind = np.where(np.asarray(trigger) == 1, "trigger", "no trigger")
    figure, axes = new_figure(11, 3.6, columns=len(scores))
    classes = {"hue": kind, "hue_order": list(CLASS_COLORS), "palette": CLASS_COLORS}
    look = {"bins": 30, "stat": "density", "common_norm": False, "element": "step", "alpha": 0.35}
    for ax, (name, values) in zip(axes, scores.items(), strict=True):
        sns.histplot(x=values, ax=ax, legend=ax is axes[-1], **classes, **look)
        ax.set(title=f"{name.capitalize()} of the calibrate part", xlabel=name, ylabel="density")
    if threshold is not None:
        axes[-1].axvline(threshold, color=PALETTE[1], linestyle="--")
    sns.move_legend(axes[-1], **UPPER_RIGHT, title="")
    return figure


class LiveCurves:
    """Training curves that are drawn anew after every epoch, in place; `line` makes a line of text of its row."""

    def __init__(self, line: Callable[[Row], str]) -> None:
        self._line = line
        self._rows: list[Row] = []
        self._place: DisplayHandle | None = None

    def __call__(self, row: Row) -> None:
        """Add one epoch."""
        self._rows.append(row)
        figure = training_curves(pd.DataFrame(self._rows), best_epoch=None)
        figure.update_layout(title={"text": self._line(row), "font": {"size": 12}})
        # As data, because a Plotly figure that displays itself cannot be replaced.
        bundle = {"application/vnd.plotly.v1+json": json.loads(figure.to_json()), "text/plain": self._line(row)}
        if self._place is None:
            self._place = display(bundle, raw=True, display_id=True)
        else:
            self._place.update(bundle, raw=True)


class EpochLines:
    """One line of text per epoch, at most fifty however long the training."""

    def __init__(self, epochs: int, line: Callable[[Row], str]) -> None:
        self._every, self._line = math.ceil(epochs / 50), line

    def __call__(self, row: Row) -> None:
        """Print the epoch, if it is its turn."""
        if (row["epoch"] - 1) % self._every == 0:
            print(self._line(row))
