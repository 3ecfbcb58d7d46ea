"""The explorer of page 06: which moments it chooses, what it knows of them, and that its figure holds exactly that."""

import json

import numpy as np
import pandas as pd
import pytest

from cmat_lib.config import load_config
from cmat_lib.data.topology import SERIES
from cmat_lib.explain import moments
from cmat_lib.explain.groups import token_shares
from cmat_lib.plots.explorer import PAST, STRETCHES, attention_explorer
from cmat_lib.tda.persistence import rips_diagrams
from cmat_lib.tda.planar import planar_loops

TOKENS = ("nbeats", "tda", "complexity")
N = 300


@pytest.fixture
def config():
    small = {"data": {"timeframe": "1h", "sequence_length": 8}, "tda": {"window_size": 24, "time_delay": 2}}
    return load_config(changes=small)


@pytest.fixture
def candles():
    rng = np.random.default_rng(0)
    frames = []
    for symbol, start in (("A", 100.0), ("B", 5.0)):
        close = start * np.exp(np.cumsum(0.01 * rng.normal(size=400)))
        frame = pd.DataFrame({"open": close * 0.999, "high": close * 1.01, "low": close * 0.99, "close": close})
        frame["timestamp"] = pd.date_range("2024-01-01", periods=400, freq="1h", tz="UTC")
        frames.append(frame.assign(symbol=symbol))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture
def samples(candles):
    own = candles[candles["symbol"] == "B"].iloc[100:].reset_index(drop=True)[["symbol", "timestamp", "close"]]
    rises = np.random.default_rng(1).gamma(1, 1, N)
    outcome = np.where(rises > 2, "hit", "quiet")
    return own.assign(max_pct=rises, probability=0.25, outcome=outcome)


@pytest.fixture
def maps():
    return np.random.default_rng(2).dirichlet([2, 2, 2], (N, 2, 4, 3))  # (N, layers, h, M, M)


def test_moments_are_the_largest_moves_apart_and_even_ones():
    rises = np.zeros(100)
    rises[[40, 41, 42, 77]] = [5.0, 9.0, 8.0, 7.0]
    chosen = moments.pick_moments(rises, limit=4, apart=4)
    assert chosen.tolist() == [0, 41, 77, 99], "both ends, the peak without its neighbours, and the other peak"
    assert moments.pick_moments(rises, limit=1000, apart=1).tolist() == list(range(100))


def test_window_and_diagram_end_at_the_sample(samples, candles, config):
    first, second = moments.describe_moments(samples.iloc[[10, 200]], candles, config)
    row = samples.iloc[10]
    history = candles[(candles["symbol"] == "B") & (candles["timestamp"] <= row["timestamp"])]
    assert first.window.index.tolist() == list(range(-7, 1))
    np.testing.assert_allclose(first.window["close"], 100 * (history["close"].iloc[-8:] / row["close"] - 1))
    log_price = np.log(history["close"].to_numpy()[-24:])
    cloud = np.column_stack([log_price[:-2], log_price[2:]]) / log_price.std()
    for found, expected in zip(first.diagrams.values(), rips_diagrams(cloud, "giotto"), strict=True):
        np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0), atol=1e-6)
    assert first.time == row["timestamp"] and f"{row['timestamp']:%Y-%m-%d %H:%M}" in first.label
    assert second.close == samples["close"][200] and second.outcome == samples["outcome"][200]


def test_loop_of_a_moment_is_the_longest_of_its_topology_window(samples, candles, config):
    (moment,) = moments.describe_moments(samples.iloc[[10]], candles, config)
    row = samples.iloc[10]
    close = candles.loc[(candles["symbol"] == "B") & (candles["timestamp"] <= row["timestamp"]), "close"].iloc[-24:]
    log_price = np.log(close.to_numpy())
    scaled = (log_price - log_price.mean()) / log_price.std()
    loop = max(planar_loops(np.column_stack([scaled[:-2], scaled[2:]])), key=lambda loop: loop.death - loop.birth)
    assert moment.loop[:2] == loop[:2] and (moment.diagrams[1] == loop[:2]).all(axis=1).any()
    assert moment.past.index.tolist() == list(range(-23, 1)) and moment.past[0] == 0
    np.testing.assert_allclose(moment.past, 100 * (close / row["close"] - 1))
    assert moment.loop_candles.tolist() == sorted({int(p) + k - 23 for p in loop.points for k in (0, 2)})


