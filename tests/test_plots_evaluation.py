"""What the figures of page 05 draw is the data they are given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from sklearn.metrics import precision_recall_curve, roc_curve

from cmat_lib.evaluation.breakdown import auc_by_group, precision_by_share, reliability_table, time_groups
from cmat_lib.evaluation.metrics import SCOPES, metric_names
from cmat_lib.evaluation.names import metric_name, score_name
from cmat_lib.evaluation.uncertainty import Resampling
from cmat_lib.plots import evaluation as plots
from cmat_lib.plots import intervals

RESAMPLING = Resampling(pd.Timedelta("20h"), samples=50)


def title(axes):
    return axes.get_title(loc="left") or axes.get_title()


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


@pytest.fixture(scope="module")
def part():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"symbol": "A", "timestamp": pd.date_range("2024-01-01", periods=400, freq="1h", tz="UTC")})
    raw = rng.random(400)
    frame["trigger"] = (rng.random(400) < 0.4 * raw).astype(float)
    frame["raw_probability"], frame["probability"], frame["volatility"] = raw, 0.4 * raw, rng.random(400)
    frame["predicted_max_pct"], frame["max_pct"] = 3 * raw, 3 * raw + rng.normal(0, 0.1, 400)
    return frame


@pytest.fixture
def scores():
    names = ("probability", "volatility")
    index = pd.MultiIndex.from_product([names, SCOPES, metric_names()], names=["score", "scope", "metric"])
    value = np.linspace(0.1, 0.6, len(index))
    table = pd.DataFrame({"value": value, "low": value - 0.05, "high": value + 0.05}, index=index)
    table.loc[("volatility", slice(None), "brier"), :] = np.nan
    table.loc[(slice(None), slice(None), "base_rate"), "value"] = 0.2
    return table


def test_score_forest_draws_values_intervals_and_no_skill(scores):
    panels = intervals.score_forest(scores, ["roc_auc", "pr_auc", "brier"], 0.95).axes
    assert [title(axes) for axes in panels] == ["ROC-AUC", "PR-AUC", "Brier score (lower is better)"]
    assert [axes.lines[0].get_xdata()[0] for axes in panels] == pytest.approx([0.5, 0.2, 0.2 * 0.8])
    for scope, lines, dots in zip(SCOPES, panels[0].collections[::2], panels[0].collections[1::2], strict=True):
        rows = scores.xs((scope, "roc_auc"), level=("scope", "metric")).loc[["probability", "volatility"]]
        np.testing.assert_allclose([segment[:, 0] for segment in lines.get_segments()], rows[["low", "high"]])
        np.testing.assert_allclose(dots.get_offsets()[:, 0], rows["value"])
        colors = [plots.SCORE_COLORS[name] for name in rows.index]
        assert [to_hex(color).upper() for color in dots.get_edgecolors()] == [color.upper() for color in colors]
        faces = [to_hex(color).upper() for color in dots.get_facecolors()]
        assert faces == (colors if scope == "pooled" else ["#FFFFFF"])
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["model", "volatility alone"]


def test_every_metric_has_a_name_and_its_no_skill():
    named = {metric: metric_name(metric) for metric in metric_names()}
    assert len(set(named.values())) == len(named)
    assert named["precision_top_2"] == "precision, top 2 %" and named["recall"] == "recall, at threshold"
    skill = {metric: plots.no_skill(metric, 0.2) for metric in metric_names()}
    assert skill["roc_auc"] == 0.5 and skill["precision_top_5"] == skill["pr_auc"] == 0.2
    assert skill["recall_top_5"] == 0.05 and skill["lift_top_1"] == 1 and skill["brier_skill"] == skill["mcc"] == 0
    assert skill["brier"] == pytest.approx(0.16) and np.isnan(skill["recall"])
    assert score_name("raw_trees") == score_name("trees") == "boosted trees"


def test_difference_forest_has_its_sign():
    metrics = ["roc_auc", "brier"]
    index = pd.MultiIndex.from_product(
        [["volatility", "trees"], SCOPES, metrics], names=["baseline", "scope", "metric"]
    )
    table = pd.DataFrame({"value": [0.1, -9, 0.2, -9, -0.1, -9, -0.2, -9]}, index=index)
    table["low"], table["high"] = table["value"] - 0.05, table["value"] + 0.05
    figure = intervals.difference_forest(table, metrics, 0.9)
    axes = figure.axes[0]
    points = np.concatenate([dots.get_offsets()[:, 0] for dots in axes.collections[1::2]])
    assert points.tolist() == [0.1, -0.1, 0.2, -0.2], "pooled first, then within"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["model − volatility alone", "model − boosted trees"]
    assert axes.lines[0].get_xdata()[0] == 0 and "90%" in figure.get_suptitle()
    assert [title(axes) for axes in figure.axes] == ["ROC-AUC", "Brier score (lower is better)"]


def test_ablation_forest_keeps_the_order_of_rows():
    index = pd.MultiIndex.from_product(
        [["whole", "concat", "trees"], SCOPES, ["roc_auc"]], names=["row", "scope", "metric"]
    )
    table = pd.DataFrame({"value": np.linspace(0.5, 0.8, 6), "low": 0.4, "high": 0.9}, index=index)
    axes = intervals.ablation_forest(table, "roc_auc", 0.95).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["whole", "concat", "trees"]
    points = np.concatenate([dots.get_offsets()[:, 0] for dots in axes.collections[1::2]])
    np.testing.assert_allclose(points, table["value"].to_numpy()[[0, 2, 4, 1, 3, 5]])
    assert axes.lines[-1].get_xdata()[0] == 0.5


def test_gap_chart_shows_every_part_over_its_own_base_rate():
    index = pd.MultiIndex.from_product([["pooled"], ["roc_auc", "pr_auc", "base_rate"]], names=["scope", "metric"])
    gap = pd.DataFrame([[0.9, 0.6, 0.3, 0.33], [0.5, 0.2, 0.3, 0.6], [0.1, 0.05, 0.05, 0.5]], index=index)
    gap.columns = ["train", "test", "gap", "relative_gap"]
    roc, pr = plots.gap_chart(gap, ["roc_auc", "pr_auc"]).axes
    np.testing.assert_allclose(lines(roc)["model"].get_ydata().astype(float), [0.9, 0.6])
    np.testing.assert_allclose(lines(roc)["no skill"].get_ydata(), 0.5)
    np.testing.assert_allclose(np.asarray(lines(pr)["no skill"].get_ydata(), float), [0.1, 0.05])


def test_curves_rank_by_the_raw_score(part):
    tied = part.assign(probability=0.1)  # calibration may map all to one value; the ranking stays
    roc, pr = plots.roc_and_pr(tied, ["probability", "volatility"]).axes
    expected = roc_curve(tied["trigger"], tied["raw_probability"])
    np.testing.assert_allclose(lines(roc)["model"].get_xydata(), np.column_stack(expected[:2]))
    precision, recall, _ = precision_recall_curve(tied["trigger"], tied["volatility"])
    np.testing.assert_allclose(lines(pr)["volatility alone"].get_xydata(), np.column_stack([recall, precision])[:-1])
    assert f"base rate {tied['trigger'].mean():.1%}" in lines(pr)


def test_reliability_before_and_after(part):
    columns = {"Before": "raw_probability", "After": "probability"}
    tables = {name: reliability_table(part, column, RESAMPLING) for name, column in columns.items()}
    for axes, (name, table) in zip(plots.reliability(tables, 0.95).axes, tables.items(), strict=True):
        bars, points = axes.collections
        np.testing.assert_allclose(points.get_offsets(), table[["predicted", "observed"]])
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends, table[["low", "high"]])
        error = np.mean(np.abs(table["predicted"] - table["observed"]))  # ten groups of forty
        assert title(axes) == f"{name}: calibration error {error:.4f}"
        assert axes.get_ylim()[1] > table["high"].max() and "95%" in axes.get_ylabel()


def test_auc_by_group_draws_groups_band_and_base_rates(part):
    table = auc_by_group(part, time_groups(part), ["probability", "volatility"], RESAMPLING)
    top, bottom = plots.auc_curves(table, 0.95).axes
    model = table.xs("probability", level="score")
    np.testing.assert_allclose(lines(top)["model"].get_ydata(), model["value"])
    np.testing.assert_allclose(lines(top)["volatility alone"].get_ydata(), table.xs("volatility", level=1)["value"])
    band = top.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(model["low"].min()) and band[:, 1].max() == pytest.approx(
        model["high"].max()
    )
    np.testing.assert_allclose([bar.get_height() for bar in bottom.patches], model["base_rate"])
    assert "by week" in title(top) and bottom.get_xlabel() == "start of the week (UTC)"
    assert bottom.patches[0].get_width() == pytest.approx(0.8 * 7), "days"


def test_auc_by_hour_has_bars_of_hours(part):
    groups = part["timestamp"].dt.hour.rename("hour of day") // 6 * 6
    table = auc_by_group(part, groups, ["probability"], RESAMPLING)
    _, bottom = plots.auc_curves(table, 0.95).axes
    assert [bar.get_width() for bar in bottom.patches] == [pytest.approx(4.8)] * 4
    assert bottom.get_xlabel() == "hour of day (UTC)"


def test_precision_curve_stands_over_the_base_rate(part):
    table = precision_by_share(part, ["probability", "volatility"], [0.05, 0.2, 0.8])
    axes = plots.precision_curve(table, base_rate=0.25, top_shares=[0.02, 0.1]).axes[0]
    np.testing.assert_allclose(lines(axes)["model"].get_ydata(), table["probability"])
    assert (
        lines(axes)["base rate 25.0%"].get_ydata()[0] == 0.25
        and lines(axes)["shares of the score table"].get_xdata()[0] == 0.02
    )
    assert axes.get_xscale() == "log"


def test_predicted_and_realised_by_tenths(part):
    axes = plots.predicted_and_realised(part).axes[0]
    ordered = part.sort_values("predicted_max_pct")
    medians = [part["max_pct"].median() for part in (ordered.iloc[i : i + 40] for i in range(0, 400, 40))]
    np.testing.assert_allclose(lines(axes)["realised median of each tenth"].get_ydata(), medians)
    assert axes.collections[0].get_array().sum() == (part["max_pct"] <= part["max_pct"].quantile(0.995)).sum()
    assert axes.get_xlabel() == "predicted (%)" and "%" in axes.get_ylabel()
