"""Markets of every kind through stages 01 and 02: bar sizes from a minute to a day, sessions, one symbol and ten."""

import numpy as np
import pandas as pd
import pytest
from slim import SLIM
from test_sessions import NEW_YORK, forex_index, stock_index

from cmat_lib.config import load_config
from cmat_lib.data.sources import files, report
from cmat_lib.views import VIEWS
from cmat_lib.views.samples import needed_candles
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.common import load_panel
from cmat_lib.workflow.stages.data import audit_candles, prepare_data, read_candles
from cmat_lib.workflow.stages.features import build_features

WINDOW = 64
CHANNELS = ["log_open", "log_high", "log_low", "log_close", "volume_zscore:48", "volume_ratio:24", "mfi", "roc:12"]


def market(index: pd.DatetimeIndex, bar: pd.Timedelta, seed: int, taker: bool = False) -> pd.DataFrame:
    """Candles whose volatility is that of their length: 60 % a year."""
    rng = np.random.default_rng(seed)
    sigma = 0.6 * np.sqrt(bar / pd.Timedelta(days=365))
    close = 100 * np.exp(np.cumsum(sigma * rng.standard_t(4, len(index)) / np.sqrt(2)))
    opened = np.append(close[0], close[:-1])
    wick = np.exp(sigma * rng.exponential(0.3, size=(2, len(index))))
    low, high = np.minimum(opened, close) / wick[0], np.maximum(opened, close) * wick[1]
    volume = rng.lognormal(3, 1, len(index))
    table = pd.DataFrame({"open": opened, "high": high, "low": low, "close": close, "volume": volume}, index=index)
    if taker:
        shares = {"taker_buy_volume": volume * rng.uniform(0.3, 0.7, len(index)), "trades": np.ceil(volume)}
        table = table.assign(**shares)
    return table.rename_axis("timestamp")


def stages(folder, index, symbols=1, taker=False, **data):
    """Stages 01 and 02 on files of `symbols`; returns config, run and samples."""
    changes = {
        "run_dir": str(folder / "run"),
        "data": {"data_dir": str(folder / "candles"), "channels": CHANNELS, "sequence_length": 16, "stride": 5, **data},
        "labels": {"mode": "sigma", "horizon": 6, "threshold_sigma": 1.0, "volatility_window": 32},
        "tda": {"window_size": WINDOW, "time_delay": 4},
        "cache": {"jobs": 1, "dir": str(folder / "cache")},
        "complexity": {"window_size": WINDOW},
    }
    config = load_config(changes=changes, base={"fusion": SLIM["fusion"], "model": SLIM["model"]})
    (folder / "candles").mkdir()
    for number in range(symbols):
        table = market(index, config.data.bar, number, taker)
        table.reset_index().to_parquet(folder / "candles" / f"S{number}_{config.data.timeframe}.parquet")
    run = Run(config, "01_data_prep").begin()
    prepare_data(config, run)
    run.finish()
    run = Run(config, "02_tda_cache").begin()
    samples = build_features(config, run, progress=False)
    return config, run, samples


def check(config, run, samples):
    """Sizes follow from the parameters, nothing is missing, and no time is shared that must not be."""
    assert VIEWS.look_back(config) == max(16 - 1 + 48, WINDOW) and needed_candles(config) == WINDOW + 6
    panel = load_panel(config, run)
    batch = panel.gather(panel.index("train")[:32])
    assert batch.inputs["nbeats"].shape == (32, 16, len(config.data.channel_names))
    assert all(np.isfinite(x.numpy()).all() for x in (*batch.inputs.values(), *batch.targets))
    assert len(np.unique(batch.inputs["tda"].numpy(), axis=0)) > 25 and 0.02 < np.nanmean(samples["trigger"]) < 0.7
    labelled = samples.dropna(subset="trigger")
    assert (labelled["input_start"] < labelled["timestamp"]).all()
    assert (labelled["label_end"] > labelled["close_time"]).all()
    return (labelled["label_end"] - labelled["close_time"]) / config.data.bar


BARS = {"1m": 3000, "5m": 2500, "1h": 2500, "4h": 2000, "1d": 2000}


