"""House style: one palette, one seaborn theme, one Plotly template.

Every figure is a sheet of white paper with dark ink, in light and in dark JupyterLab alike: a transparent figure would
need colours that are legible on both, and those are legible on neither. The palette is safe for the colour-blind.
"""

from __future__ import annotations

import plotly.graph_objects as go
import plotly.io as pio
import seaborn as sns
from IPython import get_ipython

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


def token_color(number: int) -> str:
    """Colour of a token, the same in all figures of page 06."""
    return TOKEN_COLORS[number % len(TOKEN_COLORS)]


def use_style() -> None:
    """Set the seaborn theme and the Plotly template of all pages; called once at the top of each."""
    sns.set_theme(context="notebook", style="whitegrid", palette=list(PALETTE), rc=_MATPLOTLIB)
    pio.templates["cmat"] = go.layout.Template(layout=_PLOTLY)
    pio.templates.default = "cmat"
    if get_ipython() is not None:  # figures are made without pyplot, so nothing else would make a page show them
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png")


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
