"""From persistence diagrams to named features, for many windows at once.

Per homology dimension, in this order (107 numbers with the defaults, 214 for H0 and H1):

* Betti curve: at each grid point ``g`` the number of bars with ``birth <= g < death``, in window standard deviations;
* persistence entropy, in bits;
* L2 norms of the first landscape layers, in log price to the power 3/2;
* total persistence, the sum of the bar lengths, in log price.

The curve and the entropy describe shape and ignore scale; the norms and the total describe scale. Nothing is fitted.
"""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from cmat_lib.base.numba_cache import njit
from cmat_lib.config.schema import TdaConfig
from cmat_lib.tda.persistence import Bars, diagrams_batch
from cmat_lib.tda.point_cloud import takens_embedding

WINDOWS_AT_ONCE = 256  # with their clouds and bars about 6 MB

kernel = njit(nogil=True, cache=True, error_model="numpy")


def tda_features(log_prices: ArrayLike, config: TdaConfig) -> np.ndarray:
    """Topological features of windows of log prices, each computed from scratch.

    Each window is embedded by delays, its Vietoris-Rips diagram is taken, and the diagram becomes `feature_names`. The
    diagram of the z-scored window is the diagram of the log prices divided by the window's standard deviation, exactly,
    so one diagram serves both scales. A flat window has no topology: all its features are 0. A row depends on its own
    window only, bit for bit.

    Parameters
    ----------
    log_prices : array_like, shape (N, W)
        Natural logarithm of the close (or another one of ``config.series``); W is ``config.longest_window``, and a
        shorter scale reads the end of the window.

    Returns
    -------
    ndarray of float32, shape (N, F)

    Raises
    ------
    ValueError
        For another shape, and for values that are not finite.
    """
    windows = np.ascontiguousarray(log_prices, dtype=np.float64)
    if windows.ndim != 2 or windows.shape[1] != config.longest_window:
        raise ValueError(f"log_prices must have shape (N, {config.longest_window}), got {windows.shape}")
    finite = np.isfinite(windows).all(axis=1)  # (N,)
    if not finite.all():
        raise ValueError(f"window {int(np.argmin(finite))} holds a log price that is not finite; repair the candles")
    features = np.empty((len(windows), len(config.scales), config.features_per_scale), dtype=np.float32)
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        block = slice(start, start + WINDOWS_AT_ONCE)
        for scale, (window, delay) in enumerate(config.scales):
            part = np.ascontiguousarray(windows[block, -window:])  # (n, w)
            clouds = takens_embedding(part, config.embedding_dim, delay)  # (n, P, d)
            begins, diagrams = np.arange(len(part)) * window, diagrams_batch(clouds, config.engine)
            diagram_features(diagrams, part.ravel(), begins, window, config, features[block, scale])
    return features.reshape(len(windows), -1)


def path_features(series: ArrayLike, ends: np.ndarray, window: int, delay: int, config: TdaConfig) -> np.ndarray:
    """Topological features of the windows of one series at one scale; what overlaps is not computed again.

    Shape (N, ``config.features_per_scale``), float32; as `tda_features` gives them for each window, bit for bit.
    `series` is (T,), `ends` (N,) are the last rows of the windows, ascending, `window` and `delay` one of
    ``config.scales``. A value that is not finite is a ValueError.
    """
    series, ends = np.ascontiguousarray(series, dtype=np.float64), np.asarray(ends, dtype=np.int64)
    if not config.slides:
        windows = sliding_window_view(series, window)[ends - window + 1]
        return tda_features(windows, config.model_copy(update={"windows": [window], "delays": [delay]}))
    from cmat_lib.tda.sliding import path_diagrams

    features = np.empty((len(ends), config.features_per_scale), dtype=np.float32)
    for block, diagrams in path_diagrams(series, ends, window, delay):
        diagram_features(diagrams, series, ends[block] - window + 1, window, config, features[block])
    return features


