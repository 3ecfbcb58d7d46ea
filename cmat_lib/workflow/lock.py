"""One worker per run folder: who holds it, until when, and what the second one is told.

``.lock``         held by the command; the operating system frees it when that process ends, however that happens
``.lock.inner``   held by the page that the command executes, in a process of its own that may outlive it for a second
``.lock.train``   held by the training that such a page starts in several processes
``.holder.json``  who holds ``.lock`` and since when; only believed while the lock is held
"""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import MARK, make_folder, remove_left_behind, write_text

OUTER, PAGE, TRAIN = ".lock", ".lock.inner", ".lock.train"
HOLDER = ".holder.json"
HELD = "CMAT_HELD_FOLDER"  # process id and folder: tells child processes that this folder is held for them
GLANCE_SECONDS = 0.5  # somebody who asks whether a folder is held has the lock for an instant
ORPHAN_SECONDS = 15.0  # kernels look for their parent once a second
_page_locks: list[AcquireReturnProxy] = []  # of this kernel, until it ends


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs; the hold ends with the process, however that ends.

    A process whose parent holds the folder for it works under that hold. A CmatError if another process holds it
    (naming process, machine and time), or it cannot be written.
    """
    if _is_held_by_parent(folder):
        with _acquire(folder, TRAIN, GLANCE_SECONDS):
            yield
        return
    make_folder(folder)
    with _acquire(folder, OUTER, GLANCE_SECONDS):
        for name in (PAGE, TRAIN):  # what a killed command left behind ends by itself, but not at once
            with _acquire(folder, name, ORPHAN_SECONDS):
                pass
        remove_left_behind(folder.rglob(f".*.{MARK}-*"))
        before = os.environ.get(HELD)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_text(folder / HOLDER, json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}))
        os.environ[HELD] = f"{os.getpid()} {folder}"
        try:
            yield
        finally:
            (folder / HOLDER).unlink(missing_ok=True)
            os.environ.pop(HELD)
            if before is not None:
                os.environ[HELD] = before


def join_or_refuse(folder: Path) -> None:
    """What a page does when it opens: work under the hold of the command that executes it, until its kernel ends.

    A page opened by hand holds nothing (kernels stay open for days). A CmatError if a command that did not start this
    page works in the folder.
    """
    if _is_held_by_parent(folder):
        _page_locks.append(_acquire(folder, PAGE, ORPHAN_SECONDS))
    elif is_worked_on(folder):
        raise CmatError(_refusal(folder))


def is_worked_on(folder: Path) -> bool:
    """Whether a process holds a folder by `working_in`; no for one that this process may not write to."""
    if not (folder / OUTER).exists():
        return False
    try:
        with FileLock(folder / OUTER, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def _is_held_by_parent(folder: Path) -> bool:
    pid, _, held = os.environ.get(HELD, "").partition(" ")
    return held == str(folder) and pid != str(os.getpid())


def _acquire(folder: Path, name: str, seconds: float) -> AcquireReturnProxy:
    """A lock of the folder, held until the end of a ``with``, or of the process."""
    try:
        return FileLock(folder / name).acquire(timeout=seconds)
    except Timeout:
        raise CmatError(_refusal(folder)) from None
    except OSError as error:
        raise CmatError(f"{folder}: cannot be written to ({error.strerror}); choose another run folder") from None


def _refusal(folder: Path) -> str:
    """What the second worker is told. A holder that has only just begun may not have said its name yet."""
    advice = "wait for it, stop it, or choose another run folder"
    deadline = time.monotonic() + GLANCE_SECONDS
    while time.monotonic() < deadline:
        try:
            who = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
            since = f"{datetime.fromisoformat(who['since']):%Y-%m-%d %H:%M:%S} UTC"
            return f"{folder}: process {who['pid']} on {who['host']} works here since {since}; {advice}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.05)
    return f"{folder}: another process works here; {advice}"
