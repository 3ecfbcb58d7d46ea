"""Stage 05: what page 05 computes. The other stages stand in `cmat_lib.stages`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from cmat_lib.config import Config
from cmat_lib.data.panel import PARTS, Panel
from cmat_lib.evaluation.baselines import tree_scores
from cmat_lib.evaluation.breakdown import ORACLE, oracle_share
from cmat_lib.evaluation.calibration import apply_calibration
from cmat_lib.evaluation.metrics import SCOPES, choose_thresholds, gap_table
from cmat_lib.evaluation.uncertainty import Resampling, interval_table, paired_difference
from cmat_lib.run import Run
from cmat_lib.stages import load_panel, predict
from cmat_lib.training.checkpoint import load_model
from cmat_lib.training.trainer import pick_device

SCORES = ("probability", "volatility", "trees")  # the model, and what it must beat


def evaluate_model(config: Config, run: Run) -> dict[str, pd.DataFrame]:
    """Stage 05: predictions of every labelled sample, and scores with intervals beside the baselines.

    Returns
    -------
    dict of DataFrame
        ``predictions``, ``scores`` (test part), ``differences`` (model minus each baseline), ``gap`` (the model in
        every part) and, on the synthetic market, ``oracle_share``; all also in the run folder.
    """
    device = pick_device(config.training)
    model, _, checkpoint = load_model(run.model_folder / "best_model.pt", device)
    panel = load_panel(config, run, device)
    predictions = _predictions(model, panel, config, checkpoint)
    thresholds = choose_thresholds(predictions, SCORES) | {"probability": checkpoint["threshold"]}
    test = predictions[predictions["part"] == "test"]
    resampling = Resampling.from_config(config)
    top = config.evaluation.top_share
    scores = interval_table(test, _with_oracle(thresholds, predictions), top, resampling)
    differences = pd.concat(
        {name: paired_difference(test, "probability", name, "roc_auc", resampling) for name in SCORES[1:]},
        names=["baseline", "scope"],
    )
    gap = pd.concat(
        {scope: gap_table(predictions, thresholds["probability"], top, scope=scope) for scope in SCOPES},
        names=["scope", "metric"],
    )
    tables = {"scores": scores, "differences": differences, "gap": gap}
    if ORACLE in predictions:
        tables["oracle_share"] = oracle_share(test, SCORES, resampling)
    run.save_frame("predictions.parquet", predictions)
    run.save_json("metrics.json", {"thresholds": thresholds} | {name: records(t) for name, t in tables.items()})
    return {"predictions": predictions, **tables}


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as mappings, index included, for JSON."""
    return table.reset_index().to_dict("records")


def _predictions(model, panel: Panel, config: Config, checkpoint: dict[str, Any]) -> pd.DataFrame:
    """Frame of all samples of the four parts with the scores of the model and of the trees."""
    size = config.evaluation.batch_size
    indices = {part: panel.index(part) for part in PARTS}
    trees = tree_scores({part: panel.batches(index, size) for part, index in indices.items()}, config)
    every = torch.cat(list(indices.values()))
    raw, max_pct = predict(model, panel, every, size)
    frame = panel.samples.iloc[every.cpu().numpy()].drop(columns=["row", "local_row"]).reset_index(drop=True)
    frame["raw_probability"] = raw
    frame["probability"] = apply_calibration(raw, checkpoint["calibration"])
    frame["predicted_max_pct"] = max_pct
    frame["trees"] = np.concatenate(list(trees.values()))
    return frame


def _with_oracle(thresholds: dict[str, float], predictions: pd.DataFrame) -> dict[str, float]:
    if ORACLE not in predictions:
        return thresholds
    return thresholds | choose_thresholds(predictions, [ORACLE])
