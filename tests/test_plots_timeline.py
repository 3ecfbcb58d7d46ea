"""Views under the price: what they draw is the data, and they stay small."""

import numpy as np
import pandas as pd
import pytest

from cmat_lib.plots import evaluation as plots


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    frames = []
    for symbol in ("A", "B"):
        time = pd.date_range("2024-01-01", periods=6000, freq="15min", tz="UTC")
        frame = pd.DataFrame({"symbol": symbol, "timestamp": time, "close": np.arange(6000.0) + 1})
        frame["probability"], frame["trigger"] = 0.2 * rng.random(6000), (rng.random(6000) < 0.1).astype(float)
        frames.append(frame)
    whole = pd.concat(frames, ignore_index=True)
    whole.loc[4321, "probability"], whole.loc[4321, "trigger"] = 0.9, 1.0  # one alarm, a hit, of A
    return whole


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def test_the_one_alarm_survives_thinning(predictions):
    figure = plots.probability_and_price(predictions, threshold=0.5)
    assert max(named(figure, "probability")[0].y) == 0.9
    hits, quiet_symbol = named(figure, "hit")
    assert list(hits.y) == [4322.0] and pd.Timestamp(hits.x[0]) == pd.Timestamp("2024-02-15 00:15")
    assert len(quiet_symbol.y) == 0 and all(len(trace.y) == 0 for trace in named(figure, "false alarm"))
    assert max(len(trace.y) for trace in figure.data) <= plots.LINE_STRETCHES
    assert len(named(figure, "miss")[0].y) == plots.MARKS_PER_OUTCOME


def test_short_series_are_drawn_whole_and_in_time_order(predictions):
    short = predictions[predictions["symbol"] == "A"].iloc[:50]
    figure = plots.probability_and_price(short.iloc[::-1], threshold=0.1)
    np.testing.assert_array_equal(named(figure, "close")[0].y, short["close"])
    np.testing.assert_array_equal(named(figure, "probability")[0].y, short["probability"])
    assert figure.layout.shapes[0].y0 == 0.1, "the threshold"
    assert "UTC" in figure.layout.xaxis2.title.text and len(figure.layout.updatemenus) == 0


def test_menu_shows_one_symbol_at_a_time(predictions):
    figure = plots.probability_and_price(predictions, threshold=0.5)
    buttons = figure.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == ["A", "B"]
    half = len(figure.data) // 2
    assert buttons[1].args[0]["visible"] == [False] * half + [True] * half
    assert [trace.visible for trace in figure.data] == [True] * half + [False] * half
