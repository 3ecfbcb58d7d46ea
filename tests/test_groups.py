"""What groups of samples looked at, held against maps whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from cmat_lib.evaluation.uncertainty import Resampling
from cmat_lib.explain import groups

TIMES = pd.date_range("2024-01-01", periods=60, freq="1h", tz="UTC")
RESAMPLING = Resampling(pd.Timedelta("4h"), samples=50, confidence=0.9, seed=0)


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    keys = pd.DataFrame({"symbol": np.repeat(["A", "B"], 60), "timestamp": [*TIMES, *TIMES]})
    samples = keys.assign(close=100.0, trigger=rng.integers(0, 2, 120).astype(float), max_pct=1.0)
    samples["volatility"] = np.where(samples["symbol"] == "A", 1.0, 100.0) * np.tile(np.arange(1, 61), 2)
    predictions = keys.assign(raw_probability=rng.random(120), probability=rng.random(120)).sample(frac=1)
    candles = keys.assign(pattern=np.tile([1.0, -1.0], 60), regime=1.0)
    return samples, predictions, candles


def test_samples_are_described_by_key_and_not_by_order(tables):
    samples, predictions, candles = tables
    rows = np.array([65, 3])
    frame = groups.describe_samples(rows, *tables, threshold=0.5)
    for number, row in enumerate(rows):
        key = samples.loc[row, ["symbol", "timestamp"]]
        one = predictions[(predictions["symbol"] == key["symbol"]) & (predictions["timestamp"] == key["timestamp"])]
        assert frame["probability"][number] == one["probability"].item()
        alarm, rose = one["probability"].item() >= 0.5, samples["trigger"][row] == 1
        expected = {(1, 1): "hit", (1, 0): "false alarm", (0, 1): "miss", (0, 0): "quiet"}[alarm, rose]
        assert frame["outcome"][number] == expected
    assert frame["latent"].tolist() == ["pattern −, regime +", "pattern −, regime +"]
    real = candles.drop(columns=["pattern", "regime"])
    assert "latent" not in groups.describe_samples(rows, samples, predictions, real, 0.5)


def test_volatility_is_ranked_within_each_symbol(tables):
    frame = groups.describe_samples(np.arange(120), *tables, threshold=0.5)
    counts = frame.groupby(["symbol", "volatility"]).size()
    assert (counts == 20).all() and len(counts) == 6, "a wild symbol has calm times too"
    assert frame["volatility"][[0, 30, 59]].tolist() == list(groups.TERCILES)


def test_token_shares_by_hand():
    uniform = np.full((2, 1, 4, 3, 3), 1 / 3)
    np.testing.assert_allclose(groups.token_shares(uniform, ["a", "b", "c"]), 1 / 3)
    first = np.zeros((1, 1, 1, 3, 3))
    first[..., 0] = 1.0  # every token looks at the first one
    np.testing.assert_allclose(groups.token_shares(first, ["a", "b", "c"]), [[2 / 3, 1 / 6, 1 / 6]])
    np.testing.assert_allclose(groups.token_shares(first, ["a", "cls", "c"]), [[0.5, 0.5, 0.0]])


def test_groups_stand_in_their_natural_order():
    labels = pd.Series(["quiet", "hit", "quiet", "miss"])
    assert groups.group_names(labels) == ["hit", "miss", "quiet"]
    assert groups.group_names(pd.Series(["wild", "calm"])) == ["calm", "wild"]


def test_grouped_shares_are_means_with_intervals():
    rng = np.random.default_rng(0)
    labels = pd.Series(np.where(np.arange(60) < 50, "quiet", "hit"))
    shares = rng.dirichlet([5, 2], 60)
    table = groups.grouped_shares(shares, ["a", "b"], labels, pd.Series(TIMES), RESAMPLING)
    quiet = table.loc[("quiet", "a")]
    assert quiet["value"] == pytest.approx(shares[:50, 0].mean()) and quiet["n"] == 50
    assert quiet["low"] < quiet["value"] < quiet["high"] < quiet["low"] + 0.2
    assert table.loc["hit", "low"].isna().all(), "ten samples have no interval"
    assert table.loc[("hit", "b"), "value"] == pytest.approx(shares[50:, 1].mean())


def test_cases_are_the_surest_or_else_the_ends():
    frame = pd.DataFrame({"raw_probability": [0.2, 0.9, 0.8, 0.1], "outcome": ["hit", "quiet", "false alarm", "quiet"]})
    assert groups.pick_cases(frame) == {"surest hit": 0, "surest false alarm": 2}
    assert groups.pick_cases(frame.assign(outcome="quiet")) == {"highest score": 1, "lowest score": 3}
    only = frame.assign(outcome=["quiet", "hit", "quiet", "quiet"])
    assert groups.pick_cases(only) == {"surest hit": 1, "highest score": 2}


def test_case_prices_are_relative_to_the_sample():
    close = np.arange(100.0, 110.0)
    candles = pd.DataFrame({"symbol": "A", "timestamp": TIMES[:10], "close": close, "high": close + 1})
    other = candles.assign(symbol="B", close=1.0)
    price = groups.case_prices(pd.concat([other, candles]), pd.Series({"symbol": "A", "timestamp": TIMES[4]}), 3, 2)
    assert price.index.tolist() == [-2, -1, 0, 1, 2]
    np.testing.assert_allclose(price["close"], 100 * (close[2:7] / 104 - 1))
    np.testing.assert_allclose(price["high"][0], 100 / 104)
