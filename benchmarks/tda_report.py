"""Text and figure of ``results/tda.md`` and ``results/tda.png``."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from reporting import markdown
from tda_clouds import CONFIG, POINTS
from tda_tables import BEFORE, GEOPH, OURS, TRUTH

from cmat_lib.plots.style import PALETTE, use_style

NOT_REAL = ("synthetic market", "random walk")

Tables = dict[str, pd.DataFrame]


class Goal:
    """A figure that is wanted, and whether it was reached."""

    def __init__(self, text: str, value: float, bound: float, form: str = "{:.1f}", at_most: bool = False) -> None:
        self.met = value <= bound if at_most else value >= bound
        relation = "at most" if at_most else "at least"
        verdict = "met" if self.met else "**missed**"
        self.line = f"- {text}: {form.format(value)}, wanted {relation} {form.format(bound)}: {verdict}."


def real(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of real candles; all rows where there are none."""
    names = pd.Index(table.get("cloud", table.index))
    return table[~names.isin(NOT_REAL)] if (~names.isin(NOT_REAL)).any() else table


def goals(tables: Tables) -> list[Goal]:
    """What the engine promises, and what was measured; ratios of sums over the symbols."""
    windows, slides, shapes = real(tables["windows"]), real(tables["sliding"]), tables["shapes"]["better / scratch"]
    spent = windows.groupby("engine")["ms"].sum()
    found = []
    if GEOPH in spent:
        found.append(Goal("from scratch on real windows, times geoph", spent[GEOPH] / spent[OURS], 2.5))
    if shapes.notna().any():
        worst = f"the better of {BEFORE} and {GEOPH} against scratch, worst of {len(shapes)} shapes ({shapes.idxmin()})"
        found.append(Goal(worst, shapes.min(), 1.0, "{:.2f}"))
    if BEFORE in slides:
        ratio = slides[BEFORE].sum() / slides["stride 1"].sum()
        found.append(Goal(f"sliding at stride 1, times {BEFORE}", ratio, 100.0, "{:.0f}"))
    vectors = real(tables["features"])["vectors a second, stride 1"].min()
    found.append(Goal("whole vectors a second on one core, worst symbol", vectors, 10_000, "{:,.0f}"))
    power = tables["growth"].loc[("random", OURS), "exponent"]
    if pd.notna(power):
        found.append(Goal("growth on random points, as a power of n log n", power, 1.05, "{:.2f}", at_most=True))
    for column, what in {"surplus": "compiled part", "surplus of the call": "whole call"}.items():
        surplus = real(tables["loops"])[column].median()
        found.append(Goal(f"loops of bars, surplus of the {what}", surplus, 0.2, "{:.0%}", at_most=True))
    exact = windows[windows["engine"].isin([TRUTH, "giotto-tda"])][["H0 difference", "H1 difference"]].max().max()
    found.append(Goal("difference to giotto-ph and giotto-tda in σ", exact, 1e-5, "{:.0e}", at_most=True))
    return found + [
        Goal(f"`{name}`, seconds", row["wall s"], 60.0, "{:.0f}", at_most=True)
        for name, row in tables.get("commands", pd.DataFrame()).iterrows()
    ]


def text_of(value: object, form: str) -> str:
    """A cell: a number in its form, a failure as it is, nothing where nothing was measured."""
    return value if isinstance(value, str) else "" if pd.isna(value) else form.format(value)


def table_of(table: pd.DataFrame, forms: dict[str, str], default: str = "{:.3g}") -> str:
    """Markdown of a table whose cells may be failures or missing."""
    table = table.reset_index() if any(table.index.names) else table
    cells = {n: [text_of(v, forms.get(n, default)) for v in table[n]] for n in table.columns}
    return markdown(pd.DataFrame(cells), {})


