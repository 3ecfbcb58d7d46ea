"""Stage 05: how good the model is, beside what it must beat."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from cmat_lib.config import Config
from cmat_lib.data.candles import unstack
from cmat_lib.data.splits import PARTS, Market
from cmat_lib.evaluation import breakdown
from cmat_lib.evaluation.baselines import tree_scores
from cmat_lib.evaluation.calibration import apply_calibration, fit_calibration
from cmat_lib.evaluation.decision import WIDER_SHARES, daily_returns, decide, decision_table
from cmat_lib.evaluation.metrics import MODEL, SCOPES, choose_thresholds, gap_table
from cmat_lib.evaluation.rises import rise_table
from cmat_lib.evaluation.trades import add_outcomes
from cmat_lib.evaluation.uncertainty import Resampling, draw_scores
from cmat_lib.models import MultiTaskCrossModalAttention
from cmat_lib.training.checkpoint import load_model
from cmat_lib.training.devices import pick_device
from cmat_lib.training.objective import joined, said
from cmat_lib.views.panel import Batch, Panel
from cmat_lib.workflow.ledger import append_trial, ledger_path, trial_row, trial_table
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.common import load_panel

BASELINES = ("volatility", "trees")  # what the model must beat


def evaluate_model(config: Config, run: Run) -> dict[str, pd.DataFrame]:
    """Stage 05: the tables of `evaluate`, and ``trials`` of the ledger, which gets a row; also in the run folder."""
    device = pick_device(config.training)
    model, _, checkpoint = load_model(run.model_path(), device)
    market = unstack(run.read_frame("data/candles.parquet"))
    tables, thresholds, traded = evaluate(model, load_panel(config, run, device), market, config, checkpoint)
    predictions = tables.pop("predictions")
    tables["trials"] = _record_trial(run, traded, tables)
    run.save_frame("predictions.parquet", predictions)
    records = {name: table.reset_index().to_dict("records") for name, table in tables.items()}
    run.save_json("metrics.json", {"thresholds": thresholds} | records)
    return {"predictions": predictions, **tables}


def evaluate(
    model: MultiTaskCrossModalAttention, panel: Panel, market: Market, config: Config, checkpoint: dict[str, Any]
) -> tuple[dict[str, pd.DataFrame], dict[str, float], pd.DataFrame]:
    """Predictions of every labelled sample, and scores with intervals beside the baselines.

    The tables: ``predictions``; ``scores`` (test part); ``differences`` (model minus each baseline); ``gap`` (the model
    in every part); ``by_time``, ``by_hour``, ``by_volatility`` (ROC-AUC in groups of the test part); ``rises`` (second
    task); ``decision`` (trades net of costs); on the synthetic market ``oracle_share``. Then the thresholds, and the
    predictions with what a trade on each would have returned.
    """
    predictions = predict_all(model, panel, config, checkpoint)
    columns = [MODEL, *BASELINES]
    oracle = [breakdown.ORACLE] if breakdown.ORACLE in predictions else []
    thresholds = choose_thresholds(predictions, [*columns, *oracle]) | {MODEL: checkpoint["threshold"]}
    resampling, shares = Resampling.from_config(config), config.evaluation.top_shares
    test = predictions[predictions["part"] == "test"]
    draws = draw_scores(test, thresholds, resampling, shares)
    gaps = {scope: gap_table(predictions, thresholds[MODEL], shares, scope=scope) for scope in SCOPES}
    tables = {
        "predictions": predictions,
        "scores": draws.table(),
        "differences": draws.differences(MODEL),
        "gap": pd.concat(gaps, names=["scope", "metric"]),
    }
    groups = {"time": breakdown.time_groups, "hour": breakdown.hour_groups, "volatility": breakdown.volatility_groups}
    for name, group in groups.items():
        tables[f"by_{name}"] = breakdown.auc_by_group(test, group(test), columns, resampling)
    tables["rises"] = rise_table(predictions, [f"raw_{name}" for name in columns], resampling)
    if oracle:
        tables["oracle_share"] = breakdown.oracle_share(draws)
    traded = add_outcomes(predictions, market, config.labels, config.data.bar, config.evaluation.cost_pct)
    wider = sorted({*shares, *WIDER_SHARES})
    tables["decision"] = decision_table(traded, [*columns, *oracle, "momentum"], wider, resampling)
    return tables, thresholds, traded


def predict_all(
    model: MultiTaskCrossModalAttention, panel: Panel, config: Config, checkpoint: dict[str, Any]
) -> pd.DataFrame:
    """All samples of the four parts, with two columns for the model and each baseline.

    ``raw_<score>`` is as it was made, which ranks, and ``<score>`` is calibrated on the calibrate part.
    """
    indices = {part: panel.index(part) for part in PARTS}
    answers: dict[str, list[Tensor]] = {part: [] for part in PARTS}

    def shown(part: str) -> Iterator[Batch]:
        """Batches for the trees; the model looks at each in passing, so that its windows are gathered once."""
        for batch in panel.batches(indices[part], config.evaluation.batch_size):
            answers[part].append(said(model, batch))
            yield batch

    trees = tree_scores({part: shown(part) for part in PARTS}, config)
    raw, max_pct = joined([answer for part in PARTS for answer in answers[part]])
    rows = np.concatenate([index.cpu().numpy() for index in indices.values()])
    frame = panel.samples.iloc[rows].reset_index(drop=True).rename(columns={"volatility": "raw_volatility"})
    frame = frame.drop(columns=[name for name in frame if name.startswith(("row", "local_row"))])
    frame["raw_trees"] = np.concatenate([trees[part] for part in PARTS])
    frame[f"raw_{MODEL}"], frame[MODEL] = raw, apply_calibration(raw, checkpoint["calibration"])
    frame["predicted_max_pct"] = max_pct
    calibrate = frame[frame["part"] == "calibrate"]
    for name in BASELINES:
        fitted = fit_calibration(calibrate[f"raw_{name}"], calibrate["trigger"], config.evaluation.calibration)
        frame[name] = apply_calibration(frame[f"raw_{name}"], fitted)
    return frame


def _record_trial(run: Run, traded: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Write the model's row of the ledger, and say what its trades are worth among all trials."""
    shares = run.config.evaluation.top_shares
    test = traded[traded["part"] == "test"]
    decided = decide(traded, [MODEL], shares).items()
    daily = {share: daily_returns(test, rows["trades"], run.config.data.bar) for (_, share), rows in decided}
    row = trial_row(run, tables["scores"].loc[MODEL], tables["decision"].loc[MODEL], daily)
    return trial_table(append_trial(ledger_path(run), row), row["fingerprint"], shares)
