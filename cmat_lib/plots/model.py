"""Figures and tables of page 03: what goes in, the bases, the parameters, and the checks."""

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
from cmat_lib.plots.style import DIVERGING, GREY, PALETTE, SEQUENTIAL, new_figure
from cmat_lib.views import View
from cmat_lib.views.panel import Batch

MANY = 20  # numbers that bars have no room for
SCALED = "scaled value (interquartile ranges)"


def batch_table(batch: Batch) -> pd.DataFrame:
    """Name, shape, type and range of every tensor of a batch; one row each."""
    tensors = batch.inputs | {name: x for name, x in batch._asdict().items() if name != "inputs"}
    kinds = [(str(tuple(x.shape)), str(x.dtype).removeprefix("torch.")) for x in tensors.values()]
    numbers = [(x.min().item(), x.median().item(), x.max().item()) for x in tensors.values()]
    rows = {name: (*kind, *row) for name, kind, row in zip(tensors, kinds, numbers, strict=True)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["shape", "type", "smallest", "median", "largest"])


def sample_inputs(batch: Batch, sample: int, views: Sequence[View], config: Config) -> Figure:
    """What the model sees of one moment, scaled: windows (L, F) as heatmaps, many numbers as a line, few as bars."""
    windows = [view for view in views if view.window(config) and not view.context]
    rest = [view for view in views if not view.window(config) and not view.context]
    pairs = -(-len(rest) // 2)
    figure = Figure(figsize=(11, 3.4 * len(windows) + 2.6 * pairs))
    heights = [1.3] * len(windows) + [1.0] * pairs
    grid = figure.add_gridspec(len(heights), 2, width_ratios=(2.6, 1), height_ratios=heights)
    places = [grid[row, :] for row in range(len(windows))]
    places += [grid[len(windows) + n // 2, n % 2] for n in range(len(rest))]
    for view, place in zip(windows + rest, places, strict=True):
        numbers, ax = batch.inputs[view.name][sample].cpu().numpy(), figure.add_subplot(place)
        if view.window(config):
            _draw_window(ax, numbers.T, view, config)
        elif len(numbers) > MANY:
            _draw_features(ax, numbers, view.names(config))
        else:
            sns.barplot(x=numbers, y=list(view.names(config)), ax=ax, color=PALETTE[2])
            ax.set(xlabel=SCALED)
        ax.set(title=view.title)
    return figure


def _draw_window(ax: Axes, window: np.ndarray, view: View, config: Config) -> None:
    length, limit = window.shape[1], float(np.abs(window).max()) or 1.0
    frame = pd.DataFrame(window, index=view.names(config), columns=np.arange(1 - length, 1))
    look = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit, "cbar_kws": {"label": "scaled value"}}
    sns.heatmap(frame, ax=ax, xticklabels=max(1, length // 12), **look)
    ax.set(xlabel=f"{'candles' if view.by_candle else 'rows'} before the sample's own (0)")
    ax.tick_params(axis="x", rotation=0)


def _draw_features(ax: Axes, values: np.ndarray, features: Sequence[str]) -> None:
    dimensions = [name.split("_")[0] for name in features]
    for color, dimension in zip(PALETTE[1::2], dict.fromkeys(dimensions), strict=False):
        rows = [i for i, name in enumerate(dimensions) if name == dimension]
        ax.plot(rows, values[rows], color=color, marker=".", markersize=3, linewidth=1, label=dimension.upper())
    ax.set(xlabel="number of the feature", ylabel=SCALED.replace(" (", "\n("))
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)


def basis_functions(trend: np.ndarray, season: np.ndarray, highlighted: int = 3) -> Figure:
    """Bases from which the trend and seasonality stacks build their backcasts: polynomials, cosines and sines.

    `trend` is (4, T), `season` (2 harmonics, T): all cosines, then all sines. Only the lowest harmonics have a colour.
    """
    harmonics = len(season) // 2
    waves = [f"k = {k}" for k in range(1, harmonics + 1)]
    panels = (
        ("Trend: polynomials", trend, ["1", "t", "t²", "t³"], len(trend)),
        (f"Seasonality: {harmonics} cosines", season[:harmonics], waves, highlighted),
        (f"Seasonality: {harmonics} sines", season[harmonics:], waves, highlighted),
    )
    figure, axes = new_figure(11, 3.4, columns=3, sharex=True)
    for ax, (title, rows, names, named) in zip(axes, panels, strict=True):
        for row in rows[named:]:
            ax.plot(row, color=GREY, alpha=0.18, linewidth=0.8)
        for color, row, name in zip(PALETTE, rows[:named], names, strict=False):
            ax.plot(row, color=color, linewidth=2, label=name)
        ax.set(title=title, xlabel="candle in the window")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=4, columnspacing=1, handlelength=1.2)
    axes[0].set_ylabel("value of the basis function")
    return figure


def compare_parameters(table: pd.DataFrame, default: pd.DataFrame) -> pd.DataFrame:
    """Parameters of this run's model and of the default sizes (`cmat_lib.models.parameter_table`) beside the source's.

    ``match`` is *yes*, *yes, rounded*, the difference of default and source, or empty where the source says nothing.
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
    """Where the parameters sit, down to a depth of module names: a tile each, its area the number of parameters."""
    sizes: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        path = ["model", *(name.split(".")[:-1] or [name])[:depth]]
        for level in range(1, len(path) + 1):
            sizes["/".join(path[:level])] += parameter.numel()
    parents, _, labels = zip(*(node.rpartition("/") for node in sizes), strict=True)
    tiles = {"ids": list(sizes), "labels": labels, "parents": parents, "values": list(sizes.values())}
    hover = "%{id}<br>%{value:,} parameters<extra></extra>"
    look = {"branchvalues": "total", "texttemplate": "%{label}<br>%{value:,}", "hovertemplate": hover}
    figure, title = go.Figure(go.Treemap(**tiles, **look)), "Where the parameters sit (click a part to open it)"
    return figure.update_layout(title=title, margin={"t": 50, "l": 5, "r": 5})


def overfit_curve(losses: pd.DataFrame, goal: float = 0.05) -> Figure:
    """Losses by step and term, among them ``total``, while a batch is learned; the goal is a share of the first."""
    figure, (ax,) = new_figure(9, 3.6)
    for color, name in zip(PALETTE, losses, strict=False):
        ax.plot(losses.index, losses[name], color=color, label=name, linewidth=2 if name == "total" else 1)
    ax.axhline(goal * losses["total"].iloc[0], color=GREY, linestyle="--", label=f"{goal:.0%} of the first total")
    ax.set(title="One batch, learned by heart", xlabel="step", ylabel="loss (log scale)", yscale="log")
    ax.legend(ncols=len(losses.columns) + 1, loc="upper right", fontsize=9)
    return figure


def attention_grid(maps: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]]) -> Figure:
    """Mean attention maps (M, M) side by side, by title: row i says how much token i takes from each of the tokens."""
    if not maps:
        figure = Figure(figsize=(6, 0.8))
        figure.text(0.5, 0.5, "This model has no attention: there are no maps to draw.", ha="center", va="center")
        return figure
    figure, axes = new_figure(4.1 * len(maps) + 0.6, 3.7, columns=len(maps))
    for ax, (title, values) in zip(axes, maps.items(), strict=True):
        frame = pd.DataFrame(values, index=list(names[title]), columns=list(names[title]))
        sns.heatmap(frame, ax=ax, vmin=0, vmax=1, cmap=SEQUENTIAL, annot=True, fmt=".2f", cbar=ax is axes[-1])
        ax.set(title=title, xlabel="looks at", ylabel="token" if ax is axes[0] else "")
        ax.tick_params(axis="x", rotation=30)
        ax.tick_params(axis="y", rotation=0)
    return figure
