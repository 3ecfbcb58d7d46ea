"""Figures of page 05: curves, calibration, gap, scores over time, decision (intervals stand apart)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter
from plotly.subplots import make_subplots
from sklearn.metrics import precision_recall_curve, roc_curve

from cmat_lib.evaluation.breakdown import ORACLE, outcomes
from cmat_lib.evaluation.metrics import score_arrays
from cmat_lib.evaluation.names import metric_name, score_name
from cmat_lib.plots.candles import evenly, stretches, wall_time
from cmat_lib.plots.style import DASHED, GREY, OUTCOME_COLORS, PALETTE, SEQUENTIAL, headline, new_figure, time_axis

SCORE_COLORS = {"probability": PALETTE[0], "volatility": PALETTE[4], "trees": PALETTE[2], "momentum": PALETTE[3]}
SCORE_COLORS[ORACLE] = GREY
BESIDE = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}  # a legend right of its panel
SHOWN = 0.995  # quantile of the realised rise that still fits the picture
MARKED = ("false alarm", "miss", "hit")  # outcomes with a mark on the price; later ones lie on top
LINE_STRETCHES = 1500  # of a line; more cannot be told apart on a screen
MARKS_PER_OUTCOME = 600  # of each outcome
MAX_BUTTONS = 6  # more symbols fit a list only
SPREAD = 0.035  # of the logarithm of the share: points of one share stand side by side
GROUP_UNITS = {
    "hour of day": "hour of day (UTC)",
    "volatility decile": "tenth of trailing volatility, each symbol by its own (1: quietest)",
}


def score_color(score: str) -> str:
    """Colour of a score column, the same in all figures of page 05."""
    return SCORE_COLORS.get(score, PALETTE[5])


def no_skill(metric: str, base_rate: float) -> float:
    """Score that is reached without knowing anything but the base rate; NaN where it depends on the alarms."""
    name, _, share = metric.partition("_top_")
    if name == "recall":
        return float(share) / 100 if share else np.nan
    known = {"roc_auc": 0.5, "brier": base_rate * (1 - base_rate), "lift": 1.0, "alarm_share": np.nan}
    return known.get(name, 0.0 if name in ("mcc", "brier_skill", "ece") else base_rate)


def gap_chart(gap: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """The model's scores in every part (from `gap_table`), symbols pooled, each over its own no-skill line."""
    parts = [column for column in gap if column not in ("gap", "relative_gap")]
    figure, panels = new_figure(3.2 * len(metrics), 3.2, columns=len(metrics))
    for axes, metric in zip(panels, metrics, strict=True):
        reference = [no_skill(metric, rate) for rate in gap.loc[("pooled", "base_rate"), parts]]
        axes.plot(parts, gap.loc[("pooled", metric), parts], "o-", color=PALETTE[0], label="model")
        axes.plot(parts, reference, **DASHED, label="no skill")
        axes.set_title(metric_name(metric), fontsize=11)
        axes.tick_params(axis="x", rotation=30)
    axes.legend()
    headline(figure, "From training to test: what was learned by heart is lost")
    return figure


def roc_and_pr(test: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """ROC curves and precision-recall curves, symbols pooled."""
    figure, (roc, pr) = new_figure(10, 4.4, columns=2)
    base_rate, highest = test["trigger"].mean(), 0.0
    for name in columns:
        trigger, ranking, _ = score_arrays(test, name)
        style = {"color": score_color(name), "label": score_name(name), "linewidth": 1.6}
        false_alarms, recall, _ = roc_curve(trigger, ranking)
        roc.plot(false_alarms, recall, **style)
        precision, recall, _ = precision_recall_curve(trigger, ranking)
        pr.plot(recall[:-1], precision[:-1], drawstyle="steps-pre", **style)  # the last point belongs to no threshold
        # The first few alarms jump between 0 and 1 and must not stretch the axis.
        highest = max(highest, np.max(precision[:-1][recall[:-1] >= 0.02], initial=base_rate))
    roc.plot([0, 1], [0, 1], **DASHED)
    pr.axhline(base_rate, **DASHED, label=f"base rate {base_rate:.1%}")
    roc.set(title="ROC", xlabel="share of quiet candles that raise an alarm", ylabel="share of triggers found")
    pr.set(title="Precision and recall", xlabel="share of triggers found", ylabel="share of alarms that are right")
    pr.set_ylim(0, min(1.0, 1.15 * highest))
    pr.legend(loc="upper right")
    return figure


def reliability(tables: Mapping[str, pd.DataFrame], confidence: float) -> Figure:
    """Probability against the observed share of triggers, a panel per title and its `reliability_table`."""
    figure, panels = new_figure(5 * len(tables), 4.6, columns=len(tables))
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        end = 1.1 * table[["predicted", "observed", "high"]].max().max()
        axes.plot([0, end], [0, end], **DASHED, label="says what happens")
        axes.vlines(table["predicted"], table["low"], table["high"], color=PALETTE[0], linewidth=2, alpha=0.6)
        axes.scatter(table["predicted"], table["observed"], s=60, color=PALETTE[0], label="tenths of the samples")
        error = np.average((table["predicted"] - table["observed"]).abs(), weights=table["n"])
        axes.set(title=f"{title}: calibration error {error:.4f}", xlim=(0, end), ylim=(0, end))
        axes.set(xlabel="mean probability", ylabel=f"observed share of triggers, intervals of {confidence:.0%}")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="upper left")
    return figure


