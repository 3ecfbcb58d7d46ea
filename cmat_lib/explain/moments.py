"""Single moments of one symbol, with what the model had before it: the data behind the explorer of page 06."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from cmat_lib.config import Config
from cmat_lib.config.schema import TdaConfig
from cmat_lib.data.candles import PRICES
from cmat_lib.data.topology import SERIES
from cmat_lib.explain.attention import rollout
from cmat_lib.tda.persistence import rips_diagrams
from cmat_lib.tda.planar import Loop, planar_loops
from cmat_lib.tda.point_cloud import takens_embedding


class Moment(NamedTuple):
    """One sample to look at."""

    time: pd.Timestamp
    label: str  # one line that says what it was
    outcome: str
    close: float
    window: pd.DataFrame  # open, high, low, close in percent of the last close; index: candles from the sample's, 0
    diagrams: dict[int, np.ndarray]  # homology dimension -> (n, 2) births and deaths, in window standard deviations
    past: pd.Series  # close of the topology window, in percent of the last; index as in `window`
    loop: Loop | None  # of the topology window, from `longest_loop`
    loop_candles: np.ndarray  # candles that draw it, as in the index of `past`


def pick_moments(rises: np.ndarray, limit: int, apart: int) -> np.ndarray:
    """At most `limit` samples to look at, ascending: half of them evenly spaced, half where the price rose most.

    `rises`, (n,), are those after each sample of one symbol, in order of time. Two large moves are at least `apart`
    samples apart, because neighbours see the same move.
    """
    evenly = np.linspace(0, len(rises) - 1, min(len(rises), limit - limit // 2)).astype(np.int64)
    large: list[int] = []
    for place in np.argsort(-rises, kind="stable"):
        if len(large) < limit // 2 and all(abs(place - other) >= apart for other in large):
            large.append(int(place))
    return np.unique(np.concatenate([evenly, np.array(large, dtype=np.int64)]))


def describe_moments(samples: pd.DataFrame, candles: pd.DataFrame, config: Config) -> list[Moment]:
    """Window, longest loop and diagram (first scale of the first series) of samples of `describe_samples`."""
    market = {symbol: own.set_index("timestamp") for symbol, own in candles.groupby("symbol")}
    return [_describe(row, market[row["symbol"]], config) for _, row in samples.iterrows()]


def _describe(row: pd.Series, candles: pd.DataFrame, config: Config) -> Moment:
    history = candles.iloc[: candles.index.get_loc(row["timestamp"]) + 1]
    window = history.iloc[-config.data.sequence_length :][PRICES]
    percent = (100 * (window / row["close"] - 1)).set_axis(np.arange(1 - len(window), 1))
    topology = config.tda.first
    history = history.iloc[-topology.window_size :]
    past = (100 * (history["close"] / row["close"] - 1)).set_axis(np.arange(1 - len(history), 1))
    values = SERIES[topology.series[0]](history)
    scaled = (values - values.mean()) / (values.std() or 1.0)
    cloud = takens_embedding(scaled, topology.embedding_dim, topology.time_delay)  # (P, d)
    found, loop = rips_diagrams(cloud, topology.engine), longest_loop(cloud, topology)
    diagrams = {dimension: found[dimension] for dimension in topology.homology_dimensions}
    rows = np.empty(0, np.int64) if loop is None else np.union1d(loop.points, loop.points + topology.time_delay)
    known = row["timestamp"], moment_label(row), row["outcome"], row["close"]
    return Moment(*known, percent, diagrams, past, loop, past.index.to_numpy()[rows])


def moment_label(row: pd.Series) -> str:
    """When it was, what came of it, and what the model said."""
    when, told = f"{row['symbol']} {row['timestamp']:%Y-%m-%d %H:%M}", f"model said {row['probability']:.1%}"
    return f"{when} · {row['outcome']} · rose {row['max_pct']:.1f} % · {told}"


def longest_loop(cloud: np.ndarray, config: TdaConfig) -> Loop | None:
    """The most persistent loop of a cloud, (P, d), of several the first; None without one.

    The engine ``planar`` in two dimensions alone knows the points of a loop; for all others it is None.
    """
    loops = planar_loops(cloud) if config.slides else []
    return max(loops, key=lambda loop: loop.death - loop.birth, default=None)


def attention_lines(maps: np.ndarray, shares: np.ndarray, tokens: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What each token gets, (N, M): ``to the output`` (the shares, from `token_shares`), and ``from <token>``.

    The latter is the row of that token, mean over layers and heads of the maps, (N, layers, h, M, M).
    """
    mean = maps.mean(axis=(1, 2), dtype=np.float32)  # (N, M, M)
    return {"to the output": shares} | {f"from {token}": mean[:, row] for row, token in enumerate(tokens)}


def layer_maps(maps: np.ndarray) -> dict[str, np.ndarray]:
    """``layer 1``, ``layer 2``, …, mean over heads, and, of several, ``rollout``: (N, layers, h, M, M) to (N, M, M)."""
    means = maps.mean(axis=2, dtype=np.float32)  # (N, layers, M, M)
    layers = {f"layer {n + 1}": means[:, n] for n in range(means.shape[1])}
    return layers | ({"rollout": rollout(maps)} if len(layers) > 1 else {})
