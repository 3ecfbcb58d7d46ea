"""The panel: the split has no way to look ahead, and a batch is what a naive copy would be."""

import numpy as np
import pandas as pd
import pytest
import torch

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.data.labels import compute_labels
from cmat_lib.data.splits import PARTS, split_boundaries
from cmat_lib.views import VIEWS
from cmat_lib.views.clock import clock_fractions
from cmat_lib.views.panel import Panel
from cmat_lib.views.samples import build_samples, needed_candles
from cmat_lib.views.scaling import fit_scalers

SMALL = {
    "data": {
        "timeframe": "1h",
        "sequence_length": 8,
        "channels": ["log_open", "log_high", "log_low", "log_close", "roc"],
    },
    "labels": {"horizon": 3, "threshold_pct": 1.0},
    "tda": {"window_size": 40},
    "complexity": {"window_size": 40},
}


def small_config(**changes):
    return load_config(changes=changes, base=SMALL)


def walk(rows, seed, start="2025-01-01"):
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, rows)))
    index = pd.date_range(start, periods=rows, freq="h", tz="UTC", name="timestamp")
    spread = np.abs(rng.normal(0, 0.005, rows))
    columns = {"open": close, "high": close * (1 + spread), "low": close * (1 - spread), "close": close}
    return pd.DataFrame({**columns, "volume": rng.exponential(size=rows)}, index=index)


def make(config, market):
    """Panel from random numbers, so that each can be recognised, and these by view."""
    labels = {s: compute_labels(c, config.labels, config.data.bar) for s, c in market.items()}
    samples = build_samples(market, labels, config)
    rng = np.random.default_rng(0)
    total = sum(len(c) for c in market.values())
    channels = rng.normal(size=(total, len(config.data.channel_names))).astype(np.float32)
    tda = rng.normal(3, 5, size=(len(samples), config.tda.feature_dim)).astype(np.float32)
    complexity = rng.normal(size=(len(samples), 6)).astype(np.float32)
    clock = clock_fractions(pd.DatetimeIndex(samples["close_time"]), config.data.clock_zone)
    arrays = {"nbeats": channels, "tda": tda, "complexity": complexity, "clock": clock}
    return Panel(arrays, samples, fit_scalers(VIEWS.active(config), arrays, samples, config), config), arrays


@pytest.fixture(scope="module")
def market():
    return {"A": walk(700, 1), "B": walk(650, 2, "2025-01-03")}


@pytest.mark.parametrize("horizon", [1, 3, 40])
def test_no_label_reaches_into_the_next_part(market, horizon):
    config = small_config(labels={"horizon": horizon})
    labels = {s: compute_labels(c, config.labels, config.data.bar) for s, c in market.items()}
    samples = build_samples(market, labels, config)
    starts = split_boundaries(market, config.data)
    for part, (begin, end) in zip(PARTS, zip([None, *starts], [*starts, None], strict=True), strict=True):
        rows = samples[samples["part"] == part]
        assert len(rows) > 10
        assert begin is None or (rows["close_time"] >= begin).all()
        assert end is None or (rows["label_end"] <= end).all()
    # One row more would reach across: the purge takes exactly the rows it must.
    purged = samples[samples["part"] == "purged"]
    reaches = [(purged["close_time"] < b) & (purged["label_end"] > b) for b in starts]
    assert len(purged) == 3 * len(market) * (horizon - 1) and np.logical_or.reduce(reaches).all()
    assert (samples.loc[samples["part"] == "unlabelled", "trigger"].isna()).all()


def test_samples_have_their_whole_look_back(market):
    config = small_config()
    panel, _ = make(config, market)
    need = needed_candles(config) - config.labels.horizon
    assert panel.samples.groupby("symbol")["local_row"].min().eq(need - 1).all()


def test_windows_do_not_cross_gaps(market):
    config = small_config()
    gap = {"A": market["A"].drop(market["A"].index[300:303]), "B": market["B"]}
    panel, _ = make(config, gap)
    rows = panel.samples.loc[panel.samples["symbol"] == "A", "local_row"]
    need = needed_candles(config) - config.labels.horizon
    assert not rows.between(300, 300 + need - 2).any() and rows.isin([299, 300 + need - 1]).sum() == 2


def test_stride_keeps_common_moments(market):
    panel, _ = make(small_config(data={"stride": 4}), market)
    assert (panel.samples["timestamp"].dt.hour % 4 == 0).all()
    assert len(panel) < 400


