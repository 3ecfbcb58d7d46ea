"""Diagrams of known clouds, for every engine."""

import logging

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

from cmat_lib.base.errors import CmatError
from cmat_lib.tda import persistence, rips_diagrams
from cmat_lib.tda.persistence import diagrams_batch

ENGINES = ["planar", "giotto", "weak_alpha"]
FLOAT32 = 1e-6  # giotto-tda computes in single precision: 6e-8 of the largest distance, here about 2


def circle(points):
    angle = 2 * np.pi * np.arange(points) / points
    return np.column_stack([np.cos(angle), np.sin(angle)])


@pytest.mark.parametrize("engine", ENGINES)
def test_square_has_one_loop_from_side_to_diagonal(engine):
    h0, h1 = rips_diagrams([[0, 0], [0, 1], [1, 1.0], [1, 0]], engine)
    np.testing.assert_allclose(h0, [[0, 1]] * 3, atol=FLOAT32)
    if engine != "weak_alpha":  # a triangulated square: the weak alpha complex never sees the loop
        np.testing.assert_allclose(h1, [[1, np.sqrt(2)]], atol=FLOAT32)


@pytest.mark.parametrize("engine", ["planar", "giotto"])
def test_circle_has_one_loop(engine):
    _, h1 = rips_diagrams(circle(12), engine)
    side, third = 2 * np.sin(np.pi / 12), np.sqrt(3)  # neighbours; the triangle that first spans the centre
    np.testing.assert_allclose(h1, [[side, third]], atol=FLOAT32)


@pytest.mark.parametrize("engine", ENGINES)
def test_h0_deaths_are_the_minimum_spanning_tree(engine):
    cloud = np.random.default_rng(3).normal(size=(60, 2))
    tree = minimum_spanning_tree(squareform(pdist(cloud)))
    h0, _ = rips_diagrams(cloud, engine)
    np.testing.assert_allclose(np.sort(h0[:, 1]), np.sort(tree.data), atol=FLOAT32)
    assert not h0[:, 0].any()


def test_planar_equals_giotto_on_a_random_cloud():
    cloud = np.cumsum(np.random.default_rng(4).normal(size=(80, 2)), axis=0)
    scale = np.ptp(cloud)
    for ours, reference in zip(rips_diagrams(cloud, "planar"), rips_diagrams(cloud, "giotto"), strict=True):
        np.testing.assert_allclose(_sorted(ours), _sorted(reference), atol=FLOAT32 * scale)


@pytest.mark.parametrize("engine", ENGINES)
def test_batch_equals_single_clouds(engine):
    clouds = np.random.default_rng(5).normal(size=(4, 30, 2))
    batch = diagrams_batch(clouds, engine)
    for dimension, (bars, offsets) in enumerate(batch):
        assert (offsets.shape, offsets.dtype, bars.dtype) == ((5,), np.int64, np.float64)
        for i, cloud in enumerate(clouds):
            own = bars[offsets[i] : offsets[i + 1]]
            np.testing.assert_array_equal(_sorted(own), _sorted(rips_diagrams(cloud, engine)[dimension]))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cloud", [np.zeros((0, 2)), np.ones((1, 2)), np.full((9, 2), 11.3)], ids=len)
def test_clouds_without_topology_give_empty_diagrams(engine, cloud):
    assert [d.shape for d in rips_diagrams(cloud, engine)] == [(0, 2), (0, 2)]


@pytest.mark.parametrize("engine", ENGINES)
def test_collinear_points_give_their_gaps(engine):
    x = np.array([0.0, 1, 3, 3, 7])
    h0, h1 = rips_diagrams(np.column_stack([x, 2 * x]), engine)
    np.testing.assert_allclose(np.sort(h0[:, 1]), np.sqrt(5) * np.array([1, 2, 4]), rtol=FLOAT32)
    assert h1.shape == (0, 2)


def test_weak_alpha_survives_points_that_qhull_merges():
    cloud = np.random.default_rng(6).normal(size=(40, 2))
    near = np.concatenate([cloud, cloud[:20] + 1e-15, cloud[:5]])
    for bars, reference in zip(rips_diagrams(near, "weak_alpha"), rips_diagrams(cloud, "weak_alpha"), strict=True):
        np.testing.assert_allclose(_sorted(bars), _sorted(reference), atol=FLOAT32)


def test_three_coordinates_fall_back_to_giotto_and_say_so_once(caplog):
    persistence.say_fallback.cache_clear()
    cloud = np.random.default_rng(7).normal(size=(20, 3))
    with caplog.at_level(logging.WARNING):
        first, _ = rips_diagrams(cloud, "planar"), rips_diagrams(cloud, "planar")
    assert [record.getMessage().count("embedding_dim 3") for record in caplog.records] == [1]
    np.testing.assert_array_equal(first[0], rips_diagrams(cloud, "giotto")[0])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="cloud 1, row 0 is"):
        diagrams_batch(np.array([np.zeros((3, 2)), np.full((3, 2), np.nan)]))
    with pytest.raises(ValueError, match=r"shape \(P, d\)"):
        rips_diagrams(np.zeros(3))
    with pytest.raises(CmatError, match="unknown engine 'ripser'; choose one of planar, giotto, weak_alpha"):
        rips_diagrams(np.zeros((3, 2)), "ripser")


def _sorted(bars):
    return bars[np.lexsort(bars.T)]
