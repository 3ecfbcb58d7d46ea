"""Windows and clouds that the persistence engines are measured on."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pandas as pd

from cmat_lib.config.schema import DataConfig, TdaConfig
from cmat_lib.data.candles import load_market, window_ends
from cmat_lib.data.synthetic import synthetic_market
from cmat_lib.tda import takens_embedding

CONFIG = TdaConfig()
POINTS = CONFIG.window_size - CONFIG.time_delay  # of a window
TURN = 2 * np.pi

Path1d = Callable[[int], np.ndarray]


# -- series ------------------------------------------------------------------------------------------------------------


def market_path(candles: pd.DataFrame, rng: np.random.Generator, length: int) -> np.ndarray:
    """Log closes (length,) without a gap, at a random moment."""
    end = rng.choice(window_ends(candles, DataConfig().bar, length))
    return np.log(candles["close"].to_numpy(dtype=np.float64)[end - length + 1 : end + 1])


def path_sources(seed: int) -> dict[str, Path1d]:
    """Functions ``length -> series (length,)`` by name: each symbol of CMAT_TEST_DATA, one synthetic, a random walk."""
    rng, found = np.random.default_rng(seed), {}
    if folder := os.environ.get("CMAT_TEST_DATA"):
        real = load_market(DataConfig(data_dir=folder))
        found = {name: lambda n, own=candles: market_path(own, rng, n) for name, candles in real.items()}
    synthetic = next(iter(synthetic_market(symbols=1, days=365, timeframe="15m", horizon=16, seed=seed).values()))
    return found | {
        "synthetic market": lambda n: market_path(synthetic, rng, n),
        "random walk": lambda n: rng.normal(size=n).cumsum(),
    }


def cloud_of(window: np.ndarray) -> np.ndarray:
    """Takens cloud (P, 2) of a window, in its standard deviations σ."""
    return takens_embedding((window - window.mean()) / window.std(), CONFIG.embedding_dim, CONFIG.time_delay)


def market_clouds(sources: dict[str, Path1d], count: int, width: int = CONFIG.window_size) -> dict[str, np.ndarray]:
    """Clouds (count, P, 2) of windows of each source."""
    return {name: np.stack([cloud_of(path(width)) for _ in range(count)]) for name, path in sources.items()}


# -- shapes ------------------------------------------------------------------------------------------------------------


def arc(rng: np.random.Generator, points: int, turn: float, noise: float = 0.0, stretch: float = 1.0) -> np.ndarray:
    """Points (P, 2) at random on an arc of a circle, or of an ellipse; `turn` in radians, `noise` in radii."""
    angle = rng.uniform(0, turn, points)
    return np.column_stack([stretch * np.cos(angle), np.sin(angle)]) + noise * rng.normal(size=(points, 2))


def wheel(points: int, radius: Callable[[np.ndarray], np.ndarray], turns: float = 1.0) -> np.ndarray:
    """Points at equal steps of the angle on a curve in polar coordinates; the radius is a function of [0, 1)."""
    share = np.arange(points) / points
    angle = TURN * turns * share
    return radius(share)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])


def lattice(points: int, slant: float, height: float) -> np.ndarray:
    """A lattice of near-square shape, row by row."""
    side = int(np.ceil(np.sqrt(points)))
    row, column = np.divmod(np.arange(points), side)
    return np.column_stack([column + slant * (row % 2), height * row]).astype(np.float64)


def smoothed(series: np.ndarray, span: int) -> np.ndarray:
    """Exponential moving average."""
    return pd.Series(series).ewm(span=span).mean().to_numpy()


def curves(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Smooth curves, on which a distance has many near-equals, with more and more noise."""
    found = {"circle, equal steps": wheel(n, np.ones_like)}
    for name, turn in {"circle": TURN, "half circle": TURN / 2, "quarter circle": TURN / 4}.items():
        for percent in (0, 0.1, 1, 3, 5, 10) if turn > 2 else (0, 1):
            found[name + (f", noise {percent:g} %" if percent else "")] = arc(rng, n, turn, percent / 100)
    steps = np.linspace(-1, 1, n)
    return found | {
        "arc of 300 degrees, noise 1 %": arc(rng, n, TURN * 5 / 6, 0.01),
        "ellipse 3 : 1": arc(rng, n, TURN, stretch=3.0),
        "ellipse 10 : 1": arc(rng, n, TURN, stretch=10.0),
        "spiral, 3 turns": wheel(n, lambda t: 0.2 + t, 3),
        "spiral, 10 turns": wheel(n, lambda t: 0.2 + t, 10),
        "star, 12 rays": wheel(n, lambda t: 1 + 0.4 * np.cos(12 * TURN * t)),
        "figure eight": np.column_stack([np.sin(np.pi * steps), np.sin(TURN * steps)]),
        "parabola": np.column_stack([steps, steps**2]),
        "three circles, one in another": np.concatenate([k * arc(rng, n // 3, TURN) for k in (1, 2, 3)]),
        "ring": arc(rng, n, TURN) * rng.uniform(0.7, 1.0, (n, 1)),
    }


def regular(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Ties, lines, lumps."""
    grid, hexagons, line = lattice(n, 0, 1), lattice(n, 0.5, np.sqrt(0.75)), np.linspace(0, 1, n)
    centres, bar = rng.normal(size=(10, 2)), np.column_stack([line[::2], np.full(len(line[::2]), 0.5)])
    return {
        "grid": grid,
        "grid, jitter 1 %": grid + 0.01 * rng.normal(size=(n, 2)),
        "hexagonal": hexagons,
        "hexagonal, jitter 1 %": hexagons + 0.01 * rng.normal(size=(n, 2)),
        "line": np.column_stack([line, line]),
        "line, noise 1e-6": np.column_stack([line, line]) + 1e-6 * rng.normal(size=(n, 2)),
        "two lines": np.concatenate([bar, bar + np.array([0.0, 0.1])]),
        "cross": np.concatenate([bar, bar[:, ::-1]]),
        "ten clusters": centres[rng.integers(10, size=n)] + 0.05 * rng.normal(size=(n, 2)),
        "two clusters far apart": rng.normal(size=(n, 2)) + 1e4 * rng.integers(2, size=(n, 1)),
        "each point ten times": np.repeat(rng.normal(size=(n // 10, 2)), 10, axis=0),
        "random in a square": rng.uniform(size=(n, 2)),
        "Gaussian": rng.normal(size=(n, 2)),
    }


def series_clouds(rng: np.random.Generator, n: int, prices: np.ndarray, walk: np.ndarray) -> dict[str, np.ndarray]:
    """Embedded series that are not quite prices."""
    time = np.arange(n + CONFIG.time_delay)
    unit = (prices - prices.mean()) / prices.std()
    series = {f"sine, {periods} periods": np.sin(TURN * periods * time / len(time)) for periods in (1, 3, 9)}
    series |= {
        "sine, 3 periods, noise 2 %": np.sin(TURN * 3 * time / len(time)) + 0.02 * rng.normal(size=len(time)),
        "prices, EMA of 20": smoothed(prices, 20),
        "prices, EMA of 200": smoothed(prices, 200),
        "prices, rounded to 0.1 σ": np.round(unit, 1),
        "prices, rounded to 0.02 σ": np.round(50 * unit) / 50,
        "prices, and a trend": unit + 0.1 * time,
        "trend": 0.001 * time,
        "integer walk": rng.integers(-1, 2, size=len(time)).cumsum().astype(float),
        "random walk": walk,
        "saw": (time % 55).astype(float),
    }
    return {name: cloud_of(values) for name, values in series.items()}


def adversarial_clouds(sources: dict[str, Path1d], seed: int, points: int) -> dict[str, np.ndarray]:
    """Clouds (1, points, 2) by name, on which one engine or another is at its worst."""
    rng, width = np.random.default_rng(seed), points + CONFIG.time_delay
    prices, walk = next(iter(sources.values()))(width), rng.normal(size=width).cumsum()
    found = curves(rng, points) | regular(rng, points) | series_clouds(rng, points, prices, walk)
    return {name: np.ascontiguousarray(cloud)[None] for name, cloud in found.items()}


def growing_clouds(sources: dict[str, Path1d], seed: int, points: int) -> dict[str, np.ndarray]:
    """Clouds (points, 2) of one size: random, of prices, on a circle."""
    rng = np.random.default_rng(seed + points)
    return {
        "random": rng.uniform(size=(points, 2)),
        "window": cloud_of(next(iter(sources.values()))(points + CONFIG.time_delay)),
        "circle": arc(rng, points, TURN),
    }
