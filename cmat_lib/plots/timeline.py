"""What the model said, under the price: a Plotly view with one menu entry per symbol."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cmat_lib.evaluation.breakdown import outcomes
from cmat_lib.plots.candles import evenly, stretches, wall_time
from cmat_lib.plots.style import GREY, OUTCOME_COLORS, PALETTE

MARKED = ("false alarm", "miss", "hit")  # outcomes with a mark on the price; later ones lie on top
LINE_STRETCHES = 1500  # of a line; more cannot be told apart on a screen
MARKS_PER_OUTCOME = 600  # of each outcome
MAX_BUTTONS = 6  # more symbols fit a list only


def probability_and_price(test: pd.DataFrame, threshold: float) -> go.Figure:
    """Close with hits, false alarms and misses marked, and the probability below it with its threshold.

    Of each stretch of a long series the probability shows the highest, so that no alarm is lost, the price the last.
    """
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.6, 0.4], vertical_spacing=0.04)
    symbols = list(test["symbol"].unique())
    for number, symbol in enumerate(symbols):  # each has equally many traces, in order
        _add_symbol(figure, test[test["symbol"] == symbol].sort_values("timestamp"), threshold, number == 0)
    figure.add_hline(threshold, row=2, line={"color": GREY, "dash": "dash", "width": 1})
    figure.update_yaxes(tickformat=".0%", rangemode="tozero", row=2)
    figure.update_layout(yaxis_title="close", yaxis2_title="probability", xaxis2_title="candle open (UTC)")
    title = "Probability of a trigger, and what came of it (dashed: threshold)"
    figure.update_layout(title=title, height=560, margin={"t": 100})
    return figure.update_layout(updatemenus=[_menu(symbols, len(figure.data))] if len(symbols) > 1 else [])


def _add_symbol(figure: go.Figure, rows: pd.DataFrame, threshold: float, visible: bool) -> None:
    outcome = outcomes(rows["trigger"], rows["probability"], threshold)
    stretch = stretches(len(rows), LINE_STRETCHES)
    last, highest = rows.groupby(stretch).last(), rows.groupby(stretch)["probability"].max()
    line = {"x": wall_time(last["timestamp"]), "mode": "lines", "visible": visible, "showlegend": False}
    figure.add_trace(go.Scatter(y=last["close"], line={"color": GREY, "width": 1.2}, name="close", **line), 1, 1)
    style = {"line": {"color": PALETTE[0], "width": 1.2}, "hovertemplate": "%{y:.1%}", "name": "probability"}
    figure.add_trace(go.Scatter(y=highest, **style, **line), 2, 1)
    for name in MARKED:
        marked = rows[outcome == name]
        marked = marked.iloc[evenly(len(marked), MARKS_PER_OUTCOME)]
        symbol = "x" if name == "miss" else "circle"
        marker = {"color": OUTCOME_COLORS[name], "size": 6, "symbol": symbol, "opacity": 0.8}
        shown = {"visible": visible, "name": name, "mode": "markers", "marker": marker}
        figure.add_trace(go.Scatter(x=wall_time(marked["timestamp"]), y=marked["close"], **shown), 1, 1)


def _menu(symbols: Sequence[str], traces: int) -> dict:
    """Menu that shows the traces of one symbol."""
    owner = np.repeat(np.arange(len(symbols)), traces // len(symbols))
    buttons = [
        {"label": symbol, "method": "update", "args": [{"visible": (owner == n).tolist()}]}
        for n, symbol in enumerate(symbols)
    ]
    few = len(symbols) <= MAX_BUTTONS
    kind = {"type": "buttons", "direction": "right"} if few else {"type": "dropdown", "direction": "down"}
    place = {"x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    return {"buttons": buttons, "bgcolor": "rgba(128, 128, 128, 0.15)", "bordercolor": GREY, **kind, **place}
