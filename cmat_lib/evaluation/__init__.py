"""Scores, their intervals, calibration, and the baselines that every score stands beside."""

from cmat_lib.evaluation.baselines import fit_trees, summary_names, tree_scores, window_summaries
from cmat_lib.evaluation.calibration import apply_calibration, fit_calibration
from cmat_lib.evaluation.metrics import (
    METRICS,
    choose_threshold,
    choose_thresholds,
    gap_table,
    score_table,
    scores,
    scores_within,
)
from cmat_lib.evaluation.uncertainty import Resampling, block_bootstrap, interval, interval_table, paired_difference

__all__ = [
    "METRICS",
    "Resampling",
    "apply_calibration",
    "block_bootstrap",
    "choose_threshold",
    "choose_thresholds",
    "fit_calibration",
    "fit_trees",
    "gap_table",
    "interval",
    "interval_table",
    "paired_difference",
    "score_table",
    "scores",
    "scores_within",
    "summary_names",
    "tree_scores",
    "window_summaries",
]
