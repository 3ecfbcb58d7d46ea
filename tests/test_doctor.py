"""`cmat doctor`: what is well is said to be, and each thing that is broken is found, named and has a mend."""

import sys
from importlib import metadata
from types import SimpleNamespace

import nbclient
import numpy as np
import pandas as pd
import psutil
import torch
from slim import slim

from cmat_lib import models, tda
from cmat_lib.commands import doctor
from cmat_lib.config import load_config, project_root

SMOKE = project_root() / "params/smoke.yaml"


def only(check, *arguments):
    (finding,) = check(*arguments)
    return finding


def test_every_check_has_a_line_and_a_sound_machine_no_problem(cmat):
    code, out, _ = cmat("doctor", "--params", SMOKE)
    lines = [line for line in out.splitlines() if line.startswith(("ok", "warning", "problem"))]
    names = ("python", "packages", "machine", "memory", "disk", "data", "topology", "model", "notebook kernel")
    assert {line[9:25].strip() for line in lines} == set(names)
    assert code == 0 and not [line for line in lines if line.startswith("problem")], out


def test_a_problem_has_its_mend_and_exit_code_1(cmat, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "check_kernel", lambda: iter(()))
    code, out, _ = cmat("doctor", "--params", SMOKE, "--set", f"data.data_dir={tmp_path}/nowhere")
    assert code == 1 and f"problem  data             {tmp_path}/nowhere: no such folder" in out
    assert "ok       topology" in out, "the other checks still speak"


def test_python(monkeypatch):
    assert only(doctor.check_python).state == "ok"
    monkeypatch.setattr("platform.python_version_tuple", lambda: ("3", "13", "1"))
    assert only(doctor.check_python)[0:3:2] == ("problem", "use Python 3.11 or 3.12")


def test_packages_that_are_missing_or_of_other_versions(monkeypatch, tmp_path):
    versions = {"torch": "2.13.0+cpu", "numpy": "1.25.0", "optuna": "5.0.0"}
    monkeypatch.setattr(doctor, "_installed", versions.get)
    needed = ["torch>=2.4", "numpy>=1.26,<2", "ccxt>=4", 'dask>=2025; extra == "dask"']
    monkeypatch.setattr(metadata, "requires", lambda name: needed)
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\nnumpy==1.26.4\noptuna==5.0.1\ndask==2026.1\n")
    monkeypatch.setattr(doctor, "project_root", lambda: tmp_path)
    ranges, tested = doctor.check_packages()
    assert ranges.state == "problem" and ranges.text == "numpy 1.25.0, needed <2,>=1.26; ccxt is not installed"
    assert tested.state == "warning" and "constraints.txt" in tested.mend
    assert tested.text.endswith("numpy 1.25.0 (tested: 1.26.4), optuna 5.0.0 (tested: 5.0.1)")
    (tmp_path / "constraints.txt").unlink()
    assert [finding.state for finding in doctor.check_packages()] == ["problem", "ok"]


def test_memory_that_does_not_hold_a_batch(monkeypatch):
    config = slim(batch_size=4096)
    assert next(doctor.check_memory_for(config)).state == "ok"
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2e7))
    monkeypatch.setattr(doctor, "check_kernel", lambda: iter(()))
    (found,) = [finding for finding in doctor.examine(config) if finding.check == "memory"]
    assert found.state == "problem" and "training.batch_size: " in found.text
    assert only(doctor.check_memory_for, None).state == "warning"


def test_a_folder_that_cannot_be_written_and_a_full_disk(tmp_path, monkeypatch):
    config = load_config(changes={"run_dir": str(tmp_path / "a/b"), "cache": {"dir": "/proc/nowhere"}})
    fine, broken = doctor.check_folders(config)
    assert fine.state == "ok" and not (tmp_path / "a").exists(), "a look leaves nothing behind"
    assert broken.state == "problem" and broken.mend == "choose another cache.dir"
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9))
    assert next(doctor.check_folders(config)).state == "warning"


def test_gaps_are_a_warning_and_defects_a_problem(tmp_path, monkeypatch):
    time = pd.date_range("2025-01-01", periods=2000, freq="1h", tz="UTC").delete(slice(900, 905))
    frame = pd.DataFrame({"timestamp": time} | dict.fromkeys(["open", "high", "low", "close", "volume"], 1.0))
    frame.to_csv(tmp_path / "AAA.csv", index=False)
    config = load_config(SMOKE, {"data": {"data_dir": str(tmp_path)}})
    fine, gaps = doctor.check_data(config)
    assert "1 symbols, 1,995 candles of 1h" in fine.text
    assert gaps.state == "warning" and gaps.text == "candles are missing: AAA 5"
    frame.loc[7, "close"] = -1
    frame.to_csv(tmp_path / "AAA.csv", index=False)
    monkeypatch.setattr(doctor, "check_kernel", lambda: iter(()))
    (found,) = [finding for finding in doctor.examine(config) if finding.check == "data"]
    assert found.state == "problem" and "AAA.csv" in found.text
    frame.iloc[:50].assign(close=1.0).to_csv(tmp_path / "AAA.csv", index=False)
    (found,) = [finding for finding in doctor.examine(config) if finding.check == "data"]
    assert found.state == "problem" and "50 candles are too few" in found.text


def test_engines_that_disagree_are_found(monkeypatch):
    assert only(doctor.check_topology).state == "ok"
    exact = tda.rips_diagrams

    def wrong(cloud, engine):
        h0, h1 = exact(cloud, engine)
        return [h0, h1 + (1e-5 if engine == "planar" else 0)]

    monkeypatch.setattr(tda, "rips_diagrams", wrong)
    found = only(doctor.check_topology)
    assert found.state == "problem" and "disagree in H1" in found.text


def test_a_model_without_finite_gradients_is_found(monkeypatch):
    config, build = slim(), models.build_model
    assert only(doctor.check_model, config).state == "ok"

    def broken(config):
        model = build(config)
        with torch.no_grad():
            next(model.parameters()).fill_(np.nan)
        return model

    monkeypatch.setattr(models, "build_model", broken)
    assert only(doctor.check_model, config).state == "problem"


def test_a_kernel_of_another_python_is_found(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/elsewhere/bin/python")

    def execute(self):
        self.nb.cells[0].outputs = [SimpleNamespace(text=f"/usr/bin/python3\n{doctor.cmat_lib.__file__}\n")]

    monkeypatch.setattr(nbclient.NotebookClient, "execute", execute)
    found = only(doctor.check_kernel)
    assert found.state == "problem" and "/usr/bin/python3" in found.text
    assert found.mend == "/elsewhere/bin/python -m ipykernel install --sys-prefix --name python3"


def test_a_check_that_breaks_is_a_problem_and_the_next_one_runs(monkeypatch):
    def explode(config):
        raise ImportError("libtorch.so is missing")
        yield

    monkeypatch.setattr(doctor, "check_machine", explode)
    monkeypatch.setattr(doctor, "check_kernel", lambda: iter(()))
    found = {finding.check: finding for finding in doctor.examine(None)}
    assert found["machine"][:3] == ("problem", "ImportError: libtorch.so is missing", doctor.INSTALL)
    assert found["topology"].state == "ok"
