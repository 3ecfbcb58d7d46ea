"""Calibration: from a score to a probability that means what it says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.isotonic import IsotonicRegression

from cmat_lib.errors import CmatError


def fit_calibration(probability: np.ndarray, trigger: np.ndarray) -> dict[str, list[float]]:
    """Isotonic calibration of a score on the calibrate part.

    Isotonic regression (Zadrozny & Elkan 2002) assumes only that a higher score means a higher probability, which a
    focal loss with class weights leaves true while it distorts the scale. It maps ranges to one value: rank by the
    raw score, use the calibrated one for probabilities, thresholds and the Brier score.

    Parameters
    ----------
    probability : (N,) array
        Raw scores.
    trigger : (N,) array
        0 or 1.

    Returns
    -------
    dict
        Knots ``x`` (raw, ascending) and ``y`` (calibrated, not descending) as lists of plain floats, ready for a
        checkpoint.

    Raises
    ------
    CmatError
        If `trigger` has one class only.
    """
    trigger = np.asarray(trigger, np.float64)
    if len(np.unique(trigger)) < 2:
        raise CmatError("calibration: triggers only or none; give the calibrate part more time (data.split_shares)")
    isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    fitted = isotonic.fit(np.asarray(probability, np.float64), trigger)
    return {"x": fitted.X_thresholds_.tolist(), "y": fitted.y_thresholds_.tolist()}


def apply_calibration(probability: np.ndarray, knots: Mapping[str, list[float]]) -> np.ndarray:
    """Calibrated probabilities, (N,) float64, by linear interpolation between the knots and constant outside them."""
    return np.interp(np.asarray(probability, np.float64), knots["x"], knots["y"])
