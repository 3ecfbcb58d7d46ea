"""The run of all six pages on the smoke parameters, which several tests look at."""

import hashlib
import json

from filelock import FileLock

from cmat_lib.config import load_config, project_root
from cmat_lib.workflow.notebooks import run_notebooks
from cmat_lib.workflow.run import Artefact, Record

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


def signed(folder):
    """Make the records of a run vouch for its files as they are now, as if its stages had written them so."""
    for path in folder.glob("stages/*.json"):
        record = Record.model_validate_json(path.read_text())
        for name in record.artefacts:
            if (folder / name).is_file():
                content = (folder / name).read_bytes()
                hashed = hashlib.sha256(content).hexdigest()
                record.artefacts[name] = Artefact(bytes=len(content), sha256=hashed)
        path.write_text(record.model_dump_json())
