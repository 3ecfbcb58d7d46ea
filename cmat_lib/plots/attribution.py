"""What stands beside the maps of page 06: Shapley values, ablation, agreement, controls; points with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cmat_lib.plots.style import GREY, PALETTE, token_color

MEASURES = {
    "shapley": "Shapley: fair share",
    "main": "main effect alone",
    "alone": "if only this one is seen",
    "last": "if only this one is taken away",
}


def shapley_forest(shapley: pd.DataFrame, interactions: pd.DataFrame, confidence: float) -> Figure:
    """Reduction of the loss by modality in four ways of counting, and by pair of modalities.

    Parameters
    ----------
    shapley : DataFrame
        Columns ``modality``, ``measure`` (a key of `MEASURES`), ``value``, ``low``, ``high``.
    interactions : DataFrame
        Columns ``first``, ``second``, ``value``, ``low``, ``high``.
    """
    names = list(shapley["modality"].unique())
    figure = Figure(figsize=(11, 1.6 + 0.85 * len(names)))
    left, right = figure.subplots(1, 2, width_ratios=[1.3, 1], sharex=True)
    for number, (measure, title) in enumerate(MEASURES.items()):
        rows = shapley[shapley["measure"] == measure].set_index("modality").loc[names]
        _points(left, np.arange(len(names)) + 0.18 * (number - 1.5), rows, PALETTE[number], title)
    _name_rows(left, names)
    left.set_title("Each modality")
    pairs = [f"{first} × {second}" for first, second in zip(interactions["first"], interactions["second"], strict=True)]
    _points(right, np.arange(len(pairs)), interactions, PALETTE[0])
    _name_rows(right, pairs)
    right.set_title("Together more than apart")
    for axes in (left, right):
        axes.set_xlabel("reduction of the loss")
        axes.locator_params(axis="x", nbins=4)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(MEASURES))
    error = shapley["sampling_error"].max()
    over = f"sampled orders (standard error up to {error:.1g})" if error else "all coalitions"
    _headline(figure, f"Shapley values over {over}, intervals of {confidence:.0%}")
    return figure


def permutation_forest(ablation: pd.DataFrame, importance: pd.DataFrame, confidence: float) -> Figure:
    """Increase of the loss when an input comes from other blocks of time: modalities, then single inputs.

    Parameters
    ----------
    ablation : DataFrame
        Columns ``modality``, ``value``, ``low``, ``high``.
    importance : DataFrame
        Columns ``kind`` (the view), ``name``, ``value``, ``low``, ``high``.
    """
    tables = {"Whole views": ablation.rename(columns={"modality": "name"})}
    tables |= {f"Parts of {kind}": rows for kind, rows in importance.groupby("kind", sort=False)}
    tables = {title: table.sort_values("value", ascending=False) for title, table in tables.items() if len(table)}
    most = max(len(table) for table in tables.values())
    figure = Figure(figsize=(3.4 * len(tables), 1.5 + 0.3 * most))
    for axes, (title, table) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        _points(axes, np.arange(len(table)), table, PALETTE[0])
        _name_rows(axes, list(table["name"]))
        axes.set(xlabel="increase of the loss")
        axes.set_title(title, fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        axes.tick_params(labelsize=9)
    _headline(figure, f"Ablation by blocks of time, intervals of {confidence:.0%}")
    return figure


def shares_and_shapley(shares: pd.DataFrame, shapley: pd.DataFrame, confidence: float) -> Figure:
    """How much each modality is looked at, beside how much it is worth.

    Parameters
    ----------
    shares : DataFrame
        Columns ``modality``, ``value``, ``low``, ``high``: share of attention.
    """
    names = list(shares["modality"])
    worth = shapley[shapley["measure"] == "shapley"].set_index("modality").loc[names]
    figure = Figure(figsize=(9, 1.5 + 0.5 * len(names)))
    left, right = figure.subplots(1, 2, sharey=True)
    left.axvline(1 / len(names), color=GREY, linestyle="--", linewidth=1)
    left.set(title="Looked at", xlabel="share of attention (dashed: uniform)")
    right.set(title="Worth", xlabel="reduction of the loss (Shapley)")
    for axes, table in ((left, shares.set_index("modality")), (right, worth)):
        for row, name in enumerate(names):
            _points(axes, np.array([row]), table.loc[[name]], token_color(row))
    right.axvline(0, color=GREY, linestyle="--", linewidth=1)
    for axes in (left, right):
        axes.locator_params(axis="x", nbins=5)
    _name_rows(left, names, line=False)
    _headline(figure, f"Attention beside attribution, intervals of {confidence:.0%}")
    return figure


def agreement_forest(agreement: pd.DataFrame, confidence: float) -> Figure:
    """Rank correlation of attention with each attribution.

    Parameters
    ----------
    agreement : DataFrame
        Columns ``reference``, ``scope`` (``global``, ``within samples``, or a modality: across samples), ``statistic``
        (``spearman``, ``kendall``), ``value``, ``low``, ``high``.
    """
    scopes = list(agreement["scope"].unique())
    references = list(agreement["reference"].unique())
    figure = Figure(figsize=(9, 1.6 + 0.45 * len(scopes)))
    panels = figure.subplots(1, len(references), sharey=True, squeeze=False)[0]
    for axes, reference in zip(panels, references, strict=True):
        for number, statistic in enumerate(agreement["statistic"].unique()):
            own = agreement[(agreement["reference"] == reference) & (agreement["statistic"] == statistic)]
            rows = own.set_index("scope").reindex(scopes)
            _points(axes, np.arange(len(scopes)) + 0.2 * number, rows, PALETTE[number], statistic)
        axes.set(title=f"with {reference}", xlabel="rank correlation", xlim=(-1.15, 1.15))
        axes.set_xticks([-1, -0.5, 0, 0.5, 1])
        axes.axvline(0, color=GREY, linestyle="--", linewidth=1)
    names = [s if s in ("global", "within samples") else f"{s}, across samples" for s in scopes]
    _name_rows(panels[0], names, line=False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    _headline(figure, f"Does attention rank as attribution does? Intervals of {confidence:.0%}")
    return figure


def control_forest(controls: pd.DataFrame, confidence: float) -> Figure:
    """The model beside what should be worse if its attention means something, one panel per measure.

    Parameters
    ----------
    controls : DataFrame
        Columns ``control``, ``measure``, ``value``, ``low``, ``high``.
    """
    names, measures = list(controls["control"].unique()), list(controls["measure"].unique())
    figure = Figure(figsize=(2 + 3.2 * len(measures), 1.4 + 0.42 * len(names)))
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        rows = controls[controls["measure"] == measure].set_index("control").reindex(names)
        for place, name in enumerate(names):
            _points(axes, np.array([place]), rows.loc[[name]], PALETTE[0] if name == "model" else PALETTE[1])
        axes.set_title(measure, fontsize=11)
        axes.set_xlabel(measure)
        axes.locator_params(axis="x", nbins=4)
    _name_rows(panels[0], names, line=False)
    _headline(figure, f"Controls, intervals of {confidence:.0%}")
    return figure


def sample_shapley(samples: pd.DataFrame, modalities: Sequence[str], titles: Sequence[str]) -> Figure:
    """How the logit of single samples is made up: from nothing seen, by each modality, to everything seen.

    Parameters
    ----------
    samples : DataFrame of K rows
        ``base``, ``logit`` and ``shapley_<modality>``; base plus all of them is the logit.
    titles : sequence of str, length K
    """
    figure = Figure(figsize=(1 + 4.5 * len(titles), 1.4 + 0.45 * (len(modalities) + 2)))
    panels = figure.subplots(1, len(titles), sharex=True, sharey=True, squeeze=False)[0]
    for axes, title, (_, row) in zip(panels, titles, samples.iterrows(), strict=True):
        steps = row[[f"shapley_{name}" for name in modalities]].to_numpy(dtype=float)
        starts = row["base"] + np.concatenate([[0.0], np.cumsum(steps)[:-1]])
        colors = [PALETTE[1] if step > 0 else PALETTE[0] for step in steps]
        axes.barh(np.arange(len(steps)) + 1, steps, left=starts, color=colors, height=0.6)
        ends = [row["base"], row["logit"]]
        axes.plot(ends, [0, len(steps) + 1], "o", color=GREY, markersize=7)
        for place, (start, step) in enumerate(zip(starts, steps, strict=True), start=1):
            side = {"ha": "left", "xytext": (5, 0)} if step > 0 else {"ha": "right", "xytext": (-5, 0)}
            at = {"va": "center", "textcoords": "offset points", "fontsize": 9}
            axes.annotate(f"{step:+.2f}", (start + step, place), **side, **at)
        axes.set(xlabel="logit of a trigger")
        axes.set_title(title, fontsize=10)
        axes.use_sticky_edges = False  # a bar may not touch the frame, where its point would be cut
        axes.margins(x=0.2)
    _name_rows(panels[0], ["nothing seen", *modalities, "everything seen"], line=False)
    _headline(figure, "What each modality adds to the logit (orange: towards a trigger)")
    return figure


def gate_boxes(gates: np.ndarray, tokens: Sequence[str]) -> Figure:
    """Gate of every token of a gated fusion: box over samples.

    Parameters
    ----------
    gates : ndarray, shape (N, M)
        Mean over units, in [0, 1].
    """
    figure = Figure(figsize=(8, 1.4 + 0.4 * len(tokens)))
    axes = figure.subplots()
    look = {"showfliers": False, "whis": (5, 95), "patch_artist": True, "medianprops": {"color": "black"}}
    boxes = axes.boxplot(gates.astype(np.float32), orientation="horizontal", positions=range(len(tokens)), **look)
    for place, box in enumerate(boxes["boxes"]):
        box.set_facecolor(token_color(place))
    _name_rows(axes, list(tokens), line=False)
    axes.set(xlabel="gate, mean over units (boxes: quartiles, whiskers: 5 % to 95 % of the samples)", xlim=(0, 1))
    _headline(figure, "How far each gate is open")
    return figure


def _points(axes: Axes, height: np.ndarray, rows: pd.DataFrame, color: str, label: str | None = None) -> None:
    """Points with intervals; a row without an interval keeps its point."""
    axes.hlines(height, rows["low"], rows["high"], color=color, linewidth=2, alpha=0.7)
    axes.plot(rows["value"], height, "o", color=color, markersize=6, label=label)


def _name_rows(axes: Axes, names: Sequence[str], line: bool = True) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first row is on top
    if line:
        axes.axvline(0, color=GREY, linestyle="--", linewidth=1)


def _headline(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", weight="bold")
