"""Markets at the edge of what numbers hold: everything stays finite, and float32 stays near float64.

A market is drawn from pieces: a walk, constant prices, a price that knows two ticks, falls of 90 % and rises of 900 %
in one candle, wild wicks, no volume, one volume, volumes of 1e18, halts of days (a gap) and halts with flat candles;
at price levels from 1e-8 to 1e8.
"""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slim import SLIM
from torch.nn import functional as F

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config, load_config, merge
from cmat_lib.config.schema import AUXILIARY_TARGETS
from cmat_lib.data.channels import CHANNELS, compute_channels
from cmat_lib.data.complexity import complexity_features, log_ranges
from cmat_lib.data.labels import compute_labels
from cmat_lib.data.splits import PARTS
from cmat_lib.models import build_model
from cmat_lib.tda.features import tda_features
from cmat_lib.training.objective import Objective
from cmat_lib.training.optimisation import build_loss
from cmat_lib.views import VIEWS
from cmat_lib.views.clock import clock_fractions
from cmat_lib.views.panel import Panel
from cmat_lib.views.samples import sample_rows, unlabelled_samples
from cmat_lib.views.scaling import fit_scalers

BAR = pd.Timedelta("1h")
EPS = float(np.finfo(np.float32).eps)  # 2^-23; a rounding is half of it
PIECES = ("walk", "flat", "tick", "fall", "rise", "wick", "silent", "one volume", "huge", "halt", "gap")
# All channels, with windows that short markets can fill.
SHORT = {"volume_zscore": "volume_zscore:40", "volume_ratio": "volume_ratio:24", "trade_size": "trade_size:24"}
NAMES = [SHORT.get(name, name) for name in CHANNELS]
CONFIG = load_config(
    base=merge(
        SLIM,
        {
            "data": {"channels": NAMES},
            "labels": {"horizon": 4},
            "tda": {"window_size": 48, "time_delay": 3},
            "complexity": {"window_size": 48, "ranges": [1, 12]},
            "model": {"modalities": ["nbeats", "tda", "complexity", "clock"], "auxiliary_head": True},
        },
    )
)


