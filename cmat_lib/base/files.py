"""Files that are either whole or absent."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import psutil

from cmat_lib.base.errors import CmatError

MARK = "cmat-writes"  # .params.cmat-writes-4711-x8_2kq0z.yaml: what process 4711 writes
_TEMPORARY = re.compile(rf"\..+\.{MARK}-(\d{{1,9}})-[a-z0-9_]{{8}}(\.\w+)?")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Temporary path beside `path`, with its suffix, that takes its place when the block ends without an error.

    The temporary file is synced before the rename, so a crash leaves the old file or the new one, never a part. What a
    killed process left of it beside `path` is removed. Missing folders are made.

    Raises
    ------
    CmatError
        If the folder cannot be made or written to, or the block fails to write, as on a full disk.
    """
    path = Path(path)
    make_folder(path.parent)
    try:
        prefix = f".{path.stem}.{MARK}-{os.getpid()}-"
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
    except OSError as error:
        raise _unwritable(path.parent, error) from None
    os.close(handle)
    temporary = Path(name)
    remove_left_behind(path.parent.glob(f".{glob.escape(path.stem)}.{MARK}-*"))
    try:
        yield temporary
        with open(temporary, "r+b") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp is private by design; results are not
        os.replace(temporary, path)
    except OSError as error:
        raise unwritten(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, or raise a CmatError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def remove_left_behind(paths: Iterable[Path]) -> None:
    """Remove temporary files of `atomic_path` whose process is gone; other paths are left alone."""
    for path in paths:
        written_by = _TEMPORARY.fullmatch(path.name)
        if written_by and not psutil.pid_exists(int(written_by[1])):
            with suppress(OSError):  # another process was quicker, or it is not ours to remove
                path.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; taken once in a process, unless the file's size or time changes."""
    state = path.stat()
    return _hash_of(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _hash_of(path: Path, size: int, modified_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unwritten(path: Path, error: OSError) -> CmatError:
    """Error for a file that could not be written to its end; what was there before is still there."""
    return CmatError(f"{path}: cannot be written ({error.strerror or error}); is the disk full?")


def _unwritable(folder: Path, error: OSError) -> CmatError:
    return CmatError(f"{folder}: cannot be written to ({error.strerror}); choose another folder")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
