"""Logging to MLflow, against a stand-in that records what it is given (mlflow itself is no dependency)."""

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.common import check_before_work
from cmat_lib.workflow.tracking import log_run

HISTORY = [{"epoch": n, "stop_loss": 1 / n, "samples_per_second": None if n == 1 else 10.0} for n in range(1, 601)]


class Server:
    """What MlflowClient is used for; a server outlives its clients."""

    def __init__(self):
        self.runs, self.experiments, self.uris, self.down = {}, {}, [], False

    def client(self, tracking_uri):
        if self.down:
            raise self.error("connection refused\nand much more")
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=name) if name in self.experiments else None

    def create_experiment(self, name, artifact_location):
        self.experiments[name] = artifact_location
        return name

    def search_runs(self, experiments, filter_string):
        assert "attributes.status = 'FINISHED'" in filter_string
        finished = [run for run in self.runs.values() if run["ended"]]
        return [run for run in finished if all(f"'{tag}'" in filter_string for tag in run["tags"].values())]

    def create_run(self, experiment, run_name, tags):
        self.runs[run_name] = {"tags": tags, "params": {}, "metrics": {}, "artifacts": [], "ended": False}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_batch(self, run, metrics=(), params=()):
        assert len(metrics) <= 1000 and len(params) <= 100, "MLflow refuses more"
        self.runs[run]["params"].update(params)
        for name, value, _, step in metrics:
            self.runs[run]["metrics"].setdefault(name, {})[step] = value

    def log_artifacts(self, run, folder, name):
        self.runs[run]["artifacts"].append((folder, name))

    def set_terminated(self, run):
        self.runs[run]["ended"] = True


@pytest.fixture
def server(monkeypatch):
    server = Server()
    names = ("mlflow", "mlflow.entities", "mlflow.exceptions")
    root, entities, exceptions = (ModuleType(name) for name in names)
    root.__spec__ = ModuleSpec("mlflow", None)
    root.MlflowClient = server.client
    entities.Param = lambda key, value: (key, value)
    entities.Metric = lambda key, value, timestamp, step: (key, value, timestamp, step)
    exceptions.MlflowException = server.error = type("MlflowException", (Exception,), {})
    for name, module in zip(names, (root, entities, exceptions), strict=True):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return server


RECORD = json.dumps({"fingerprint": "x", "finished": "2025-01-01T00:00:00+00:00", "seconds": 1, "artefacts": {}})


def run_in(folder, mlflow, evaluated=True):
    run = Run(load_config(changes={"run_dir": str(folder / "one"), "logging": {"mlflow": mlflow}}), "04_training")
    (folder / "one/stages").mkdir(parents=True, exist_ok=True)
    (run.path("stages/04_training.json")).write_text(RECORD)
    run.model_folder.mkdir(parents=True, exist_ok=True)
    (run.model_folder / "training_results.json").write_text(json.dumps({"history": HISTORY}))
    if evaluated:
        (run.path("stages/05_evaluation.json")).write_text(RECORD)
        score = {"score": "probability", "scope": "within", "metric": "roc_auc", "value": 0.75}
        run.path("metrics.json").write_text(json.dumps({"scores": [score, score | {"score": "trees", "value": 0.1}]}))
        run.path("report").mkdir(exist_ok=True)
        run.path("report/index.html").write_text("x")
    return run


def test_parameters_curves_scores_and_report(server, tmp_path):
    run = run_in(tmp_path, True)
    assert "experiment cmat, run one" in log_run(run)
    logged = server.runs["one"]
    assert logged["params"]["training.epochs"] == "500" and logged["params"]["seed"] == "0"
    assert logged["metrics"]["stop_loss"] == {n: 1 / n for n in range(1, 601)}
    assert 1 not in logged["metrics"]["samples_per_second"], "what is not known is left out"
    assert logged["metrics"]["test_within_roc_auc"] == {0: 0.75}
    assert logged["artifacts"] == [(str(run.path("report")), "report")] and logged["ended"]
    assert server.uris == [f"sqlite:///{tmp_path}/mlflow.db"]
    assert server.experiments["cmat"] == (tmp_path / "mlartifacts").as_uri()


def test_the_same_results_are_logged_once(server, tmp_path):
    log_run(run_in(tmp_path, True, evaluated=False))
    assert not server.runs["one"]["artifacts"]
    assert "has this run already" in log_run(run_in(tmp_path, True, evaluated=False))
    log_run(run_in(tmp_path, True))
    assert server.runs["one"]["artifacts"], "what has been evaluated since is another result"


def test_where(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env")
    log_run(run_in(tmp_path, True))
    log_run(run_in(tmp_path, "http://mine"))
    assert server.uris == ["http://env", "http://mine"] and server.experiments["cmat"] is None
    assert log_run(run_in(tmp_path, False)) is None and len(server.uris) == 2


def test_a_server_that_is_down_is_a_warning(server, tmp_path):
    server.down = True
    with pytest.warns(UserWarning, match="one is finished but not in MLflow at http://mine: connection refused$"):
        assert log_run(run_in(tmp_path, "http://mine")) is None


def test_without_the_package_nothing_starts(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(CmatError, match="pip install mlflow-skinny"):
        check_before_work(load_config(changes={"logging": {"mlflow": True}}))


def test_logging_does_not_change_what_a_run_is(tmp_path):
    plain, logged = (load_config(changes={"logging": {"mlflow": value}}) for value in (False, True))
    assert Run(plain, "04_training").fingerprint() == Run(logged, "04_training").fingerprint()


def test_a_run_that_was_logged_by_half_is_logged_again(server, tmp_path, monkeypatch):
    def lost(*_, **__):
        raise OSError("connection reset")

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="connection reset"):
        patch.setattr(server, "log_artifacts", lost)
        patch.setattr(server, "log_batch", lost)
        assert log_run(run_in(tmp_path, "http://server")) is None
    assert "already" not in log_run(run_in(tmp_path, "http://server"))
    assert "already" in log_run(run_in(tmp_path, "http://server"))
