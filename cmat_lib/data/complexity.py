"""Complexity of the log returns in a window: how regular, how predictable, how rough.

The six indicators are antropy's, computed for many windows at once: log returns (N, R) -> (N,). Sample entropy and
Lempel-Ziv complexity, where most of antropy's time goes, have compiled kernels, which tests hold to antropy's. antropy
is imported where it is used: that takes seconds, which those who only read cached features should not wait.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.base.numba_cache import njit
from cmat_lib.config.schema import ComplexityConfig

BLOCK = 256  # windows whose spectra are in memory at once, about 10 MB
RANGE_FLOOR = 0.01  # percent
CONSTANT = 1e-12  # range of log returns that is rounding alone: float64 log prices differ by 2e-15 at best


@dataclass(frozen=True)
class Indicator:
    """One complexity indicator."""

    function: Callable[[np.ndarray, ComplexityConfig], np.ndarray]  # log returns (N, R) -> (N,), NaN where undefined
    low: float  # range that values are clipped to
    high: float
    regular: float  # value of windows with constant returns, and of those where the indicator is undefined


def complexity_features(log_close_windows: ArrayLike, config: ComplexityConfig) -> np.ndarray:
    """Complexity indicators of windows of log closes (N, W), oldest first, which may be a strided view.

    The result, float32 (N, K), is finite, within each indicator's range and independent of price level and volatility.
    Raises a CmatError if the array is not (N, W), W is too short for the parameters, or a value is not finite.
    """
    windows = np.asarray(log_close_windows)
    check_indicators(config.indicators)
    if windows.ndim != 2:
        raise CmatError(f"log_close_windows must have the shape (N, W), got {windows.shape}")
    _check_length(windows.shape[1] - 1, config)
    out = np.empty((len(windows), len(config.indicators)), dtype=np.float32)  # (N, K)
    for start in range(0, len(windows), BLOCK):
        block = windows[start : start + BLOCK].astype(np.float64)  # (n, W)
        if not np.isfinite(block).all():
            row = start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
            raise CmatError(f"log closes of window {row} are not finite: complete or remove the candles it spans")
        returns = np.diff(block, axis=1)  # (n, R)
        constant = np.ptp(returns, axis=1) <= CONSTANT  # (n,)
        for column, indicator in enumerate(INDICATORS[name] for name in config.indicators):
            with np.errstate(divide="ignore", invalid="ignore"):
                measured = indicator.function(returns, config)  # (n,)
            clipped = np.clip(measured, indicator.low, indicator.high)
            out[start : start + BLOCK, column] = np.where(constant | np.isnan(measured), indicator.regular, clipped)
    return out


def path_complexity(log_close: np.ndarray, ends: np.ndarray, config: ComplexityConfig) -> np.ndarray:
    """`complexity_features` of those windows of a series (T,) that end at the rows `ends` (n,), float32 (n, K)."""
    size = config.window_size
    return complexity_features(sliding_window_view(log_close, size)[ends - size + 1], config)


def log_ranges(candles: pd.DataFrame, lengths: Sequence[int]) -> np.ndarray:
    """Log of the range of the last candles, in percent: no complexity, but the scale that the indicators leave out.

    ``log(100 * log(highest high / lowest low) + 0.01)``; what is added gives a flat market a logarithm too. `lengths`
    are candles, the own row included; float32 (T, lengths), NaN in the first rows. Gaps are the caller's to leave out.
    """
    high, low = candles["high"], candles["low"]
    ranges = [np.log(high.rolling(n).max() / low.rolling(n).min()).to_numpy() for n in lengths]
    return np.log(100 * np.reshape(ranges, (len(lengths), len(candles))).T + RANGE_FLOOR).astype(np.float32)


def check_indicators(names: Sequence[str]) -> None:
    """Raise a CmatError for a name that is not in `INDICATORS`, with the nearest one that is."""
    if unknown := [name for name in names if name not in INDICATORS]:
        raise CmatError(f"complexity.indicators: unknown indicator '{unknown[0]}'{nearest(unknown[0], INDICATORS)}")


def _check_length(returns: int, config: ComplexityConfig) -> None:
    needed = {
        "permutation_order or permutation_delay": (config.permutation_order - 1) * config.permutation_delay + 1,
        "sample_order": config.sample_order + 2,
        "higuchi_kmax": 2 * config.higuchi_kmax,
    }
    for keys, least in needed.items():
        if returns < least:
            short = f"windows of {returns + 1} closes are too short, {least + 1} are needed"
            raise CmatError(f"complexity: {short}; raise complexity.window_size or lower complexity.{keys}")


def permutation_entropy(returns: np.ndarray, config: ComplexityConfig) -> np.ndarray:
    """Entropy of ordinal patterns over its maximum, log2(order!); in [0, 1], 0 for a monotone series.

    Bandt and Pompe 2002, Phys. Rev. Lett. 88, 174102. Equal returns keep their order in time.
    """
    from antropy import perm_entropy

    options = {"order": config.permutation_order, "delay": config.permutation_delay, "normalize": True}
    if config.permutation_order in (3, 4):  # the orders that antropy takes for many series at once
        return perm_entropy(returns, **options)
    return np.array([perm_entropy(row, **options) for row in returns])


def sample_entropy(returns: np.ndarray, config: ComplexityConfig) -> np.ndarray:
    """-log of the chance that templates which match for m returns also match for one more; 0 is perfectly regular.

    Richman and Moorman 2000, Am. J. Physiol. 278, H2039: with A and B the pairs that match (every return closer than r
    sigma) for m + 1 and m returns, -log(A / B). It is undefined without matches; then, as for the rarest result that R
    returns can give, it is their upper bound log((R - m)(R - m - 1) / 2): 12.3 for 671 returns.
    """
    tolerance = config.sample_tolerance * returns.std(axis=1)
    longer, shorter = template_matches(returns, config.sample_order, tolerance).T  # (N,) each
    free = returns.shape[1] - config.sample_order
    return np.where(longer > 0, -np.log(longer / shorter), np.log(free * (free - 1) / 2))


def spectral_entropy(returns: np.ndarray, config: ComplexityConfig) -> np.ndarray:
    """Entropy of the normalised Welch spectrum over its maximum; in [0, 1], 1 for a flat spectrum.

    Inouye et al. 1991, Electroenceph. Clin. Neurophysiol. 79, 204. Segments of 256 returns. NaN without any power.
    """
    from antropy import spectral_entropy as entropy

    # Welch leaves out what does not fill a segment at the end; a spectrum has no direction, so let that be the oldest.
    return entropy(returns[:, ::-1], sf=1.0, method="welch", nperseg=min(256, returns.shape[1]), normalize=True)


def lempel_ziv(returns: np.ndarray, config: ComplexityConfig) -> np.ndarray:
    """Distinct phrases in the signs of the returns (rise or not) over R / log2(R); in [0, 2], about 1 for coin flips.

    Lempel and Ziv 1976, IEEE Trans. Inf. Theory 22, 75.
    """
    return count_phrases(returns > 0) * np.log2(returns.shape[1]) / returns.shape[1]


def dfa_exponent(returns: np.ndarray, config: ComplexityConfig) -> np.ndarray:
    """Exponent of detrended fluctuation analysis (Hurst); in [0, 2], 0.5 without memory.

    Peng et al. 1994, Phys. Rev. E 49, 1685. Boxes of 4 returns to a tenth of the window, so that windows under about 60
    closes give a line through one or two points, or 0. NaN if nothing fluctuates in any box.
    """
    from antropy import detrended_fluctuation

    return np.array([detrended_fluctuation(row) for row in returns])


def higuchi_dimension(returns: np.ndarray, config: ComplexityConfig) -> np.ndarray:
    """Fractal dimension of the graph of the returns; in [1, 3], 1 for a smooth line, about 2 for noise.

    Higuchi 1988, Physica D 31, 277. As an estimate it passes 2 when neighbouring returns are opposed. NaN if the
    returns repeat with a period of at most kmax.
    """
    from antropy import higuchi_fd

    return np.array([higuchi_fd(row, kmax=config.higuchi_kmax) for row in returns])


INDICATORS: dict[str, Indicator] = {
    "permutation_entropy": Indicator(permutation_entropy, 0.0, 1.0, regular=0.0),
    "sample_entropy": Indicator(sample_entropy, 0.0, np.inf, regular=0.0),
    "spectral_entropy": Indicator(spectral_entropy, 0.0, 1.0, regular=0.0),
    "lempel_ziv": Indicator(lempel_ziv, 0.0, 2.0, regular=0.0),
    "dfa_exponent": Indicator(dfa_exponent, 0.0, 2.0, regular=0.5),
    "higuchi_dimension": Indicator(higuchi_dimension, 1.0, 3.0, regular=1.0),
}


# Kernels that call each other stand in one file: numba's cache does not notice an edited callee in another one.
@njit(nogil=True, cache=True)
def template_matches(series: np.ndarray, order: int, tolerance: np.ndarray) -> np.ndarray:
    """Pairs of templates that match, the counts behind sample entropy (Richman and Moorman 2000, eq. for A and B).

    Of `series` (N, R) float64; values match if they differ by less than `tolerance` (N,). Pairs (A, B) that match for
    m + 1 and for m = `order` values (below R - 1), int64 (N, 2), if m + 1 values follow both starts.
    """
    count, length = series.shape
    pairs = np.zeros((count, 2), np.int64)
    match = np.empty(length, np.uint8)
    for row in range(count):
        x, r = series[row], tolerance[row]
        # Plain loops over bytes, which the compiler turns into vector instructions.
        for lag in range(1, length - order):
            size = length - lag
            for i in range(size):
                match[i] = abs(x[i] - x[i + lag]) < r
            for _ in range(order - 1):
                size -= 1
                for i in range(size):
                    match[i] &= match[i + 1]
                # after k rounds, match[i] says that k + 1 values from i on match
            longer = shorter = np.int32(0)
            for i in range(length - lag - order):
                shorter += match[i]
            for i in range(length - lag - order):
                longer += match[i] & match[i + 1]
            pairs[row, 0] += longer
            pairs[row, 1] += shorter
    return pairs


@njit(nogil=True, cache=True)
def count_phrases(signs: np.ndarray) -> np.ndarray:
    """Phrases of the parsing of Lempel and Ziv (1976), of (N, R) bool, (N,) int64.

    A phrase is the longest sequence that also starts earlier, and one symbol more. 64 symbols are compared at once: the
    lowest bit in which two codes differ marks the length of their match.
    """
    count, length = signs.shape
    phrases = np.zeros(count, np.int64)
    codes = np.empty(length, np.uint64)  # symbols i ... i + 63, lowest bit first
    for row in range(count):
        code = np.uint64(0)
        for i in range(length - 1, -1, -1):
            code = (code << np.uint64(1)) | np.uint64(signs[row, i])
            codes[i] = code
        start, phrases[row] = 1, 1
        while start < length:
            start += _longest_match(signs[row], codes, start) + 1
            phrases[row] += 1
    return phrases


@njit(nogil=True, cache=True)
def _longest_match(symbols: np.ndarray, codes: np.ndarray, start: int) -> int:
    """Length of the longest sequence from `start` on that also starts earlier."""
    farthest, whole = np.uint64(0), False
    for i in range(start):
        differ = codes[i] ^ codes[start]
        whole |= differ == np.uint64(0)
        farthest = max(farthest, differ & (~differ + np.uint64(1)))
    longest = 0
    while farthest > np.uint64(1) and not whole:
        farthest >>= np.uint64(1)
        longest += 1
    for i in range(start if whole else 0):  # 64 symbols are equal: count one by one
        size = 0
        while start + size < symbols.size and symbols[i + size] == symbols[start + size]:
            size += 1
        longest = max(longest, size)
    return longest