def diagram_features(
    diagrams: list[Bars], series: np.ndarray, begins: np.ndarray, window: int, config: TdaConfig, out: np.ndarray
) -> None:
    """Write the features of N diagrams, H0 and H1, into `out`, (N, ``config.features_per_scale``) float32.

    The bars of a window ascend by birth, then by death; `series`, (T,) float64, is cut into windows at `begins`, (N,).
    """
    wide, layers = config.features_per_dimension, config.landscape_layers
    for place, dimension in enumerate(config.homology_dimensions):
        columns, bars = out[:, place * wide : (place + 1) * wide], diagrams[dimension]
        grid = betti_grid(config, dimension)
        _write_features(bars.bars, bars.offsets, series, begins, window, grid, layers, columns)


def betti_grid(config: TdaConfig, dimension: int) -> np.ndarray:
    """Grid of a Betti curve: ``g[i] = betti_max * (i / (betti_bins - 1)) ** 2``, in window standard deviations.

    Shape (betti_bins,), float64; denser near 0, where most bars end. It is fixed by the parameters: a grid fitted to
    the data would let one extreme window rescale every bin. An unknown dimension is a ValueError.
    """
    if dimension not in config.homology_dimensions:
        raise ValueError(f"dimension {dimension} is not in tda.homology_dimensions {config.homology_dimensions}")
    upper = config.betti_max[config.homology_dimensions.index(dimension)]
    return upper * np.linspace(0.0, 1.0, config.betti_bins) ** 2


def feature_names(config: TdaConfig) -> list[str]:
    """Names of all topology features, in order: by series, by scale, by homology dimension.

    ``h0_betti_000``, ..., ``h0_entropy``, ``h0_landscape_1``, ..., ``h0_total``, ``h1_betti_000``, ...; with several
    series or scales they begin with those, ``log_range_w672d12_h0_total``.
    """
    betti = [f"betti_{i:03d}" for i in range(config.betti_bins)]
    layers = [f"landscape_{k}" for k in range(1, config.landscape_layers + 1)]
    own = [f"h{d}_{name}" for d in config.homology_dimensions for name in [*betti, "entropy", *layers, "total"]]
    return [f"{prefix}{name}" for prefix in _prefixes(config, "_") for name in own]


def feature_groups(config: TdaConfig) -> dict[str, slice]:
    """Columns that belong together: Betti curve, and all other numbers, of each homology dimension, scale and series.

    ``H0 curve``, ``H1 curve``, ``H0 summary``, ``H1 summary``: all columns, each once. With several series or scales
    their names begin with those.

    >>> feature_groups(TdaConfig())["H1 summary"]
    slice(207, 214, None)
    """
    curves, summaries, start = {}, {}, 0
    for prefix in _prefixes(config, " "):
        for d in config.homology_dimensions:
            middle, end = start + config.betti_bins, start + config.features_per_dimension
            curves[f"{prefix}H{d} curve"], summaries[f"{prefix}H{d} summary"] = slice(start, middle), slice(middle, end)
            start = end
    return curves | summaries


def _prefixes(config: TdaConfig, space: str) -> list[str]:
    """What tells the vectors of several series and scales apart; nothing where there is one of a kind."""
    series = [f"{name}{space}" for name in config.series] if len(config.series) > 1 else [""]
    scales = [f"w{window}d{delay}{space}" for window, delay in config.scales] if len(config.scales) > 1 else [""]
    return [one + other for one in series for other in scales]


def feature_params(config: TdaConfig) -> dict:
    """What a feature vector depends on beside its series, window and delay, for the key of the cache."""
    return config.model_dump(exclude={"window_size", "time_delay", "windows", "delays", "series"})


@kernel
def _write_features(bars, offsets, series, begins, window, grid, layers, out):
    """Features of one homology dimension of N windows; a flat window gets zeros."""
    for w in range(len(begins)):
        own, row = bars[offsets[w] : offsets[w + 1]], out[w]
        sigma = _deviation(series[begins[w] : begins[w] + window])
        for i in range(len(row)):
            row[i] = 0.0
        if sigma > 0.0:
            _write_curve(own, sigma, grid, row)
            row[len(grid)], row[len(grid) + 1 + layers] = _entropy_and_total(own)
            _write_norms(own, row[len(grid) + 1 : len(grid) + 1 + layers])


