"""Figures of page 02: one window from price to topology, and topology and complexity over time."""

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
from cmat_lib.plots.style import GREY, INK, PALETTE, SEQUENTIAL, new_figure
from cmat_lib.tda.planar import Loop

HOMOLOGY_COLORS = {0: PALETTE[0], 1: PALETTE[1]}
HOMOLOGY_NAMES = {0: "H0: pieces", 1: "H1: loops"}
HEATMAP_COLUMNS, HEATMAP_ROWS = 600, 50  # at most; more cannot be told apart on a screen
LINE_POINTS = 2000  # of a line over time
LAST_EDGE = {"color": PALETTE[1], "width": 2.5, "dash": "dot"}  # of a loop


def price_and_cloud(
    times: pd.DatetimeIndex, price: np.ndarray, cloud: np.ndarray, delay: int, name: str = "log close"
) -> go.Figure:
    """A window, (W,), and the first two coordinates of its cloud, (P, d), in the same colours of time.

    The `price` is the log close, or another series of that `name`, in standard deviations; `delay` is in candles.
    """
    titles = ("the window", "its cloud: each point is two moments")
    figure = make_subplots(cols=2, column_widths=[0.55, 0.45], horizontal_spacing=0.12, subplot_titles=titles)
    marker = {"colorscale": SEQUENTIAL, "cmin": 0, "cmax": len(price) - 1, "size": 5}
    style = {"mode": "lines+markers", "line_color": GREY, "showlegend": False, "hoverinfo": "x+y"}
    for column, x, y, width in ((1, wall_time(times), price, 1), (2, cloud[:, 0], cloud[:, 1], 0.5)):
        aged = marker | {"color": np.arange(len(x))}
        figure.add_trace(go.Scatter(x=x, y=y, marker=aged, line_width=width, **style), 1, column)
    figure.update_layout(title="From price to cloud (colour: time, dark is old)", hovermode="closest", height=460)
    return _label_cloud(figure, name, delay)


def _label_cloud(figure: go.Figure, name: str, delay: int) -> go.Figure:
    """Axes of a series over time, and of its cloud beside it, whose units are equally long."""
    figure.update_layout(xaxis_title="candle open (UTC)", yaxis_title=f"{name} (σ)", xaxis2_title=f"{name} at t (σ)")
    figure.update_yaxes(scaleanchor="x2", constrain="domain", col=2)
    return figure.update_layout(yaxis2_title=f"{name} at t + {delay} candles (σ)")


def loop_on_chart(
    times: pd.DatetimeIndex, values: np.ndarray, cloud: np.ndarray, loop: Loop, delay: int, name: str = "log close"
) -> go.Figure:
    """Which candles of a window draw its loop, and where the loop lies in the cloud.

    Each point of the loop has a colour, which says when it was. Its two candles have it too: a dot marks the earlier
    one, a ring the later one. `values`, (W,), are in standard deviations of the window, `cloud`, (P, 2), is their
    embedding with a delay in candles, and `loop` is from `cmat_lib.tda.planar.planar_loops`.
    """
    taken = np.union1d(loop.points, loop.points + delay)
    titles = (f"the {len(taken)} candles that draw it", "the loop in the cloud")
    figure = make_subplots(cols=2, column_widths=[0.6, 0.4], horizontal_spacing=0.1, subplot_titles=titles)
    # The scale ends short of its light colours, which are hard to see on paper.
    ends = {"cmin": loop.points.min(), "cmax": loop.points.min() + 1.15 * np.ptp(loop.points)}
    marker = {"color": loop.points, "colorscale": SEQUENTIAL, **ends}
    _draw_price(figure, wall_time(times), values, loop, delay, marker)
    _draw_cloud(figure, wall_time(times), cloud, loop, marker)
    lives = f"born {loop.birth:.2f} σ, dies {loop.death:.2f} σ, persistence {loop.death - loop.birth:.2f} σ"
    first, last = (f"{times[row]:%Y-%m-%d %H:%M}" for row in (taken[0], taken[-1]))
    part = f"{len(taken)} of {len(values)} candles take part, from {first} to {last} UTC"
    figure.update_layout(title=f"The longest loop: {lives}<br><sub>{part}</sub>", hovermode="closest", height=540)
    figure.update_layout(margin_t=110, legend={"y": -0.19, "yanchor": "top", "x": 0.5, "xanchor": "center"})
    return _label_cloud(figure, name, delay)


def _draw(figure: go.Figure, panel: int, x, y, mode: str, **look) -> None:
    look = {"hoverinfo": "skip", "showlegend": "name" in look} | look
    figure.add_trace(go.Scatter(x=x, y=y, mode=mode, **look), 1, panel)


