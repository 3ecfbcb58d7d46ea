"""Figures of page 02: one window from price to topology, and topology and complexity over time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from plotly.subplots import make_subplots
from scipy.spatial.distance import pdist, squareform

from cmat_lib.plots.candles import evenly, wall_time
from cmat_lib.plots.style import GREY, PALETTE, SEQUENTIAL, new_figure

HOMOLOGY_COLORS = {0: PALETTE[0], 1: PALETTE[1]}
HOMOLOGY_NAMES = {0: "H0: pieces", 1: "H1: loops"}
MOMENTS = 600  # columns of a heat map over time; more cannot be told apart on a screen
BINS = 50  # rows of a heat map
POINTS = 2000  # points of a line over time


def price_and_cloud(
    times: pd.DatetimeIndex, price: np.ndarray, cloud: np.ndarray, delay: int, name: str = "log close"
) -> go.Figure:
    """A window and the cloud of its points, delayed by `delay` candles, in the same colours of time.

    The `price` is the log close, or another series of that `name`, (W,), in standard deviations of the window; of its
    embedding, (P, d), the first two coordinates are drawn.
    """
    titles = ("the window", "its cloud: each point is two moments")
    figure = make_subplots(cols=2, column_widths=[0.55, 0.45], horizontal_spacing=0.12, subplot_titles=titles)
    marker = {"colorscale": SEQUENTIAL, "cmin": 0, "cmax": len(price) - 1, "size": 5}
    style = {"mode": "lines+markers", "line_color": GREY, "showlegend": False, "hoverinfo": "x+y"}
    for column, x, y, width in ((1, wall_time(times), price, 1), (2, cloud[:, 0], cloud[:, 1], 0.5)):
        aged = marker | {"color": np.arange(len(x))}
        figure.add_trace(go.Scatter(x=x, y=y, marker=aged, line_width=width, **style), 1, column)
    figure.update_layout(title="From price to cloud (colour: time, dark is old)", hovermode="closest", height=460)
    return label_cloud(figure, name, delay)


def label_cloud(figure: go.Figure, name: str, delay: int) -> go.Figure:
    """Axes of a series over time, and of its cloud beside it, whose units are equally long."""
    figure.update_layout(xaxis_title="candle open (UTC)", yaxis_title=f"{name} (σ)", xaxis2_title=f"{name} at t (σ)")
    figure.update_yaxes(scaleanchor="x2", constrain="domain", col=2)
    return figure.update_layout(yaxis2_title=f"{name} at t + {delay} candles (σ)")


def filtration(cloud: np.ndarray, scales: Sequence[float], name: str = "log close") -> Figure:
    """The Vietoris-Rips complex at a few scales: points nearer than the scale are joined.

    Points, (P, d), and scales are in window standard deviations; the first two coordinates are drawn, all count for the
    distance.
    """
    distances = squareform(pdist(cloud))  # (P, P)
    figure, panels = new_figure(10, 3.9, columns=len(scales), sharex=True, sharey=True)
    for axes, scale in zip(panels, scales, strict=True):
        first, second = np.nonzero(np.triu(distances <= scale, k=1))
        lines = np.stack([cloud[first, :2], cloud[second, :2]], axis=1)  # (edges, 2, 2)
        axes.add_collection(LineCollection(lines, colors=PALETTE[5], linewidths=0.6, alpha=0.5, rasterized=True))
        axes.scatter(*cloud[:, :2].T, s=6, color=PALETTE[0], zorder=3)
        axes.set_aspect("equal", adjustable="box")
        axes.set_title(f"scale {scale:.2f} σ · {len(lines):,} edges", fontsize=10)
        axes.set_xlabel(f"{name} at t (σ)")
    figure.axes[0].set_ylabel(f"{name}, delayed (σ)")
    return figure


def persistence(diagrams: Mapping[int, np.ndarray]) -> Figure:
    """Barcode and diagram of one window: births and deaths, (n, 2), by dimension, in window standard deviations."""
    figure, (barcode, diagram) = new_figure(10, 4.4, columns=2, width_ratios=[1.2, 1])
    top = max((bars.max() for bars in diagrams.values() if len(bars)), default=1.0)
    row, width = 0, np.clip(150 / max(sum(map(len, diagrams.values())), 1), 0.4, 1.5)  # thin enough to tell bars apart
    for dimension, bars in diagrams.items():
        style = {"color": HOMOLOGY_COLORS[dimension], "label": f"{HOMOLOGY_NAMES[dimension]} ({len(bars)})"}
        ordered = bars[np.lexsort((bars[:, 1], bars[:, 0]))]
        barcode.hlines(row + np.arange(len(bars)), *ordered.T, linewidth=width, **style)
        diagram.scatter(*bars.T, s=18, alpha=0.7, linewidths=0, **style)
        row += len(bars)
    diagram.plot([0, top], [0, top], color=GREY, linewidth=1)
    barcode.set(title="Barcode", xlabel="scale (σ)", ylabel="bars, by birth")
    diagram.set(title="Persistence diagram", xlabel="birth (σ)", ylabel="death (σ)", aspect="equal")
    diagram.legend(loc="lower right")
    return figure


def betti_curves(grids: Mapping[int, np.ndarray], curves: Mapping[int, np.ndarray]) -> Figure:
    """Betti curves of one window, a panel per homology dimension.

    By dimension, (bins,): scales in window standard deviations, and the bars alive there.
    """
    figure, panels = new_figure(10, 3.4, columns=len(grids))
    for axes, dimension, color in _betti_panels(panels, grids):
        axes.plot(grids[dimension], curves[dimension], ".-", drawstyle="steps-post", markersize=3, color=color)
    return figure


def actual_and_shuffled(
    grids: Mapping[int, np.ndarray], actual: Mapping[int, np.ndarray], shuffled: Mapping[int, np.ndarray]
) -> Figure:
    """Betti curves of windows as they happened and of the same windows with their returns in random order.

    Grids are as for `betti_curves`; of the curves of N windows, (N, bins), the median and the band from the 10th to the
    90th percentile are drawn.
    """
    figure, panels = new_figure(10, 3.6, columns=len(grids))
    for axes, dimension, color in _betti_panels(panels, grids):
        for curves, shade, name in ((actual, color, "as it happened"), (shuffled, GREY, "returns shuffled")):
            low, middle, high = np.quantile(curves[dimension], (0.1, 0.5, 0.9), axis=0)
            axes.plot(grids[dimension], middle, color=shade, label=name)
            axes.fill_between(grids[dimension], low, high, color=shade, alpha=0.25, linewidth=0)
        axes.legend(loc="upper right")
    return figure


def _betti_panels(panels: list[Axes], dimensions: Iterable[int]) -> Iterator[tuple[Axes, int, str]]:
    """One labelled panel per homology dimension, with its colour."""
    for axes, dimension in zip(panels, dimensions, strict=True):
        axes.set(title=f"Betti curve, {HOMOLOGY_NAMES[dimension]}", xlabel="scale (σ)", ylabel="bars alive")
        yield axes, dimension, HOMOLOGY_COLORS[dimension]


def topology_over_time(
    times: pd.DatetimeIndex,
    close: np.ndarray,
    grids: Mapping[int, np.ndarray],
    curves: Mapping[int, np.ndarray],
    totals: Mapping[int, np.ndarray],
    title: str,
) -> go.Figure:
    """Price, Betti curves as heat maps and total persistence over one time axis.

    Of n samples, by homology dimension: grids as for `betti_curves`, curves (n, bins), and total persistence (n,) in
    log price. At most `MOMENTS` evenly spaced samples and `BINS` bins of the curves are drawn.
    """
    moments = evenly(len(times), MOMENTS)
    time, count = wall_time(times)[moments], len(grids)
    heights = [0.8, *[1.0] * count, 0.8]
    figure = make_subplots(rows=count + 2, shared_xaxes=True, vertical_spacing=0.04, row_heights=heights)
    figure.add_trace(go.Scatter(x=time, y=close[moments], line={"color": GREY, "width": 1.2}, showlegend=False), 1, 1)
    for row, dimension in enumerate(grids, start=2):
        bins = evenly(len(grids[dimension]), BINS)
        domain = figure.get_subplot(row, 1).yaxis.domain
        scale = {"title": f"β{dimension}", "y": domain[0], "yanchor": "bottom", "len": domain[1] - domain[0]}
        heat = curves[dimension][np.ix_(moments, bins)].astype(np.float32).T  # (bins, n)
        hover = f"scale %{{y:.2f}} σ: %{{z:.0f}} bars<extra>H{dimension}</extra>"
        look = {"colorscale": SEQUENTIAL, "colorbar": scale | {"thickness": 12}, "hovertemplate": hover}
        figure.add_trace(go.Heatmap(x=time, y=grids[dimension][bins], z=heat, **look), row, 1)
        figure.update_yaxes(title_text=f"H{dimension} scale (σ)", row=row)
        line = {"color": HOMOLOGY_COLORS[dimension], "width": 1.2}
        total = totals[dimension][moments]
        figure.add_trace(go.Scatter(x=time, y=total, line=line, name=HOMOLOGY_NAMES[dimension]), count + 2, 1)
    figure.update_yaxes(title_text="total persistence<br>(log price)", row=count + 2)
    figure.update_xaxes(title_text="time (UTC)", row=count + 2)
    return figure.update_layout(title=title, yaxis_title="close", height=240 * (count + 1))


def indicators_over_time(
    times: pd.DatetimeIndex, close: np.ndarray, values: np.ndarray, names: Sequence[str], title: str
) -> go.Figure:
    """Price and one panel per complexity indicator, (n, K), over one time axis.

    At most `POINTS` evenly spaced samples are drawn.
    """
    moments = evenly(len(times), POINTS)
    time, series = wall_time(times)[moments], {"close": close, **dict(zip(names, values.T, strict=True))}
    figure = make_subplots(rows=len(series), shared_xaxes=True, vertical_spacing=0.02)
    for row, (name, column) in enumerate(series.items(), start=1):
        color = GREY if row == 1 else PALETTE[(row - 2) % len(PALETTE)]
        line = go.Scatter(x=time, y=column[moments], line={"color": color, "width": 1.2}, name=name, showlegend=False)
        figure.add_trace(line, row, 1)
        figure.update_yaxes(title_text=name.replace("_", "<br>"), title_font_size=11, row=row)
    figure.update_xaxes(title_text="time (UTC)", row=len(series))
    return figure.update_layout(title=title, height=120 + 110 * len(series))
