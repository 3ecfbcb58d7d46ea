"""The run folder: stages with fingerprints, artefacts written whole, and a record of the environment.

A stage that ends well leaves ``stages/<stage>.json`` with its fingerprint and the hashes of all artefacts that it
wrote, by which they are checked when they are read; a stage that fails leaves none.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel

from cmat_lib import __version__
from cmat_lib.base.errors import CmatError, first_line
from cmat_lib.base.files import atomic_path, file_hash, write_text
from cmat_lib.base.parts import part_hashes
from cmat_lib.config import Config, dump_params, load_config, project_root, resolve_path
from cmat_lib.workflow.fingerprints import STAGES, fingerprints

STAGE_NAMES = tuple(STAGES)
MODEL_FILE, RESULTS_FILE = "best_model.pt", "training_results.json"
_PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "giotto-tda", "numba", "TA-Lib", "antropy", "lightning-fabric")


class Artefact(BaseModel, strict=True):
    """A file of a run as its stage left it."""

    bytes: int
    sha256: str

    def is_at(self, path: Path, content: bool = True) -> bool:
        """Whether this lies at `path`; without `content` only its size is looked at, which takes no time."""
        try:
            return path.stat().st_size == self.bytes and (not content or file_hash(path) == self.sha256)
        except OSError:  # gone, a folder, or not to be read
            return False


class Record(BaseModel, strict=True):
    """What a stage that has ended leaves."""

    fingerprint: str
    finished: str  # UTC
    seconds: float
    artefacts: dict[str, Artefact]  # by path inside the run folder
    interrupted: bool = False  # by somebody, before its time: later stages can use it, but it is not finished


class Run:
    """Access to the run folder ``config.run_dir`` for the stage that works now, such as ``"04_training"``."""

    def __init__(self, config: Config, stage: str):
        if stage not in STAGE_NAMES:
            raise CmatError(f"no stage '{stage}'; the stages are {', '.join(STAGE_NAMES)}")
        self.config, self.stage, self.interrupted = config, stage, False
        self.folder = resolve_path(config.run_dir)
        self._written: set[Path] = set()
        self._started = time.perf_counter()

    def path(self, name: str) -> Path:
        """Place of an artefact inside the run folder."""
        return self.folder / name

    @property
    def model_folder(self) -> Path:
        """Folder of ``best_model.pt`` and ``training_results.json``."""
        return self.folder / self.config.logging.save_dir

    def headline(self) -> str:
        """One line for the top of a page: where, with what, on what."""
        versions = f"cmat {__version__} · torch {metadata.version('torch')}"
        return f"{self.config.run_dir} · {versions} · {os.cpu_count()} CPU cores"

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        return fingerprints(self.config, self.folder)

    def fingerprint(self, stage: str | None = None) -> str:
        """Hash of all that `stage` (this one by default) depends on, see `cmat_lib.workflow.fingerprints`."""
        return self._fingerprints[stage or self.stage]

    def record(self, stage: str) -> Record | None:
        """Stored record of a stage, or None if there is none that can be read."""
        try:
            return Record.model_validate_json(self._record_path(stage).read_bytes())
        except (OSError, ValueError):
            return None

    def is_finished(self, stage: str) -> bool:
        """Whether a stage's record matches the parameters, and all its artefacts are there in full size."""
        record = self.record(stage)
        if record is None or record.interrupted or record.fingerprint != self.fingerprint(stage):
            return False
        return all(artefact.is_at(self.path(name), content=False) for name, artefact in record.artefacts.items())

    def damaged(self, stage: str) -> list[str]:
        """Artefacts of a stage with the current parameters that are not what it wrote; reads them all."""
        record = self.record(stage)
        if record is None or record.fingerprint != self.fingerprint(stage):
            return []
        return [name for name, artefact in record.artefacts.items() if not artefact.is_at(self.path(name))]

    def _record_path(self, stage: str) -> Path:
        return self.path(f"stages/{stage}.json")

    def _damage(self, name: str, stage: str) -> CmatError:
        return CmatError(f"{self.path(name)} is missing, damaged or edited; run notebooks/{stage}.ipynb again")

    def begin(self) -> Self:
        """This run, nothing written yet; a CmatError names a notebook that has to be run before this stage."""
        self.fingerprint()
        for number, stage in enumerate(STAGE_NAMES[: STAGE_NAMES.index(self.stage)]):
            record = self.record(stage)
            if record is None:  # an earlier stage that begins to write withdraws it
                since = f" since {STAGE_NAMES[number - 1]} was" if number else ""
                raise CmatError(f"{self.folder}: {stage} has not been run{since}; run notebooks/{stage}.ipynb first")
            if record.fingerprint != self.fingerprint(stage):
                problem = f"{self.folder}: stage {stage} was made with other parameters, input files or code"
                raise CmatError(f"{problem}; run notebooks/{stage}.ipynb again")
            for name, artefact in record.artefacts.items():
                if not artefact.is_at(self.path(name), content=False):
                    raise self._damage(name, stage)
        return self

    def finish(self) -> pd.DataFrame:
        """Write parameters, environment and, last, the stage's record; returns its artefacts with their sizes in kB."""
        names = {path.relative_to(self.folder).as_posix(): path for path in sorted(self._written)}
        artefacts = {n: Artefact(bytes=p.stat().st_size, sha256=file_hash(p)) for n, p in names.items()}
        for stage in STAGE_NAMES:  # two stages that write one file would undo each other
            other = self.record(stage) if stage != self.stage else None
            if taken := artefacts.keys() & (other.artefacts if other else {}):
                problem = f"{self.stage} wrote {min(taken)}, which belongs to stage {stage}"
                raise CmatError(f"{problem}; give it another name")
        record = Record(
            fingerprint=self.fingerprint(),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - self._started, 1),
            artefacts=artefacts,
            interrupted=self.interrupted,
        )
        write_text(self.path("params.yaml"), dump_params(self.config))
        write_text(self.path("environment.json"), json.dumps(environment(), indent=2))
        write_text(self._record_path(self.stage), record.model_dump_json(indent=2))
        return pd.DataFrame({"artefact": list(artefacts), "kB": [a.bytes / 1000 for a in artefacts.values()]})

    def claim(self, name: str) -> Path:
        """Place of an artefact that is about to be written.

        The first claim withdraws the records of this stage and of all later ones, whose input is about to change, and
        the page of a stage that is made again without one. Until then a mistake in the input leaves a finished run as
        it was.
        """
        if not self._written:
            for stage in STAGE_NAMES[STAGE_NAMES.index(self.stage) :]:
                self._record_path(stage).unlink(missing_ok=True)
            if (html := self.path(f"report/{self.stage}.html")).is_file():  # the runner removes it before it begins
                for path in (self.path(f"notebooks/{self.stage}.ipynb"), html):
                    path.unlink(missing_ok=True)
        self._written.add(self.path(name))
        return self.path(name)

    def save_json(self, name: str, content: Any) -> None:
        """Write JSON; NaN becomes null, because JSON has no NaN."""
        write_text(self.claim(name), json.dumps(_plain(content), indent=2, allow_nan=False))

    def save_frame(self, name: str, frame: pd.DataFrame) -> None:
        """Write a frame as Parquet."""
        with atomic_path(self.claim(name)) as temporary:
            frame.to_parquet(temporary)

    def save_array(self, name: str, array: np.ndarray) -> None:
        """Write an array as ``.npy``."""
        with atomic_path(self.claim(name)) as temporary, open(temporary, "wb") as file:
            np.save(file, array, allow_pickle=False)

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write named arrays as a compressed ``.npz``."""
        with atomic_path(self.claim(name)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    def save_figure(self, name: str, figure: Any, script: str | None = None) -> None:
        """Write a matplotlib figure as PNG, or a Plotly one with its `script` as HTML, below ``figures/``."""
        path = self.claim(f"figures/{name}")
        with atomic_path(path) as temporary:
            if path.suffix == ".html":
                look = {"include_plotlyjs": "directory", "auto_play": False}  # one plotly.js for all; frames wait
                figure.write_html(temporary, post_script=script, **look)
            else:
                figure.savefig(temporary, dpi=150, bbox_inches="tight")

    def intact(self, name: str) -> Path:
        """Path of an artefact, whose content is what its stage recorded; a CmatError names the notebook to rerun.

        What this stage has just written, or none has recorded, is taken as it is.
        """
        path = self.path(name)
        key = path.relative_to(self.folder).as_posix()  # `name` may be written otherwise, as a/./b
        for stage in STAGE_NAMES:
            record = self.record(stage)
            if record and key in record.artefacts and not record.artefacts[key].is_at(path):
                raise self._damage(name, stage)
        return path

    def model_path(self) -> Path:
        """Path of ``best_model.pt``, see `intact`."""
        return self.intact(f"{self.config.logging.save_dir}/{MODEL_FILE}")

    def training_results(self) -> dict[str, Any]:
        """Content of ``training_results.json``."""
        return self.read_json(f"{self.config.logging.save_dir}/{RESULTS_FILE}")

    def read_json(self, name: str) -> Any:
        """Read JSON of this run, see `intact`."""
        return self._read(name, lambda path: json.loads(path.read_text(encoding="utf-8")))

    def read_frame(self, name: str) -> pd.DataFrame:
        """Read a Parquet frame of this run, see `intact`."""
        return self._read(name, pd.read_parquet)

    def read_array(self, name: str) -> np.ndarray:
        """Read an array of this run by memory map, see `intact`."""
        # np.load would take an archive of arrays for one
        return self._read(name, lambda path: np.lib.format.open_memmap(path, mode="r"))

    def _read(self, name: str, reader: Callable[[Path], Any]) -> Any:
        path = self.intact(name)
        try:
            return reader(path)
        except Exception as error:  # of a file that no stage has recorded; each library has errors of its own
            problem = f"{path} cannot be read ({first_line(error)})"
            raise CmatError(f"{problem}; delete it, and run the page that makes it again") from None


def select_stages(first: str | None = None, last: str | None = None) -> tuple[str, ...]:
    """Stages from `first` to `last`, both by name or number (``"04"``, ``"04_training"``); all by default."""
    start, stop = _stage_number(first or STAGE_NAMES[0]), _stage_number(last or STAGE_NAMES[-1])
    if start > stop:
        raise CmatError(f"--from {first} comes after --until {last}")
    return STAGE_NAMES[start : stop + 1]


def _stage_number(text: str) -> int:
    for number, name in enumerate(STAGE_NAMES):
        if name == text or name.split("_")[0] == text.zfill(2):
            return number
    raise CmatError(f"no stage '{text}'; the stages are {', '.join(STAGE_NAMES)}")


def open_run(folder: str, stage: str) -> Run:
    """A run that is there, with the parameters it was made with; a CmatError if it has no ``params.yaml``."""
    stored = resolve_path(folder) / "params.yaml"
    if not stored.is_file():
        raise CmatError(f"{folder}: no run here (params.yaml is missing); name a run folder such as outputs/demo")
    return Run(load_config(stored, {"run_dir": folder}), stage)


def environment() -> dict[str, Any]:
    """Versions, git commit and machine, for the record of a run."""
    return {
        "cmat": __version__,
        "git_commit": _git_commit(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "parts": part_hashes(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git_commit() -> str | None:
    command = ["git", "-C", str(project_root()), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _plain(value: Any) -> Any:
    """JSON form of NumPy scalars, times and nested containers."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not np.isfinite(value) else value
