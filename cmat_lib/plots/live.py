"""A training that can be watched: a figure that is drawn anew in place, or lines of text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import pandas as pd
from IPython.display import DisplayHandle, display

from cmat_lib.plots.training import training_curves
from cmat_lib.training.logs import epoch_line


class LiveCurves:
    """Training curves that are drawn anew after every epoch, in place; called with each row of the history."""

    def __init__(self) -> None:
        self._rows: list[Mapping[str, float]] = []
        self._place: DisplayHandle | None = None

    def __call__(self, row: Mapping[str, float]) -> None:
        """Add one epoch."""
        self._rows.append(row)
        figure = training_curves(pd.DataFrame(self._rows), best_epoch=None)
        figure.update_layout(title={"text": epoch_line(row), "font": {"size": 12}})
        # As data, because a Plotly figure that displays itself cannot be replaced.
        bundle = {"application/vnd.plotly.v1+json": json.loads(figure.to_json()), "text/plain": epoch_line(row)}
        if self._place is None:
            self._place = display(bundle, raw=True, display_id=True)
        else:
            self._place.update(bundle, raw=True)


class EpochLines:
    """One line of text per epoch, at most fifty however long the training; called with each row of the history."""

    def __init__(self, epochs: int) -> None:
        self._every = math.ceil(epochs / 50)

    def __call__(self, row: Mapping[str, float]) -> None:
        """Print the epoch, if it is its turn."""
        if (row["epoch"] - 1) % self._every == 0:
            print(epoch_line(row))
