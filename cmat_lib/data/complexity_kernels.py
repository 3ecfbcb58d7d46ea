"""Compiled counts for `complexity`: pairs of matching templates, and Lempel-Ziv phrases.

Kernels that call each other stand in one file: numba's cache does not notice an edited callee in another one.
"""

import numpy as np

from cmat_lib.base.numba_cache import njit


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
