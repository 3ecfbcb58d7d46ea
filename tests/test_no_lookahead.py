"""Nothing at a candle knows what comes after it: not a channel, not a feature, not a window, not a prediction.

The inputs are those that the stages write, from candle files to arrays, so that the code which puts features beside
samples is held to it as well.
"""

import numpy as np
import pytest
import torch

from cmat_lib.config import load_config, merge, project_root
from cmat_lib.data.complexity import complexity_features, log_ranges
from cmat_lib.data.labels import compute_labels
from cmat_lib.data.synthetic import synthetic_market
from cmat_lib.models import build_model
from cmat_lib.tda.features import tda_features
from cmat_lib.views import VIEWS, ohlcv, scaling
from cmat_lib.views.panel import Panel
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.common import read_views
from cmat_lib.workflow.stages.data import prepare_data
from cmat_lib.workflow.stages.features import build_features

CHANGES = {
    "data": {"channels": load_config().data.channels, "stride": 4},
    "cache": {"jobs": 1},
    "complexity": {"window_size": 72, "ranges": [1, 24]},
    "labels": {"threshold_pct": 1.0},
}


def stages(folder, market):
    """What a run over these candles writes: its parameters, numbers by view, samples, scalers."""
    (folder / "candles").mkdir(parents=True)
    for symbol, candles in market.items():
        candles.to_parquet(folder / f"candles/{symbol}.parquet")
    own = {"run_dir": str(folder / "run"), "data": {"data_dir": str(folder / "candles")}}
    own["cache"] = {"dir": str(folder / "cache")}
    config = load_config(project_root() / "params/smoke.yaml", merge(CHANGES, {"run_dir": own["run_dir"]}))
    config = load_config(changes={"data": own["data"], "cache": own["cache"]}, base=config.model_dump(mode="json"))
    for stage, work in (("01_data_prep", prepare_data), ("02_tda_cache", build_features)):
        run = Run(config, stage).begin()
        work(config, run)
        run.finish()
    arrays = {name: np.array(values) for name, values in read_views(config, run).items()}
    return config, arrays, run.read_frame("data/samples.parquet"), run.read_json("data/scalers.json")


@pytest.fixture(scope="module")
def market():
    """Two symbols; the second has a gap, so that rows and windows are not the same count."""
    made = synthetic_market(symbols=2, days=60, timeframe="1h", horizon=4, seed=1, plant=True)
    made = {symbol: candles[["open", "high", "low", "close", "volume"]] for symbol, candles in made.items()}
    made["SYNB"] = made["SYNB"].drop(made["SYNB"].index[720:723])
    return made


@pytest.fixture(scope="module")
def whole(market, tmp_path_factory):
    return stages(tmp_path_factory.mktemp("whole"), market)


def moment(whole, share):
    """A sample's candle open, late in the series."""
    samples = whole[2]
    return samples["timestamp"].sort_values().iloc[int(share * len(samples))]


def altered(market, time, how):
    """The market without what comes after a moment, or with another future."""
    if how == "cut":
        return {symbol: candles.loc[:time] for symbol, candles in market.items()}
    future = {}
    for symbol, candles in market.items():
        changed = candles.copy()
        later = changed.index > time
        changed.loc[later, ["open", "high", "low", "close"]] *= 3.0
        changed.loc[later, "volume"] *= 50.0
        future[symbol] = changed
    return future


def test_features_stand_beside_their_samples(market, whole):
    config, arrays, samples, _ = whole
    tda, complexity = arrays["tda"], arrays["complexity"]
    rng = np.random.default_rng(0)
    for number in rng.choice(len(samples), 40, replace=False):
        sample = samples.iloc[number]
        closes = market[sample["symbol"]]["close"].loc[: sample["timestamp"]].to_numpy()
        window = np.log(closes[-config.tda.window_size :])[None]
        np.testing.assert_array_equal(tda[number], tda_features(window, config.tda)[0])
        np.testing.assert_array_equal(complexity[number, :6], complexity_features(window, config.complexity)[0])
        ranges = log_ranges(market[sample["symbol"]].loc[: sample["timestamp"]], config.complexity.ranges)[-1]
        np.testing.assert_array_equal(complexity[number, 6:], ranges)


@pytest.mark.parametrize(("how", "share"), [("cut", 0.9), ("changed", 0.9), ("changed", 0.99)])
def test_the_future_changes_no_input(market, whole, tmp_path, how, share):
    assert_the_future_changes_nothing(market, whole, tmp_path, how, share)


