"""What a stage (a notebook) depends on, as one hash: parameters and files that its page shows, and earlier stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmat_lib import __version__
from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import file_hash
from cmat_lib.base.parts import part_hashes
from cmat_lib.config import Config, resolve_path
from cmat_lib.config.schema import OF_THE_LOSS, SECTIONS, TrainingConfig
from cmat_lib.data.sources.files import market_files

if TYPE_CHECKING:
    from cmat_lib.views import View

_LOSS = [f"training.{key}" for key, field in TrainingConfig.model_fields.items() if OF_THE_LOSS in field.metadata]

# Stage -> sections, top-level keys and ``section.key`` that change its results, beside what `_beside` adds.
STAGES = {
    "01_data_prep": ("data", "labels"),
    "02_tda_cache": ("cache",),
    "03_model_build": ("fusion", "model", "seed", *_LOSS),
    "04_training": ("training", "logging", "evaluation.calibration"),
    "05_evaluation": ("evaluation",),
    "06_attention_visualization": ("explain",),
}

# These change where or how fast, never what; data_dir counts by the content of its files.
OPERATIONAL = {
    *("data.data_dir", "cache.dir", "cache.jobs", "cache.backend", "cache.dask_scheduler", "training.resume"),
    *("logging.level", "logging.mlflow", "evaluation.batch_size", "explain.batch_size"),
}


def fingerprints(config: Config, folder: Path) -> dict[str, str]:
    """Fingerprint of every stage of a run in `folder`; a CmatError if ``data.data_dir`` has no candle files."""
    beside = _beside(config, folder)
    prints, previous = {}, hash_text(json.dumps([__version__, input_identity(config)]))
    for stage, names in STAGES.items():
        own = _values(config, names) | beside.get(stage, {})
        if parts := part_hashes() and part_hashes(_used(stage, config)):
            own["parts"] = parts
        previous = hash_text(previous + json.dumps(own, sort_keys=True))
        prints[stage] = previous
    return prints


def flat_parameters(config: Config) -> dict[str, Any]:
    """``section.key`` -> value of every parameter, in JSON's types; keys without a section by their name."""
    flat = {}
    for name, value in config.model_dump(mode="json").items():
        flat |= {f"{name}.{key}": own for key, own in value.items()} if name in SECTIONS else {name: value}
    return flat


def _values(config: Config, names: Collection[str]) -> dict[str, Any]:
    """Values of whole sections, but for operational keys, and of single keys."""
    flat = flat_parameters(config)
    wanted = [key for key in flat if key in names or (key.partition(".")[0] in names and key not in OPERATIONAL)]
    return {key: flat[key] for key in wanted}


def _beside(config: Config, folder: Path) -> dict[str, dict[str, Any]]:
    """Stage -> what its page shows that no parameter of its own tells."""
    from cmat_lib.views import VIEWS  # numba and TA-Lib, which a list of runs does not need

    views = VIEWS.active(config)
    try:  # how far the views look back decides where there is a sample
        reach = {view.title: view.look_back(config) for view in views}
    except CmatError:  # a part that made the run is not loaded: stale, and whoever runs the stage is told
        reach = {}
    others = [path for run in config.explain.other_runs for path in sorted(resolve_path(run).rglob("best_model.pt"))]
    return {
        "01_data_prep": {"reach": reach} | _numbers_of([view for view in views if view.by_candle], config),
        "02_tda_cache": _numbers_of(views, config),
        "05_evaluation": _contents([folder / "ablation/table.parquet"]),
        "06_attention_visualization": _contents(others),
    }


def _numbers_of(views: Iterable[View], config: Config) -> dict[str, Any]:
    """What changes the numbers of views."""
    sections = {name for view in views for name in view.sections}
    return _values(config, sections) | {"views": {view.name: view.identity(config) for view in views}}


def _contents(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Hashes of those files that are there and can be read."""
    hashes = []
    for path in paths:
        with suppress(OSError):
            hashes.append(file_hash(path))
    return {"files": hashes} if hashes else {}


def _used(stage: str, config: Config) -> list[Any]:
    """Functions and classes from registries that a stage runs, which may be parts of somebody's own."""
    from cmat_lib.data.channels import channel_of
    from cmat_lib.data.complexity import INDICATORS
    from cmat_lib.encoders.plain import ENCODERS
    from cmat_lib.models.fusion import FUSIONS
    from cmat_lib.models.losses import LOSSES
    from cmat_lib.views import VIEWS

    views = VIEWS.active(config)
    if stage == "01_data_prep":
        by_candle = [view for view in views if view.by_candle]
        return [*(channel_of(name).function for name in config.data.channel_names), *_functions(by_candle)]
    if stage == "02_tda_cache":
        known = [INDICATORS[name] for name in config.complexity.indicators if name in INDICATORS]
        return [*_functions(views), *(indicator.function for indicator in known)]
    if stage == "03_model_build":
        tables = [ENCODERS.get(table.encoder) for table in config.views.tables.values()]
        own = [FUSIONS.get(config.fusion.fusion_type), LOSSES.get(config.training.loss)]
        return [*own, *(view.encoder for view in views), *tables]
    return []


def _functions(views: Iterable[View]) -> list[Any]:
    return [function for view in views for function in vars(view).values() if callable(function)]


def input_identity(config: Config) -> list[list[str]]:
    """Symbols and content hashes of the candle files; none for the synthetic market, which its parameters define."""
    if config.data.data_dir is None:
        return []
    return [[symbol, file_hash(p)] for symbol, source in market_files(config.data).items() for p in source.paths]


def hash_text(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
