"""Shares of attention in groups of samples, with intervals: ``value``, ``low``, ``high`` of `grouped_shares`."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from cmat_lib.plots.style import DASHED, draw_intervals, legend_below, name_rows, new_figure, token_color


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
