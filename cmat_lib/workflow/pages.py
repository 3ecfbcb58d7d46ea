"""What a notebook opens with: its parameters cell becomes validated parameters and a run folder."""

import ast
import difflib
import logging
import os
import sys
from typing import Any

from cmat_lib.base.errors import CmatError
from cmat_lib.base.parts import load_parts
from cmat_lib.config import merge, project_root, read_params, resolve_path, validate
from cmat_lib.config.schema import SECTIONS, Config
from cmat_lib.workflow.lock import join_or_refuse
from cmat_lib.workflow.run import STAGE_NAMES, Run


def open_stage(stage: str, variables: dict[str, Any]) -> tuple[Config, Run]:
    """First call of every notebook, with its ``globals()``: validated parameters, and access to the run folder.

    What the parameters cell holds is laid over the run's own ``params.yaml``; on page 01 over ``params/demo.yaml`` for
    ``outputs/demo`` and the defaults for any other run. A CmatError for names that papermill injected but no parameter
    has (papermill only warns), impossible parameters, a missing earlier stage, or a command that works in the folder.
    """
    load_parts()
    given = _given_parameters(stage, variables)
    join_or_refuse(resolve_path(given["run_dir"]))
    base, origin = base_parameters(stage, given["run_dir"])
    config = validate(merge(base, given), f"parameters of {stage} over {origin}")
    logging.getLogger("cmat_lib").setLevel(config.logging.level)
    return config, Run(config, stage).begin()


def _given_parameters(stage: str, variables: dict[str, Any]) -> dict[str, Any]:
    known = tuple(Config.model_fields)
    # papermill puts what it assigns into a cell that begins with ``# Parameters``
    cells = [cell for cell in variables.get("In", []) if cell.startswith("# Parameters\n")]
    nodes = [node for cell in cells for node in ast.parse(cell).body if isinstance(node, ast.Assign)]
    injected = [target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)]
    for name in injected + [n for n, value in variables.items() if isinstance(value, dict)]:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        if name in known or not (name in injected or close):
            continue
        hint = f"did you mean '{close[0]}'?" if close else f"the sections are {', '.join(SECTIONS)}"
        raise CmatError(f"parameters of {stage}: unknown section '{name}'; {hint}")
    return {name: variables[name] for name in known if variables.get(name) is not None and variables[name] != {}}


def base_parameters(stage: str, run_dir: str) -> tuple[dict[str, Any], str]:
    """What a page's own parameters are laid over, and where it comes from."""
    stored = resolve_path(run_dir) / "params.yaml"
    if stage != STAGE_NAMES[0]:
        if not stored.is_file():
            raise CmatError(f"{run_dir} is not a run yet; run notebooks/{STAGE_NAMES[0]}.ipynb first")
        return read_params(stored), str(stored)
    if resolve_path(run_dir) == resolve_path("outputs/demo"):
        return read_params(project_root() / "params/demo.yaml"), "params/demo.yaml"
    return {}, "the defaults"


def is_watched() -> bool:
    """Whether somebody looks on: a terminal, or JupyterLab (papermill starts kernels without a session name)."""
    return sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ
