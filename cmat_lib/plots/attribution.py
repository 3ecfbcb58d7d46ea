"""Beside the maps of page 06: Shapley values, ablation, agreement, controls (``value``, ``low``, ``high`` in all)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cmat_lib.plots.style import (
    BOXES,
    DASHED,
    GREY,
    PALETTE,
    draw_intervals,
    headline,
    legend_below,
    name_rows,
    new_figure,
    token_color,
)

MEASURES = {
    "shapley": "Shapley: fair share",
    "main": "main effect alone",
    "alone": "if only this one is seen",
    "last": "if only this one is taken away",
}


def shapley_forest(shapley: pd.DataFrame, interactions: pd.DataFrame, confidence: float) -> Figure:
    """Reduction of the loss by modality, by each of the `MEASURES`, and by pair of modalities (`shapley_tables`)."""
    names = list(shapley["modality"].unique())
    figure, (left, right) = new_figure(11, 1.6 + 0.85 * len(names), columns=2, width_ratios=[1.3, 1], sharex=True)
    for number, (measure, label) in enumerate(MEASURES.items()):
        rows = shapley[shapley["measure"] == measure].set_index("modality").loc[names]
        draw_intervals(left, rows, PALETTE[number], label, 0.18 * (number - 1.5))
    pairs = interactions["first"] + " × " + interactions["second"]
    draw_intervals(right, interactions, PALETTE[0])
    for axes, title, rows in ((left, "Each modality", names), (right, "Together more than apart", pairs)):
        name_rows(axes, list(rows))
        axes.axvline(0, **DASHED)
        axes.set(title=title, xlabel="reduction of the loss")
        axes.locator_params(axis="x", nbins=4)
    legend_below(figure, left, len(MEASURES))
    error = shapley["sampling_error"].max()
    over = f"sampled orders (standard error up to {error:.1g})" if error else "all coalitions"
    headline(figure, f"Shapley values over {over}, intervals of {confidence:.0%}")
    return figure


def permutation_forest(ablation: pd.DataFrame, importance: pd.DataFrame, confidence: float) -> Figure:
    """Increase of the loss when a ``modality``, or a ``name`` of a view (``kind``), comes from other blocks of time."""
    tables = {"Whole views": ablation.rename(columns={"modality": "name"})}
    tables |= {f"Parts of {kind}": rows for kind, rows in importance.groupby("kind", sort=False)}
    tables = {title: table.sort_values("value", ascending=False) for title, table in tables.items() if len(table)}
    most = max(len(table) for table in tables.values())
    figure, panels = new_figure(3.4 * len(tables), 1.5 + 0.3 * most, columns=len(tables))
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        draw_intervals(axes, table, PALETTE[0])
        name_rows(axes, list(table["name"]))
        axes.axvline(0, **DASHED)
        axes.set(xlabel="increase of the loss")
        axes.set_title(title, fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        axes.tick_params(labelsize=9)
    headline(figure, f"Ablation by blocks of time, intervals of {confidence:.0%}")
    return figure


def shares_and_shapley(shares: pd.DataFrame, shapley: pd.DataFrame, confidence: float) -> Figure:
    """How much each ``modality`` is looked at, its share of attention, beside how much it is worth."""
    names = list(shares["modality"])
    worth = shapley[shapley["measure"] == "shapley"].set_index("modality").loc[names]
    figure, (left, right) = new_figure(9, 1.5 + 0.5 * len(names), columns=2, sharey=True)
    left.set(title="Looked at", xlabel="share of attention (dashed: uniform)")
    right.set(title="Worth", xlabel="reduction of the loss (Shapley)")
    for axes, table, reference in ((left, shares, 1 / len(names)), (right, worth, 0)):
        draw_intervals(axes, table, [token_color(row) for row in range(len(names))])
        axes.axvline(reference, **DASHED)
        axes.locator_params(axis="x", nbins=5)
    name_rows(left, names)
    headline(figure, f"Attention beside attribution, intervals of {confidence:.0%}")
    return figure


def agreement_forest(agreement: pd.DataFrame, confidence: float) -> Figure:
    """Rank correlations of attention with each attribution, from `cmat_lib.explain.controls.agreement_table`."""
    scopes, references = list(agreement["scope"].unique()), list(agreement["reference"].unique())
    figure, panels = new_figure(9, 1.6 + 0.45 * len(scopes), columns=len(references), sharey=True)
    for axes, reference in zip(panels, references, strict=True):
        for number, statistic in enumerate(agreement["statistic"].unique()):
            own = agreement[(agreement["reference"] == reference) & (agreement["statistic"] == statistic)]
            draw_intervals(axes, own.set_index("scope").reindex(scopes), PALETTE[number], statistic, 0.2 * number)
        axes.set(title=f"with {reference}", xlabel="rank correlation", xlim=(-1.15, 1.15))
        axes.set_xticks([-1, -0.5, 0, 0.5, 1])
        axes.axvline(0, **DASHED)
    name_rows(panels[0], [s if s in ("global", "within samples") else f"{s}, across samples" for s in scopes])
    legend_below(figure, panels[0], 2)
    headline(figure, f"Does attention rank as attribution does? Intervals of {confidence:.0%}")
    return figure


def control_forest(controls: pd.DataFrame, confidence: float) -> Figure:
    """The model beside each ``control``, worse if its attention means something: a panel per ``measure``."""
    names, measures = list(controls["control"].unique()), list(controls["measure"].unique())
    figure, panels = new_figure(2 + 3.2 * len(measures), 1.4 + 0.42 * len(names), columns=len(measures), sharey=True)
    for axes, measure in zip(panels, measures, strict=True):
        rows = controls[controls["measure"] == measure].set_index("control").reindex(names)
        draw_intervals(axes, rows, [PALETTE[0] if name == "model" else PALETTE[1] for name in names])
        axes.set_title(measure, fontsize=11)
        axes.set_xlabel(measure)
        axes.locator_params(axis="x", nbins=4)
    name_rows(panels[0], names)
    headline(figure, f"Controls, intervals of {confidence:.0%}")
    return figure


def sample_shapley(samples: pd.DataFrame, modalities: Sequence[str], titles: Sequence[str]) -> Figure:
    """How the logit of single samples comes about: from nothing seen (``base``) by each ``shapley_<modality>``."""
    height = 1.4 + 0.45 * (len(modalities) + 2)
    figure, panels = new_figure(1 + 4.5 * len(titles), height, columns=len(titles), sharex=True, sharey=True)
    for axes, title, (_, row) in zip(panels, titles, samples.iterrows(), strict=True):
        steps = row[[f"shapley_{name}" for name in modalities]].to_numpy(dtype=float)
        starts = row["base"] + np.concatenate([[0.0], np.cumsum(steps)[:-1]])
        colors = [PALETTE[1] if step > 0 else PALETTE[0] for step in steps]
        bars = axes.barh(np.arange(len(steps)) + 1, steps, left=starts, color=colors, height=0.6)
        axes.bar_label(bars, [f"{step:+.2f}" for step in steps], padding=5, fontsize=9)
        axes.plot([row["base"], row["logit"]], [0, len(steps) + 1], "o", color=GREY, markersize=7)
        axes.set_xlabel("logit of a trigger")
        axes.set_title(title, fontsize=10)
        axes.use_sticky_edges = False  # a bar may not touch the frame, where its point would be cut
        axes.margins(x=0.2)
    name_rows(panels[0], ["nothing seen", *modalities, "everything seen"])
    headline(figure, "What each modality adds to the logit (orange: towards a trigger)")
    return figure


def gate_boxes(gates: np.ndarray, tokens: Sequence[str]) -> Figure:
    """Gate of every token of a gated fusion, (N, M), mean over units, in [0, 1]: box over samples."""
    figure, (axes,) = new_figure(8, 1.4 + 0.4 * len(tokens))
    boxes = axes.boxplot(gates.astype(np.float32), orientation="horizontal", positions=range(len(tokens)), **BOXES)
    for place, box in enumerate(boxes["boxes"]):
        box.set_facecolor(token_color(place))
    name_rows(axes, list(tokens))
    axes.set(xlabel="gate, mean over units (boxes: quartiles, whiskers: 5 % to 95 % of the samples)", xlim=(0, 1))
    headline(figure, "How far each gate is open")
    return figure
