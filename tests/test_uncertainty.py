"""The block bootstrap on series whose uncertainty is known, and paired differences."""

import numpy as np
import pandas as pd
import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.evaluation.metrics import scores
from cmat_lib.evaluation.uncertainty import Resampling, block_bootstrap, draw_scores, interval

HOUR = pd.Timedelta("1h")


def hours(count: int) -> pd.DatetimeIndex:
    return pd.date_range("2025-01-01", periods=count, freq="1h", tz="UTC")


def overlapping_frame(seed: int = 0, count: int = 1500, horizon: int = 24) -> pd.DataFrame:
    """Two symbols with one driver; a label holds if a shock lies in the next `horizon` hours, so labels overlap."""
    rng = np.random.default_rng(seed)
    shocks = rng.random(count + horizon) < 0.01
    trigger = np.array([shocks[t + 1 : t + 1 + horizon].any() for t in range(count)], float)
    slow = np.convolve(rng.normal(size=count + horizon), np.ones(horizon) / horizon**0.5, "valid")[:count]
    frames = [
        pd.DataFrame(
            {
                "symbol": symbol,
                "timestamp": hours(count),
                "trigger": trigger,
                "probability": 1 / (1 + np.exp(-(slow + trigger))),
                "trees": rng.random(count),
            }
        )
        for symbol in "AB"
    ]
    return pd.concat(frames, ignore_index=True)


def weighted_mean(values):
    return lambda weights: weights @ values / weights.sum()


def test_all_rows_of_a_moment_move_together_in_whole_blocks():
    timestamps = hours(60).repeat(3)[np.random.default_rng(0).permutation(180)]
    drawn = block_bootstrap(timestamps, lambda weights: weights, Resampling(6 * HOUR, samples=50))
    order = np.argsort(timestamps, kind="stable")
    by_moment = drawn[:, order].reshape(50, 60, 3)
    assert (by_moment == by_moment[:, :, :1]).all()
    counts = by_moment[:, :, 0]
    assert (counts.sum(axis=1) == 60).all()
    # ten blocks of six: the count changes at no more than one start and one end per block
    changes = (counts != np.roll(counts, 1, axis=1)).sum(axis=1)
    assert changes.max() <= 20 and changes.mean() > 8
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.7)  # no moment is favoured; sd of a mean is 0.14


def test_block_length_is_a_duration():
    """Every third candle: a block of six hours is two moments, not six."""
    drawn = block_bootstrap(hours(180)[::3], lambda weights: weights, Resampling(6 * HOUR, samples=300, seed=1))
    expected = block_bootstrap(hours(60), lambda weights: weights, Resampling(2 * HOUR, samples=300, seed=1))
    np.testing.assert_array_equal(drawn, expected)


def paired(frame, first, second, metric, resampling):
    """Difference of two columns, pooled and within."""
    draws = draw_scores(frame, dict.fromkeys([first, second], np.nan), resampling)
    return draws.differences(first).xs((second, metric), level=("baseline", "metric"))


def test_blocks_are_wider_than_single_rows_on_overlapping_labels():
    frame = overlapping_frame()
    widths = {}
    for block in (1, 7 * 24):
        table = paired(frame, "probability", "trees", "roc_auc", Resampling(block * HOUR, samples=100))
        widths[block] = table.loc["pooled", "high"] - table.loc["pooled", "low"]
    assert widths[168] > 1.5 * widths[1]


def test_coverage_on_an_autoregressive_process():
    """95 % intervals of the mean of AR(1), φ 0.8: blocks come near, single rows miss more than half of the time."""
    rng = np.random.default_rng(0)
    moments, trials = hours(1000), 120
    hits = {1: 0, 50: 0}
    for trial in range(trials):
        noise = rng.normal(size=1100)
        series = np.zeros(1100)
        for t in range(1, 1100):
            series[t] = 0.8 * series[t - 1] + noise[t]
        for block in hits:
            resampling = Resampling(block * HOUR, samples=150, seed=trial)
            low, high = interval(block_bootstrap(moments, weighted_mean(series[100:]), resampling), 0.95)
            hits[block] += low < 0 < high
    assert 0.85 <= hits[50] / trials <= 0.99
    assert hits[1] / trials < 0.6


