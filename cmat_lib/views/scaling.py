"""Centres and scales of a view's numbers, from the training part alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cmat_lib.config import Config
from cmat_lib.views.registry import Scaler, View


def robust(values: np.ndarray) -> Scaler:
    """Medians and interquartile ranges of the columns (n, F), as single candles of −33 % happen; NaN is left out."""
    from sklearn.preprocessing import RobustScaler  # a second, which who only asks for names need not wait

    scaler = RobustScaler().fit(values)
    center, scale = np.nan_to_num(scaler.center_, nan=0.0), np.nan_to_num(scaler.scale_, nan=1.0)
    return {"center": center.tolist(), "scale": scale.tolist()}


def fit_scalers(
    views: list[View], arrays: Mapping[str, np.ndarray], samples: pd.DataFrame, config: Config
) -> dict[str, Scaler]:
    """Scaler of every view, from its numbers (R, F) at the samples whose ``part`` is train."""
    train, scalers = np.flatnonzero(samples["part"] == "train"), {}
    for view in views:
        values, rows = arrays[view.name], sample_rows_of(view, samples)[train]
        scalers[view.name] = view.scale(values, rows, config) if view.scale else robust(values[rows])
    return scalers


def sample_rows_of(view: View, samples: pd.DataFrame) -> np.ndarray:
    """Row of a view's numbers at which each sample ends, (N,) int64."""
    if view.by_candle:
        return samples["row"].to_numpy()
    column = row_column(view)
    return samples[column].to_numpy() if column in samples else np.arange(len(samples))


def row_column(view: View) -> str:
    """Column of the samples with a view's rows, where these are neither candles nor samples."""
    return f"row_{view.name}"
