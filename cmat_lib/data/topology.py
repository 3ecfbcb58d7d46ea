"""Topology of candles: which of their series are embedded, and the features of one candle after another."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.config.schema import TdaConfig
from cmat_lib.data.complexity import log_ranges
from cmat_lib.tda.features import diagram_features
from cmat_lib.tda.persistence import Bars
from cmat_lib.tda.sliding import SlidingRips


def _log_volume(candles: pd.DataFrame) -> np.ndarray:
    if "volume" not in candles:
        raise CmatError("tda.series has log_volume, and the candles have no volume; take it out, or name data.columns")
    return np.log1p(candles["volume"].to_numpy(np.float64))


SERIES: dict[str, Callable[[pd.DataFrame], np.ndarray]] = {
    "log_close": lambda candles: np.log(candles["close"].to_numpy(np.float64)),
    "log_range": lambda candles: log_ranges(candles, [1])[:, 0].astype(np.float64),
    "log_volume": _log_volume,
}


class Embedding(NamedTuple):
    """What one feature vector is made from."""

    series: str
    window: int
    delay: int


def embeddings(config: TdaConfig) -> list[Embedding]:
    """All of them, in the order of `cmat_lib.tda.feature_names`."""
    return [Embedding(series, *scale) for series in config.series for scale in config.scales]


class FollowedWindow:
    """Topology features of the newest window of one series, whose diagram is kept from candle to candle."""

    def __init__(self, delay: int, config: TdaConfig):
        self.config = config
        self._values, self._window = np.empty(0), SlidingRips(delay)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Features of a window (W,), shape (F,), as `path_features` gives them, bit for bit."""
        known = self._values
        # Where the values do not follow those of the call before, nothing of it is of use, and all of them are new.
        new = next((k for k in range(len(known)) if np.array_equal(known[k:], values[: len(known) - k])), len(known))
        self._window.drop(new)
        self._window.append(values[len(known) - new :])
        self._values = values
        diagrams = [Bars(bars, np.array([0, len(bars)])) for bars in self._window.diagram()]
        row = np.empty((1, self.config.features_per_scale), np.float32)
        diagram_features(diagrams, values, np.zeros(1, np.int64), len(values), self.config, row)
        return row[0]
