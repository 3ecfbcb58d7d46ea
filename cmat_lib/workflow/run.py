"""The run folder: stages with fingerprints, artefacts written whole, and a record of the environment.

A stage is one notebook. It depends on its own sections of the parameters and on the stages before it; its fingerprint
is the hash of both. A stage that ends well leaves a record, ``stages/<stage>.json``; a stage that fails leaves none.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cmat_lib import __version__
from cmat_lib.base.errors import CmatError, first_line
from cmat_lib.base.files import atomic_path, write_text
from cmat_lib.base.parts import part_hashes
from cmat_lib.config import Config, dump_params, load_config, project_root, resolve_path
from cmat_lib.config.schema import SECTIONS
from cmat_lib.data.sources.files import market_files


class Stage(NamedTuple):
    """One notebook: its name, and the sections, top-level keys or ``section.key`` that change its results."""

    name: str
    sections: tuple[str, ...]
    computes_views: bool = False  # what changes their numbers, too


STAGES = (
    Stage("01_data_prep", ("data", "labels")),
    Stage("02_tda_cache", ("cache",), computes_views=True),
    Stage("03_model_build", ("fusion", "model")),
    Stage("04_training", ("training", "logging", "seed", "evaluation.calibration")),
    Stage("05_evaluation", ("evaluation",)),
    Stage("06_attention_visualization", ("explain",)),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)

# These change where or how fast, never what; data_dir counts by the content of its files.
OPERATIONAL = {
    "data": {"data_dir"},
    "cache": {"dir", "jobs", "backend", "dask_scheduler"},
    "training": {"resume"},
    "logging": {"level", "mlflow"},
    "evaluation": {"batch_size"},
    "explain": {"batch_size"},
}
_PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "giotto-tda", "numba", "TA-Lib", "antropy", "lightning-fabric")


# Kind of a column -> whether a column is of this kind.
KINDS: dict[str, Callable[[pd.Series], bool]] = {
    "texts": lambda column: pd.api.types.is_string_dtype(column) and column.notna().all(),
    "times in UTC": lambda column: _is_utc(column) and column.notna().all(),
    "times in UTC or none": lambda column: _is_utc(column),
    "numbers": lambda column: is_of_numbers(column),
    "whole numbers": lambda column: is_of_numbers(column, "iu"),
}


class Run:
    """Access to one run folder for one stage.

    Parameters
    ----------
    config : Config
        Validated parameters; ``config.run_dir`` is the folder.
    stage : str
        Name of the stage that works now, for example ``"04_training"``.
    """

    def __init__(self, config: Config, stage: str):
        if stage not in STAGE_NAMES:
            raise CmatError(f"no stage '{stage}'; the stages are {', '.join(STAGE_NAMES)}")
        self.config = config
        self.stage = stage
        self.folder = resolve_path(config.run_dir)
        self.interrupted = False  # whether somebody ended the stage's work before its time
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
        torch_version = metadata.version("torch")
        return f"{self.config.run_dir} · cmat {__version__} · torch {torch_version} · {os.cpu_count()} CPU cores"

    # -- fingerprints ----------------------------------------------------------------------------------------------

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        from cmat_lib.views import VIEWS  # numba and TA-Lib, which a list of runs does not need

        prints, previous = {}, hash_text(json.dumps([__version__, input_identity(self.config)]))
        for stage in STAGES:
            own = {name: self._section(name) for name in stage.sections}
            if parts := part_hashes() and part_hashes(_used(stage.name, self.config)):
                own["parts"] = parts
            if stage.computes_views:
                views = VIEWS.active(self.config)
                own |= {name: self._section(name) for view in views for name in view.sections}
                own["views"] = {view.name: view.identity(self.config) for view in views}
            previous = hash_text(previous + json.dumps(own, sort_keys=True))
            prints[stage.name] = previous
        return prints

    def _section(self, name: str) -> Any:
        section, _, key = name.partition(".")
        if key:
            return getattr(getattr(self.config, section), key)
        if name not in SECTIONS:
            return getattr(self.config, name)
        return getattr(self.config, name).model_dump(mode="json", exclude=OPERATIONAL.get(name))

    def fingerprint(self, stage: str | None = None) -> str:
        """Hash of the parameters, input files and code version that `stage` (this one by default) depends on."""
        return self._fingerprints[stage or self.stage]

    def record(self, stage: str) -> dict[str, Any] | None:
        """Stored record of a stage, or None if there is none that can be read."""
        try:
            record = json.loads(self._record_path(stage).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return record if _is_record(record) else None

    def has_unreadable_record(self, stage: str) -> bool:
        """Whether something lies where a stage's record belongs that is none."""
        return os.path.lexists(self._record_path(stage)) and self.record(stage) is None

    def is_finished(self, stage: str) -> bool:
        """Whether a stage's record matches the parameters and all its artefacts are there, in full size.

        What somebody interrupted can be used by later stages, but is not finished.
        """
        record = self.record(stage)
        if not record or record.get("interrupted"):
            return False
        return record.get("fingerprint") == self.fingerprint(stage) and not self._missing(record)

    def damaged(self, stage: str) -> list[str]:
        """Artefacts of a stage with the current parameters that are missing or cut short."""
        record = self.record(stage)
        matches = record is not None and record.get("fingerprint") == self.fingerprint(stage)
        return self._missing(record) if matches else []

    def require(self, *stages: str) -> None:
        """Stop unless these stages are finished with the current parameters.

        Raises
        ------
        CmatError
            Naming the notebook to run.
        """
        for stage in stages:
            record = self.record(stage)
            if record is None:
                since = self._since(stage)
                raise CmatError(f"{self.folder}: {stage} has not been run{since}; run notebooks/{stage}.ipynb first")
            if record.get("fingerprint") != self.fingerprint(stage):
                raise CmatError(
                    f"{self.folder}: stage {stage} was made with other parameters, input files or code; "
                    f"run notebooks/{stage}.ipynb again"
                )
            if missing := self._missing(record):
                raise CmatError(
                    f"{self.folder}: {missing[0]} is missing or cut short; run notebooks/{stage}.ipynb again"
                )

    def _since(self, stage: str) -> str:
        """Where a stage's record may have gone: an earlier stage that begins to write withdraws it."""
        before = [name for name in STAGE_NAMES[: STAGE_NAMES.index(stage)] if self.record(name) is not None]
        return f" since {before[-1]} was" if before else ""

    def _missing(self, record: dict[str, Any]) -> list[str]:
        paths = {name: self.path(name) for name in record["artefacts"]}
        return [n for n, p in paths.items() if not os.path.isfile(p) or p.stat().st_size != record["artefacts"][n]]

    def _record_path(self, stage: str) -> Path:
        return self.path(f"stages/{stage}.json")

    # -- begin and end ---------------------------------------------------------------------------------------------

    def begin(self) -> Run:
        """Check that the input files are there and the stages before this one are finished; nothing is written yet.

        Raises
        ------
        CmatError
            If an earlier stage is missing or does not match the parameters.
        """
        self.fingerprint()
        self.require(*STAGE_NAMES[: STAGE_NAMES.index(self.stage)])
        return self

    def finish(self) -> pd.DataFrame:
        """Write the parameters, the environment and, last, the stage's record.

        Returns the artefacts of this stage and their sizes in kB.
        """
        artefacts = {str(p.relative_to(self.folder)): p.stat().st_size for p in sorted(self._written)}
        self._check_owner(artefacts)
        record = {
            "stage": self.stage,
            "fingerprint": self.fingerprint(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self._started, 1),
            "artefacts": artefacts,
            "interrupted": self.interrupted,
        }
        write_text(self.path("params.yaml"), dump_params(self.config))
        write_text(self.path("environment.json"), json.dumps(environment(), indent=2))
        write_text(self._record_path(self.stage), json.dumps(record, indent=2))
        return pd.DataFrame({"artefact": list(artefacts), "kB": [size / 1000 for size in artefacts.values()]})

    def _check_owner(self, artefacts: dict[str, int]) -> None:
        """Two stages that write one file would undo each other."""
        for stage in STAGE_NAMES:
            taken = set(artefacts) & set((self.record(stage) or {}).get("artefacts", {}))
            if taken and stage != self.stage:
                raise CmatError(
                    f"{self.stage} wrote {min(taken)}, which belongs to stage {stage}; give it another name"
                )

    # -- artefacts -------------------------------------------------------------------------------------------------

    def claim(self, name: str) -> Path:
        """Place of an artefact that is about to be written.

        The first claim withdraws the records of this stage and of all later ones: what they were made from is about to
        change. Until then a mistake in the input leaves a finished run as it was.
        """
        if not self._written:
            for stage in STAGE_NAMES[STAGE_NAMES.index(self.stage) :]:
                self._record_path(stage).unlink(missing_ok=True)
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
        """Write a matplotlib figure as PNG or a Plotly figure as HTML, by the suffix of `name`, below ``figures/``.

        A Plotly figure may bring a script of its own.
        """
        path = self.claim(f"figures/{name}")
        with atomic_path(path) as temporary:
            if path.suffix == ".html":
                look = {"include_plotlyjs": "directory", "auto_play": False}  # one plotly.js for all; frames wait
                figure.write_html(temporary, post_script=script, **look)
            else:
                figure.savefig(temporary, dpi=150, bbox_inches="tight")

    def read_json(self, name: str) -> Any:
        """Read JSON of this run."""
        with self._reading(name) as path:
            return json.loads(path.read_text(encoding="utf-8"))

    def read_frame(self, name: str, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
        """Read a Parquet frame of this run.

        Parameters
        ----------
        columns : mapping, optional
            Column that must be there -> its kind, a key of `KINDS`.

        Raises
        ------
        CmatError
            If the file cannot be read, or a column is missing or of another kind.
        """
        with self._reading(name) as path:
            frame = pd.read_parquet(path)
        for column, kind in (columns or {}).items():
            if list(frame.columns).count(column) != 1 or not KINDS[kind](frame[column]):
                raise CmatError(
                    f"{path} has no column '{column}' of {kind}; delete it, and run the page that makes it again"
                )
        return frame

    def read_array(self, name: str) -> np.ndarray:
        """Read an array of this run by memory map."""
        with self._reading(name) as path:
            return np.lib.format.open_memmap(path, mode="r")  # np.load would take an archive of arrays for one

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        """Path of an artefact; what cannot be read is named (a record vouches for the size of a file only).

        The block may hold the library's call only: each library has errors of its own for foreign bytes.
        """
        try:
            yield self.path(name)
        except Exception as error:
            problem = f"{self.path(name)} cannot be read ({first_line(error)})"
            raise CmatError(f"{problem}; delete it, and run the page that makes it again") from None


def _used(stage: str, config: Config) -> list[Any]:
    """Functions and classes from registries that a stage runs, which may be parts of somebody's own."""
    from cmat_lib.data.channels import channel_of
    from cmat_lib.data.complexity import INDICATORS
    from cmat_lib.encoders.plain import ENCODERS
    from cmat_lib.models.fusion import FUSIONS
    from cmat_lib.models.losses import LOSSES
    from cmat_lib.views import VIEWS

    views = VIEWS.active(config)
    used = {
        "01_data_prep": [channel_of(name).function for name in config.data.channel_names],
        "02_tda_cache": [
            *(function for view in views for function in vars(view).values() if callable(function)),
            *(INDICATORS[name].function for name in config.complexity.indicators if name in INDICATORS),
        ],
        "03_model_build": [
            FUSIONS.get(config.fusion.fusion_type),
            *(view.encoder for view in views),
            *(ENCODERS.get(table.encoder) for table in config.views.tables.values()),
        ],
        "04_training": [LOSSES.get(config.training.loss)],
    }
    return used.get(stage, [])


def is_of_numbers(column: pd.Series, kinds: str = "iufb") -> bool:
    """Whether a column has NumPy's numbers of some kinds; those of pandas may be NA, which is none."""
    return isinstance(column.dtype, np.dtype) and column.dtype.kind in kinds


def _is_utc(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.DatetimeTZDtype) and str(column.dtype.tz) == "UTC"


def _is_record(content: Any) -> bool:
    """Whether JSON has the shape of a stage's record."""
    if not isinstance(content, dict) or not isinstance(content.get("artefacts"), dict):
        return False
    if type(content.get("seconds")) not in (int, float):
        return False
    texts = (content.get("fingerprint"), content.get("finished"))
    return all(isinstance(text, str) for text in texts) and all(type(n) is int for n in content["artefacts"].values())


def select_stages(first: str | None = None, last: str | None = None) -> tuple[str, ...]:
    """Stages from `first` to `last`, both by name or number (``"04"``, ``"04_training"``); all by default.

    Raises
    ------
    CmatError
        If a stage is unknown or the range is empty.
    """
    start, stop = (_stage_number(text, default) for text, default in ((first, 0), (last, len(STAGE_NAMES) - 1)))
    if start > stop:
        raise CmatError(f"--from {first} comes after --until {last}")
    return STAGE_NAMES[start : stop + 1]


def _stage_number(text: str | None, default: int) -> int:
    if text is None:
        return default
    found = [i for i, name in enumerate(STAGE_NAMES) if name == text or name.split("_")[0] == text.zfill(2)]
    if not found:
        raise CmatError(f"no stage '{text}'; the stages are {', '.join(STAGE_NAMES)}")
    return found[0]


def open_run(folder: str, stage: str) -> Run:
    """A run that is there, with the parameters it was made with, for `stage`.

    Raises
    ------
    CmatError
        If the folder has no ``params.yaml``.
    """
    stored = resolve_path(folder) / "params.yaml"
    if not stored.is_file():
        raise CmatError(f"{folder}: no run here (params.yaml is missing); name a run folder such as outputs/demo")
    return Run(load_config(stored, {"run_dir": folder}), stage)


def hash_text(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def input_identity(config: Config) -> list[list[str]]:
    """Symbols and content hashes of the candle files; none for the synthetic market, which its parameters define.

    Raises
    ------
    CmatError
        If ``data.data_dir`` is no folder, or has no candle files.
    """
    if config.data.data_dir is None:
        return []
    files = [(symbol, path) for symbol, source in market_files(config.data).items() for path in source.paths]
    stats = [(symbol, path, path.stat()) for symbol, path in files]
    return [[symbol, _hash_file(path, stat.st_size, stat.st_mtime_ns)] for symbol, path, stat in stats]


@lru_cache(maxsize=1024)
def _hash_file(path: Path, size: int, modified_ns: int) -> str:
    """Every stage asks for the same files; `size` and `modified_ns` make a changed file another question."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, datetime | Path):
        return value.isoformat() if isinstance(value, datetime) else str(value)
    return value