@pytest.mark.parametrize("timeframe", BARS)
def test_bar_sizes(tmp_path, timeframe):
    bar = load_config(changes={"data": {"timeframe": timeframe}}).data.bar
    index = pd.date_range("2015-01-01", periods=BARS[timeframe], freq=bar, tz="UTC")
    found = stages(tmp_path, index, timeframe=timeframe)
    assert (check(*found) == 6).all()
    rows = found[2]["local_row"].to_numpy()
    first = -(-(WINDOW - 1 + index[0].value // bar.value) // 5) * 5 - index[0].value // bar.value
    assert rows.tolist() == list(range(first, BARS[timeframe], 5))


@pytest.mark.parametrize("symbols", [1, 10])
def test_one_symbol_and_ten(tmp_path, symbols):
    index = pd.date_range("2024-01-01", periods=1200, freq="15min", tz="UTC")
    config, run, samples = stages(tmp_path, index, symbols)
    check(config, run, samples)
    assert samples["symbol"].nunique() == symbols
    assert samples.groupby("symbol").size().nunique() == 1


def test_taker_columns(tmp_path):
    index = pd.date_range("2024-01-01", periods=1500, freq="15min", tz="UTC")
    channels = [*CHANNELS[:4], "obv_change", "mfi"]
    config, run, _ = stages(tmp_path, index, taker=True, volume_channels="taker", channels=channels)
    panel = load_panel(config, run)
    assert config.data.channel_names[-2:] == ["taker_imbalance", "trade_size"]
    assert np.isfinite(panel.gather(panel.index("test")[:9]).inputs["nbeats"].numpy()).all()


@pytest.mark.parametrize("timeframe", ["15m", "1h", "1d"])
def test_stock_sessions(tmp_path, timeframe):
    if timeframe == "1d":
        index = pd.bdate_range("2018-01-01", periods=1500, tz="UTC").delete([100, 400, 401])
    else:
        index = stock_index(bar={"15m": "15min", "1h": "1h"}[timeframe])
    zone = "UTC" if timeframe == "1d" else NEW_YORK
    found = stages(tmp_path, index, 2, timeframe=timeframe, sessions="join", clock_zone=zone)
    bars = check(*found)
    assert (bars >= 6).all() and (bars > 6).mean() > 0.2  # the label of an afternoon ends on the next day
    assert len(found[2]) > 2 * (len(index) - WINDOW) // 5 - 4
    audited = audit_candles(found[0], read_candles(found[0]))
    assert (audited["regular_closures"] == audited["gaps"]).all() and (audited["gaps"] > 100).all()


def test_forex(tmp_path):
    index = forex_index("30min")
    found = stages(tmp_path, index, 2, timeframe="30m", sessions="join", clock_zone=NEW_YORK)
    check(*found)
    assert len(found[2]) > 2 * (len(index) - WINDOW) // 5 - 4


def test_joined_and_continuous_sessions_have_caches_of_their_own(tmp_path, caplog):
    """Forex windows of both kinds start at the same candle: one must not take the other's for damaged."""
    index = forex_index("30min", weeks=10)
    config, run, _ = stages(tmp_path, index, timeframe="30m", sessions="join", clock_zone=NEW_YORK)
    caplog.clear()
    data = {**config.data.model_dump(), "sessions": "continuous"}
    other = load_config(changes={"data": data}, base=config.model_dump())
    run = Run(other, "01_data_prep").begin()
    with pytest.warns(UserWarning, match="The market closes"):
        prepare_data(other, run)
    run.finish()
    build_features(other, Run(other, "02_tda_cache").begin(), progress=False)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(list((tmp_path / "cache").glob("tda_*"))) == 2


def test_page_01_parses_each_file_once(tmp_path, monkeypatch):
    index = pd.date_range("2024-01-01", periods=1200, freq="15min", tz="UTC")
    config, _, _ = stages(tmp_path, index, 2)
    parsed, parse = [], files.read_candles
    monkeypatch.setattr(files, "read_candles", lambda path, *rest: parsed.append(path.name) or parse(path, *rest))
    raw = read_candles(config)
    shown, found = report.understood(config.data, raw), audit_candles(config, raw)
    prepared = prepare_data(config, Run(config, "01_data_prep").begin(), raw)
    assert sorted(parsed) == ["S0_15m.parquet", "S1_15m.parquet"]
    pd.testing.assert_frame_equal(shown, report.understood(config.data))
    assert found["rows"].tolist() == [1200, 1200] and list(prepared["market"]) == ["S0", "S1"]
    assert set(raw["S0"].attrs) > {"source", "unread"}, "the cell of the audit can be run again"
