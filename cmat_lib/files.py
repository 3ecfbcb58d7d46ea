"""Files that are either whole or absent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cmat_lib.errors import CmatError

LOCK_NAME = ".lock"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Temporary path beside `path` that takes its place when the block ends without an error.

    The temporary file is synced before the rename, so a crash leaves the old file or the new one, never a part.

    Parameters
    ----------
    path : str or Path
        Final place; missing folders are made.

    Yields
    ------
    Path
        Where to write. It has the suffix of `path`.

    Raises
    ------
    CmatError
        If the folder cannot be made or written to.
    """
    path = Path(path)
    make_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:
        raise _unwritable(path.parent, error) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "r+b") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp is private by design; results are not
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents.

    Raises
    ------
    CmatError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs; the hold ends with the process, however that ends.

    Raises
    ------
    CmatError
        If another process holds it, or it cannot be made.
    """
    make_folder(folder)
    try:
        with _folder_lock(folder):
            yield
    except Timeout:
        raise CmatError(f"{folder}: another process works here; wait for it, or choose another run folder") from None


def is_worked_on(folder: Path) -> bool:
    """Whether a process holds a folder by `working_in`."""
    if not (folder / LOCK_NAME).exists():
        return False
    try:
        with _folder_lock(folder):
            return False
    except Timeout:
        return True


def _folder_lock(folder: Path) -> FileLock:
    return FileLock(folder / LOCK_NAME, timeout=0)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _unwritable(folder: Path, error: OSError) -> CmatError:
    return CmatError(f"{folder}: cannot be written to ({error.strerror}); choose another folder")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
