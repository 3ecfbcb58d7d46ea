"""What the N-BEATS stacks take out of a window, drawn over its candles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cmat_lib.plots.style import GREY, PALETTE


def decomposition_over_candles(
    window: pd.DataFrame, parts: np.ndarray, rest: np.ndarray, stacks: Sequence[str], title: str
) -> go.Figure:
    """Candles with the sum of the first stacks over them, and each stack's own part below.

    Parameters
    ----------
    window : DataFrame of T rows
        open, high, low, close in percent of the last close; index: candles from the sample's own, which is 0.
    parts : ndarray, shape (S, T)
        What each stack takes out of the log close, in log price; the last log close is 0.
    rest : ndarray, shape (T,)
        What no stack takes; parts and rest sum to the log close. Its mean, a constant that no stack can take, is added
        to the sums, so that they lie on the candles.
    stacks : sequence of str, length S
    """
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.55, 0.45], vertical_spacing=0.08)
    step = window.index.to_numpy()
    up, down = ({"line": {"color": color, "width": 1}, "fillcolor": color} for color in ("#ffffff", GREY))
    for look in (up, down):
        look["line"] = {"color": GREY, "width": 1}
    prices = {name: window[name] for name in ("open", "high", "low", "close")}
    candles = go.Candlestick(x=step, **prices, increasing=up, decreasing=down, name="candle", showlegend=False)
    figure.add_trace(candles, 1, 1)
    sums = np.cumsum(parts, axis=0) + rest.mean()
    for number, name in enumerate(stacks):
        color = PALETTE[number % len(PALETTE)]
        label = name if number == 0 else f"… + {name}"
        line = {"x": step, "mode": "lines", "legendgroup": name, "hovertemplate": "%{y:.2f} %"}
        total = 100 * np.expm1(sums[number])  # log price to percent, as the candles have it
        figure.add_trace(go.Scatter(y=total, name=label, line={"color": color, "width": 2}, **line), 1, 1)
        own = {"name": name, "line": {"color": color, "width": 1.5}, "showlegend": False}
        figure.add_trace(go.Scatter(y=100 * parts[number], **own, **line), 2, 1)
    left = {"name": "left over", "line": {"color": GREY, "width": 1, "dash": "dot"}}
    figure.add_trace(
        go.Scatter(x=step, y=100 * (rest - rest.mean()), mode="lines", hovertemplate="%{y:.2f} %", **left), 2, 1
    )
    figure.update_yaxes(title_text="% of the last close", row=1)
    figure.update_yaxes(title_text="each part (log price, %)", row=2)
    figure.update_xaxes(title_text="candles before the sample's own (0)", row=2)
    return figure.update_layout(title=title, height=560, xaxis_rangeslider_visible=False)
