"""A page is made again whenever anything that it shows would differ: every parameter is changed once.

Parameters that leave the first pages up to date are changed together, and the pages that stay are compared with those
of a fresh run. A page that shows what one of them decides, without depending on it, differs.
"""

import json
import re
from functools import reduce
from pathlib import Path

import pytest
from smoke_run import SMOKE, smoke_config

from cmat_lib.config import Config, load_config, merge, validate
from cmat_lib.config.schema import SECTIONS
from cmat_lib.workflow.notebooks import run_notebooks
from cmat_lib.workflow.run import STAGE_NAMES, Run

# A valid value for each parameter that is not the one of the smoke run.
OTHER = {
    "data": {
        **{"symbols": ["SYNA"], "timeframe": "30m", "since": "2024-01-03", "until": "2024-03-01"},
        **{"file_zone": "Asia/Tokyo", "columns": {"close": "last"}, "time_format": "%Y", "encoding": "latin-1"},
        **{"decimal": ",", "thousands": " ", "stamp": "close", "clock_zone": "Asia/Tokyo", "sessions": "join"},
        **{"gaps": "fill_flat", "stride": 5, "sequence_length": 20, "channels": ["log_close"]},
        **{"volume_channels": "taker", "split_shares": [0.5, 0.2, 0.1, 0.2], "split": "walk_forward", "folds": 3},
        **{"split_dates": ["2024-02-20", "2024-03-01", "2024-03-10"], "fold": 1, "fold_window": "rolling"},
        **{"test_groups": 1, "synthetic_symbols": 3, "synthetic_days": 91, "synthetic_seed": 1},
        **{"synthetic_plant": False},
    },
    "labels": {
        **{"mode": "sigma", "horizon": 5, "threshold_pct": 2.5, "threshold_sigma": 1.5},
        **{"volatility_window": 90, "upper_pct": 2.5, "lower_pct": 2.5, "uniqueness_weights": True},
    },
    "cache": {"dir": "other", "jobs": 2, "trust": True},
    "tda": {
        **{"window_size": 80, "embedding_dim": 3, "time_delay": 5, "windows": [72, 48], "delays": [6, 3]},
        **{"series": ["log_range"], "homology_dimensions": [1], "betti_bins": 13, "betti_max": [0.7, 1.4]},
        **{"landscape_layers": 3, "engine": "giotto"},
    },
    "complexity": {
        **{"window_size": 80, "indicators": ["permutation_entropy"], "ranges": [1, 12], "permutation_order": 4},
        **{"permutation_delay": 2, "sample_order": 3, "sample_tolerance": 0.3, "higuchi_kmax": 8},
    },
    "fusion": {
        **{"fusion_type": "concat", "tokens": "fine", "hidden_dim": 40, "num_heads": 2, "num_layers": 1},
        **{"ffn_dim": 48, "dropout": 0.2, "use_cls_token": True, "bottleneck_tokens": 3, "output_dim": 24},
    },
    "model": {
        **{"modalities": ["nbeats", "tda"], "nbeats_hidden_size": 64, "nbeats_num_stacks": 3},
        **{"nbeats_stack_types": ["generic"] * 3, "nbeats_num_blocks": 2, "nbeats_num_layers": 3},
        **{"nbeats_block_width": 12, "use_attention": False, "tda_encoder_dim": 12, "complexity_encoder_dim": 12},
        **{"clock_encoder_dim": 12, "view_encoder_dim": 12, "encoder_dropout": 0.2, "auxiliary_head": False},
    },
    "training": {
        **{"batch_size": 48, "gradient_accumulation_steps": 2, "epochs": 3, "early_stopping_patience": 3},
        **{"early_stopping_metric": "roc_auc", "learning_rate": 0.001, "transformer_learning_rate": 0.001},
        **{"weight_decay": 0.02, "warmup_share": 0.1, "gradient_clip": 0.5, "freeze_encoder_epochs": 1},
        **{"focal_gamma": 1.0, "positive_weight": 2.0, "max_pct_clip_quantile": 0.9},
        **{"task_weighting": "learned", "trigger_weight": 2.0, "max_pct_weight": 2.0, "auxiliary_weight": 2.0},
        **{"ema_decay": 0.8, "device": "cpu", "mixed_precision": "off", "compile": "off", "cudnn_benchmark": "off"},
        **{"tf32": "off", "determinism": "strict"},
    },
    "evaluation": {
        **{"calibration": "temperature", "top_shares": [0.1], "cost_pct": 0.3, "bootstrap_samples": 60},
        **{"block_horizons": 8, "confidence": 0.9, "batch_size": 512},
    },
    "explain": {
        **{"max_samples": 300, "attribution_samples": 200, "absent_draws": 16, "permutations": 2, "batch_size": 512},
    },
    "logging": {"save_dir": "models/other", "level": "WARNING"},
}
# What some of them need beside them.
TOGETHER = {
    "data.fold": {"data": {"split": "walk_forward"}},
    "tda.delays": {"tda": {"windows": [72, 48]}},
    "tda.homology_dimensions": {"tda": {"betti_max": [1.4]}},
    "fusion.hidden_dim": {"fusion": {"output_dim": 40}},
    "fusion.output_dim": {"fusion": {"hidden_dim": 24}},
    "model.nbeats_stack_types": {"model": {"nbeats_num_stacks": 3, "nbeats_hidden_size": 48}},
    "model.nbeats_num_stacks": {"model": {"nbeats_stack_types": ["generic"] * 3, "nbeats_hidden_size": 48}},
}
LEFT_OUT = {
    "data.data_dir": "counts by the content of its files",
    "labels.source": "needs files with labels",
    "cache.backend": "needs workers elsewhere",
    "cache.dask_scheduler": "needs workers elsewhere",
    "views": "a table is a view; its keys are those of `TableConfig`, all of them in the section",
    "model.model_type": "has one value",
    "training.loss": "has one value without parts of one's own",
    "training.devices": "needs a second device",
    "training.num_nodes": "needs a second machine",
    "training.resume": "continues what was interrupted",
    "explain.other_runs": "needs other runs",
    "logging.mlflow": "needs MLflow",
}


