"""What several commands share: options and what their texts mean, the parameters of one run, examples."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config, load_config, merge
from cmat_lib.config.load import Raw, parse_assignment

Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one parameter; may be repeated.")
]
RunDir = Annotated[str | None, typer.Option("--run-dir", help="Run folder; by default outputs/NAME for NAME.yaml.")]
Params = Annotated[Path | None, typer.Option("--params", help="Parameter file; the defaults without it.")]


def examples(*lines: str) -> Callable:
    """Decorator: examples at the end of a command's ``--help``; each is tested to be understood."""

    def noted(command: Callable) -> Callable:
        command.epilog = "\n\n".join(("Examples:", *lines))  # typer keeps a line break where a blank line stands
        return command

    return noted


def add_commands(app: typer.Typer, *commands: Callable) -> None:
    """Put commands that have `examples` into an application, in the order of its help."""
    for command in commands:
        app.command(epilog=command.epilog)(command)


def assign(assignments: Assignments, base: Raw | None = None) -> Raw:
    """Raw parameters `base` with all ``--set`` laid over them, in order."""
    return reduce(merge, map(parse_assignment, assignments or []), base or {})


def run_config(
    path: Path | None, assignments: Assignments, run_dir: RunDir, changes: Raw | None = None, member: Raw | None = None
) -> Config:
    """Parameters of one run: the file, `changes`, ``--set``, the `member` of a grid, ``--run-dir``; later ones win."""
    merged = merge(assign(assignments, changes), member or {})
    if run_dir is not None:
        merged["run_dir"] = run_dir
    return load_config(path, merged, base=None if path is None else {"run_dir": f"outputs/{path.stem}"})


def utc_time(text: str, option: str) -> pd.Timestamp:
    """Moment that a text means, in UTC unless it says otherwise; a CmatError names the option if it is no time."""
    try:
        time = pd.Timestamp(text)
    except ValueError:
        time = pd.NaT
    if time is pd.NaT:
        raise CmatError(f"{option}: '{text}' is no time; write it as 2023-01-01 or 2023-01-01T06:00")
    return time.tz_localize("UTC") if time.tz is None else time.tz_convert("UTC")
