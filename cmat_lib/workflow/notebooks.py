"""Runs the notebooks through papermill, in order, and exports them as HTML that is readable without a network."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import make_folder, write_text
from cmat_lib.config import Config, project_root, resolve_path
from cmat_lib.workflow.entry_page import entry_page
from cmat_lib.workflow.lock import working_in
from cmat_lib.workflow.run import STAGE_NAMES, Run
from cmat_lib.workflow.stages.common import check_before_work
from cmat_lib.workflow.tracking import log_run

# What a page needs to look the same everywhere: figures that survive export.
_FIGURES = {"PLOTLY_RENDERER": "plotly_mimetype+notebook", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
# nbconvert and Plotly's renderer link to require.js, MathJax and mermaid; no page needs them.
_REMOTE = (
    re.compile(r"<script[^>]*\bsrc=[\"']https?://[^>]*>\s*</script>"),
    re.compile(r"<script type=\"module\">(?:(?!</script>).)*?mermaid.*?</script>", re.DOTALL),
    re.compile(r"<link[^>]*\bhref=[\"']https?://[^>]*>"),
)


def run_notebooks(config: Config, stages: tuple[str, ...] = STAGE_NAMES, say: Callable[[str], None] = print) -> Path:
    """Execute the notebooks of a run, in order, and write its report; a stage that is up to date is skipped.

    Returns ``report/index.html``. A CmatError at the first error names notebook, cell and error, and the executed page
    stays in the run folder; also if another process works there.
    """
    check_before_work(config)
    with working_in(resolve_path(config.run_dir)):
        again = False
        for stage in stages:
            run = Run(config, stage)
            page, html = run.path(f"notebooks/{stage}.ipynb"), run.path(f"report/{stage}.html")
            damaged = [] if again else run.damaged(stage)
            # the HTML is written last: without it the page did not reach its end
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
            body, _ = HTMLExporter(embed_images=True).from_notebook_node(nbformat.read(page, as_version=4))
            write_text(html, offline(body))
            say(f"{stage:<29} {time.perf_counter() - started:6.1f} s")
        run = Run(config, STAGE_NAMES[-1])
        write_text(run.path("report/index.html"), entry_page(run))
        if line := log_run(run):
            say(line)
        return run.path("report/index.html")


def execute(run: Run, page: Path) -> None:
    """Execute the notebook of a stage headless, with all parameters of the run, into `page`."""
    source = project_root() / "notebooks" / f"{run.stage}.ipynb"
    if not source.is_file():
        raise CmatError(f"{source}: no such notebook; run cmat from inside a clone of the repository")
    os.environ.update(_FIGURES)
    how = {"cwd": project_root(), "progress_bar": False, "kernel_name": "python3"}
    quiet = ["--log-level=ERROR"]  # the kernel's own remarks belong to no page
    try:
        papermill.execute_notebook(source, page, run.config.model_dump(mode="json"), extra_arguments=quiet, **how)
    except PapermillExecutionError as error:
        what = f"failed in cell {error.cell_index + 1}: {error.ename}: {error.evalue}"
        raise CmatError(f"notebooks/{run.stage}.ipynb {what}\nthe executed page is {page}") from None
    except DeadKernelError:
        raise CmatError(
            f"notebooks/{run.stage}.ipynb: the kernel died, most often for want of memory; use fewer or shorter candle "
            f"files, a larger data.stride, or a smaller training.batch_size. The executed page is {page}"
        ) from None


def offline(page: str) -> str:
    """Page without the scripts and links that would be fetched from the network."""
    for pattern in _REMOTE:
        page = pattern.sub("", page)
    return page


def stdout_line(prefix: str = "") -> Callable[[str], None]:
    """Printer of progress lines that appear at once, also through a pipe."""
    return lambda line: print(prefix + line, flush=True)
