"""Persistence diagrams of point clouds: one function in front of several engines.

Every engine returns the same thing: the bars of H0 and H1 as ``(birth, death)`` in the unit of the points, by birth and
then by death, without the H0 class that never dies and without bars of length zero. giotto-tda is imported here only,
when its engines run.

============  =============================================================================================
planar        exact Vietoris-Rips of points in the plane (this project's own, `cmat_lib.tda.planar`)
giotto        exact Vietoris-Rips in any dimension, by giotto-tda; the reference
weak_alpha    Rips filtration on the Delaunay triangulation, by giotto-tda; same H0, another H1
============  =============================================================================================
"""

import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import QhullError
from scipy.spatial.distance import pdist, squareform

from cmat_lib.base.errors import CmatError
from cmat_lib.tda.point_cloud import checked_clouds

logger = logging.getLogger(__name__)


class Bars(NamedTuple):
    """Diagrams of N clouds in one homology dimension, flat: cloud ``i`` owns ``bars[offsets[i]:offsets[i + 1]]``."""

    bars: np.ndarray  # (n, 2) float64: birth and death of all clouds, one cloud after the other
    offsets: np.ndarray  # (N + 1,) int64


def rips_diagrams(points: ArrayLike, engine: str = "planar") -> list[np.ndarray]:
    """Persistence diagrams of one cloud.

    Parameters
    ----------
    points : array_like, shape (P, d)
        P may be 0, and points may be equal.
    engine : {'planar', 'giotto', 'weak_alpha'}

    Returns
    -------
    list of ndarray
        H0 (n, 2) and H1 (m, 2) in the unit of the points, ascending by birth, then by death.

    Raises
    ------
    ValueError
        For another shape, and for a coordinate that is not finite or exceeds 1e150, with its row.
    CmatError
        For an unknown engine.

    Examples
    --------
    >>> rips_diagrams([[0, 0], [0, 1], [0, 3]], engine="giotto")[0]
    array([[0., 1.],
           [0., 2.]])
    """
    cloud = np.asarray(points, dtype=np.float64)
    if cloud.ndim != 2:
        raise ValueError(f"points must have shape (P, d), got {cloud.shape}")
    return [bars for bars, _ in diagrams_batch(cloud[None], engine)]


def diagrams_batch(clouds: ArrayLike, engine: str = "planar") -> list[Bars]:
    """H0 and H1 of clouds (N, P, d), without a Python object per cloud where the engine allows it.

    ``planar`` needs d = 2; for any other d the ``giotto`` engine runs and says so once. Errors as for `rips_diagrams`.
    """
    if engine not in ENGINES:
        raise CmatError(f"tda.engine: unknown engine '{engine}'; choose one of {', '.join(ENGINES)}")
    return ENGINES[engine](checked_clouds(clouds))


def _planar(clouds: np.ndarray) -> list[Bars]:
    if clouds.shape[2] != 2:
        say_fallback(clouds.shape[2])
        return ENGINES["giotto"](clouds)
    if clouds.shape[1] == 0:
        return [Bars(np.empty((0, 2)), np.zeros(len(clouds) + 1, np.int64))] * 2
    from cmat_lib.tda.planar import planar_bars  # numba, which the other engines do not need

    deaths, offsets0, bars, offsets1, broken = planar_bars(clouds)
    if broken >= 0:
        raise ArithmeticError(f"cloud {broken} cannot be drawn: this is a defect of the planar engine, use 'giotto'")
    return [Bars(np.column_stack([np.zeros_like(deaths), deaths]), offsets0), Bars(bars, offsets1)]


@functools.cache
def say_fallback(dimension: int) -> None:
    """Log once per process and dimension that the fast engine does not apply."""
    logger.warning("tda.engine planar works in the plane; embedding_dim %d uses the slower giotto engine", dimension)


def _giotto(cloud: np.ndarray) -> np.ndarray:
    """Diagram (n, 3) in giotto-tda's format."""
    from gtda.homology import VietorisRipsPersistence

    if len(cloud) < 2:
        return np.empty((0, 3))
    # giotto-tda would use scikit-learn's dot products, which lose the small distances of log prices all near 11.
    distances = squareform(pdist(cloud))  # (P, P)
    rips = VietorisRipsPersistence(metric="precomputed", homology_dimensions=(0, 1))
    return rips.fit_transform(distances[None])[0]


def _weak_alpha(cloud: np.ndarray) -> np.ndarray:
    """Diagram (n, 3) of the weak alpha complex.

    Points that coincide to 1e-9 of the cloud's extent become one first: Qhull leaves them out of the triangulation, and
    then giotto-tda numbers its edges wrongly and H1 bars never die. Points on a line (or fewer than d + 2) have no
    triangulation at all; there the exact Rips complex has the same diagram and stands in.
    """
    from gtda.homology import WeakAlphaPersistence

    grid = np.round((cloud - cloud.min(axis=0)) / (np.ptp(cloud) or 1.0), 9) if cloud.size else cloud
    distinct = cloud[np.unique(grid, axis=0, return_index=True)[1]]
    if len(distinct) < cloud.shape[1] + 2:
        return _giotto(distinct)
    try:
        return WeakAlphaPersistence(homology_dimensions=(0, 1)).fit_transform(distinct[None])[0]
    except QhullError:
        return _giotto(distinct)


def _one_by_one(engine: Callable[[np.ndarray], np.ndarray], clouds: np.ndarray) -> list[Bars]:
    """Flat bars per dimension, sorted, of giotto-tda's diagrams; their padding has length zero and goes."""
    diagrams, flat = [engine(cloud) for cloud in clouds], []
    for dimension in (0, 1):
        kept = [d[(d[:, 2] == dimension) & (d[:, 1] > d[:, 0]) & np.isfinite(d[:, 1]), :2] for d in diagrams]
        kept = [bars[np.lexsort(bars.T[::-1])] for bars in kept]
        offsets = np.concatenate([[0], np.cumsum([len(bars) for bars in kept])]).astype(np.int64)
        flat.append(Bars(np.concatenate([np.empty((0, 2)), *kept]).astype(np.float64), offsets))
    return flat


ENGINES: dict[str, Callable[[np.ndarray], list[Bars]]] = {
    "planar": _planar,
    "giotto": functools.partial(_one_by_one, _giotto),
    "weak_alpha": functools.partial(_one_by_one, _weak_alpha),
}
