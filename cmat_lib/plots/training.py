"""Figures and tables of page 04: what is learned from, the schedule, the curves, threshold and calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from cmat_lib.config.schema import TrainingConfig
from cmat_lib.data.splits import PARTS
from cmat_lib.evaluation.calibration import apply_calibration
from cmat_lib.plots.style import GREY, PALETTE, PART_COLORS
from cmat_lib.training.optimisation import schedule

MOST_POINTS = 1000  # of a line whose shape shows with fewer
CLASS_COLORS = {"no trigger": PALETTE[0], "trigger": PALETTE[1]}
TERMS = {"trigger": "trigger: focal loss", "max_pct": "max_pct: squared error, in training variances"}


def part_table(samples: pd.DataFrame) -> pd.DataFrame:
    """What every part holds.

    Index: parts in time order; columns: ``samples``, ``triggers``, ``base rate``, ``from``, ``to``.
    """
    groups = samples[samples["part"].isin(PARTS)].groupby("part")
    table = pd.DataFrame(
        {
            "samples": groups.size(),
            "triggers": groups["trigger"].sum().astype(int),
            "base rate": groups["trigger"].mean(),
            "from": groups["timestamp"].min().dt.strftime("%Y-%m-%d %H:%M"),
            "to": groups["timestamp"].max().dt.strftime("%Y-%m-%d %H:%M"),
        }
    )
    return table.loc[list(PARTS)].rename_axis(None)


def base_rate_bars(samples: pd.DataFrame) -> Figure:
    """Share of triggers per symbol in every part, in percent.

    One group of bars per symbol, and one for all symbols pooled.
    """
    chosen = samples.loc[samples["part"].isin(PARTS), ["symbol", "part", "trigger"]]
    both = pd.concat([chosen, chosen.assign(symbol="all")])
    rates = both.groupby(["symbol", "part"], sort=False)["trigger"].mean().mul(100).reset_index()
    figure = Figure(figsize=(9, 3.6))
    ax = figure.add_subplot()
    sns.barplot(rates, x="symbol", y="trigger", hue="part", hue_order=PARTS, palette=PART_COLORS, ax=ax)
    ax.set(title="How often a trigger happens", xlabel="symbol", ylabel="base rate (% of samples)")
    sns.move_legend(ax, "upper left", bbox_to_anchor=(1, 1), title="part")
    return figure


def schedule_curve(steps_per_epoch: int, training: TrainingConfig) -> go.Figure:
    """Learning rate of both parameter groups over all optimiser steps.

    Steps on the x axis, the epoch in the hover text. Early stopping may end before the last step.
    """
    total = steps_per_epoch * training.epochs
    steps = np.unique(np.linspace(0, total - 1, min(total, MOST_POINTS)).astype(int))
    factors = np.array([schedule(int(step), total, training.warmup_share) for step in steps])
    figure = go.Figure()
    for name, rate in (
        ("encoders, projections, heads", training.learning_rate),
        ("transformer layers", training.transformer_learning_rate),
    ):
        figure.add_scatter(
            x=steps,
            y=rate * factors,
            name=name,
            customdata=steps // steps_per_epoch + 1,
            hovertemplate="%{y:.2e}, epoch %{customdata}",
        )
    figure.update_layout(title="Learning rate: warm-up, then half a cosine", height=360)
    figure.update_xaxes(title="optimiser step")
    figure.update_yaxes(title="learning rate", exponentformat="e", rangemode="tozero")
    return figure


def training_curves(history: pd.DataFrame, best_epoch: int | None) -> go.Figure:
    """Loss, AUC and learning rate over the epochs; the best epoch is marked.

    Three panels over one axis of epochs; the dotted line at AUC 0.5 is chance.

    Parameters
    ----------
    best_epoch : int or None
        Epoch whose weights are kept; None while nobody knows.
    """
    panels = (
        ("loss", (("train_loss", "train loss", PART_COLORS["train"]), ("stop_loss", "stop loss", PART_COLORS["stop"]))),
        ("ROC-AUC", (("stop_roc_auc", "stop AUC", PALETTE[2]),)),
        ("learning rate", (("learning_rate", "learning rate (encoders)", GREY),)),
    )
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=[0.5, 0.3, 0.2])
    for row, (unit, lines) in enumerate(panels, start=1):
        for column, name, color in lines:
            figure.add_scatter(
                x=history["epoch"],
                y=history[column],
                name=name,
                mode="lines+markers",
                line={"color": color},
                marker={"size": 5},
                row=row,
                col=1,
            )
        figure.update_yaxes(title=unit, row=row, col=1)
    figure.add_hline(y=0.5, line={"color": GREY, "dash": "dot"}, row=2, col=1)
    auc = history["stop_roc_auc"]
    figure.update_yaxes(range=[min(0.48, auc.min() - 0.02), max(0.6, auc.max() + 0.02)], tickformat=".2f", row=2, col=1)
    figure.update_yaxes(exponentformat="e", nticks=4, row=3, col=1)
    if best_epoch is not None:
        _mark_best_epoch(figure, best_epoch, late=best_epoch > history["epoch"].median())
    figure.update_xaxes(dtick=math.ceil(len(history) / 12))
    figure.update_xaxes(title="epoch", row=3, col=1)
    figure.update_layout(title="Training", height=640)
    return figure


def _mark_best_epoch(figure: go.Figure, best_epoch: int, late: bool) -> None:
    figure.add_vline(x=best_epoch, line={"color": GREY, "dash": "dash"})
    figure.add_annotation(
        x=best_epoch,
        y=1,
        yref="y domain",
        yanchor="top",
        xanchor="right" if late else "left",
        text=f" best epoch {best_epoch} ",
        showarrow=False,
    )


def loss_terms(history: pd.DataFrame, best_epoch: int) -> Figure:
    """Both terms of the loss, before weighting, on the train and the stop part.

    One panel per task.
    """
    figure = Figure(figsize=(11, 3.4))
    for ax, (term, title) in zip(figure.subplots(1, len(TERMS)), TERMS.items(), strict=True):
        for part in ("train", "stop"):
            ax.plot(
                history["epoch"],
                history[f"{part}_{term}_loss"],
                color=PART_COLORS[part],
                marker="o",
                markersize=3,
                label=part,
            )
        ax.axvline(best_epoch, color=GREY, linestyle="--", linewidth=1, label="best epoch")
        ax.set(title=title, xlabel="epoch", ylabel="loss")
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def epoch_table(history: pd.DataFrame, best_epoch: int) -> pd.DataFrame:
    """Best and last epoch side by side; one row per number of the history."""
    rows = history.set_index("epoch")
    last = rows.index[-1]
    return pd.DataFrame({f"best ({best_epoch})": rows.loc[best_epoch], f"last ({last})": rows.loc[last]})


def calibration_map(calibration: Mapping[str, Any], raw: np.ndarray, threshold: float) -> Figure:
    """What calibration makes of the model's raw scores, and where the threshold cuts.

    The map above, the distribution of the raw scores below.

    Parameters
    ----------
    calibration : mapping
        From `cmat_lib.evaluation.calibration.fit_calibration`.
    raw : ndarray, shape (n,)
        Raw scores of the calibrate part.
    threshold : float
        On the calibrated scale.
    """
    figure = Figure(figsize=(7.5, 5.6))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    grid = np.unique([*np.linspace(0, 1, 201), *calibration.get("x", [])])
    label = f"{calibration['method']} map"
    above.plot(grid, apply_calibration(grid, calibration), color=PALETTE[0], linewidth=2, label=label)
    above.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="no change")
    above.axhline(threshold, color=PALETTE[1], linestyle="--", label=f"threshold {threshold:.3f}")
    above.set(title="From raw score to probability", ylabel="calibrated probability", xlim=(0, 1))
    above.legend(loc="upper left", bbox_to_anchor=(1, 1))
    sns.histplot(x=raw, bins=np.linspace(0, 1, 51), color=GREY, ax=below)
    below.set(xlabel="raw score of the model", ylabel="samples")
    return figure


def probability_distribution(
    scores: Mapping[str, np.ndarray], trigger: np.ndarray, threshold: float | None = None
) -> Figure:
    """Distribution of scores for triggers and non-triggers, each class with area 1.

    Parameters
    ----------
    scores : mapping of str to ndarray, shape (n,)
        Name -> scores between 0 and 1; one panel each.
    threshold : float, optional
        Drawn in the last panel.
    """
    kind = np.where(np.asarray(trigger) == 1, "trigger", "no trigger")
    figure = Figure(figsize=(11, 3.6))
    axes = figure.subplots(1, len(scores), squeeze=False)[0]
    for ax, (name, values) in zip(axes, scores.items(), strict=True):
        sns.histplot(
            x=values,
            hue=kind,
            hue_order=list(CLASS_COLORS),
            palette=CLASS_COLORS,
            bins=30,
            stat="density",
            common_norm=False,
            element="step",
            alpha=0.35,
            ax=ax,
            legend=ax is axes[-1],
        )
        ax.set(title=f"{name.capitalize()} of the calibrate part", xlabel=name, ylabel="density")
    if threshold is not None:
        axes[-1].axvline(threshold, color=PALETTE[1], linestyle="--")
    sns.move_legend(axes[-1], "upper left", bbox_to_anchor=(1, 1), title="")
    return figure