@kernel
def _deviation(values):
    """Standard deviation; the first value is taken off, so that of a flat window is exactly 0."""
    mean = square = 0.0
    for value in values:
        mean += value - values[0]
    mean /= len(values)
    for value in values:
        square += (value - values[0] - mean) ** 2
    return math.sqrt(square / len(values))


@kernel
def _first_from(grid, value):
    """The first place of the grid that is no smaller than a value; three times as fast as numba's searchsorted."""
    low, high = 0, len(grid)
    while low < high:
        middle = (low + high) // 2
        if grid[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _write_curve(bars, sigma, grid, row):
    """Bars alive at each grid point: one more from the first point >= birth, one less from the first >= death."""
    for i in range(len(bars)):
        birth, death = _first_from(grid, bars[i, 0] / sigma), _first_from(grid, bars[i, 1] / sigma)
        if birth < len(grid):
            row[birth] += 1
        if death < len(grid):
            row[death] -= 1
    for i in range(1, len(grid)):
        row[i] += row[i - 1]


@kernel
def _entropy_and_total(bars):
    """Persistence entropy in bits, not normalised, and the sum of the lengths; both 0 for no bars.

    ``-sum(p log2 p)`` with p a bar's share of the total length: Rucco et al. 2016 (arXiv 1512.07613), eq. 1, in the
    base that giotto-tda uses; here as ``log2(total) - sum(length log2(length)) / total``, which needs one pass.
    """
    total = weighted = 0.0
    for i in range(len(bars)):
        length = bars[i, 1] - bars[i, 0]
        total += length
        weighted += length * math.log2(length)
    return (math.log2(total) - weighted / total, total) if len(bars) else (0.0, 0.0)


@kernel
def _write_norms(bars, norms):
    """L2 norms of the first layers of the persistence landscape, by exact integration.

    The first layer is the upper envelope of the bars' tents (Bubenik 2015, JMLR 16, definition 3). It climbs and falls
    with slope 1, and a slope-1 flank from 0 to h has the integral of its square h**3 / 3; so the squared norm is
    ``2/3 * (sum of peaks**3 - sum of valleys**3)``. What the envelope covers, and a bar of each valley's size for every
    crossing, are the bars of the next layer (Bubenik and Dłotko 2017, arXiv 1501.00179, algorithm 1).
    """
    left = len(bars)
    if left and bars[-1, 0] == bars[0, 0]:  # born at once, as in H0: tents lie within each other, the longest on top
        for layer in range(min(left, len(norms))):
            norms[layer] = math.sqrt(_tent(bars[-1 - layer, 1] - bars[-1 - layer, 0]))
        return
    births, deaths = bars[:, 0].copy(), bars[:, 1].copy()
    for layer in range(len(norms)):
        if left == 0:
            return
        square, left = _peel_envelope(births, deaths, left)
        norms[layer] = math.sqrt(square)


@kernel
def _tent(length):
    """Integral of the square of a tent over a bar."""
    return 2.0 / 3.0 * (0.5 * length) ** 3


@kernel
def _peel_envelope(births, deaths, count):
    """Squared norm of the first layer of bars sorted by birth, which are replaced by those of the layers below.

    What is left stays sorted: a crossing leaves a bar that is born where its successor was.
    """
    birth, death = births[0], deaths[0]
    square, left = _tent(death - birth), 0
    for i in range(1, count):
        next_birth, next_death = births[i], deaths[i]
        if next_death <= death:  # covered: goes on as it is
            births[left], deaths[left] = next_birth, next_death
            left += 1
            continue
        valley = max(death - next_birth, 0.0)
        if valley > 0.0:  # the two tents cross: their common part goes on
            births[left], deaths[left] = next_birth, death
            left += 1
        birth, death = next_birth, next_death
        square += _tent(death - birth) - _tent(valley)
    return square, left
