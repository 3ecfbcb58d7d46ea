"""Figures of page 06: attention maps as grids, their entropy, single samples, and shares of attention in groups."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cmat_lib.plots.style import (
    BOXES,
    DASHED,
    DIVERGING,
    PALETTE,
    SEQUENTIAL,
    draw_intervals,
    headline,
    legend_below,
    name_rows,
    new_figure,
    token_color,
)

NUMBERED_CELLS = 16  # cells in one line of a figure that still have room for their number
MAX_BOXES = 5000  # samples behind a box; more change nothing that can be seen


def map_grid(
    maps: np.ndarray,
    tokens: Sequence[str],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    difference: bool = False,
    label: str | None = None,
) -> Figure:
    """Grid of attention maps on one colour scale; a line of a map is a token that looks, a column one that is seen.

    `maps`, (R, K, M, M), are weights whose rows sum to 1, or a `difference` of such maps, whose colours go around 0;
    `rows` and `columns` are the R and K names of the grid. The `label` of the colour bar may be another.
    """
    count = len(tokens)
    side = max(1.05, 0.36 * count) if len(columns) > 4 else max(1.9, 0.5 * count)
    size = (2.2 + side * len(columns), 1.6 + (side + 0.25) * len(rows))
    figure = Figure(figsize=size, layout="compressed")  # square maps, without gaps between them
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    colors = _colors(maps, difference)
    for row, column in np.ndindex(panels.shape):
        axes = panels[row, column]
        below = tokens if row == len(rows) - 1 else [""] * count
        _draw_map(axes, maps[row, column], tokens, colors, column, len(columns), below)
        axes.set_title(columns[column] if row == 0 else "", fontsize=10, loc="center")
        if column == 0 and len(rows) > 1:
            axes.set_ylabel(rows[row], fontweight="bold")
    _color_bar(figure, panels, colors, label or ("difference of weights" if difference else _weight(count)))
    headline(figure, title)
    return figure


def model_maps(means: pd.DataFrame) -> Figure:
    """Mean maps (`cmat_lib.explain.controls.mean_maps`) of several models; a run is named by the end of its folder."""
    tokens, names = list(means["from"].unique()), list(means["control"].unique())
    grid = means["weight"].to_numpy().reshape(1, len(names), len(tokens), len(tokens))
    titles = [textwrap.fill(Path(name).name, 12) for name in names]
    return map_grid(grid, tokens, [""], titles, "Rollout of several models, mean over samples")


def entropy_by_head(entropy: np.ndarray, tokens: Sequence[str], title: str) -> Figure:
    """Entropy (N, layers, h, M) of every head's rows relative to uniform: box over samples, one panel per layer."""
    thinned = entropy[:: max(1, len(entropy) // MAX_BOXES)]  # (n, layers, h, M)
    layers, heads, count = thinned.shape[1:]
    figure, panels = new_figure(10, 0.9 + 2.3 * layers, rows=layers, sharex=True, sharey=True)
    width = 0.8 / count
    for layer, axes in enumerate(panels):
        for token in range(count):
            places = np.arange(1, heads + 1) + width * (token - (count - 1) / 2)
            face = {"boxprops": {"facecolor": token_color(token), "linewidth": 0.8}}
            axes.boxplot(thinned[:, layer, :, token], positions=places, widths=0.9 * width, **BOXES, **face)
        axes.axhline(1, **DASHED)
        axes.set(ylabel="entropy / uniform", title=f"layer {layer + 1}" if layers > 1 else "")
        axes.set_xticks(range(1, heads + 1), range(1, heads + 1))
        axes.grid(axis="x", visible=False)
    handles = [Patch(facecolor=token_color(token), edgecolor="black", label=name) for token, name in enumerate(tokens)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, count))
    panels[-1].set_xlabel(f"head (of {heads}); boxes: quartiles, whiskers: 5 % to 95 % of the samples")
    headline(figure, title)
    return figure


def single_cases(
    titles: Sequence[str], prices: Sequence[pd.DataFrame], maps: np.ndarray, tokens: Sequence[str], names: Sequence[str]
) -> Figure:
    """K single samples: the price around each (from `case_prices`), and its own maps, (K, L, M, M), with L `names`."""
    figure = Figure(figsize=(4.4 + 2.2 * len(names), 0.6 + 2.7 * len(titles)))
    panels = figure.subplots(len(titles), 1 + len(names), squeeze=False, width_ratios=[2, *[1] * len(names)])
    colors = _colors(maps)
    for row, (title, price) in enumerate(zip(titles, prices, strict=True)):
        _draw_price(panels[row, 0], price, title)
        for column, name in enumerate(names):
            axes = panels[row, 1 + column]
            _draw_map(axes, maps[row, column], tokens, colors, column, len(names), tokens)
            axes.set_title(name, fontsize=10, loc="center")
    _color_bar(figure, panels[:, 1:], colors, _weight(len(tokens)))
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return figure


def share_forest(tables: Mapping[str, pd.DataFrame], confidence: float) -> Figure:
    """Share of every token in the output of attention, by groups of samples; a title and a table per grouping."""
    counts = [len(table.index.unique("group")) for table in tables.values()]
    height = 1.4 + 0.5 * sum(counts) + 0.4 * len(counts)
    figure, panels = new_figure(9, height, rows=len(tables), sharex=True, height_ratios=counts)
    tokens = list(next(iter(tables.values())).index.unique("token"))
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        groups = list(table.index.unique("group"))
        for number, token in enumerate(tokens):
            rows, shift = table.xs(token, level="token").loc[groups], 0.5 * (number / max(1, len(tokens) - 1) - 0.5)
            draw_intervals(axes, rows, token_color(number), token, shift)
        sizes = table["n"].groupby(level="group").first()
        name_rows(axes, [f"{group} (n = {sizes[group]:,})" for group in groups])
        axes.axvline(1 / len(tokens), **DASHED)
        axes.set_title(title)
    panels[-1].set_xlabel(f"share in the output, intervals of {confidence:.0%} (dashed: uniform)")
    legend_below(figure, panels[0], min(6, len(tokens)))
    return figure


def contrast_forest(contrasts: pd.DataFrame, confidence: float) -> Figure:
    """Difference of shares between two kinds of moments, a panel per contrast of a `contrast_table`."""
    names, tokens = list(contrasts.index.unique("contrast")), list(contrasts.index.unique("token"))
    figure, panels = new_figure(9, 0.8 + len(names) * (0.6 + 0.28 * len(tokens)), rows=len(names), sharex=True)
    for axes, name in zip(panels, names, strict=True):
        rows = contrasts.loc[name].loc[tokens]
        draw_intervals(axes, rows, [token_color(number) for number in range(len(tokens))])
        name_rows(axes, tokens)
        axes.axvline(0, **DASHED)
        sizes = f"n = {rows['n_first'].iloc[0]:,} and {rows['n_second'].iloc[0]:,}"
        axes.set_title(f"{name} ({sizes})", fontsize=11)
    panels[-1].set_xlabel(f"difference of shares, intervals of {confidence:.0%}")
    return figure


def share_by_decile(table: pd.DataFrame, confidence: float) -> Figure:
    """Share of every token from the calmest to the wildest tenth of the samples, groups ``" 1"`` to ``"10"``."""
    tokens = list(table.index.unique("token"))
    figure, (axes,) = new_figure(9, 4)
    for number, token in enumerate(tokens):
        rows = table.xs(token, level="token").sort_index()
        tenth, color = rows.index.astype(int), token_color(number)
        axes.fill_between(tenth, rows["low"], rows["high"], color=color, alpha=0.2, linewidth=0)
        axes.plot(tenth, rows["value"], "o-", color=color, markersize=5, label=token)
    axes.axhline(1 / len(tokens), **DASHED)
    axes.set_xticks(sorted(table.index.unique("group").astype(int)))
    axes.set(xlabel="tenth of the symbol's samples by volatility (1: calmest)", ylabel="share (dashed: uniform)")
    axes.set_title(f"Share in the output by volatility, intervals of {confidence:.0%}")
    legend_below(figure, axes, min(6, len(tokens)))
    return figure


def _weight(count: int) -> str:
    return f"weight (uniform: {1 / count:.2f})"


def _colors(maps: np.ndarray, difference: bool = False) -> ScalarMappable:
    end = max(float(np.abs(maps).max()), 1e-6)  # maps that do not differ at all still need a scale
    return ScalarMappable(Normalize(-end if difference else 0, end), DIVERGING if difference else SEQUENTIAL)


def _draw_map(axes: Axes, values: np.ndarray, tokens, colors: ScalarMappable, column: int, columns: int, below) -> None:
    count = len(tokens)
    axes.imshow(values, cmap=colors.cmap, norm=colors.norm)
    axes.grid(False)
    axes.tick_params(labelsize=8, length=0)
    axes.set_xticks(range(count), below, rotation=90)
    axes.set_yticks(range(count), tokens if column == 0 else [""] * count)
    if columns * count > NUMBERED_CELLS:
        return
    difference = colors.norm.vmin < 0
    for (line, column), value in np.ndenumerate(values):
        level = colors.norm(value)
        dark = 0.2 < level < 0.8 if difference else level > 0.6  # where the colour behind the number is light
        text = f"{value:+z.3f}" if difference else f"{value:.2f}"
        axes.text(column, line, text, ha="center", va="center", fontsize=8, color="black" if dark else "white")


def _color_bar(figure: Figure, panels: np.ndarray, colors: ScalarMappable, label: str) -> None:
    bar = figure.colorbar(colors, ax=panels.ravel().tolist(), label=label, fraction=0.04, aspect=25)
    bar.ax.tick_params(labelsize=8)


def _draw_price(axes: Axes, price: pd.DataFrame, title: str) -> None:
    for name, part, color in (("seen", price.loc[:0], PALETTE[0]), ("came after", price.loc[0:], PALETTE[1])):
        axes.plot(part.index, part["close"], color=color, label=name)
    axes.vlines(price.index, price["close"], price["high"], color=np.where(price.index <= 0, *PALETTE[:2]), alpha=0.5)
    axes.axvline(0, **DASHED)
    axes.set_title(title, fontsize=10)
    axes.set(xlabel="candles from the sample", ylabel="close, up to the high (%)")
