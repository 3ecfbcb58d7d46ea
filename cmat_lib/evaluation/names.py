"""Words for pages and commands: what scores and metrics are called. No figure is needed to say them."""

from __future__ import annotations

SCORE_NAMES = {
    "probability": "model",
    "volatility": "volatility alone",
    "trees": "boosted trees",
    "predicted_max_pct": "predicted rise",
    "momentum": "momentum",
    "oracle_probability": "oracle",
}
METRIC_NAMES = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "precision": "precision",
    "recall": "recall",
    "lift": "lift",
    "mcc": "Matthews' correlation",
    "alarm_share": "share of alarms",
    "brier": "Brier score (lower is better)",
    "brier_skill": "Brier skill",
    "ece": "calibration error (lower is better)",
    "base_rate": "base rate",
    "mae": "mean absolute error (points)",
    "r2": "R²",
    "spearman": "rank correlation",
    "hit_quantile": "mean place of triggers",
}


def score_name(score: str) -> str:
    """Name of a score column, raw or calibrated, for a page."""
    return SCORE_NAMES.get(score.removeprefix("raw_"), score)


def metric_name(metric: str) -> str:
    """Name of a metric for a page: ``precision_top_2`` is ``precision, top 2 %``."""
    name, _, share = metric.partition("_top_")
    if share:
        return f"{METRIC_NAMES[name]}, top {share} %"
    return METRIC_NAMES[name] + (", at threshold" if name in ("precision", "recall", "lift") else "")
