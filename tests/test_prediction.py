"""Scores from ``best_model.pt`` alone: equal to those of the run, and the same one by one as all at once."""

import os

import numpy as np
import pandas as pd
import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.workflow.predictor import COLUMNS, Predictor

SCORES = ["raw_probability", "probability", "predicted_max_pct"]


@pytest.fixture(scope="module")
def everything(predictor, market):
    return predictor.scores(market)


def test_every_candle_with_its_whole_history_has_a_score(predictor, market, everything):
    assert list(everything.columns) == COLUMNS
    for symbol, frame in everything.groupby("symbol"):
        assert frame["timestamp"].tolist() == market[symbol].index[predictor.history - 1 :].tolist()
    assert everything["raw_probability"].nunique() > len(everything) / 2
    assert (everything["model"] == predictor.name).all()


def test_the_scores_of_the_run(everything, smoke):
    known = pd.read_parquet(smoke[0] / "run/predictions.parquet")
    both = known.merge(everything, on=["symbol", "timestamp"], suffixes=("", "_now"), validate="one_to_one")
    assert len(both) == len(known)
    for name, tolerance in zip(SCORES, (1e-6, 1e-5, 1e-6), strict=True):  # the slope of this calibration is near 50
        np.testing.assert_allclose(both[f"{name}_now"], both[name], rtol=0, atol=tolerance)


def test_only_the_rows_that_nothing_was_fitted_to_are_out_of_sample(everything, smoke):
    known = pd.read_parquet(smoke[0] / "run/predictions.parquet")
    both = known.merge(everything, on=["symbol", "timestamp"])
    assert (both["in_sample"] == (both["part"] != "test")).all()


def test_one_by_one_is_all_at_once(predictor, market, everything):
    """With nothing but the candles that the score declares to read, and with none that come later."""
    expected = everything.set_index(["symbol", "timestamp"])[SCORES]
    for symbol, candles in market.items():
        for end in range(predictor.history, len(candles), 97):
            window = candles.iloc[end - predictor.history : end]
            row = predictor.scores({symbol: window}).iloc[0]
            assert np.abs(row[SCORES] - expected.loc[(symbol, window.index[-1])]).max() < 1e-6


def test_the_anchor_of_the_prices_leaves_no_trace(predictor, market, everything):
    """A market that began at a thousandth of its price: in float32 its anchor would cost three digits."""
    symbol, candles = next(iter(market.items()))
    cheap = candles.copy()
    cheap.loc[cheap.index[:5], ["open", "high", "low", "close"]] /= 1000
    one = everything[everything["symbol"] == symbol].iloc[-1]
    other = predictor.scores({symbol: cheap}).iloc[-1]
    assert np.abs(other[SCORES] - one[SCORES]).max() < 1e-7


def test_from_a_moment_on(predictor, market, everything):
    newest = {symbol: candles.index[-3] for symbol, candles in market.items()}
    few = predictor.scores(market, newest)
    assert len(few) == 3 * len(market)
    late = everything[everything["timestamp"] >= min(newest.values())]
    np.testing.assert_allclose(few["raw_probability"], late["raw_probability"], atol=1e-6)
    assert predictor.scores(market, pd.Timestamp("2100-01-01", tz="UTC")).empty


def test_a_gap_before_the_newest_candle_is_told(predictor, market):
    symbol, candles = next(iter(market.items()))
    with pytest.warns(UserWarning, match=f"{symbol}: the newest candle has no score"):
        scores = predictor.scores({symbol: candles.drop(candles.index[-5])})
    assert scores["timestamp"].max() == candles.index[-6]


def test_a_young_symbol_does_not_stop_the_others(predictor, market):
    (old, candles), (young, few) = market.items()
    with pytest.warns(UserWarning, match=f"{young}: no score without {predictor.history} candles in a row"):
        scores = predictor.scores({old: candles, young: few.iloc[:50]})
    assert set(scores["symbol"]) == {old}
    with pytest.raises(CmatError, match=f"{young}: no score without"):
        predictor.scores({young: few.iloc[:50]})


