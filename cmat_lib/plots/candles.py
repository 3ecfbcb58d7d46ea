"""Figures of page 01: candles, channels, labels, look-backs; and, of page 06, what the N-BEATS stacks take out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from plotly.subplots import make_subplots

from cmat_lib.plots.style import DIVERGING, GREY, PALETTE, PAPER, SEQUENTIAL, candle_trace, name_rows, new_figure

GROUP_COLORS = {"price": PALETTE[0], "volume": PALETTE[4], "technical": PALETTE[2]}
ANNOTATED_MONTHS = 18  # more columns than this leave no room for numbers


def wall_time(times: pd.DatetimeIndex | pd.Series) -> pd.DatetimeIndex:
    """Times without their zone (all are UTC), as the plotting libraries like them."""
    return pd.DatetimeIndex(times).tz_convert(None)


def evenly(count: int, limit: int) -> np.ndarray:
    """At most `limit` evenly spaced numbers out of 0 to ``count - 1``, both ends included, int64."""
    return np.linspace(0, count - 1, min(count, limit)).astype(np.int64)


def stretches(count: int, limit: int) -> np.ndarray:
    """Number of the stretch, of at most `limit` about equally long ones, in which each of `count` rows lies."""
    return np.arange(count) * min(count, limit) // count


def candlestick(candles: pd.DataFrame, trigger: pd.Series, title: str) -> go.Figure:
    """A few hundred candles to hover and zoom, volume below, and a mark under each whose trigger is 1, not 0 or NaN."""
    time, marked = wall_time(candles.index), (trigger == 1).to_numpy()
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.78, 0.22], vertical_spacing=0.03)
    figure.add_trace(candle_trace(time, candles), 1, 1)
    look = {"mode": "markers", "marker": {"symbol": "triangle-up", "size": 8, "color": PALETTE[2]}}
    below = {"x": time[marked], "y": candles["low"][marked]}
    figure.add_trace(go.Scatter(name="trigger after this close", **below, **look), 1, 1)
    figure.add_trace(go.Bar(x=time, y=candles.get("volume"), marker_color=GREY, name="volume", showlegend=False), 2, 1)
    figure.update_layout(yaxis_title="price", yaxis2_title="volume", xaxis2_title="candle open (UTC)")
    return figure.update_layout(title=title, height=520, xaxis_rangeslider_visible=False)


def model_window(window: np.ndarray, names: Sequence[str], bar: pd.Timedelta, title: str) -> go.Figure:
    """One window of scaled channels, (T, C): price channels as lines, all channels as a heat map."""
    hours = np.arange(1 - len(window), 1) * (bar / pd.Timedelta("1h"))
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.35, 0.65], vertical_spacing=0.04)
    for column, name in enumerate(names):
        if name.startswith("log_"):
            figure.add_trace(go.Scatter(x=hours, y=window[:, column], mode="lines", line_width=1.5, name=name), 1, 1)
    bar_style = {"title": "scaled", "len": 0.65, "y": 0, "yanchor": "bottom"}
    colors = {"colorscale": DIVERGING, "zmid": 0, "zmin": -3, "zmax": 3, "colorbar": bar_style}
    hover = "%{y}: %{z:.2f}<extra></extra>"
    figure.add_trace(go.Heatmap(x=hours, y=list(names), z=window.T, hovertemplate=hover, **colors), 2, 1)
    figure.update_yaxes(autorange="reversed", showgrid=False, row=2)
    figure.update_layout(yaxis_title="scaled log price", xaxis2_title="hours before the sample's close")
    return figure.update_layout(title=title, height=300 + 24 * len(names), hovermode="closest")


def channel_distribution(values: np.ndarray, names: Sequence[str], groups: Sequence[str]) -> Figure:
    """Box per scaled channel, (n, C), in the colour of its group: quartiles, whiskers at 1st and 99th percentile."""
    figure, (axes,) = new_figure(9, 1.2 + 0.32 * len(names))
    colors = [GROUP_COLORS.get(group, GREY) for group in groups]
    low, first, middle, third, high = np.quantile(values, (0.01, 0.25, 0.5, 0.75, 0.99), axis=0)  # (C,) each
    rows = np.arange(len(names))
    axes.hlines(rows, low, high, color=GREY, linewidth=1.5, zorder=1)
    axes.barh(rows, third - first, left=first, height=0.6, color=colors, zorder=2)
    axes.scatter(middle, rows, marker="|", s=160, color="black", zorder=3)
    name_rows(axes, names)
    axes.grid(axis="y", visible=False)
    axes.set_title("Channels as the model gets them (boxes: quartiles, whiskers: 1 % to 99 %)")
    axes.set_xlabel("scaled value: 1 is the interquartile range of the training part")
    used = [group for group in GROUP_COLORS if group in groups]
    axes.legend(handles=[Patch(color=GROUP_COLORS[group], label=group) for group in used], loc="best")
    return figure


def base_rates(labels: dict[str, pd.DataFrame]) -> Figure:
    """Share of triggers (0, 1 or NaN) per symbol and calendar month; labels have the index `timestamp`."""
    rates = {s: frame["trigger"].groupby(frame.index.strftime("%Y-%m")).mean() for s, frame in labels.items()}
    table = pd.DataFrame(rates).T
    figure, (axes,) = new_figure(9, 1.6 + 0.42 * len(labels))
    numbers = {"annot": table.shape[1] <= ANNOTATED_MONTHS, "fmt": ".1%", "annot_kws": {"size": 8}}
    scale = {"format": PercentFormatter(1, decimals=0), "label": "share of triggers"}
    sns.heatmap(table, cmap=SEQUENTIAL, vmin=0, linewidths=0.5, cbar_kws=scale, ax=axes, **numbers)
    axes.set(title="How often the price rises far enough", xlabel="month (UTC)", ylabel="")
    axes.tick_params(axis="x", rotation=45)
    axes.tick_params(axis="y", rotation=0)
    return figure


def rise_distribution(max_pct: np.ndarray, trigger: np.ndarray, threshold: float | None) -> Figure:
    """Histogram of the largest rises (percent, no NaN), split by trigger; no `threshold` if it is not one number."""
    low, high = np.quantile(max_pct, (0.0, 0.999))
    figure, (axes,) = new_figure(9, 4)
    groups = [np.clip(max_pct[trigger == value], low, high) for value in (0, 1)]
    style = {"label": ["no trigger", "trigger"], "color": PALETTE[:2], "stacked": True, "linewidth": 0}
    axes.hist(groups, bins=np.linspace(low, high, 81), log=True, **style)
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label=f"threshold {threshold:g} %")
    axes.set(title="Largest rise within the horizon", ylabel="rows (log scale)")
    axes.set_xlabel("max_pct in % of the close (the highest 0.1 % of rows in the last bar)")
    axes.legend()
    return figure


def look_backs(candles: dict[str, int], horizon: int, bar: pd.Timedelta) -> Figure:
    """How many candles each input of a sample reads before its close, its own included, and its label after it."""
    widths, days = candles | {"label": horizon}, bar / pd.Timedelta("1D")
    starts = [*(-count * days for count in candles.values()), 0]
    figure, (axes,) = new_figure(9, 1.1 + 0.4 * len(widths))
    colors = [PALETTE[0]] * len(candles) + [PALETTE[1]]
    bars = axes.barh(list(widths), [width * days for width in widths.values()], left=starts, color=colors, height=0.6)
    axes.bar_label(bars, [f"{width:,} candles" for width in widths.values()], padding=4, fontsize=9)
    axes.axvline(0, color="black", linewidth=1)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(title="What one sample reads", xlabel="days before (−) and after (+) the sample's close")
    return figure


def decomposition_over_candles(
    window: pd.DataFrame, parts: np.ndarray, rest: np.ndarray, stacks: Sequence[str], title: str
) -> go.Figure:
    """Candles with the sum of the first stacks over them, and each stack's own part below.

    `window` are T candles in percent of the last close, by their distance from the sample's own, 0. Parts (S, T) of the
    S stacks and the rest (T,), in log price, sum to the log close over the last one. The mean of the rest, a constant
    that no stack can take, is added to the sums, so that they lie on the candles.
    """
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.55, 0.45], vertical_spacing=0.08)
    step = window.index.to_numpy()
    figure.add_trace(candle_trace(step, window, PAPER, GREY, line=GREY, showlegend=False), 1, 1)
    sums = np.cumsum(parts, axis=0) + rest.mean()
    shared = {"x": step, "mode": "lines", "hovertemplate": "%{y:.2f} %"}
    for number, name in enumerate(stacks):
        color, label = PALETTE[number % len(PALETTE)], name if number == 0 else f"… + {name}"
        total = 100 * np.expm1(sums[number])  # log price to percent, as the candles have it
        look = {"line_color": color, "legendgroup": name} | shared
        figure.add_trace(go.Scatter(y=total, name=label, line_width=2, **look), 1, 1)
        figure.add_trace(go.Scatter(y=100 * parts[number], name=name, line_width=1.5, showlegend=False, **look), 2, 1)
    look = {"name": "left over", "line": {"color": GREY, "width": 1, "dash": "dot"}}
    figure.add_trace(go.Scatter(y=100 * (rest - rest.mean()), **look, **shared), 2, 1)
    figure.update_layout(yaxis_title="% of the last close", yaxis2_title="each part (log price, %)")
    figure.update_layout(xaxis2_title="candles before the sample's own (0)", xaxis_rangeslider_visible=False)
    return figure.update_layout(title=title, height=560)
