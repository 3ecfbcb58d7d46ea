"""What the figures of page 02 draw is the data they are given."""

import numpy as np
import pandas as pd
import pytest

from cmat_lib.config.schema import TdaConfig
from cmat_lib.explain.moments import longest_loop
from cmat_lib.plots import topology as plots
from cmat_lib.plots.topology import LAST_EDGE, loop_on_chart
from cmat_lib.tda.planar import planar_loops

TIMES = pd.date_range("2024-01-01", periods=1500, freq="1h", tz="UTC")
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def title(axes):
    return axes.get_title(loc="left") or axes.get_title()


@pytest.fixture
def curves():
    return np.random.default_rng(0).integers(0, 9, (1500, 60)).astype(float)


def test_price_and_cloud_share_the_colours_of_time():
    price = np.sin(np.arange(20) / 3)
    cloud = np.column_stack([price[:-4], price[4:]])
    figure = plots.price_and_cloud(TIMES[:20], price, cloud, 4)
    window, points = figure.data
    np.testing.assert_array_equal(window.y, price)
    np.testing.assert_array_equal(points.x, cloud[:, 0])
    np.testing.assert_array_equal(points.y, cloud[:, 1])
    np.testing.assert_array_equal(points.marker.color, window.marker.color[:16])
    assert points.marker.cmax == window.marker.cmax == 19
    assert "t + 4 candles (σ)" in figure.layout.yaxis2.title.text and "UTC" in figure.layout.xaxis.title.text


def test_filtration_joins_points_nearer_than_the_scale():
    panels = plots.filtration(SQUARE, (0.5, 1.0, 1.5)).axes
    counts = [len(axes.collections[0].get_segments()) for axes in panels]
    assert counts == [0, 4, 6], "no edge, the sides, sides and diagonals"
    assert title(panels[1]) == "scale 1.00 σ · 4 edges"
    ends = {tuple(map(tuple, segment)) for segment in panels[1].collections[0].get_segments()}
    assert ((0, 0), (1, 1)) not in ends and ((0, 0), (1, 0)) in ends
    np.testing.assert_array_equal(panels[0].collections[1].get_offsets(), SQUARE)


def test_barcode_and_diagram_hold_every_bar():
    diagrams = {0: np.array([[0.0, 0.3], [0.0, 0.1]]), 1: np.array([[0.2, 0.9]])}
    barcode, diagram = plots.persistence(diagrams).axes
    pieces, loops = (lines.get_segments() for lines in barcode.collections)
    np.testing.assert_allclose(pieces, [[[0, 0], [0.1, 0]], [[0, 1], [0.3, 1]]])
    np.testing.assert_allclose(loops, [[[0.2, 2], [0.9, 2]]])
    np.testing.assert_allclose(diagram.collections[1].get_offsets(), [[0.2, 0.9]])
    assert [t.get_text() for t in diagram.get_legend().get_texts()] == ["H0: pieces (2)", "H1: loops (1)"]
    assert diagram.get_xlabel() == "birth (σ)" and diagram.get_ylabel() == "death (σ)"


def test_persistence_without_a_single_bar():
    barcode, _ = plots.persistence({0: np.empty((0, 2)), 1: np.empty((0, 2))}).axes
    assert not any(len(lines.get_segments()) for lines in barcode.collections)


def test_betti_curves_per_dimension():
    grids, values = {0: np.array([0.0, 0.1, 0.4]), 1: np.array([0.0, 0.5, 1.3])}, {0: [9, 4, 0], 1: [0, 2, 1]}
    panels = plots.betti_curves(grids, values).axes
    for dimension, axes in enumerate(panels):
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), grids[dimension])
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), values[dimension])
        assert axes.lines[0].get_drawstyle() == "steps-post", "a bin holds until the next scale"
        assert f"H{dimension}" in title(axes) and axes.get_xlabel() == "scale (σ)"


def test_actual_and_shuffled_draw_median_and_band():
    grid = {1: np.array([0.0, 1.0])}
    actual, shuffled = {1: np.tile(np.arange(11.0)[:, None], 2)}, {1: np.full((11, 2), 3.0)}
    (axes,) = plots.actual_and_shuffled(grid, actual, shuffled).axes
    np.testing.assert_allclose([line.get_ydata() for line in axes.lines], [[5, 5], [3, 3]])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (1, 9)
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["as it happened", "returns shuffled"]


def test_topology_over_time_is_thinned_but_true(curves):
    grids = {0: np.linspace(0, 1, 60) ** 2, 1: np.linspace(0, 1.1, 60) ** 2}
    close, totals = np.linspace(100, 200, 1500), {0: np.arange(1500.0), 1: -np.arange(1500.0)}
    figure = plots.topology_over_time(TIMES, close, grids, {0: curves, 1: curves + 1}, totals, "t")
    price, heat0, total0, heat1, total1 = figure.data
    moments = plots.evenly(1500, plots.HEATMAP_COLUMNS)
    bins = plots.evenly(60, plots.HEATMAP_ROWS)
    np.testing.assert_array_equal(price.y, close[moments])
    np.testing.assert_array_equal(heat0.z, curves[np.ix_(moments, bins)].T)
    np.testing.assert_array_equal(heat1.z, curves[np.ix_(moments, bins)].T + 1)
    np.testing.assert_array_equal(heat1.y, grids[1][bins])
    np.testing.assert_array_equal(total0.y, moments)
    np.testing.assert_array_equal(total1.y, -moments)
    assert total0.yaxis == total1.yaxis == "y4" and (heat0.yaxis, heat1.yaxis) == ("y2", "y3")
    assert pd.Timestamp(heat0.x[-1], tz="UTC") == TIMES[-1]
    assert "log price" in figure.layout.yaxis4.title.text and "σ" in figure.layout.yaxis2.title.text


