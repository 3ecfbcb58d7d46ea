"""What a cache folder holds, whether it is whole, and how it is emptied."""

import json
from pathlib import Path

import pandas as pd

from cmat_lib.data.cache.chunks import ABOUT, chunk_files, read_about, remove

OLD = ("tda_features_*", "complexity_features_*")  # what earlier versions wrote beside the folders


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