def test_moments_follow_the_first_scale_of_the_first_series(samples, candles, config):
    several = {"windows": [24, 48], "delays": [2, 4], "series": ["log_range", "log_close"]}
    both = config.model_copy(update={"tda": config.tda.model_copy(update=several)})
    candles["high"] *= np.random.default_rng(4).uniform(1, 1.01, len(candles))
    (moment,) = moments.describe_moments(samples.iloc[[10]], candles, both)
    own = candles[(candles["symbol"] == "B") & (candles["timestamp"] <= moment.time)].iloc[-24:]
    log_range = SERIES["log_range"](own)
    expected = rips_diagrams(np.column_stack([log_range[:-2], log_range[2:]]) / log_range.std(), "planar")
    for found, bars in zip(moment.diagrams.values(), expected, strict=True):
        np.testing.assert_allclose(found, bars, atol=1e-6)
    assert len(moment.past) == 24


def test_lines_are_shares_and_rows(maps):
    shares = token_shares(maps, TOKENS)
    lines = moments.attention_lines(maps, shares, TOKENS)
    assert list(lines) == ["to the output", "from nbeats", "from tda", "from complexity"]
    np.testing.assert_array_equal(lines["to the output"], shares)
    np.testing.assert_allclose(lines["from tda"], maps.mean(axis=(1, 2))[:, 1], rtol=1e-6)
    layers = moments.layer_maps(maps)
    assert list(layers) == ["layer 1", "layer 2", "rollout"]
    np.testing.assert_allclose(layers["layer 2"], maps[:, 1].mean(axis=1), rtol=1e-6)
    assert list(moments.layer_maps(maps[:, :1])) == ["layer 1"]


@pytest.fixture
def figure(samples, candles, maps, config):
    chosen = samples.iloc[[5, 100, 299]]
    lines = moments.attention_lines(maps, token_shares(maps, TOKENS), TOKENS)
    drawn = {name: (values[[5, 100, 299]], TOKENS) for name, values in moments.layer_maps(maps).items()}
    shown = moments.describe_moments(chosen, candles, config)
    return attention_explorer(samples, lines, TOKENS, shown, drawn, "B"), shown, lines, drawn


def test_every_frame_holds_its_moment(figure):
    figure, shown, _, drawn = figure
    steps = figure.layout.sliders[0].steps
    assert [step.label for step in steps] == [moment.label for moment in shown]
    assert [step.args[0][0] for step in steps] == [frame.name for frame in figure.frames] == ["0", "1", "2"]
    for number, (frame, moment) in enumerate(zip(figure.frames, shown, strict=True)):
        assert [figure.data[k].type for k in frame.traces] == [trace.type for trace in frame.data]
        cursors, candle, diagrams, maps = frame.data[:2], frame.data[2], frame.data[3:5], frame.data[8:]
        past, marks, bar = frame.data[5:8]
        assert {pd.Timestamp(trace.x[0], tz="UTC") for trace in cursors} == {moment.time}
        np.testing.assert_allclose(candle.close, moment.window["close"], atol=1e-3)
        for trace, bars in zip(diagrams, moment.diagrams.values(), strict=True):
            np.testing.assert_allclose(np.column_stack([trace.x, trace.y]), bars, atol=1e-3)
        for trace, (values, _) in zip(maps, drawn.values(), strict=True):
            np.testing.assert_allclose(trace.z, values[number], atol=1e-4)
        low, high = frame.layout.yaxis3.range
        assert low < moment.window["low"].min() and high > moment.window["high"].max()
        np.testing.assert_allclose(past.y, moment.past, atol=6e-3)
        assert (past.x0, past.dx) == (-23, 1)
        assert list(marks.x) == moment.loop_candles.tolist()
        np.testing.assert_allclose(marks.y, moment.past[moment.loop_candles], atol=6e-3)
        assert (past.yaxis, marks.yaxis, bar.yaxis) == ("y5", "y5", "y4")
        assert (len(marks.x) > 0) == (moment.loop is not None)
        birth, death = moment.loop[:2] if moment.loop else ((), ())
        np.testing.assert_array_equal([bar.x, bar.y], np.reshape([birth, death], (2, -1)))
        assert bar.name == ("longest loop" if moment.loop else "no loop")
        low, high = frame.layout.yaxis5.range
        assert low < moment.past.min() and high > moment.past.max()
    assert any(moment.loop for moment in shown)
    last = figure.frames[-1]
    assert all(figure.data[k] == trace for k, trace in zip(last.traces, last.data, strict=True)), (
        "shown first: the last"
    )


