"""Words for pages and commands: what scores and metrics are called. No figure is needed to say them."""

SCORE_NAMES = {
    "probability": "model",
    "volatility": "volatility alone",
    "trees": "boosted trees",
    "predicted_max_pct": "predicted rise",
    "oracle_probability": "oracle",
}
METRIC_NAMES = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "mcc": "Matthews' correlation",
    "alarm_share": "share of alarms",
    "brier": "Brier score (lower is better)",
    "brier_skill": "Brier skill",
    "ece": "calibration error (lower is better)",
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
    known = METRIC_NAMES.get(name, name.replace("_", " "))
    if share:
        return f"{known}, top {share} %"
    return known + (", at threshold" if name in ("precision", "recall", "lift") else "")
