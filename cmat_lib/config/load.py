"""Parameters: from YAML files, notebooks and the command line to one validated `Config`, and back to text."""

import os
import reprlib
import warnings
from collections.abc import Callable, Collection, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.config.inputs import TableConfig
from cmat_lib.config.schema import SECTIONS, Config

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
NUMBER_HINT = " (write 0.001 or 1.0e-3; YAML reads 1e-3 as text)"
Model = TypeVar("Model", bound=BaseModel)
Raw = dict[str, Any]  # sections, keys and values as a file has them


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

    A CmatError if it cannot be a path: an unknown user's home, a NUL byte, half a surrogate pair, links in a circle.
    """
    try:
        return (project_root() / Path(path).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise CmatError(f"{str(path)!r} is no path on this machine ({error}); correct it") from None


def read_params(path: str | Path) -> Raw:
    """Raw mapping of a parameter file; a CmatError if it is missing, is not YAML, or is not a mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CmatError(f"{path}: no such parameter file") from None
    except (OSError, ValueError) as error:
        raise CmatError(f"{path}: cannot be read as YAML: {error}") from None
    content = parse_yaml(text, f"{path}: cannot be read as YAML")
    content = {} if content is None else content
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

    A CmatError beginning with `problem`, if the text is not YAML, has aliases, or writes a value that does not exist.
    """
    try:
        return _PlainLoader(text).get_single_data()
    except RecursionError:
        raise CmatError(f"{problem}: brackets or indents are nested too deeply") from None
    except Exception as error:  # a 30 February, `!!int x` and their like raise whatever Python's own types do
        raise CmatError(f"{problem}: {error}") from None


def merge(base: Raw, changes: Raw) -> Raw:
    """Copy of `base` with `changes` laid over it, section by section (a section keeps the keys that are not named)."""
    both = [key for key, value in changes.items() if isinstance(value, dict) and isinstance(base.get(key), dict)]
    return {**base, **changes, **{key: {**base[key], **changes[key]} for key in both}}


def parse_assignment(text: str) -> Raw:
    """Turn ``section.key=value`` (or ``seed=3``) of the command line into a nested mapping; the value is YAML."""
    name, equals, value = text.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts) or len(parts) > 2:
        raise CmatError(f"--set {text}: write it as section.key=value, for example training.epochs=20")
    return nest({".".join(parts): parse_yaml(value, f"--set {text}: the value is not YAML")})


def nest(values: Mapping[str, Any]) -> Raw:
    """``{section: {key: value}}`` of ``{"section.key": value}``; a key without a section stays where it is."""
    nested: Raw = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        nested = merge(nested, {section: {key: value} if key else value})
    return nested


def load_config(
    path: str | Path | None = None, changes: Raw | None = None, *, base: Raw | None = None, origin: str | None = None
) -> Config:
    """Validated parameters from a file and changes to it.

    Parameters
    ----------
    path : path, optional
        A file that holds only differences from `base`, by default the schema's defaults.
    changes : dict, optional
        Sections, ``run_dir`` or ``seed``, laid over the file.
    origin : str, optional
        What errors name; the file by default.

    Raises
    ------
    CmatError
        Naming each wrong key and the nearest valid name.
    """
    raw = merge(base or {}, {} if path is None else read_params(path))
    return validate(merge(raw, changes or {}), origin or ("parameters" if path is None else str(path)))


def validate(raw: Raw, origin: str) -> Config:
    """Validate a raw mapping; see `load_config`."""
    config = checked(Config, _rename_aliases(raw, origin), origin, _explain)
    try:
        folder = resolve_path(config.run_dir)
    except CmatError:  # of another machine, perhaps, in its checkpoint: whoever needs the folder will say so
        return config
    # There pages and models would lie, and be replaced, among other things than a run's.
    if folder in (project_root().resolve(), Path(os.path.expanduser("~")).resolve(), Path(folder.anchor)):
        raise CmatError(f"{origin}: run_dir: choose a folder of its own, such as outputs/demo, not {config.run_dir!r}")
    return config


def checked(model: type[Model], raw: Raw, origin: str, explain: Callable[[dict[str, Any]], str]) -> Model:
    """Validated form of a raw mapping; a CmatError has a line of `explain` for each of pydantic's errors."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = dict.fromkeys(explain(item) for item in error.errors())
        raise CmatError("\n".join(f"{origin}: {line}" for line in lines)) from None
    except UnicodeEncodeError as error:  # pydantic's own, of a wrong text that it cannot quote
        raise CmatError(f"{origin}: a text holds what is no character ({error}); correct it") from None


