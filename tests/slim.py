"""A slim model and a small panel that several tests of the training share."""

import numpy as np
import pandas as pd

from cmat_lib.config import load_config
from cmat_lib.config.schema import AUXILIARY_TARGETS
from cmat_lib.views import VIEWS
from cmat_lib.views.clock import clock_fractions
from cmat_lib.views.panel import Panel

SLIM = {
    "data": {"timeframe": "1h", "sequence_length": 8, "channels": ["log_close", "roc"]},
    "tda": {"betti_bins": 2, "landscape_layers": 1},
    "fusion": {"hidden_dim": 16, "num_heads": 2, "num_layers": 1, "ffn_dim": 16, "output_dim": 16, "dropout": 0.0},
    "model": {
        "nbeats_hidden_size": 32,
        "nbeats_num_blocks": 1,
        "nbeats_num_layers": 1,
        "nbeats_block_width": 8,
        "encoder_dropout": 0.0,
    },
    "training": {
        "batch_size": 32,
        "gradient_accumulation_steps": 1,
        "epochs": 3,
        "learning_rate": 0.003,
        "transformer_learning_rate": 0.003,
        "determinism": "strict",
    },
}


def slim(**training):
    changes = {"training": {**SLIM["training"], **training}}
    return load_config(changes=changes, base={k: v for k, v in SLIM.items() if k != "training"})


def panel_of(config, n=400, seed=0, labels=None):
    """Samples whose trigger follows from the first topology feature."""
    rng = np.random.default_rng(seed)
    tda = rng.normal(size=(n, config.tda.feature_dim)).astype(np.float32)
    width = len(config.complexity.names)
    complexity = rng.normal(size=(n, width)).astype(np.float32)
    channels = rng.normal(size=(n + 8, 2)).astype(np.float32)
    trigger = (tda[:, 0] + 0.3 * rng.normal(size=n) > 0.8).astype(float) if labels is None else labels
    part = np.repeat(["train", "stop", "calibrate", "test"], [n * 6 // 10, n // 10, n // 10, n - n * 8 // 10])
    samples = pd.DataFrame(
        {"row": np.arange(n) + 7, "trigger": trigger, "max_pct": 2 * trigger + rng.normal(size=n), "part": part}
    )
    samples["close_time"] = pd.date_range("2025-01-01", periods=n, freq="1h", tz="UTC")
    samples[list(AUXILIARY_TARGETS)] = trigger[:, None] + rng.normal(size=(n, 4))
    clock = clock_fractions(pd.DatetimeIndex(samples["close_time"]), config.data.clock_zone)
    arrays = {"nbeats": channels, "tda": tda, "complexity": complexity, "clock": clock}
    return Panel(arrays, samples, plain_scalers(config), config)


def plain_scalers(config):
    """Scalers that change nothing."""
    sizes = {name: len(names) for name, names in view_names(config).items()}
    return {name: {"center": [0.0] * size, "scale": [1.0] * size} for name, size in sizes.items()}


def view_names(config):
    """Names of the numbers of every view."""
    return {view.name: view.names(config) for view in VIEWS.active(config)}


def model_content(config, model):
    """What `save_checkpoint` takes, for a model that nobody has trained."""
    return {
        "weights": model.state_dict(),
        "config": config.model_dump(mode="json"),
        "views": view_names(config),
        "symbols": ["A"],
        "scalers": plain_scalers(config),
        "threshold": 0.25,
        "calibration": {"method": "temperature", "slope": 1.0, "bias": 0.0},
        "labels": config.labels.model_dump(mode="json"),
        "data_hash": "",
        "seen_until": "2025-01-01T00:00:00+00:00",
        "versions": {},
    }
