"""Who computes the chunks of a build: joblib's processes on this machine, or the workers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cmat_lib.base.errors import CmatError
from cmat_lib.config.schema import CacheConfig


@contextmanager
def worker_pool(config: CacheConfig) -> Iterator[None]:
    """Let builds inside the block use the workers of ``cache.backend``.

    ``loky`` changes nothing. ``dask`` connects to ``cache.dask_scheduler``, or starts a cluster of ``cache.jobs``
    processes on this machine and stops it at the end. A chunk whose worker is lost is computed by another one; workers
    may come and go. They need the same version of CMAT, but neither candles nor the cache folder: candles travel with
    the task.

    Raises
    ------
    CmatError
        If Dask is not installed, the scheduler does not answer or is lost, it has no worker, or one chunk has brought
        down several workers. Finished chunks stay.
    """
    if config.backend == "loky":
        yield
        return
    try:
        from cmat_lib.data.cache.dask_backend import dask_workers
    except ImportError as error:
        message = f"cache.backend 'dask' needs the package {error.name}, which is not installed; "
        raise CmatError(message + 'pip install -c constraints.txt -e ".[dask]"') from None
    with dask_workers(config.dask_scheduler, config.jobs):
        yield
