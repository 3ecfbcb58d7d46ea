"""Calibration: right, plain enough for a checkpoint, and made of scikit-learn's isotonic ranges."""

import io

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from cmat_lib.base.errors import CmatError
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


def test_a_knot_for_each_range_of_sklearn_at_its_mean_score():
    _, trigger, score = distorted(500, 2)
    ranges = IsotonicRegression().fit_transform(score, trigger)
    levels = np.unique(ranges)
    knots = fit_calibration(score, trigger)
    np.testing.assert_allclose(knots["y"], levels)
    np.testing.assert_allclose(knots["x"], [score[ranges == level].mean() for level in levels])
    assert 5 < len(levels) < 50


def test_straight_between_the_knots_and_constant_outside():
    knots = {"method": "isotonic", "x": [0.2, 0.4, 0.8], "y": [0.1, 0.2, 0.6]}
    found = apply_calibration(np.array([-1, 0.2, 0.3, 0.6, 0.8, 2]), knots)
    np.testing.assert_allclose(found, [0.1, 0.1, 0.15, 0.4, 0.6, 0.6])


def test_what_rounding_does_to_a_score_does_not_show_in_the_probability():
    """scikit-learn's own steps turn 1e-7 into more than 1e-4 somewhere on the same data."""
    _, trigger, score = distorted(20000, 4)
    knots = fit_calibration(score, trigger)
    slopes = np.diff(knots["y"]) / np.diff(knots["x"])
    stepped = IsotonicRegression().fit(score, trigger)
    steps = np.diff(stepped.y_thresholds_) / np.diff(stepped.X_thresholds_)
    assert slopes.max() < 100 < 1000 < steps.max()


@pytest.mark.parametrize("method", ["isotonic", "temperature"])
def test_calibration_travels_in_a_weights_only_checkpoint(method):
    _, trigger, score = distorted(500, 3)
    knots = fit_calibration(score.astype(np.float32), trigger, method)
    file = io.BytesIO()
    torch.save({"calibration": knots}, file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["calibration"] == knots


def platt(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores that are twice as sure as they may be and shifted by the weight of a balanced loss."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-3, 1, count)
    truth = 1 / (1 + np.exp(-logits))
    return truth, (rng.random(count) < truth).astype(float), 1 / (1 + np.exp(-(2 * logits + 5)))


def test_temperature_finds_slope_and_bias():
    _, trigger, score = platt(50_000, 0)
    found = fit_calibration(score, trigger, "temperature")
    assert found["slope"] == pytest.approx(0.5, abs=0.03) and found["bias"] == pytest.approx(-2.5, abs=0.1)
    truth, _, fresh = platt(5000, 1)
    np.testing.assert_allclose(apply_calibration(fresh, found), truth, atol=0.02)


def test_temperature_minimises_log_loss():
    _, trigger, score = distorted(3000, 5)
    found = fit_calibration(score, trigger, "temperature")
    best = log_loss(trigger, apply_calibration(score, found))
    for change in ({"slope": 0.05}, {"slope": -0.05}, {"bias": 0.05}, {"bias": -0.05}):
        moved = found | {name: found[name] + step for name, step in change.items()}
        assert log_loss(trigger, apply_calibration(score, moved)) > best


def test_temperature_never_turns_the_ranking_round():
    _, trigger, score = distorted(2000, 6)
    found = fit_calibration(1 - score, trigger, "temperature")
    np.testing.assert_allclose(apply_calibration(np.array([0.1, 0.9]), found), trigger.mean())


def test_temperature_needs_scores_with_a_logit():
    found = fit_calibration([0, 0.4, 0.6, 1], [0, 1, 0, 1], "temperature")
    assert np.isfinite(apply_calibration(np.array([0.0, 1.0]), found)).all()
    with pytest.raises(CmatError, match=r"evaluation\.calibration: isotonic"):
        fit_calibration(np.array([-0.1, 0.5, 0.6]), np.array([0, 1, 0]), "temperature")


def test_one_class_is_an_error():
    with pytest.raises(CmatError, match=r"data\.split_shares"):
        fit_calibration(np.array([0.1, 0.2]), np.array([0, 0]))


@pytest.mark.filterwarnings("error")
def test_a_score_that_says_nothing_becomes_the_base_rate():
    trigger = np.array([0.0, 0, 0, 1])
    fitted = fit_calibration(np.full(4, 0.3), trigger, "temperature")
    np.testing.assert_allclose(apply_calibration(np.array([0.1, 0.9]), fitted), 0.25)
