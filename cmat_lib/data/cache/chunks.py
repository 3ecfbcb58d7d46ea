"""The files behind one cached feature array, and the order of writes that survives a kill at any moment.

``<name>.npy``     all rows, read by memory map
``<name>.json``    the record: parameters and, per chunk, what it was made from and its checksum
``<name>.parts/``  finished chunks of a build in progress; the file name holds both hashes
``<name>.lock``    held by the process that builds; the operating system frees it when that process dies

Parts are written first, then the record, then the array, each by an atomic rename; the parts go last. So whatever the
record promises is found, in the array or among the parts.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from cmat_lib.errors import CmatError
from cmat_lib.files import unwritten

logger = logging.getLogger(__name__)

CHUNK_WINDOWS = 512  # about 5 seconds of work at 10 ms a window: what a kill can cost per worker
RECORD_FORMAT = 1
HEADER_BYTES = 128  # of a .npy file with a table of float32
MOST_FEATURES = 10**6  # per row; a record with more is damaged, and reading its rows would ask for all memory
_DIGEST = re.compile(r"[0-9a-f]{64}")


def digest(content: bytes) -> str:
    """SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class FeatureStore:
    """Rows of float32 features in chunks of ``CHUNK_WINDOWS``; only the last chunk may be shorter.

    Parameters
    ----------
    folder : Path
        Cache folder; `lock` makes it if it is missing.
    name : str
        File name without suffix.
    width : int
        Features per row.
    """

    def __init__(self, folder: Path, name: str, width: int):
        self.array, self.record, self.parts = (folder / f"{name}{end}" for end in (".npy", ".json", ".parts"))
        self.folder, self.width = folder, width
        self._lock = FileLock(folder / f"{name}.lock")

    def lock(self, wait: bool = True) -> AbstractContextManager:
        """Exclusive lock between processes, as a context manager.

        Raises
        ------
        CmatError
            If the folder cannot be written, or another process holds the lock and `wait` is false.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return self._lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise CmatError(f"{self.array}: another process is building it; wait until it has ended") from None
        except OSError as error:
            message = f"{self.folder}: the cache folder cannot be written ({error.strerror}); choose another cache_dir"
            raise CmatError(message) from None
        logger.info("%s: waiting for another process that is building it", self.array.name)
        return self._lock.acquire()

    def read_record(self) -> dict | None:
        """The record, or None if there is none; an unreadable one is named, logged and counts as one without chunks."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            texts = isinstance(record["kind"], str) and isinstance(record["symbol"], str)
            known = record["format"] == RECORD_FORMAT and texts and _is_width(record["width"])
            if known and isinstance(record["chunks"], list) and all(map(_is_chunk, record["chunks"])):
                return record
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        logger.warning("%s: the record is damaged; without it the whole file must be rebuilt", self.record.name)
        return {"format": RECORD_FORMAT, "chunks": []}

    def read_array(self, index: int, chunk: dict) -> bytes | None:
        """Rows of a recorded chunk from the array, or None if they are missing or fail their checksum."""
        try:
            with self.array.open("rb") as file:
                file.seek(HEADER_BYTES + index * CHUNK_WINDOWS * self.width * 4)
                content = file.read(chunk["rows"] * self.width * 4)
        except OSError:
            return None
        return content if digest(content) == chunk["bytes"] else None

    def has_whole_array(self) -> bool:
        """Whether the array is there with the very header that its size asks for; its rows are vouched for by chunk."""
        try:
            with self.array.open("rb") as file:
                header = file.read(HEADER_BYTES)
            rows, rest = divmod(self.array.stat().st_size - HEADER_BYTES, self.width * 4)
        except (OSError, ZeroDivisionError):
            return False
        return rest == 0 and header == _npy_header((rows, self.width))

    def read_part(self, candles: str) -> bytes | None:
        """Rows of a finished part made from the candles with this hash, or None; a damaged part is no part."""
        for path in self.parts.glob(f"{candles}-*.f32"):
            content = path.read_bytes()
            if path.stem == f"{candles}-{digest(content)}":
                return content
        return None

    def write_part(self, candles: str, rows: bytes) -> None:
        """Keep a finished chunk."""
        self.parts.mkdir(exist_ok=True)
        _replace(self.parts / f"{candles}-{digest(rows)}.f32", [rows])

    def commit(self, record: dict, rewrite: bool) -> None:
        """Publish the record and, if asked, the array that it describes; then drop the parts."""
        _replace(self.record, [json.dumps(record, indent=1).encode()])
        if rewrite:
            _replace(self.array, self._array_content(record["chunks"]))
        shutil.rmtree(self.parts, ignore_errors=True)

    def open(self, rows: int) -> np.memmap:
        """The first rows of the array, read-only, shape (rows, width)."""
        return np.load(self.array, mmap_mode="r", allow_pickle=False)[:rows]

    def remove(self) -> None:
        """Delete everything but the lock file, which a waiting process may hold open."""
        shutil.rmtree(self.parts, ignore_errors=True)
        for path in self.folder.glob(f"{self.array.stem}.*"):
            if path.suffix != ".lock":
                _remove(path)

    def _array_content(self, chunks: list[dict]) -> Iterable[bytes]:
        """A .npy file, one chunk in memory at a time."""
        shape = (sum(chunk["rows"] for chunk in chunks), self.width)
        yield _npy_header(shape)
        for index, chunk in enumerate(chunks):
            content = self.read_array(index, chunk) or self.read_part(chunk["candles"][str(chunk["rows"])])
            # Only a chunk behind the request can be damaged here; zeros fail its checksum when it is asked for.
            yield content or bytes(chunk["rows"] * self.width * 4)


def _replace(path: Path, content: Iterable[bytes]) -> None:
    """Write beside the target, flush to the disk, then rename: the target is whole at any moment."""
    draft = path.with_name(path.name + ".draft")
    try:
        if path.is_dir():  # a file cannot take its place by a rename
            _remove(path)
        with draft.open("wb") as file:
            for block in content:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise unwritten(path, error) from None


def _remove(path: Path) -> None:
    """Delete what stands under a name of the store; a folder, put there by mistake, only if nothing is in it."""
    try:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise CmatError(f"{path}: cannot be removed ({error.strerror or error}); move it away") from None


def _is_width(width: object) -> bool:
    return type(width) is int and 0 < width <= MOST_FEATURES


def _is_chunk(chunk: dict) -> bool:
    """Whether a chunk of the record is whole."""
    rows, texts = chunk["rows"], (chunk["first"], chunk["last"])
    if type(rows) is not int or not 0 < rows <= CHUNK_WINDOWS or str(rows) not in chunk["candles"]:
        return False
    hashes = [chunk["bytes"], *chunk["candles"].values()]  # those of candles become file names
    counted = all(map(_is_count, chunk["candles"]))
    return counted and all(isinstance(text, str) for text in texts) and all(map(_DIGEST.fullmatch, hashes))


def _is_count(text: str) -> bool:
    """Whether this is a number of rows, as the record writes it."""
    return text in map(str, range(1, CHUNK_WINDOWS + 1))


def _npy_header(shape: tuple[int, int]) -> bytes:
    """Header of a C-ordered float32 .npy file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()
