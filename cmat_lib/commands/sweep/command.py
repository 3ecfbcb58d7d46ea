"""``cmat sweep``: many trainings with other parameters, judged on the stop part."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cmat_lib.commands.options import Assignments, assign, examples
from cmat_lib.config import merge


@examples("cmat sweep params/sweep.yaml --trials 40 --jobs 2", "cmat run outputs/sweep/best.yaml")
def sweep(
    file: Annotated[Path, typer.Argument(help="Sweep file, for example params/sweep.yaml.")],
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all; the file says it otherwise.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trials at the same time.")] = 1,
    assignments: Assignments = None,
    run_dir: Annotated[str | None, typer.Option(help="Sweep folder; by default outputs/NAME for NAME.yaml.")] = None,
) -> None:
    """Train many times with other parameters and keep what the stop part likes best.

    All trials share data and topology. The same command goes on after a kill, and --trials adds more. Every trial is
    counted in the ledger, and the test part is not looked at: run best.yaml for that.
    """
    from cmat_lib.commands.sweep.file import read_sweep
    from cmat_lib.commands.sweep.search import run_sweep

    content, base = read_sweep(file)
    base = merge(assign(assignments, base), {"run_dir": run_dir or f"outputs/{file.stem}"})
    table = run_sweep(content, base, trials or content.trials, jobs, partial(print, flush=True))
    folder = base["run_dir"]
    print(f"\n{table.head(10).to_string(index=False)}\n")
    print(f"all trials: {folder}/trials.csv")
    print(f"the test part is still closed; open it with: cmat run {folder}/best.yaml")
