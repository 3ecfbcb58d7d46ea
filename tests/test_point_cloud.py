"""Delay embedding."""

import numpy as np
import pytest
from gtda.time_series import SingleTakensEmbedding

from cmat_lib.tda import takens_embedding


def test_points_are_delayed_copies_in_order():
    cloud = takens_embedding(np.arange(7.0), dimension=3, delay=2)
    assert cloud.tolist() == [[0, 2, 4], [1, 3, 5], [2, 4, 6]]


def test_equals_giotto_tda():
    series = np.random.default_rng(0).normal(size=101)
    reference = SingleTakensEmbedding(parameters_type="fixed", dimension=4, time_delay=7).fit_transform(series)
    np.testing.assert_array_equal(takens_embedding(series, 4, 7), reference)


def test_windows_are_embedded_one_by_one():
    windows = np.random.default_rng(1).normal(size=(3, 50))
    clouds = takens_embedding(windows, 2, 12)
    assert clouds.shape == (3, 38, 2)
    for window, cloud in zip(windows, clouds, strict=True):
        np.testing.assert_array_equal(cloud, takens_embedding(window, 2, 12))


def test_result_does_not_share_memory_with_the_series():
    series = np.arange(5.0)
    takens_embedding(series, 2, 1)[:] = -1
    assert series.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("shape", "dimension", "delay", "message"),
    [
        ((12,), 2, 12, "12 values hold no point: dimension 2, delay 12 needs 13"),
        ((2, 3, 4), 2, 1, r"shape \(T,\) or \(N, W\)"),
        ((9,), 0, 1, "at least 1"),
        ((9,), 2, 0, "at least 1"),
    ],
)
def test_impossible_requests_are_refused(shape, dimension, delay, message):
    with pytest.raises(ValueError, match=message):
        takens_embedding(np.zeros(shape), dimension, delay)