def auc_curves(table: pd.DataFrame, confidence: float) -> Figure:
    """ROC-AUC in groups of rows over their base rates, from `cmat_lib.evaluation.breakdown.auc_by_group`."""
    group, names = table.index.names[0], list(table.index.unique("score"))
    figure, (top, bottom) = new_figure(10, 4.4, rows=2, sharex=True, height_ratios=[3, 1])
    for name in names:
        rows, style = table.xs(name, level="score"), {"color": score_color(name), "label": score_name(name)}
        top.plot(rows.index, rows["value"], "o-", linewidth=1.6, markersize=4, **style)
    model = table.xs(names[0], level="score")
    band = f"{score_name(names[0])}, interval of {confidence:.0%}"  # three bands would hide each other
    top.fill_between(model.index, model["low"], model["high"], color=score_color(names[0]), alpha=0.15, label=band)
    top.axhline(0.5, **DASHED, label="chance")
    top.set(title=f"ROC-AUC by {group}, symbols pooled", ylabel="ROC-AUC")
    top.legend(**BESIDE)
    is_time = isinstance(model.index, pd.DatetimeIndex)
    step = (model.index[1] - model.index[0]) / (pd.Timedelta("1D") if is_time else 1) if len(model) > 1 else 1
    bottom.bar(model.index, model["base_rate"], width=0.8 * step, color=GREY)
    bottom.set(ylabel="base rate", xlabel=f"start of the {group} (UTC)" if is_time else GROUP_UNITS.get(group, group))
    bottom.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if is_time:
        time_axis(bottom)
    return figure


def precision_curve(table: pd.DataFrame, base_rate: float, top_shares: Sequence[float]) -> Figure:
    """Precision among the highest scores, from a few alarms to all rows; the table is `precision_by_share`'s."""
    figure, (axes,) = new_figure(9, 4)
    for name in table:
        axes.plot(table.index, table[name], linewidth=1.8, color=score_color(name), label=score_name(name))
    axes.axhline(base_rate, **DASHED, label=f"base rate {base_rate:.1%}")
    for number, share in enumerate(top_shares):
        axes.axvline(share, **DASHED | {"linestyle": ":"}, label=None if number else "shares of the score table")
    axes.set(title="Precision among the highest scores", xscale="log", ylabel="share of triggers among them")
    axes.set_xlabel("share of all candles that raise an alarm (log scale)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.legend(**BESIDE)
    return figure


def predicted_and_realised(test: pd.DataFrame) -> Figure:
    """Predicted against realised largest rise, in percent: samples as a cloud, medians and quartiles per tenth."""
    predicted, realised = test["predicted_max_pct"], test["max_pct"]
    group = (predicted.rank(method="first") - 1) * 10 // len(test)
    middle = predicted.groupby(group).median()
    low, median, high = (realised.groupby(group).quantile(share) for share in (0.25, 0.5, 0.75))
    shown = realised <= realised.quantile(SHOWN)
    figure, (axes,) = new_figure(9, 5)
    cells = axes.hexbin(predicted[shown], realised[shown], gridsize=45, bins="log", cmap=SEQUENTIAL, mincnt=1)
    figure.colorbar(cells, ax=axes, label="samples (log scale)")
    axes.fill_between(middle, low, high, color=PALETTE[1], alpha=0.35, label="realised quartiles")
    axes.plot(middle, median, "o-", color=PALETTE[1], label="realised median of each tenth")
    ends = [predicted.min(), predicted.max()]
    axes.plot(ends, ends, **DASHED | {"linewidth": 1.5}, label="predicted = realised")
    correlation = predicted.corr(realised, method="spearman")
    axes.set(title=f"Largest rise in the horizon: rank correlation {correlation:.2f}")
    axes.set(xlabel="predicted (%)", ylabel=f"realised (%), up to the {SHOWN:.1%} quantile")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def decision_curve(table: pd.DataFrame, cost_pct: float, confidence: float) -> Figure:
    """Net return per trade of acting on the highest scores, and the number of trades, from a `decision_table`.

    Its first score is the model, whose trades the random draws imitate; `cost_pct` is the cost of a round trip.
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
