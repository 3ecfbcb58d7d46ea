"""Fixtures that several files share."""

import logging
import os
import sys
from pathlib import Path

import pandas as pd
import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # two test processes share the cores; read when torch is imported

import torch
from smoke_run import smoke_run

from cmat_lib.commands.cli import main


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests run in two processes on small arrays, where more threads only get in each other's way."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_level():
    """A page that runs in this process sets the level of the library's log; the next test must not see it."""
    logger = logging.getLogger("cmat_lib")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def real_candles() -> Path:
    """Folder of real 15-minute candles, named by the environment variable CMAT_TEST_DATA."""
    folder = os.environ.get("CMAT_TEST_DATA")
    if not folder:
        pytest.skip("CMAT_TEST_DATA is not set: no real candles")
    return Path(folder)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The smoke run: its folder, its report, and the lines that it said. All test processes share one run."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    return smoke_run(shared / "smoke")


@pytest.fixture(scope="session")
def predictor(smoke):
    """What the smoke run has trained, ready to score candles."""
    from cmat_lib.workflow.predictor import Predictor

    return Predictor(smoke[0] / "run/models/cross_modal_attention/best_model.pt", "cpu")


@pytest.fixture(scope="session")
def market(predictor):
    """The candles that it was trained on."""
    return predictor.market(predictor.data())


@pytest.fixture
def cmat(monkeypatch, capsys):
    """Run the command in this process; returns exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["cmat", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def history() -> pd.DataFrame:
    """Four epochs of a training, the second with the lowest stop loss."""
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
