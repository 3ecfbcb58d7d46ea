"""What a training writes while it runs."""

import pandas as pd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cmat_lib.training.logs import TrainingLogs, epoch_line

ROW = {
    "epoch": 1,
    "train_loss": 0.5,
    "stop_loss": 0.25,
    "stop_roc_auc": 0.75,
    "samples_per_second": 12345.6,
    "memory_gb": 1.25,
    "seconds_left": 200.0,
}


def test_rows_reach_both_logs_at_once_and_old_logs_go(tmp_path):
    for rows in (3, 2):
        logs = TrainingLogs(tmp_path / "logs")
        for epoch in range(1, rows + 1):
            logs({**ROW, "epoch": epoch, "stop_loss": 1 / epoch})
            table = pd.read_csv(tmp_path / "logs/metrics.csv")
            assert table["epoch"].tolist() == list(range(1, epoch + 1)), "a row must not wait for the end"
            assert table["stop_loss"].iloc[-1] == 1 / epoch
        logs.close()
        events = EventAccumulator(str(tmp_path / "logs"))
        events.Reload()
        assert [(e.step, round(e.value, 6)) for e in events.Scalars("stop_loss")] == [
            (epoch, round(1 / epoch, 6)) for epoch in range(1, rows + 1)
        ]
    assert len(list((tmp_path / "logs").glob("events.*"))) == 1


def test_old_logs_stay_until_the_first_row(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/metrics.csv").write_text("of hours")
    TrainingLogs(tmp_path / "logs").close()
    assert (tmp_path / "logs/metrics.csv").read_text() == "of hours", "a training that is refused costs nothing"


def test_epoch_line():
    line = epoch_line(ROW)
    for part in (
        "epoch   1",
        "train loss 0.5000",
        "stop AUC 0.750",
        "12,346 samples/s",
        "1.2 GB",
        "at most 3 min left",
    ):
        assert part in line
    assert epoch_line({**ROW, "seconds_left": 60.0}).endswith("at most 60 s left")
    assert epoch_line({**ROW, "seconds_left": 9000.0}).endswith("at most 2.5 h left")