NOISE = re.compile(
    r"[\d,.]+ (?:ms|s|min|h|GB|samples/s|samples per second)\b"
    r"|>(?:seconds|samples_per_second|seconds_left|memory_gb)</th>.*?</tr>"
    r"|T_[0-9a-f]{5}|0x[0-9a-f]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)


def keys():
    sections = {name: Config.model_fields[name].annotation for name in SECTIONS}
    return {f"{name}.{key}" for name, section in sections.items() for key in getattr(section, "model_fields", {})}


def changed(key):
    section, _, name = key.partition(".")
    return merge({section: {name: OTHER[section][name]}}, TOGETHER.get(key, {}))


def first_stage(key, config):
    """Number of the first stage that is stale after a change, 6 if none is."""
    other = validate(merge(config.model_dump(mode="json"), changed(key)), key)
    before, after = Run(config, STAGE_NAMES[0]), Run(other, STAGE_NAMES[0])
    stale = [before.fingerprint(stage) != after.fingerprint(stage) for stage in STAGE_NAMES]
    return stale.index(True) if any(stale) else len(stale)


def shown(folder, stage):
    """What each cell of a page shows, without times, sizes of files, names made at random and what the cache held."""
    page = json.loads((folder / f"notebooks/{stage}.ipynb").read_text())
    cells = [cell for cell in page["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
    left_out = ["hit rate" in "".join(cell["source"]) or "run.finish()" in cell["source"] for cell in cells]
    outputs = [[] if left else cell.get("outputs", []) for cell, left in zip(cells, left_out, strict=True)]
    return [NOISE.sub("", told(output).replace(str(folder), "")) for output in outputs]


def told(outputs):
    """Lines and objects of a cell; the kernel sends lines in pieces of any length."""
    lines = "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")
    return json.dumps([lines, [output for output in outputs if output["output_type"] != "stream"]], ensure_ascii=False)


def test_every_parameter_is_changed_once_or_has_a_reason():
    assert {f"{section}.{key}" for section, values in OTHER.items() for key in values} == keys() - set(LEFT_OUT)
    plain = load_config(SMOKE).model_dump(mode="json")
    assert not [(s, key) for s, values in OTHER.items() for key, value in values.items() if plain[s][key] == value]


@pytest.mark.long
@pytest.mark.parametrize("stale", range(1, len(STAGE_NAMES) + 1), ids=lambda n: "all" if n == 6 else STAGE_NAMES[n])
def test_pages_that_stay_show_what_a_fresh_run_shows(stale, smoke, tmp_path):
    folder, _, _ = smoke
    config = smoke_config(folder)
    together = [key for key in sorted(keys() - set(LEFT_OUT)) if first_stage(key, config) == stale]
    assert together, "some parameters matter from each page on"
    changes = reduce(merge, map(changed, together), {})
    features = tmp_path if "cache.dir" in together else folder  # not where a relative path would lie
    own = {"run_dir": str(tmp_path / "run"), "cache": {"dir": str(features / "cache")}}
    fresh = load_config(SMOKE, merge(merge({"cache": {"jobs": 1}}, changes), own))
    stay = STAGE_NAMES[:stale]
    run_notebooks(fresh, stay, say=lambda line: None)
    for stage in stay:
        old, new = (shown(Path(one.run_dir), stage) for one in (config, fresh))
        differ = [number for number, cells in enumerate(zip(old, new, strict=True)) if cells[0] != cells[1]]
        assert not differ, f"{stage} shows in cells {differ} what one of {together} decides"
