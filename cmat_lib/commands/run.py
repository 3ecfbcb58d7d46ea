"""``cmat run``: the notebooks of one parameter file, of several, or of a grid over them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
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


def run_many(configs: Sequence[Config], stages: tuple[str, ...], jobs: int) -> pd.DataFrame:
    """Execute the notebooks of every run; one that fails does not stop the others.

    One row per run: ``run``, ``status`` (done or failed), ``seconds``, ``report`` (path of its entry page). Runs never
    compute the same topology at the same time: the cache is locked per symbol, and whoever comes second reads what the
    first one wrote. A CmatError before any run starts, if the parameters of one name something that does not exist.
    """
    from joblib import Parallel, delayed

    from cmat_lib.workflow.stages.common import check_before_work

    for config in configs:
        check_before_work(config)
    # joblib's processes limit the threads of everything below them to cores over jobs, and kernels inherit that.
    return pd.DataFrame(Parallel(n_jobs=jobs)(delayed(_outcome)(config, stages) for config in configs))


def _outcome(config: Config, stages: tuple[str, ...]) -> dict[str, Any]:
    from cmat_lib.workflow.notebooks import run_notebooks, stdout_line

    name, started = Path(config.run_dir).name, time.perf_counter()
    say = stdout_line(f"{name}: ")
    status, report = "done", ""
    try:
        report = str(run_notebooks(config, stages, say))
    except Exception as error:  # whatever happened to this run, the others go on
        status = "failed"
        say(f"failed: {error}" if isinstance(error, CmatError) else f"failed: {type(error).__name__}: {error}")
    return {"run": name, "status": status, "seconds": round(time.perf_counter() - started, 1), "report": report}
