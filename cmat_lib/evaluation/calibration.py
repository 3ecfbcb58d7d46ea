"""Calibration: from a score to a probability that means what it says."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from cmat_lib.base.errors import CmatError

EDGE = 1e-7  # a probability of 0 or 1 has no logit


def fit_calibration(score: np.ndarray, trigger: np.ndarray, method: str = "isotonic") -> dict[str, Any]:
    """Calibration of a score: ``method`` and its plain numbers, ready for a checkpoint.

    ``isotonic`` assumes only that a higher score means a higher probability, which a focal loss with class weights
    leaves true while it distorts the scale (Zadrozny & Elkan 2002). It is centred (Oron & Flournoy 2017, Statistics in
    Biopharmaceutical Research 9, 258): each range of scores with one fitted value becomes one knot at its mean score,
    ``x`` (ascending) and ``y`` (not descending), with straight lines between. Isotonic regression itself jumps from
    range to range, within less than what rounding does to a score. It is constant beyond the outer knots.

    ``temperature`` fits ``logit p = slope * logit(score) + bias`` by log loss, with ``slope`` at least 0: temperature
    scaling (Guo et al. 2017; temperature is 1 / slope) with the ``bias`` that class weights make necessary (Platt
    1999). It keeps the ranking and needs fewer triggers, but it can only stretch and shift. A score outside [0, 1] is
    a `CmatError` then, and one class only in any case.
    """
    score, trigger = np.asarray(score, np.float64), np.asarray(trigger, np.float64)
    if len(np.unique(trigger)) < 2:
        raise CmatError("calibration: triggers only or none; give the calibrate part more time (data.split_shares)")
    if method == "isotonic":
        fitted = IsotonicRegression(y_min=0, y_max=1).fit_transform(score, trigger)
        knots = pd.Series(score).groupby(fitted).mean()
        return {"method": method, "x": knots.tolist(), "y": knots.index.tolist()}
    if score.min() < 0 or score.max() > 1:
        raise CmatError("calibration: temperature needs scores between 0 and 1; set evaluation.calibration: isotonic")
    level = {"method": method, "slope": 0.0, "bias": float(logit(trigger.mean()))}
    if np.ptp(score) == 0:
        return level
    fitted = LogisticRegression(penalty=None, solver="newton-cholesky").fit(_logit(score)[:, None], trigger)
    if fitted.coef_[0, 0] < 0:  # on these rows the score ranks backwards; a probability must not turn it round
        return level
    return {"method": method, "slope": float(fitted.coef_[0, 0]), "bias": float(fitted.intercept_[0])}


def apply_calibration(score: np.ndarray, calibration: Mapping[str, Any]) -> np.ndarray:
    """Calibrated probabilities, (N,) float64, for raw scores (N,) and the result of `fit_calibration`."""
    score = np.asarray(score, np.float64)
    if calibration["method"] == "isotonic":
        return np.interp(score, calibration["x"], calibration["y"])
    return expit(calibration["slope"] * _logit(score) + calibration["bias"])


def _logit(score: np.ndarray) -> np.ndarray:
    return logit(np.clip(score, EDGE, 1 - EDGE))
