"""The command ``cmat``."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cmat_lib import __version__
from cmat_lib.base.errors import CmatError, LocalError, first_line
from cmat_lib.base.files import write_text
from cmat_lib.base.parts import load_parts, use_parts
from cmat_lib.commands.ablation.command import ablate, sweep
from cmat_lib.commands.cache import cache_app
from cmat_lib.commands.candles import candles
from cmat_lib.commands.compare import compare
from cmat_lib.commands.doctor.command import audit, doctor
from cmat_lib.commands.download import download
from cmat_lib.commands.grid import check_folders, grid_members
from cmat_lib.commands.help import MAIN_EPILOG, examples
from cmat_lib.commands.options import Assignments, RunDir, assign
from cmat_lib.commands.predict import export, predict
from cmat_lib.commands.runs import runs
from cmat_lib.config import Config, commented_defaults, load_config, merge, project_root
from cmat_lib.workflow.run import select_stages

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # wherever a library met them

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Three views of a market, fused by attention.",
    epilog=MAIN_EPILOG,
)


def main() -> None:
    """Entry point: mistakes of the user end with one message and exit code 1, without a traceback."""
    warnings.showwarning = _show_warning
    # GNU OpenMP's threads spin for milliseconds at every barrier: on a busy CPU that slows training seventeenfold, and
    # tens of microseconds cost nothing on an idle one. Read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        use_parts(*_taken_parts(sys.argv))
        load_parts()
        app()
    except CmatError as error:
        _complain(str(error), everywhere=isinstance(error, LocalError))
        sys.exit(1)
    except Exception as error:
        if (message := _lack(error)) is None:
            raise
        _complain(message)
        sys.exit(1)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(130)


def _lack(error: Exception) -> str | None:
    """Message for an error of the machine, not of the program: no room, no permission, no memory; None for others."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        place = error.filename or "a file"
        return f"{place} cannot be written: {error.strerror}; make room, and run the command again"
    if isinstance(error, (PermissionError, IsADirectoryError, NotADirectoryError)):
        return f"{error.filename or 'a file'}: {error.strerror}; move away what is there, or make it yours"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # torch's is a RuntimeError on a CPU
        return f"not enough memory ({first_line(error)}); use smaller windows, batches or networks, or fewer candles"
    return None


def _complain(message: str, everywhere: bool = False) -> None:
    """One message on stderr; of several training processes on a machine only the first one tells what all know."""
    if everywhere or os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"cmat: {message}", file=sys.stderr, flush=True)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    _complain(f"warning: {message}")


def _version(asked: bool) -> None:
    if asked:
        print(f"cmat {__version__}")
        raise typer.Exit


def _taken_parts(arguments: list[str]) -> list[str]:
    """Values of --parts, taken out of the arguments wherever they stand: parts are there before any command."""
    found = []
    for place in reversed(range(1, len(arguments))):
        option, equals, value = arguments[place].partition("=")
        if option != "--parts":
            continue
        if not equals:
            if place + 1 == len(arguments):
                raise CmatError("--parts needs a Python file")
            value = arguments.pop(place + 1)
        del arguments[place]
        found.insert(0, value)
    return found


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    parts: Annotated[
        list[Path] | None,
        typer.Option("--parts", help="Python file with parts of your own; before or after a command."),
    ] = None,
) -> None:
    """Three views of a market, fused by attention."""


@app.command(epilog=examples("run"))
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


def _grid_configs(
    path: Path, assignments: list[str] | None, run_dir: str | None, members: dict[str, dict[str, Any]]
) -> list[Config]:
    """Parameters of every member of a grid over one file; the file's own without a grid.

    Run folders lie side by side, so that all write into one ledger of trials.
    """
    plain = run_config(path, assignments, run_dir)
    if members == {"": {}}:
        return [plain]
    return [
        run_config(path, assignments, f"{plain.run_dir}__{name}", member=changes) for name, changes in members.items()
    ]


