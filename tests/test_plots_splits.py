"""The pictures of a split draw the parts that the samples have."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.dates import date2num

from cmat_lib.config import load_config
from cmat_lib.data.splits import PARTS, Span, fold_stretches
from cmat_lib.plots import splits as plots

HOUR = pd.Timedelta("1h")


def test_split_picture_shows_parts_and_the_purged_zone():
    close_time = pd.date_range("2024-01-01", periods=40, freq=HOUR, tz="UTC")
    part = np.repeat(["train", "purged", "stop", "calibrate", "test"], [8, 2, 10, 10, 10])
    one = pd.DataFrame({"close_time": close_time, "label_end": close_time + 2 * HOUR, "part": part})
    samples = pd.concat([one.assign(symbol="AAA"), one.assign(symbol="BBB")], ignore_index=True)
    marks = close_time[[0, 10, 20, 30, 39]]
    spans = [Span(part, *pair) for part, pair in zip(PARTS, pairwise(marks), strict=True)]
    figure = plots.split_picture(samples, spans)
    whole, *near = figure.axes
    assert len(whole.collections[0].get_offsets()) == 80 and len(near) == 3
    colors = [to_hex(color).upper() for color in whole.collections[0].get_facecolors()]
    assert colors == list(samples["part"].map(plots.COLORS).str.upper())
    assert len(near[0].collections[0].get_offsets()) == 2 * 17, "8 hours to either side of the border"
    assert [t.get_text() for t in whole.get_yticklabels()] == ["AAA", "BBB"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["train", "stop", "calibrate", "test", "purged"]


@pytest.fixture(scope="module")
def stretches():
    """Four groups of 100 hours, one of them tested; labels of 5 hours, inputs of 20."""
    index = pd.date_range("2025-01-01", periods=400, freq="h", tz="UTC")
    close = pd.Series(index + HOUR)
    samples = pd.DataFrame({"close_time": close, "label_end": (close + 5 * HOUR).where(close.index < 395)})
    samples["input_start"] = close - 20 * HOUR
    keys = {"timeframe": "1h", "split": "combinatorial", "folds": 4, "test_groups": 1, "fold": 1}
    data = load_config(changes={"data": keys}).data
    return fold_stretches({"A": pd.DataFrame(index=index)}, pd.concat([samples, samples]), data)


def test_stretches_tile_the_time_of_every_fold(stretches):
    for _, rows in stretches.groupby("fold"):
        assert (rows["start"].iloc[1:].to_numpy() == rows["end"].iloc[:-1].to_numpy()).all()
        assert (rows["start"].min(), rows["end"].max()) == (stretches["start"].min(), stretches["end"].max())
    own = stretches[stretches["fold"] == 1]
    hours = (own["end"] - own["start"]) / HOUR
    # The first candle closes an hour after time begins, and the last label ends five hours before it ends.
    assert list(zip(own["part"], hours, strict=True))[:5] == [
        ("train", 95),
        ("purged", 4),
        ("test", 96),
        ("purged", 4),
        ("embargo", 20),
    ]


def test_fold_picture_draws_every_stretch_and_names_the_test_dates(stretches):
    figure = plots.fold_picture(stretches, chosen=1)
    (axes,) = figure.axes
    assert len(axes.collections) == len(stretches)
    for bar, row in zip(axes.collections, stretches.itertuples(), strict=True):
        box = bar.get_paths()[0].get_extents()
        expected = date2num([row.start.tz_convert(None), row.end.tz_convert(None)])
        np.testing.assert_allclose([box.x0, box.x1], expected)
        assert to_hex(bar.get_facecolor()[0]).upper() == plots.COLORS[row.part].upper()
        assert bar.get_alpha() == (1.0 if row.fold == 1 else 0.45)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["fold 0", "fold 1 (this run)", "fold 2", "fold 3"]
    tests = stretches[stretches["part"] == "test"]
    texts = [f"{r.start:%Y-%m-%d} – {r.end:%Y-%m-%d}" for r in tests.itertuples()]
    assert [t.get_text() for t in axes.texts] == texts
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["train", "stop", "calibrate", "test", "purged", "embargo"]
