"""The live view of a training."""

import base64

import numpy as np
import pandas as pd
import pytest

from cmat_lib.plots import live as plots


@pytest.fixture
def history():
    return pd.DataFrame(
        {
            "epoch": [1, 2, 3, 4],
            "train_loss": [4.0, 3.0, 2.0, 1.0],
            "train_trigger_loss": [2.0, 1.5, 1.0, 0.5],
            "train_max_pct_loss": [2.0, 1.4, 1.1, 0.6],
            "stop_loss": [4.0, 2.5, 3.5, 3.8],
            "stop_trigger_loss": [2.0, 1.2, 1.7, 1.9],
            "stop_max_pct_loss": [2.1, 1.3, 1.8, 2.0],
            "stop_roc_auc": [0.5, 0.6, 0.71, 0.7],
            "learning_rate": [1e-3, 8e-4, 3e-4, 0.0],
        }
    )


def test_live_curves_are_replaced_in_place(history, monkeypatch):
    """The first epoch makes a place on the page, later ones redraw it."""
    shown = []

    class Place:
        def update(self, bundle, raw):
            shown.append(("update", bundle))

    def display(bundle, raw, display_id):
        shown.append(("display", bundle))
        return Place()

    monkeypatch.setattr(plots, "display", display)
    curves = plots.LiveCurves()
    rows = history.assign(samples_per_second=10.0, memory_gb=1.0, seconds_left=5.0).to_dict("records")
    for row in rows:
        curves(row)
    assert [kind for kind, _ in shown] == ["display"] + ["update"] * (len(rows) - 1)
    figure = shown[-1][1]["application/vnd.plotly.v1+json"]
    losses = np.frombuffer(base64.b64decode(figure["data"][0]["y"]["bdata"]))
    np.testing.assert_array_equal(losses, history["train_loss"])
    assert "best epoch" not in str(figure["layout"].get("annotations", ""))


def test_epoch_lines_are_at_most_fifty(history, capsys):
    row = history.assign(samples_per_second=10.0, memory_gb=1.0, seconds_left=5.0).to_dict("records")[0]
    say = plots.EpochLines(500)
    for epoch in range(1, 501):
        say({**row, "epoch": epoch})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 50 and lines[1].startswith("epoch  11")