def test_a_batch_is_the_naive_copy(market):
    config = small_config()
    panel, arrays = make(config, market)
    channels, tda = arrays["nbeats"], arrays["tda"]
    index = torch.tensor([0, len(panel) - 1, 5, 400])
    batch = panel.gather(index)
    scale = np.array(panel.scalers["nbeats"]["scale"], np.float32)
    center = np.array(panel.scalers["nbeats"]["center"], np.float32)
    for i, sample in enumerate(index.tolist()):
        row = panel.samples["row"].iloc[sample]
        window = (channels[row - 7 : row + 1] - center) / scale
        window[:, :4] -= window[-1, 3]
        np.testing.assert_allclose(batch.inputs["nbeats"][i].numpy(), window.clip(-10, 10), atol=1e-6)
        expected = (tda[sample] - panel.scalers["tda"]["center"]) / panel.scalers["tda"]["scale"]
        np.testing.assert_allclose(batch.inputs["tda"][i].numpy(), expected.clip(-10, 10), atol=1e-5)
        assert batch.inputs["clock"][i].tolist() == arrays["clock"][sample].tolist()
        assert batch.trigger[i].item() == pytest.approx(panel.samples["trigger"].iloc[sample], nan_ok=True)
    assert batch.inputs["nbeats"].shape == (4, 8, 5)
    assert (batch.inputs["nbeats"][:, -1, 3] == 0).all(), "a window ends at 0"


def test_gathering_does_not_change_the_panel(market):
    panel, _ = make(small_config(), market)
    index = torch.arange(10)
    first, second = panel.gather(index), panel.gather(index)
    for a, b in zip(tensors(first), tensors(second), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def tensors(batch):
    """All of a batch."""
    return [*batch.inputs.values(), *batch[1:]]


def test_last_partial_batch_is_kept_and_order_stays(market):
    panel, _ = make(small_config(), market)
    index = panel.index("test")
    batches = list(panel.batches(index, 50))
    assert [len(b.trigger) for b in batches] == [50] * (len(index) // 50) + [len(index) % 50]
    torch.testing.assert_close(torch.cat([b.max_pct for b in batches]), panel.gather(index).max_pct)


def test_scalers_see_the_training_part_only(market):
    config = small_config()
    panel, arrays = make(config, market)
    later = (panel.samples["part"] != "train").to_numpy()
    spoiled = arrays["nbeats"].copy()
    last_train = panel.samples.loc[~later].groupby("symbol")["row"].max()
    for symbol, row in last_train.items():
        end = panel.samples.loc[panel.samples["symbol"] == symbol, "row"].max()
        spoiled[row + 1 : end + 1] = 1e6
    wrecked = {name: np.where(later[:, None], np.float32(1e6), arrays[name]) for name in ("tda", "complexity")}
    views = VIEWS.active(config)
    assert fit_scalers(views, arrays | {"nbeats": spoiled} | wrecked, panel.samples, config) == panel.scalers
    wrecked_train = np.where(later[:, None], arrays["tda"], np.float32(1e6))
    assert fit_scalers(views, arrays | {"tda": wrecked_train}, panel.samples, config) != panel.scalers
    assert panel.scalers["clock"] == {"center": [0.0, 0.0], "scale": [1.0, 1.0]}


def test_too_few_candles_say_how_many_are_needed():
    config = small_config()
    short = {"A": walk(needed_candles(config) - 1, 1)}
    labels = {"A": compute_labels(short["A"], config.labels, config.data.bar)}
    with pytest.raises(CmatError, match=rf"A: .* need {needed_candles(config)} without a gap"):
        build_samples(short, labels, config)


def test_a_part_without_triggers_is_an_error(market):
    config = small_config(labels={"threshold_pct": 50.0})
    labels = {s: compute_labels(c, config.labels, config.data.bar) for s, c in market.items()}
    with pytest.raises(CmatError, match="the train part has no triggers"):
        build_samples(market, labels, config)


def test_clock_is_the_fraction_of_day_and_week_in_its_zone():
    """2025-01-06 is a Monday; New York is five hours behind UTC in winter and four in summer."""
    times = pd.to_datetime(["2025-01-06 06:00", "2025-01-12 18:30", "2025-07-07 16:00"], utc=True)
    expected = [[0.25, 0.25 / 7], [18.5 / 24, (6 + 18.5 / 24) / 7], [16 / 24, 16 / 168]]
    np.testing.assert_allclose(clock_fractions(times, "UTC"), expected, rtol=1e-6)
    new_york = clock_fractions(times, "America/New_York")
    np.testing.assert_allclose(new_york[:, 0], [1 / 24, 13.5 / 24, 12 / 24], rtol=1e-6)
