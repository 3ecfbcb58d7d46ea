"""Figure of page 02: the longest loop of a window, as candles of the price and as a closed line in the cloud."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cmat_lib.plots.candles import wall_time
from cmat_lib.plots.style import GREY, INK, PALETTE, SEQUENTIAL
from cmat_lib.plots.topology import label_cloud
from cmat_lib.tda.planar import Loop

LAST_EDGE = {"color": PALETTE[1], "width": 2.5, "dash": "dot"}


def loop_on_chart(
    times: pd.DatetimeIndex, values: np.ndarray, cloud: np.ndarray, loop: Loop, delay: int, name: str = "log close"
) -> go.Figure:
    """Which candles of a window draw its loop, and where the loop lies in the cloud.

    Each point of the loop has a colour, which says when it was. Its two candles have it too: a dot marks the earlier
    one, a ring the later one.

    `values`, (W,), are in standard deviations of the window, `cloud`, (P, 2), is their embedding with a delay in
    candles, and `loop` is from `cmat_lib.tda.planar.planar_loops`.
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
    return label_cloud(figure, name, delay)


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
