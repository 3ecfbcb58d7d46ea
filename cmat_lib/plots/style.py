"""House style: one palette, one seaborn theme, one Plotly template, and what figures have in common.

Every figure is a sheet of white paper with dark ink, in light and in dark JupyterLab alike: a transparent figure would
need colours that are legible on both, and those are legible on neither. The palette is safe for the colour-blind.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import seaborn as sns
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

# Okabe & Ito (2008), the order in which series take their colours.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
TOKEN_COLORS = (*PALETTE[:6], "#882255", "#332288", "#999933", "#44AA99", "#661100", "#999999", "#000000")
OUTCOME_COLORS = {"quiet": "#999999", "miss": "#CC79A7", "false alarm": "#D55E00", "hit": "#009E73"}  # last lies on top
PART_COLORS = {"train": "#0072B2", "stop": "#E69F00", "calibrate": "#009E73", "test": "#D55E00", "purged": "#999999"}
GREY = "#767676"  # lines that are not data; 4.5 to 1 on paper, so it also serves as text
INK = "#222222"
PAPER = "#ffffff"
SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"
GRID = "rgba(128, 128, 128, 0.25)"
DASHED = {"color": GREY, "linestyle": "--", "linewidth": 1}  # chance, no effect, a border
# Boxes over samples whose tails do not matter; to be coloured by who draws them.
BOXES = {"showfliers": False, "whis": (5, 95), "patch_artist": True, "medianprops": {"color": "black"}}


def use_style() -> None:
    """Set the seaborn theme and the Plotly template of all pages; called once at the top of each."""
    sns.set_theme(context="notebook", style="whitegrid", palette=list(PALETTE), rc=_MATPLOTLIB)
    pio.templates["cmat"] = go.layout.Template(layout=_PLOTLY)
    pio.templates.default = "cmat"
    if get_ipython() is not None:  # figures are made without pyplot, so nothing else would make a page show them
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png")


def token_color(number: int) -> str:
    """Colour of a token, the same in all figures of page 06."""
    return TOKEN_COLORS[number % len(TOKEN_COLORS)]


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **grid) -> tuple[Figure, list[Axes]]:
    """A figure of this size in inches, and its panels, row by row."""
    figure = Figure(figsize=(width, height))
    return figure, list(figure.subplots(rows, columns, squeeze=False, **grid).ravel())


def headline(figure: Figure, text: str) -> None:
    """Title of a figure of several panels."""
    figure.suptitle(text, x=0.01, ha="left", weight="bold")


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """Legend of one panel, for all of them, below the figure."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names on the left, the first row on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def draw_intervals(
    axes: Axes,
    rows: pd.DataFrame,
    colors: str | Sequence[str],
    label: str | None = None,
    shift: float = 0.0,
    filled: bool = True,
) -> None:
    """A point and its interval, if it has one, for each row (``value``, ``low``, ``high``), one below the other.

    One colour, or one a row. `shift`, in rows downwards, tells several tables in one panel apart.
    """
    height, face = np.arange(len(rows)) + shift, colors if filled else "white"
    axes.hlines(height, rows["low"], rows["high"], color=colors, linewidth=2, alpha=0.7)
    axes.scatter(rows["value"], height, s=40, facecolors=face, edgecolors=colors, linewidths=1, label=label, zorder=3)


def time_axis(axes: Axes, most: int | None = None, offset: bool = True) -> None:
    """Few and short dates along the bottom; `offset` repeats what they have in common at the right."""
    locator = AutoDateLocator(maxticks=most)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=offset))


def candle_trace(x, prices, up: str = PALETTE[0], down: str = PALETTE[1], line: str | None = None, **look):
    """Candles with the open, high, low and close of `prices`; outlines have the colour of the bodies, or their own."""
    colors = [{"line": {"color": line or color, "width": 1}, "fillcolor": color} for color in (up, down)]
    given = {name: prices[name] for name in ("open", "high", "low", "close")}
    return go.Candlestick(x=x, **given, increasing=colors[0], decreasing=colors[1], name="candle", **look)


_MATPLOTLIB = {
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "figure.figsize": (9, 4),
    "figure.dpi": 96,
    "figure.constrained_layout.use": True,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.5,
    "legend.frameon": False,
}

_PLOTLY = go.Layout(
    font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
    title={"x": 0.01, "xanchor": "left", "font": {"size": 16}},
    colorway=list(PALETTE),
    paper_bgcolor=PAPER,
    plot_bgcolor=PAPER,
    xaxis={"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GREY, "ticks": "outside", "automargin": True},
    yaxis={"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GREY, "ticks": "outside", "automargin": True},
    hovermode="x unified",
    legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "right", "x": 1.0},
    margin={"l": 60, "r": 30, "t": 70, "b": 50},
    height=420,
)
