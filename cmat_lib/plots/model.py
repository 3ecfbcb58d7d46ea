"""Figures and tables of page 03: what goes in, the bases, the parameters, and the checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from cmat_lib.config import Config
from cmat_lib.encoders.nbeats import seasonality_basis, trend_basis
from cmat_lib.plots.style import DIVERGING, GREY, PALETTE, SEQUENTIAL
from cmat_lib.views import View
from cmat_lib.views.panel import Batch

MANY = 20  # numbers that bars have no room for
SCALED = "scaled value (interquartile ranges)"


# -- inputs ------------------------------------------------------------------------------------------------------------


def batch_table(batch: Batch) -> pd.DataFrame:
    """Name, shape, type and range of every tensor of a batch; one row each."""
    rows = {
        name: {
            "shape": str(tuple(x.shape)),
            "type": str(x.dtype).removeprefix("torch."),
            "smallest": x.min().item(),
            "median": x.median().item(),
            "largest": x.max().item(),
        }
        for name, x in (batch.inputs | {n: x for n, x in batch._asdict().items() if n != "inputs"}).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def sample_inputs(batch: Batch, sample: int, views: Sequence[View], config: Config) -> Figure:
    """Everything that the model sees of one moment, as it sees it (scaled).

    A window (L, F) as a heatmap, many numbers as a line, few as bars.
    """
    shown = [view for view in views if not view.context]
    windows = [view for view in shown if view.window(config)]
    rest = [view for view in shown if not view.window(config)]
    pairs = [rest[n : n + 2] for n in range(0, len(rest), 2)]
    figure = Figure(figsize=(11, 3.4 * len(windows) + 2.6 * len(pairs)))
    heights = [1.3] * len(windows) + [1.0] * len(pairs)
    grid = figure.add_gridspec(len(heights), 2, width_ratios=(2.6, 1), height_ratios=heights)
    for row, view in enumerate(windows):
        _draw_window(figure.add_subplot(grid[row, :]), batch.inputs[view.name][sample].T.cpu().numpy(), view, config)
    for row, pair in enumerate(pairs, start=len(windows)):
        for column, view in enumerate(pair):
            numbers, ax = batch.inputs[view.name][sample].cpu().numpy(), figure.add_subplot(grid[row, column])
            draw = _draw_features if len(numbers) > MANY else _draw_bars
            draw(ax, numbers, view.names(config))
            ax.set(title=view.title)
    return figure


def _draw_bars(ax: Axes, values: np.ndarray, features: Sequence[str]) -> None:
    sns.barplot(x=values, y=list(features), ax=ax, color=PALETTE[2])
    ax.set(xlabel=SCALED)


def _draw_window(ax: Axes, window: np.ndarray, view: View, config: Config) -> None:
    length = window.shape[1]
    limit = float(np.abs(window).max()) or 1.0
    candles = np.arange(1 - length, 1)
    every = max(1, length // 12)
    frame = pd.DataFrame(window, index=view.names(config), columns=candles)
    sns.heatmap(
        frame, ax=ax, cmap=DIVERGING, vmin=-limit, vmax=limit, xticklabels=every, cbar_kws={"label": "scaled value"}
    )
    ax.set(title=view.title, xlabel=f"{'candles' if view.by_candle else 'rows'} before the sample's own (0)")
    ax.tick_params(axis="x", rotation=0)


def _draw_features(ax: Axes, values: np.ndarray, features: Sequence[str]) -> None:
    dimensions = [name.split("_")[0] for name in features]
    for color, dimension in zip(PALETTE[1::2], dict.fromkeys(dimensions), strict=False):
        rows = [i for i, name in enumerate(dimensions) if name == dimension]
        ax.plot(rows, values[rows], color=color, marker=".", markersize=3, linewidth=1, label=dimension.upper())
    ax.set(xlabel="number of the feature", ylabel=SCALED.replace(" (", "\n("))
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)


# -- encoders ----------------------------------------------------------------------------------------------------------


def basis_functions(length: int, highlighted: int = 3) -> Figure:
    """Bases from which the trend and seasonality stacks build their backcasts.

    Polynomials, cosines and sines over the window.

    Parameters
    ----------
    length : int
        Look-back T in candles.
    highlighted : int
        Lowest harmonics drawn in colour; the others stay faint.
    """
    trend, season = trend_basis(length).numpy(), seasonality_basis(length).numpy()  # (4, T), (2 * harmonics, T)
    harmonics = len(season) // 2
    figure = Figure(figsize=(11, 3.4))
    axes = figure.subplots(1, 3, sharex=True)
    _draw_basis(axes[0], trend, ["1", "t", "t²", "t³"], len(trend))
    for ax, name, rows in ((axes[1], "cosine", season[:harmonics]), (axes[2], "sine", season[harmonics:])):
        _draw_basis(ax, rows, [f"k = {k}" for k in range(1, harmonics + 1)], highlighted)
        ax.set_title(f"Seasonality: {harmonics} {name}s")
    axes[0].set(title="Trend: polynomials", ylabel="value of the basis function")
    return figure


def _draw_basis(ax: Axes, rows: np.ndarray, names: Sequence[str], highlighted: int) -> None:
    for row in rows[highlighted:]:
        ax.plot(row, color=GREY, alpha=0.18, linewidth=0.8)
    for color, row, name in zip(PALETTE, rows[:highlighted], names, strict=False):
        ax.plot(row, color=color, linewidth=2, label=name)
    ax.set_xlabel("candle in the window")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=4, columnspacing=1, handlelength=1.2)


# -- parameters --------------------------------------------------------------------------------------------------------


def compare_parameters(table: pd.DataFrame, default: pd.DataFrame) -> pd.DataFrame:
    """Parameters of this run's model, of the default sizes, and what the source states for the default sizes.

    Parameters
    ----------
    table, default : DataFrame
        Columns ``part``, ``parameters``, ``source``; see `cmat_lib.models.parameter_table`.

    Returns
    -------
    DataFrame
        Index parts; ``match`` is *yes*, *yes, rounded*, the difference of default and source, or empty where the
        source says nothing.
    """
    here = table.set_index("part")["parameters"].rename("this run")
    full = default.set_index("part").rename(columns={"parameters": "default sizes"})
    both = full.join(here, how="right")[["this run", "default sizes", "source"]]
    both["default sizes"] = both["default sizes"].astype("Int64")
    both["match"] = [_match(count, source) for count, source in zip(both["default sizes"], both["source"], strict=True)]
    return both.assign(source=both["source"].fillna("–")).rename_axis(None)


def _match(count: int, source: str | None) -> str:
    if not isinstance(source, str):
        return ""
    if source.startswith("~"):
        digits = source.removeprefix("~").rstrip("MK")
        unit = 1e6 if source.endswith("M") else 1e3
        decimals = len(digits.partition(".")[2])
        return "yes, rounded" if f"{count / unit:.{decimals}f}" == digits else f"no, {count:,}"
    stated = sum(int(number) for number in source.replace(",", "").split("+"))
    return "yes" if count == stated else f"{count - stated:+,}"


def parameter_treemap(model: nn.Module, depth: int = 3) -> go.Figure:
    """Where the parameters sit; click to go deeper.

    One tile per module, its area the number of parameters.

    Parameters
    ----------
    depth : int
        Levels of module names that are told apart.
    """
    sizes: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        path = ["model", *(name.split(".")[:-1] or [name])[:depth]]
        for level in range(1, len(path) + 1):
            sizes["/".join(path[:level])] += parameter.numel()
    places = [node.rpartition("/") for node in sizes]
    figure = go.Figure(
        go.Treemap(
            ids=list(sizes),
            labels=[label for _, _, label in places],
            parents=[parent for parent, _, _ in places],
            values=list(sizes.values()),
            branchvalues="total",
        )
    )
    figure.update_traces(
        texttemplate="%{label}<br>%{value:,}", hovertemplate="%{id}<br>%{value:,} parameters<extra></extra>"
    )
    figure.update_layout(title="Where the parameters sit (click a part to open it)", margin={"t": 50, "l": 5, "r": 5})
    return figure


# -- checks ------------------------------------------------------------------------------------------------------------


def overfit_curve(losses: pd.DataFrame, goal: float = 0.05) -> Figure:
    """Losses while the model learns one batch by heart.

    Parameters
    ----------
    losses : DataFrame
        One row per step, one column per loss term, among them ``total``.
    goal : float
        Share of the first total loss to get below; drawn as a line.
    """
    figure = Figure(figsize=(9, 3.6))
    ax = figure.add_subplot()
    for color, name in zip(PALETTE, losses, strict=False):
        ax.plot(losses.index, losses[name], color=color, label=name, linewidth=2 if name == "total" else 1)
    ax.axhline(goal * losses["total"].iloc[0], color=GREY, linestyle="--", label=f"{goal:.0%} of the first total")
    ax.set(title="One batch, learned by heart", xlabel="step", ylabel="loss (log scale)", yscale="log")
    ax.legend(ncols=len(losses.columns) + 1, loc="upper right", fontsize=9)
    return figure


def attention_grid(maps: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]]) -> Figure:
    """Mean attention maps side by side.

    Row i of a panel says how much token i takes from each token. Without maps, it says that there are none.

    Parameters
    ----------
    maps : mapping of str to ndarray, shape (M, M)
        Title -> weights; rows sum to 1.
    names : mapping of str to sequence of str
        Title -> M names of tokens.
    """
    if not maps:
        figure = Figure(figsize=(6, 0.8))
        figure.text(0.5, 0.5, "This model has no attention: there are no maps to draw.", ha="center", va="center")
        return figure
    figure = Figure(figsize=(4.1 * len(maps) + 0.6, 3.7))
    axes = figure.subplots(1, len(maps), squeeze=False)[0]
    for ax, (title, values) in zip(axes, maps.items(), strict=True):
        frame = pd.DataFrame(values, index=list(names[title]), columns=list(names[title]))
        sns.heatmap(frame, ax=ax, vmin=0, vmax=1, cmap=SEQUENTIAL, annot=True, fmt=".2f", cbar=ax is axes[-1])
        ax.set(title=title, xlabel="looks at", ylabel="token" if ax is axes[0] else "")
        ax.tick_params(axis="x", rotation=30)
        ax.tick_params(axis="y", rotation=0)
    return figure
