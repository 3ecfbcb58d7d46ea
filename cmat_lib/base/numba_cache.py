"""numba's compiler, imported from here: by then its compiled kernels have a writable home."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

__all__ = ["ensure_numba_cache", "njit"]


def ensure_numba_cache(folders: list[Path] | None = None) -> str | None:
    """Point numba to a fresh temporary folder when it can write to none of `folders`; it would refuse to compile.

    By default these are where numba writes by itself: beside the source, else under the user's home; a read-only
    installation without a home has neither. The temporary folder is private to this process and its workers (numba
    loads pickles from it, so a shared, guessable folder would be unsafe) and goes when the process ends. Returns the
    folder set, or None if numba needs no help.
    """
    folders = [Path(__file__).parents[1], Path.home()] if folders is None else folders
    if os.environ.get("NUMBA_CACHE_DIR") or any(os.access(folder, os.W_OK) for folder in folders):
        return None
    folder = tempfile.mkdtemp(prefix="cmat-numba-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["NUMBA_CACHE_DIR"] = folder
    if "numba" in sys.modules:  # it has read the environment already
        sys.modules["numba"].config.CACHE_DIR = folder
    return folder


ensure_numba_cache()
from numba import njit  # noqa: E402  (after its cache folder is settled)
