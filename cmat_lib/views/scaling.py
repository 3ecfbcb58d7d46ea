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
    center, scale = (np.nan_to_num(x, nan=empty).tolist() for x, empty in ((scaler.center_, 0.0), (scaler.scale_, 1.0)))
    return {"center": center, "scale": scale}


def fit_scalers(
    views: list[View], arrays: Mapping[str, np.ndarray], samples: pd.DataFrame, config: Config
) -> dict[str, Scaler]:
    """Scaler of every view.

    Parameters
    ----------
    arrays : mapping of str to ndarray, shape (R, F)
        Numbers of each view.
    samples : DataFrame of N rows
        With their ``part``, and see `sample_rows_of`.
    """
    train = np.flatnonzero(samples["part"] == "train")
    rows = {view.name: sample_rows_of(view, samples)[train] for view in views}
    scale = {view.name: view.scale or _scale for view in views}
    return {name: scale[name](arrays[name], own, config) for name, own in rows.items()}


def _scale(values: np.ndarray, rows: np.ndarray, config: Config) -> Scaler:
    return robust(values[rows])


def sample_rows_of(view: View, samples: pd.DataFrame) -> np.ndarray:
    """Row of a view's numbers at which each sample ends, (N,) int64."""
    if view.by_candle:
        return samples["row"].to_numpy()
    column = row_column(view)
    return samples[column].to_numpy() if column in samples else np.arange(len(samples))


def row_column(view: View) -> str:
    """Column of the samples with a view's rows, where these are neither candles nor samples."""
    return f"row_{view.name}"
