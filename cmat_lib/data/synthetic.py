"""A seeded synthetic market with one planted interaction, and the true probability that goes with it.

Two hidden states of value +1 or -1 move on their own clocks:

* the *pattern* S (flips every two days or so) decides whether candles carry long lower wicks (+1) or long upper wicks
  (-1). It shows in the OHLCV look-back window and nowhere else, because the closes know nothing of it;
* the *regime* R (lasts about seven weeks) decides how price swings of equal size and length follow each other. In
  R = +1 they alternate, so the delay-embedded log close runs round a loop; in R = -1 they mostly continue and the loop
  does not close. A swing is longer than a 24-hour window, so R shows in the 7-day topology and little in the last day.

A *squeeze* is a candle whose high spikes by 5 to 8 % and fades before the close, so that closes keep no trace of it.
It is likely when S and R agree and rare when they do not: one state says little, both say all there is. Other moves
hardly ever reach 3 % within 4 hours (about 1 row in 1000), so with that label a squeeze is the one cause of a trigger.

Two departures from a perfect exclusive-or are deliberate. Squeezes are more frequent when both states are +1 than when
both are -1: each state alone then ranks slightly better than chance, without which gradient descent has no slope to
start on. And a squeeze tends to flip S (the pattern is exhausted), so that counting recent squeezes says little; the
price is a correlation of about -0.25 between S and R. What remains: whoever sees a past squeeze *and* S at that time
can infer R from candles alone, as with any persistent state whose effects are seen. A learner of the OHLCV window
alone therefore gets part of the way; how far is measured in ``tests/test_demo_market.py``.

Closes are swings plus mean-reverting noise with Student-t shocks, log-normal stochastic volatility (Taylor 1986,
*Modelling Financial Time Series*, ch. 3) and an intraday season. Durations are in hours: they hold for any candle.
"""

import math
import re

import numpy as np
import pandas as pd
from scipy.signal import lfilter
from scipy.special import ndtri

from cmat_lib.base.errors import CmatError

START = "2024-01-01"  # open of the first candle of every series, UTC

_MAX_SYMBOLS = 26  # SYNA ... SYNZ
_MAX_CANDLE_MINUTES = 240  # longer candles cannot show the pattern before it flips

# Hidden states and squeezes.
_PATTERN_HOURS = 42.0  # mean time between spontaneous flips of S
_REGIME_HOURS = 50 * 24.0  # mean duration of R
_REGIME_STAGES = 4  # Erlang durations: few regimes are shorter than the 7 days that are needed to see them
_SQUEEZES_PER_HOUR = np.array([[0.060, 0.0025], [0.0025, 0.036]])  # rows S = +1, -1; columns R = +1, -1
_SQUEEZES_PER_HOUR_FLAT = 0.0182  # same share of triggers within 4 hours without a planted interaction
_EXHAUSTION = 0.4  # probability that a squeeze flips S
_SQUEEZE_LOG_RISE = (0.05, 0.08)  # of the high over the open

# Closes.
_SWING_HOURS = (34.0, 38.0)
_SWING_LOG_SIZE = (0.038, 0.042)
_TREND_LOGIT = 1.7  # log-odds that a swing of R = -1 continues the one before, at the starting level
_LEVEL_SCALE = 0.12  # change of log price that moves these log-odds by one, so that prices stay near their start
_NOISE_HOURS = 8.0  # reversion time of the noise around the swings
_NOISE_PER_SQRT_HOUR = 0.0022
_TAIL_DEGREES = 5.0
_LOG_VOLATILITY_HOURS = 48.0
_LOG_VOLATILITY_STD = 0.3
_SEASON_LOG_VOLATILITY = 0.25
_SEASON_PEAK_HOUR = 14.0  # UTC

# Wicks (log price, for a candle of one hour or more) and volume (log units).
_LONG_WICK = 0.0060
_SHORT_WICK = 0.0012
_WICK_LOG_STD = 0.5
_MAX_WICK = 0.011
_SEASON_LOG_VOLUME = 0.6
_LOG_VOLUME = 8.0
_LOG_VOLUME_STD = 0.35


