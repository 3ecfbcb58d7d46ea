"""Isotonic calibration: right, plain enough for a checkpoint, and equal to scikit-learn's."""

import io

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression

from cmat_lib.errors import CmatError
from cmat_lib.evaluation.calibration import apply_calibration, fit_calibration


def distorted(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True probabilities, triggers drawn from them, and a score that ranks right but reads far too high."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(1, 12, count)
    return truth, (rng.random(count) < truth).astype(float), truth**0.25


def test_calibration_recovers_the_true_probability():
    _, trigger, score = distorted(20000, 0)
    truth, _, fresh = distorted(20000, 1)
    found = apply_calibration(fresh, fit_calibration(score, trigger))
    assert np.abs(fresh - truth).mean() > 0.3
    assert np.abs(found - truth).mean() < 0.012
    assert (np.diff(found[np.argsort(fresh)]) >= 0).all()


def test_equal_to_sklearn_also_outside_the_knots():
    _, trigger, score = distorted(500, 2)
    grid = np.linspace(-0.5, 1.5, 1001)
    expected = IsotonicRegression(out_of_bounds="clip").fit(score, trigger).predict(grid)
    np.testing.assert_allclose(apply_calibration(grid, fit_calibration(score, trigger)), expected, atol=1e-12)


def test_knots_travel_in_a_weights_only_checkpoint():
    _, trigger, score = distorted(500, 3)
    knots = fit_calibration(score.astype(np.float32), trigger)
    file = io.BytesIO()
    torch.save({"calibration": knots}, file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["calibration"] == knots


def test_one_class_is_an_error():
    with pytest.raises(CmatError, match=r"data\.split_shares"):
        fit_calibration(np.array([0.1, 0.2]), np.array([0, 0]))
