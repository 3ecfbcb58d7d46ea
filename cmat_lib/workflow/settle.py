"""What follows a training: calibration and threshold from the calibrate part, and all that is stored."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from cmat_lib import __version__
from cmat_lib.config import Config
from cmat_lib.evaluation.calibration import apply_calibration, fit_calibration
from cmat_lib.evaluation.metrics import choose_threshold
from cmat_lib.models import MultiTaskCrossModalAttention
from cmat_lib.training.answers import predict
from cmat_lib.views import VIEWS
from cmat_lib.views.panel import Panel

FITTED = ("train", "stop", "calibrate")  # parts of whose labels something in the model was chosen


class Settled(NamedTuple):
    """A model that is ready to be used, and what it said of the stop and the calibrate part."""

    checkpoint: dict[str, Any]
    raw: dict[str, np.ndarray]  # probability as the model makes it
    trigger: dict[str, np.ndarray]


def settle(model: MultiTaskCrossModalAttention, panel: Panel, config: Config, about: Mapping[str, Any]) -> Settled:
    """Fit threshold and calibration; `about` says which data it was, ``data_hash`` and ``symbols``."""
    raw, trigger = {}, {}
    for part in ("stop", "calibrate"):
        index = panel.index(part)
        raw[part], _ = predict(model, panel, index, config.evaluation.batch_size)
        trigger[part] = panel.samples["trigger"].to_numpy()[index.cpu()]
    calibration = fit_calibration(raw["calibrate"], trigger["calibrate"], config.evaluation.calibration)
    probability = apply_calibration(raw["calibrate"], calibration)
    when = panel.samples["timestamp"].iloc[panel.index("calibrate").cpu().numpy()]
    content = {
        "weights": {name: tensor.cpu() for name, tensor in model.state_dict().items()},
        "config": config.model_dump(mode="json"),
        "views": {view.name: view.names(config) for view in VIEWS.active(config)},
        "scalers": panel.scalers,
        "threshold": choose_threshold(probability, trigger["calibrate"], when),
        "calibration": calibration,
        "labels": config.labels.model_dump(mode="json"),
        "symbols": about["symbols"],
        "data_hash": about["data_hash"],
        "seen_until": panel.samples.loc[panel.samples["part"].isin(FITTED), "label_end"].max().isoformat(),
        "versions": {"cmat": __version__, "torch": metadata.version("torch")},
    }
    return Settled(content, raw, trigger)
