"""Runs the notebooks through papermill: in order, skipping what is up to date, stopping at the first error."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import make_folder, write_text
from cmat_lib.config import Config, project_root, resolve_path
from cmat_lib.workflow.entry_page import entry_page
from cmat_lib.workflow.lock import working_in
from cmat_lib.workflow.report import write_page
from cmat_lib.workflow.run import STAGE_NAMES, Run
from cmat_lib.workflow.stages.common import check_before_work
from cmat_lib.workflow.tracking import log_run

# What a page needs to look the same everywhere: figures that survive export, and no progress bars.
KERNEL_ENVIRONMENT = {
    "PLOTLY_RENDERER": "plotly_mimetype+notebook",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}


def run_notebooks(config: Config, stages: tuple[str, ...] = STAGE_NAMES, say: Callable[[str], None] = print) -> Path:
    """Execute the notebooks of a run, in order, and write its report; a stage that is up to date is skipped.

    Returns ``report/index.html`` of the run.

    Raises
    ------
    CmatError
        At the first error, naming notebook, cell and error. The executed page stays in the run folder. Also if another
        process works in that folder.
    """
    check_before_work(config)
    with working_in(resolve_path(config.run_dir)):
        return _run_stages(config, stages, say)


def _run_stages(config: Config, stages: tuple[str, ...], say: Callable[[str], None]) -> Path:
    again = False
    for stage in stages:
        run = Run(config, stage)
        page = run.path(f"notebooks/{stage}.ipynb")
        html = run.path(f"report/{stage}.html")  # written last: without it the page did not reach its end
        damaged = run.damaged(stage)
        if not (again or damaged) and run.is_finished(stage) and page.is_file() and html.is_file():
            say(f"{stage:<29} up to date")
            continue
        again = True  # what follows was made from what this stage is about to replace
        for name in damaged:
            say(f"{stage}: {name} is missing, damaged or edited; it is made again")
        started = time.perf_counter()
        for path in (page, html):
            make_folder(path.parent)
            path.unlink(missing_ok=True)  # an old page must not pass for one that failed
        execute(run, page)
        write_page(page, html)
        say(f"{stage:<29} {time.perf_counter() - started:6.1f} s")
    run = Run(config, STAGE_NAMES[-1])
    report = run.path("report/index.html")
    write_text(report, entry_page(run))
    if line := log_run(run):
        say(line)
    return report


def execute(run: Run, page: Path) -> None:
    """Execute the notebook of a stage headless, with all parameters of the run, into `page`."""
    source = project_root() / "notebooks" / f"{run.stage}.ipynb"
    if not source.is_file():
        raise CmatError(f"{source}: no such notebook; run cmat from inside a clone of the repository")
    os.environ.update(KERNEL_ENVIRONMENT)
    try:
        papermill.execute_notebook(
            source,
            page,
            parameters=run.config.model_dump(mode="json"),
            cwd=project_root(),
            progress_bar=False,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],  # the kernel's own remarks belong to no page
        )
    except PapermillExecutionError as error:
        what = f"failed in cell {error.cell_index + 1}: {error.ename}: {error.evalue}"
        raise CmatError(f"notebooks/{run.stage}.ipynb {what}\nthe executed page is {page}") from None
    except DeadKernelError:
        raise CmatError(
            f"notebooks/{run.stage}.ipynb: the kernel died, most often for want of memory; use fewer or shorter candle "
            f"files, a larger data.stride, or a smaller training.batch_size. The executed page is {page}"
        ) from None


def stdout_line(prefix: str = "") -> Callable[[str], None]:
    """Printer of progress lines that appear at once, also through a pipe."""
    return lambda line: print(prefix + line, flush=True)