def synthetic_market(
    *, symbols: int, days: int, timeframe: str, horizon: int, seed: int, plant: bool = True
) -> dict[str, pd.DataFrame]:
    """Candles of a synthetic market whose triggers hang on a short pattern and a slow regime together.

    There are 1 to 26 independent `symbols`, SYNA, SYNB, ..., of so many `days` from 2024-01-01 UTC. A `timeframe` such
    as ``"15m"`` or ``"1h"`` is of minutes or hours that divide a day, at most 4 hours. A series depends on `seed`, its
    number among the symbols, `timeframe` and `plant`; more days or symbols leave what was there unchanged. Without
    `plant` squeezes come at one constant rate, so that nothing can be predicted; their share within 4 hours and all
    other properties of the candles stay.

    Candles (index `timestamp`) come with `oracle_probability`, the exact P(a squeeze in candles t+1 ... t+H | S, R at
    the close of t), where H is `horizon`, and the hidden `pattern` (S), `regime` (R) and `spike` (1 on a squeeze), all
    float64. A model must see the candles only. Raises a CmatError that names an argument which is out of its range.
    """
    match = re.fullmatch(r"([1-9]\d*)([mh])", str(timeframe))
    minutes = int(match[1]) * {"m": 1, "h": 60}[match[2]] if match else 0
    if not 1 <= minutes <= _MAX_CANDLE_MINUTES or 1440 % minutes:
        allowed = "minutes or hours that divide a day, at most 4 hours, such as '15m' or '1h'"
        raise CmatError(f"timeframe {timeframe!r}: give {allowed}")
    whole = {"symbols": (symbols, 1), "days": (days, 1), "horizon": (horizon, 1), "seed": (seed, 0)}
    for name, (value, least) in whole.items():
        most = _MAX_SYMBOLS if name == "symbols" else math.inf
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or not least <= value <= most:
            allowed = f"{least} to {most}" if name == "symbols" else f"at least {least}"
            raise CmatError(f"{name} = {value!r}: give a whole number, {allowed}")
    hours = minutes / 60
    rates = _SQUEEZES_PER_HOUR if plant else np.full((2, 2), _SQUEEZES_PER_HOUR_FLAT)
    chance = 1 - np.exp(-rates * hours)  # (2, 2) per candle
    count = round(days * 24 / hours)
    streams = (np.random.SeedSequence([seed, number]) for number in range(symbols))
    return {f"SYN{chr(ord('A') + n)}": _series(count, hours, horizon, chance, s) for n, s in enumerate(streams)}


def _series(count: int, hours: float, horizon: int, chance: np.ndarray, seed: np.random.SeedSequence) -> pd.DataFrame:
    # One generator per ingredient: a longer series then only appends to each of them.
    state_rng, swing_rng, volatility_rng, noise_rng, candle_rng, volume_rng = map(np.random.default_rng, seed.spawn(6))
    time = pd.date_range(START, periods=count, freq=pd.Timedelta(hours=hours), tz="UTC", name="timestamp")
    season = np.cos(2 * np.pi * (np.arange(count) * hours - _SEASON_PEAK_HOUR) / 24)
    pattern, stage, spike = _hidden_path(count, hours, chance, state_rng)
    regime = np.where(stage < _REGIME_STAGES, 1.0, -1.0)
    shock_std = _LOG_VOLATILITY_STD * np.sqrt(1 - np.exp(-2 * hours / _LOG_VOLATILITY_HOURS))
    slow = _reverting(volatility_rng.normal(0, shock_std, count), hours, _LOG_VOLATILITY_HOURS)
    volatility = np.exp(slow + _SEASON_LOG_VOLATILITY * season)
    shocks = noise_rng.standard_t(_TAIL_DEGREES, count) * np.sqrt((_TAIL_DEGREES - 2) / _TAIL_DEGREES)  # variance 1
    noise = _reverting(_NOISE_PER_SQRT_HOUR * np.sqrt(hours) * volatility * shocks, hours, _NOISE_HOURS)
    log_close = np.log(100.0) + _swings(regime, hours, swing_rng) + noise
    columns = _candles(log_close, pattern, spike, hours, candle_rng)
    level, shocks = volume_rng.normal(), volume_rng.normal(0, _LOG_VOLUME_STD, count)
    columns["volume"] = np.exp(_LOG_VOLUME + level + _SEASON_LOG_VOLUME * season + 0.5 * np.log(volatility) + shocks)
    columns["oracle_probability"] = _oracle(hours, horizon, chance)[(pattern < 0).astype(int), stage]
    return pd.DataFrame(columns | {"pattern": pattern, "regime": regime, "spike": spike}, index=time)


def _steps(hours: float) -> tuple[float, float]:
    """Per-candle probabilities that S differs from the candle before and that R enters its next Erlang stage."""
    flip = 0.5 * (1 - math.exp(-2 * hours / _PATTERN_HOURS))
    return flip, 1 - math.exp(-hours * _REGIME_STAGES / _REGIME_HOURS)


