"""A search over training parameters with Optuna, on the stop part; the test part stays closed.

The folder of a sweep is a run folder whose stages 01 and 02 are finished, which all trials share. Beside them lie
``journal.log`` (Optuna's storage, appended, so that a kill loses the trials that ran and nothing else), ``trials.csv``
and ``best.yaml``.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from joblib import Parallel, delayed
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from cmat_lib.base.errors import CmatError, first_line
from cmat_lib.base.files import unwritten, write_text
from cmat_lib.commands.sweep.file import Range, Space, Sweep, is_whole, trial_changes
from cmat_lib.config import load_config, merge, resolve_path, validate
from cmat_lib.models.fusion import fusion_class
from cmat_lib.training.devices import pick_device, processes
from cmat_lib.training.trainer import Row, train
from cmat_lib.workflow.ledger import append_trial, ledger_path, tried_row
from cmat_lib.workflow.lock import working_in
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.common import load_panel
from cmat_lib.workflow.stages.training import Say, prepare_features

JOURNAL = "journal.log"
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def run_sweep(sweep: Sweep, base: dict[str, Any], trials: int, jobs: int, say: Say) -> pd.DataFrame:
    """Train what is missing from `trials` finished or pruned trials, and write ``trials.csv`` and ``best.yaml``.

    Trials of an earlier command in the same folder count; `jobs` run at the same time, each in a process with its share
    of the cores. `base` are the raw parameters that every trial starts from, its ``run_dir`` the folder of the sweep.
    Returns the `study_table`; a CmatError if the folder holds a sweep of another kind, another process works in it, or
    no trial reached its end.
    """
    config = validate(base, "the base of the sweep")
    for name in sweep.search.get("fusion.fusion_type", []):
        fusion_class(name)
    if processes(config.training) > 1:
        message = "a sweep trains each trial in one process: set training.devices and num_nodes to 1, and use --jobs"
        raise CmatError(message)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Trials that another process left behind may only be given up if that process is gone: hence the hold.
    with working_in(resolve_path(config.run_dir)):
        run = prepare_features(config, say)
        study = _open_study(sweep, run, say)
        missing = trials - len(study.get_trials(deepcopy=False, states=DONE))
        Parallel(n_jobs=jobs)(delayed(_one_trial)(sweep, base, say) for _ in range(missing))
        table = study_table(study)
        write_text(run.path("trials.csv"), table.to_csv(index=False))
        _write_best(study, sweep, base, run)
    return table


def _stored(folder: Path) -> dict[str, Any]:
    """Where Optuna finds the study of a folder."""
    return {"storage": JournalStorage(JournalFileBackend(str(folder / JOURNAL))), "study_name": folder.name}


def _open_study(sweep: Sweep, run: Run, say: Say) -> optuna.Study:
    """Study of the folder, new or gone on with; what a killed command left running is marked as failed."""
    direction = "maximize" if sweep.metric == "stop_roc_auc" else "minimize"
    journal = run.path(JOURNAL)
    try:
        content = journal.read_bytes() if journal.exists() else b""
        if content.startswith(b"{") and not content.endswith(b"\n"):  # half a line, left by a kill, would be continued
            os.truncate(journal, content.rfind(b"\n") + 1)
        study = optuna.create_study(**_stored(run.folder), direction=direction, load_if_exists=True)
    except OSError as error:
        raise unwritten(journal, error) from None
    except Exception as error:  # lines may ask of Optuna's reader whatever they like
        problem = f"{journal}: not a journal of Optuna ({first_line(error)})"
        raise CmatError(f"{problem}; give --run-dir for a new folder") from None
    identity = {"base": run.fingerprint("04_training"), **sweep.model_dump(mode="json", exclude={"base", "trials"})}
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", identity)
    elif known != identity:
        differ = ", ".join(key for key in identity if known.get(key) != identity[key])
        problem = f"{run.folder} holds a sweep with another {differ}; its trials cannot be compared with new ones"
        raise CmatError(f"{problem}. Give --run-dir for a new folder, or put the old values back")
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
        study.tell(trial.number, state=TrialState.FAIL)
        say(f"trial {trial.number} was cut off and is marked as failed")
    return study


def _one_trial(sweep: Sweep, base: dict[str, Any], say: Say) -> None:
    """Ask for one more trial, train it, and tell how it went; also called in processes of their own."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run, pruner = Run(validate(base, "the base of the sweep"), "04_training"), optuna.pruners.NopPruner()
    if rule := sweep.pruning:
        pruner = optuna.pruners.MedianPruner(rule.startup_trials, rule.warmup_epochs + 1)
    study = optuna.load_study(**_stored(run.folder), pruner=pruner)
    study.optimize(lambda trial: _objective(trial, sweep, base, run, say), n_trials=1, catch=(CmatError,))


