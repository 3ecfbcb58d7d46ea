"""Shares of attention in groups of samples, with intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cmat_lib.plots.style import GREY, token_color


def share_forest(tables: Mapping[str, pd.DataFrame], confidence: float) -> Figure:
    """Share of every token in the output of attention, by groups of samples.

    Parameters
    ----------
    tables : mapping
        What groups the samples -> frame with index (group, token), columns ``value``, ``low``, ``high``, ``n``; from
        `grouped_shares`.
    """
    counts = [len(table.index.unique("group")) for table in tables.values()]
    figure = Figure(figsize=(9, 1.4 + 0.5 * sum(counts) + 0.4 * len(counts)))
    panels = figure.subplots(len(tables), 1, sharex=True, squeeze=False, height_ratios=counts)[:, 0]
    tokens = list(next(iter(tables.values())).index.unique("token"))
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        groups = list(table.index.unique("group"))
        axes.axvline(1 / len(tokens), color=GREY, linestyle="--", linewidth=1)
        for number, token in enumerate(tokens):
            height = np.arange(len(groups)) + 0.5 * (number / max(1, len(tokens) - 1) - 0.5)
            rows = table.xs(token, level="token").loc[groups]
            axes.hlines(height, rows["low"], rows["high"], color=token_color(number), linewidth=2, alpha=0.7)
            axes.plot(rows["value"], height, "o", color=token_color(number), markersize=6, label=token)
        sizes = table["n"].groupby(level="group").first()
        axes.set_yticks(range(len(groups)), [f"{group} (n = {sizes[group]:,})" for group in groups])
        axes.set(title=title, ylim=(len(groups) - 0.5, -0.5))
    panels[-1].set_xlabel(f"share in the output, intervals of {confidence:.0%} (dashed: uniform)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(6, len(tokens)))
    return figure


def contrast_forest(contrasts: pd.DataFrame, confidence: float) -> Figure:
    """Difference of shares between two kinds of moments, a panel per contrast.

    Parameters
    ----------
    contrasts : DataFrame
        Index (contrast, token), columns ``value``, ``low``, ``high``, ``n_first``, ``n_second``; from `contrast_table`.
    """
    names, tokens = list(contrasts.index.unique("contrast")), list(contrasts.index.unique("token"))
    figure = Figure(figsize=(9, 0.8 + len(names) * (0.6 + 0.28 * len(tokens))))
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        rows = contrasts.loc[name].loc[tokens]
        colors = [token_color(number) for number in range(len(tokens))]
        axes.axvline(0, color=GREY, linestyle="--", linewidth=1)
        axes.hlines(range(len(tokens)), rows["low"], rows["high"], color=colors, linewidth=2, alpha=0.7)
        axes.scatter(rows["value"], range(len(tokens)), c=colors, s=36, zorder=3)
        axes.set_yticks(range(len(tokens)), tokens)
        sizes = f"n = {rows['n_first'].iloc[0]:,} and {rows['n_second'].iloc[0]:,}"
        axes.set(title=f"{name} ({sizes})", ylim=(len(tokens) - 0.5, -0.5))
        axes.title.set_fontsize(11)
    panels[-1].set_xlabel(f"difference of shares, intervals of {confidence:.0%}")
    return figure


def share_by_decile(table: pd.DataFrame, confidence: float) -> Figure:
    """Share of every token from the calmest to the wildest tenth of the samples.

    Parameters
    ----------
    table : DataFrame
        Index (group, token), groups ``" 1"`` to ``"10"``, columns ``value``, ``low``, ``high``; from `grouped_shares`.
    """
    tokens = list(table.index.unique("token"))
    figure = Figure(figsize=(9, 4))
    axes = figure.subplots()
    for number, token in enumerate(tokens):
        rows = table.xs(token, level="token").sort_index()
        tenth = rows.index.astype(int)
        axes.fill_between(tenth, rows["low"], rows["high"], color=token_color(number), alpha=0.2, linewidth=0)
        axes.plot(tenth, rows["value"], "o-", color=token_color(number), markersize=5, label=token)
    axes.axhline(1 / len(tokens), color=GREY, linestyle="--", linewidth=1)
    axes.set_xticks(sorted(table.index.unique("group").astype(int)))
    axes.set(xlabel="tenth of the symbol's samples by volatility (1: calmest)", ylabel="share (dashed: uniform)")
    axes.set_title(f"Share in the output by volatility, intervals of {confidence:.0%}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(6, len(tokens)))
    return figure
