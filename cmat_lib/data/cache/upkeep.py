"""Cached features of every window of a symbol: computed once, in chunks, by worker processes; read by memory map.

The key of a file covers what it is (kind, symbol, first window) and how it was made (parameters, code version). What
it was made *from* stands per chunk in the record beside it, so new candles append and changed ones rebuild their chunk.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd

from cmat_lib.data.cache.build import Build, Compute, split_windows
from cmat_lib.data.cache.chunks import RECORD_FORMAT, FeatureStore, digest
from cmat_lib.errors import CmatError

logger = logging.getLogger(__name__)

# Raise the number of a kind whenever its features change for the same candles and parameters.
FEATURE_VERSION = {"tda": 1, "complexity": 1}


def cached_features(
    kind: str,
    symbol: str,
    log_close: np.ndarray,
    times: pd.DatetimeIndex,
    ends: np.ndarray,
    window: int,
    compute: Compute,
    width: int,
    params: dict,
    cache_dir: str | Path,
    jobs: int = -1,
    trust: bool = False,
    progress: bool | None = None,
) -> np.memmap:
    """Features of every window of one symbol: from the cache where they are there, computed where not.

    Only what is missing is computed: chunks whose candles changed and chunks that are damaged (both are named in a
    warning) and windows behind the end of the file. A build that is killed at any moment goes on from its finished
    chunks and ends with the same bytes. A second process that wants the same file waits for the first. The workers are
    joblib's own processes, or what `cmat_lib.data.cache.workers.worker_pool` sets around the call.

    Parameters
    ----------
    kind : str
        ``tda`` or ``complexity``; begins the file name.
    symbol : str
        For example ``BTCUSDT``.
    log_close : np.ndarray, shape (T,)
        Natural logarithm of the close of every candle.
    times : pd.DatetimeIndex, length T
        Open time of every candle, UTC.
    ends : np.ndarray, shape (N,)
        Rows that end a window, ascending.
    window : int
        Candles per window (W).
    compute : callable
        ``compute(windows (n, W)) -> (n, width)``, picklable; a row must depend on its own window only.
    width : int
        Features per window.
    params : dict
        Everything that `compute` depends on and the stride of `ends`; part of the key.
    cache_dir : str or Path
        Folder of the cache.
    jobs : int
        Worker processes; -1 is one per core.
    trust : bool
        Read an (N, width) file without a record instead of refusing it.
    progress : bool, optional
        Bar with rate and time left; by default only where a terminal watches.

    Returns
    -------
    np.memmap, shape (N, width), float32
        Read-only; memory does not grow with N.

    Raises
    ------
    CmatError
        If there is no window, the folder cannot be written, a file without a record is found and not trusted, or
        `compute` returns another shape or numbers that are not finite.
    """
    ends = np.asarray(ends, dtype=np.int64)
    if not len(ends) or ends[0] < window - 1:
        raise CmatError(f"{symbol}: no gap-free window of {window} candles for {kind} features; give more candles")
    stamps = pd.DatetimeIndex(times).as_unit("ns").asi8  # (T,)
    about = {"kind": kind, "symbol": symbol, "window": window, "width": width, "params": params}
    about |= {"version": _version(kind), "start": int(stamps[ends[0]])}
    key = digest(json.dumps(about, sort_keys=True, default=str).encode())[:16]
    store = FeatureStore(Path(cache_dir), f"{_prefix(kind, symbol)}_{key}", width)
    with store.lock():
        record = store.read_record()
        if record is None and (found := _unrecorded(store, kind, symbol)):
            return _open_unrecorded(found, (len(ends), width), trust)
        chunks = split_windows(np.asarray(log_close, dtype=np.float64), stamps, ends, window)
        build = Build(store, chunks, record["chunks"] if record else [])
        build.run(compute, jobs, f"{kind} {symbol}", progress)
        build.publish({"format": RECORD_FORMAT, **about}, record)
        return store.open(len(ends))


def cache_info(cache_dir: str | Path) -> pd.DataFrame:
    """What a cache folder holds.

    Parameters
    ----------
    cache_dir : str or Path
        Folder of the cache; may be missing.

    Returns
    -------
    pd.DataFrame
        One row per file: file, kind, symbol, windows, width, first, last (times of windows), megabytes, parts (finished
        chunks of a build that has not ended).
    """
    columns = ["file", "kind", "symbol", "windows", "width", "first", "last", "megabytes", "parts"]
    return pd.DataFrame([_describe(store, record) for store, record in _stores(Path(cache_dir))], columns=columns)


def verify(cache_dir: str | Path) -> list[str]:
    """Check every chunk of a cache folder against its checksum; nothing is changed.

    Parameters
    ----------
    cache_dir : str or Path
        Folder of the cache.

    Returns
    -------
    list of str
        One line per damaged chunk or record and per file without a record; empty if all is well.
    """
    lines = [f"{path.name}: no record beside it" for path in _arrays(Path(cache_dir)) if not _record_of(path).exists()]
    for store, record in _stores(Path(cache_dir)):
        lines += _damage(store, record)
    return lines


def _damage(store: FeatureStore, record: dict) -> list[str]:
    if "kind" not in record:
        return [f"{store.record.name}: the record is damaged"]
    lines = []
    for index, chunk in enumerate(record["chunks"]):
        # What a killed build left among the parts is not lost: the next build takes it from there.
        if store.read_array(index, chunk) is None and store.read_part(chunk["candles"][str(chunk["rows"])]) is None:
            lines.append(f"{store.array.name}: chunk {index} ({chunk['first']} to {chunk['last']}) is damaged")
    if not lines and store.array.exists() and not store.has_whole_array():
        lines.append(f"{store.array.name}: its header is damaged")
    return lines


def clean(cache_dir: str | Path) -> int:
    """Delete the cached features of a folder, unfinished builds included; other files stay.

    Parameters
    ----------
    cache_dir : str or Path
        Folder of the cache.

    Returns
    -------
    int
        Bytes freed.

    Raises
    ------
    CmatError
        If another process is building one of the files.
    """
    folder = Path(cache_dir)
    before = _size(folder)
    for name in {path.name.split(".")[0] for kind in FEATURE_VERSION for path in folder.glob(f"{kind}_features_*")}:
        store = FeatureStore(folder, name, width=0)
        with store.lock(wait=False):
            store.remove()
    return before - _size(folder)


def _version(kind: str) -> int:
    if kind not in FEATURE_VERSION:
        raise CmatError(f"unknown kind of cached features '{kind}'; choose one of {', '.join(FEATURE_VERSION)}")
    return FEATURE_VERSION[kind]


def _prefix(kind: str, symbol: str) -> str:
    return f"{kind}_features_{re.sub(r'[^A-Za-z0-9-]', '_', symbol)}"


def _unrecorded(store: FeatureStore, kind: str, symbol: str) -> Path | None:
    """An array that nobody vouches for: under its own name, or under the plain name that older code used."""
    plain = store.array.with_name(f"{_prefix(kind, symbol)}.npy")
    return next((path for path in (store.array, plain) if path.exists()), None)


def _open_unrecorded(path: Path, shape: tuple[int, int], trust: bool) -> np.memmap:
    if not trust:
        raise CmatError(
            f"{path}: this cache file has no record of the candles and parameters it was made from; move it away to "
            "rebuild it, or read it as it is with --trust-cache (or --set tda.trust_cache=true)"
        )
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise CmatError(f"{path}: not a readable .npy file ({error}); move it away to rebuild it") from None
    if array.shape != shape or array.dtype != np.float32:
        raise CmatError(f"{path}: holds {array.dtype} {array.shape}, wanted float32 {shape}; move it away")
    logger.warning("%s: read on trust, without a record", path.name)
    return array


def _arrays(folder: Path) -> list[Path]:
    return sorted(path for kind in FEATURE_VERSION for path in folder.glob(f"{kind}_features_*.npy"))


def _record_of(array: Path) -> Path:
    return array.with_suffix(".json")


def _stores(folder: Path) -> list[tuple[FeatureStore, dict]]:
    """Every store of a folder that has a record, with its record."""
    records = sorted(path for kind in FEATURE_VERSION for path in folder.glob(f"{kind}_features_*.json"))
    stores = [FeatureStore(folder, path.stem, width=0) for path in records]
    pairs = [(store, store.read_record()) for store in stores]
    for store, record in pairs:
        store.width = record.get("width", 0)
    return pairs


def _describe(store: FeatureStore, record: dict) -> dict:
    chunks = record["chunks"]
    return {
        "file": store.array.name,
        "kind": record.get("kind", "?"),
        "symbol": record.get("symbol", "?"),
        "windows": sum(chunk["rows"] for chunk in chunks),
        "width": store.width,
        "first": chunks[0]["first"] if chunks else None,
        "last": chunks[-1]["last"] if chunks else None,
        "megabytes": store.array.stat().st_size / 1e6 if store.array.exists() else 0.0,
        "parts": len(list(store.parts.glob("*.f32"))),
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
