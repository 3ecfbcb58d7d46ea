"""From persistence diagrams to named features, for many windows at once.

Per homology dimension, in this order (107 numbers with the defaults, 214 for H0 and H1):

* Betti curve: at each grid point ``g`` the number of bars with ``birth <= g < death``, in window standard deviations;
* persistence entropy, in bits;
* L2 norms of the first landscape layers, in log price to the power 3/2;
* total persistence, the sum of the bar lengths, in log price.

The curve and the entropy describe shape and ignore scale; the norms and the total describe scale. Nothing is fitted.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from cmat_lib.numba_cache import njit
from cmat_lib.schema import TdaConfig
from cmat_lib.tda.persistence import Bars, diagrams_batch
from cmat_lib.tda.point_cloud import takens_embedding

BLOCK = 256  # windows whose clouds and bars are in memory at once, about 6 MB


def tda_features(log_prices: ArrayLike, config: TdaConfig) -> np.ndarray:
    """Topological features of windows of log prices.

    Each window is embedded by delays, its Vietoris-Rips diagram is taken, and the diagram becomes `feature_names`. The
    diagram of the z-scored window is the diagram of the log prices divided by the window's standard deviation, exactly,
    so one diagram serves both scales. A flat window has no topology: all its features are 0.

    Parameters
    ----------
    log_prices : array_like, shape (N, W)
        Natural logarithm of the close, W = ``config.window_size``.
    config : TdaConfig
        Embedding, engine and grid.

    Returns
    -------
    np.ndarray, shape (N, F), float32
        F = ``config.feature_dim``, 214 with the defaults. A row depends on its own window only, bit for bit.

    Raises
    ------
    ValueError
        If the shape is not (N, W) or a value is not finite.
    """
    windows = np.ascontiguousarray(log_prices, dtype=np.float64)
    if windows.ndim != 2 or windows.shape[1] != config.window_size:
        raise ValueError(f"log_prices must have shape (N, {config.window_size}), got {windows.shape}")
    finite = np.isfinite(windows).all(axis=1)  # (N,)
    if not finite.all():
        raise ValueError(f"window {int(np.argmin(finite))} holds a log price that is not finite; repair the candles")
    features = np.empty((len(windows), config.feature_dim), dtype=np.float32)
    for start in range(0, len(windows), BLOCK):
        features[start : start + BLOCK] = _block_features(windows[start : start + BLOCK], config)
    return features


def path_features(series: np.ndarray, ends: np.ndarray, config: TdaConfig) -> np.ndarray:
    """Features of those windows of a series (T,) that end at the rows `ends` (n,), shape (n, F), float32."""
    return tda_features(sliding_window_view(series, config.window_size)[ends - config.window_size + 1], config)


def _block_features(windows: np.ndarray, config: TdaConfig) -> np.ndarray:
    clouds = takens_embedding(windows, config.embedding_dim, config.time_delay)  # (N, P, d)
    diagrams = diagrams_batch(clouds, config.engine)
    sigma = np.std(windows - windows[:, :1], axis=1)  # (N,); the shift keeps a flat window at exactly 0
    parts = [diagram_features(diagrams[d], sigma, config, d) for d in config.homology_dimensions]
    return np.concatenate(parts, axis=1)  # (N, F)


def diagram_features(diagram: Bars, sigma: np.ndarray, config: TdaConfig, dimension: int) -> np.ndarray:
    """Features of one homology dimension of N windows.

    Parameters
    ----------
    diagram : Bars
        Diagrams of the N windows, in log price.
    sigma : np.ndarray, shape (N,)
        Standard deviation of each window's log prices; 0 gives a row of zeros.
    config : TdaConfig
        Grid and number of landscape layers.
    dimension : int
        Homology dimension; selects the grid.

    Returns
    -------
    np.ndarray, shape (N, betti_bins + 1 + landscape_layers + 1), float64
    """
    count = len(sigma)
    owner = np.repeat(np.arange(count), np.diff(diagram.offsets))  # (n,)
    lengths = diagram.bars[:, 1] - diagram.bars[:, 0]  # (n,)
    total = np.bincount(owner, lengths, minlength=count)  # (N,)
    scale = np.where(sigma > 0, sigma, np.inf)[owner, None]  # (n, 1)
    columns = [
        _betti_curves(diagram.bars / scale, owner, betti_grid(config, dimension), count),
        _entropy(lengths, owner, total)[:, None],
        landscape_norms(diagram.bars, diagram.offsets, config.landscape_layers),
        total[:, None],
    ]
    return np.where(sigma[:, None] > 0, np.concatenate(columns, axis=1), 0.0)


def betti_grid(config: TdaConfig, dimension: int) -> np.ndarray:
    """Grid of a Betti curve: ``g[i] = betti_max * (i / (betti_bins - 1)) ** 2``.

    Equal steps of the square root of g, so the grid is denser near 0, where most bars end. It is fixed by the
    parameters: a grid fitted to the data would let one extreme window rescale every bin.

    Parameters
    ----------
    config : TdaConfig
        ``betti_bins`` and ``betti_max``.
    dimension : int
        Homology dimension, one of ``config.homology_dimensions``.

    Returns
    -------
    np.ndarray, shape (betti_bins,), float64
        In window standard deviations.

    Raises
    ------
    ValueError
        If the dimension is not among ``config.homology_dimensions``.
    """
    if dimension not in config.homology_dimensions:
        raise ValueError(f"dimension {dimension} is not in tda.homology_dimensions {config.homology_dimensions}")
    upper = config.betti_max[config.homology_dimensions.index(dimension)]
    return upper * np.linspace(0.0, 1.0, config.betti_bins) ** 2


def feature_names(config: TdaConfig) -> list[str]:
    """Names of the columns of `tda_features`, in order.

    Parameters
    ----------
    config : TdaConfig
        Homology dimensions, bins and layers.

    Returns
    -------
    list of str
        ``h0_betti_000``, ..., ``h0_entropy``, ``h0_landscape_1``, ..., ``h0_total``, ``h1_betti_000``, ...
    """
    betti = [f"betti_{i:03d}" for i in range(config.betti_bins)]
    layers = [f"landscape_{k}" for k in range(1, config.landscape_layers + 1)]
    return [f"h{d}_{name}" for d in config.homology_dimensions for name in [*betti, "entropy", *layers, "total"]]


def feature_groups(config: TdaConfig) -> dict[str, slice]:
    """Columns of `tda_features` that belong together: Betti curve, and all other numbers, of each homology dimension.

    Parameters
    ----------
    config : TdaConfig

    Returns
    -------
    dict of str to slice
        ``H0 curve``, ``H1 curve``, ``H0 summary``, ``H1 summary``; together they are all columns, each once.

    Examples
    --------
    >>> feature_groups(TdaConfig())["H1 summary"]
    slice(207, 214, None)
    """
    starts = {f"H{d}": i * config.features_per_dimension for i, d in enumerate(config.homology_dimensions)}
    curves = {f"{name} curve": slice(start, start + config.betti_bins) for name, start in starts.items()}
    ends = {f"{name} summary": start + config.features_per_dimension for name, start in starts.items()}
    return curves | {name: slice(curves[name.replace("summary", "curve")].stop, end) for name, end in ends.items()}


def feature_params(config: TdaConfig) -> dict:
    """Parameters that the features depend on, for the key of the cache: all but place, workers and trust."""
    return config.model_dump(exclude={"cache_dir", "jobs", "backend", "dask_scheduler", "trust_cache"})


def _betti_curves(bars: np.ndarray, owner: np.ndarray, grid: np.ndarray, count: int) -> np.ndarray:
    """Bars alive at each grid point (N, bins): +1 at the first point >= birth, -1 at the first >= death, summed up."""
    bins = len(grid)
    first, end = np.searchsorted(grid, bars.T, side="left")  # (n,), (n,)
    steps = np.bincount(owner * (bins + 1) + first, minlength=count * (bins + 1))
    steps = steps - np.bincount(owner * (bins + 1) + end, minlength=count * (bins + 1))
    return np.cumsum(steps.reshape(count, bins + 1)[:, :-1], axis=1)  # (N, bins)


def _entropy(lengths: np.ndarray, owner: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Persistence entropy (N,) in bits, not normalised, 0 for no bars.

    ``-sum(p log2 p)`` with p a bar's share of the total length: Rucco et al. 2016 (arXiv 1512.07613), eq. 1, in the
    base that giotto-tda uses.
    """
    share = lengths / total[owner]  # (n,)
    return np.bincount(owner, -share * np.log2(share), minlength=len(total))


