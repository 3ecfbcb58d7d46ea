"""Stage 04: training, threshold and calibration, and the files that it leaves; ``cmat train`` without pages."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from sklearn.metrics import average_precision_score, roc_auc_score

from cmat_lib import __version__
from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config, dump_params, project_root, resolve_path
from cmat_lib.evaluation.calibration import apply_calibration, fit_calibration
from cmat_lib.evaluation.metrics import choose_threshold
from cmat_lib.models import MultiTaskCrossModalAttention, build_model
from cmat_lib.training.checkpoint import load_model, save_checkpoint
from cmat_lib.training.devices import make_fabric, pick_device, processes
from cmat_lib.training.logs import TrainingLogs, epoch_line
from cmat_lib.training.objective import compiled_graphs, predict
from cmat_lib.training.resume import SavePoint
from cmat_lib.training.trainer import Row, Training, train
from cmat_lib.views import VIEWS
from cmat_lib.views.panel import Panel
from cmat_lib.workflow.lock import working_in
from cmat_lib.workflow.run import MODEL_FILE, RESULTS_FILE, Run, environment
from cmat_lib.workflow.stages.architecture import describe_model
from cmat_lib.workflow.stages.common import check_before_work, load_panel
from cmat_lib.workflow.stages.data import prepare_data
from cmat_lib.workflow.stages.features import build_features
from cmat_lib.workflow.tracking import log_run

Say = Callable[[str], None]
FITTED = ("train", "stop", "calibrate")  # parts of whose labels something in the model was chosen


def train_model(
    config: Config,
    run: Run,
    on_epoch: Callable[[Row], None] = lambda row: None,
    fabric: Fabric | None = None,
    panel: Panel | None = None,
) -> Training:
    """Stage 04: train, then fit threshold and calibration on the calibrate part, and store both with the weights.

    `on_epoch` takes each row of the history; with several processes that this call starts itself, all rows at the end.
    `fabric` is launched; without it several processes are started as ``cmat train``, whose lines are printed, because a
    notebook cannot be executed again in every process. `panel` is that of the run, if it is at hand.
    """
    if fabric is None and processes(config.training) > 1:
        return _train_in_processes(config, run, on_epoch)
    fabric = fabric or make_fabric(config.training)
    panel = load_panel(config, run, fabric.device) if panel is None else panel
    save_point = SavePoint(run.model_folder / "last.pt", run.fingerprint(), config.training.resume)
    if not fabric.is_global_zero:
        return train(config, panel, fabric=fabric, save_point=save_point)
    logs = TrainingLogs(run.model_folder / "logs")

    def follow(row: Row) -> None:
        logs(row)
        on_epoch(row)

    training = train(config, panel, follow, fabric=fabric, save_point=save_point)
    logs.close()
    _store(training, panel, config, run)
    run.interrupted = training.interrupted
    if not training.interrupted:
        save_point.path.unlink(missing_ok=True)
    return training


def _store(training: Training, panel: Panel, config: Config, run: Run) -> None:
    """Fit threshold and calibration, and write ``best_model.pt`` and ``training_results.json``."""
    checkpoint, answers = settle(training.model, panel, config, run.read_json("data/data.json"))
    save_checkpoint(run.claim(f"{config.logging.save_dir}/{MODEL_FILE}"), checkpoint)
    parts = panel.samples[panel.samples["trigger"].notna()].groupby("part")["trigger"]
    # The stop part chose the epoch, so its own scores flatter.
    ranking = {"roc_auc": roc_auc_score, "pr_auc": average_precision_score}
    scores = {part: {name: score(*own) for name, score in ranking.items()} for part, own in answers.items()}
    results = {
        "best_epoch": training.best_epoch,
        "interrupted": training.interrupted,
        "threshold": checkpoint["threshold"],
        "calibration": checkpoint["calibration"],
        "base_rates": parts.mean().to_dict(),
        "samples": parts.size().to_dict(),
        "scores": scores,
        "history": training.history,
        "environment": environment(),
        "device": str(panel.device),
        "processes": processes(config.training),
        "compiled_graphs": compiled_graphs(),
    }
    run.save_json(f"{config.logging.save_dir}/{RESULTS_FILE}", results)


def settle(
    model: MultiTaskCrossModalAttention, panel: Panel, config: Config, about: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Content of the checkpoint, whose threshold and calibration are fitted to the calibrate part.

    `about` says which data it was, ``data_hash`` and ``symbols``. Also the triggers and the model's own probabilities
    of the stop and the calibrate part.
    """
    answers = {}
    for part in ("stop", "calibrate"):
        index = panel.index(part)
        raw, _ = predict(model, panel, index, config.evaluation.batch_size)
        samples = panel.samples.iloc[index.cpu().numpy()]
        answers[part] = samples["trigger"].to_numpy(), raw
    trigger, raw = answers["calibrate"]
    calibration = fit_calibration(raw, trigger, config.evaluation.calibration)
    probability, when = apply_calibration(raw, calibration), samples["timestamp"]  # of the part that came last
    return {
        "weights": {name: tensor.cpu() for name, tensor in model.state_dict().items()},
        "config": config.model_dump(mode="json"),
        "views": {view.name: view.names(config) for view in VIEWS.active(config)},
        "scalers": panel.scalers,
        "threshold": choose_threshold(probability, trigger, when),
        "calibration": calibration,
        "labels": config.labels.model_dump(mode="json"),
        "symbols": about["symbols"],
        "data_hash": about["data_hash"],
        "seen_until": panel.samples.loc[panel.samples["part"].isin(FITTED), "label_end"].max().isoformat(),
        "versions": {"cmat": __version__, "torch": metadata.version("torch")},
    }, answers


