"""Features of windows from the cache, or computed into it by joblib's processes or the workers of a Dask cluster."""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from tqdm.auto import tqdm

from cmat_lib.base.errors import CmatError
from cmat_lib.base.parts import load_parts
from cmat_lib.config.schema import CacheConfig
from cmat_lib.data.cache.chunks import CHUNK_WINDOWS, Chunk, ChunkFolder, digest, split_series

logger = logging.getLogger(__name__)

Compute = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sliding:
    """Features of the windows of one series: what the cache can keep."""

    kind: str  # begins the name of the folder
    series: np.ndarray  # (T,), what windows are cut from, such as the logarithm of the close
    window: int  # candles
    compute: Compute  # series (t,), rows that end windows (n,) -> (n, width); picklable; a row reads its window only
    width: int
    parameters: dict[str, Any]  # all that `compute` and `series` depend on; part of the key
    stride: int = 1  # windows that are kept: every k-th
    version: int = 1  # to be raised whenever features change for the same candles and parameters
    follow: Callable[[], Callable[[np.ndarray], np.ndarray]] | None = None  # makes one that is fed window after window


def cached_features(
    sliding: Sliding,
    symbol: str,
    times: pd.DatetimeIndex,
    ends: np.ndarray,
    rows: np.ndarray,
    cache_dir: str | Path,
    jobs: int = -1,
    trust: bool = False,
    progress: bool | None = None,
) -> np.ndarray:
    """Features of those windows of a symbol that end at `rows` (n,), float32 (n, width).

    `times` (T,) are candle opens, `ends` (N,) all rows that end a window, ascending. All windows are in the cache
    afterwards. Computed are chunks that are missing, whose candles changed or that are damaged (both are named in a
    warning), and the last one when it grows. A build that is killed goes on from its finished chunks. Workers are
    `jobs` processes of joblib (-1: one per core), or what `worker_pool` sets around the call. By default, `progress` is
    shown where a terminal watches. With `trust` an (N, width) file of older code, which nothing vouches for, is read.
    Memory beyond the result does not grow with N.

    Raises a CmatError if there is no window, the folder cannot be written, a file without a record is found and not
    trusted, a worker process dies, or `compute` returns another shape or numbers that are not finite; a ValueError if
    `rows` are not all among `ends`.
    """
    ends, kind, width = np.asarray(ends, dtype=np.int64), sliding.kind, sliding.width
    if not len(ends) or ends[0] < sliding.window - 1:
        problem = f"no gap-free window of {sliding.window} candles for {kind} features"
        raise CmatError(f"{symbol}: {problem}; give more candles")
    if not np.isin(rows, ends).all():
        raise ValueError(f"{symbol}: rows are asked for that end no window")
    stamps = pd.DatetimeIndex(times).as_unit("ns").asi8  # (T,)
    about = {"kind": kind, "symbol": symbol, "window": sliding.window, "width": width, "params": sliding.parameters}
    about |= {"version": sliding.version, "start": int(stamps[ends[0]])}
    description = json.dumps(about, sort_keys=True, default=str).encode()
    plain = f"{kind}_features_{re.sub(r'[^A-Za-z0-9-]', '_', symbol)}"
    path, array = Path(cache_dir) / f"{plain}_{digest(description)}", Path(cache_dir) / f"{plain}.npy"
    places = np.searchsorted(ends, rows)  # (n,)
    if array.exists() and not path.exists():
        return _read_unrecorded(array, (len(ends), width), trust)[places]
    folder, missing = ChunkFolder(path, description), []
    features = np.empty((len(places), width), dtype=np.float32)
    for chunk in split_series(np.asarray(sliding.series, dtype=np.float64), stamps, ends, sliding.window):
        content = folder.find(chunk)
        if content is None:
            missing.append(chunk)
        else:
            _place(features, places, chunk, np.frombuffer(content, dtype="<f4").reshape(-1, width))
    for chunk, table in _computed(missing, sliding, jobs, f"{kind} {symbol}", len(ends), progress):
        folder.keep(chunk, table.tobytes())
        _place(features, places, chunk, table)
    return features


@contextmanager
def worker_pool(config: CacheConfig) -> Iterator[None]:
    """Let builds inside the block use the workers of ``cache.backend``; ``loky`` changes nothing.

    ``dask`` connects to ``cache.dask_scheduler``, or starts ``cache.jobs`` processes and stops them at the end. Workers
    may come and go; they need the same version of CMAT, but neither candles, which travel with the task, nor the cache
    folder. Raises a CmatError if Dask is not installed, the scheduler does not answer or is lost, it has no worker, or
    one chunk has brought down several workers; finished chunks stay.
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


def _place(features: np.ndarray, places: np.ndarray, chunk: Chunk, table: np.ndarray) -> None:
    """Copy those rows of a chunk that are wanted to where they belong."""
    wanted = np.flatnonzero(places // CHUNK_WINDOWS == chunk.index)
    features[wanted] = table[places[wanted] % CHUNK_WINDOWS]


def _computed(
    chunks: list[Chunk], sliding: Sliding, jobs: int, label: str, total: int, progress: bool | None
) -> Iterator[tuple[Chunk, np.ndarray]]:
    """Each chunk with its rows, as soon as a worker has them."""
    if not chunks:
        return
    began, todo = time.monotonic(), sum(len(chunk.ends) for chunk in chunks)
    workers = Parallel(n_jobs=min(effective_n_jobs(jobs), len(chunks)), return_as="generator_unordered")
    tasks = (delayed(_task)(number, chunk, sliding.compute) for number, chunk in enumerate(chunks))
    disable = None if progress is None else not progress  # tqdm's own meaning of None
    with tqdm(total=total, initial=total - todo, desc=label, unit=" windows", disable=disable) as bar:
        try:
            for number, table in workers(tasks):
                wanted = (len(chunks[number].ends), sliding.width)
                if table.shape != wanted:
                    raise CmatError(f"{label}: features of shape {table.shape}, wanted {wanted}")
                if not np.isfinite(table).all():
                    problem = f"chunk {chunks[number].index} has features that are not finite"
                    raise CmatError(f"{label}: {problem}; check its candles")
                yield chunks[number], table
                bar.update(len(table))
        except BrokenProcessPool as error:
            advice = "the same command goes on, with fewer cache.jobs if it happens again"
            problem = "a worker process died, most often for want of memory; finished chunks are kept"
            raise CmatError(f"{label}: {problem}, so {advice}") from error
    seconds = time.monotonic() - began
    report = "%s: %d windows, %d of them computed in %.1f s (%.0f per second)"
    logger.info(report, label, total, todo, seconds, todo / seconds)


def _task(number: int, chunk: Chunk, compute: Compute) -> tuple[int, np.ndarray]:
    """One task for a worker: the rows of a chunk, float32."""
    load_parts()
    return number, np.ascontiguousarray(compute(chunk.series, chunk.ends), dtype="<f4")


def _read_unrecorded(path: Path, shape: tuple[int, int], trust: bool) -> np.ndarray:
    """An array of older code that nobody vouches for."""
    if not trust:
        advice = "move it away to rebuild it, or read it as it is with --trust-cache (or --set cache.trust=true)"
        made = "this cache file has no record of the candles and parameters it was made from"
        raise CmatError(f"{path}: {made}; {advice}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CmatError(f"{path}: not a readable .npy file ({error}); move it away to rebuild it") from None
    if array.shape != shape or array.dtype != np.float32:
        raise CmatError(f"{path}: holds {array.dtype} {array.shape}, wanted float32 {shape}; move it away")
    logger.warning("%s: read on trust, without a record", path.name)
    return array