def assert_the_future_changes_nothing(market, whole, folder, how, share):
    time = moment(whole, share)
    _, arrays, samples, _ = whole
    _, other, other_samples, _ = stages(folder, altered(market, time, how))
    known, keep = ((frame["timestamp"] <= time).to_numpy() for frame in (samples, other_samples))
    keys = ["symbol", "timestamp"]
    assert other_samples.loc[keep, keys].to_numpy().tolist() == samples.loc[known, keys].to_numpy().tolist()
    assert other.keys() == arrays.keys() == {"nbeats", "tda", "complexity", "clock"}
    for name in ("tda", "complexity", "clock"):
        np.testing.assert_array_equal(other[name][keep], arrays[name][known], err_msg=name)
    # Rows of the channels are counted from the first candle of all symbols, so each symbol is cut out by itself.
    start = other_start = 0
    for candles in market.values():
        rows = int((candles.index <= time).sum())
        shown = other["nbeats"][other_start : other_start + rows]
        np.testing.assert_array_equal(shown, arrays["nbeats"][start : start + rows])
        start += len(candles)
        other_start += rows if how == "cut" else len(candles)


def test_the_future_changes_no_prediction(market, whole, tmp_path):
    time = moment(whole, 0.97)
    config, _, _, scalers = whole  # a trained model carries its scalers along
    torch.manual_seed(0)
    model = build_model(config)
    predictions = []
    for _, arrays, samples, _ in (whole, stages(tmp_path, altered(market, time, "changed"))):
        panel = Panel(arrays, samples, scalers, config)
        known = torch.from_numpy(np.flatnonzero(samples["timestamp"] <= time))
        inputs = panel.gather(known).inputs
        predictions.append(torch.cat(model.predict(inputs.pop("nbeats"), **inputs)))
    torch.testing.assert_close(*predictions, rtol=0, atol=0)


def test_a_label_does_know_the_future(market, whole):
    """The tests above can fail: what looks ahead is seen to change."""
    config, candles = whole[0], market["SYNA"]
    time = candles.index[-50]
    labels = [
        compute_labels(frame, config.labels, config.data.bar)["max_pct"].loc[time]
        for frame in (candles, altered(market, time, "changed")["SYNA"])
    ]
    assert labels[0] != labels[1]


# -- planted leaks: each must be caught by what stands above or in test_panel.py and test_splits.py -------------------


def early(values):
    """Every row shows the next one."""
    return np.concatenate([values[1:], values[-1:]])


LEAKS = {
    "future channel": lambda channels, candles, labels: early(channels),
    "label among the features": lambda channels, candles, labels: np.column_stack(
        [channels[:, :-1], compute_labels(candles, labels, candles.index[1] - candles.index[0])["max_pct"].fillna(0)]
    ).astype(np.float32),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_caught(market, tmp_path, monkeypatch, leak):
    original = ohlcv.compute_channels
    labels = load_config(project_root() / "params/smoke.yaml", CHANGES).labels

    def leaky(candles, names, bar, dtype):
        return LEAKS[leak](original(candles, names, bar, dtype), candles, labels)

    monkeypatch.setattr(ohlcv, "compute_channels", leaky)
    whole = stages(tmp_path / "whole", market)
    with pytest.raises(AssertionError):
        assert_the_future_changes_nothing(market, whole, tmp_path / "other", "changed", 0.9)


def assert_scalers_know_the_training_part_only(whole):
    config, arrays, samples, _ = whole
    base = scaling.fit_scalers(VIEWS.active(config), arrays, samples, config)
    others = (samples["part"] != "train").to_numpy()
    wrecked = {name: np.where(others[:, None], np.float32(1e6), arrays[name]) for name in ("tda", "complexity")}
    assert scaling.fit_scalers(VIEWS.active(config), arrays | wrecked, samples, config) == base


def test_a_scaler_on_all_rows_is_caught(whole, monkeypatch):
    assert_scalers_know_the_training_part_only(whole)
    original = scaling.fit_scalers
    monkeypatch.setattr(
        scaling,
        "fit_scalers",
        lambda views, arrays, samples, config: original(views, arrays, samples.assign(part="train"), config),
    )
    with pytest.raises(AssertionError):
        assert_scalers_know_the_training_part_only(whole)
