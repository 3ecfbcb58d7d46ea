"""What of a cached feature array is there, what is missing, and the computation of the difference, chunk by chunk."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from numpy.lib.stride_tricks import sliding_window_view
from tqdm.auto import tqdm

from cmat_lib.data.cache.chunks import CHUNK_WINDOWS, FeatureStore, digest
from cmat_lib.errors import CmatError

logger = logging.getLogger(__name__)

Compute = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Chunk:
    """The windows of one chunk of the request, as the candles that they cover.

    Attributes
    ----------
    index : int
        Place in the file.
    times : np.ndarray, shape (t,), int64
        Open time of the candles, in nanoseconds since the epoch.
    log_close : np.ndarray, shape (t,), float64
    ends : np.ndarray, shape (n,), int64
        Last row of each window, within this chunk's candles.
    window : int
        Candles per window (W).
    """

    index: int
    times: np.ndarray
    log_close: np.ndarray
    ends: np.ndarray
    window: int

    def candles_digest(self, rows: int) -> str:
        """Hash of the candles behind the first `rows` windows."""
        used = slice(0, self.ends[rows - 1] + 1)
        return digest(self.times[used].tobytes() + self.log_close[used].tobytes() + self.ends[:rows].tobytes())

    def matching_rows(self, recorded: dict[str, str]) -> int:
        """Leading windows that a recorded chunk made from the same candles; `recorded` maps rows to candle hashes."""
        counts = sorted((int(rows) for rows in recorded if int(rows) <= len(self.ends)), reverse=True)
        return next((rows for rows in counts if self.candles_digest(rows) == recorded[str(rows)]), 0)

    def windows(self, first: int) -> np.ndarray:
        """Log closes of the windows from `first` on, shape (n, W)."""
        return sliding_window_view(self.log_close, self.window)[self.ends[first:] - self.window + 1]

    def describe(self, content: bytes, known: dict[str, str]) -> dict:
        """Record of this chunk with these rows; `known` are candle hashes of fewer rows that still hold."""
        rows = len(self.ends)
        first, last = pd.to_datetime(self.times[self.ends[[0, -1]]], utc=True)
        candles = {**known, str(rows): self.candles_digest(rows)}
        span = {"first": first.isoformat(), "last": last.isoformat()}
        return {**span, "rows": rows, "candles": candles, "bytes": digest(content)}


def split_windows(log_close: np.ndarray, stamps: np.ndarray, ends: np.ndarray, window: int) -> list[Chunk]:
    """Chunks of a request; they share the memory of the series.

    Parameters
    ----------
    log_close, stamps : np.ndarray, shape (T,)
        Series and its times in nanoseconds.
    ends : np.ndarray, shape (N,)
        Rows that end a window, ascending.
    window : int
        Candles per window.

    Returns
    -------
    list of Chunk
        ``CHUNK_WINDOWS`` windows each, the last one what is left.
    """
    chunks = []
    for index, first in enumerate(range(0, len(ends), CHUNK_WINDOWS)):
        rows = ends[first : first + CHUNK_WINDOWS]
        start, stop = rows[0] - window + 1, rows[-1] + 1
        chunks.append(Chunk(index, stamps[start:stop], log_close[start:stop], rows - start, window))
    return chunks


class Build:
    """One request against one store; hold the store's lock from before this is made until `publish` has returned.

    Parameters
    ----------
    store : FeatureStore
    chunks : list of Chunk
        All windows of the request.
    recorded : list of dict
        Chunks in the store's record; there may be more than the request has.

    Attributes
    ----------
    missing : dict
        Chunk index to the number of its leading rows that can stay; everything behind them must be computed.
    """

    def __init__(self, store: FeatureStore, chunks: list[Chunk], recorded: list[dict]):
        self.store, self.chunks, self.recorded = store, chunks, recorded
        self.records: dict[int, dict] = {}
        self.missing: dict[int, int] = {}
        self._rewrite = not store.has_whole_array()
        for chunk in chunks:
            self._plan(chunk)
        if store.array.exists() and not store.has_whole_array() and not self.missing:
            logger.warning("%s: its header is damaged; it is written again", store.array.name)

    @property
    def missing_windows(self) -> int:
        """Windows that must be computed."""
        return sum(len(self.chunks[index].ends) - kept for index, kept in self.missing.items())

    def run(self, compute: Compute, jobs: int, label: str, progress: bool | None) -> None:
        """Compute what is missing; each finished chunk is safe at once.

        Parameters
        ----------
        compute : callable
            ``compute(windows (n, W)) -> (n, width)``.
        jobs : int
            Worker processes, as joblib counts them.
        label : str
            Name for the bar, the log and errors.
        progress : bool or None
            Show the bar; None shows it where a terminal watches.
        """
        if not self.missing:
            return
        began, todo, total = time.monotonic(), self.missing_windows, sum(len(chunk.ends) for chunk in self.chunks)
        workers = Parallel(n_jobs=min(effective_n_jobs(jobs), len(self.missing)), return_as="generator_unordered")
        tasks = (delayed(_compute)(self.chunks[index], kept, compute) for index, kept in self.missing.items())
        disable = None if progress is None else not progress  # tqdm's own meaning of None
        with tqdm(total=total, initial=total - todo, desc=label, unit=" windows", disable=disable) as bar:
            try:
                for index, rows in workers(tasks):
                    self._finish(self.chunks[index], rows, label)
                    bar.update(len(rows))
            except BrokenProcessPool as error:
                raise CmatError(
                    f"{label}: a worker process died, most often for want of memory; finished chunks are kept, so the "
                    "same command goes on, with fewer tda.jobs if it happens again"
                ) from error
        seconds = time.monotonic() - began
        report = "%s: %d windows, %d of them computed in %.1f s (%.0f per second)"
        logger.info(report, label, total, todo, seconds, todo / seconds)

    def publish(self, about: dict, known: dict | None) -> None:
        """Write record and array if anything differs from the `known` record; later chunks stay if they line up."""
        chunks = [self.records[index] for index in range(len(self.chunks))]
        if chunks[-1]["rows"] == CHUNK_WINDOWS:
            chunks += self.recorded[len(chunks) :]
        record = json.loads(json.dumps({**about, "chunks": chunks}))
        if self._rewrite or record != known:
            self.store.commit(record, self._rewrite)

    def _plan(self, chunk: Chunk) -> None:
        """Take a chunk from the array, else from the parts, else put it on the list."""
        old = self._recorded_chunk(chunk)
        damaged = old is not None and self._content(chunk.index, old) is None
        kept = chunk.matching_rows(old["candles"]) if old and not damaged else 0
        if kept == len(chunk.ends):
            self.records[chunk.index] = old
            return
        part = self.store.read_part(chunk.candles_digest(len(chunk.ends)))
        if part is not None:
            self._take(chunk, part, {})
            return
        self.missing[chunk.index] = kept
        if damaged:
            self._warn(chunk, old, "it is damaged (checksum)")
        elif old and len(chunk.ends) >= old["rows"] > kept:
            self._warn(chunk, old, "its candles changed")

    def _recorded_chunk(self, chunk: Chunk) -> dict | None:
        return self.recorded[chunk.index] if chunk.index < len(self.recorded) else None

    def _content(self, index: int, old: dict) -> bytes | None:
        """Rows of a recorded chunk; those that a killed build left among the parts make a new array necessary."""
        content = self.store.read_array(index, old)
        if content is None:
            content = self.store.read_part(old["candles"][str(old["rows"])])
            self._rewrite = True
        return content

    def _finish(self, chunk: Chunk, rows: np.ndarray, label: str) -> None:
        """Join the new rows with those that stay and keep the chunk."""
        kept, old = self.missing[chunk.index], self._recorded_chunk(chunk)
        width = self.store.width
        if rows.shape != (len(chunk.ends) - kept, width):
            raise CmatError(f"{label}: features of shape {rows.shape}, wanted {(len(chunk.ends) - kept, width)}")
        if not np.isfinite(rows).all():
            raise CmatError(f"{label}: chunk {chunk.index} has features that are not finite; check its candles")
        before = (self._content(chunk.index, old) if old else None) or b""
        content = before[: kept * width * 4] + rows.tobytes()
        known = {n: hashed for n, hashed in old["candles"].items() if int(n) <= kept} if kept else {}
        if len(before) > len(content) and before.startswith(content):
            # A shorter request than before: the longer chunk stays and learns to vouch for this one too.
            self.records[chunk.index] = {**old, "candles": {**old["candles"], **chunk.describe(content, {})["candles"]}}
            return
        if len(before) > len(content):
            self._warn(chunk, old, "its candles changed")
        self.store.write_part(chunk.candles_digest(len(chunk.ends)), content)
        self._take(chunk, content, known)

    def _take(self, chunk: Chunk, content: bytes, known: dict[str, str]) -> None:
        self.records[chunk.index] = chunk.describe(content, known)
        self._rewrite = True

    def _warn(self, chunk: Chunk, old: dict, reason: str) -> None:
        """Name a chunk that is rebuilt and say why."""
        place = f"{self.store.array.name}: chunk {chunk.index} ({old['first']} to {old['last']})"
        logger.warning("%s is rebuilt: %s", place, reason)


def _compute(chunk: Chunk, first: int, compute: Compute) -> tuple[int, np.ndarray]:
    """One task for a worker: the rows of a chunk from `first` on, float32."""
    return chunk.index, np.ascontiguousarray(compute(chunk.windows(first)), dtype="<f4")
