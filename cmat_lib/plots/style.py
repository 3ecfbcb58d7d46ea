"""House style: one palette, one seaborn theme, one Plotly template; colour-blind safe, legible on white and on dark."""

from __future__ import annotations

import plotly.graph_objects as go
import plotly.io as pio
import seaborn as sns
from IPython import get_ipython

# Okabe & Ito (2008), the order in which series take their colours.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
PART_COLORS = {"train": "#0072B2", "stop": "#E69F00", "calibrate": "#009E73", "test": "#D55E00", "purged": "#999999"}
GREY = "#808080"
SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"
GRID = "rgba(128, 128, 128, 0.25)"


def use_style() -> None:
    """Set the seaborn theme and the Plotly template of all pages; called once at the top of each."""
    sns.set_theme(context="notebook", style="whitegrid", palette=list(PALETTE), rc=_MATPLOTLIB)
    pio.templates["cmat"] = go.layout.Template(layout=_PLOTLY)
    pio.templates.default = "cmat"
    if get_ipython() is not None:  # figures are made without pyplot, so nothing else would make a page show them
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png")


_MATPLOTLIB = {
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

# A transparent paper takes the colour of the page, so the grey text and grid serve light and dark JupyterLab alike.
_PLOTLY = go.Layout(
    font={"family": "system-ui, sans-serif", "size": 13, "color": GREY},
    title={"x": 0.01, "xanchor": "left", "font": {"size": 16}},
    colorway=list(PALETTE),
    paper_bgcolor="rgba(0, 0, 0, 0)",
    plot_bgcolor="rgba(0, 0, 0, 0)",
    xaxis={"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GREY, "ticks": "outside", "automargin": True},
    yaxis={"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GREY, "ticks": "outside", "automargin": True},
    hovermode="x unified",
    legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "right", "x": 1.0},
    margin={"l": 60, "r": 30, "t": 70, "b": 50},
    height=420,
)
