"""The live view of a training."""

import base64

import numpy as np

from cmat_lib.plots import training as plots
from cmat_lib.training.logs import epoch_line


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
    curves = plots.LiveCurves(epoch_line)
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
    say = plots.EpochLines(500, epoch_line)
    for epoch in range(1, 501):
        say({**row, "epoch": epoch})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 50 and lines[1].startswith("epoch  11")