def _objective(trial: optuna.Trial, sweep: Sweep, base: dict[str, Any], run: Run, say: Say) -> float:
    # A sampler per trial, seeded by its number: what is proposed depends on the finished trials and on nothing else.
    trial.study.sampler = optuna.samplers.TPESampler(seed=sweep.seed + trial.number)
    values = {key: _suggest(trial, key, space) for key, space in sweep.search.items()}
    started, history, config, end = time.perf_counter(), [], None, ""

    def follow(row: Row) -> None:
        history.append(row)
        trial.report(row[sweep.metric], int(row["epoch"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        changes = merge(trial_changes(values), {"seed": trial.number})
        config = load_config(changes=changes, base=base, origin=f"trial {trial.number}")
        trained = train(config, load_panel(config, run, pick_device(config.training)), follow)
        if trained.interrupted:
            raise KeyboardInterrupt
        value = trained.history[trained.best_epoch - 1][sweep.metric]
        end = f"{sweep.metric} {value:.4f}  best epoch {trained.best_epoch} of {len(history)}"
        return value
    except optuna.TrialPruned:
        end = f"pruned after epoch {len(history)} at {history[-1][sweep.metric]:.4f}"
        raise
    except CmatError as error:
        say(f"trial {trial.number:>3}  failed: {error}")
        raise
    finally:
        trial.set_user_attr("epochs", len(history))
        if end and history:  # it was tried, and counts; what was cut off or could not be trained does not
            append_trial(ledger_path(run), tried_row(Run(config, "04_training")))
        tried = [f"{key.split('.')[1]} {format(v, '.3g' if isinstance(v, float) else '')}" for key, v in values.items()]
        seconds = time.perf_counter() - started
        say(f"trial {trial.number:>3}  {end or 'no result'}  {seconds:.0f} s  {'  '.join(tried)}")


def _suggest(trial: optuna.Trial, key: str, space: Space) -> Any:
    if not isinstance(space, Range):
        named = _named(space)
        return named[trial.suggest_categorical(key, list(named))]
    if is_whole(key):
        return trial.suggest_int(key, int(space.low), int(space.high), step=int(space.step or 1), log=space.log)
    return trial.suggest_float(key, space.low, space.high, step=space.step, log=space.log)


def _named(choices: list[Any]) -> dict[Any, Any]:
    """Choices by what Optuna knows them by: it stores plain values only, and a list goes by its text."""
    return {json.dumps(value) if isinstance(value, list | dict) else value: value for value in choices}


def study_table(study: optuna.Study) -> pd.DataFrame:
    """Trials, the best first: ``trial``, ``state``, ``value`` (if complete), ``epochs``, ``seconds``, keys searched."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        state, value = trial.state.name.lower().replace("fail", "failed"), trial.value
        row = {"trial": trial.number, "state": state, "value": value if state == "complete" else None}
        seconds = round(trial.duration.total_seconds(), 1) if trial.duration else None
        rows.append(row | {"epochs": trial.user_attrs.get("epochs"), "seconds": seconds} | trial.params)
    rising = study.direction == optuna.study.StudyDirection.MINIMIZE
    return pd.DataFrame(rows).sort_values(["value", "trial"], ascending=[rising, True], ignore_index=True)


def _write_best(study: optuna.Study, sweep: Sweep, base: dict[str, Any], run: Run) -> None:
    """``best.yaml``: the base file with what the best trial changed, as a parameter file of its own."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        raise CmatError(f"no trial reached its end; the lines above and {run.path('trials.csv')} say why")
    best, spaces = study.best_trial, sweep.search
    values = {k: v if isinstance(spaces[k], Range) else _named(spaces[k])[v] for k, v in best.params.items()}
    own = {"run_dir": f"{run.config.run_dir}_best", "seed": best.number}
    content = merge(merge(base, trial_changes(values)), own)
    score, tried = f"{sweep.metric} {best.value:.4f}", len(study.get_trials(deepcopy=False, states=DONE))
    head = f"# Trial {best.number} of {run.config.run_dir}: {score}, the best of {tried} trials.\n"
    write_text(run.path("best.yaml"), head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
