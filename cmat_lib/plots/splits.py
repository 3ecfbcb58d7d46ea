"""Which time belongs to which part: the folds of a split, and the borders of one of them from near."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cmat_lib.data.splits import Span
from cmat_lib.plots.candles import evenly, wall_time
from cmat_lib.plots.style import PALETTE, PART_COLORS, name_rows, new_figure, time_axis

# A purged zone is narrow: it must stand out.
COLORS = PART_COLORS | {"purged": "#000000", "embargo": PALETTE[3], "outside": "#e8e8e8", "unlabelled": "#d0d0d0"}
ZOOM = 4  # half-width of the view of a border, in label lengths
MARKS_PER_SYMBOL = 4000  # in the view of all time
BORDERS_ABREAST = 3


def fold_picture(stretches: pd.DataFrame, chosen: int) -> Figure:
    """All folds of a split, one below the other: their parts, what is left out at the borders, and the test dates.

    `stretches` are those of `cmat_lib.data.splits.fold_stretches`; folds other than the `chosen` one are paler.
    """
    folds = list(stretches["fold"].unique())
    figure, (axes,) = new_figure(10, 1.6 + 0.5 * len(folds))
    for row, fold in enumerate(folds):
        own, rows = fold == chosen, stretches[stretches["fold"] == fold]
        for stretch in rows.itertuples():
            _draw_stretch(axes, row, stretch, own)
        tested = "\n".join(f"{r.start:%Y-%m-%d} – {r.end:%Y-%m-%d}" for r in rows[rows["part"] == "test"].itertuples())
        beside = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
        axes.text(1.01, row, tested, color=COLORS["test"], fontweight="bold" if own else "normal", **beside)
    _dress(axes, [f"fold {fold}{' (this run)' if fold == chosen and len(folds) > 1 else ''}" for fold in folds])
    for label, fold in zip(axes.get_yticklabels(), folds, strict=True):
        label.set_fontweight("bold" if fold == chosen else "normal")
    axes.set(title="The folds of the split", xlabel="close of the sample (UTC)")
    _legend(figure, stretches)
    return figure


def _draw_stretch(axes: Axes, row: int, stretch, own: bool) -> None:
    start, end = date2num(wall_time(pd.DatetimeIndex([stretch.start, stretch.end])))
    look = {"facecolor": COLORS[stretch.part], "edgecolor": "none", "linewidth": 0, "zorder": 2}
    if stretch.part in ("purged", "embargo"):  # its hours must be seen beside months
        look |= {"edgecolor": COLORS[stretch.part], "linewidth": 1.2, "zorder": 3}
    axes.broken_barh([(start, end - start)], (row - 0.36, 0.72), alpha=1.0 if own else 0.45, **look)


def split_picture(samples: pd.DataFrame, spans: Sequence[Span]) -> Figure:
    """The parts over time for every symbol, and each border from near, where the purged samples are."""
    symbols = list(samples["symbol"].unique())
    borders = [span.start for span in spans[1:]]
    lines, height = -(-len(borders) // BORDERS_ABREAST), max(1.2, 0.4 * len(symbols))
    figure = Figure(figsize=(10, (1 + lines) * height + 1.2 + 0.6 * lines))
    grid = figure.add_gridspec(1 + lines, min(BORDERS_ABREAST, len(borders)))
    whole = figure.add_subplot(grid[0, :])
    drawn = evenly(len(samples), MARKS_PER_SYMBOL * len(symbols))
    _draw_parts(whole, samples.iloc[drawn], symbols, marker="|", size=90)
    whole.set(title="The parts, the same for all symbols", xlabel="close of the sample (UTC)")
    reach = ZOOM * (samples["label_end"] - samples["close_time"]).max()
    for number, border in enumerate(borders):
        axes = figure.add_subplot(grid[1 + number // BORDERS_ABREAST, number % BORDERS_ABREAST])
        _draw_parts(axes, samples[(samples["close_time"] - border).abs() <= reach], symbols, marker="o", size=14)
        axes.axvline(border.tz_convert(None), color="black", linewidth=1)
        axes.set_title(f"border at {border:%Y-%m-%d %H:%M}", fontsize=10)
        axes.tick_params(labelleft=number % BORDERS_ABREAST == 0, labelsize=9)
    _legend(figure, samples)
    return figure


def _legend(figure: Figure, frame: pd.DataFrame) -> None:
    used = [part for part in COLORS if part in set(frame["part"])]
    figure.legend(handles=[Patch(color=COLORS[p], label=p) for p in used], ncols=len(used), loc="outside lower center")


def _draw_parts(axes: Axes, samples: pd.DataFrame, symbols: Sequence[str], marker: str, size: float) -> None:
    """One mark per sample at its close time, in the colour of its part, one row per symbol."""
    rows = samples["symbol"].map({symbol: row for row, symbol in enumerate(symbols)})
    colors = samples["part"].map(COLORS)
    axes.scatter(wall_time(samples["close_time"]), rows, c=colors, marker=marker, s=size, linewidths=1, rasterized=True)
    _dress(axes, symbols)


def _dress(axes: Axes, names: Sequence[str]) -> None:
    name_rows(axes, names)
    time_axis(axes, most=6, offset=False)
    axes.grid(axis="y", visible=False)
