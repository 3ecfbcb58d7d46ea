"""A training that can be watched: called with each row of the history, of which `line` makes a line of text."""

import json
import math
from collections.abc import Callable, Mapping

import pandas as pd
from IPython.display import DisplayHandle, display

from cmat_lib.plots.training import training_curves

Row = Mapping[str, float]


class LiveCurves:
    """Training curves that are drawn anew after every epoch, in place."""

    def __init__(self, line: Callable[[Row], str]) -> None:
        self._line = line
        self._rows: list[Row] = []
        self._place: DisplayHandle | None = None

    def __call__(self, row: Row) -> None:
        """Add one epoch."""
        self._rows.append(row)
        figure = training_curves(pd.DataFrame(self._rows), best_epoch=None)
        figure.update_layout(title={"text": self._line(row), "font": {"size": 12}})
        # As data, because a Plotly figure that displays itself cannot be replaced.
        bundle = {"application/vnd.plotly.v1+json": json.loads(figure.to_json()), "text/plain": self._line(row)}
        if self._place is None:
            self._place = display(bundle, raw=True, display_id=True)
        else:
            self._place.update(bundle, raw=True)


class EpochLines:
    """One line of text per epoch, at most fifty however long the training."""

    def __init__(self, epochs: int, line: Callable[[Row], str]) -> None:
        self._every, self._line = math.ceil(epochs / 50), line

    def __call__(self, row: Row) -> None:
        """Print the epoch, if it is its turn."""
        if (row["epoch"] - 1) % self._every == 0:
            print(self._line(row))
