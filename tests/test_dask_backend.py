"""The build on a Dask cluster: the same bytes as at home, with a worker lost on the way, and mistakes that end."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.config.schema import CacheConfig, TdaConfig
from cmat_lib.data.cache import Sliding, cached_features, worker_pool
from cmat_lib.data.cache.chunks import CHUNK_WINDOWS
from cmat_lib.tda.features import feature_params, path_features

dask = pytest.importorskip("dask")  # an optional extra
pytest.importorskip("distributed")
pytestmark = pytest.mark.xdist_group("dask")

CONFIG = TdaConfig(window_size=40, time_delay=4, betti_bins=10)
SCALE = CONFIG.scales[0]
CHUNKS = 6
HERE = Path(__file__).parent


def features_with_log(series, ends, log, pause=0.0):
    """`path_features` that first leaves the number of its process."""
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(pause)
    return path_features(series, ends, *SCALE, CONFIG)


def deadly_features(series, ends):
    os._exit(3)


def broken_features(series, ends):
    raise ValueError("these candles are cursed")


def build(folder, compute):
    length = (CHUNKS - 1) * CHUNK_WINDOWS + 100 + CONFIG.window_size - 1
    close = np.cumsum(np.random.default_rng(0).normal(scale=0.01, size=length))
    times, ends = pd.date_range("2025-01-01", periods=length, freq="15min", tz="UTC"), np.arange(39, length)
    sliding = Sliding("tda", close, SCALE[0], compute, CONFIG.feature_dim, feature_params(CONFIG))
    return cached_features(sliding, "BTCUSDT", times, ends, ends, cache_dir=folder, jobs=1)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*/*")}


def started(log):
    return [int(pid) for pid in log.read_text().split()] if log.exists() else []


def on(scheduler):
    return worker_pool(CacheConfig(backend="dask", dask_scheduler=scheduler))


class Cluster:
    """A scheduler and its workers, each a process of its own, on the loopback interface."""

    def __init__(self, folder, workers):
        self.folder, self.processes = folder, []
        file = folder / "scheduler.json"
        self._start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file)
        while not file.exists():
            time.sleep(0.02)
        self.address = pd.read_json(file, typ="series")["address"]
        for _ in range(workers):
            self._start("dask_worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard")

    def _start(self, module, *arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
        command = [sys.executable, "-m", f"distributed.cli.{module}", *map(str, arguments)]
        with open(self.folder / "cluster.log", "a") as log:
            self.processes.append(subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log))

    def stop(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    made = []

    def make(workers):
        made.append(Cluster(tmp_path, workers))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_a_worker_killed_during_the_build_costs_its_chunk_only(tmp_path, cluster):
    two, log, killed = cluster(2), tmp_path / "log", []

    def kill_a_busy_worker():
        while len(started(log)) < 3:  # both work, and one has begun its second chunk
            time.sleep(0.01)
        killed.append(started(log)[-1])
        if killed[0] != os.getpid():
            os.kill(killed[0], signal.SIGKILL)

    watcher = threading.Thread(target=kill_a_busy_worker)
    with on(two.address):
        watcher.start()
        rows = build(tmp_path / "dask", functools.partial(features_with_log, log=log, pause=0.3))
    watcher.join()
    pids = started(log)
    assert {process.pid for process in two.processes[1:]} == set(pids)
    assert [process.poll() for process in two.processes].count(-signal.SIGKILL) == 1
    assert CHUNKS < len(pids) <= CHUNKS + 2  # what it worked on, and perhaps what it had not yet handed over
    assert pids.count(killed[0]) <= 2
    np.testing.assert_array_equal(
        rows, build(tmp_path / "loky", functools.partial(path_features, window=SCALE[0], delay=SCALE[1], config=CONFIG))
    )
    assert content(tmp_path / "dask") == content(tmp_path / "loky")


def test_a_single_worker_is_used(tmp_path, cluster):
    one, log = cluster(1), tmp_path / "log"
    with on(one.address):
        build(tmp_path / "dask", functools.partial(features_with_log, log=log))
        assert started(log) == [one.processes[1].pid] * CHUNKS
        with pytest.raises(ValueError, match="these candles are cursed"):
            build(tmp_path / "broken", broken_features)


@pytest.mark.long
def test_a_local_cluster_stands_in_and_deadly_chunks_end_the_build(tmp_path):
    log, local = tmp_path / "log", CacheConfig(backend="dask", jobs=2)
    dies = pytest.raises(CmatError, match="several workers of the local cluster died on the same chunk")
    with dies, dask.config.set({"distributed.scheduler.allowed-failures": 1}), worker_pool(local):
        build(tmp_path / "dask", functools.partial(features_with_log, log=log, pause=0.1))
        build(tmp_path / "deadly", deadly_features)
    assert len(set(started(log))) == 2 and os.getpid() not in started(log)
    build(tmp_path / "loky", functools.partial(path_features, window=SCALE[0], delay=SCALE[1], config=CONFIG))
    assert content(tmp_path / "dask") == content(tmp_path / "loky")


@pytest.mark.long
def test_a_scheduler_that_is_lost_ends_the_build_and_keeps_the_chunks(tmp_path, cluster):
    two, log = cluster(2), tmp_path / "log"

    def kill_the_scheduler():
        while not list(tmp_path.glob("dask/*/0*.f32")):
            time.sleep(0.01)
        two.processes[0].kill()

    watcher = threading.Thread(target=kill_the_scheduler)
    lost = pytest.raises(CmatError, match=f"{two.address} was lost; finished chunks are kept")
    with lost, dask.config.set({"distributed.comm.timeouts.connect": "1s"}), on(two.address):
        watcher.start()
        build(tmp_path / "dask", functools.partial(features_with_log, log=log, pause=0.3))
    watcher.join()
    assert 0 < len(list(tmp_path.glob("dask/*/0*.f32"))) < CHUNKS


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr("cmat_lib.data.cache.dask_backend.ANSWER_SECONDS", 0.5)
    with (
        pytest.raises(CmatError, match=r"dask_scheduler: tcp://127\.0\.0\.1:9 does not answer"),
        on("tcp://127.0.0.1:9"),
    ):
        pass
    idle = cluster(0).address
    with pytest.raises(CmatError, match=f"{idle} has no workers; start some with 'dask worker {idle}'"), on(idle):
        pass


def test_missing_dask_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "cmat_lib.data.cache.dask_backend", raising=False)
    with pytest.raises(CmatError, match="needs the package distributed, which is not installed; pip install"), on(None):
        pass
