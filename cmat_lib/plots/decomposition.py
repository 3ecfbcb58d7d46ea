"""What the N-BEATS stacks take out of a window, drawn over its candles."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cmat_lib.plots.style import GREY, PALETTE, PAPER, candle_trace


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
