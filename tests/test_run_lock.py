"""One worker per run folder: the second one is told who the first one is; what a kill leaves does not block."""

import os
import re
import signal
import subprocess
import sys

import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.config import project_root
from cmat_lib.workflow.lock import GLANCE_SECONDS, HELD, HOLDER, PAGE, is_worked_on, working_in
from cmat_lib.workflow.pages import open_stage

HOLD = "import sys, time; from pathlib import Path; from cmat_lib.workflow import lock; folder = Path(sys.argv[1]); "


def start(code, folder, **variables):
    """A process that says `ready` and stays until it is ended."""
    command = [sys.executable, "-c", HOLD + code, folder]
    environment = {**os.environ, **variables}
    process = subprocess.Popen(command, cwd=project_root(), stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def holder(tmp_path):
    """Another process that works in `tmp_path`."""
    with start(
        "exec('with lock.working_in(folder):\\n print(\"ready\", flush=True); time.sleep(60)')", tmp_path
    ) as process:
        yield process
        process.kill()


def test_the_second_worker_is_told_who_the_first_one_is(tmp_path, holder):
    assert is_worked_on(tmp_path)
    message = (
        rf"process {holder.pid} on \S+ works here since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC; wait for it, stop it,"
    )
    with pytest.raises(CmatError, match=message), working_in(tmp_path):
        pass
    (tmp_path / HOLDER).write_text("{")  # whatever happened to it
    with pytest.raises(CmatError, match="another process works here; wait for it"), working_in(tmp_path):
        pass


def test_what_a_killed_worker_leaves_does_not_block(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / HOLDER).exists() and not is_worked_on(tmp_path)
    with working_in(tmp_path):
        assert f'"pid": {os.getpid()}' in (tmp_path / HOLDER).read_text()
    assert not (tmp_path / HOLDER).exists() and HELD not in os.environ


def test_a_glance_at_the_folder_does_not_disturb_a_worker_that_begins(tmp_path, monkeypatch):
    with start("exec('while True:\\n print(\"ready\", flush=True); lock.is_worked_on(folder)')", tmp_path) as looker:
        (tmp_path / ".lock").touch()
        for _ in range(30):
            with working_in(tmp_path):
                pass
        looker.kill()


def test_one_process_does_not_hold_a_folder_twice(tmp_path):
    with working_in(tmp_path), pytest.raises(CmatError, match=f"process {os.getpid()} "), working_in(tmp_path):
        pass


@pytest.mark.parametrize("command", ["run", "train", "ablate", "sweep"])
def test_every_command_stops_before_it_touches_anything(tmp_path, holder, cmat, command):
    arguments = {"train": ["--params", "params/smoke.yaml"], "sweep": ["params/sweep.yaml"]}
    before = sorted(tmp_path.rglob("*"))
    code, _, err = cmat(command, *arguments.get(command, ["params/smoke.yaml"]), "--run-dir", tmp_path)
    assert code == 1 and re.match(rf"cmat: {tmp_path}: process {holder.pid} on ", err), err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_page_opened_by_hand_is_refused_while_a_command_works(tmp_path, holder):
    with pytest.raises(CmatError, match=f"process {holder.pid} on"):
        open_stage("01_data_prep", {"run_dir": str(tmp_path)})
    holder.kill()
    holder.wait()
    open_stage("01_data_prep", {"run_dir": str(tmp_path)})


def test_pages_and_trainings_of_a_command_work_under_its_hold(tmp_path, monkeypatch):
    with working_in(tmp_path):
        page = "lock.join_or_refuse(folder); exec('with lock.working_in(folder):\\n print(\"ready\", flush=True)')"
        with start(page, tmp_path) as process:
            assert process.wait() == 0


def test_a_killed_command_is_followed_once_its_page_has_ended(tmp_path, monkeypatch):
    """The kernel outlives the command that executes it for a second, and may still write."""
    page = start(
        "lock.join_or_refuse(folder); print('ready', flush=True); time.sleep(60)", tmp_path, **{HELD: f"1 {tmp_path}"}
    )
    try:
        monkeypatch.setattr("cmat_lib.workflow.lock.ORPHAN_SECONDS", GLANCE_SECONDS)
        with pytest.raises(CmatError, match="another process works here"), working_in(tmp_path):
            pass
        monkeypatch.setattr("cmat_lib.workflow.lock.ORPHAN_SECONDS", 15.0)
        os.kill(page.pid, signal.SIGKILL)
        with working_in(tmp_path):
            assert (tmp_path / PAGE).exists()
    finally:
        page.kill()
        page.communicate()


def test_a_folder_that_cannot_be_locked(tmp_path):
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(CmatError, match=r"cannot be written to \(.*\); choose another run folder"),
        working_in(tmp_path),
    ):
        pass
    assert not is_worked_on(tmp_path), "a list of runs goes on"
