"""What the figures beside the maps draw is the frames they are given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection

from cmat_lib.plots import attribution as plots
from cmat_lib.plots.candles import decomposition_over_candles

NAMES = ["nbeats", "tda", "complexity"]


def rows(**columns):
    frame = pd.DataFrame(columns)
    rng = np.random.default_rng(0)
    frame["value"] = rng.normal(size=len(frame))
    return frame.assign(low=frame["value"] - 0.1, high=frame["value"] + 0.2)


def points(axes):
    """Values of all points of a panel, in the order in which they were drawn."""
    drawn = [dots.get_offsets()[:, 0] for dots in axes.collections if isinstance(dots, PathCollection)]
    return np.concatenate([values.filled(np.nan) for values in drawn])


def spans(axes):
    drawn = [lines for lines in axes.collections if isinstance(lines, LineCollection)]
    return np.concatenate([[s[:, 0] for s in lines.get_segments()] for lines in drawn])


def labels(axes):
    return [text.get_text() for text in axes.get_yticklabels()]


@pytest.fixture
def shapley():
    return rows(modality=np.repeat(NAMES, 4), measure=list(plots.MEASURES) * 3).assign(sampling_error=0.0)


def test_shapley_forest(shapley):
    pairs = rows(first=["nbeats", "nbeats"], second=["tda", "complexity"])
    left, right = plots.shapley_forest(shapley, pairs, 0.9).axes
    ordered = shapley.set_index(["measure", "modality"]).loc[[(m, n) for m in plots.MEASURES for n in NAMES]]
    np.testing.assert_allclose(points(left), ordered["value"])
    np.testing.assert_allclose(spans(left), ordered[["low", "high"]])
    np.testing.assert_allclose(points(right), pairs["value"])
    assert labels(left) == NAMES and labels(right) == ["nbeats × tda", "nbeats × complexity"]


def test_permutation_forest_sorts_each_panel():
    ablation = rows(modality=NAMES)
    importance = rows(kind=["nbeats", "nbeats", "tda"], name=["roc", "log_close", "H0 curve"])
    panels = plots.permutation_forest(ablation, importance, 0.9).axes
    assert [axes.get_title() or axes.get_title(loc="left") for axes in panels] == [
        "Whole views",
        "Parts of nbeats",
        "Parts of tda",
    ]
    ordered = ablation.sort_values("value", ascending=False)
    assert labels(panels[0]) == ordered["modality"].tolist()
    np.testing.assert_allclose(points(panels[0]), ordered["value"])
    np.testing.assert_allclose(sorted(points(panels[1])), sorted(importance["value"][:2]))


def test_shares_stand_beside_shapley_values(shapley):
    shares = rows(modality=NAMES[::-1])
    left, right = plots.shares_and_shapley(shares, shapley, 0.9).axes
    worth = shapley[shapley["measure"] == "shapley"].set_index("modality")["value"]
    np.testing.assert_allclose(points(left), shares["value"])
    np.testing.assert_allclose(points(right), worth.loc[NAMES[::-1]])
    assert labels(left) == NAMES[::-1]


def test_agreement_and_missing_intervals():
    agreement = rows(
        reference=np.repeat(["shapley", "ablation"], 4),
        scope=["global", "global", "within samples", "tda"] * 2,
        statistic=["spearman", "kendall", "spearman", "spearman"] * 2,
    )
    agreement.loc[agreement["scope"] == "global", ["low", "high"]] = np.nan
    left, _ = plots.agreement_forest(agreement, 0.9).axes
    own = agreement[agreement["reference"] == "shapley"].reset_index()
    assert labels(left) == ["global", "within samples", "tda, across samples"]
    drawn = points(left)
    np.testing.assert_allclose(drawn[~np.isnan(drawn)], own["value"][[0, 2, 3, 1]])


def test_controls_have_a_panel_per_measure():
    controls = rows(control=["model", "uniform attention", "uniform attention"], measure=["loss", "loss", "entropy"])
    loss, entropy = plots.control_forest(controls, 0.9).axes
    np.testing.assert_allclose(points(loss), controls["value"][:2])
    assert np.isnan(points(entropy)[0]) and points(entropy)[1] == controls["value"][2]
    assert labels(loss) == ["model", "uniform attention"] and entropy.get_xlabel() == "entropy"


def test_bars_lead_from_nothing_seen_to_the_logit():
    sample = pd.DataFrame({"base": [-1.0], "shapley_nbeats": [0.5], "shapley_tda": [-0.25], "logit": [-0.75]})
    axes = plots.sample_shapley(sample, ["nbeats", "tda"], ["one"]).axes[0]
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(-1.0, 0.5), (-0.5, -0.25)]
    assert axes.lines[0].get_xdata().tolist() == [-1.0, -0.75]
    assert [t.get_text() for t in axes.texts] == ["+0.50", "-0.25"]
    assert labels(axes) == ["nothing seen", "nbeats", "tda", "everything seen"]


def test_gates_are_boxes():
    gates = np.random.default_rng(0).uniform(0, 1, (200, 2))
    axes = plots.gate_boxes(gates, ["a", "b"]).axes[0]
    for box, column in zip(axes.patches, gates.T, strict=True):
        ends = box.get_path().vertices[:, 0]
        np.testing.assert_allclose([ends.min(), ends.max()], np.quantile(column, [0.25, 0.75]), rtol=1e-5)
    assert labels(axes) == ["a", "b"]


def test_decomposition_sums_up_to_the_candles():
    rng = np.random.default_rng(0)
    log_close = np.append(0.05 * rng.normal(size=7), 0.0)
    close = 100 * np.expm1(log_close)
    window = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), close), index=np.arange(-7, 1))
    parts = 0.01 * rng.normal(size=(2, 8))
    rest = log_close - parts.sum(axis=0)  # its mean is a constant that no stack can take
    figure = decomposition_over_candles(window, parts, rest, ["trend", "generic"], "window")
    traces = {(trace.name, trace.yaxis): trace for trace in figure.data}
    np.testing.assert_allclose(traces["candle", "y"].close, close)
    np.testing.assert_allclose(traces["… + generic", "y"].y, 100 * np.expm1(parts.sum(axis=0) + rest.mean()))
    np.testing.assert_allclose(traces["generic", "y2"].y, 100 * parts[1])
    np.testing.assert_allclose(traces["left over", "y2"].y, 100 * (rest - rest.mean()))
