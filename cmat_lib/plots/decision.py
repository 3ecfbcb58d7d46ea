"""The decision curve of page 05: net return per trade beside acting at random."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

from cmat_lib.evaluation.names import score_name
from cmat_lib.plots.evaluation import score_color
from cmat_lib.plots.style import BESIDE, DASHED, GREY, new_figure

SPREAD = 0.035  # of the logarithm of the share: points of one share stand side by side


def decision_curve(table: pd.DataFrame, cost_pct: float, confidence: float) -> Figure:
    """Net return per trade of acting on the highest scores, and the number of trades behind it.

    The first score of `cmat_lib.evaluation.decision.decision_table` is the model, whose trades the random draws
    imitate; `cost_pct` is the cost of a round trip.
    """
    names = list(table.index.unique("score"))
    figure, (top, bottom) = new_figure(10, 5.6, rows=2, sharex=True, height_ratios=[3, 1])
    model = table.xs(names[0], level="score")
    band = f"random, same symbols and hours\n(mean dotted, {confidence:.0%} grey)"
    top.fill_between(model.index, model["random_low"], model["random_high"], color=GREY, alpha=0.25, label=band)
    top.plot(model.index, model["random_pct"], ":", color=GREY, linewidth=1.5)
    top.axhline(0, **DASHED, label="nothing left after costs")
    for number, name in enumerate(names):
        rows, color = table.xs(name, level="score"), score_color(name)
        shares = rows.index * np.exp(SPREAD * (number - (len(names) - 1) / 2))
        top.vlines(shares, rows["low"], rows["high"], linewidth=2, alpha=0.6, color=color)
        top.plot(shares, rows["net_pct"], "o-", linewidth=1, markersize=5, label=score_name(name), color=color)
        bottom.plot(shares, rows["trades"].where(rows["trades"] > 0), "o-", linewidth=1, markersize=4, color=color)
    top.set(title=f"Net return per trade, costs of {cost_pct:g} % taken off", ylabel="percent per trade", xscale="log")
    top.legend(**BESIDE)
    bottom.set(ylabel="trades", yscale="log", xticks=model.index)
    bottom.set_xlabel("share of the highest scores acted on, border from the month before (log scale)")
    bottom.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    bottom.xaxis.set_major_formatter(PercentFormatter(1))
    bottom.xaxis.set_minor_formatter(NullFormatter())
    return figure