def _hidden_path(
    count: int, hours: float, chance: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """S (+1, -1), stage of R (0 ... 2 * stages - 1, the first half is R = +1) and squeeze (0, 1), each (count,)."""
    flip, advance = _steps(hours)
    rates, stages = chance.tolist(), 2 * _REGIME_STAGES
    pattern, stage = int(rng.choice((-1, 1))), int(rng.integers(stages))
    path = np.empty((count, 3))
    for row, (u_flip, u_advance, u_spike, u_exhaust) in enumerate(rng.random((count, 4)).tolist()):
        pattern = -pattern if u_flip < flip else pattern
        stage = (stage + (u_advance < advance)) % stages
        spike = u_spike < rates[pattern < 0][stage >= _REGIME_STAGES]
        pattern = -pattern if spike and u_exhaust < _EXHAUSTION else pattern
        path[row] = pattern, stage, spike
    return path[:, 0], path[:, 1].astype(int), path[:, 2]


def _oracle(hours: float, horizon: int, chance: np.ndarray) -> np.ndarray:
    """P(at least one squeeze in the next H candles) by state, (2, 2 * stages), by powers of the squeeze-free chain.

    Exhaustion acts after a squeeze only, so it does not enter the probability that there is none.
    """
    flip, advance = _steps(hours)
    move_pattern = np.array([[1 - flip, flip], [flip, 1 - flip]])
    unit = np.eye(2 * _REGIME_STAGES)
    move_stage = (1 - advance) * unit + advance * np.roll(unit, 1, axis=1)
    chance_by_state = np.repeat(chance, _REGIME_STAGES, axis=1)  # (2, 2 * stages)
    quiet_step = np.kron(move_pattern, move_stage) * (1 - chance_by_state.ravel())
    quiet = np.linalg.matrix_power(quiet_step, horizon).sum(axis=1)
    return (1 - quiet).reshape(chance_by_state.shape)


def _swings(regime: np.ndarray, hours: float, rng: np.random.Generator) -> np.ndarray:
    """Log price of half-cosine swings, (count,): alternating in R = +1, mostly continuing in R = -1."""
    count = len(regime)
    pivots, levels, direction = [-rng.uniform(0, _SWING_HOURS[0])], [0.0], float(rng.choice((-1, 1)))
    for u_turn, u_hours, u_size in rng.random((int(count * hours / _SWING_HOURS[0]) + 2, 3)):
        now = regime[min(max(int(pivots[-1] / hours), 0), count - 1)]
        keep = 1 / (1 + np.exp(direction * levels[-1] / _LEVEL_SCALE - _TREND_LOGIT))
        direction = -direction if now > 0 or u_turn > keep else direction
        levels.append(levels[-1] + direction * np.interp(u_size, (0, 1), _SWING_LOG_SIZE))
        pivots.append(pivots[-1] + np.interp(u_hours, (0, 1), _SWING_HOURS))
    time, pivot, level = np.arange(count) * hours, np.array(pivots), np.array(levels)
    swing = np.searchsorted(pivot, time, side="right") - 1  # (count,)
    phase = (time - pivot[swing]) / np.diff(pivot)[swing]
    return level[swing] + np.diff(level)[swing] * (1 - np.cos(np.pi * phase)) / 2


def _reverting(shocks: np.ndarray, hours: float, reversion: float) -> np.ndarray:
    """First-order autoregression that forgets by a factor e in `reversion` hours."""
    return lfilter([1.0], [1.0, -np.exp(-hours / reversion)], shocks)


def _candles(
    log_close: np.ndarray, pattern: np.ndarray, spike: np.ndarray, hours: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Open, high, low, close, each (count,): S lengthens one wick, a squeeze replaces the upper one."""
    draws = rng.random((len(log_close), 3))
    log_open = np.append(log_close[:1], log_close[:-1])
    typical = np.where(pattern[:, None] * [-1, 1] > 0, _LONG_WICK, _SHORT_WICK)  # (count, 2) upper, lower
    wick = np.minimum(typical * np.exp(_WICK_LOG_STD * ndtri(draws[:, :2])), _MAX_WICK) * np.sqrt(min(hours, 1.0))
    top, bottom = np.maximum(log_open, log_close), np.minimum(log_open, log_close)
    squeezed = np.maximum(log_open + np.interp(draws[:, 2], (0, 1), _SQUEEZE_LOG_RISE), top)
    log_high = np.where(spike > 0, squeezed, top + wick[:, 0])
    columns = {"open": log_open, "high": log_high, "low": bottom - wick[:, 1], "close": log_close}
    return {name: np.exp(values) for name, values in columns.items()}
