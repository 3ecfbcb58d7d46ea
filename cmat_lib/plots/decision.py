"""The decision curve of page 05: net return per trade beside acting at random."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from cmat_lib.evaluation.names import score_name
from cmat_lib.plots.evaluation import SCORE_COLORS
from cmat_lib.plots.style import GREY, PALETTE

SPREAD = 0.035  # of the logarithm of the share: points of one share stand side by side


def decision_curve(table: pd.DataFrame, cost_pct: float, confidence: float) -> Figure:
    """Net return per trade of acting on the highest scores, and the number of trades behind it.

    Parameters
    ----------
    table : DataFrame
        Index (score, share); from `cmat_lib.evaluation.decision.decision_table`. The first score is the model, whose
        trades the random draws imitate.
    cost_pct : float
        Cost of a round trip, in percent.
    """
    names = list(table.index.unique("score"))
    figure = Figure(figsize=(10, 5.6))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    model = table.xs(names[0], level="score")
    band = f"random, same symbols and hours\n(mean dotted, {confidence:.0%} grey)"
    top.fill_between(model.index, model["random_low"], model["random_high"], color=GREY, alpha=0.25, label=band)
    top.plot(model.index, model["random_pct"], ":", color=GREY, linewidth=1.5)
    top.axhline(0, linestyle="--", color=GREY, linewidth=1, label="nothing left after costs")
    for number, name in enumerate(names):
        rows = table.xs(name, level="score")
        shares = rows.index * np.exp(SPREAD * (number - (len(names) - 1) / 2))
        style = {"color": SCORE_COLORS.get(name, PALETTE[5])}
        top.vlines(shares, rows["low"], rows["high"], linewidth=2, alpha=0.6, **style)
        top.plot(shares, rows["net_pct"], "o-", linewidth=1, markersize=5, label=score_name(name), **style)
        bottom.plot(shares, rows["trades"].where(rows["trades"] > 0), "o-", linewidth=1, markersize=4, **style)
    top.set(title=f"Net return per trade, costs of {cost_pct:g} % taken off", ylabel="percent per trade", xscale="log")
    top.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    bottom.set(
        ylabel="trades",
        yscale="log",
        xlabel="share of the highest scores acted on, border from the month before (log scale)",
    )
    bottom.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    bottom.set_xticks(model.index)
    bottom.xaxis.set_major_formatter(PercentFormatter(1))
    bottom.xaxis.set_minor_formatter(NullFormatter())
    return figure
