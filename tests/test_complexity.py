"""Complexity: equal to antropy, known values, defined for every window, independent of scale."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import antropy
import numpy as np
import pandas as pd
import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.config.inputs import COMPLEXITY_INDICATORS, ComplexityConfig
from cmat_lib.data.complexity import INDICATORS, complexity_features, count_phrases, log_ranges, template_matches

CONFIG = ComplexityConfig()


def windows_of(returns):
    """Log closes whose differences are these returns, exactly where that is possible: (N, R) -> (N, R + 1)."""
    returns = np.atleast_2d(returns)
    return np.concatenate([np.zeros((len(returns), 1)), np.cumsum(returns, axis=1)], axis=1)


def reference(returns, config=CONFIG):
    """The six indicators of one series (R,), straight from antropy."""
    signs = (returns > 0).astype(np.uint32)
    segment, free = min(256, returns.size), returns.size - config.sample_order
    sample = antropy.sample_entropy(returns, config.sample_order, float(config.sample_tolerance * returns.std()))
    return [
        antropy.perm_entropy(returns, config.permutation_order, config.permutation_delay, normalize=True),
        sample if np.isfinite(sample) else np.log(free * (free - 1) / 2),
        antropy.spectral_entropy(returns[::-1], 1.0, method="welch", nperseg=segment, normalize=True),
        antropy.lziv_complexity(signs) * np.log2(returns.size) / returns.size,
        antropy.detrended_fluctuation(returns),
        antropy.higuchi_fd(returns, kmax=config.higuchi_kmax),
    ]


def assert_equals_antropy(windows, config=CONFIG):
    expected = np.array([reference(row, config) for row in np.diff(windows, axis=1)])
    low = np.array([INDICATORS[name].low for name in COMPLEXITY_INDICATORS])
    high = np.array([INDICATORS[name].high for name in COMPLEXITY_INDICATORS])
    found = complexity_features(windows, config)
    np.testing.assert_allclose(found, np.clip(expected, low, high), rtol=1e-6, atol=1e-6)


def one(returns, name, config=CONFIG):
    return float(complexity_features(windows_of(returns), config)[0, COMPLEXITY_INDICATORS.index(name)])


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("length", [672, 168, 61])
def test_equals_antropy_on_synthetic_windows(length):
    rng = np.random.default_rng(length)
    noise = rng.standard_t(3, (8, length - 1)) * 0.003
    rough = np.diff(rng.standard_normal((4, length)), axis=1)
    smooth = np.sin(np.arange(length - 1) * 0.3 + np.arange(3)[:, None]) + 0.1 * noise[:3] / 0.003
    ticks = np.round(noise[:4], 3)  # many equal and many zero returns
    assert_equals_antropy(windows_of(np.concatenate([noise, rough, smooth, ticks])))


def test_equals_antropy_with_other_parameters():
    config = ComplexityConfig(
        permutation_order=5, permutation_delay=2, sample_order=3, sample_tolerance=0.5, higuchi_kmax=6
    )
    returns = np.random.default_rng(0).standard_normal((4, 200))
    assert_equals_antropy(windows_of(returns), config)
    changed = np.abs(
        complexity_features(windows_of(returns), config) - complexity_features(windows_of(returns), CONFIG)
    )
    assert (changed.max(axis=0)[[0, 1, 5]] > 0.01).all()


@pytest.mark.parametrize("symbol", ["BTC", "ETH", "SOL", "XRP"])
def test_equals_antropy_on_real_windows(symbol):
    folder = os.environ.get("CMAT_TEST_DATA")
    if not folder:
        pytest.skip("CMAT_TEST_DATA names no folder of real candles")
    close = pd.read_parquet(Path(folder) / f"{symbol}USDT_15m.parquet")["close"].to_numpy(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(np.log(close), 672)
    assert_equals_antropy(windows[::1500])


def test_kernels_count_as_antropy_does_on_edge_cases():
    rng = np.random.default_rng(1)
    series = [np.zeros(300, bool), np.ones(300, bool), np.arange(300) % 2 == 0, np.arange(300) // 90 % 2 == 0]
    series += [rng.random(300) < chance for chance in (0.001, 0.01, 0.1, 0.5)]
    series += [np.tile(rng.random(100) < 0.5, 3), np.r_[np.zeros(299, bool), True]]  # matches beyond 64 symbols
    for length in (2, 3, 63, 64, 65, 130, 300):
        signs = np.array([row[:length] for row in series])
        expected = [antropy.lziv_complexity(row.astype(np.uint32)) for row in signs]
        np.testing.assert_array_equal(count_phrases(signs), expected)


def test_template_matches_against_the_definition():
    x = np.random.default_rng(2).integers(0, 4, 40).astype(float)
    for order in (1, 2, 3):
        ends = len(x) - order
        expected = [0, 0]
        for i in range(ends):
            for j in range(i + 1, ends):
                close = np.abs(x[i : i + order + 1] - x[j : j + order + 1]) < 2.0  # the tolerance itself is no match
                expected[0] += close.all()
                expected[1] += close[:order].all()
        np.testing.assert_array_equal(template_matches(x[None], order, np.array([2.0]))[0], expected)


# Known values


def test_monotone_returns_have_one_pattern():
    assert one(np.arange(200.0), "permutation_entropy") == 0
    assert one(-np.arange(200.0), "permutation_entropy") == 0


def test_permutation_entropy_of_a_known_mixture():
    # patterns of order 2 among 4, 7, 9, 10, 6, 11, 3: four rises, two falls (Bandt and Pompe 2002)
    config = ComplexityConfig(permutation_order=2)
    returns = np.tile([4.0, 7, 9, 10, 6, 11, 3], 30)[:-1]
    rises = (np.diff(returns) > 0).mean()
    expected = -(rises * np.log2(rises) + (1 - rises) * np.log2(1 - rises))
    assert one(returns, "permutation_entropy", config) == pytest.approx(expected, abs=1e-6)


def test_white_noise():
    noise = np.random.default_rng(3).standard_normal((20, 671))
    mean = dict(zip(COMPLEXITY_INDICATORS, complexity_features(windows_of(noise), CONFIG).mean(axis=0), strict=True))
    assert mean["permutation_entropy"] > 0.995
    # two returns of a Gaussian differ by less than 0.2 sigma with the chance 0.1125
    assert mean["sample_entropy"] == pytest.approx(-np.log(0.1125), abs=0.05)
    assert mean["spectral_entropy"] == pytest.approx(0.97, abs=0.01)
    assert mean["lempel_ziv"] == pytest.approx(1.06, abs=0.03)
    assert mean["dfa_exponent"] == pytest.approx(0.52, abs=0.04)
    assert mean["higuchi_dimension"] == pytest.approx(2.0, abs=0.02)


def test_order_and_persistence_are_told_from_noise():
    rng = np.random.default_rng(4)
    noise = rng.standard_normal(671)
    walk, opposed, wave = np.cumsum(noise), np.diff(rng.standard_normal(672)), np.sin(np.arange(671) / 5)
    assert one(walk, "dfa_exponent") > 1.3 > 0.7 > one(noise, "dfa_exponent") > 0.3 > one(opposed, "dfa_exponent")
    assert one(wave, "sample_entropy") < 0.3 and one(wave, "spectral_entropy") < 0.4
    assert one(wave, "lempel_ziv") < 0.3 and one(wave, "higuchi_dimension") < 1.2
    assert one(walk, "higuchi_dimension") == pytest.approx(1.5, abs=0.1)


# Defined for every window

REGULAR = [0, 0, 0, 0, 0.5, 1]


def test_constant_windows_have_the_stated_values():
    flat = np.full(672, 4.2)
    line = 9.0 + 1e-4 * np.arange(672)  # constant growth, its returns differ by rounding alone
    crash = 9.0 - 1e-4 * np.arange(672)
    np.testing.assert_allclose(complexity_features(np.stack([flat, line, crash]), CONFIG), [REGULAR] * 3)


@pytest.mark.parametrize("length", [32, 168, 672])
def test_odd_windows_are_finite_and_in_range(length):
    rng = np.random.default_rng(5)
    odd = np.zeros((40, length - 1))
    for row, place in enumerate([0, 1, length // 2, length - 3, length - 2]):
        odd[row, place] = 0.5  # one jump
        odd[5 + row, place] = -1e-11  # one tick, the smallest
    odd[10] = np.tile([1.0, -1.0], length)[: length - 1]  # Higuchi lengths of 0
    odd[11] = np.tile([1.0, 2.0, 3.0], length)[: length - 1]
    odd[12] = 1e-9 * rng.standard_normal(length - 1)
    odd[13] = 50 * rng.standard_normal(length - 1)
    odd[14] = np.cumsum(np.cumsum(rng.standard_normal(length - 1)))
    odd[15, ::7] = rng.standard_normal(odd[15, ::7].size)
    odd[16] = 2.0 ** np.arange(length - 1) / 2.0 ** (length - 1)  # no two templates match
    odd[17:] = rng.standard_cauchy((23, length - 1))
    values = complexity_features(windows_of(odd), CONFIG)
    assert np.isfinite(values).all()
    for column, name in enumerate(COMPLEXITY_INDICATORS):
        high = INDICATORS[name].high if np.isfinite(INDICATORS[name].high) else np.log(length**2 / 2)
        assert (values[:, column] >= INDICATORS[name].low).all() and (values[:, column] <= high).all(), name


def test_sample_entropy_without_matches_is_its_upper_bound():
    wild = 2.0 ** np.arange(31) * np.tile([1.0, -1.0], 16)[:31]
    config = ComplexityConfig(sample_tolerance=1e-12)
    assert one(wild, "sample_entropy", config) == pytest.approx(np.log(29 * 28 / 2), rel=1e-6)


def test_spectrum_sees_the_newest_returns_and_not_the_oldest():
    first, last = np.zeros(671), np.zeros(671)
    first[25], last[-25] = 1.0, 1.0
    assert one(last, "spectral_entropy") > 0.5
    assert one(first, "spectral_entropy") == 0


def test_level_and_volatility_do_not_matter():
    returns = np.random.default_rng(6).standard_t(3, (5, 300)) * 2.0**-8
    plain = complexity_features(windows_of(returns), CONFIG)
    np.testing.assert_allclose(complexity_features(windows_of(returns * 64), CONFIG), plain, rtol=1e-6)
    np.testing.assert_allclose(complexity_features(windows_of(returns) + 11.0, CONFIG), plain, rtol=1e-5)


def test_each_window_stands_alone():
    """A window's values depend on nothing else in the call, also beyond one block, and strided views are read right."""
    series = np.cumsum(np.random.default_rng(7).standard_normal(420))
    views = np.lib.stride_tricks.sliding_window_view(series, 100)
    whole = complexity_features(views, CONFIG)
    assert whole.shape == (321, 6) and whole.dtype == np.float32
    np.testing.assert_array_equal(complexity_features(views[255:258].copy(), CONFIG), whole[255:258])
    assert complexity_features(views[:0], CONFIG).shape == (0, 6)