def _train_in_processes(config: Config, run: Run, on_epoch: Callable[[Row], None]) -> Training:
    """Stage 04 by ``cmat train``, which starts one process per device; its files become this run's."""
    with tempfile.TemporaryDirectory() as folder:
        params = Path(folder) / "params.yaml"
        params.write_text(dump_params(config), encoding="utf-8")
        command = [sys.executable, "-m", "cmat_lib", "train", "--params", str(params), "--run-dir", config.run_dir]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, cwd=project_root(), **pipes) as process:
            for line in process.stdout:
                print(line, end="", flush=True)
    record = run.record(run.stage)
    if process.returncode or record is None:
        raise CmatError("training in several processes failed; the lines above say why")
    for name in record.artefacts:
        run.claim(name)
    results = run.training_results()
    for row in results["history"]:
        on_epoch(row)
    model, _, _ = load_model(run.model_path(), pick_device(config.training))
    return Training(model, results["history"], results["best_epoch"], results["interrupted"])


def run_until_training(config: Config, say: Say) -> None:
    """Stages 01 to 04 without pages; finished ones are skipped.

    Each of several processes calls this: the first one prepares while the others wait; all train; only the first one
    writes. An interrupted training ends in KeyboardInterrupt: the best model is stored, but the stage is not finished.
    """
    check_before_work(config)
    fabric = make_fabric(config.training)
    fabric.launch()
    if not fabric.is_global_zero:
        say = lambda line: None  # noqa: E731
    with ExitStack() as held:  # by the first process, which is the only one that writes

        def prepare() -> bool:
            held.enter_context(working_in(resolve_path(config.run_dir)))
            prepare_model(config, say)
            return _unfinished(config, "04_training", say) is not None

        if not _together(fabric, prepare):
            return
        run = Run(config, "04_training")
        if fabric.is_global_zero:
            run.begin()
        training = train_model(config, run, lambda row: say(epoch_line(row)), fabric)
        if training.interrupted:
            say(f"the state is kept in {run.model_folder / 'last.pt'}; the same command with --resume goes on")
            raise KeyboardInterrupt
        if fabric.is_global_zero:
            run.finish()
            if line := log_run(run):
                say(line)
        say(f"model: {run.model_folder / MODEL_FILE}")


def _together(fabric: Fabric, work: Callable[[], bool]) -> bool:
    """Answer of `work`, which only the first process does; if it fails, all processes end."""
    answer, error = None, None
    if fabric.is_global_zero:
        try:
            answer = work()
        except Exception as caught:
            error = caught
    answer, failed = fabric.broadcast((answer, error is not None))
    if error is not None:
        raise error
    if failed:
        sys.exit(1)
    return answer


def prepare_model(config: Config, say: Say) -> None:
    """Stages 01 to 03."""
    prepare_features(config, say)
    if run := _unfinished(config, "03_model_build", say):
        describe_model(build_model(config), run.begin())
        run.finish()


def prepare_features(config: Config, say: Say) -> Run:
    """Stages 01 and 02 without pages, unless they are finished; the run, from which candles and samples can be read."""
    check_before_work(config)
    for stage, work in (("01_data_prep", prepare_data), ("02_tda_cache", build_features)):
        if run := _unfinished(config, stage, say):
            work(config, run.begin())
            run.finish()
    return Run(config, "03_model_build").begin()


def _unfinished(config: Config, stage: str, say: Say) -> Run | None:
    """Run of a stage that is to be done; None if it is up to date."""
    run = Run(config, stage)
    damaged = run.damaged(stage)
    if run.is_finished(stage) and not damaged:
        say(f"{stage} is up to date")
        return None
    for name in damaged:
        say(f"{stage}: {name} is missing, damaged or edited; it is made again")
    say(stage)
    return run
