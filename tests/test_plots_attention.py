"""What the figures of page 06 draw is the maps they are given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import PathPatch

from cmat_lib.plots import attention as plots
from cmat_lib.plots.attention import contrast_forest, share_by_decile, share_forest
from cmat_lib.plots.style import token_color

TOKENS = ["nbeats", "tda", "complexity"]


@pytest.fixture
def maps():
    return np.random.default_rng(0).dirichlet([2, 2, 2], (2, 4, 3))  # (R, K, M, M)


def title(axes):
    return axes.get_title(loc="left") or axes.get_title()


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_grid_draws_every_map_on_one_scale(maps):
    figure = plots.map_grid(maps, TOKENS, ["layer 1", "layer 2"], list("abcd"), "heads")
    panels, bar = figure.axes[:8], figure.axes[8]
    for axes, values in zip(panels, maps.reshape(8, 3, 3), strict=True):
        image = axes.images[0]
        np.testing.assert_array_equal(image.get_array(), values)
        assert image.get_clim() == (0, maps.max())
        assert texts(axes) == [f"{value:.2f}" for value in values.ravel()]
    assert [axes.get_title(loc="center") for axes in panels] == [*"abcd", *[""] * 4]
    assert [t.get_text() for t in panels[4].get_yticklabels()] == TOKENS
    assert [t.get_text() for t in panels[0].get_xticklabels()] == [""] * 3, "only the lowest row is named"
    assert panels[4].get_ylabel() == "layer 2" and bar.get_ylabel() == "weight (uniform: 0.33)"


def test_many_cells_have_no_numbers(maps):
    wide = np.concatenate([maps, maps], axis=1)  # 8 heads
    figure = plots.map_grid(wide, TOKENS, ["1", "2"], list("abcdefgh"), "heads")
    assert not any(texts(axes) for axes in figure.axes)


def test_maps_of_models_stand_side_by_side(maps):
    names = ["model", "untrained model", "outputs/seed1"]
    rows = [
        (name, a, b, maps[0, k, i, j])
        for k, name in enumerate(names)
        for i, a in enumerate(TOKENS)
        for j, b in enumerate(TOKENS)
    ]
    figure = plots.model_maps(pd.DataFrame(rows, columns=["control", "from", "to", "weight"]))
    titles = ["model", "untrained\nmodel", "seed1"]
    for axes, values, name in zip(figure.axes, maps[0], titles, strict=False):
        np.testing.assert_array_equal(axes.images[0].get_array(), values)
        assert title(axes) == name
    assert len(figure.axes) == 4


def test_differences_are_centred_on_zero(maps):
    change = maps - maps.mean(axis=1, keepdims=True)
    figure = plots.map_grid(change, TOKENS, ["1", "2"], list("abcd"), "difference", difference=True)
    image = figure.axes[0].images[0]
    assert image.get_clim() == (-np.abs(change).max(), np.abs(change).max())
    assert texts(figure.axes[0])[0] == f"{change[0, 0, 0, 0]:+.3f}"
    flat = plots.map_grid(np.zeros((1, 1, 3, 3)), TOKENS, [""], [""], "none", difference=True)
    assert texts(flat.axes[0]) == ["+0.000"] * 9


def test_entropy_boxes_are_quartiles_in_the_colour_of_their_token():
    entropy = np.random.default_rng(0).uniform(0.5, 1, (200, 2, 4, 3))
    figure = plots.entropy_by_head(entropy, TOKENS, "entropy")
    for layer, axes in enumerate(figure.axes):
        for token in range(3):
            color = pytest.approx(to_rgba(token_color(token)))
            boxes = [p for p in axes.patches if isinstance(p, PathPatch) and p.get_facecolor() == color]
            ends = [box.get_path().vertices[:, 1] for box in boxes]
            found = sorted((y.min(), y.max()) for y in ends)
            quartiles = np.quantile(entropy[:, layer, :, token], [0.25, 0.75], axis=0).T  # (h, 2)
            np.testing.assert_allclose(found, sorted(map(tuple, quartiles)))
        assert {1.0} in [set(line.get_ydata()) for line in axes.lines], "uniform"
        assert title(axes) == f"layer {layer + 1}"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == TOKENS


def test_single_cases_show_price_and_maps(maps):
    price = pd.DataFrame({"close": [-1.0, 0.0, 2.0], "high": [-0.5, 0.5, 4.0]}, index=[-1, 0, 1])
    figure = plots.single_cases(["surest hit", "surest false alarm"], [price, -price], maps, TOKENS, list("abcd"))
    left = figure.axes[0]
    assert title(left) == "surest hit"
    assert [list(line.get_ydata()) for line in left.lines[:2]] == [[-1.0, 0.0], [0.0, 2.0]]
    bars = [segment[:, 1].tolist() for segment in left.collections[0].get_segments()]
    assert bars == [[-1.0, -0.5], [0.0, 0.5], [2.0, 4.0]], "from close to high"
    np.testing.assert_array_equal(figure.axes[9].images[0].get_array(), maps[1, 3])


def test_share_forest_draws_means_and_intervals():
    index = pd.MultiIndex.from_product([["hit", "quiet"], TOKENS], names=["group", "token"])
    value = np.array([0.3, 0.4, 0.3, 0.2, 0.5, 0.3])
    table = pd.DataFrame(
        {"value": value, "low": value - 0.01, "high": value + 0.02, "n": [5] * 3 + [900] * 3}, index=index
    )
    axes = share_forest({"by outcome": table, "again": table}, 0.9).axes[0]
    dots = [dots for dots in axes.collections if isinstance(dots, PathCollection)]
    points = {own.get_label(): own.get_offsets()[:, 0].tolist() for own in dots}
    assert points == {"nbeats": [0.3, 0.2], "tda": [0.4, 0.5], "complexity": [0.3, 0.3]}
    np.testing.assert_allclose(axes.collections[2].get_segments()[1][:, 0], [0.49, 0.52])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["hit (n = 5)", "quiet (n = 900)"]
    assert axes.lines[0].get_xdata()[0] == pytest.approx(1 / 3) and title(axes) == "by outcome"


def test_contrast_forest_has_a_panel_per_contrast():
    index = pd.MultiIndex.from_product(
        [["wild against calm", "hit against false alarm"], TOKENS], names=["contrast", "token"]
    )
    value = np.linspace(-0.2, 0.3, 6)
    table = pd.DataFrame(
        {"value": value, "low": value - 0.1, "high": value + 0.2, "n_first": 30, "n_second": 1200}, index
    )
    first, second = contrast_forest(table, 0.9).axes
    np.testing.assert_allclose(first.collections[1].get_offsets()[:, 0], value[:3])
    np.testing.assert_allclose([s[:, 0] for s in second.collections[0].get_segments()], table[["low", "high"]][3:])
    assert title(second) == "hit against false alarm (n = 30 and 1,200)"
    assert [t.get_text() for t in second.get_yticklabels()] == TOKENS


def test_share_by_decile_goes_from_one_to_ten():
    groups = [f"{n:2d}" for n in range(1, 11)]
    index = pd.MultiIndex.from_product([groups[::-1], TOKENS], names=["group", "token"])
    table = pd.DataFrame({"value": np.arange(30) / 30}, index).assign(low=0.0, high=1.0, n=20)
    axes = share_by_decile(table, 0.9).axes[0]
    line = next(line for line in axes.lines if line.get_label() == "tda")
    assert line.get_xdata().tolist() == list(range(1, 11))
    np.testing.assert_allclose(line.get_ydata(), [table["value"][name, "tda"] for name in groups])
    assert {1 / 3} in [set(line.get_ydata()) for line in axes.lines], "uniform"