def test_topology_over_time_of_one_dimension(curves):
    figure = plots.topology_over_time(
        TIMES, np.ones(1500), {1: np.arange(60.0)}, {1: curves}, {1: np.ones(1500)}, "only loops"
    )
    assert [trace.type for trace in figure.data] == ["scatter", "heatmap", "scatter"]
    assert figure.layout.yaxis2.title.text == "H1 scale (σ)"


def test_indicators_over_time_one_panel_each():
    values = np.random.default_rng(1).normal(size=(1500, 2))
    figure = plots.indicators_over_time(TIMES, np.arange(1500.0), values, ["dfa_exponent", "lempel_ziv"], "c")
    assert [trace.name for trace in figure.data] == ["close", "dfa_exponent", "lempel_ziv"]
    np.testing.assert_array_equal(figure.data[2].y, values[:, 1])
    assert [trace.yaxis for trace in figure.data] == ["y", "y2", "y3"]
    assert figure.layout.yaxis2.title.text == "dfa<br>exponent" and "UTC" in figure.layout.xaxis3.title.text


def test_long_series_stay_small():
    times = pd.date_range("2020-01-01", periods=100_000, freq="15min", tz="UTC")
    figure = plots.indicators_over_time(times, np.ones(100_000), np.ones((100_000, 1)), ["dfa_exponent"], "c")
    assert len(figure.data[1].y) == plots.LINE_POINTS and len(figure.to_json()) < 200_000


@pytest.fixture
def swing():
    """A price that falls, rises and wanders: its window, cloud and longest loop, the delay is 9 candles."""
    rng = np.random.default_rng(3)
    values = np.sin(np.arange(120) / 6) * np.linspace(0.3, 1.5, 120) + 0.05 * rng.normal(size=120)
    scaled = (values - values.mean()) / values.std()
    return scaled, np.column_stack([scaled[:-9], scaled[9:]])


def test_loop_on_chart_marks_the_candles_of_the_loop(swing):
    values, cloud = swing
    loop = max(planar_loops(cloud), key=lambda loop: loop.death - loop.birth)
    figure = loop_on_chart(TIMES[:120], values, cloud, loop, 9)
    price, dots, rings, *ends, points, line, edge = figure.data
    np.testing.assert_array_equal(price.y, values)
    for trace, later in ((dots, 0), (rings, 9)):
        np.testing.assert_array_equal(trace.y, values[loop.points + later])
        assert pd.DatetimeIndex(trace.x).tz_localize("UTC").equals(TIMES[loop.points + later])
        np.testing.assert_array_equal(trace.marker.color, loop.points)
        assert trace.marker.cmin == loop.points.min() and trace.marker.cmax > loop.points.max()
    assert "t + 9" in rings.name
    np.testing.assert_array_equal(np.column_stack([points.x, points.y]), cloud)
    np.testing.assert_array_equal(np.column_stack([line.x, line.y]), cloud[[*loop.points, loop.points[0]]])
    np.testing.assert_array_equal(line.marker.color, [*loop.points, loop.points[0]])
    np.testing.assert_array_equal(np.column_stack([edge.x, edge.y]), cloud[list(loop.killer)])
    assert np.hypot(np.diff(edge.x), np.diff(edge.y)) == pytest.approx(loop.death)
    for trace, end in zip(ends, loop.killer, strict=True):
        np.testing.assert_array_equal(trace.y, values[[end, end + 9]])
        assert trace.line.color == edge.line.color == LAST_EDGE["color"] != line.line.color


def test_loop_on_chart_says_its_numbers(swing):
    values, cloud = swing
    loop = longest_loop(cloud, TdaConfig())
    figure = loop_on_chart(TIMES[:120], values, cloud, loop, 9, "log range")
    taken = {*loop.points, *(loop.points + 9)}
    title = figure.layout.title.text
    assert f"born {loop.birth:.2f} σ, dies {loop.death:.2f} σ, persistence {loop.death - loop.birth:.2f} σ" in title
    assert f"{len(taken)} of 120 candles" in title
    assert f"from {TIMES[min(taken)]:%Y-%m-%d %H:%M} to {TIMES[max(taken)]:%Y-%m-%d %H:%M} UTC" in title
    assert f"length {loop.death:.2f} σ = death" in [note.text for note in figure.layout.annotations]
    assert (
        figure.layout.yaxis2.title.text == "log range at t + 9 candles (σ)" and "UTC" in figure.layout.xaxis.title.text
    )


def test_longest_loop_is_the_most_persistent_bar(swing):
    _, cloud = swing
    bars = np.array([loop[:2] for loop in planar_loops(cloud)])
    loop = longest_loop(cloud, TdaConfig())
    assert loop[:2] == pytest.approx(bars[np.argmax(bars[:, 1] - bars[:, 0])])


def test_no_loop_to_draw(swing):
    _, cloud = swing
    assert longest_loop(np.ones((111, 2)), TdaConfig()) is None, "a flat window"
    assert longest_loop(np.arange(222.0).reshape(111, 2), TdaConfig()) is None, "a straight line"
    assert longest_loop(cloud, TdaConfig(engine="giotto")) is None
    assert longest_loop(np.ones((111, 3)), TdaConfig(embedding_dim=3)) is None


def test_figures_name_their_series():
    figure = plots.price_and_cloud(TIMES[:4], np.arange(4.0), SQUARE[:2], 2, "log range")
    assert figure.layout.xaxis2.title.text == "log range at t (σ)" and figure.layout.yaxis.title.text == "log range (σ)"
    assert plots.filtration(SQUARE, (1.0,), "log range").axes[0].get_xlabel() == "log range at t (σ)"
