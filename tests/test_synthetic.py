"""The synthetic market: reproducible candles, an exact oracle, and an interaction that neither state shows alone."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from sklearn.metrics import roc_auc_score

from cmat_lib.base.errors import CmatError
from cmat_lib.data.synthetic import synthetic_market

HOURLY = {"symbols": 6, "days": 360, "timeframe": "1h", "horizon": 4, "seed": 3}
OHLC = ["open", "high", "low", "close"]


def spike_within(frame: pd.DataFrame, horizon: int) -> np.ndarray:
    """Whether a squeeze happens in candles t+1 ... t+H, for all rows that have H candles after them."""
    total = np.concatenate([[0.0], frame["spike"].cumsum().to_numpy()])
    return total[1 + horizon :] > total[1:-horizon]


def rise_pct(frame: pd.DataFrame, horizon: int) -> np.ndarray:
    """Largest rise of the next H highs over the close, in percent."""
    ahead = [frame["high"].shift(-step) for step in range(1, horizon + 1)]
    return (100 * (pd.concat(ahead, axis=1).max(axis=1) / frame["close"] - 1)).to_numpy()[:-horizon]


def pooled(market: dict, horizon: int, column: str) -> np.ndarray:
    return np.concatenate([frame[column].to_numpy()[:-horizon] for frame in market.values()])


@pytest.fixture(scope="module")
def market():
    return synthetic_market(**HOURLY)


@pytest.fixture(scope="module")
def outcome(market):
    return np.concatenate([spike_within(frame, 4) for frame in market.values()])


@pytest.mark.parametrize(("timeframe", "rows"), [("1h", 720), ("15m", 2880), ("4h", 180)])
def test_frames_are_consistent_candles(timeframe, rows):
    frames = synthetic_market(symbols=2, days=30, timeframe=timeframe, horizon=4, seed=1)
    assert list(frames) == ["SYNA", "SYNB"]
    for frame in frames.values():
        assert frame.index.name == "timestamp" and str(frame.index.tz) == "UTC"
        assert frame.index[0] == pd.Timestamp("2024-01-01", tz="UTC") and len(frame) == rows
        assert (frame.index.to_series().diff().dropna() == pd.Timedelta(timeframe)).all()
        assert (frame.dtypes == np.float64).all() and np.isfinite(frame.to_numpy()).all()
        assert (frame["high"] >= frame[OHLC].max(axis=1)).all() and (frame["low"] <= frame[OHLC].min(axis=1)).all()
        assert (frame["low"] > 0).all() and (frame["volume"] > 0).all()
        np.testing.assert_array_equal(frame["open"].to_numpy()[1:], frame["close"].to_numpy()[:-1])


def test_the_seed_decides_everything(market):
    assert_frame_equal(market["SYNC"], synthetic_market(**HOURLY)["SYNC"], check_exact=True)
    other_seed = synthetic_market(**HOURLY | {"seed": 4})["SYNC"]
    for other in (other_seed, market["SYND"]):
        for column in ("close", "volume", "pattern"):
            assert abs(np.corrcoef(market["SYNC"][column].diff()[1:], other[column].diff()[1:])[0, 1]) < 0.1


def test_more_days_and_symbols_append_and_horizon_changes_the_oracle_alone(market):
    short = synthetic_market(**HOURLY | {"days": 90, "symbols": 2})["SYNB"]
    assert_frame_equal(market["SYNB"].iloc[: len(short)], short, check_exact=True)
    near = synthetic_market(**HOURLY | {"horizon": 1})["SYNB"]
    same = near.columns.difference(["oracle_probability"])
    assert_frame_equal(market["SYNB"][same], near[same], check_exact=True)
    assert (near["oracle_probability"] < market["SYNB"]["oracle_probability"]).all()


def test_oracle_of_one_candle_is_the_two_step_sum(market):
    """H = 1 by hand from the documented rates: transition of S and R, then a squeeze."""
    frame = synthetic_market(**HOURLY | {"horizon": 1})["SYNA"]
    flip, leave = 0.5 * (1 - np.exp(-2 / 42)), 1 - np.exp(-4 / (50 * 24))
    squeeze = {(1, 1): 0.060, (-1, -1): 0.036, (1, -1): 0.0025, (-1, 1): 0.0025}
    for s, r in squeeze:
        ahead = {r: 1 - np.exp(-squeeze[s, r]), -r: 1 - np.exp(-squeeze[s, -r])}
        turned = {r: 1 - np.exp(-squeeze[-s, r]), -r: 1 - np.exp(-squeeze[-s, -r])}
        stay = (1 - flip) * ahead[r] + flip * turned[r]
        last_stage = (1 - leave) * stay + leave * ((1 - flip) * ahead[-r] + flip * turned[-r])
        seen = frame.loc[(frame["pattern"] == s) & (frame["regime"] == r), "oracle_probability"].unique()
        nearest = np.abs(seen[:, None] - [stay, last_stage]).min(axis=1)
        assert len(seen) and nearest.max() < 1e-12


@pytest.mark.parametrize(("timeframe", "horizon", "days"), [("1h", 4, 360), ("15m", 16, 90)])
def test_oracle_is_calibrated(timeframe, horizon, days):
    """Given the state, outcomes of windows that do not overlap are a martingale around the oracle.

    Their sum then has the variance sum(p (1 - p)) exactly; four of its roots fail by chance once in 16,000.
    """
    frames = synthetic_market(symbols=6, days=days, timeframe=timeframe, horizon=horizon, seed=8)
    rows = [slice(0, len(frame) - horizon, horizon) for frame in frames.values()]
    happened = np.concatenate([spike_within(f, horizon)[r] for f, r in zip(frames.values(), rows, strict=True)])
    truth = np.concatenate([f["oracle_probability"].to_numpy()[r] for f, r in zip(frames.values(), rows, strict=True)])
    edges = [0.0, 0.05, 0.15, 1.0]  # disagreeing states, both -1, both +1
    for low, high in pairwise(edges):
        chosen = (truth >= low) & (truth < high)
        spread = np.sqrt((truth * (1 - truth))[chosen].sum())
        assert spread > 3, "too few events for the bound to mean anything"
        assert abs((happened - truth)[chosen].sum()) < 4 * spread


def test_squeezes_are_the_one_cause_of_triggers(market, outcome):
    trigger = np.concatenate([rise_pct(frame, 4) for frame in market.values()]) >= 3
    assert not (outcome & ~trigger).any()
    assert (trigger & ~outcome).mean() < 0.003
    assert 0.06 < trigger.mean() < 0.10


def test_only_both_states_together_tell(market, outcome):
    s, r, truth = (pooled(market, 4, column) for column in ("pattern", "regime", "oracle_probability"))
    assert 0.74 < roc_auc_score(outcome, truth) < 0.82
    assert roc_auc_score(outcome, s * r) > 0.70
    for single in (s, r):
        assert 0.5 < roc_auc_score(outcome, single) < 0.59  # a slope to learn from; 0.51 to 0.58 over seeds


def test_counting_recent_squeezes_tells_little(market, outcome):
    count = np.concatenate([frame["spike"].rolling(24, min_periods=1).sum()[:-4] for frame in market.values()])
    assert abs(roc_auc_score(outcome, count) - 0.5) < 0.06


def test_pattern_shows_in_wicks_and_not_in_closes(market):
    for frame in market.values():
        log = np.log(frame[OHLC])
        wicks = (log["open"] + log["close"] - log["high"] - log["low"]).where(frame["spike"] == 0)
        settled = frame["pattern"].rolling(8).sum().abs() == 8
        assert (np.sign(wicks.rolling(8, min_periods=1).mean()) == frame["pattern"])[settled].mean() > 0.995
        move = log["close"].diff().shift(-1)  # of the next candle, then its size
        assert abs(move.corr(frame["pattern"])) < 0.04 and abs(move.abs().corr(frame["pattern"])) < 0.12


def test_regime_shows_in_a_week_and_hardly_in_a_day(market):
    day_size, turning = {1.0: [], -1.0: []}, {1.0: [], -1.0: []}
    for frame in market.values():
        close = np.log(frame["close"])
        settled = frame["regime"].rolling(168).sum().abs() == 168
        day, swing = close.diff(24), close.diff(36)
        for regime in day_size:
            chosen = settled & (frame["regime"] == regime)
            day_size[regime].append(day[chosen].abs())
            turning[regime].append((swing * swing.shift(36))[chosen])
    day_size = {regime: pd.concat(parts).mean() for regime, parts in day_size.items()}
    assert abs(day_size[1.0] / day_size[-1.0] - 1) < 0.2
    assert pd.concat(turning[1.0]).mean() < -2e-4 and pd.concat(turning[-1.0]).mean() > 1e-4


def test_returns_have_heavy_tails_clusters_and_a_season(market):
    for frame in market.values():
        move = np.log(frame["close"]).diff().dropna()
        size, hour = move.abs(), move.index.hour
        assert move.kurt() > 1  # excess, 0 for a normal
        assert size[hour == 14].mean() / size[hour == 2].mean() > 1.15
        volume = frame["volume"].groupby(frame.index.hour).median()
        assert volume[14] / volume[2] > 2
        unseasonal = size / size.groupby(hour).transform("mean")
        # Independent sizes would give 0 with a standard error of 0.005.
        assert np.mean([unseasonal.autocorr(lag) for lag in (4, 8, 12, 24)]) > 0.02


def test_without_the_plant_nothing_can_be_known(market, outcome):
    flat = synthetic_market(**HOURLY | {"plant": False})
    truth = pooled(flat, 4, "oracle_probability")
    np.testing.assert_allclose(truth, 1 - np.exp(-0.0182 * 4), rtol=1e-12)
    happened = np.concatenate([spike_within(frame, 4) for frame in flat.values()])
    assert abs(happened.mean() / pooled(market, 4, "oracle_probability").mean() - 1) < 0.1
    s, r = pooled(flat, 4, "pattern"), pooled(flat, 4, "regime")
    count = np.concatenate([frame["spike"].rolling(24, min_periods=1).sum()[:-4] for frame in flat.values()])
    for score in (s, r, s * r, count):
        assert abs(roc_auc_score(happened, score) - 0.5) < 0.03
    assert_frame_equal(flat["SYNA"][["close"]], market["SYNA"][["close"]], check_exact=True)


def test_durations_are_in_hours_whatever_the_candle():
    quarter = synthetic_market(symbols=6, days=120, timeframe="15m", horizon=16, seed=2)
    hourly = synthetic_market(symbols=6, days=120, timeframe="1h", horizon=4, seed=2)
    levels = [
        np.sort(
            [pooled(m, h, "oracle_probability")[pooled(m, h, "oracle_probability") > c].mean() for c in (0.05, 0.15)]
        )
        for m, h in ((quarter, 16), (hourly, 4))
    ]
    np.testing.assert_allclose(*levels, rtol=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbols": 0}, "symbols = 0"),
        ({"symbols": 27}, "1 to 26"),
        ({"days": 0}, "days = 0"),
        ({"days": 2.5}, "days = 2.5"),
        ({"horizon": 0}, "horizon = 0"),
        ({"horizon": True}, "horizon = True"),
        ({"seed": -1}, "seed = -1"),
        ({"timeframe": "1d"}, "timeframe '1d'"),
        ({"timeframe": "8h"}, "at most 4 hours"),
        ({"timeframe": "7m"}, "divide a day"),
        ({"timeframe": "0h"}, "timeframe '0h'"),
        ({"timeframe": 60}, "timeframe 60"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(CmatError, match=message):
        synthetic_market(**HOURLY | change)
