"""Parameters: the schema of the twelve sections, and how files, command lines and notebooks become one."""

from cmat_lib.config.load import dump_params, load_config, merge, project_root, read_params, resolve_path, validate
from cmat_lib.config.schema import Config

__all__ = ["Config", "dump_params", "load_config", "merge", "project_root", "read_params", "resolve_path", "validate"]