def test_intervals_bracket_the_scores_of_the_rows():
    frame = overlapping_frame()
    table = draw_scores(frame, {"probability": 0.5, "trees": 0.5}, Resampling(168 * HOUR, samples=60)).table()
    pooled, within = (scores(frame, 0.5, scope=scope) for scope in ("pooled", "within"))
    assert table.loc[("probability", "pooled", "pr_auc"), "value"] == pytest.approx(pooled["pr_auc"], abs=1e-12)
    assert table.loc[("probability", "within", "brier"), "value"] == pytest.approx(within["brier"], abs=1e-12)
    assert (table["low"] < table["high"]).all()
    inside = table["value"].between(table["low"], table["high"])
    assert inside.drop("ece", level="metric").mean() > 0.9


def test_differences_are_those_of_the_resamples():
    frame = overlapping_frame(count=1300)
    draws = draw_scores(frame, {"probability": 0.5, "trees": 0.5}, Resampling(168 * HOUR, samples=50))
    table, metric = draws.differences("probability"), draws.metrics.index("precision_top_2")
    row = table.loc[("trees", "within", "precision_top_2")]
    assert row["value"] == pytest.approx(draws.value[0, 1, metric] - draws.value[1, 1, metric])
    low, high = interval(draws.samples[:, 0, 1, metric] - draws.samples[:, 1, 1, metric], 0.95)
    assert (row["low"], row["high"]) == (low, high)
    assert table.index.unique("baseline").tolist() == ["trees"]


def test_difference_of_identical_columns_is_exactly_zero():
    frame = overlapping_frame(count=1000).assign(copy=lambda f: f["probability"])
    table = paired(frame, "probability", "copy", "pr_auc", Resampling(168 * HOUR, samples=50))
    assert (table[["value", "low", "high"]] == 0).all(axis=None)


def test_paired_interval_is_narrower_than_the_two_scores_apart():
    frame = overlapping_frame()
    rng = np.random.default_rng(5)
    frame["near"] = frame["probability"] + 0.05 * rng.normal(size=len(frame))
    resampling = Resampling(168 * HOUR, samples=100)
    both = paired(frame, "probability", "near", "roc_auc", resampling).loc["pooled"]
    alone = draw_scores(frame, {"probability": np.nan}, resampling).table().loc[("probability", "pooled", "roc_auc")]
    assert both["high"] - both["low"] < 0.5 * (alone["high"] - alone["low"])


def test_too_little_time_gives_no_interval():
    frame = overlapping_frame(count=24 * 30)
    table = paired(frame, "probability", "trees", "roc_auc", Resampling(168 * HOUR, samples=50))
    assert table["value"].notna().all() and table[["low", "high"]].isna().all(axis=None)


def test_interval_needs_most_resamples_defined():
    samples = np.arange(101.0)
    assert interval(samples, 0.9) == pytest.approx((5, 95))
    samples[:5] = np.nan
    assert interval(samples, 0.9)[1] == pytest.approx(95.25)
    samples[:20] = np.nan
    assert np.isnan(interval(samples, 0.9)).all()


def test_resampling_from_parameters():
    config = load_config(changes={"data": {"timeframe": "15m"}, "labels": {"horizon": 16}, "seed": 3})
    assert Resampling.from_config(config) == Resampling(pd.Timedelta("28h"), 500, 0.95, 3)


def test_errors_say_what_is_wrong():
    with pytest.raises(CmatError, match="no rows"):
        block_bootstrap(hours(0), weighted_mean(np.zeros(0)), Resampling(HOUR))