def _draw_price(figure: go.Figure, time, values: np.ndarray, loop: Loop, delay: int, marker: dict) -> None:
    _draw(figure, 1, time, values, "lines", line={"color": GREY, "width": 1})
    roles = (("circle", 7, 0, "candle t of a point"), ("circle-open", 9, delay, f"its candle t + {delay}"))
    for symbol, size, later, role in roles:
        at, look = loop.points + later, marker | {"symbol": symbol, "size": size, "line": {"width": 1.5}}
        _draw(figure, 1, time[at], values[at], "markers", marker=look, name=role, hoverinfo="x+y+name")
    for end in loop.killer:  # the two candles of each point that the last edge joins
        _draw(figure, 1, time[[end, end + delay]], values[[end, end + delay]], "lines", line=LAST_EDGE)


def _draw_cloud(figure: go.Figure, time, cloud: np.ndarray, loop: Loop, marker: dict) -> None:
    _draw(figure, 2, *cloud.T, "markers", marker={"color": GREY, "size": 3, "opacity": 0.4})
    closed = np.append(loop.points, loop.points[0])
    look = {"line": {"color": INK, "width": 1.5}, "marker": marker | {"color": closed, "size": 7}, "name": "loop"}
    _draw(figure, 2, *cloud[closed].T, "lines+markers", **look, text=time[closed].astype(str), hoverinfo="x+y+text")
    edge = cloud[list(loop.killer)]
    _draw(figure, 2, *edge.T, "lines", line=LAST_EDGE, name="edge that fills it")
    x, y = edge.mean(axis=0)
    # The label stands below the diagonal, where the cloud of a path leaves room.
    arrow = {"ax": 70, "ay": 60, "xanchor": "left", "arrowcolor": LAST_EDGE["color"], "arrowwidth": 1, "standoff": 3}
    label = {"text": f"length {loop.death:.2f} σ = death", "font": {"color": LAST_EDGE["color"]}}
    figure.add_annotation(x=x, y=y, **label, **arrow, row=1, col=2)


def filtration(cloud: np.ndarray, scales: Sequence[float], name: str = "log close") -> Figure:
    """The Vietoris-Rips complex at a few scales (in σ, as the cloud (P, d)): points nearer than the scale are joined.

    The first two coordinates are drawn, all count for the distance.
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
    """Betti curves of one window, by dimension, (bins,): scales in standard deviations, and the bars alive there."""
    figure, panels = new_figure(10, 3.4, columns=len(grids))
    for axes, dimension, color in _betti_panels(panels, grids):
        axes.plot(grids[dimension], curves[dimension], ".-", drawstyle="steps-post", markersize=3, color=color)
    return figure


def actual_and_shuffled(
    grids: Mapping[int, np.ndarray], actual: Mapping[int, np.ndarray], shuffled: Mapping[int, np.ndarray]
) -> Figure:
    """Betti curves, (N, bins), of windows as they happened and of the same windows with their returns shuffled.

    Grids are as for `betti_curves`; median and band from the 10th to the 90th percentile are drawn.
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
    """Price, Betti curves as heat maps and total persistence over one time axis, evenly thinned.

    By homology dimension: grids as for `betti_curves`, curves (n, bins), and total persistence (n,) in log price.
    """
    moments = evenly(len(times), HEATMAP_COLUMNS)
    time, count = wall_time(times)[moments], len(grids)
    heights = [0.8, *[1.0] * count, 0.8]
    figure = make_subplots(rows=count + 2, shared_xaxes=True, vertical_spacing=0.04, row_heights=heights)
    figure.add_trace(go.Scatter(x=time, y=close[moments], line={"color": GREY, "width": 1.2}, showlegend=False), 1, 1)
    for row, dimension in enumerate(grids, start=2):
        bins = evenly(len(grids[dimension]), HEATMAP_ROWS)
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
    """Price and one panel per complexity indicator, (n, K), over one time axis, evenly thinned."""
    moments = evenly(len(times), LINE_POINTS)
    time, series = wall_time(times)[moments], {"close": close, **dict(zip(names, values.T, strict=True))}
    figure = make_subplots(rows=len(series), shared_xaxes=True, vertical_spacing=0.02)
    for row, (name, column) in enumerate(series.items(), start=1):
        color = GREY if row == 1 else PALETTE[(row - 2) % len(PALETTE)]
        line = go.Scatter(x=time, y=column[moments], line={"color": color, "width": 1.2}, name=name, showlegend=False)
        figure.add_trace(line, row, 1)
        figure.update_yaxes(title_text=name.replace("_", "<br>"), title_font_size=11, row=row)
    figure.update_xaxes(title_text="time (UTC)", row=len(series))
    return figure.update_layout(title=title, height=120 + 110 * len(series))
