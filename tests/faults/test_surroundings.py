"""A full disk, a folder that cannot be written, a clock that jumps, a worker that dies, two runs in one folder."""

import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
import scenarios
from exchange_server import MINUTES, Binance, serving
from harness import CONTEXT, start

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import write_text
from cmat_lib.config import project_root
from cmat_lib.data.cache import Sliding, cached_features, verify
from cmat_lib.data.sources import exchange
from cmat_lib.data.sources.exchange import Downloader
from cmat_lib.training.checkpoint import write_tensors
from cmat_lib.workflow.follow import CsvOutput
from cmat_lib.workflow.run import Run


def note(record, fault, outcome):
    record("fault", fault)
    record("outcome", outcome)


# -- disk full ---------------------------------------------------------------------------------------------------------


def _on_a_full_disk(scenario, folder, limit, answer) -> None:
    """In a process of its own: no file may grow beyond `limit` bytes, as if the disk ended there."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        scenario.work(folder)
        answer.put("done")
    except CmatError as error:
        answer.put(f"CmatError: {error}")
    except BaseException as error:
        answer.put(f"{type(error).__name__}: {error}")


def fill(scenario, folder, limit):
    folder.mkdir(exist_ok=True)
    answer = CONTEXT.Queue()
    process = CONTEXT.Process(target=_on_a_full_disk, args=(scenario, folder, limit, answer))
    process.start()
    said = answer.get(timeout=300)
    process.join()
    return said


@pytest.fixture(scope="module")
def server():
    first = int(scenarios.START.timestamp() * 1000)
    with serving(Binance(now=first + 30 * 96 * 15 * MINUTES, listed=first)) as state:
        yield Binance(state.now, state.listed, url=state.url)


@pytest.mark.parametrize(
    ("name", "limit"), [("download", 20_000), ("training", 30_000), ("follow", 9_000), ("ledger", 3_400)]
)
def test_disk_full(server, tmp_path, record_property, name, limit):
    scenario = {
        "download": scenarios.Download(server),
        "training": scenarios.Train(),
        "follow": scenarios.Follow(),
        "ledger": scenarios.Ledger(),
    }[name]
    said = fill(scenario, tmp_path / "w", limit)
    assert said.startswith("CmatError") and "cannot be written" in said and "is the disk full?" in said, said
    assert not [path for path in (tmp_path / "w").rglob(".*") if path.is_file()], "no temporary file may be left"
    scenario.check(tmp_path / "w")
    after, undisturbed = (start(scenario, folder) for folder in (tmp_path / "w", tmp_path / "whole"))
    for process in (after, undisturbed):
        process.join()
        assert process.exitcode == 0
    assert scenario.result(tmp_path / "w") == scenario.result(tmp_path / "whole")
    note(
        record_property,
        f"disk full (RLIMIT_FSIZE) during: {scenario.name}",
        "error that names the file; with room again: as undisturbed",
    )


@pytest.mark.long
@pytest.mark.parametrize("limit", [2_000, 60_000, 150_000])
def test_disk_full_while_preparing(tmp_path, record_property, limit):
    scenario = scenarios.Prepare()
    said = fill(scenario, tmp_path / "w", limit)
    assert said.startswith("CmatError") and "cannot be written" in said, said
    scenario.check(tmp_path / "w")
    for folder in (tmp_path / "w", tmp_path / "whole"):
        process = start(scenario, folder)
        process.join()
        assert process.exitcode == 0
    assert scenario.result(tmp_path / "w") == scenario.result(tmp_path / "whole")
    note(
        record_property,
        f"disk full (RLIMIT_FSIZE) during: {scenario.name}",
        "error that names the file; with room again: as undisturbed",
    )


def test_a_full_disk_keeps_the_file_that_was_there(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    script = (
        "import resource, sys; from cmat_lib.base.files import write_text; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)); write_text(sys.argv[1], 'x' * 99)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], cwd=project_root(), capture_output=True, text=True)
    assert "CmatError" in done.stderr and "is the disk full?" in done.stderr
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


# -- folders that cannot be written ------------------------------------------------------------------------------------

WRITERS = {
    "run folder": lambda folder: scenarios.Prepare().work(folder),
    "predictions": lambda folder: CsvOutput(folder / "run/p.csv", "m").append(pd.DataFrame({"symbol": ["A"]})),
    "checkpoint": lambda folder: write_tensors(folder / "run/best_model.pt", {}),
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_folder_that_cannot_be_written(tmp_path, record_property, what):
    """A file stands where the folder should be: root, who may write anywhere, is stopped by that too."""
    (tmp_path / "run").write_text("a file")
    with pytest.raises(CmatError, match=r"run: cannot be written to \(.*\); choose another"):
        WRITERS[what](tmp_path)
    assert (tmp_path / "run").read_text() == "a file" and os.listdir(tmp_path) == ["run"]
    note(record_property, f"folder cannot be written: {what}", "error that names the folder, before any work")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into a read-only folder")
def test_a_read_only_folder(tmp_path, record_property):
    tmp_path.chmod(0o500)
    with pytest.raises(CmatError, match="cannot be written to"):
        write_text(tmp_path / "a.json", "")
    tmp_path.chmod(0o700)
    note(record_property, "read-only folder", "error that names the folder, before any work")


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_files_from_the_future_change_nothing(tmp_path, record_property):
    """A run counts by what files hold, not by when they were written."""
    index = pd.date_range("2024-01-01", periods=900, freq="1h", name="timestamp")
    close = 100 + np.arange(900) % 7
    frame = pd.DataFrame(
        {"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": 1.0}, index=index
    )
    (tmp_path / "data").mkdir()
    frame.to_csv(tmp_path / "data/AAA.csv")
    config = scenarios.Prepare().config(tmp_path)
    config = config.model_copy(update={"data": config.data.model_copy(update={"data_dir": str(tmp_path / "data")})})
    before = Run(config, "01_data_prep").fingerprint()
    for moment in (0, 2**33):
        os.utime(tmp_path / "data/AAA.csv", (moment, moment))
        assert Run(config, "01_data_prep").fingerprint() == before
    frame.iloc[:-1].to_csv(tmp_path / "data/AAA.csv")
    os.utime(tmp_path / "data/AAA.csv", (0, 0))
    assert Run(config, "01_data_prep").fingerprint() != before, "older by its time, and yet other candles"
    note(record_property, "clock jump: candle files dated 1970 or 2242", "fingerprints follow the content")


@pytest.mark.parametrize("days", [-400, 3], ids=["back", "ahead"])
def test_a_download_believes_the_clock_of_the_exchange(server, tmp_path, monkeypatch, record_property, days):
    now = time.time()
    monkeypatch.setattr(exchange.time, "time", lambda: now + days * 86400)
    download = Downloader(server.exchange(), "15m", tmp_path, (0.0, 0.0, 0.0), progress=False)
    file = download.download("BTC/USDT", scenarios.START)
    assert len(file.candles) == 30 * 96, "all finished candles, and not the one that has just begun"
    note(record_property, "clock jump during a download", "the exchange's clock says which candle is finished")


# -- a worker dies -----------------------------------------------------------------------------------------------------


def _means(series, ends, flag):
    """Kills its worker once, at the third chunk."""
    windows = np.lib.stride_tricks.sliding_window_view(series, 10)[ends - 9]
    if windows[0, -1] >= 4096 + 9 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return np.stack([windows.mean(axis=1), windows[:, -1]], axis=1).astype(np.float32)


def build(folder, flag):
    times = pd.date_range("2024-01-01", periods=9000, freq="1h", tz="UTC")
    compute = partial(_means, flag=flag)
    ends = np.arange(9, 9000)
    sliding = Sliding("tda", np.arange(9000.0), 10, compute, 2, {"a": 1})
    return cached_features(sliding, "AAA", times, ends, ends, folder, jobs=2, progress=False)


def test_a_worker_that_dies(tmp_path, record_property):
    with pytest.raises(CmatError, match=r"tda AAA: a worker process died, .* the same command goes on, with fewer"):
        build(tmp_path / "cache", tmp_path / "flag")
    assert verify(tmp_path / "cache") == []
    found = build(tmp_path / "cache", tmp_path / "flag")
    np.testing.assert_array_equal(found, build(tmp_path / "whole", tmp_path / "flag"))
    note(
        record_property,
        "a worker of the cache build is killed",
        "error that says so; the next start goes on from finished chunks",
    )


# -- two runs in one folder --------------------------------------------------------------------------------------------


def test_two_runs_in_one_folder(tmp_path, record_property):
    scenario = scenarios.Prepare()
    first = start(scenario, tmp_path / "w")
    while not (tmp_path / "w/run/.holder.json").is_file():
        assert first.is_alive()
        time.sleep(0.01)
    with pytest.raises(CmatError, match=f"process {first.pid} on .* works here since"):
        scenario.work(tmp_path / "w")
    first.join()
    assert first.exitcode == 0
    scenario.check(tmp_path / "w")
    note(
        record_property,
        "two runs in one run folder",
        "the second stops at once and names the first; the first ends undisturbed",
    )
