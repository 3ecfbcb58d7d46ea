"""One file per chunk of windows, whose name vouches for what it was made from and for what is in it.

``<index>_<rows>_<first>_<last>_<candles>_<content>.f32`` holds float32 rows. ``candles`` is the hash of the times,
values and ends behind them, ``content`` that of the name before it and of the rows. A file is whole or absent, and two
processes that make the same chunk write the same bytes under the same name: no record and no lock is needed.
"""

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import atomic_path, make_folder, remove_left_behind

logger = logging.getLogger(__name__)

CHUNK_WINDOWS = 2048  # 0.1 to 0.4 s of work: what a kill, a damaged file or a new candle can cost
ABOUT = "about.json"
OLD = ("tda_features_*", "complexity_features_*")  # what earlier versions wrote beside the folders
_TIME = r"\d{4}-\d\d-\d\dT\d{4}"
_NAME = re.compile(rf"((\d{{5,9}})_([1-9]\d{{0,3}})_({_TIME})_({_TIME})_[0-9a-f]{{32}})_[0-9a-f]{{32}}\.f32")


def digest(*parts: bytes) -> str:
    """Hash of some bytes, 32 hexadecimal digits."""
    return hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()


class Chunk(NamedTuple):
    """Place of a chunk, and the candles that its n windows cover; ``ends`` counts from the first of these."""

    index: int
    times: np.ndarray  # (t,) int64, open times in nanoseconds
    series: np.ndarray  # (t,) float64
    ends: np.ndarray  # (n,) int64

    def head(self, rows: int) -> str:
        """Name of a file with the first `rows` windows, up to the hash of the candles."""
        used = slice(0, self.ends[rows - 1] + 1)
        candles = digest(self.times[used].tobytes(), self.series[used].tobytes(), self.ends[:rows].tobytes())
        first, last = pd.to_datetime(self.times[self.ends[[0, rows - 1]]]).strftime("%Y-%m-%dT%H%M")
        return f"{self.index:05d}_{rows}_{first}_{last}_{candles}"


def split_series(series: np.ndarray, stamps: np.ndarray, ends: np.ndarray, window: int) -> list[Chunk]:
    """Chunks of ``CHUNK_WINDOWS`` of the windows that end at `ends` (N,), ascending; they share memory with (T,)."""
    chunks = []
    for index, first in enumerate(range(0, len(ends), CHUNK_WINDOWS)):
        rows = ends[first : first + CHUNK_WINDOWS]
        start, stop = rows[0] - window + 1, rows[-1] + 1
        chunks.append(Chunk(index, stamps[start:stop], series[start:stop], rows - start))
    return chunks


class ChunkFile(NamedTuple):
    """A file that has the name of a chunk."""

    index: int
    rows: int
    first: str  # open of the last candle of the first window, and of the last
    last: str
    head: str
    path: Path

    def __str__(self) -> str:
        return f"{self.path.parent.name}: chunk {self.index} ({self.first} to {self.last})"

    def read(self) -> bytes | None:
        """Rows of the file; empty if they are not what its name says, None if another process has removed it."""
        try:
            content = self.path.read_bytes()
        except OSError:
            content = b""
        return content if self.path.name == _name(self.head, content) else b"" if self.path.exists() else None

    def rebuild(self, why: str) -> None:
        """Remove the file, and say so."""
        logger.warning("%s is rebuilt: %s", self, why)
        remove(self.path)

    def read_whole(self) -> bytes | None:
        """Rows of the file; None if it is not there, or was damaged and is now removed."""
        content = self.read()
        if content == b"":
            self.rebuild("it is damaged (checksum)")
        return content or None


def chunk_files(folder: Path) -> list[ChunkFile]:
    """Files of a folder that have the name of a chunk, by index and rows; others are somebody else's."""
    names = ((path, _NAME.fullmatch(path.name)) for path in folder.glob("*.f32"))
    return sorted(ChunkFile(int(n[2]), int(n[3]), n[4], n[5], n[1], path) for path, n in names if n)


