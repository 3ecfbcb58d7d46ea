"""Files are whole or absent, and what a killed process leaves of them goes."""

import signal
import subprocess
import sys

from cmat_lib.base.files import atomic_path, write_text
from cmat_lib.config import project_root
from cmat_lib.workflow.lock import working_in

KILLED = (
    "import os, signal, sys; from pathlib import Path; from cmat_lib.base.files import atomic_path\n"
    "with atomic_path(Path(sys.argv[1])) as temporary:\n"
    "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
)


def killed_while_writing(path):
    """The temporary file that a killed process has left beside `path`."""
    before = set(path.parent.iterdir())
    process = subprocess.run([sys.executable, "-c", KILLED, path], cwd=project_root())
    assert process.returncode == -signal.SIGKILL
    (left,) = set(path.parent.iterdir()) - before
    return left


def test_what_a_killed_process_left_of_a_file_goes_with_the_next_writing(tmp_path):
    path, other = tmp_path / "scores.csv", tmp_path / "scores[1].csv"
    killed_while_writing(path)
    of_another = killed_while_writing(other)
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, of_another])
    write_text(other, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, other])


def test_who_holds_a_run_folder_removes_what_killed_processes_left_there(tmp_path):
    (tmp_path / "model").mkdir()
    left = [killed_while_writing(tmp_path / name) for name in ("params.yaml", "model/best_model.pt")]
    own = [tmp_path / name for name in (".mine", ".env-template", ".notes-20260101.md", "a-12345678.csv")]
    for path in own:
        path.write_text("")
    with atomic_path(tmp_path / "model/by_another.csv") as temporary:
        with working_in(tmp_path):
            assert not any(path.exists() for path in left)
        temporary.write_text("whole")
    assert all(path.exists() for path in own) and (tmp_path / "model/by_another.csv").read_text() == "whole"
