"""Scores against counts made by hand, and what happens when a score is not defined."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.evaluation.metrics import choose_threshold, choose_thresholds, gap_table, metric_names, scores


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


def within(frame, threshold, top_shares, score="probability"):
    return scores(frame, threshold, top_shares, score, "within")


def test_pooled_scores_equal_hand_counts():
    result = scores(hand_frame(), threshold=0.6, top_shares=[0.25, 0.5])
    assert list(result) == metric_names([0.25, 0.5])
    # triggers at 0.9, 0.6, 0.2; ranking 1 0 1 0 0 1 0 0: of 15 pairs 5 + 4 + 2 are in order
    assert result["roc_auc"] == pytest.approx(11 / 15)
    assert result["pr_auc"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)
    assert result["precision"] == result["recall"] == pytest.approx(2 / 3)
    assert result["lift"] == pytest.approx((2 / 3) / (3 / 8))
    assert result["alarm_share"] == pytest.approx(3 / 8)
    assert result["mcc"] == pytest.approx((2 * 4 - 1 * 1) / math.sqrt(3 * 3 * 5 * 5))
    assert result["precision_top_25"] == pytest.approx(1 / 2) and result["recall_top_25"] == pytest.approx(1 / 3)
    assert result["lift_top_25"] == pytest.approx((1 / 2) / (3 / 8))
    assert result["precision_top_50"] == pytest.approx(2 / 4) and result["recall_top_50"] == pytest.approx(2 / 3)
    brier = (0.64 + 0.01 + 0.09 + 0 + 0.01 + 0.16 + 0.49 + 0.25) / 8
    assert result["brier"] == pytest.approx(brier)
    assert result["brier_skill"] == pytest.approx(1 - brier / (3 / 8 * 5 / 8))
    # eight rows in ten bins: each is alone in one
    assert result["ece"] == pytest.approx((0.8 + 0.1 + 0.3 + 0.0 + 0.1 + 0.4 + 0.7 + 0.5) / 8)
    assert result["base_rate"] == pytest.approx(3 / 8)


def test_calibration_error_is_that_of_tenths():
    probability = np.repeat(np.arange(10) / 10, 100)
    trigger = np.tile(np.arange(100) < 50, 10).astype(float)
    frame = pd.DataFrame({"symbol": "A", "trigger": trigger, "probability": probability})
    assert scores(frame, 0.5)["ece"] == pytest.approx(np.mean(np.abs(np.arange(10) / 10 - 0.5)))


def test_within_is_the_mean_over_symbols_with_both_classes():
    quiet = pd.DataFrame({"symbol": "C", "part": "test", "trigger": 0, "probability": [0.95, 0.96]})
    result = within(pd.concat([hand_frame(), quiet], ignore_index=True), 0.6, [0.25])
    assert result["roc_auc"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert result["precision"] == pytest.approx(2 / 3)  # A has no alarm: undefined there, so B alone
    assert result["base_rate"] == pytest.approx((1 / 4 + 2 / 4) / 2)


def test_pooling_ranks_symbols_but_within_does_not():
    """A score that knows only the symbol looks good pooled and is worth nothing within."""
    rng = np.random.default_rng(0)
    rates = np.repeat([0.05, 0.5], 4000)
    frame = pd.DataFrame({"symbol": rates.astype(str), "trigger": rng.random(8000) < rates, "probability": rates})
    assert scores(frame, 0.1)["roc_auc"] > 0.7
    assert within(frame, 0.1, [0.02])["roc_auc"] == 0.5


@pytest.mark.parametrize("trigger", [0, 1])
def test_one_class_gives_nan_without_a_warning(trigger):
    frame = hand_frame().assign(trigger=trigger)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = scores(frame, 0.95, [0.25])
        mean = within(frame, 0.95, [0.25])
    for name in ("roc_auc", "pr_auc", "mcc", "brier_skill", "precision"):  # no alarm at 0.95
        assert math.isnan(result[name]), name
    assert result["base_rate"] == trigger
    assert all(math.isnan(value) for value in mean.values())


def test_no_rows_give_nan():
    assert all(math.isnan(value) for value in scores(hand_frame().iloc[:0], 0.5).values())


def test_no_threshold_leaves_the_scores_at_it_undefined():
    result = scores(hand_frame(), math.nan)
    assert all(math.isnan(result[name]) for name in ("precision", "recall", "lift", "mcc", "alarm_share"))
    assert result["roc_auc"] == pytest.approx(11 / 15)


def test_ranking_uses_the_raw_score_and_brier_the_calibrated():
    frame = hand_frame().assign(raw_probability=lambda f: f["probability"], probability=0.5)
    result = scores(frame, 0.6)
    assert result["roc_auc"] == pytest.approx(11 / 15)
    assert result["brier"] == 0.25


def test_top_share_takes_ties_in_proportion():
    frame = pd.DataFrame({"symbol": "A", "trigger": [1.0, 1, 0, 0, 0, 0, 0, 0]})
    frame["probability"] = [0.9, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1]
    for rows in (frame, frame[::-1]):
        assert scores(rows, 0.5, [0.25])["precision_top_25"] == pytest.approx((1 + 1 / 4) / 2)
    assert scores(frame, 0.5, [0.001])["precision_top_0.1"] == 1.0  # never less than one row


def f1(trigger, alarms):
    return 2 * (alarms & (trigger == 1)).sum() / (alarms.sum() + trigger.sum())


def hours(count):
    return pd.Series(pd.date_range("2024-01-01", periods=count, freq="1h", tz="UTC"))  # a Monday


@pytest.mark.parametrize("seed", range(5))
def test_threshold_maximises_the_mean_f1_of_the_weeks(seed):
    rng = np.random.default_rng(seed)
    trigger = (rng.random(5 * 168) < np.repeat([0.02, 0.3, 0.05, 0.0, 0.01], 168)).astype(float)
    probability = np.clip(rng.normal(0.3 + 0.2 * trigger, 0.15), 0, 1).round(2)

    def mean_f1(threshold):
        weeks = [slice(168 * week, 168 * week + 168) for week in range(5)]
        return np.mean([f1(trigger[w], probability[w] >= threshold) for w in weeks if trigger[w].any()])

    chosen = choose_threshold(probability, trigger, hours(len(trigger)))
    best = max(mean_f1(value) for value in np.unique(probability))
    assert mean_f1(chosen) == pytest.approx(best, abs=1e-12)
    values = np.unique(probability)
    alarms_from = values[np.searchsorted(values, chosen)]
    assert alarms_from == max(value for value in values if mean_f1(value) == pytest.approx(best, abs=1e-12))


def test_threshold_lies_between_two_steps():
    probability, trigger = np.array([0.1, 0.1, 0.1, 0.5, 0.5]), np.array([0, 0, 0, 1, 1])
    assert choose_threshold(probability, trigger, hours(5)) == pytest.approx(0.3)
    assert choose_threshold(np.full(5, 0.2), trigger, hours(5)) == 0.2, "one step: everything is an alarm"


def test_among_equal_f1_the_threshold_with_fewest_alarms_wins():
    # F1 is 2/3 from 0.9 on and from 0.3 on
    assert choose_threshold(np.array([0.9, 0.5, 0.4, 0.3]), np.array([1, 0, 0, 1]), hours(4)) == pytest.approx(0.7)


def test_one_week_of_a_crash_does_not_decide_alone():
    """Week 2 has most triggers, at scores that no other week reaches; weeks 1 and 3 have theirs around 0.3."""
    rng = np.random.default_rng(0)
    probability = rng.uniform(0, 0.2, 3 * 168)
    trigger = np.zeros(3 * 168)
    crash = slice(200, 260)
    probability[crash], trigger[crash] = rng.uniform(0.8, 0.9, 60), 1
    for week in (0, 2):
        rows = 168 * week + np.arange(4)
        probability[rows], trigger[rows] = 0.3, 1
        probability[rows[:, None] + np.arange(10, 20, 5)] = 0.31  # twice as many false alarms
    pooled = {value: f1(trigger, probability >= value) for value in (0.3, 0.5)}
    assert pooled[0.5] > pooled[0.3], "all rows at once would never alarm in a quiet week"
    assert choose_threshold(probability, trigger, hours(3 * 168)) < 0.3


def test_thresholds_come_from_the_calibrate_part_alone():
    frame = hand_frame().assign(part="calibrate", timestamp=hours(8))
    other = frame.assign(part="test", trigger=lambda f: 1 - f["trigger"])
    assert choose_thresholds(pd.concat([frame, other]), ["probability"]) == choose_thresholds(frame, ["probability"])


def test_threshold_without_triggers_is_an_error():
    with pytest.raises(CmatError, match=r"data\.split_shares"):
        choose_threshold(np.array([0.1, 0.2]), np.array([0, 0]), hours(2))


def test_gap_is_train_minus_test():
    train = hand_frame().assign(part="train", probability=[0.9, 0.1, 0.3, 0.0, 0.9, 0.8, 0.7, 0.5])
    table = gap_table(pd.concat([hand_frame(), train]), 0.6, [0.25])
    assert list(table.columns) == ["train", "test", "gap", "relative_gap"]
    assert table.loc["roc_auc", "gap"] == pytest.approx(1 - 11 / 15)
    assert table.loc["precision", "relative_gap"] == pytest.approx((3 / 4 - 2 / 3) / (3 / 4))


def test_errors_name_the_column():
    with pytest.raises(CmatError, match="no column 'trees'"):
        scores(hand_frame(), 0.5, [0.02], "trees")
    with pytest.raises(CmatError, match="'probability' has 1 missing"):
        scores(hand_frame().replace({"probability": {0.9: np.nan}}), 0.5)