class ChunkFolder:
    """The chunks of one kind, symbol, first window, set of parameters and code version."""

    def __init__(self, path: Path, about: bytes):
        """Make the folder, say what it holds, and remove what killed processes left half written."""
        make_folder(path)
        remove_left_behind(path.glob(".*"))
        if read_about(path) is None:
            remove(path / ABOUT)
            with atomic_path(path / ABOUT) as temporary:
                temporary.write_bytes(about)
        self.path = path
        self._files = chunk_files(path)

    def find(self, chunk: Chunk) -> bytes | None:
        """Rows of a chunk, or None; files under its number that can serve no such request are named and removed."""
        wanted, found = chunk.head(len(chunk.ends)), None
        files = [file for file in self._files if file.index == chunk.index]
        # The chunk itself comes first: what else has its number is then merely out of date, and nothing is rebuilt.
        for file in sorted(files, key=lambda file: file.head != wanted):
            content = file.read_whole()
            if file.head == wanted and found is None:
                found = content
            elif content and file.rows <= len(chunk.ends):
                if found is not None or file.head == chunk.head(file.rows):  # the chunk is there, or has grown from it
                    remove(file.path)
                else:
                    file.rebuild("its candles changed")
        return found

    def keep(self, chunk: Chunk, content: bytes) -> None:
        """Write the rows of a chunk. A longer file stays if it begins with them: this request was a shorter one."""
        for file in self._files:
            if file.index == chunk.index and file.rows > len(chunk.ends):
                longer = file.read_whole()
                if longer and not longer.startswith(content):
                    file.rebuild("its candles changed")
        with atomic_path(self.path / _name(chunk.head(len(chunk.ends)), content)) as temporary:
            temporary.write_bytes(content)


def read_about(folder: Path) -> bytes | None:
    """What a folder says about itself, or None if that is not what its name was made from."""
    try:
        content = (folder / ABOUT).read_bytes()
    except OSError:
        return None
    return content if folder.name.endswith(f"_{digest(content)}") else None


def remove(path: Path) -> None:
    """Delete a file; a folder, put there by mistake, only if nothing is in it."""
    try:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise CmatError(f"{path}: cannot be removed ({error.strerror or error}); move it away") from None


def _name(head: str, content: bytes) -> str:
    return f"{head}_{digest(head.encode(), content)}.f32"


def cache_info(cache_dir: str | Path) -> pd.DataFrame:
    """What a cache folder, which may be missing, holds: one row per folder of features, from first to last window."""
    rows = []
    for folder in _folders(cache_dir):
        files, about = chunk_files(folder), json.loads(read_about(folder) or "{}")
        longest = {file.index: file.rows for file in files}  # of two files of a chunk the longer one comes later
        first, last = (files[0].first, files[-1].last) if files else (None, None)
        known = (about.get("kind", "?"), about.get("symbol", "?"), sum(longest.values()), about.get("width", 0))
        rows.append((folder.name, *known, first, last, _size(folder) / 1e6))
    return pd.DataFrame(rows, columns=["folder", "kind", "symbol", "windows", "width", "first", "last", "megabytes"])


def verify(cache_dir: str | Path) -> list[str]:
    """A line per damaged chunk or description and per array of older code; empty if all checksums are right."""
    lines = [f"{path.name}: no record beside it" for path in _named(cache_dir, ".npy")]
    for folder in _folders(cache_dir):
        files = chunk_files(folder)
        if files and read_about(folder) is None:
            lines.append(f"{folder.name}: {ABOUT} is damaged or missing")
        lines += [f"{file} is damaged" for file in files if file.read() == b""]
    return lines


def clean(cache_dir: str | Path) -> int:
    """Delete cached features, those of older code included; bytes freed. A CmatError if something cannot be removed."""
    before = _size(Path(cache_dir))
    for path in [*_folders(cache_dir), *_folders(cache_dir, ".parts")]:
        if not path.is_symlink():
            for part in (part for pattern in ("*.f32", ABOUT, ".*", "*.draft") for part in path.glob(pattern)):
                remove(part)
        if path.is_symlink() or not any(path.iterdir()):  # what somebody else put there stays
            remove(path)
    for path in (path for suffix in (".npy", ".json", ".lock", ".draft") for path in _named(cache_dir, suffix)):
        remove(path)
    return before - _size(Path(cache_dir))


def _named(cache_dir: str | Path, suffix: str) -> list[Path]:
    """Files that have a name that older code gave."""
    found = (path for pattern in OLD for path in Path(cache_dir).glob(pattern))
    return sorted(path for path in found if path.suffix == suffix)


def _folders(cache_dir: str | Path, suffix: str = "") -> list[Path]:
    return sorted(path for path in Path(cache_dir).glob("*_features_*") if path.is_dir() and path.suffix == suffix)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
