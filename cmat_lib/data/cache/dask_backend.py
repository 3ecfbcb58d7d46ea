"""joblib on a Dask cluster; the only file that imports Dask."""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import Any

from distributed import Client, KilledWorker
from joblib import effective_n_jobs, parallel_config
from joblib._dask import DaskDistributedBackend

from cmat_lib.base.errors import CmatError

ANSWER_SECONDS = 10


class DaskBackend(DaskDistributedBackend):
    """joblib's Dask backend that ends with an error where joblib 1.6 would wait forever for a lost chunk."""

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Workers of the cluster, at least 2: for 1, joblib computes in this process and leaves the cluster idle."""
        return max(2, super().effective_n_jobs(n_jobs))

    def submit(self, func: Callable, callback: Callable | None = None) -> Future:
        """Start a task; joblib calls back for results only, so errors of the cluster itself are passed on here."""

        def report(done: Future) -> None:
            if done.exception() is not None and callback is not None:
                callback(done.exception())

        future = super().submit(func, callback)
        future.add_done_callback(report)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        """Result of a task, or the error that took its place."""
        if isinstance(out, BaseException):
            raise out
        return super().retrieve_result_callback(out)


@contextmanager
def dask_workers(scheduler: str | None, jobs: int) -> Iterator[None]:
    """Make the cluster of a scheduler, or a new one of `jobs` processes, joblib's backend inside the block."""
    place = scheduler or "the local cluster"
    with _connect(scheduler, jobs) as client, parallel_config(backend=DaskBackend(client=client)):
        try:
            yield
        except KilledWorker:
            problem = f"several workers of {place} died on the same chunk, likely for lack of memory"
            raise CmatError(f"cache.dask_scheduler: {problem}") from None
        except CancelledError:
            problem = f"{place} was lost; finished chunks are kept, so start it and run again"
            raise CmatError(f"cache.dask_scheduler: {problem}") from None


def _connect(scheduler: str | None, jobs: int) -> Client:
    """Client of a cluster that has a worker."""
    if scheduler is None:
        workers = effective_n_jobs(jobs)
        return Client(n_workers=workers, threads_per_worker=1, dashboard_address=None, set_as_default=False)
    try:
        client = Client(scheduler, timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        message = f"cache.dask_scheduler: {scheduler} does not answer ({type(error).__name__}); "
        raise CmatError(message + "start it with 'dask scheduler', or set cache.backend: loky") from None
    try:
        client.wait_for_workers(1, timeout=ANSWER_SECONDS)
    except TimeoutError:
        client.close()
        message = f"cache.dask_scheduler: {scheduler} has no workers; start some with 'dask worker {scheduler}'"
        raise CmatError(message) from None
    return client
