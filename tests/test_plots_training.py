"""Page 04 draws the data that it is given: rates, schedule, curves, calibration and distributions are read back."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from cmat_lib.config import load_config
from cmat_lib.data.splits import PARTS
from cmat_lib.plots import training as plots
from cmat_lib.training.optimisation import schedule


@pytest.fixture
def samples():
    """Two symbols with base rates of 1/2 and 1/4 in every part, and rows of no part."""
    times = pd.date_range("2025-01-01", periods=4 * len(PARTS), freq="1h", tz="UTC")
    frames = [
        pd.DataFrame(
            {
                "symbol": symbol,
                "timestamp": times,
                "part": np.repeat(PARTS, 4),
                "trigger": np.tile(np.arange(4) < triggers, len(PARTS)).astype(float),
            }
        )
        for symbol, triggers in (("AAA", 2), ("BBB", 1))
    ]
    purged = pd.DataFrame({"symbol": "AAA", "timestamp": times[:1], "part": "purged", "trigger": 1.0})
    return pd.concat([*frames, purged], ignore_index=True)


def test_part_table_counts_each_part_in_time_order(samples):
    found = plots.part_table(samples)
    assert list(found.index) == list(PARTS)
    assert (found["samples"] == 8).all() and (found["triggers"] == 3).all(), "purged rows must not count"
    assert (found["base rate"] == 3 / 8).all()
    assert found.loc["stop", ["from", "to"]].tolist() == ["2025-01-01 04:00", "2025-01-01 07:00"]


def test_base_rates_are_percent_per_symbol_and_pooled(samples):
    ax = plots.base_rate_bars(samples).axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["AAA", "BBB", "all"]
    heights = {group.get_label(): [bar.get_height() for bar in group] for group in ax.containers}
    assert len(ax.containers) == len(PARTS)
    for group in ax.containers:
        assert [bar.get_height() for bar in group] == [50, 25, 37.5], heights
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(PARTS)
    assert "%" in ax.get_ylabel()


def factors(steps, training):
    return np.array([schedule(step, steps, training.warmup_share) for step in range(steps)])


def test_schedule_warms_up_and_falls_to_zero():
    training = load_config(changes={"training": {"epochs": 10, "warmup_share": 0.1}}).training
    encoders, transformer = plots.schedule_curve(factors(200, training), 20, training).data
    rates = np.array(encoders.y)
    assert list(encoders.x) == list(range(200))
    assert rates[0] == pytest.approx(training.learning_rate / 20) and rates.argmax() == 19
    assert rates.max() == pytest.approx(training.learning_rate)
    assert rates[110] == pytest.approx(training.learning_rate / 2)
    np.testing.assert_allclose(np.array(transformer.y) / rates, 0.0003 / 0.0005)
    assert list(encoders.customdata[[0, 19, 20, 199]]) == [1, 1, 2, 10]


def test_a_long_schedule_is_thinned_but_keeps_its_ends():
    training = load_config(changes={"training": {"epochs": 500}}).training
    line = plots.schedule_curve(factors(50_000, training), 100, training).data[0]
    assert len(line.x) <= plots.MOST_POINTS and (line.x[0], line.x[-1]) == (0, 49_999)


def test_curves_hold_the_history_and_mark_the_best_epoch(history):
    figure = plots.training_curves(history, best_epoch=2)
    drawn = {trace.name: (list(trace.x), list(trace.y), trace.yaxis) for trace in figure.data}
    assert drawn["train loss"] == ([1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0], "y")
    assert drawn["stop loss"] == ([1, 2, 3, 4], [4.0, 2.5, 3.5, 3.8], "y")
    assert drawn["stop AUC"] == ([1, 2, 3, 4], [0.5, 0.6, 0.71, 0.7], "y2")
    assert drawn["learning rate (encoders)"][1] == [1e-3, 8e-4, 3e-4, 0.0]
    assert {shape.x0 for shape in figure.layout.shapes if shape.x0 == shape.x1} == {2}
    assert [note.text.strip() for note in figure.layout.annotations] == ["best epoch 2"]
    assert figure.layout.yaxis2.range[0] < 0.5 and figure.layout.yaxis2.range[1] > 0.71
    assert (figure.layout.yaxis.title.text, figure.layout.xaxis3.title.text) == ("loss", "epoch")


def test_loss_terms_stand_apart(history):
    for ax, term in zip(plots.loss_terms(history, 2).axes, ("trigger", "max_pct"), strict=True):
        drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
        np.testing.assert_array_equal(drawn["train"], history[f"train_{term}_loss"])
        np.testing.assert_array_equal(drawn["stop"], history[f"stop_{term}_loss"])
        assert list(ax.lines[-1].get_xdata()) == [2, 2]
        assert any(text.startswith(term) for text in (ax.get_title(), ax.get_title(loc="left")) if text)


def test_loss_of_the_auxiliary_head_is_drawn_where_there_is_one(history):
    assert len(plots.loss_terms(history, 2).axes) == 2
    with_head = history.assign(train_auxiliary_loss=[4.0, 3.0, 2.0, 1.0], stop_auxiliary_loss=[5.0, 4.5, 4.0, 4.2])
    *_, ax = plots.loss_terms(with_head, 2).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.lines[:2]}
    assert drawn == {"train": [4.0, 3.0, 2.0, 1.0], "stop": [5.0, 4.5, 4.0, 4.2]}
    assert (ax.get_title(loc="left") or ax.get_title()).startswith("auxiliary")


def test_epoch_table_has_best_and_last(history):
    found = plots.epoch_table(history, 2)
    assert list(found.columns) == ["best (2)", "last (4)"]
    assert found.loc["stop_loss"].tolist() == [2.5, 3.8] and found.loc["stop_roc_auc"].tolist() == [0.6, 0.7]
    assert list(plots.epoch_table(history, 4).columns) == ["best (4)", "last (4)"]


def test_calibration_map_runs_through_the_knots():
    raw = np.array([0.21, 0.23, 0.51, 0.91])
    calibration = {"method": "isotonic", "x": [0.2, 0.4, 0.8], "y": [0.0, 0.1, 0.3]}
    above, below = plots.calibration_map(calibration, raw, threshold=0.25).axes
    drawn = {line.get_label(): line.get_xydata() for line in above.lines}
    grid, drawn_map = drawn["isotonic map"].T
    assert grid[0] == 0 and grid[-1] == 1 and {0.2, 0.4, 0.8} <= set(grid)
    expected = np.interp(grid, calibration["x"], calibration["y"])
    np.testing.assert_allclose(drawn_map, expected, err_msg="constant outside the knots")
    np.testing.assert_array_equal(drawn["no change"], [[0, 0], [1, 1]])
    assert set(drawn["threshold 0.250"][:, 1]) == {0.25}
    counts = {round(bar.get_x(), 2): bar.get_height() for bar in below.patches if bar.get_height()}
    assert counts == {0.2: 1, 0.22: 1, 0.5: 1, 0.9: 1}
    assert below.get_xlabel() == "raw score of the model"


def test_distribution_gives_each_class_area_one():
    rng = np.random.default_rng(0)
    trigger = np.repeat([0, 1], [300, 20])
    raw = np.where(trigger == 1, rng.uniform(0.6, 0.9, 320), rng.uniform(0.1, 0.4, 320))
    first, last = plots.probability_distribution({"raw score": raw, "probability": raw / 2}, trigger, 0.2).axes
    for ax, scale in ((first, 1), (last, 2)):
        for name, low, high in (("trigger", 0.6, 0.9), ("no trigger", 0.1, 0.4)):
            (shape,) = [c for c in ax.collections if to_hex(c.get_facecolor()[0]) == plots.CLASS_COLORS[name].lower()]
            x, density = shape.get_paths()[0].vertices.T
            area = 0.5 * abs(np.dot(x[:-1], density[1:]) - np.dot(x[1:], density[:-1]))
            assert area == pytest.approx(1, abs=1e-6)
            assert low / scale - 0.03 < x[density > 0].min() and x[density > 0].max() < high / scale + 0.03
    assert not first.get_legend() and {t.get_text() for t in last.get_legend().get_texts()} == set(plots.CLASS_COLORS)
    assert [list(line.get_xdata()) for line in last.lines] == [[0.2, 0.2]]
    assert (first.get_xlabel(), first.get_ylabel()) == ("raw score", "density")
