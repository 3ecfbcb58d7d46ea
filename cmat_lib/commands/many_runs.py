"""Several runs with one command: one after the other or at the same time, and none stops the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from joblib import Parallel, delayed

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config
from cmat_lib.workflow.notebooks import run_notebooks, stdout_line
from cmat_lib.workflow.stages.common import check_before_work


class Outcome(NamedTuple):
    """How one run ended."""

    run: str
    status: str  # done or failed
    seconds: float
    report: str  # path of its entry page


def run_many(configs: Sequence[Config], stages: tuple[str, ...], jobs: int) -> pd.DataFrame:
    """Execute the notebooks of every run; one that fails does not stop the others.

    Runs that share topology never compute it at the same time: the cache is locked per symbol, and whoever comes second
    reads what the first one wrote. With several jobs each run's kernels are told to use their share of the cores.

    Parameters
    ----------
    configs : sequence of Config
        One per run, each with its own run folder.
    jobs : int
        Runs at the same time.

    Returns
    -------
    DataFrame
        One row per run: ``run``, ``status`` (done or failed), ``seconds``, ``report``.

    Raises
    ------
    CmatError
        Before any run starts, if the parameters of one name something that does not exist.
    """
    for config in configs:
        check_before_work(config)
    # joblib's processes limit the threads of everything below them to cores over jobs, and kernels inherit that.
    tasks = (delayed(_outcome)(config, stages) for config in configs)
    outcomes = Parallel(n_jobs=jobs)(tasks) if jobs > 1 else [_outcome(config, stages) for config in configs]
    return pd.DataFrame(outcomes)


def _outcome(config: Config, stages: tuple[str, ...]) -> Outcome:
    name, started = Path(config.run_dir).name, time.perf_counter()
    say = stdout_line(f"{name}: ")
    status, report = "done", ""
    try:
        report = str(run_notebooks(config, stages, say))
    except Exception as error:  # whatever happened to this run, the others go on
        status = "failed"
        say(f"failed: {error}" if isinstance(error, CmatError) else f"failed: {type(error).__name__}: {error}")
    return Outcome(name, status, round(time.perf_counter() - started, 1), report)
