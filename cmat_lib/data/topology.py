"""Topology of candles: which of their series are embedded, and the features of one candle after another."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmat_lib.data.complexity import log_ranges
from cmat_lib.errors import CmatError
from cmat_lib.schema import TdaConfig
from cmat_lib.tda.features import diagram_features, path_features, tda_features
from cmat_lib.tda.persistence import Bars
from cmat_lib.tda.sliding import SlidingRips

SERIES: dict[str, Callable[[pd.DataFrame], np.ndarray]] = {
    "log_close": lambda candles: np.log(candles["close"].to_numpy(np.float64)),
    "log_range": lambda candles: log_ranges(candles, [1])[:, 0].astype(np.float64),
    "log_volume": lambda candles: np.log1p(_volume(candles)),
}


def _volume(candles: pd.DataFrame) -> np.ndarray:
    if "volume" not in candles:
        raise CmatError("tda.series has log_volume, and the candles have no volume; take it out, or name data.columns")
    return candles["volume"].to_numpy(np.float64)


class Embedding(NamedTuple):
    """What one feature vector is made from."""

    series: str
    window: int
    delay: int


def embeddings(config: TdaConfig) -> list[Embedding]:
    """All of them, in the order of `cmat_lib.tda.feature_names`."""
    return [Embedding(series, *scale) for series in config.series for scale in config.scales]


def candle_topology(candles: pd.DataFrame, rows: np.ndarray, config: TdaConfig) -> np.ndarray:
    """Topology features, (n, F) float32, of the windows that end at n rows of a symbol's candles.

    Rows ascend; none whose longest window has a gap.
    """
    values = {name: SERIES[name](candles) for name in config.series}
    parts = [path_features(values[e.series], rows, e.window, e.delay, config) for e in embeddings(config)]
    return np.concatenate(parts, axis=1)


def window_topology(candles: pd.DataFrame, config: TdaConfig) -> np.ndarray:
    """The same for the window that ends with the last of some candles, from scratch and these alone, shape (F,)."""
    windows = (SERIES[name](candles)[None, -config.longest_window :] for name in config.series)
    return np.concatenate([tda_features(window, config)[0] for window in windows])


def compile_kernels(config: TdaConfig) -> Thread:
    """Compile what sliding needs, on a thread; join it before workers compute topology.

    They find it in numba's cache then, where otherwise each of them would compile the same for twenty seconds.
    """
    thread = Thread(target=_slide_once, args=(config,), daemon=True)
    thread.start()
    return thread


def _slide_once(config: TdaConfig) -> None:
    if config.slides:
        path_features(np.sin(np.arange(50.0)), np.array([48, 49]), 48, 8, config)


class LiveTopology:
    """Topology features of the newest window of one symbol, whose diagram is kept from candle to candle.

    Where `config` does not slide, nothing is kept and each window is computed anew.
    """

    def __init__(self, config: TdaConfig):
        self.config = config
        self._windows: dict[Embedding, tuple[np.ndarray, SlidingRips]] = {}

    def features(self, candles: pd.DataFrame) -> np.ndarray:
        """Features, (F,), of the window that ends with the last candle, as `candle_topology` gives them, bit for bit.

        Needs at least the candles of the longest window. Where they do not follow those of the call before, nothing of
        it is of use.
        """
        if not self.config.slides:
            return window_topology(candles, self.config)
        values = {name: SERIES[name](candles) for name in self.config.series}
        return np.concatenate([self._vector(e, values[e.series][-e.window :]) for e in embeddings(self.config)])

    def _vector(self, embedding: Embedding, values: np.ndarray) -> np.ndarray:
        known, window = self._windows.get(embedding, (np.empty(0), SlidingRips(embedding.delay)))
        new = next((k for k in range(len(known)) if np.array_equal(known[k:], values[: len(known) - k])), len(known))
        window.drop(new)
        window.append(values[len(known) - new :])
        self._windows[embedding] = values, window
        diagrams = [Bars(bars, np.array([0, len(bars)])) for bars in window.diagram()]
        row = np.empty((1, self.config.features_per_scale), np.float32)
        diagram_features(diagrams, values, np.zeros(1, np.int64), len(values), self.config, row)
        return row[0]