@njit(nogil=True, cache=True)
def landscape_norms(bars: np.ndarray, offsets: np.ndarray, layers: int) -> np.ndarray:
    """L2 norms of the first layers of persistence landscapes, by exact integration.

    The first layer is the upper envelope of the bars' tents (Bubenik 2015, JMLR 16, definition 3). It climbs and falls
    with slope 1, and a slope-1 flank from 0 to h has the integral of its square h**3 / 3; so the squared norm is
    ``2/3 * (sum of peaks**3 - sum of valleys**3)``. What the envelope covers, and a bar of each valley's size for every
    crossing, are the bars of the next layer (Bubenik and Dłotko 2017, arXiv 1501.00179, algorithm 1).

    Parameters
    ----------
    bars : np.ndarray, shape (n, 2), float64
        Birth and death of the bars of N windows, one window after the other.
    offsets : np.ndarray, shape (N + 1,), int64
        Window ``i`` owns ``bars[offsets[i]:offsets[i + 1]]``.
    layers : int
        Number of layers.

    Returns
    -------
    np.ndarray, shape (N, layers), float64
        In the unit of the bars to the power 3/2; 0 where a layer is empty.
    """
    norms = np.zeros((len(offsets) - 1, layers))
    for window in range(len(offsets) - 1):
        births = bars[offsets[window] : offsets[window + 1], 0].copy()
        deaths = bars[offsets[window] : offsets[window + 1], 1].copy()
        order = np.argsort(births)
        births, deaths, left = births[order], deaths[order], len(births)
        for layer in range(layers):
            if left == 0:
                break
            square, left = _peel_envelope(births, deaths, left)
            norms[window, layer] = np.sqrt(square)
    return norms


@njit(nogil=True, cache=True)
def _peel_envelope(births: np.ndarray, deaths: np.ndarray, count: int) -> tuple[float, int]:
    """Squared norm of the first layer of bars sorted by birth, which are replaced by those of the layers below.

    What is left stays sorted: a crossing leaves a bar that is born where its successor was.
    """
    birth, death = births[0], deaths[0]
    square, left = 2.0 / 3.0 * (0.5 * (death - birth)) ** 3, 0
    for i in range(1, count):
        next_birth, next_death = births[i], deaths[i]
        if next_death <= death:  # covered: goes on as it is
            births[left], deaths[left] = next_birth, next_death
            left += 1
            continue
        valley = max(0.5 * (death - next_birth), 0.0)
        if valley > 0.0:  # the two tents cross: their common part goes on
            births[left], deaths[left] = next_birth, death
            left += 1
        birth, death = next_birth, next_death
        square += 2.0 / 3.0 * ((0.5 * (death - birth)) ** 3 - valley**3)
    return square, left