def report(tables: Tables, before: str) -> str:
    """Text of ``tda.md``."""
    slower = tables["shapes"]["better / scratch"] < 1
    parts = [
        "# Persistence engines",
        before,
        "Made by `python benchmarks/tda.py` (options: see its head; real candles: with CMAT_TEST_DATA set to their "
        "folder). CPU time of one thread, medians, engines in turns, after a warm-up; a window has 672 candles, that "
        f"is {POINTS} points. *{OURS}* is this engine, one window by itself; *stride k* is this engine sliding "
        "by k candles. Differences are bottleneck distances in standard deviations of the window (σ); giotto-tda and "
        "giotto-ph compute in single precision. Weak alpha is another filtration, so its H1 must differ.",
        "## Goals",
        "\n".join(goal.line for goal in goals(tables)),
        "## Windows from scratch",
        f"Differences are to *{OURS}*. *H1 bars lost* are bars longer than 1e-4 σ that an engine does not have.",
        table_of(tables["windows"], {"ms": "{:.2f}", "H0 difference": "{:.0e}", "H1 difference": "{:.0e}"}),
        "## Windows that slide",
        f"Milliseconds a window; {BEFORE}, {GEOPH} and {OURS} on some of the same windows. *Stride k* gives flat bars, "
        "as the features take them, *lists* arrays of each window (`sliding_diagrams`). *Same bytes*: whether the "
        f"diagrams of all strides are those of *{OURS}* to the last bit.",
        table_of(tables["sliding"], {f"stride {k}": "{:.3f}" for k in ("1", "4", "16", "1, lists")}),
        "## Feature vectors",
        f"{CONFIG.feature_dim} features of each window; alone, with their diagrams at stride 1, and from scratch.",
        table_of(tables["features"], {"features alone, µs": "{:.1f}"}, "{:,.0f}"),
        "Through the feature cache, from nothing, on disk at the end; wall clock, unless said otherwise:",
        table_of(tables["cache"], {}, "{:,.0f}"),
        "## Loops of bars",
        "Medians over the windows above, in microseconds. The compiled part finds the points around each loop; the "
        "call makes an object of each, with the edge that ends it.",
        table_of(tables["loops"], {"surplus": "{:.1%}", "surplus of the call": "{:.0%}"}, "{:.0f}"),
        "## Shapes that are meant to be hard",
        f"{len(slower)} clouds of as many points. *better / scratch* is the better of {BEFORE} and {GEOPH} against "
        f"{OURS}: below 1 in {int(slower.sum())} of them. *Against giotto-ph*: the larger bottleneck distance of H0 "
        "and H1 in σ of the cloud, and bars of H1 that are lost.",
        table_of(tables["shapes"], {}),
        "## Growth with the number of points",
        "Milliseconds; the exponent is the power of n log n with which they grow from 660 points on.",
        table_of(tables["growth"], {"exponent": "{:.2f}"}, "{:.2f}"),
        "Memory of a process of its own:",
        table_of(tables["memory"], {"points": "{:,}"}, "{:.0f}"),
    ]
    if "commands" in tables:
        parts += [
            "## Commands",
            "Four symbols of 2025 at every candle, topology and complexity, all cores; `predict` from September on "
            "with a model of one epoch, two of the symbols twice, `--jobs 2`.",
            table_of(tables["commands"], {}, "{:.1f}"),
        ]
    return "\n\n".join(parts) + "\n"


def plot(growth: pd.DataFrame, sliding: pd.DataFrame) -> Figure:
    """Time by number of points on windows of one path, and time a window by way."""
    use_style()
    figure = Figure(figsize=(10, 4))
    left, right = figure.subplots(1, 2)
    for color, (name, row) in zip(PALETTE, growth.loc["window"].drop(columns="exponent").iterrows(), strict=False):
        left.loglog(row.index, row, "o-", color=color, label=name)
    left.set(title="One window by itself", xlabel="points", ylabel="CPU milliseconds")
    left.set_xticks(growth.columns[:-1], [str(points) for points in growth.columns[:-1]], rotation=45)
    left.minorticks_off()
    left.legend()
    ways = [n for n in (BEFORE, GEOPH, OURS, "stride 16", "stride 4", "stride 1") if n in sliding]
    bars = right.barh(ways[::-1], real(sliding)[ways[::-1]].median().astype(float), color=PALETTE[0])
    right.bar_label(bars, fmt="%.3g", padding=3)
    right.set(title=f"A window of {POINTS} points", xlabel="CPU milliseconds", xscale="log")
    right.margins(x=0.15)
    return figure
