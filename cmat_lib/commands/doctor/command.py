"""``cmat doctor``: is everything here that a run needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmat_lib.commands.options import Assignments, examples, run_config


@examples("cmat doctor", "cmat doctor --params params/crypto_15m.yaml --set data.data_dir=/path/to/candles")
def doctor(
    params: Annotated[
        Path | None, typer.Option("--params", help="Parameter file of a planned run: look at its data and memory too.")
    ] = None,
    assignments: Assignments = None,
) -> None:
    """Check Python, packages, machine, folders, data, topology, model and notebook kernel; say how to mend each.

    Exit code 1 if there is a problem; a warning is none. Takes half a minute.
    """
    from cmat_lib.commands.doctor.examination import examine

    config = run_config(params, assignments, None) if params or assignments else None
    states = set()
    for found in examine(config):
        states.add(found.state)
        print(f"{found.state:<8} {found.check:<16} {' '.join(found.text.split())}", flush=True)
        if found.mend:
            print(f"{'':<25} mend: {found.mend}", flush=True)
    if "problem" in states:
        print("\nThere are problems; the lines above say how to mend them.")
        raise typer.Exit(1)
    print("\nThis works; look at the warnings." if "warning" in states else "\nAll is well.")