def _rename_aliases(raw: Raw, origin: str) -> Raw:
    """Accept the source's names with a warning; pydantic's own ``deprecated`` does not warn on input."""
    raw = {key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()}
    for (old_section, old), (section, new) in ALIASES.items():
        given = raw.get(old_section)
        if not isinstance(given, dict) or old not in given:
            continue
        target = raw.setdefault(section, {})
        if not isinstance(target, dict):  # which the validation tells
            continue
        if new in target:
            problem = f"'{old_section}.{old}' is another name of '{section}.{new}'; give only the latter"
            raise CmatError(f"{origin}: {problem}")
        target[new] = given.pop(old)
        warnings.warn(f"{origin}: '{old_section}.{old}' is now '{section}.{new}'", FutureWarning, stacklevel=4)
    return raw


def _explain(item: dict[str, Any]) -> str:
    """One line of plain language for one pydantic error."""
    place = [str(part) for part in item["loc"] if not (isinstance(part, str) and "[" in part)]
    key = ".".join(place)
    if item["type"] == "extra_forbidden":
        place = [str(part) for part in item["loc"]]  # the user's own words, brackets and all
        return f"unknown {'key' if len(place) > 1 else 'section'} '{'.'.join(place)}'{_nearest(place)}"
    if item["type"] == "missing":
        field = _fields(place).get(place[-1])
        return f"{key}: is needed and not there{f' ({field.description})' if field else ''}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{key}: {message}" if key else message
    hint = NUMBER_HINT if isinstance(item["input"], str) and _reads_as_number(item["input"]) else ""
    if item["type"] == "string_type" and isinstance(item["input"], bool | int | float | date):
        hint = ' (put it in quotes, as "000001" or "ON": YAML reads numbers and dates, and ON, NO, YES as truth values)'
    return f"{key}: {message}, got {shown(item['input'])}{hint}"


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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


def _fields(place: list[str]) -> dict[str, Any]:
    """Fields of the section, or of the table, that a key stands in."""
    if len(place) == 1:
        return Config.model_fields
    return TableConfig.model_fields if len(place) > 2 else Config.model_fields[place[0]].annotation.model_fields


def _nearest(place: list[str]) -> str:
    """Suggestion for a misspelt name, also when the key belongs to another section."""
    homes = [name for name in SECTIONS if place[-1] in Config.model_fields[name].annotation.model_fields]
    if homes and len(place) == 2:
        return f"; did you mean '{homes[0]}.{place[-1]}'?"
    return nearest(".".join(place), [".".join([*place[:-1], name]) for name in _fields(place)])


def dump_params(config: Config) -> str:
    """All parameters as YAML, ready to be loaded again."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def commented_defaults() -> str:
    """Text of ``params/default.yaml``: every key with its default and what it means, made from the schema."""
    lines = ["# yaml-language-server: $schema=schema.json"]
    lines += ["# Every key with its default. Other files in this folder hold only what differs.", ""]
    for name, field in Config.model_fields.items():
        if name not in SECTIONS:
            lines.append(f"{name}: {_yaml_value(field.default)}  # {field.description}")
            continue
        section = field.annotation
        title = section.__doc__.splitlines()[0].rstrip(".")
        lines += ["", f"{name}:{'' if section.model_fields else ' {}'}  # {title}"]
        for key, own in section.model_fields.items():
            options = get_args(own.annotation)
            choices = f" ({' | '.join(options)})" if options and all(isinstance(o, str) for o in options) else ""
            lines.append(f"  {key}: {_yaml_value(own.default)}  # {own.description}{choices}")
    return "\n".join(lines) + "\n"


def _yaml_value(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
