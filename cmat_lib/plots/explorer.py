"""Explorer of page 06: price and attention through time, and one chosen moment with all that belongs to it.

One Plotly figure with frames and a slider works without a kernel, in an exported page too. Plotly moves no slider by a
click, so a page carries a few lines of script beside the figure. They wait for the mouse to come over a figure whose
layout names moments; when and by whom that was drawn does not matter. JupyterLab runs the scripts of cells that were
executed in the session and of trusted notebooks; elsewhere the slider is left.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from IPython.display import HTML

from cmat_lib.explain.moments import Moment
from cmat_lib.plots.candles import stretches, wall_time
from cmat_lib.plots.style import GREY, GRID, INK, OUTCOME_COLORS, PAPER, SEQUENTIAL, candle_trace, token_color
from cmat_lib.plots.topology import HOMOLOGY_COLORS, HOMOLOGY_NAMES

STRETCHES = 500  # points of a line; more cannot be told apart on a screen
PAST = 336  # points of the close of a topology window, at most: its panel has some 300 pixels
FIRST_MAP = 6  # number of its axes
NUMBERED_TOKENS = 5  # tokens up to which a cell of a map has room for its number
HEIGHT = 1200
ROWS = {"price": (0.87, 1.0), "lines": (0.66, 0.815), "moment": (0.265, 0.46), "maps": (0.0, 0.18)}
PANELS = {"The window that the model saw": 0, "Topology window, its longest loop": 0.37, "Persistence": 0.75}
SLIDER = 0.572  # upper end of the slider, below the range slider of the lines
# With `clickanywhere`, `xvals` says where the click was, on a line or beside it; `d2c` makes milliseconds of a time.
CLICK_SCRIPT = """
document.addEventListener("mouseover", hover => {
  const plot = hover.target.closest?.(".js-plotly-plot");
  if (!plot?.layout?.meta?.moments || plot.cmatClick) return;
  plot.cmatClick = true;
  plot.on("plotly_click", ({xaxes: [axis], xvals: [x]}) => {
    if (axis.type !== "date") return;
    const {meta: {moments}, sliders: [slider]} = plot.layout;
    const away = moments.map(moment => Math.abs(axis.d2c(moment) - axis.d2c(x)));
    const nearest = away.indexOf(Math.min(...away));
    window.Plotly.animate(plot, ...slider.steps[nearest].args);
  });
});
"""


def attention_explorer(
    samples: pd.DataFrame,
    lines: Mapping[str, np.ndarray],
    tokens: Sequence[str],
    moments: Sequence[Moment],
    maps: Mapping[str, tuple[np.ndarray, Sequence[str]]],
    title: str,
) -> go.Figure:
    """Price on top, attention through time below, and a slider that chooses a moment: windows, diagram and maps.

    The N samples, ``timestamp`` and ``close``, are of one symbol, they and the K moments (at least one) in order of
    time; the last moment is shown first. A menu offers the `lines` by name, a series (N, M) per token, from
    `attention_lines`. `maps`: name -> (K, m, m) and the m tokens; a line of a map looks, a column is seen.
    """
    figure = go.Figure(layout=_layout(title, moments, maps))
    _add_time(figure, samples, lines, tokens, moments)
    limits = _limits(samples["close"]), _limits(np.concatenate([line.ravel() for line in lines.values()]))
    drawn = [_moment_traces(moment, limits, maps, k) for k, moment in enumerate(moments)]
    numbers = list(range(len(figure.data), len(figure.data) + len(drawn[0])))  # traces of the chosen moment
    ranges = [{"yaxis3": {"range": _limits(m.window)}, "yaxis5": {"range": _limits(m.past)}} for m in moments]
    figure.add_traces(drawn[-1])
    figure.frames = [
        go.Frame(name=str(k), data=traces, traces=numbers, layout=own)
        for k, (traces, own) in enumerate(zip(drawn, ranges, strict=True))
    ]
    return figure.update_layout(yaxis2_range=limits[1], **ranges[-1])


def _limits(values: pd.DataFrame | pd.Series | np.ndarray) -> list[float]:
    """Ends of an axis, with a margin."""
    low, high = float(np.min(values)), float(np.max(values))
    margin = 0.05 * (high - low) or 0.01
    return [low - margin, high + margin]


def _add_time(figure: go.Figure, samples, lines, tokens, moments) -> None:
    """Traces that stay: price, the moments on it, and a line per token, which the menu gives the values of a view."""
    stretch = stretches(len(samples), STRETCHES)
    last = samples.groupby(stretch).last()
    time = wall_time(last["timestamp"])
    above = {"xaxis": "x2"}  # an axis of its own, so that the range slider below shows the lines only
    price = {"x": time, "y": last["close"], "line": {"color": GREY, "width": 1.2}, "mode": "lines"}
    figure.add_trace(go.Scatter(name="close", showlegend=False, **price, **above))
    for outcome, color in OUTCOME_COLORS.items():
        own = [m for m in moments if m.outcome == outcome]
        at = {"x": wall_time(pd.Series([m.time for m in own])) if own else [], "y": [m.close for m in own]}
        look = {"mode": "markers", "marker": {"color": color, "size": 8}, "legend": "legend", "name": outcome}
        hover = {"text": [m.label for m in own], "hovertemplate": "%{text}<extra></extra>"}
        figure.add_trace(go.Scatter(**hover, **at, **look, **above))
    views = {}  # (M, n) lists
    for name, values in lines.items():
        views[name] = pd.DataFrame(values, dtype=float).groupby(stretch).mean().round(4).T.to_numpy().tolist()
    figure.update_layout(updatemenus=[_menu(views, len(figure.data))])
    for place, (token, line) in enumerate(zip(tokens, next(iter(views.values())), strict=True)):
        look = {"line": {"color": token_color(place), "width": 1.5}, "legend": "legend2", "hovertemplate": "%{y:.3f}"}
        figure.add_trace(go.Scatter(name=token, x=time, y=line, yaxis="y2", mode="lines", **look))
    uniform = {"y0": 1 / len(tokens), "y1": 1 / len(tokens), "x0": 0, "x1": 1, "xref": "x domain", "yref": "y2"}
    figure.add_shape(type="line", line={"color": GREY, "dash": "dash", "width": 1}, **uniform)


def _menu(views: Mapping[str, list], first: int) -> dict:
    """Menu that gives the lines the values of one view; a trace per view would repeat its times on the page."""
    buttons = [
        {"label": f"weights {name}", "method": "restyle", "args": [{"y": y}, list(range(first, first + len(y)))]}
        for name, y in views.items()
    ]
    place = {"x": 0, "xanchor": "left", "y": 1.003, "yanchor": "bottom", "pad": {"b": 0}}
    return {"buttons": buttons, "bgcolor": PAPER, "bordercolor": GREY, "font": {"size": 12}, **place}


def _moment_traces(moment: Moment, limits: Sequence[list[float]], maps, k: int) -> list:
    """Traces of one moment, always in the same order: two cursors, window, diagrams, loop, maps."""
    time = [wall_time(pd.DatetimeIndex([moment.time]))[0]] * 2
    cursor = {"mode": "lines", "line": {"color": INK, "width": 1}, "hoverinfo": "skip", "showlegend": False}
    traces: list = [go.Scatter(x=time, y=limits[0], xaxis="x2", **cursor)]
    traces.append(go.Scatter(x=time, y=limits[1], yaxis="y2", **cursor))
    prices = moment.window.round(3).to_dict("list")
    place = {"xaxis": "x3", "yaxis": "y3", "showlegend": False}
    traces.append(candle_trace(moment.window.index.tolist(), prices, **place))
    for dimension, bars in moment.diagrams.items():
        points = {"x": bars[:, 0].round(3).tolist(), "y": bars[:, 1].round(3).tolist(), "xaxis": "x4", "yaxis": "y4"}
        look = {"mode": "markers", "marker": {"color": HOMOLOGY_COLORS[dimension], "size": 5, "opacity": 0.7}}
        hover = "born %{x:.2f} σ, died %{y:.2f} σ"
        name = {"name": HOMOLOGY_NAMES[dimension], "legend": "legend3", "hovertemplate": hover}
        traces.append(go.Scatter(**points, **look, **name))
    traces += _loop_traces(moment)
    for number, (name, (values, names)) in enumerate(maps.items(), start=FIRST_MAP):
        at = {"x": list(names), "y": list(names), "xaxis": f"x{number}", "yaxis": f"y{number}"}
        text = {"texttemplate": "%{z:.2f}"} if len(names) <= NUMBERED_TOKENS else {}
        hover = f"%{{y}} → %{{x}}: %{{z:.3f}}<extra>{name}</extra>"
        map_ = values[k].astype(float).round(4).tolist()
        traces.append(go.Heatmap(z=map_, coloraxis="coloraxis", hovertemplate=hover, **at, **text))
    return traces


def _loop_traces(moment: Moment) -> list[go.Scatter]:
    """Close of the topology window, the candles of its longest loop on it, and the loop's bar in the diagram."""
    step, loop = -(-len(moment.past) // PAST), moment.loop
    past = moment.past.iloc[(len(moment.past) - 1) % step :: step]  # with the last candle
    close = {"x0": int(past.index[0]), "dx": step, "y": past.round(2).tolist()}
    drawn = {"x": moment.loop_candles.tolist(), "y": moment.past[moment.loop_candles].round(2).tolist()}
    born, died, name = ([loop.birth], [loop.death], "longest loop") if loop else ([], [], "no loop")
    line = {"mode": "lines", "line": {"color": GREY, "width": 1}, "hoverinfo": "skip", "showlegend": False}
    dots = {"mode": "markers", "marker": {"color": HOMOLOGY_COLORS[1], "size": 4}, "showlegend": False}
    ring = {"mode": "markers", "marker": {"color": INK, "size": 11, "symbol": "circle-open"}, "legend": "legend3"}
    hover = {"hovertemplate": "candle %{x}: %{y:.2f} %<extra></extra>"}
    return [
        go.Scatter(**close, **line, xaxis="x5", yaxis="y5"),
        go.Scatter(**drawn, **dots, **hover, xaxis="x5", yaxis="y5"),
        go.Scatter(x=born, y=died, name=name, hoverinfo="skip", **ring, xaxis="x4", yaxis="y4"),
    ]


def _layout(title: str, moments: Sequence[Moment], maps) -> dict:
    """Axes by hand, because rows of different numbers of panels leave room for two sliders between them."""
    top = max(bars.max() for m in moments for bars in m.diagrams.values() if len(bars))
    hidden, (low, high) = {"visible": False}, ROWS["maps"]
    largest = max((float(values.max()) for values, _ in maps.values()), default=1.0)
    bar = {"title": "weight", "y": low, "yanchor": "bottom", "len": high - low, "thickness": 12}
    recent = {"x1": 0, "y0": 0, "y1": 1, "fillcolor": GRID, "opacity": 0.5, "line_width": 0}  # what is on the left
    layout = {
        "title": {"text": title, "y": 0.985, "yanchor": "top"},
        "height": HEIGHT,
        "margin": {"t": 90, "b": 90, "l": 70, "r": 30},
        "hovermode": "closest",
        "clickanywhere": True,
        "meta": {"moments": [str(time) for time in wall_time(pd.DatetimeIndex([m.time for m in moments]))]},
        "xaxis": {"anchor": "y2", "rangeslider": {"thickness": 0.025, "bordercolor": GREY, "borderwidth": 1}},
        "xaxis2": {"anchor": "y", "matches": "x", "showticklabels": False, "ticks": ""},
        "yaxis": {"domain": ROWS["price"], "title": "close", "anchor": "x2"},
        "yaxis2": {"domain": ROWS["lines"], "title": "weight", "anchor": "x"},
        "xaxis3": {"domain": (0, 0.3), "anchor": "y3", "title": "candles from the moment", "rangeslider": hidden},
        "yaxis3": {"domain": ROWS["moment"], "anchor": "x3", "title": "% of the last close"},
        "xaxis4": {"domain": (0.75, 1), "anchor": "y4", "title": "birth (σ)", "range": [-0.03 * top, 1.05 * top]},
        "yaxis4": {"domain": ROWS["moment"], "anchor": "x4", "title": "death (σ)", "range": [-0.03 * top, 1.05 * top]},
        "xaxis5": {"domain": (0.37, 0.68), "anchor": "y5", "title": "candles from the moment"},
        "yaxis5": {"domain": ROWS["moment"], "anchor": "x5", "title": "% of the last close"},
        "legend": {"y": 1.0, "yanchor": "bottom"},
        "legend2": {"orientation": "h", "y": ROWS["lines"][1], "yanchor": "bottom", "x": 1, "xanchor": "right"},
        "legend3": {"x": 1, "xanchor": "right", "y": ROWS["moment"][0], "yanchor": "bottom", "font": {"size": 11}},
        # One scale for the maps of all moments, so that a change of colour is a change of weight.
        "coloraxis": {"colorscale": SEQUENTIAL, "cmin": 0, "cmax": largest, "colorbar": bar},
        "sliders": [_slider([moment.label for moment in moments])],
        "annotations": [_heading(text, x, ROWS["moment"][1]) for text, x in PANELS.items()],
        "shapes": [
            {"type": "line", "xref": "x4", "yref": "y4", "x0": 0, "y0": 0, "x1": top, "y1": top, "line_color": GREY},
            {"type": "rect", "xref": "x5", "yref": "y5 domain", "x0": int(moments[0].window.index[0]), **recent},
        ],
    }
    width = 1 / max(len(maps), 3)
    for number, name in enumerate(maps, start=FIRST_MAP):
        start, end = (number - FIRST_MAP) * width + 0.085, (number - FIRST_MAP + 1) * width - 0.005
        axis = {"ticks": "", "showgrid": False, "tickfont": {"size": 11}}
        square = {"scaleanchor": f"x{number}", "constrain": "domain", "constraintoward": "top"}
        below = {"domain": (start, end), "anchor": f"y{number}", "tickangle": -90, "constrain": "domain"}
        left = {"domain": ROWS["maps"], "anchor": f"x{number}", "autorange": "reversed"}
        layout |= {f"xaxis{number}": below | axis, f"yaxis{number}": left | square | axis}
        layout["annotations"].append(_heading(name, (start + end) / 2, ROWS["maps"][1], "center"))
    return layout


def _heading(text: str, x: float, y: float, anchor: str = "left") -> dict:
    place = {"x": x, "y": y, "xref": "paper", "yref": "paper", "xanchor": anchor, "yanchor": "bottom"}
    return {"text": f"<b>{text}</b>", "showarrow": False, **place}


def _slider(labels: Sequence[str]) -> dict:
    jump = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    steps = [{"label": text, "method": "animate", "args": [[str(k)], jump]} for k, text in enumerate(labels)]
    place = {"x": 0, "len": 1, "y": SLIDER, "yanchor": "top", "pad": {"t": 0, "b": 0}}
    look = {"currentvalue": {"prefix": "Moment: ", "font": {"size": 14, "color": INK}}}
    look["font"] = {"color": "rgba(0, 0, 0, 0)", "size": 1}  # sixty labels below the rail would only be a smear
    return {"steps": steps, "active": len(labels) - 1, "ticklen": 4, "minorticklen": 0, **place, **look}


def click_script() -> HTML:
    """The script, to be displayed once on a page, before or after the figures."""
    return HTML(f"<script>{CLICK_SCRIPT}</script>")
