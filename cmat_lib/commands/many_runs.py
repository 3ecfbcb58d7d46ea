"""Several runs with one command: one after the other or at the same time, and none stops the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config
from cmat_lib.workflow.notebooks import run_notebooks, stdout_line
from cmat_lib.workflow.stages.data import check_before_work


def run_many(configs: Sequence[Config], stages: tuple[str, ...], jobs: int) -> pd.DataFrame:
    """Execute the notebooks of every run; one that fails does not stop the others.

    One row per run: ``run``, ``status`` (done or failed), ``seconds``, ``report`` (path of its entry page). Runs never
    compute the same topology at the same time: the cache is locked per symbol, and whoever comes second reads what the
    first one wrote. A CmatError before any run starts, if the parameters of one name something that does not exist.
    """
    for config in configs:
        check_before_work(config)
    # joblib's processes limit the threads of everything below them to cores over jobs, and kernels inherit that.
    return pd.DataFrame(Parallel(n_jobs=jobs)(delayed(_outcome)(config, stages) for config in configs))


def _outcome(config: Config, stages: tuple[str, ...]) -> dict[str, Any]:
    name, started = Path(config.run_dir).name, time.perf_counter()
    say = stdout_line(f"{name}: ")
    status, report = "done", ""
    try:
        report = str(run_notebooks(config, stages, say))
    except Exception as error:  # whatever happened to this run, the others go on
        status = "failed"
        say(f"failed: {error}" if isinstance(error, CmatError) else f"failed: {type(error).__name__}: {error}")
    return {"run": name, "status": status, "seconds": round(time.perf_counter() - started, 1), "report": report}
