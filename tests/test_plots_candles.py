"""What the figures of page 01 draw is the data they are given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from cmat_lib.plots import candles as plots

HOUR = pd.Timedelta("1h")


@pytest.fixture
def candles():
    close = np.array([10.0, 11.0, 10.5, 12.0, 11.0, 11.5])
    time = pd.date_range("2024-03-30 21:00", periods=6, freq=HOUR, tz="UTC", name="timestamp")
    columns = {"open": close - 0.1, "high": close + 0.5, "low": close - 0.5, "close": close, "volume": close * 10}
    return pd.DataFrame(columns, index=time)


def test_evenly_keeps_both_ends():
    assert plots.evenly(3, 10).tolist() == [0, 1, 2]
    assert plots.evenly(101, 5).tolist() == [0, 25, 50, 75, 100]


def test_candlestick_draws_candles_volume_and_triggers(candles):
    trigger = pd.Series([1.0, 0.0, 1.0, 0.0, np.nan, np.nan], index=candles.index)
    body, marks, volume = plots.candlestick(candles, trigger, "XYZ").data
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(body, name), candles[name])
    np.testing.assert_array_equal(marks.y, candles["low"].iloc[[0, 2]])
    assert list(pd.DatetimeIndex(marks.x).tz_localize("UTC")) == list(candles.index[[0, 2]])
    np.testing.assert_array_equal(volume.y, candles["volume"])


def test_candlestick_is_labelled(candles):
    layout = plots.candlestick(candles, candles["close"] * 0, "XYZ").layout
    assert layout.title.text == "XYZ" and "UTC" in layout.xaxis2.title.text
    assert (layout.yaxis.title.text, layout.yaxis2.title.text) == ("price", "volume")


def test_model_window_draws_every_channel():
    window = np.random.default_rng(0).normal(size=(5, 3))
    figure = plots.model_window(window, ["log_high", "log_close", "rsi"], pd.Timedelta("15m"), "w")
    *lines, heat = figure.data
    assert [line.name for line in lines] == ["log_high", "log_close"], "price channels alone are lines"
    np.testing.assert_array_equal(lines[1].y, window[:, 1])
    np.testing.assert_array_equal(heat.z, window.T)
    assert list(heat.y) == ["log_high", "log_close", "rsi"]
    np.testing.assert_allclose(heat.x, [-1.0, -0.75, -0.5, -0.25, 0.0])
    assert "hours" in figure.layout.xaxis2.title.text


def test_channel_boxes_are_quartiles_in_the_colour_of_the_group():
    values = np.column_stack([np.linspace(-2, 2, 101), np.linspace(0, 1, 101)])
    (axes,) = plots.channel_distribution(values, ["log_close", "rsi"], ["price", "technical"]).axes
    boxes = axes.patches
    np.testing.assert_allclose([(b.get_x(), b.get_x() + b.get_width()) for b in boxes], [(-1, 1), (0.25, 0.75)])
    whiskers = [segment[:, 0] for segment in axes.collections[0].get_segments()]
    np.testing.assert_allclose(whiskers, [(-1.96, 1.96), (0.01, 0.99)])
    np.testing.assert_allclose(axes.collections[1].get_offsets()[:, 0], [0, 0.5], atol=1e-12)
    colors = [to_hex(box.get_facecolor()).upper() for box in boxes]
    assert colors == [plots.GROUP_COLORS["price"], plots.GROUP_COLORS["technical"]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["log_close", "rsi"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["price", "technical"]


def test_base_rates_are_means_per_symbol_and_month(candles):
    first = pd.DataFrame({"trigger": [1.0, 1.0, 0.0, 1.0, 0.0, np.nan]}, index=candles.index + pd.Timedelta("1D"))
    second = first.assign(trigger=[0.0, 0.0, 0.0, 0.0, 1.0, np.nan])
    figure = plots.base_rates({"AAA": first, "BBB": second})
    axes = figure.axes[0]
    shown = np.asarray(axes.collections[0].get_array()).reshape(2, 2)
    np.testing.assert_allclose(shown, [[2 / 3, 1 / 2], [0, 1 / 2]])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["2024-03", "2024-04"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["AAA", "BBB"]
    assert [t.get_text() for t in axes.texts] == ["66.7%", "50.0%", "0.0%", "50.0%"]


def test_rise_distribution_counts_every_row():
    rise = np.concatenate([np.linspace(0, 2, 60), np.linspace(3, 6, 30), [90.0]])
    figure = plots.rise_distribution(rise, (rise >= 3).astype(float), 3.0)
    (axes,) = figure.axes
    low, high = (sum(bar.get_height() for bar in bars) for bars in axes.containers)
    assert (low, high) == (60, 31), "the extreme row is in the last bar, not lost"
    assert axes.get_yscale() == "log" and "%" in axes.get_xlabel()
    assert axes.lines[0].get_xdata()[0] == 3.0


def test_rise_distribution_without_a_single_threshold():
    (axes,) = plots.rise_distribution(np.array([1.0, 2.0]), np.array([0, 1]), None).axes
    assert not axes.lines


def test_look_backs_end_at_the_close_and_the_label_starts_there():
    (axes,) = plots.look_backs({"window": 24, "topology": 168}, 6, HOUR).axes
    spans = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    np.testing.assert_allclose(spans, [(-1, 0), (-7, 0), (0, 0.25)])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["window", "topology", "label"]
    assert [t.get_text() for t in axes.texts] == ["24 candles", "168 candles", "6 candles"]
    assert "days" in axes.get_xlabel()


def test_figures_belong_to_no_pyplot_state(candles):
    import matplotlib.pyplot as plt

    plots.look_backs({"window": 24}, 6, HOUR)
    plots.base_rates({"AAA": pd.DataFrame({"trigger": 1.0}, index=candles.index)})
    assert not plt.get_fignums(), "a page would show such a figure twice"
