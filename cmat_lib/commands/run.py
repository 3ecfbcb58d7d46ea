"""``cmat run``: the notebooks of one parameter file, of several, or of a grid over them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.grid import check_folders, grid_members
from cmat_lib.commands.options import Assignments, RunDir, examples, run_config
from cmat_lib.config import Config
from cmat_lib.workflow.run import select_stages


@examples(
    "cmat run params/demo.yaml",
    "cmat run params/demo.yaml --set fusion.fusion_type=concat --run-dir outputs/concat",
    "cmat run params/demo.yaml --grid fusion.fusion_type=concat,gated --grid seed=1,2,3 --jobs 2",
    "cmat run params/demo.yaml --from 04 --until 05",
)
def run(
    params: Annotated[list[Path], typer.Argument(help="Parameter files; each is a run of its own.")],
    assignments: Assignments = None,
    run_dir: RunDir = None,
    first: Annotated[str | None, typer.Option("--from", help="First notebook, for example 04.")] = None,
    last: Annotated[str | None, typer.Option("--until", help="Last notebook, for example 05.")] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", metavar="SECTION.KEY=VALUE,VALUE", help="One run per value; several make the product."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at the same time.")] = 1,
) -> None:
    """Execute the notebooks with the parameters of each file and write a report.

    Finished notebooks whose parameters, input files and earlier stages have not changed are skipped. Of several runs
    (more than one file, or --grid) one that fails does not stop the others.
    """
    stages = select_stages(first, last)
    members = grid_members(grid or [])
    configs = [c for path in params for c in _grid_configs(path, assignments, run_dir, members)]
    check_folders(configs)
    if len(configs) == 1:
        from cmat_lib.workflow.notebooks import run_notebooks, stdout_line

        print(f"report: {run_notebooks(configs[0], stages, stdout_line())}")
        return
    from cmat_lib.commands.many_runs import run_many

    outcomes = run_many(configs, stages, jobs)
    print(f"\n{outcomes.to_string(index=False)}")
    if failed := (outcomes["status"] == "failed").sum():
        raise CmatError(f"{failed} of {len(outcomes)} runs failed; the lines above say why")


def _grid_configs(path: Path, assignments: Assignments, run_dir: RunDir, members: dict[str, dict]) -> list[Config]:
    """Parameters of every member of a grid over one file, whose run folders lie side by side: one ledger of trials."""
    plain = run_config(path, assignments, run_dir)
    if members == {"": {}}:
        return [plain]
    return [run_config(path, assignments, f"{plain.run_dir}__{name}", member=own) for name, own in members.items()]