def piece(kind, length, rng):
    """Log returns, log wicks, volumes and steps in candles of one piece, (length,) each."""
    returns, wick = 0.004 * rng.standard_t(4, length), 0.002 * np.abs(rng.normal(size=length))
    volume, step = rng.lognormal(3, 2, length), np.ones(length)
    if kind in ("flat", "halt"):
        returns, wick = np.zeros(length), np.zeros(length)
    elif kind == "tick":
        returns, wick = 1e-4 * (np.arange(length) % 2 * 2 - 1.0), np.zeros(length)
    elif kind in ("fall", "rise"):
        returns[length // 2] = math.log(0.1) if kind == "fall" else math.log(10)
    elif kind == "wick":
        wick[length // 2] = math.log(50)
    elif kind == "gap":
        step[length // 2] = 72
    if kind in ("silent", "halt"):
        volume = np.zeros(length)
    elif kind == "one volume":
        volume = np.full(length, 7.0)
    elif kind == "huge":
        volume *= 1e18
    return returns, wick, volume, step


def market(kinds, level=100.0, length=80, seed=0):
    """Candles with taker columns, pieces in this order, the first close at `level`."""
    rng = np.random.default_rng(seed)
    returns, wick, volume, step = np.concatenate([piece(kind, length, rng) for kind in kinds], axis=1)
    close = level * np.exp(np.cumsum(returns))
    before = np.append(level, close[:-1])
    top, bottom = np.maximum(close, before) * np.exp(wick), np.minimum(close, before) * np.exp(-wick)
    columns = {"open": before, "high": top, "low": bottom, "close": close, "volume": volume}
    taker = {"taker_buy_volume": volume * rng.random(len(volume)), "trades": np.ceil(volume / 3)}
    opens = pd.Timestamp("2024-01-01", tz="UTC") + np.cumsum(step) * BAR
    return pd.DataFrame({**columns, **taker}, index=pd.DatetimeIndex(opens, name="timestamp"))


MARKETS = {
    "constant": ["flat"] * 6,
    "constant, no volume": ["halt"] * 6,
    "one tick": ["tick"] * 6,
    "fall of 90 %": ["walk", "walk", "walk", "walk", "fall", "walk"],
    "falls to a millionth": ["walk", "walk", *["fall"] * 6],
    "rises to a million times": ["walk", "walk", *["rise"] * 6],
    "huge volume": ["walk", "walk", "walk", "huge", "walk", "walk"],
    "flat volume": ["one volume"] * 6,
    "trading halt": ["walk", "walk", "walk", "halt", "halt", "walk"],
    "halt of days": ["walk"] * 5 + ["gap"] + ["walk"] * 5,
    "wicks": ["walk", "walk", "walk", "wick", "wick", "walk"],
}
LEVELS = (1e-8, 1.0, 1e8)


@pytest.fixture(params=MARKETS)
def candles(request):
    return market(MARKETS[request.param])


def drawn(function):
    """Run a test on markets that hypothesis draws; it shrinks to the fewest pieces."""
    pieces = st.lists(st.sampled_from(PIECES), min_size=4, max_size=8)
    function = example(kinds=["halt"] * 5, level=1e-8, seed=0)(function)
    function = given(kinds=pieces, level=st.sampled_from(LEVELS), seed=st.integers(0, 99))(function)
    return settings(max_examples=25, deadline=None)(function)


# -- finite ------------------------------------------------------------------------------------------------------------


@drawn
def test_channels_are_finite(kinds, level, seed):
    values = compute_channels(market(kinds, level, seed=seed), NAMES, BAR)
    assert not np.isinf(values).any()  # that nothing is NaN behind its look-back is checked where it is computed
    for name in ("obv_change", "mfi", "taker_imbalance", "rsi"):
        column = values[:, NAMES.index(name)]
        assert np.nanmax(np.abs(column), initial=0) <= 1, name


@drawn
def test_features_of_windows_are_finite(kinds, level, seed):
    candles = market(kinds, level, seed=seed)
    windows = np.lib.stride_tricks.sliding_window_view(np.log(candles["close"].to_numpy()), 48)[::17]
    for values in (tda_features(windows, CONFIG.tda), complexity_features(windows, CONFIG.complexity)):
        assert values.dtype == np.float32 and np.isfinite(values).all()
    assert np.isfinite(log_ranges(candles, [1, 12])[11:]).all()


@drawn
def test_labels_are_finite_where_they_are_known(kinds, level, seed):
    candles = market(kinds, level, seed=seed)
    for mode in ("percent", "sigma", "triple_barrier"):
        section = CONFIG.labels.model_copy(update={"mode": mode, "volatility_window": 24})
        labels = compute_labels(candles, section, BAR).drop(columns="label_end")
        assert np.isfinite(labels[labels["trigger"].notna()].to_numpy()).all()


def panel_of(candles, scalers=None, config=CONFIG):
    """Panel over one market, a sample at every third possible row; trigger is whether the rise is above the median."""
    rows = sample_rows(candles, config)[::3]
    labels = compute_labels(candles, config.labels, BAR)
    rows = rows[labels["trigger"].notna().to_numpy()[rows]]
    known = labels.iloc[rows].reset_index(drop=True)
    known["trigger"] = (np.arange(len(rows)) % 3 == 0).astype(float)  # constant prices have none
    samples = unlabelled_samples("A", candles, rows, config).drop(columns=list(known)).join(known)
    samples["part"] = np.resize(["train", "train", *PARTS[1:]], len(samples))
    channels = compute_channels(candles, config.data.channel_names, BAR)
    windows = np.lib.stride_tricks.sliding_window_view(np.log(candles["close"].to_numpy()), 48)[rows - 47]
    indicators = complexity_features(windows, config.complexity)
    complexity = np.concatenate([indicators, log_ranges(candles, config.complexity.ranges)[rows]], axis=1)
    clock = clock_fractions(pd.DatetimeIndex(samples["close_time"]), config.data.clock_zone)
    topology = tda_features(windows, config.tda)
    arrays = {"nbeats": channels, "tda": topology, "complexity": complexity, "clock": clock}
    scalers = scalers or fit_scalers(VIEWS.active(config), arrays, samples, config)
    return Panel(arrays, samples, scalers, config)


CALM = panel_of(market(["walk"] * 8, seed=5))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("scaled_by", ["itself", "a calm market"])
def test_losses_and_gradients_are_finite(candles, level, scaled_by):
    candles = candles.assign(**{name: candles[name] * level for name in ("open", "high", "low", "close")})
    panel = panel_of(candles, CALM.scalers if scaled_by == "a calm market" else None)
    torch.manual_seed(0)
    objective = Objective(build_model(CONFIG), build_loss(CONFIG, CALM)).train()
    batch = panel.gather(torch.arange(len(panel)))
    assert all(torch.isfinite(x).all() and x.abs().max() <= 10 for x in batch.inputs.values())
    answer = objective(batch.inputs, batch.targets, torch.full((len(panel),), 1 / len(panel)))
    answer.losses[0].backward()
    assert torch.isfinite(answer.losses).all() and torch.isfinite(answer.said).all()
    gradients = [p.grad for p in objective.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in gradients)


def test_ten_steps_on_the_wildest_market_stay_finite():
    panel = panel_of(market(PIECES, level=1e-8))
    torch.manual_seed(0)
    objective = Objective(build_model(CONFIG), build_loss(CONFIG, panel)).train()
    optimiser = torch.optim.AdamW(objective.parameters(), lr=1e-3)
    batch = panel.gather(torch.arange(len(panel)))
    weight = torch.full((len(panel),), 1 / len(panel))
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = objective(batch.inputs, batch.targets, weight).losses[0]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


@pytest.mark.parametrize("what", ["max_pct", AUXILIARY_TARGETS[0]])
def test_targets_that_do_not_vary_are_refused(what):
    panel = copy.copy(CALM)
    panel.samples = CALM.samples.assign(**{what: 1.0})
    with pytest.raises(CmatError, match=f"{what} is the same in every row of the train part"):
        build_loss(CONFIG, panel)


# -- float32 against float64 -------------------------------------------------------------------------------------------


def test_channels_lose_one_rounding(candles):
    """Everything is computed in float64; float32 is only how it is stored."""
    exact = compute_channels(candles, NAMES, BAR, np.float64)
    stored = compute_channels(candles, NAMES, BAR)
    known = np.isfinite(exact) & (np.abs(exact) > np.finfo(np.float32).tiny)
    assert (np.abs(stored[known] - exact[known]) <= EPS / 2 * np.abs(exact[known])).all()


@pytest.mark.parametrize("level", LEVELS)
def test_the_price_level_costs_no_digit(level):
    """Prices are divided by the first close; log, division and product round once each, so a few eps of float64."""
    kinds = ["walk", "walk", "walk", "walk", "fall", "tick"]
    for name in NAMES:
        one, other = (compute_channels(market(kinds, at), [name], BAR, np.float64) for at in (1.0, level))
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-9, err_msg=name)


def test_windows_of_prices_lose_what_the_anchor_costs(candles):
    """A price in a window is the difference of two scaled log prices x / s that were rounded when stored and when
    scaled: at most 4 half-roundings of the larger of them, so 2 eps max|x| / s. In float64 the window is exact."""
    panel = panel_of(candles)
    channels = compute_channels(candles, NAMES, BAR, np.float64)
    exact = Panel({"nbeats": channels}, panel.samples, panel.scalers, CONFIG)
    every = torch.arange(len(panel))
    price = [NAMES.index(name) for name in ("log_open", "log_high", "log_low", "log_close")]
    away = (panel.gather(every).inputs["nbeats"] - exact.gather(every).inputs["nbeats"])[..., price].abs().max().item()
    reach = np.nanmax(np.abs(channels[:, price])) / panel.scalers["nbeats"]["scale"][price[0]]
    assert away <= 2 * EPS * reach + EPS * 10  # gather rounds the window itself, at most 10, to float32


SIZES = {"slim": CONFIG, "full": Config()}


@pytest.mark.parametrize("size", SIZES)
def test_model_in_float32_and_in_float64(size):
    """Roundings of random sign add up in squares: sqrt(n) half-roundings over a product of n terms (Higham and Mary
    2019, SIAM J. Sci. Comput. 41, A2815), sqrt(L n) over L products in a row, as norms keep what is handed on of order
    1. L is at most the number of linear layers. Relative to the largest answer; gradients pass every product twice
    more, so three times that, relative to their norm. Weights rounded to float16 (11 bits) must be beyond the bounds.
    """
    config = SIZES[size]
    torch.manual_seed(0)
    model = build_model(config).eval()
    inputs = {
        "nbeats": torch.randn(8, config.data.sequence_length, len(config.data.channel_names)),
        "tda": torch.randn(8, config.tda.feature_dim),
        "complexity": torch.randn(8, len(config.complexity.names)),
        "clock": torch.rand(8, 2),
    }
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    bound = math.sqrt(len(linear) * max(module.in_features for module in linear)) * EPS / 2
    exact = answers_and_gradient(copy.deepcopy(model).double(), {name: x.double() for name, x in inputs.items()})
    for answer, right, factor in zip(answers_and_gradient(model, inputs), exact, (1, 1, 3), strict=True):
        assert 0 < (answer - right).norm() <= factor * bound * right.norm()
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
        parameter.grad = None
    for answer, right, factor in zip(answers_and_gradient(model, inputs), exact, (1, 1, 3), strict=True):
        assert (answer - right).norm() > factor * bound * right.norm()


def answers_and_gradient(model, inputs):
    """Logits (B, 1), rises (B, 1) and the gradient of a loss with respect to all parameters, in float64."""
    logit, rise, _ = model.answers(inputs)
    target = torch.arange(len(logit)).to(logit.dtype)[:, None] % 2
    loss = F.binary_cross_entropy_with_logits(logit, target) + F.mse_loss(rise, 3 * target)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return logit.detach().double(), rise.detach().double(), gradient.double()
