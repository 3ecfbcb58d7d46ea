"""Clouds of points: from a series by the Takens delay embedding, and what a cloud must be."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

LARGEST = 1e150  # squares of larger coordinates are no longer finite


def takens_embedding(series: ArrayLike, dimension: int, delay: int) -> np.ndarray:
    """Embed one series, or many windows at once, by time delays.

    Point ``i`` is ``(x[i], x[i + delay], ..., x[i + (dimension - 1) * delay])``. By Takens (1981, *Detecting strange
    attractors in turbulence*, Lecture Notes in Mathematics 898, theorem 1) the cloud keeps the topology of the
    attractor behind the series.

    Parameters
    ----------
    series : array_like, shape (T,) or (N, W)

    Returns
    -------
    ndarray, shape (P, dimension) or (N, P, dimension)
        In fresh memory; ``P = T - (dimension - 1) * delay``.

    Raises
    ------
    ValueError
        For another number of axes, a parameter below 1, and a series that holds no point.

    Examples
    --------
    >>> takens_embedding([0, 1, 2, 3], dimension=2, delay=2)
    array([[0., 2.],
           [1., 3.]])
    """
    values = np.asarray(series, dtype=np.float64)
    if values.ndim not in (1, 2):
        raise ValueError(f"series must have shape (T,) or (N, W), got {values.shape}")
    if dimension < 1 or delay < 1:
        raise ValueError(f"dimension and delay must be at least 1, got dimension={dimension}, delay={delay}")
    span = (dimension - 1) * delay + 1
    if values.shape[-1] < span:
        raise ValueError(f"{values.shape[-1]} values hold no point: dimension {dimension}, delay {delay} needs {span}")
    return sliding_window_view(values, span, axis=-1)[..., ::delay].copy()  # (..., P, dimension)


def checked_clouds(clouds: ArrayLike, plane: bool = False) -> np.ndarray:
    """Clouds (N, P, d) in float64, d = 2 if they must lie in the plane; an error names cloud and row of a bad one."""
    clouds = np.ascontiguousarray(clouds, dtype=np.float64)
    if clouds.ndim != 3 or (plane and clouds.shape[2] != 2):
        raise ValueError(f"clouds must have shape (N, P, {2 if plane else 'd'}), got {clouds.shape}")
    usable = (np.abs(clouds) < LARGEST).all(axis=2)  # (N, P)
    if not usable.all():
        cloud, row = np.argwhere(~usable)[0]
        where = f"cloud {cloud}, row {row} is {clouds[cloud, row]}"
        raise ValueError(f"{where}: coordinates must be finite and below {LARGEST:g}")
    return clouds