def test_indicators_come_in_the_order_asked_for():
    chosen = ComplexityConfig(indicators=["higuchi_dimension", "permutation_entropy"])
    windows = windows_of(np.random.default_rng(8).standard_normal((3, 100)))
    np.testing.assert_array_equal(complexity_features(windows, chosen), complexity_features(windows, CONFIG)[:, [5, 0]])
    assert tuple(INDICATORS) == COMPLEXITY_INDICATORS


# Errors


def test_not_finite_closes_name_the_window():
    windows = windows_of(np.random.default_rng(9).standard_normal((300, 50)))
    windows[270, 3] = np.inf
    with pytest.raises(CmatError, match="window 270 are not finite"):
        complexity_features(windows, CONFIG)


def test_windows_too_short_for_the_parameters():
    with pytest.raises(CmatError, match=r"windows of 40 closes are too short, 61 are needed.*complexity.higuchi_kmax"):
        complexity_features(np.zeros((1, 40)), ComplexityConfig(higuchi_kmax=30))
    with pytest.raises(CmatError, match=r"complexity.permutation_order or permutation_delay"):
        complexity_features(np.zeros((1, 40)), ComplexityConfig(permutation_delay=30))
    with pytest.raises(CmatError, match=r"shape \(N, W\), got \(40,\)"):
        complexity_features(np.zeros(40), CONFIG)


def test_antropy_is_imported_late():
    code = "import sys, cmat_lib.data.complexity; sys.exit('antropy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_log_ranges_by_hand():
    index = pd.date_range("2025-01-01", periods=4, freq="15min", tz="UTC")
    candles = pd.DataFrame({"high": [11.0, 12.0, 10.0, 10.0], "low": [9.0, 11.0, 10.0, 10.0]}, index=index)
    found = log_ranges(candles, [1, 2])
    ratios = np.array([[11 / 9, np.nan], [12 / 11, 12 / 9], [1, 12 / 10], [1, 1]])
    np.testing.assert_allclose(found, np.log(100 * np.log(ratios) + 0.01), rtol=1e-6)
    assert log_ranges(candles, []).shape == (4, 0)
