"""Kill, interrupt and resume: what a training leaves is whole, and going on equals never having stopped."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from slim import panel_of, slim

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config, project_root
from cmat_lib.training import trainer
from cmat_lib.training.checkpoint import read_tensors
from cmat_lib.training.resume import SavePoint
from cmat_lib.training.signals import StopRequest
from cmat_lib.training.steps import Steps
from cmat_lib.training.trainer import train
from cmat_lib.workflow.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:an epoch has")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def ctrl_c_interrupts():
    """A process that was started in the background ignores Ctrl-C; these tests are about one that does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Killed(BaseException):
    """Stands for a process that is gone: nothing may catch it."""


def config_with_dropout():
    """Dropout draws random numbers at every step, a learned task weight lives in the loss: both must survive."""
    base = slim(epochs=4, early_stopping_patience=2, task_weighting="learned", learning_rate=0.01)
    fusion = base.fusion.model_copy(update={"dropout": 0.3})
    return base.model_copy(update={"fusion": fusion})


def die_at(monkeypatch, step):
    calls = iter(range(10**6))
    original = Steps.step

    def step_or_die(self, order, number):
        if next(calls) == step:
            raise Killed
        return original(self, order, number)

    monkeypatch.setattr(Steps, "step", step_or_die)


def outcome(result):
    timing = {"seconds", "samples_per_second", "seconds_left", "memory_gb"}
    history = [{k: v for k, v in row.items() if k not in timing} for row in result.history]
    return history, result.best_epoch, result.model.state_dict()


@pytest.fixture(scope="module")
def whole():
    """Outcome of the training that nobody disturbs."""
    config = config_with_dropout()
    return outcome(train(config, panel_of(config)))


def assert_equal_outcomes(a, b):
    assert a[:2] == b[:2]
    for name, tensor in a[2].items():
        assert torch.equal(tensor, b[2][name]), name


@pytest.mark.parametrize("seconds", [1e9, 0.0], ids=["saved after epochs", "saved at every step"])
@pytest.mark.parametrize("step", [0, 3, 8, 21])
def test_killed_and_resumed_equals_uninterrupted(whole, tmp_path, monkeypatch, step, seconds):
    config = config_with_dropout()
    monkeypatch.setattr(trainer, "SAVE_SECONDS", seconds)
    point = SavePoint(tmp_path / "last.pt", "print")
    with monkeypatch.context() as patch:
        die_at(patch, step)
        with pytest.raises(Killed):
            train(config, panel_of(config), save_point=point)
    if not point.path.exists():  # killed before the first save
        assert step < 8 and seconds > 0
        with pytest.warns(UserWarning, match="starts anew: there is no saved state yet"):
            resumed = train(config, panel_of(config), save_point=point._replace(resume=True))
    else:
        torch.manual_seed(99)  # a new process has other random numbers
        resumed = train(config, panel_of(config), save_point=point._replace(resume=True))
    assert_equal_outcomes(outcome(resumed), whole)


def test_resuming_takes_only_the_steps_that_are_left(tmp_path, monkeypatch):
    config = config_with_dropout()
    point = SavePoint(tmp_path / "last.pt", "print")
    with monkeypatch.context() as patch:
        die_at(patch, 13)
        with pytest.raises(Killed):
            train(config, panel_of(config), save_point=point)
    taken = []
    original = Steps.step
    monkeypatch.setattr(
        Steps, "step", lambda self, order, number: taken.append(number) or original(self, order, number)
    )
    rows = []
    train(config, panel_of(config), rows.append, save_point=point._replace(resume=True))
    assert len(taken) == 8 * (len(rows) - 1), "the first epoch is in the save point"
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1)), "watchers see the earlier epochs too"


def resave(path, **changes):
    torch.save(torch.load(path, weights_only=True) | changes, path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "damaged"),
        (lambda path: resave(path, device="cuda"), "made on a device of another kind"),
        (lambda path: torch.save({"fingerprint": "print"}, path), r"damaged \(device: Field required"),
        (lambda path: resave(path, model=[1]), r"damaged \(model: Input should be a valid dictionary"),
        (lambda path: resave(path, loop={"epoch": 2}), "damaged .loop.step: Field required"),
    ],
)
def test_a_state_that_cannot_be_used_is_named_and_not_used(whole, tmp_path, damage, reason):
    config = config_with_dropout()
    point = SavePoint(tmp_path / "last.pt", "print")
    train(config, panel_of(config), save_point=point)
    damage(point.path)
    with pytest.warns(UserWarning, match=f"training starts anew: .*{reason}"):
        again = train(config, panel_of(config), save_point=point._replace(resume=True))
    assert_equal_outcomes(outcome(again), whole)


def test_a_state_of_another_network_is_named_and_kept(tmp_path):
    config = config_with_dropout()
    point = SavePoint(tmp_path / "last.pt", "print")
    train(config, panel_of(config), save_point=point)
    model = torch.load(point.path, weights_only=True)["model"]
    resave(point.path, model={name: tensor[..., None] for name, tensor in model.items()})
    before = point.path.read_bytes()
    with pytest.raises(CmatError, match=r"last.pt: its state does not fit .*state_dict.*delete it to start anew"):
        train(config, panel_of(config), save_point=point._replace(resume=True))
    assert point.path.read_bytes() == before


