"""Two processes and one: the same global batches give the same curve, started by the command a user types."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from slim import slim

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config, merge, project_root, read_params
from cmat_lib.training.checkpoint import load_model, read_tensors
from cmat_lib.training.devices import make_fabric
from cmat_lib.training.optimisation import count_steps, micro_batch
from cmat_lib.training.steps import Steps
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.common import load_panel
from cmat_lib.workflow.stages.training import prepare_model, train_model

# Without dropout, and with the encoder that has BatchNorm frozen in the first epoch or absent.
PLAIN = ("fusion.dropout=0.0", "model.encoder_dropout=0.0", "training.task_weighting=learned")
TIMING = ["seconds", "samples_per_second", "seconds_left", "memory_gb"]


def train(folder, run_dir, *assignments):
    sets = (f"cache.dir={folder / 'cache'}", "cache.jobs=1", *PLAIN, *assignments)
    command = [sys.executable, "-m", "cmat_lib", "train", "--params", "params/smoke.yaml", "--run-dir", str(run_dir)]
    command += [flag for text in sets for flag in ("--set", text)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=project_root(), env=environment, capture_output=True, text=True, timeout=300)


def history(run_dir):
    results = json.loads((run_dir / "models/cross_modal_attention/training_results.json").read_text())
    return pd.DataFrame(results["history"]).drop(columns=TIMING), results


@pytest.mark.parametrize(
    "assignments",
    [
        ("model.modalities=[tda, complexity]", "training.epochs=3", "training.gradient_accumulation_steps=2"),
        ("training.freeze_encoder_epochs=1", "training.epochs=2"),
    ],
    ids=["without BatchNorm", "BatchNorm frozen in the first epoch"],
)
def test_two_processes_learn_what_one_learns(tmp_path, assignments):
    for devices in (1, 2):
        done = train(tmp_path, tmp_path / str(devices), f"training.devices={devices}", *assignments)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("01_data_prep") == 1, "only the first process may prepare and speak"
    (one, _), (two, results) = history(tmp_path / "1"), history(tmp_path / "2")
    assert results["processes"] == 2
    epochs = one.index if "model.modalities=[tda, complexity]" in assignments else one.index[:1]
    pd.testing.assert_frame_equal(two.loc[epochs], one.loc[epochs], rtol=1e-4)
    assert one["train_loss"].std() > 1e-3, "something must have been learned for the curves to be compared"


def test_the_stored_model_is_the_one_that_was_judged(tmp_path):
    """BatchNorm's statistics differ between processes; the first one's are stored, and must be the ones judged."""
    done = train(tmp_path, tmp_path / "run", "training.devices=2", "training.epochs=2")
    assert done.returncode == 0, done.stderr
    table, results = history(tmp_path / "run")
    model, config, _ = load_model(tmp_path / "run/models/cross_modal_attention/best_model.pt")
    panel = load_panel(config, Run(config, "04_training"))
    steps = Steps(make_fabric(config.training.model_copy(update={"devices": 1})), panel, config)
    steps.best_model.load_state_dict(model.state_dict())
    best = table.set_index("epoch").loc[results["best_epoch"]]
    assert steps.evaluate()["roc_auc"] == pytest.approx(best["stop_roc_auc"], abs=1e-9)


def test_an_error_of_one_process_is_told(tmp_path, monkeypatch):
    """Here the second process alone is out of memory."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('LOCAL_RANK') == '1':\n"
        "    import cmat_lib.training.memory as memory\n"
        "    memory.free_memory = lambda device: 1000\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{project_root()}")
    done = train(tmp_path, tmp_path / "run", "training.devices=2")
    assert done.returncode != 0 and "a batch of 64 samples" in done.stderr, done.stderr
    config = load_config(project_root() / "params/smoke.yaml", {"run_dir": str(tmp_path / "run")})
    assert Run(config, "04_training").record("04_training") is None


def test_a_failure_ends_all_processes_with_one_message(tmp_path):
    done = train(tmp_path, tmp_path / "run", "training.devices=2", "training.learning_rate=1.0e+30")
    assert done.returncode == 1
    assert done.stderr.count("training stopped:") == 1 and "Traceback" not in done.stderr
    early = train(tmp_path, tmp_path / "early", "training.devices=2", "labels.threshold_pct=90.0")
    assert early.returncode == 1 and early.stderr.count("cmat: ") == 1, early.stderr


def test_a_notebook_starts_the_processes_itself(tmp_path, capfd):
    raw = merge(read_params(project_root() / "params/smoke.yaml"), {"run_dir": str(tmp_path / "run")})
    raw = merge(raw, {"cache": {"dir": str(tmp_path / "cache"), "jobs": 1}, "training": {"devices": 2}})
    config = load_config(changes=raw)
    prepare_model(config, print)
    run = Run(config, "04_training").begin()
    rows = []
    training = train_model(config, run, rows.append)
    run.finish()
    assert [row["epoch"] for row in rows] == [1, 2] and not training.interrupted and not training.model.training
    assert "Starting with 2 processes" in capfd.readouterr().out
    assert Run(config, "04_training").is_finished("04_training")
    stored = read_tensors(run.model_folder / "best_model.pt", "cpu")["weights"]
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(tensor, stored[name]), name


def test_a_batch_must_be_shared_equally():
    assert micro_batch(1000, slim(batch_size=32).training, 4) == 32
    assert micro_batch(30, slim(batch_size=64).training, 4) == 32
    assert count_steps(30, slim(batch_size=64).training, 4) == 1
    with pytest.raises(CmatError, match=r"training\.batch_size 32 is shared among 3 processes"):
        micro_batch(1000, slim(batch_size=32).training, 3)
