"""Topology of candles: sliding, kept from candle to candle, and from scratch, the same numbers."""

import numpy as np
import pandas as pd
import pytest

from cmat_lib.data.synthetic import synthetic_market
from cmat_lib.data.topology import LiveTopology, candle_topology, embeddings, window_topology
from cmat_lib.schema import TdaConfig
from cmat_lib.tda import feature_names, tda_features

CONFIG = TdaConfig(windows=[60, 36], delays=[5], series=["log_close", "log_range", "log_volume"], betti_bins=12)


@pytest.fixture(scope="module")
def candles() -> pd.DataFrame:
    return next(iter(synthetic_market(symbols=1, days=30, timeframe="1h", horizon=4, seed=0).values()))


@pytest.mark.parametrize("engine", ["planar", "giotto"])
def test_every_way_gives_the_same_rows(candles, engine):
    config = CONFIG.model_copy(update={"engine": engine})
    rows, live = np.array([59, 60, 61, 65, 100, 101, 300]), LiveTopology(config)
    together = candle_topology(candles, rows, config)
    assert together.shape == (7, 6 * CONFIG.features_per_scale) == (7, len(feature_names(CONFIG)))
    for row, expected in zip(rows, together, strict=True):
        np.testing.assert_array_equal(window_topology(candles.iloc[: row + 1], config), expected)
        np.testing.assert_array_equal(live.features(candles.iloc[: row + 1]), expected)


def test_a_live_window_survives_revised_candles_and_other_symbols(candles):
    live = LiveTopology(CONFIG)
    revised = candles.copy()
    revised.iloc[150, revised.columns.get_loc("close")] *= 1.001
    for given, row in ((candles, 155), (revised, 156), (candles[::-1], 157), (candles, 158), (candles, 158)):
        own = given.iloc[: row + 1]
        np.testing.assert_array_equal(live.features(own), window_topology(own, CONFIG))


def test_columns_are_those_of_their_series(candles):
    rows = candle_topology(candles, np.array([99]), CONFIG).reshape(3, 2, -1)
    window = candles.iloc[40:100]
    ranges = np.log(100 * np.log(window["high"] / window["low"]) + 0.01).astype(np.float32)
    series = {"log_close": np.log(window["close"]), "log_range": ranges, "log_volume": np.log1p(window["volume"])}
    single = TdaConfig(window_size=60, time_delay=5, betti_bins=12)
    for place, (name, values) in enumerate(series.items()):
        np.testing.assert_array_equal(rows[place, 0], tda_features(values.to_numpy()[None], single)[0])
        assert embeddings(CONFIG)[2 * place] == (name, 60, 5)
