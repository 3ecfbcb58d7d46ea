"""Parameters: from YAML files, notebooks and the command line to one validated `Config`, and back to text."""

from __future__ import annotations

import os
import reprlib
import warnings
from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.config.schema import SECTIONS, Config, TableConfig

# Keys of the source's own configuration (its sections 6 and 11.3), and where they live here.
ALIASES = {
    ("model", "lstm_hidden_size"): ("model", "nbeats_hidden_size"),
    ("model", "lstm_dropout"): ("model", "encoder_dropout"),
    ("model", "fusion_type"): ("fusion", "fusion_type"),
    ("model", "fusion_hidden_dim"): ("fusion", "hidden_dim"),
    ("model", "fusion_num_heads"): ("fusion", "num_heads"),
    ("model", "fusion_num_layers"): ("fusion", "num_layers"),
    ("model", "fusion_ffn_dim"): ("fusion", "ffn_dim"),
    ("model", "fusion_use_cls_token"): ("fusion", "use_cls_token"),
    # Names of earlier versions.
    ("tda", "stride"): ("data", "stride"),
    ("tda", "jobs"): ("cache", "jobs"),
    ("tda", "backend"): ("cache", "backend"),
    ("tda", "dask_scheduler"): ("cache", "dask_scheduler"),
    ("tda", "cache_dir"): ("cache", "dir"),
    ("tda", "trust_cache"): ("cache", "trust"),
}


def project_root() -> Path:
    """Folder with ``notebooks`` and ``params``: the nearest at or above the working directory, else the source tree.

    papermill's kernel starts in the caller's folder and JupyterLab's in ``notebooks/``; both must find the same files.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "notebooks").is_dir() and (folder / "params" / "default.yaml").is_file():
            return folder
    return Path(__file__).resolve().parents[2]


def resolve_path(path: str | Path) -> Path:
    """Absolute form of a path of the parameters; relative paths start at the project root.

    Raises
    ------
    CmatError
        If the text cannot be a path: an unknown user's home, a NUL byte, half a surrogate pair, links in a circle.
    """
    try:
        return (project_root() / Path(path).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise CmatError(f"{str(path)!r} is no path on this machine ({error}); correct it") from None


def read_params(path: str | Path) -> dict[str, Any]:
    """Raw mapping of a parameter file.

    Raises
    ------
    CmatError
        If the file is missing, is not YAML, or is not a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CmatError(f"{path}: no such parameter file") from None
    except (OSError, ValueError) as error:
        raise CmatError(f"{path}: cannot be read as YAML: {error}") from None
    content = parse_yaml(text, f"{path}: cannot be read as YAML")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise CmatError(f"{path}: expected sections like 'data:' at the top level, found a {type(content).__name__}")
    return content


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them, each naming the line before, stand for billions of values."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            problem = f"found the alias *{event.anchor}; write the value out instead"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode):
            node.value.encode()  # "\ud800", half a surrogate pair, can be no name of a file and no text in one
        return node


def parse_yaml(text: str, problem: str) -> Any:
    """Value of a YAML text of plain types.

    Raises
    ------
    CmatError
        Beginning with `problem`, if the text is not YAML, has aliases, or writes a value that does not exist.
    """
    loader = None
    try:
        loader = _PlainLoader(text)
        return loader.get_single_data()
    except RecursionError:
        raise CmatError(f"{problem}: brackets or indents are nested too deeply") from None
    except Exception as error:  # a 30 February, `!!int x` and their like raise whatever Python's own types do
        raise CmatError(f"{problem}: {error}") from None
    finally:
        if loader is not None:
            loader.dispose()


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Copy of `base` with `changes` laid over it, section by section (a section keeps the keys that are not named)."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if both else value
    return merged


def parse_assignment(text: str) -> dict[str, Any]:
    """Turn ``section.key=value`` (or ``seed=3``) of the command line into a nested mapping; the value is read as YAML.

    Raises
    ------
    CmatError
        If the text has no ``=`` or its value is not YAML.
    """
    name, equals, value = text.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts) or len(parts) > 2:
        raise CmatError(f"--set {text}: write it as section.key=value, for example training.epochs=20")
    return nest(".".join(parts), parse_yaml(value, f"--set {text}: the value is not YAML"))


def nest(key: str, value: Any) -> dict[str, Any]:
    """``{section: {key: value}}`` of ``section.key``, and ``{key: value}`` of a key without a section."""
    section, _, name = key.partition(".")
    return {section: {name: value}} if name else {section: value}


def load_config(
    path: str | Path | None = None,
    changes: dict[str, Any] | None = None,
    *,
    base: dict[str, Any] | None = None,
    origin: str | None = None,
) -> Config:
    """Validated parameters from a file and changes to it.

    The file holds only differences from `base`, by default the schema's defaults; `changes` (sections, ``run_dir`` or
    ``seed``) are laid over it. `origin` tells error messages where the values come from, by default the file's name.

    Raises
    ------
    CmatError
        Naming the key, where it came from and the nearest valid name.
    """
    raw = merge(base or {}, read_params(path)) if path is not None else dict(base or {})
    return validate(merge(raw, changes or {}), origin or (str(path) if path is not None else "parameters"))