def test_a_moment_without_a_loop_has_its_traces(samples, candles, maps, config):
    unknown = config.model_copy(update={"tda": config.tda.model_copy(update={"engine": "giotto"})})
    shown = moments.describe_moments(samples.iloc[[0]], candles, unknown)
    assert shown[0].loop is None and len(shown[0].loop_candles) == 0
    lines = {"to the output": token_shares(maps, TOKENS)}
    figure = attention_explorer(samples, lines, TOKENS, shown, {"layer 1": (maps[:1, 0, 0], TOKENS)}, "B")
    past, drawn, bar = figure.frames[0].data[5:8]
    assert len(past.y) == 24 and not drawn.x and not bar.x and bar.name == "no loop"


def test_the_topology_window_stays_small_on_the_page(samples, candles, maps, config):
    wide = config.model_copy(update={"tda": config.tda.model_copy(update={"window_size": 390})})
    later = candles[candles["symbol"] == "B"].iloc[[399]].assign(max_pct=1.0, probability=0.5, outcome="hit")
    shown = moments.describe_moments(later, candles, wide)
    lines = {"to the output": token_shares(maps, TOKENS)}
    figure = attention_explorer(samples, lines, TOKENS, shown, {"layer 1": (maps[:1, 0, 0], TOKENS)}, "B")
    traces = figure.frames[0].data[5:8]
    assert len(traces[0].y) == 195 <= PAST and (traces[0].x0, traces[0].dx) == (-388, 2)
    np.testing.assert_allclose(traces[0].y, shown[0].past[1::2], atol=6e-3)
    assert traces[0].y[-1] == 0, "the moment itself"
    assert sum(len(trace.to_plotly_json().__repr__()) for trace in traces) < 10_000


def test_menu_shows_the_lines_of_one_view(figure):
    figure, _, lines, _ = figure
    buttons = figure.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == [f"weights {name}" for name in lines]
    for button, values in zip(buttons, lines.values(), strict=True):
        given, traces = button.args
        assert [figure.data[k].name for k in traces] == list(TOKENS)
        assert {figure.data[k].yaxis for k in traces} == {"y2"}
        np.testing.assert_allclose(np.transpose(given["y"]), values, atol=1e-4)
    first = [figure.data[k].y for k in buttons[0].args[1]]
    np.testing.assert_allclose(np.transpose(first), lines["to the output"], atol=1e-4)


def test_long_series_stay_small_on_the_page(samples, candles, maps, config):
    many = pd.concat([samples] * 20, ignore_index=True)
    lines = {"to the output": np.tile(token_shares(maps, TOKENS), (20, 1)).astype(np.float32)}
    chosen = moments.describe_moments(samples.iloc[[0]], candles, config)
    figure = attention_explorer(many, lines, TOKENS, chosen, {"layer 1": (maps[:1, 0, 0], TOKENS)}, "B")
    line = next(trace for trace in figure.data if trace.name == "nbeats")
    assert len(line.x) == len(line.y) == STRETCHES
    assert line.y[0] == pytest.approx(lines["to the output"][:12, 0].mean(), abs=1e-4)
    assert max(len(str(value)) for value in line.y) <= 6, "0.1234 has no more digits on the page"
    assert len(json.dumps(figure.to_plotly_json(), default=str)) < 300_000
