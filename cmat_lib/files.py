"""Files that are either whole or absent."""

from __future__ import annotations

import glob
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cmat_lib.errors import CmatError

_LEFT_BEHIND = re.compile(r"\..+-[a-z0-9_]{8}(\.\w+)?")  # the names of `atomic_path`
_NOBODYS_SECONDS = 3600.0  # a file that is still being written has been touched since


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Temporary path beside `path` that takes its place when the block ends without an error.

    The temporary file is synced before the rename, so a crash leaves the old file or the new one, never a part. What a
    killed process left of it beside `path` goes after an hour.

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
        If the folder cannot be made or written to, or the block fails to write, as on a full disk.
    """
    path = Path(path)
    make_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:
        raise _unwritable(path.parent, error) from None
    os.close(handle)
    temporary = Path(name)
    remove_left_behind(path.parent.glob(f".{glob.escape(path.stem)}-*{path.suffix}"), _NOBODYS_SECONDS)
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


def remove_left_behind(paths: Iterable[Path], seconds: float = 0.0) -> None:
    """Remove temporary files that killed processes left behind.

    Parameters
    ----------
    paths : iterable of Path
        Those without a name of `atomic_path` are left alone.
    seconds : float
        Only those that nobody has written to for so long.
    """
    newest = time.time() - seconds
    for path in paths:
        if _LEFT_BEHIND.fullmatch(path.name):
            with suppress(OSError):  # another process was quicker, or it is not ours to remove
                if path.stat().st_mtime <= newest:
                    path.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def drop_half_line(path: Path) -> None:
    """Cut off what follows the last line break: the line that a kill or a full disk left without its end."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def unwritten(path: Path, error: OSError) -> CmatError:
    """Error for a file that could not be written to its end; what was there before is still there."""
    return CmatError(f"{path}: cannot be written ({error.strerror or error}); is the disk full?")


def _unwritable(folder: Path, error: OSError) -> CmatError:
    return CmatError(f"{folder}: cannot be written to ({error.strerror}); choose another folder")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