def validate(raw: dict[str, Any], origin: str) -> Config:
    """Validate a raw mapping; see `load_config`."""
    raw = _rename_aliases(raw, origin)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise CmatError("\n".join(f"{origin}: {line}" for line in dict.fromkeys(lines))) from None
    except UnicodeEncodeError as error:  # pydantic's own, of a wrong text that it cannot quote
        raise CmatError(f"{origin}: a text holds what is no character ({error}); correct it") from None
    if _is_shared(config.run_dir):
        raise CmatError(f"{origin}: run_dir: choose a folder of its own, such as outputs/demo, not {config.run_dir!r}")
    return config


def _is_shared(run_dir: str) -> bool:
    """Whether a folder holds other things than a run: pages and models would lie, and be replaced, among them."""
    try:
        folder = resolve_path(run_dir)
    except CmatError:  # of another machine, perhaps, in its checkpoint: whoever needs the folder will say so
        return False
    return folder in (project_root().resolve(), Path(os.path.expanduser("~")).resolve(), Path(folder.anchor))


def _rename_aliases(raw: dict[str, Any], origin: str) -> dict[str, Any]:
    """Accept the source's names with a warning; pydantic's own ``deprecated`` does not warn on input."""
    raw = {key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()}
    for (old_section, old), (section, new) in ALIASES.items():
        if not isinstance(raw.get(old_section), dict) or old not in raw[old_section]:
            continue
        target = raw.setdefault(section, {})
        if not isinstance(target, dict):  # which the validation tells
            continue
        if new in target:
            raise CmatError(
                f"{origin}: '{old_section}.{old}' is another name of '{section}.{new}'; give only the latter"
            )
        target[new] = raw[old_section].pop(old)
        warnings.warn(f"{origin}: '{old_section}.{old}' is now '{section}.{new}'", FutureWarning, stacklevel=4)
    return raw


def _explain(item: dict[str, Any]) -> str:
    """One line of plain language for one pydantic error."""
    place = [str(part) for part in item["loc"] if not (isinstance(part, str) and "[" in part)]
    key = ".".join(place)
    if item["type"] == "extra_forbidden":
        place = [str(part) for part in item["loc"]]  # the user's own words, brackets and all
        key = ".".join(place)
        return f"unknown {'key' if len(place) > 1 else 'section'} '{key}'{_nearest(place)}"
    if item["type"] == "missing":
        return f"{key}: is needed and not there{_meaning(place)}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{key}: {message}" if key else message
    hint = " (write 0.001 or 1.0e-3; YAML reads 1e-3 as text)" if _looks_like_number(item["input"]) else ""
    if item["type"] == "string_type" and isinstance(item["input"], bool | int | float | date):
        hint = ' (put it in quotes, as "000001" or "ON": YAML reads numbers and dates, and ON, NO, YES as truth values)'
    return f"{key}: {message}, got {shown(item['input'])}{hint}"


class _Short(reprlib.Repr):
    """Values cut short: lists that share lists, as a checkpoint may hold them, are billions of values when written."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 2, 100, 100

    def repr_int(self, x: int, level: int) -> str:
        """Bits of a number of more digits than Python writes."""
        return super().repr_int(x, level) if x.bit_length() < 10_000 else f"a number of {x.bit_length()} bits"

    def repr_instance(self, x: Any, level: int) -> str:
        """Type alone of what holds values of its own, such as an OrderedDict."""
        return f"a {type(x).__name__}" if isinstance(x, Collection) else super().repr_instance(x, level)


def shown(value: Any) -> str:
    """Value of any size and depth for an error message."""
    return _Short().repr(value)


def _looks_like_number(value: Any) -> bool:
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False


def _meaning(place: list[str]) -> str:
    field = _fields(place).get(place[-1])
    return f" ({field.description})" if field and field.description else ""


def _fields(place: list[str]) -> dict[str, Any]:
    """Fields of the section, or of the table, that a key stands in."""
    if len(place) == 1:
        return Config.model_fields
    return TableConfig.model_fields if len(place) > 2 else Config.model_fields[place[0]].annotation.model_fields


def _nearest(place: list[str]) -> str:
    """Suggestion for a misspelt name, also when the key belongs to another section."""
    valid = _fields(place)
    homes = [name for name in SECTIONS if place[-1] in Config.model_fields[name].annotation.model_fields]
    if homes and len(place) == 2:
        return f"; did you mean '{homes[0]}.{place[-1]}'?"
    prefix = "".join(f"{part}." for part in place[:-1])
    return nearest(f"{prefix}{place[-1]}", [f"{prefix}{name}" for name in valid])


def dump_params(config: Config) -> str:
    """All parameters as YAML, ready to be loaded again."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def commented_defaults() -> str:
    """Text of ``params/default.yaml``: every key with its default and what it means, made from the schema."""
    lines = [
        "# yaml-language-server: $schema=schema.json",
        "# Every key with its default. Other files in this folder hold only what differs.",
        "",
    ]
    for name, field in Config.model_fields.items():
        if name not in SECTIONS:
            lines.append(f"{name}: {_yaml_value(field.default)}  # {field.description}")
            continue
        section = field.annotation
        lines += [
            "",
            f"{name}:{'' if section.model_fields else ' {}'}  # {section.__doc__.splitlines()[0].rstrip('.')}",
        ]
        lines += [
            f"  {key}: {_yaml_value(f.default)}  # {f.description}{_choices(f.annotation)}"
            for key, f in section.model_fields.items()
        ]
    return "\n".join(lines) + "\n"


def _yaml_value(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


def _choices(annotation: Any) -> str:
    options = get_args(annotation)
    if not options or not all(isinstance(option, str) for option in options):
        return ""
    return f" ({' | '.join(options)})"
