"""Fixtures that several files share."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # two test processes share the cores; read when torch is imported

import torch
from smoke_run import smoke_run


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests run in two processes on small arrays, where more threads only get in each other's way."""
    torch.set_num_threads(1)


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
