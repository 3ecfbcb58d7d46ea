"""``--grid section.key=value,value``: the product of the values, each a set of changes with a readable name."""

import hashlib
import json
import re
from collections.abc import Sequence
from itertools import product
from typing import Any

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config, resolve_path
from cmat_lib.config.load import nest, parse_yaml

LONGEST = 40  # characters of a value in a name; folder names are limited to 255


def grid_members(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Members of a grid: name (``fusion.fusion_type=concat__seed=1``) -> changes to the parameters.

    The name depends on the member alone. Values are the entries of a YAML list, so that the text
    ``data.channels=[log_close],[log_close, roc]`` has two. A CmatError if a text is not of the form of
    ``fusion.fusion_type=concat,gated``, a key is given twice, or two members are the same.
    """
    axes = [_axis(text) for text in texts]
    keys = [key for key, _ in axes]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise CmatError(f"--grid {twice} is given twice; list all its values in one")
    members: dict[str, dict[str, Any]] = {}
    for values in product(*(values for _, values in axes)):
        changes = dict(zip(keys, values, strict=True))
        name = "__".join(f"{key}={_readable(value)}" for key, value in changes.items())
        if name in members:
            raise CmatError(f"--grid: {name} would be run twice; list every value once")
        members[name] = nest(changes)
    return members


def check_folders(configs: Sequence[Config]) -> None:
    """Stop if two runs would write into one folder, also where upper and lower case are one (Windows, macOS)."""
    folders = [str(resolve_path(config.run_dir)) for config in configs]
    if len({folder.casefold() for folder in folders}) < len(folders):
        raise CmatError(f"two runs would share one run folder ({', '.join(folders)}); give each file its own run_dir")


def _axis(text: str) -> tuple[str, list[Any]]:
    key, equals, values = text.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"\w+(\.\w+)?", key):
        raise CmatError(f"--grid {text}: write it as section.key=value,value, for example seed=1,2,3")
    if key == "run_dir":
        why = "every member of a grid gets a run folder of its own; --run-dir sets its beginning"
        raise CmatError(f"--grid run_dir: {why}")
    parsed = parse_yaml(f"[{values}]", f"--grid {text}: the values are not YAML")
    if not parsed:
        raise CmatError(f"--grid {text}: no value is given")
    return key, parsed


def _readable(value: Any) -> str:
    """Value as part of a folder name: a text of letters, digits, ``.``, ``+``, ``-`` and ``_``.

    Where that is not the value itself, a hash of the value keeps two values apart.
    """
    plain = value if isinstance(value, str) else json.dumps(value, default=str)
    name = re.sub(r"[^A-Za-z0-9.+-]+", "_", plain).strip("_")[:LONGEST]
    if name == plain or (isinstance(value, str) and re.fullmatch(r"\w+", plain, re.ASCII) and len(plain) <= LONGEST):
        return plain
    return f"{name}_{hashlib.sha256(plain.encode()).hexdigest()[:6]}"