def run_config(
    path: Path | None,
    assignments: list[str] | None,
    run_dir: str | None,
    changes: dict[str, Any] | None = None,
    member: dict[str, Any] | None = None,
) -> Config:
    """Parameters of one run: the file, `changes`, ``--set``, the `member` of a grid, ``--run-dir``; later ones win."""
    merged = merge(assign(assignments, changes), member or {})
    if run_dir is not None:
        merged["run_dir"] = run_dir
    base = {"run_dir": f"outputs/{path.stem}"} if path is not None else None
    return load_config(path, merged, base=base)


@app.command(epilog=examples("train"))
def train(
    params: Annotated[Path | None, typer.Option("--params", help="Parameter file; the defaults without it.")] = None,
    assignments: Assignments = None,
    run_dir: RunDir = None,
    cache_dir: Annotated[str | None, typer.Option(help="cache.dir")] = None,
    trust_cache: Annotated[bool, typer.Option("--trust-cache", help="cache.trust: true")] = False,
    data_dir: Annotated[str | None, typer.Option(help="data.data_dir")] = None,
    log_level: Annotated[str | None, typer.Option(help="logging.level")] = None,
    epochs: Annotated[int | None, typer.Option(help="training.epochs")] = None,
    batch_size: Annotated[int | None, typer.Option(help="training.batch_size")] = None,
    lr: Annotated[float | None, typer.Option(help="training.learning_rate")] = None,
    fusion_hidden_dim: Annotated[int | None, typer.Option(help="fusion.hidden_dim and fusion.output_dim")] = None,
    fusion_num_heads: Annotated[int | None, typer.Option(help="fusion.num_heads")] = None,
    fusion_num_layers: Annotated[int | None, typer.Option(help="fusion.num_layers")] = None,
    device: Annotated[str | None, typer.Option(help="training.device: auto, cpu or cuda")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything from training on.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training of the same parameters that was cut off.")
    ] = False,
) -> None:
    """Prepare data and features as needed, and train, without notebooks.

    With training.devices above 1 this starts one process per device. On several machines start the same command on
    each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set, or under torchrun or SLURM.
    """
    flags = {
        "cache": {"dir": cache_dir, "trust": trust_cache or None},
        "data": {"data_dir": data_dir},
        "logging": {"level": log_level},
        "training": {"epochs": epochs, "batch_size": batch_size, "learning_rate": lr, "device": device}
        | {"resume": resume or None},
        "fusion": {
            "hidden_dim": fusion_hidden_dim,
            "output_dim": fusion_hidden_dim,
            "num_heads": fusion_num_heads,
            "num_layers": fusion_num_layers,
        },
    }
    changes = {section: {k: v for k, v in keys.items() if v is not None} for section, keys in flags.items()}
    changes = {section: keys for section, keys in changes.items() if keys} | ({} if seed is None else {"seed": seed})
    config = run_config(params, assignments, run_dir or (None if params else "outputs/train"), changes)
    logging.basicConfig(level=config.logging.level, format="%(levelname)s %(name)s: %(message)s")
    from cmat_lib.workflow.stages.training import run_until_training

    run_until_training(config, partial(print, flush=True))


@app.command(epilog=examples("schema"))
def schema(
    output: Annotated[
        Path | None, typer.Argument(help="File to write; by default params/schema.json and params/sweep.schema.json.")
    ] = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Also rewrite params/default.yaml from the schema.")
    ] = False,
) -> None:
    """Write the JSON schemas of the parameter and sweep files, so that editors complete and check them."""
    from cmat_lib.commands.sweep.file import Sweep

    folder = project_root() / "params"
    models = {output: Config} if output else {folder / "schema.json": Config, folder / "sweep.schema.json": Sweep}
    for path, model in models.items():
        write_text(path, json.dumps(model.model_json_schema(), indent=2) + "\n")
        print(path)
    if defaults:
        write_text(folder / "default.yaml", commented_defaults())
        print(folder / "default.yaml")


for _command in (sweep, runs, compare, ablate, candles, download, predict, export, audit, doctor):
    app.command(epilog=examples(_command.__name__))(_command)
app.add_typer(cache_app, name="cache")
