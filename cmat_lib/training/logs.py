"""The history of a training while it runs: a CSV file, TensorBoard events, and lines of text."""

from __future__ import annotations

import shutil
from pathlib import Path

from lightning_fabric.loggers import CSVLogger, TensorBoardLogger

from cmat_lib.training.trainer import Row


class TrainingLogs:
    """Writes each row of the history to ``metrics.csv`` and to TensorBoard events in one folder, at once.

    The folder is emptied at the first row, not before: a training that goes on hands in its earlier rows again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._loggers = folder, []

    def __call__(self, row: Row) -> None:
        """Write one row."""
        if not self._loggers:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._loggers = [kind(self._folder, name="", version="") for kind in (CSVLogger, TensorBoardLogger)]
        for logger in self._loggers:
            logger.log_metrics(row, step=int(row["epoch"]))
            logger.save()

    def close(self) -> None:
        """Write what is left and close the files."""
        for logger in self._loggers:
            logger.finalize("success")


def epoch_line(row: Row) -> str:
    """One line of text for one epoch of the history."""
    return (
        f"epoch {row['epoch']:>3}  train loss {row['train_loss']:.4f}  stop loss {row['stop_loss']:.4f}  "
        f"stop AUC {row['stop_roc_auc']:.3f}  {row['samples_per_second']:,.0f} samples/s  {row['memory_gb']:.1f} GB  "
        f"at most {_duration(row['seconds_left'])} left"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