@pytest.mark.parametrize("content", [{"fingerprint": "another"}, {"fingerprint": torch.ones(2)}, [1, 2]])
def test_the_state_of_another_training_is_not_lost(tmp_path, content):
    """Resuming with a misspelt number must not start anew and overwrite hours of work."""
    config = config_with_dropout()
    point = SavePoint(tmp_path / "last.pt", "print", resume=True)
    torch.save(content, point.path)
    before = point.path.read_bytes()
    with pytest.raises(CmatError, match="was made with other parameters"):
        train(config, panel_of(config), save_point=point)
    assert point.path.read_bytes() == before


def test_without_resume_a_state_is_not_used(tmp_path):
    config = config_with_dropout()
    point = SavePoint(tmp_path / "last.pt", "print")
    train(config, panel_of(config), save_point=point)
    rows = []
    train(config, panel_of(config), rows.append, save_point=point)
    assert rows[0]["epoch"] == 1 and len(rows) >= 3


@pytest.mark.parametrize("step", [2, 8, 11], ids=["first epoch", "between epochs", "second epoch"])
def test_ctrl_c_keeps_the_state_and_leaves_a_usable_model(whole, tmp_path, monkeypatch, step):
    config = config_with_dropout()
    point = SavePoint(tmp_path / "last.pt", "print")
    calls, original = iter(range(10**6)), Steps.step

    def step_with_ctrl_c(self, order, number):
        losses = original(self, order, number)
        if next(calls) + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(Steps, "step", step_with_ctrl_c)
        result = train(config, panel_of(config), save_point=point)
    assert result.interrupted and len(result.history) == 1 and result.best_epoch == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    inputs = panel_of(config).gather(torch.arange(5)).inputs
    probability, _ = result.model.predict(inputs["nbeats"], inputs["tda"], inputs["complexity"])
    assert probability.isfinite().all()
    resumed = train(config, panel_of(config), save_point=point._replace(resume=True))
    assert not resumed.interrupted
    assert_equal_outcomes(outcome(resumed), whole)


def test_saving_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    """A save that takes as long as many epochs is not made after each of them."""
    config = slim(epochs=6, early_stopping_patience=6)
    saves, original = [], SavePoint.save
    clock = iter(np.arange(0, 1e6, 1.0))  # every look at the clock is a second later, and so every save takes one
    monkeypatch.setattr(trainer.time, "monotonic", lambda: next(clock))

    def save(self, state):
        saves.append(state["loop"]["epoch"])
        original(self, state)

    monkeypatch.setattr(SavePoint, "save", save)
    train(config, panel_of(config), save_point=SavePoint(tmp_path / "last.pt", "print"))
    assert saves[0] == 2 and len(saves) < 6


def test_a_second_ctrl_c_interrupts_at_once():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    with StopRequest(enabled=False) as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert not stop.asked


# -- the command -------------------------------------------------------------------------------------------------------


def command(folder, *more):
    sets = {
        "cache.jobs": 1,
        "cache.dir": folder / "cache",
        "training.determinism": "strict",
        "training.batch_size": 16,
    }
    flags = [flag for key, value in sets.items() for flag in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "cmat_lib", "train", "--params", "params/smoke.yaml", *flags, *map(str, more)]


def start(folder, *more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command(folder, *more), cwd=project_root(), env=environment, **pipes)


def weights(run_dir):
    return read_tensors(run_dir / "models/cross_modal_attention/best_model.pt", CPU)["weights"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    with start(folder, "--run-dir", folder / "whole", "--epochs", 6) as process:
        output = process.communicate()[0]
    assert process.returncode == 0, output
    return folder, weights(folder / "whole")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
def test_the_command_goes_on_where_it_was_cut_off(undisturbed, number):
    folder, expected = undisturbed
    run_dir = folder / number.name
    process = start(folder, "--run-dir", run_dir, "--epochs", 6)
    for line in process.stdout:
        if line.startswith("epoch   2"):
            process.send_signal(number)
            break
    rest = process.communicate()[0]
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[number], rest
    config = load_config(project_root() / "params/smoke.yaml", {"run_dir": str(run_dir)})
    assert Run(config, "04_training").record("04_training") is None, "nothing may look like success"
    best = run_dir / "models/cross_modal_attention/best_model.pt"
    assert best.is_file() == (number == signal.SIGINT), "Ctrl-C leaves a usable model"
    with start(folder, "--run-dir", run_dir, "--epochs", 6, "--resume") as again:
        output = again.communicate()[0]
    assert again.returncode == 0 and "starts anew" not in output, output
    assert output.count("stop AUC") == 6
    for name, tensor in weights(run_dir).items():
        assert torch.equal(tensor, expected[name]), name
    assert not best.with_name("last.pt").exists(), "nothing is left to go on with"
