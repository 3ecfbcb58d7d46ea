"""Parts of somebody's own: channels, indicators, views, encoders, fusions and losses that are not in this package.

A part is Python that enters something into a registry. It comes from an installed package (entry points of the group
``cmat.parts``) or from a file that the command line or a call names; never from a parameter file, which runs no code.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from cloudpickle import register_pickle_by_value

from cmat_lib.base.errors import CmatError, first_line
from cmat_lib.base.files import file_hash

GROUP = "cmat.parts"
VARIABLE = "CMAT_PARTS"  # files, for the kernels and worker processes that a process starts
_loaded: dict[str, list[Path]] = {}  # module or package -> its files


def use_parts(*files: str | Path) -> None:
    """Run Python files that enter parts into the registries of CMAT, each once; a CmatError if one does not run."""
    for file in files:
        path = Path(file).expanduser().resolve()
        if [path] not in _loaded.values():
            _run(f"cmat_parts_{path.stem}_{len(_loaded)}", path)
        told = os.environ.get(VARIABLE, "").split(os.pathsep)
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys([*filter(None, told), str(path)]))


def load_parts() -> None:
    """Parts of installed packages, and those that the process was started with."""
    _load_packages()
    use_parts(*filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)))


@cache
def _load_packages() -> None:
    """Once in a process: to look through all that is installed takes longer than a small chunk of features."""
    for entry in metadata.entry_points(group=GROUP):
        package = entry.module.partition(".")[0]
        if package not in _loaded:
            try:
                entry.load()
            except Exception as error:
                raise CmatError(f"parts of {package} do not load: {first_line(error)}") from error
            home = Path(sys.modules[package].__file__)
            _loaded[package] = sorted(home.parent.rglob("*.py")) if home.stem == "__init__" else [home]


def _run(name: str, path: Path) -> None:
    if not path.is_file():
        raise CmatError(f"--parts {path}: no such file")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise CmatError(f"--parts {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name], _loaded[name] = module, [path]
    register_pickle_by_value(module)  # worker processes cannot import it by its name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name], _loaded[name]
        if isinstance(error, CmatError):
            raise
        raise CmatError(f"--parts {path}: {type(error).__name__}: {first_line(error)}") from error


def part_hashes(things: Iterable[Any] | None = None) -> list[list[str]]:
    """File and SHA-256 of each part; of those only that define one of some functions or classes."""
    modules = _loaded if things is None else {name for thing in things for name in _loaded if _is_of(thing, name)}
    files = (path for name in modules for path in _loaded[name])
    return sorted([path.name, file_hash(path)] for path in files)


def _is_of(thing: Any, name: str) -> bool:
    module = getattr(getattr(thing, "func", thing), "__module__", "")
    return module == name or module.startswith(f"{name}.")
