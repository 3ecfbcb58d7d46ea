"""Topology of candles: sliding, kept from candle to candle, and from scratch, the same numbers."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from cmat_lib.config import Config, load_config
from cmat_lib.config.schema import TdaConfig
from cmat_lib.data.synthetic import synthetic_market
from cmat_lib.data.topology import SERIES, embeddings
from cmat_lib.tda import feature_names, tda_features
from cmat_lib.views import VIEWS, Asked
from cmat_lib.views.compute import computed
from cmat_lib.workflow.predictor import followed

TDA = {"windows": [60, 36], "delays": [5], "series": ["log_close", "log_range", "log_volume"], "betti_bins": 12}
CONFIG = load_config(changes={"tda": TDA})


@pytest.fixture(scope="module")
def candles() -> pd.DataFrame:
    return next(iter(synthetic_market(symbols=1, days=30, timeframe="1h", horizon=4, seed=0).values()))


def shown(candles, rows, config: Config, live=None):
    """What the view shows at rows of these candles, (n, F)."""
    make = partial(computed, "A", candles)
    windows = make(rows) if live is None else followed("A", rows, make, live)
    return VIEWS.views["tda"].compute(Asked("A", {"A": candles}, rows, config, windows)).values


def newest(candles, config: Config, live=None):
    """The same at the last candle, (F,)."""
    return shown(candles, np.array([len(candles) - 1]), config, live)[0]


def from_scratch(candles, config: Config):
    """Features of the window that ends with the last of some candles, from these alone, (F,)."""
    tda = config.tda
    windows = (SERIES[name](candles)[None, -tda.longest_window :] for name in tda.series)
    return np.concatenate([tda_features(window, tda)[0] for window in windows])


@pytest.mark.parametrize("engine", ["planar", "giotto"])
def test_every_way_gives_the_same_rows(candles, engine):
    config = load_config(changes={"tda": TDA | {"engine": engine}})
    rows, live = np.array([59, 60, 61, 65, 100, 101, 300]), {}
    together = shown(candles, rows, config)
    assert together.shape == (7, 6 * config.tda.features_per_scale) == (7, len(feature_names(config.tda)))
    for row, expected in zip(rows, together, strict=True):
        np.testing.assert_array_equal(from_scratch(candles.iloc[: row + 1], config), expected)
        np.testing.assert_array_equal(newest(candles.iloc[: row + 1], config, live), expected)
    assert len(live) == (6 if engine == "planar" else 0)
    np.testing.assert_array_equal(shown(candles, rows, config, live), together)


def test_a_live_window_survives_revised_candles_and_other_symbols(candles):
    live = {}
    revised = candles.copy()
    revised.iloc[150, revised.columns.get_loc("close")] *= 1.001
    for given, row in ((candles, 155), (revised, 156), (candles[::-1], 157), (candles, 158), (candles, 158)):
        own = given.iloc[: row + 1]
        np.testing.assert_array_equal(newest(own, CONFIG, live), from_scratch(own, CONFIG))


def test_columns_are_those_of_their_series(candles):
    rows = shown(candles, np.array([99]), CONFIG).reshape(3, 2, -1)
    window = candles.iloc[40:100]
    ranges = np.log(100 * np.log(window["high"] / window["low"]) + 0.01).astype(np.float32)
    series = {"log_close": np.log(window["close"]), "log_range": ranges, "log_volume": np.log1p(window["volume"])}
    single = TdaConfig(window_size=60, time_delay=5, betti_bins=12)
    for place, (name, values) in enumerate(series.items()):
        np.testing.assert_array_equal(rows[place, 0], tda_features(values.to_numpy()[None], single)[0])
        assert embeddings(CONFIG.tda)[2 * place] == (name, 60, 5)
