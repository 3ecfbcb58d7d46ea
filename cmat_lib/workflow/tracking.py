"""Finished runs in MLflow, for those who keep their experiments there: parameters, curves, scores and the report."""

import math
import os
import re
import time
import warnings
from importlib.util import find_spec

from cmat_lib.base.errors import CmatError, first_line
from cmat_lib.config import Config
from cmat_lib.evaluation.metrics import MODEL
from cmat_lib.workflow.fingerprints import flat_parameters
from cmat_lib.workflow.run import STAGE_NAMES, Run

EXPERIMENT = "cmat"
TAG = "cmat.fingerprint"
MOST_PARAMETERS, MOST_METRICS, LONGEST = 100, 1000, 6000  # what MLflow takes in one request, and in one value


def check_mlflow(config: Config) -> None:
    """Stop before any work if ``logging.mlflow`` is on and the package is missing, with the command to install it."""
    if config.logging.mlflow and find_spec("mlflow") is None:
        raise CmatError(
            "logging.mlflow needs the package mlflow, which is not installed: pip install mlflow-skinny (or mlflow, "
            "which brings its web pages too), or set logging.mlflow: false"
        )


def log_run(run: Run) -> str | None:
    """Log a run with finished stages to MLflow, unless the same results are there.

    ``logging.mlflow`` says where: a tracking URI, or true for MLFLOW_TRACKING_URI, else ``mlflow.db`` beside the run
    folders. Returns one line on what was done; None if logging is off. A server that does not answer is a warning: the
    run is whole without it.
    """
    if not run.config.logging.mlflow or run.record("04_training") is None:
        return None
    from mlflow.exceptions import MlflowException

    told = run.config.logging.mlflow
    given = told if isinstance(told, str) else os.environ.get("MLFLOW_TRACKING_URI")
    uri = given or f"sqlite:///{run.folder.parent / 'mlflow.db'}"
    try:
        return _log(run, uri)
    except (MlflowException, OSError) as error:
        about = f"{run.config.run_dir} is finished but not in MLflow at {uri}: {first_line(error)}"
        warnings.warn(without_secrets(about), stacklevel=2)
        return None


def without_secrets(text: str) -> str:
    """User names and passwords of addresses are nobody's business."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def _log(run: Run, uri: str) -> str:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # MLflow's own 7 take minutes
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(EXPERIMENT)
    # A database file has no place for reports; a server has its own.
    place = (run.folder.parent / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
    experiment = client.create_experiment(EXPERIMENT, artifact_location=place) if found is None else found.experiment_id
    last = next(stage for stage in reversed(STAGE_NAMES) if run.record(stage) is not None)
    tag = f"{last} {run.fingerprint(last)} {run.folder.name}"
    if client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{tag}' and attributes.status = 'FINISHED'"):
        return f"MLflow at {without_secrets(uri)} has this run already"
    logged = client.create_run(experiment, run_name=run.folder.name, tags={TAG: tag}).info.run_id
    known, now = flat_parameters(run.config).items(), int(1000 * time.time())
    parameters = [Param(name, str(value)[:LONGEST]) for name, value in known if name != "run_dir"]
    metrics = [Metric(name, value, now, step) for name, value, step in _metrics(run) if math.isfinite(value)]
    for kind, items, most in (("params", parameters, MOST_PARAMETERS), ("metrics", metrics, MOST_METRICS)):
        for start in range(0, len(items), most):
            client.log_batch(logged, **{kind: items[start : start + most]})
    if run.path("report/index.html").is_file():
        client.log_artifacts(logged, str(run.path("report")), "report")
    client.set_terminated(logged)
    return f"logged to MLflow at {without_secrets(uri)}, experiment {EXPERIMENT}, run {run.folder.name}"


def _metrics(run: Run) -> list[tuple[str, float, int]]:
    """Name, value and step: the history by epoch, then the test part's scores of the model."""
    history = run.training_results()["history"]
    found = [(name, value, int(row["epoch"])) for row in history for name, value in row.items()]
    if run.record("05_evaluation") is not None:
        scores = [score for score in run.read_json("metrics.json")["scores"] if score["score"] == MODEL]
        found += [(f"test_{score['scope']}_{score['metric']}", score["value"], 0) for score in scores]
    return [(name, math.nan if value is None else float(value), step) for name, value, step in found]
