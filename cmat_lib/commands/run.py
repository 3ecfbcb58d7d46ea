"""``cmat run``: the notebooks of one parameter file, of several, or of a grid over them."""

import hashlib
import json
import re
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.options import Assignments, RunDir, examples, run_config
from cmat_lib.config import Config, resolve_path
from cmat_lib.config.load import nest, parse_yaml
from cmat_lib.workflow.run import select_stages

LONGEST = 40  # characters of a value in a name; folder names are limited to 255


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


def grid_members(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Members of a grid: name (``fusion.fusion_type=concat__seed=1``) -> changes to the parameters.

    The name depends on the member alone. Values are the entries of a YAML list, so that the text
    ``data.channels=[log_close],[log_close, roc]`` has two. A CmatError if a text is not of the form of
    ``fusion.fusion_type=concat,gated``, a key is given twice, or two members are the same.
    """
    axes = [_axis(text) for text in texts]
    keys = [key for key, _ in axes]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise CmatError(f"--grid {twice} is given twice; list all its values in one")
    members: dict[str, dict[str, Any]] = {}
    for values in product(*(values for _, values in axes)):
        changes = dict(zip(keys, values, strict=True))
        name = "__".join(f"{key}={_readable(value)}" for key, value in changes.items())
        if name in members:
            raise CmatError(f"--grid: {name} would be run twice; list every value once")
        members[name] = nest(changes)
    return members


def check_folders(configs: Sequence[Config]) -> None:
    """Stop if two runs would write into one folder, also where upper and lower case are one (Windows, macOS)."""
    folders = [str(resolve_path(config.run_dir)) for config in configs]
    if len({folder.casefold() for folder in folders}) < len(folders):
        raise CmatError(f"two runs would share one run folder ({', '.join(folders)}); give each file its own run_dir")


def _axis(text: str) -> tuple[str, list[Any]]:
    key, equals, values = text.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"\w+(\.\w+)?", key):
        raise CmatError(f"--grid {text}: write it as section.key=value,value, for example seed=1,2,3")
    if key == "run_dir":
        why = "every member of a grid gets a run folder of its own; --run-dir sets its beginning"
        raise CmatError(f"--grid run_dir: {why}")
    parsed = parse_yaml(f"[{values}]", f"--grid {text}: the values are not YAML")
    if not parsed:
        raise CmatError(f"--grid {text}: no value is given")
    return key, parsed


def _readable(value: Any) -> str:
    """Value as part of a folder name: a text of letters, digits, ``.``, ``+``, ``-`` and ``_``.

    Where that is not the value itself, a hash of the value keeps two values apart.
    """
    plain = value if isinstance(value, str) else json.dumps(value, default=str)
    name = re.sub(r"[^A-Za-z0-9.+-]+", "_", plain).strip("_")[:LONGEST]
    if name == plain or (isinstance(value, str) and re.fullmatch(r"\w+", plain, re.ASCII) and len(plain) <= LONGEST):
        return plain
    return f"{name}_{hashlib.sha256(plain.encode()).hexdigest()[:6]}"
