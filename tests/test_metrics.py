"""Scores against counts made by hand, and what happens when a score is not defined."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest

from cmat_lib.errors import CmatError
from cmat_lib.evaluation.metrics import (
    METRICS,
    choose_threshold,
    choose_thresholds,
    gap_table,
    precision_top,
    score_table,
    scores,
    scores_within,
)


def hand_frame() -> pd.DataFrame:
    """Eight rows of two symbols whose scores can be counted on paper."""
    return pd.DataFrame(
        {
            "symbol": list("AAAABBBB"),
            "part": "test",
            "trigger": [1, 0, 0, 0, 1, 1, 0, 0],
            "probability": [0.2, 0.1, 0.3, 0.0, 0.9, 0.6, 0.7, 0.5],
        }
    )


def test_pooled_scores_equal_hand_counts():
    result = scores(hand_frame(), threshold=0.6, top_share=0.25)
    # triggers at 0.9, 0.6, 0.2; ranking 1 0 1 0 0 1 0 0: of 15 pairs 5 + 4 + 2 are in order
    assert result["roc_auc"] == pytest.approx(11 / 15)
    assert result["pr_auc"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)
    assert result["precision_at_threshold"] == pytest.approx(2 / 3)
    assert result["recall_at_threshold"] == pytest.approx(2 / 3)
    assert result["precision_top"] == pytest.approx(1 / 2)
    assert result["brier"] == pytest.approx((0.64 + 0.01 + 0.09 + 0 + 0.01 + 0.16 + 0.49 + 0.25) / 8)
    assert result["base_rate"] == pytest.approx(3 / 8)
    assert (result["n"], result["triggers"]) == (8, 3)


def test_within_is_the_mean_over_symbols_with_both_classes():
    quiet = pd.DataFrame({"symbol": "C", "part": "test", "trigger": 0, "probability": [0.95, 0.96]})
    result = scores_within(pd.concat([hand_frame(), quiet], ignore_index=True), 0.6, 0.25)
    assert result["roc_auc"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert result["precision_at_threshold"] == pytest.approx(2 / 3)  # A has no alarm: undefined there, so B alone
    assert result["base_rate"] == pytest.approx((1 / 4 + 2 / 4) / 2)
    assert result["n"] == 8


def test_pooling_ranks_symbols_but_within_does_not():
    """A score that knows only the symbol looks good pooled and is worth nothing within."""
    rng = np.random.default_rng(0)
    rates = np.repeat([0.05, 0.5], 4000)
    frame = pd.DataFrame({"symbol": rates.astype(str), "trigger": rng.random(8000) < rates, "probability": rates})
    assert scores(frame, 0.1, 0.02)["roc_auc"] > 0.7
    assert scores_within(frame, 0.1, 0.02)["roc_auc"] == 0.5


@pytest.mark.parametrize("trigger", [0, 1])
def test_one_class_gives_nan_without_a_warning(trigger):
    frame = hand_frame().assign(trigger=trigger)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = scores(frame, 0.95, 0.25)
        within = scores_within(frame, 0.95, 0.25)
    assert math.isnan(result["roc_auc"]) and math.isnan(result["pr_auc"])
    assert math.isnan(result["precision_at_threshold"])  # no alarm at 0.95
    assert result["base_rate"] == trigger
    assert all(math.isnan(within[name]) for name in METRICS) and within["n"] == 0


def test_no_rows_give_nan():
    result = scores(hand_frame().iloc[:0], 0.5, 0.02)
    assert all(math.isnan(result[name]) for name in METRICS)


def test_ranking_uses_the_raw_score_and_brier_the_calibrated():
    frame = hand_frame().assign(raw_probability=lambda f: f["probability"], probability=0.5)
    result = scores(frame, 0.6, 0.25)
    assert result["roc_auc"] == pytest.approx(11 / 15)
    assert result["brier"] == 0.25


def test_volatility_has_no_brier_score():
    result = scores(hand_frame().assign(volatility=lambda f: f["probability"]), 0.6, 0.25, "volatility")
    assert math.isnan(result["brier"])
    assert result["roc_auc"] == pytest.approx(11 / 15)


def test_precision_top_shares_ties_in_proportion():
    trigger, ranking = np.array([1.0, 1, 0, 0, 0, 0, 0, 0]), np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1])
    assert precision_top(trigger, ranking, 0.25) == pytest.approx((1 + 1 / 4) / 2)
    assert precision_top(trigger[::-1], ranking[::-1], 0.25) == pytest.approx((1 + 1 / 4) / 2)
    assert precision_top(trigger, ranking, 0.001) == 1.0  # never less than one row


def test_threshold_maximises_f1():
    rng = np.random.default_rng(1)
    trigger = rng.random(500) < 0.1
    probability = np.clip(rng.normal(0.3 + 0.2 * trigger, 0.15), 0, 1).round(2)

    def f1(threshold):
        alarms = probability >= threshold
        return 2 * (alarms & trigger).sum() / (alarms.sum() + trigger.sum())

    chosen = choose_threshold(probability, trigger)
    assert f1(chosen) == max(f1(value) for value in np.unique(probability))
    assert chosen == max(value for value in np.unique(probability) if f1(value) == f1(chosen))


def test_among_equal_f1_the_threshold_with_fewest_alarms_wins():
    assert choose_threshold(np.array([0.9, 0.5, 0.4, 0.3]), np.array([1, 0, 0, 1])) == 0.9  # F1 2/3 here and at 0.3


def test_thresholds_come_from_the_calibrate_part_alone():
    frame = hand_frame().assign(part="calibrate")
    other = hand_frame().assign(part="test", trigger=lambda f: 1 - f["trigger"])
    assert choose_thresholds(pd.concat([frame, other]), ["probability"]) == choose_thresholds(frame, ["probability"])


def test_threshold_without_triggers_is_an_error():
    with pytest.raises(CmatError, match=r"data\.split_shares"):
        choose_threshold(np.array([0.1, 0.2]), np.array([0, 0]))


def test_score_table_has_a_row_per_part_score_and_scope():
    frame = pd.concat([hand_frame(), hand_frame().assign(part="train")]).assign(trees=lambda f: f["trigger"] * 1.0)
    table = score_table(frame, {"probability": 0.6, "trees": 0.5}, 0.25, parts=("train", "test"))
    assert table.loc[("test", "trees", "within"), "roc_auc"] == 1.0
    assert table.loc[("train", "probability", "pooled"), "roc_auc"] == pytest.approx(11 / 15)
    assert len(table) == 8


def test_gap_is_train_minus_test():
    train = hand_frame().assign(part="train", probability=[0.9, 0.1, 0.3, 0.0, 0.9, 0.8, 0.7, 0.5])
    table = gap_table(pd.concat([hand_frame(), train]), 0.6, 0.25)
    assert list(table.columns) == ["train", "test", "gap", "relative_gap"]
    assert table.loc["roc_auc", "gap"] == pytest.approx(1 - 11 / 15)
    assert table.loc["precision_at_threshold", "relative_gap"] == pytest.approx((3 / 4 - 2 / 3) / (3 / 4))


def test_errors_name_the_column():
    with pytest.raises(CmatError, match="no column 'trees'"):
        scores(hand_frame(), 0.5, 0.02, "trees")
    with pytest.raises(CmatError, match="'probability' has 1 missing"):
        scores(hand_frame().replace({"probability": {0.9: np.nan}}), 0.5, 0.02)
