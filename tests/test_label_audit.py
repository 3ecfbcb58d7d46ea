"""What the audit says about labels is what can be counted by hand."""

import numpy as np
import pandas as pd
import pytest

from cmat_lib.config import load_config
from cmat_lib.data.label_audit import MODES, compare_modes, independent_symbols, label_statistics, uniqueness
from cmat_lib.data.labels import compute_labels
from cmat_lib.views.samples import build_samples


def frame(rows, trigger=None, symbol="A"):
    stamps = pd.Timestamp("2025-01-01", tz="UTC") + np.asarray(rows) * pd.Timedelta("1h")
    trigger = np.zeros(len(rows)) if trigger is None else np.asarray(trigger, float)
    return pd.DataFrame(
        {"symbol": symbol, "timestamp": stamps, "local_row": rows, "trigger": trigger, "volatility": rows}
    )


def test_uniqueness_by_hand():
    """Labels of 2 candles at rows 0, 1 and 5: candles 1, 2 and 2, 3 and 6, 7; candle 2 is shared."""
    np.testing.assert_allclose(uniqueness(frame([0, 1, 5]), 2), [0.75, 0.75, 1.0])


def test_uniqueness_against_the_definition():
    rng = np.random.default_rng(0)
    samples = pd.concat([frame(np.sort(rng.choice(200, 80, replace=False)), symbol=s) for s in "AB"], ignore_index=True)
    samples.loc[rng.choice(160, 12, replace=False), "trigger"] = np.nan
    horizon = 7
    expected = np.full(len(samples), np.nan)
    for _, own in samples.dropna(subset="trigger").groupby("symbol"):
        rows = own["local_row"].to_numpy()
        reads = (np.arange(210) > rows[:, None]) & (np.arange(210) <= rows[:, None] + horizon)  # (n, candles)
        shares = reads / np.maximum(reads.sum(0), 1)
        expected[own.index] = shares.sum(1) / horizon
    np.testing.assert_allclose(uniqueness(samples, horizon), expected)


def test_independent_symbols():
    rng = np.random.default_rng(0)
    trigger = rng.random(4000) < 0.3
    rows = np.arange(4000)
    same = pd.concat([frame(rows, trigger, s) for s in "ABC"])
    apart = pd.concat([frame(rows, rng.random(4000) < 0.3, s) for s in "ABC"])
    assert independent_symbols(same) == pytest.approx(1.0)
    assert independent_symbols(apart) == pytest.approx(3.0, abs=0.02)


def test_statistics_by_hand():
    rows = np.arange(40)  # hours; labels of 4 candles
    samples = frame(rows, (rows >= 30).astype(float))
    samples["timestamp"] += pd.Timedelta(days=30)  # 2025-01-31: a day of January, then February
    samples.loc[39, "trigger"] = np.nan
    found = label_statistics(samples, 4)
    assert (found["labels"], found["base_rate"]) == (39, pytest.approx(9 / 39))
    assert (found["lowest_month"], found["highest_month"]) == (0.0, pytest.approx(9 / 15))
    assert found["overlapping"] == pytest.approx(38 / 39), "the last one has no next"
    assert found["independent_labels"] == pytest.approx(42 / 4), "39 labels read 42 candles, four each"
    assert found["volatility_auc"] == 1.0


@pytest.fixture(scope="module")
def walk():
    rng = np.random.default_rng(3)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 900)))
    index = pd.date_range("2025-01-01", periods=900, freq="h", tz="UTC", name="timestamp")
    columns = {"open": close, "high": close * 1.004, "low": close * 0.996, "close": close, "volume": 1.0}
    market = {"A": pd.DataFrame(columns, index=index).drop(index[400:440])}
    small = {"timeframe": "1h", "sequence_length": 8, "channels": ["log_close"]}
    sections = {"data": small, "tda": {"window_size": 40}, "complexity": {"window_size": 40}}
    return market, load_config(changes={**sections, "labels": {"horizon": 6, "threshold_pct": 2.0}})


def samples_of(market, config):
    return build_samples(
        market, {s: compute_labels(c, config.labels, config.data.bar) for s, c in market.items()}, config
    )


def test_modes_side_by_side(walk):
    market, config = walk
    samples = samples_of(market, config)
    table = compare_modes(market, samples, config)
    assert tuple(table.index) == MODES
    assert table.loc["percent", "same_as_configured"] == 1.0 > table.loc["sigma", "same_as_configured"]
    assert table.loc["percent", "base_rate"] == samples["trigger"].mean() > table.loc["triple_barrier", "base_rate"]
    assert table.loc["sigma", "labels"] < table.loc["percent", "labels"], "sigma needs 97 candles first"


def test_weights_are_one_unless_asked_for_and_follow_uniqueness(walk):
    market, config = walk
    assert (samples_of(market, config)["weight"] == 1).all()
    asked = config.model_copy(update={"labels": config.labels.model_copy(update={"uniqueness_weights": True})})
    samples = samples_of(market, asked)
    train = samples[samples["part"] == "train"]
    assert train["weight"].mean() == pytest.approx(1.0)
    assert (samples.loc[samples["part"] != "train", "weight"] == 1).all()
    unique = uniqueness(train, 6)
    np.testing.assert_allclose(train["weight"], unique / unique.mean())
    # Before the gap the last label shares no candle with one after it: it is more unique than one amid its neighbours.
    assert train["weight"].iloc[train["local_row"].searchsorted(400) - 1] > 1.5 * train["weight"].iloc[100]
