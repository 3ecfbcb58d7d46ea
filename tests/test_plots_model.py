"""Page 03 draws the data that it is given: heatmaps, bases, tables and maps are read back from the figures."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from torch import nn

from cmat_lib.config import load_config
from cmat_lib.encoders.nbeats import seasonality_basis, trend_basis
from cmat_lib.models import build_model, parameter_table
from cmat_lib.plots import model as plots
from cmat_lib.plots.style import GREY
from cmat_lib.views import VIEWS
from cmat_lib.views.panel import Batch

CHANNELS = ["log_close", "volume_ratio"]
CONFIG = load_config(
    changes={
        "data": {"sequence_length": 8, "channels": CHANNELS},
        "complexity": {"indicators": ["permutation_entropy", "lempel_ziv"]},
    }
)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    shapes = {view.name: view.shape(CONFIG) for view in VIEWS.active(CONFIG)}
    inputs = {name: torch.randn(3, *shape, generator=generator) for name, shape in shapes.items()}
    targets = {"trigger": (3,), "max_pct": (3,), "auxiliary": (3, 4), "weight": (3,)}
    return Batch(inputs, **{name: torch.randn(size, generator=generator) for name, size in targets.items()})


def table(**changes):
    config = load_config(changes=changes)
    with torch.device("meta"):
        return pd.DataFrame(parameter_table(build_model(config)), columns=["part", "parameters", "source"])


def test_batch_table_gives_shape_type_and_range(batch):
    found = plots.batch_table(batch)
    assert list(found.index) == ["nbeats", "tda", "complexity", "clock", "trigger", "max_pct", "auxiliary", "weight"]
    assert found.loc["nbeats", ["shape", "type"]].tolist() == ["(3, 8, 2)", "float32"]
    tda = batch.inputs["tda"]
    expected = np.array([tda.min(), tda.median(), tda.max()])
    np.testing.assert_allclose(found.loc["tda", ["smallest", "median", "largest"]].astype(float), expected)


def test_sample_inputs_draw_the_chosen_sample(batch):
    figure = plots.sample_inputs(batch, 1, VIEWS.active(CONFIG), CONFIG)
    window, colorbar, features, indicators = _axes_by_title(figure, "OHLCV window", "", "Topology", "Complexity")
    assert len(figure.axes) == 4, "a clock is not drawn"
    ohlcv, tda, complexity = (batch.inputs[name][1] for name in ("nbeats", "tda", "complexity"))
    np.testing.assert_array_equal(window.collections[0].get_array(), ohlcv.T)
    assert [label.get_text() for label in window.get_yticklabels()] == CHANNELS
    assert [int(label.get_text()) for label in window.get_xticklabels()] == [-7, -6, -5, -4, -3, -2, -1, 0]
    low, high = window.collections[0].get_clim()
    assert low == -high == -ohlcv.abs().max().item(), "white must mean 0"
    drawn = {line.get_label(): line.get_xydata() for line in features.lines}
    np.testing.assert_array_equal(drawn["H0"], np.column_stack([np.arange(107), tda[:107]]))
    np.testing.assert_array_equal(drawn["H1"], np.column_stack([np.arange(107, 214), tda[107:]]))
    np.testing.assert_allclose([bar.get_width() for bar in indicators.patches], complexity)
    names = [label.get_text() for label in indicators.get_yticklabels()]
    assert names == ["permutation_entropy", "lempel_ziv"]
    assert "interquartile" in features.get_ylabel() and "interquartile" in indicators.get_xlabel()
    assert colorbar.get_ylabel() == "scaled value"


def bases(length):
    return trend_basis(length).numpy(), seasonality_basis(length).numpy()


def test_basis_functions_are_polynomials_and_waves():
    trend, cosine, sine = plots.basis_functions(*bases(8)).axes
    t = np.arange(8) / 8
    for line, power in zip(trend.lines, range(4), strict=True):
        np.testing.assert_allclose(line.get_ydata(), t**power, atol=1e-6)
    assert [text.get_text() for text in trend.get_legend().get_texts()] == ["1", "t", "t²", "t³"]
    assert "Seasonality: 3 cosines" in (cosine.get_title(loc="left"), cosine.get_title())
    for ax, wave in ((cosine, np.cos), (sine, np.sin)):
        named = {line.get_label(): line.get_ydata() for line in ax.lines}
        for k in (1, 2, 3):
            np.testing.assert_allclose(named[f"k = {k}"], wave(2 * np.pi * k * t), atol=1e-6)


def test_higher_harmonics_stay_grey_and_without_a_name():
    cosine = plots.basis_functions(*bases(96)).axes[1]
    grey = [line for line in cosine.lines if to_hex(line.get_color()) == GREY]
    assert len(cosine.lines) == 18 and len(grey) == 15
    assert all(line.get_label().startswith("_") for line in grey)


def test_table_names_every_difference_from_the_source():
    found = plots.compare_parameters(table(), table())
    assert found.loc["Model", ["this run", "default sizes"]].tolist() == [15_782_142, 15_782_142]
    match = found["match"]
    assert match["N-BEATS encoder"] == match["TDA encoder"] == match["Complexity encoder"] == "yes, rounded"
    assert match["Fusion: norms, per layer"] == match["Fusion: self-attention, per layer"] == "yes"
    differences = {"Fusion: feed-forward, per layer": "+256", "Fusion: layer": "+256", "Fusion": "+512"}
    assert {part: value for part, value in match.items() if value and "yes" not in value} == differences
    assert match["Trigger head"] == "" and found.loc["Trigger head", "source"] == "–"


def test_table_shows_both_sizes_and_concat():
    slim = table(fusion={"hidden_dim": 64, "output_dim": 64, "fusion_type": "concat"})
    found = plots.compare_parameters(slim, table(fusion={"fusion_type": "concat"}))
    assert found.loc["Fusion", "default sizes"] == 819_968 and found.loc["Fusion", "match"] == "-768"
    assert found.loc["Fusion", "this run"] == 1344 * 128 + 128 + 128 * 64 + 64


def test_a_wrong_rounded_count_is_no_match():
    def one(count):
        return pd.DataFrame([("encoder", count, "~61K")], columns=["part", "parameters", "source"])

    assert plots.compare_parameters(one(60_544), one(60_544)).loc["encoder", "match"] == "yes, rounded"
    assert plots.compare_parameters(one(60_544), one(61_600)).loc["encoder", "match"] == "no, 61,600"


def test_treemap_adds_up():
    model = nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1, bias=False)))
    tiles = plots.parameter_treemap(model).data[0]
    sizes = dict(zip(tiles.ids, tiles.values, strict=True))
    assert sizes == {"model": 16, "model/0": 8, "model/1": 8, "model/1/0": 6, "model/1/1": 2}
    assert dict(zip(tiles.ids, tiles.parents, strict=True))["model/1/0"] == "model/1"
    assert tiles.branchvalues == "total"


def test_overfit_curve_draws_each_term_and_the_goal():
    losses = pd.DataFrame({"total": [4.0, 1.0, 0.1], "trigger": [3.0, 0.5, 0.05]})
    ax = plots.overfit_curve(losses).axes[0]
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert drawn["total"] == [4.0, 1.0, 0.1] and drawn["trigger"] == [3.0, 0.5, 0.05]
    assert drawn["5% of the first total"] == pytest.approx([0.2, 0.2])
    assert ax.get_yscale() == "log"


def test_attention_grid_keeps_rows_and_columns():
    values = np.array([[0.7, 0.3], [0.1, 0.9]])
    figure = plots.attention_grid({"layer 1": values}, {"layer 1": ["nbeats", "tda"]})
    ax = figure.axes[0]
    np.testing.assert_array_equal(ax.collections[0].get_array(), values)
    assert [text.get_text() for text in ax.texts] == ["0.70", "0.30", "0.10", "0.90"]
    assert ax.collections[0].get_clim() == (0, 1)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["nbeats", "tda"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("looks at", "token")


def test_attention_grid_says_when_there_is_none():
    assert "no attention" in plots.attention_grid({}, {}).texts[0].get_text()


def _axes_by_title(figure, *titles):
    """Axes by their title, in the order asked for."""
    axes = {ax.get_title() or ax.get_title(loc="left"): ax for ax in figure.axes}
    return [axes[title] for title in titles]
