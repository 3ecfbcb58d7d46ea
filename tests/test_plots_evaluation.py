"""What the figures of page 05 draw is the data they are given."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from cmat_lib.evaluation.breakdown import precision_by_share, reliability_table
from cmat_lib.evaluation.metrics import METRICS, SCOPES
from cmat_lib.plots import evaluation as plots
from cmat_lib.plots import intervals


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
    index = pd.MultiIndex.from_product([names, SCOPES, METRICS], names=["score", "scope", "metric"])
    value = np.linspace(0.1, 0.6, len(index))
    table = pd.DataFrame({"value": value, "low": value - 0.05, "high": value + 0.05}, index=index)
    table.loc[("volatility", slice(None), "brier"), :] = np.nan
    table.loc[(slice(None), slice(None), "base_rate"), "value"] = 0.2
    return table


def test_score_forest_draws_values_intervals_and_no_skill(scores):
    panels = intervals.score_forest(scores, ["roc_auc", "pr_auc", "brier"], 0.95).axes
    assert [title(axes) for axes in panels] == ["ROC-AUC", "PR-AUC", "Brier score (lower is better)"]
    assert [axes.lines[0].get_xdata()[0] for axes in panels] == pytest.approx([0.5, 0.2, 0.2 * 0.8])
    drawn = panels[0].lines[1:]  # interval, point, for each scope and score
    for line, place in zip(
        range(0, 8, 2), [(s, n) for s in SCOPES for n in ("probability", "volatility")], strict=True
    ):
        row = scores.loc[(place[1], place[0], "roc_auc")]
        assert list(drawn[line].get_xdata()) == [row["low"], row["high"]]
        assert drawn[line + 1].get_xdata()[0] == row["value"]
    assert drawn[1].get_markerfacecolor() != "white" and drawn[5].get_markerfacecolor() == "white"
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["model", "volatility alone"]


def test_difference_forest_has_its_sign():
    index = pd.MultiIndex.from_product([["volatility", "trees"], SCOPES], names=["baseline", "scope"])
    table = pd.DataFrame({"difference": [0.1, 0.2, -0.1, -0.2]}, index=index)
    table["low"], table["high"] = table["difference"] - 0.05, table["difference"] + 0.05
    figure = intervals.difference_forest(table, 0.9)
    axes = figure.axes[0]
    points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert points == [0.1, -0.1, 0.2, -0.2], "pooled first, then within"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["model − volatility alone", "model − boosted trees"]
    assert axes.lines[0].get_xdata()[0] == 0 and "90%" in title(axes)


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
    panels = plots.reliability(part).axes
    for axes, column in zip(panels, ("raw_probability", "probability"), strict=True):
        table = reliability_table(part[column].to_numpy(), part["trigger"].to_numpy())
        np.testing.assert_allclose(axes.collections[0].get_offsets(), table[["predicted", "observed"]])
        brier = np.mean((part[column] - part["trigger"]) ** 2)
        assert f"{brier:.4f}" in title(axes)
        assert axes.get_xlim()[1] > table["predicted"].max() and axes.get_ylim()[1] > table["observed"].max()


def test_score_over_time_draws_periods_and_base_rates():
    index = pd.to_datetime(["2024-01-01", "2024-01-08", "2024-01-15"]).rename("period")
    table = pd.DataFrame({"probability": [0.6, np.nan, 0.7], "base_rate": [0.1, 0.0, 0.2], "n": 10}, index=index)
    table.attrs["period"] = "week"
    top, bottom = plots.score_over_time(table, ["probability"]).axes
    np.testing.assert_allclose(lines(top)["model"].get_ydata(), table["probability"])
    assert [bar.get_height() for bar in bottom.patches] == [0.1, 0.0, 0.2]
    assert "per week" in title(top) and bottom.get_xlabel() == "start of the week (UTC)"
    assert bottom.patches[0].get_width() == pytest.approx(0.8 * 7), "days"


def test_precision_curve_stands_over_the_base_rate(part):
    table = precision_by_share(part, ["probability", "volatility"], [0.05, 0.2, 0.8])
    axes = plots.precision_curve(table, base_rate=0.25, top_share=0.02).axes[0]
    np.testing.assert_allclose(lines(axes)["model"].get_ydata(), table["probability"])
    assert lines(axes)["base rate 25.0%"].get_ydata()[0] == 0.25 and lines(axes)["top 2.0%"].get_xdata()[0] == 0.02
    assert axes.get_xscale() == "log"


def test_predicted_and_realised_by_tenths(part):
    axes = plots.predicted_and_realised(part).axes[0]
    ordered = part.sort_values("predicted_max_pct")
    medians = [part["max_pct"].median() for part in (ordered.iloc[i : i + 40] for i in range(0, 400, 40))]
    np.testing.assert_allclose(lines(axes)["realised median of each tenth"].get_ydata(), medians)
    assert axes.collections[0].get_array().sum() == (part["max_pct"] <= part["max_pct"].quantile(0.995)).sum()
    assert axes.get_xlabel() == "predicted (%)" and "%" in axes.get_ylabel()
