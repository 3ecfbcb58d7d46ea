"""Nothing at a candle knows what comes after it: not a channel, not a feature, not a window, not a prediction."""

import numpy as np
import pytest
import torch

from cmat_lib.config import load_config, project_root
from cmat_lib.data.channels import compute_channels
from cmat_lib.data.complexity import complexity_features
from cmat_lib.data.labels import compute_labels
from cmat_lib.data.panel import Panel, build_samples, fit_scalers
from cmat_lib.data.synthetic import synthetic_market
from cmat_lib.models import build_model
from cmat_lib.tda.features import tda_features

CONFIG = load_config(
    project_root() / "params/smoke.yaml",
    {"data": {"channels": load_config().data.channels, "synthetic_days": 60}, "tda": {"stride": 8}},
)


@pytest.fixture(scope="module")
def market():
    data = CONFIG.data
    return synthetic_market(symbols=1, days=60, timeframe=data.timeframe, horizon=4, seed=1, plant=True)


def inputs(market):
    """Channels, topology, complexity, sample index of a market, as the stages compute them."""
    labels = {s: compute_labels(c, CONFIG.labels, CONFIG.data.bar) for s, c in market.items()}
    samples = build_samples(market, labels, CONFIG)
    candles = next(iter(market.values()))
    channels = compute_channels(candles, CONFIG.data.channel_names, CONFIG.data.bar)
    log_close = np.log(candles["close"].to_numpy())
    windows = np.lib.stride_tricks.sliding_window_view(log_close, CONFIG.tda.window_size)
    windows = windows[samples["row"].to_numpy() - CONFIG.tda.window_size + 1]
    return channels, tda_features(windows, CONFIG.tda), complexity_features(windows, CONFIG.complexity), samples


@pytest.fixture(scope="module")
def whole(market):
    return inputs(market)


def altered(market, row, how):
    symbol, candles = next(iter(market.items()))
    if how == "cut":
        return {symbol: candles.iloc[: row + 1]}
    changed = candles.copy()
    changed.loc[changed.index[row + 1] :, ["open", "high", "low", "close"]] *= 3.0
    changed.loc[changed.index[row + 1] :, "volume"] *= 50.0
    return {symbol: changed}


@pytest.mark.parametrize("how", ["cut", "changed"])
@pytest.mark.parametrize("share", [0.97, 0.99])
def test_the_future_changes_no_input(market, whole, how, share):
    channels, tda, complexity, samples = whole
    row = int(samples["row"].iloc[int(share * len(samples))])
    known = (samples["row"] <= row).to_numpy()
    other = inputs(altered(market, row, how))
    keep = (other[3]["row"] <= row).to_numpy()
    np.testing.assert_array_equal(other[3].loc[keep, "row"].to_numpy(), samples.loc[known, "row"].to_numpy())
    np.testing.assert_array_equal(other[0][: row + 1], channels[: row + 1])
    np.testing.assert_array_equal(other[1][keep], tda[known])
    np.testing.assert_array_equal(other[2][keep], complexity[known])


def test_the_future_changes_no_prediction(market, whole):
    channels, tda, complexity, samples = whole
    scalers = fit_scalers(channels, tda, complexity, samples, CONFIG)  # as a trained model carries them
    torch.manual_seed(0)
    model = build_model(CONFIG)
    row = int(samples["row"].iloc[int(0.97 * len(samples))])
    predictions = []
    for view in (whole, inputs(altered(market, row, "changed"))):
        panel = Panel(*view, scalers, CONFIG)
        known = torch.from_numpy(np.flatnonzero(view[3]["row"] <= row))
        predictions.append(torch.cat(model.predict(*panel.gather(known).inputs)))
    torch.testing.assert_close(*predictions, rtol=0, atol=0)


def test_a_label_does_know_the_future(market):
    """The test above can fail: what looks ahead is seen to change."""
    symbol, candles = next(iter(market.items()))
    row = len(candles) - 50
    before = compute_labels(candles, CONFIG.labels, CONFIG.data.bar)["max_pct"].iloc[row]
    after = compute_labels(altered(market, row, "changed")[symbol], CONFIG.labels, CONFIG.data.bar)["max_pct"].iloc[row]
    assert before != after
