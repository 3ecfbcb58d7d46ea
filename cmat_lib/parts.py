"""Parts of somebody's own: channels, indicators, views, encoders, fusions and losses that are not in this package.

A part is Python that enters something into a registry. It comes from an installed package (entry points of the group
``cmat.parts``) or from a file that the command line or a call names; never from a parameter file, which runs no code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from cloudpickle import register_pickle_by_value

from cmat_lib.errors import CmatError, first_line

GROUP = "cmat.parts"
VARIABLE = "CMAT_PARTS"  # files, for the kernels and worker processes that a process starts
_loaded: dict[str, Path] = {}  # module -> its file


def use_parts(*files: str | Path) -> None:
    """Run Python files that enter parts into the registries of CMAT; each once.

    Raises
    ------
    CmatError
        If a file is not there, or does not run.
    """
    for file in files:
        path = Path(file).expanduser().resolve()
        if path not in _loaded.values():
            _run(f"cmat_parts_{path.stem}_{len(_loaded)}", path)
        told = os.environ.get(VARIABLE, "").split(os.pathsep)
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys([*filter(None, told), str(path)]))


def load_parts() -> None:
    """Parts of installed packages, and those that the process was started with."""
    for entry in metadata.entry_points(group=GROUP):
        if entry.module not in _loaded:
            try:
                module = sys.modules[entry.load().__name__ if entry.attr is None else entry.module]
            except Exception as error:
                raise CmatError(f"parts of {entry.dist.name} do not load: {first_line(error)}") from error
            _loaded[entry.module] = Path(module.__file__)
    use_parts(*filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)))


def _run(name: str, path: Path) -> None:
    if not path.is_file():
        raise CmatError(f"--parts {path}: no such file")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise CmatError(f"--parts {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name], _loaded[name] = module, path
    register_pickle_by_value(module)  # worker processes cannot import it by its name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name], _loaded[name]
        if isinstance(error, CmatError):
            raise
        raise CmatError(f"--parts {path}: {type(error).__name__}: {first_line(error)}") from error


def part_hashes(things: Iterable[Any] | None = None) -> dict[str, str]:
    """SHA-256 of the file of each part, by its name; of those only that define one of some functions or classes."""
    modules = _loaded if things is None else {_module(thing) for thing in things} & set(_loaded)
    return {_loaded[name].name: hashlib.sha256(_loaded[name].read_bytes()).hexdigest() for name in sorted(modules)}


def _module(thing: Any) -> str:
    return getattr(getattr(thing, "func", thing), "__module__", "")
