"""The run of all six pages on the smoke parameters, which several tests look at."""

import json

from filelock import FileLock

from cmat_lib.config import load_config, project_root
from cmat_lib.workflow.notebooks import run_notebooks

SMOKE = project_root() / "params/smoke.yaml"


def smoke_config(folder, **changes):
    base = {"run_dir": str(folder / "run"), "cache": {"dir": str(folder / "cache"), "jobs": 1}}
    return load_config(SMOKE, {**base, **changes})


def smoke_run(folder):
    """Folder, report and progress lines of the run; the first test process makes it, the others wait."""
    folder.mkdir(exist_ok=True)
    said, lines = folder / "said.json", []
    with FileLock(f"{folder}.lock"):
        if not said.is_file():
            run_notebooks(smoke_config(folder), say=lines.append)
            said.write_text(json.dumps(lines))
    return folder, folder / "run/report/index.html", json.loads(said.read_text())
