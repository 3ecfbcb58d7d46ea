"""What a stage depends on, as one hash: with the same fingerprint it would come out the same.

A stage is one notebook. It depends on every parameter and file that its page shows, and on the stages before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmat_lib import __version__
from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import file_hash
from cmat_lib.base.parts import part_hashes
from cmat_lib.config import Config, resolve_path
from cmat_lib.config.schema import SECTIONS
from cmat_lib.data.sources.files import market_files

if TYPE_CHECKING:
    from cmat_lib.views import View

_LOSS = ("loss", "focal_gamma", "positive_weight", "max_pct_clip_quantile", "task_weighting")
_LOSS += ("trigger_weight", "max_pct_weight", "auxiliary_weight")

# Stage -> sections, top-level keys and ``section.key`` that change its results, beside what `_beside` adds.
STAGES = {
    "01_data_prep": ("data", "labels"),
    "02_tda_cache": ("cache",),
    "03_model_build": ("fusion", "model", "seed", *(f"training.{key}" for key in _LOSS)),
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
    """Fingerprint of every stage of a run in `folder`: of parameters, input files and code version.

    A CmatError if ``data.data_dir`` is no folder, or has no candle files.
    """
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
    chosen = {}
    for key, value in flat_parameters(config).items():
        if key in names or (key.partition(".")[0] in names and key not in OPERATIONAL):
            chosen[key] = value
    return chosen


def _beside(config: Config, folder: Path) -> dict[str, dict[str, Any]]:
    """Stage -> what its page shows that no parameter of its own tells."""
    from cmat_lib.views import VIEWS  # numba and TA-Lib, which a list of runs does not need

    views = VIEWS.active(config)
    by_candle = [view for view in views if view.by_candle]
    others = [resolve_path(run) / config.logging.save_dir / "best_model.pt" for run in config.explain.other_runs]
    return {
        "01_data_prep": {"reach": _reach(views, config)} | _numbers_of(by_candle, config),
        "02_tda_cache": _numbers_of(views, config),
        "05_evaluation": _contents([folder / "ablation/table.parquet"]),
        "06_attention_visualization": _contents(others),
    }


def _reach(views: Iterable[View], config: Config) -> dict[str, int]:
    """Candles that each view looks back, which decide where there is a sample."""
    try:
        return {view.title: view.look_back(config) for view in views}
    except CmatError:  # a part that made the run is not loaded: stale, and whoever runs the stage is told
        return {}


def _numbers_of(views: Iterable[View], config: Config) -> dict[str, Any]:
    """What changes the numbers of views."""
    sections = {name for view in views for name in view.sections}
    return _values(config, sections) | {"views": {view.name: view.identity(config) for view in views}}


def _contents(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Hashes of those files that are there."""
    hashes = [file_hash(path) for path in paths if path.is_file()]
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
    used = {
        "01_data_prep": [
            *(channel_of(name).function for name in config.data.channel_names),
            *(function for view in views if view.by_candle for function in _functions(view)),
        ],
        "02_tda_cache": [
            *(function for view in views for function in _functions(view)),
            *(INDICATORS[name].function for name in config.complexity.indicators if name in INDICATORS),
        ],
        "03_model_build": [
            FUSIONS.get(config.fusion.fusion_type),
            *(view.encoder for view in views),
            *(ENCODERS.get(table.encoder) for table in config.views.tables.values()),
            LOSSES.get(config.training.loss),
        ],
    }
    return used.get(stage, [])


def _functions(view: View) -> list[Any]:
    return [function for function in vars(view).values() if callable(function)]


def input_identity(config: Config) -> list[list[str]]:
    """Symbols and content hashes of the candle files; none for the synthetic market, which its parameters define."""
    if config.data.data_dir is None:
        return []
    return [[symbol, file_hash(p)] for symbol, source in market_files(config.data).items() for p in source.paths]


def hash_text(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
