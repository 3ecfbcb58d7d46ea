"""Parameters: the schema of the twelve sections, and how files, command lines and notebooks become one."""

from cmat_lib.config.load import (
    ALIASES,
    commented_defaults,
    dump_params,
    load_config,
    merge,
    nest,
    parse_assignment,
    parse_yaml,
    project_root,
    read_params,
    resolve_path,
    shown,
    validate,
)
from cmat_lib.config.schema import Config

__all__ = [
    "ALIASES",
    "Config",
    "commented_defaults",
    "dump_params",
    "load_config",
    "merge",
    "nest",
    "parse_assignment",
    "parse_yaml",
    "project_root",
    "read_params",
    "resolve_path",
    "shown",
    "validate",
]