def test_a_column_that_the_model_reads_is_missing(predictor, market):
    symbol, candles = next(iter(market.items()))
    with pytest.raises(CmatError, match="no column 'volume'"):
        predictor.scores({symbol: candles.drop(columns="volume")})


def test_a_score_that_is_not_finite_is_refused(predictor, market, monkeypatch):
    symbol, candles = next(iter(market.items()))
    scale = {"center": [0.0], "scale": [1e-300]}  # a number, but 0 in single precision
    sizes = {group: len(scaler["center"]) for group, scaler in predictor.scalers.items()}
    odd = {group: {key: value * sizes[group] for key, value in scale.items()} for group in sizes}
    monkeypatch.setattr(predictor, "scalers", odd)
    with pytest.raises(CmatError, match=f"{predictor.name} gives scores that are not finite"):
        predictor.scores({symbol: candles.iloc[-predictor.history :]})


def test_candles_of_another_length_are_refused(predictor, tmp_path):
    times = pd.date_range("2025-01-01", periods=300, freq="15min", tz="UTC")
    flat = dict.fromkeys(("open", "high", "low", "close"), 1.0)
    pd.DataFrame({"timestamp": times, **flat, "volume": 1.0}).to_csv(tmp_path / "X.csv", index=False)
    with pytest.raises(CmatError, match=r"X\.csv.*15 *min|X\.csv.*0:15"):
        predictor.market(predictor.data(str(tmp_path)))


@pytest.mark.parametrize(("written", "left"), [("11:30", 2), ("12:00", 3)])
def test_a_candle_that_was_not_over_when_its_file_was_written_is_left_out(predictor, tmp_path, written, left):
    times = pd.date_range("2025-01-01 09:00", periods=3, freq="1h", tz="UTC")
    flat = dict.fromkeys(("open", "high", "low", "close"), 1.0)
    path = tmp_path / "X.csv"
    pd.DataFrame({"timestamp": times, **flat, "volume": 1.0}).to_csv(path, index=False)
    when = pd.Timestamp(f"2025-01-01 {written}", tz="UTC").timestamp()
    os.utime(path, (when, when))
    assert len(predictor.market(predictor.data(str(tmp_path)))["X"]) == left


def test_a_forming_candle_of_a_file_with_a_time_to_come(predictor, tmp_path):
    times = pd.date_range(end=pd.Timestamp.now("UTC").floor("h"), periods=10, freq="1h")
    flat = dict.fromkeys(("open", "high", "low", "close"), 1.0)
    path = tmp_path / "X.csv"
    pd.DataFrame({"timestamp": times, **flat, "volume": 1.0}).to_csv(path, index=False)
    os.utime(path, (4e9, 4e9))
    assert len(predictor.market(predictor.data(str(tmp_path)))["X"]) == 9


def test_symbols_of_the_synthetic_market(predictor):
    assert list(predictor.market(predictor.data(symbols=["SYNB"]))) == ["SYNB"]
    with pytest.raises(CmatError, match="the synthetic market has no 'SYNX'"):
        predictor.market(predictor.data(symbols=["SYNX"]))


def test_data_of_the_run_or_of_a_folder(predictor, tmp_path):
    assert predictor.data().data_dir is None
    other = predictor.data(str(tmp_path), ["A"])
    assert (other.data_dir, other.symbols, other.timeframe) == (str(tmp_path), ["A"], "1h")


def test_no_gpu(smoke):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(CmatError, match="torch sees no GPU"):
        Predictor(smoke[0] / "run/models/cross_modal_attention/best_model.pt", "cuda")


def test_every_candle_can_be_scored_whatever_the_stride_of_the_training(predictor):
    assert load_config("params/smoke.yaml").data.stride == 4
    assert predictor.config.data.stride == 1
