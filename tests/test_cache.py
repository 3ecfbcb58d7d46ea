"""The feature cache: kills, damage, appends, two writers, trust."""

import json
import logging
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tqdm.auto import tqdm

from cmat_lib.base import files
from cmat_lib.base.errors import CmatError
from cmat_lib.data.cache import Sliding, cache_info, cached_features, clean, verify
from cmat_lib.data.cache.chunks import CHUNK_WINDOWS, chunk_files

WINDOW, WIDTH = 8, 3
T = 5 * CHUNK_WINDOWS + 100  # the last chunk holds 93 windows
ROWS = [CHUNK_WINDOWS] * 5 + [93]


def series(length=T, seed=0):
    return np.cumsum(np.random.default_rng(seed).normal(size=length))


def times(length=T):
    return pd.date_range("2025-01-01", periods=length, freq="15min", tz="UTC")


def ends(length=T):
    return np.arange(WINDOW - 1, length)


def moments(series, ends):
    windows = np.lib.stride_tricks.sliding_window_view(series, WINDOW)[ends - WINDOW + 1]
    return np.column_stack([windows.mean(axis=1), windows.std(axis=1), windows[:, -1] - windows[:, 0]])


def slow_moments(series, ends, log):
    """`moments` that takes a while and leaves a line per call, also from other processes."""
    time.sleep(0.04)
    with open(log, "a") as file:
        file.write(f"{len(ends)}\n")
    return moments(series, ends)


class Counting:
    """`moments` that counts its windows."""

    def __init__(self):
        self.windows = 0

    def __call__(self, series, ends):
        self.windows += len(ends)
        return moments(series, ends)


def build(folder, close=None, compute=moments, kind="tda", symbol="BTCUSDT", rows=None, all_rows=None, **changes):
    close = series() if close is None else close
    all_rows = ends(len(close)) if all_rows is None else all_rows
    rows = all_rows if rows is None else rows
    own = {"parameters": {"delay": 12}} | {k: changes.pop(k) for k in ("parameters", "version") if k in changes}
    sliding = Sliding(kind, close, WINDOW, compute, WIDTH, **own)
    return cached_features(sliding, symbol, times(len(close)), all_rows, rows, folder, **{"jobs": 1, **changes})


def expected(close):
    return moments(close, ends(len(close))).astype(np.float32)


def check(folder, close, windows):
    """A build gives the right rows and computes so many windows."""
    count = Counting()
    np.testing.assert_array_equal(build(folder, close, compute=count), expected(close))
    assert count.windows == windows


def chunks_named(lines):
    return [int(re.search(r": chunk (\d+) \(2025-\d\d-\d\dT\d{4} to 2025-", line)[1]) for line in lines]


def only(folder):
    (path,) = folder.glob("*_features_*")
    return path


def content(folder):
    return {path.name: path.read_bytes() for path in only(folder).iterdir()}


def chunk(folder, index):
    (file,) = (file for file in chunk_files(only(folder)) if file.index == index)
    return file.path


def test_rows_names_and_description(tmp_path):
    np.testing.assert_array_equal(build(tmp_path), expected(series()))
    folder = only(tmp_path)
    assert re.fullmatch("tda_features_BTCUSDT_[0-9a-f]{32}", folder.name)
    assert json.loads((folder / "about.json").read_text())["params"] == {"delay": 12}
    names = sorted(path.name for path in folder.glob("*.f32"))
    assert [int(name.split("_")[1]) for name in names] == ROWS
    assert names[1].startswith("00001_2048_2025-01-22T0945_2025-02-12T1730_")  # 2,055 and 4,102 quarters of an hour
    stored = np.concatenate([np.frombuffer((folder / name).read_bytes(), "<f4") for name in names])
    np.testing.assert_array_equal(stored.reshape(-1, WIDTH), expected(series()))
    assert len(list(folder.iterdir())) == len(ROWS) + 1


@pytest.mark.parametrize("rows", [slice(0, 0), slice(2000, 5000, 7), slice(5000, 2000, -7), slice(-1, None)])
def test_rows_that_are_wanted(tmp_path, rows):
    for _ in range(2):  # computed, and read
        found = build(tmp_path, rows=ends()[rows])
        np.testing.assert_array_equal(found, expected(series())[rows])
        assert found.shape[1] == WIDTH and found.dtype == np.float32
    check(tmp_path, series(), 0)


def test_second_read_computes_and_writes_nothing(tmp_path):
    build(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    check(tmp_path, series(), 0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_only_windows_without_gaps_are_asked_for(tmp_path):
    gap = slice(1900, 2300)
    rows = build(tmp_path, all_rows=np.delete(ends(), gap))
    np.testing.assert_array_equal(rows, np.delete(expected(series()), gap, axis=0))


@pytest.mark.parametrize("added", [1, 1955, 1956, 8000])
def test_new_candles_append(tmp_path, added, caplog):
    close = series(T + added)
    build(tmp_path / "grown", close[:T])
    check(tmp_path / "grown", close, 93 + added)
    check(tmp_path / "grown", close, 0)
    build(tmp_path / "whole", close)
    assert content(tmp_path / "grown") == content(tmp_path / "whole")  # no shorter chunk is left
    assert not caplog.messages


@pytest.mark.parametrize(
    ("what", "place", "windows"),
    [("value", 2, CHUNK_WINDOWS), ("time", 2, CHUNK_WINDOWS), ("ends", 1, CHUNK_WINDOWS), ("gap", 5, 92)],
)
def test_changed_candles_rebuild_their_chunk_and_name_it(tmp_path, caplog, what, place, windows):
    build(tmp_path, all_rows=np.delete(ends(), 3000) if what == "ends" else None)
    close, index, rows = series(), times(), ends()
    if what == "value":
        close[2 * CHUNK_WINDOWS + 1000] += 1
    elif what == "time":
        index = index.where(np.arange(T) != 2 * CHUNK_WINDOWS + 1000, index + pd.Timedelta("1min"))
    else:  # the window that is missing is another one, or one is missing at the end
        rows = np.delete(rows, 3001 if what == "ends" else T - 100)
    count = Counting()
    sliding = Sliding("tda", close, WINDOW, count, WIDTH, {"delay": 12})
    found = cached_features(sliding, "BTCUSDT", index, rows, rows, tmp_path, 1)
    np.testing.assert_array_equal(found, moments(close, rows).astype(np.float32))
    assert count.windows == windows and chunks_named(caplog.messages) == [place]
    assert all("is rebuilt: its candles changed" in line for line in caplog.messages)
    assert len(chunk_files(only(tmp_path))) == 6


def test_chunks_of_other_candles_beside_the_right_one_go_silently(tmp_path, caplog):
    """As two processes leave them that build from different candles at once."""
    build(tmp_path / "c")
    whole = content(tmp_path / "c")
    for number in range(4):  # before and after the right one in the order of names
        build(tmp_path / f"{number}", series() + number + 1)
        shutil.copy(chunk(tmp_path / f"{number}", 2), only(tmp_path / "c"))
    check(tmp_path / "c", series(), 0)
    assert content(tmp_path / "c") == whole and not caplog.messages


def test_a_rebuilt_chunk_does_not_vouch_for_the_old_candles(tmp_path):
    old, new = series(T + 60), series(T + 60)
    new[T + 10] += 1
    for close in (old[:T], old[: T + 50], new, old[: T + 50], old[:T], new[: T + 11]):
        np.testing.assert_array_equal(build(tmp_path, close), expected(close))


def test_shorter_request_keeps_what_is_behind_it(tmp_path, caplog):
    close = series()
    build(tmp_path, close)
    whole = content(tmp_path)
    check(tmp_path, close[: CHUNK_WINDOWS + 307], 300)
    assert content(tmp_path).items() > whole.items()
    check(tmp_path, close[: CHUNK_WINDOWS + 307], 0)
    check(tmp_path, close, 0)
    assert content(tmp_path) == whole and not caplog.messages  # the long chunk has taken the place of the short one


def test_shorter_request_with_changed_candles_replaces_the_chunk(tmp_path, caplog):
    build(tmp_path)
    close = series()[: CHUNK_WINDOWS + 307]
    close[-10] += 1
    check(tmp_path, close, 300)
    assert chunks_named(caplog.messages) == [1] and "candles changed" in caplog.text
    check(tmp_path, series(), CHUNK_WINDOWS)


def flip(path):
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def folder_in_place(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "flipped bit": flip,
    "cut": lambda path: os.truncate(path, 1000),
    "longer": lambda path: path.write_bytes(path.read_bytes() + bytes(12)),
    "empty": lambda path: path.write_bytes(b""),
    "a folder": folder_in_place,
    "other number": lambda path: path.rename(path.with_name(path.name.replace("00002", "00003", 1))),
    "other candles": lambda path: path.rename(path.with_name(re.sub("_[0-9a-f]{32}_", f"_{'0' * 32}_", path.name))),
    "other content": lambda path: path.rename(path.with_name(re.sub("[0-9a-f]{32}.f32", f"{'0' * 32}.f32", path.name))),
    "other rows": lambda path: path.rename(path.with_name(path.name.replace("_2048_", "_2049_"))),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_rebuilt(tmp_path, caplog, damage):
    build(tmp_path)
    whole = content(tmp_path)
    DAMAGE[damage](chunk(tmp_path, 2))
    place = [3 if damage == "other number" else 2]
    assert chunks_named(verify(tmp_path)) == place
    check(tmp_path, series(), CHUNK_WINDOWS)
    assert chunks_named(caplog.messages) == place and "it is damaged (checksum)" in caplog.text
    assert content(tmp_path) == whole and verify(tmp_path) == []


def test_a_missing_chunk_is_computed_and_strangers_are_left_alone(tmp_path, caplog):
    build(tmp_path)
    chunk(tmp_path, 1).rename(only(tmp_path) / "my copy.f32")
    (only(tmp_path) / "notes.txt").write_text("mine")
    check(tmp_path, series(), CHUNK_WINDOWS)
    assert not caplog.messages and verify(tmp_path) == []
    assert {"my copy.f32", "notes.txt"} < content(tmp_path).keys()


@pytest.mark.parametrize("damage", ["empty", "longer", "a folder", "missing"])
def test_a_damaged_description_is_written_again(tmp_path, damage):
    build(tmp_path)
    whole = content(tmp_path)
    {**DAMAGE, "missing": Path.unlink}[damage](only(tmp_path) / "about.json")
    assert verify(tmp_path) == [f"{only(tmp_path).name}: about.json is damaged or missing"]
    assert cache_info(tmp_path)["symbol"].tolist() == ["?"]
    check(tmp_path, series(), 0)
    assert content(tmp_path) == whole


@pytest.mark.parametrize("name", ["about.json", "chunk"])
def test_a_folder_of_somebody_in_the_place_of_a_file_is_not_touched(tmp_path, name):
    build(tmp_path)
    path = only(tmp_path) / name if name == "about.json" else chunk(tmp_path, 2)
    folder_in_place(path)
    (path / "mine").touch()
    for work in (build, clean):
        with pytest.raises(CmatError, match=f"{path.name}: cannot be removed .*move it away"):
            work(tmp_path)
    assert (path / "mine").exists()


class Crash(BaseException):
    """Stands for a kill: nothing after it runs."""


def crash_at(monkeypatch, number, after):
    """Die at the given call that changes the disk, just before it or just after it."""
    calls = iter(range(10**6))

    def deadly(original):
        def call(*args, **kwargs):
            dies = next(calls) == number
            if dies and not after:
                raise Crash
            result = original(*args, **kwargs)
            if dies:
                raise Crash
            return result

        return call

    for owner, name in ((files.os, "replace"), (Path, "unlink"), (Path, "mkdir")):
        monkeypatch.setattr(owner, name, deadly(getattr(owner, name)))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("first", [None, T], ids=["fresh", "append and change"])
def test_death_at_any_write_resumes_to_the_same_bytes(tmp_path, monkeypatch, caplog, first, after):
    close = series(T + 700)
    close[100] += 1
    build(tmp_path / "whole", close)
    whole, died, number = content(tmp_path / "whole"), True, 0
    while died:
        folder = tmp_path / f"{number}"
        if first:
            build(folder, series(T + 700)[:first])
        died, count = False, Counting()
        with monkeypatch.context() as patch:
            crash_at(patch, number, after)
            try:
                build(folder, close, compute=count)
            except Crash:
                died = True
        caplog.clear()
        assert verify(folder) == []
        build(folder, close, compute=count)
        assert content(folder) == whole
        assert "damaged" not in caplog.text
        # At most the chunk in hand at the moment of death is computed twice.
        assert count.windows <= (len(ends(len(close))) if first is None else CHUNK_WINDOWS + 793) + CHUNK_WINDOWS
        number += 1
    assert number > 7


def test_killed_builder_process_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    # tqdm's own lock is shared with forked processes, and one that is killed with it would leave everybody waiting.
    monkeypatch.setattr(tqdm, "_lock", threading.RLock(), raising=False)
    rng, context = random.Random(1), multiprocessing.get_context("fork")
    build(tmp_path / "whole")
    compute = partial(slow_moments, log=tmp_path / "log")
    kills = 0
    for _ in range(8):
        process = context.Process(target=build, args=(tmp_path / "killed",), kwargs={"compute": compute})
        process.start()
        process.join(rng.uniform(0.02, 0.12))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    build(tmp_path / "killed", compute=compute)
    assert kills >= 2
    assert sum(map(int, (tmp_path / "log").read_text().split())) <= len(ends()) + kills * CHUNK_WINDOWS
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.long
def test_killed_parent_of_workers_resumes_to_the_same_bytes(tmp_path):
    script = (
        "import sys, pathlib, functools, test_cache as t; folder = pathlib.Path(sys.argv[1]); "
        "t.build(folder, compute=functools.partial(t.slow_moments, log=folder / 'log'), jobs=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path / "killed"], cwd=os.path.dirname(__file__))
    while process.poll() is None and not list(tmp_path.glob("killed/*/0*.f32")):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    count = Counting()
    build(tmp_path / "killed", compute=count)
    build(tmp_path / "whole")
    assert 0 < count.windows < len(ends())
    (tmp_path / "killed/log").unlink()
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.parametrize("there", ["nothing", "damage", "other candles"])
def test_two_builders_at_once(tmp_path, there):
    """Of the same request; each ends, and so does a reader of both."""
    build(tmp_path / "whole")
    if there != "nothing":
        build(tmp_path / "c", series() + (there == "other candles"))
        for file in chunk_files(only(tmp_path / "c")):
            flip(file.path) if there == "damage" else None
    context = multiprocessing.get_context("fork")
    compute = partial(slow_moments, log=tmp_path / "log")
    trio = [context.Process(target=build, args=(tmp_path / "c",), kwargs={"compute": compute}) for _ in range(3)]
    [process.start() for process in trio]
    [process.join() for process in trio]
    assert [process.exitcode for process in trio] == [0, 0, 0]
    np.testing.assert_array_equal(build(tmp_path / "c"), expected(series()))
    assert content(tmp_path / "c") == content(tmp_path / "whole")


def test_a_file_that_goes_between_listing_and_opening_is_missing(tmp_path, monkeypatch, caplog):
    build(tmp_path)
    read = Path.read_bytes

    def gone(path):
        if path.name.startswith("00001_"):
            path.unlink()
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", gone)
        check(tmp_path, series(), CHUNK_WINDOWS)
        assert verify(tmp_path) == []
    assert not caplog.messages


def test_worker_processes_give_the_same_bytes(tmp_path):
    build(tmp_path / "one")
    build(tmp_path / "two", compute=partial(slow_moments, log=tmp_path / "log"), jobs=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len((tmp_path / "log").read_text().split()) == 6


def test_key_covers_parameters_symbol_kind_start_and_version(tmp_path):
    build(tmp_path)
    build(tmp_path, parameters={"delay": 13})
    build(tmp_path, symbol="ETH/USDT")
    build(tmp_path, kind="complexity")
    build(tmp_path, all_rows=ends()[1:])
    build(tmp_path, version=2)
    info = cache_info(tmp_path)
    assert sorted(info["symbol"]) == ["BTCUSDT"] * 5 + ["ETH/USDT"]
    assert sorted(info["windows"]) == [T - 8] + [T - 7] * 5 and set(info["width"]) == {WIDTH}
    assert sorted(name.rsplit("_", 1)[0] for name in info["folder"]) == [
        "complexity_features_BTCUSDT",
        *["tda_features_BTCUSDT"] * 4,
        "tda_features_ETH_USDT",
    ]
    assert info["first"].min() == "2025-01-01T0145" and info["last"].max() == times()[-1].strftime("%Y-%m-%dT%H%M")


def test_file_without_a_record_needs_trust(tmp_path):
    path, old = tmp_path / "tda_features_BTCUSDT.npy", expected(series()) + 1
    np.save(path, old)
    assert verify(tmp_path) == [f"{path.name}: no record beside it"]
    with pytest.raises(CmatError, match=f"{path.name}: this cache file has no record.*--trust-cache"):
        build(tmp_path)
    np.testing.assert_array_equal(build(tmp_path, trust=True, rows=ends()[5::9]), old[5::9])
    np.save(path, old[:-1])
    with pytest.raises(CmatError, match="wanted float32 "):
        build(tmp_path, trust=True)
    for damage in (lambda: path.write_bytes(b"no array"), lambda: folder_in_place(path)):
        damage()
        with pytest.raises(CmatError, match=r"not a readable \.npy file"):
            build(tmp_path, trust=True)
    assert os.listdir(tmp_path) == [path.name]
    path.rmdir()
    build(tmp_path)
    np.save(path, old)  # there is a folder already, which is better than trust
    check(tmp_path, series(), 0)


def test_mistakes_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CmatError, match=r"cannot be written to \(Not a directory\); choose another folder"):
        build(tmp_path / "file" / "cache")
    with pytest.raises(CmatError, match="BTCUSDT: no gap-free window of 8 candles"):
        build(tmp_path, all_rows=np.array([], dtype=int))
    with pytest.raises(ValueError, match="rows are asked for that end no window"):
        build(tmp_path, rows=np.array([T]))
    with pytest.raises(CmatError, match=r"tda BTCUSDT: features of shape \(2048, 2\), wanted \(2048, 3\)"):
        build(tmp_path, compute=lambda series, ends: moments(series, ends)[:, :2])
    with pytest.raises(CmatError, match="tda BTCUSDT: chunk 0 has features that are not finite"):
        build(tmp_path, compute=lambda series, ends: moments(series, ends) * np.nan)
    assert not list(tmp_path.glob("*/*.f32"))


def test_clean_frees_what_this_and_older_code_wrote_and_leaves_strangers(tmp_path):
    build(tmp_path)
    build(tmp_path, kind="complexity")
    mine = [tmp_path / "notes.txt", tmp_path / "tda_features_notes.txt", *tmp_path.glob("complexity_*")]
    for path in (*mine[:2], mine[2] / "mine"):
        path.write_text("mine")
    (tmp_path / "tda_features_A_1.parts").mkdir()
    old = [f"tda_features_A_1{end}" for end in (".npy", ".json", ".lock", ".parts/ab-cd.f32", ".parts/ab-ef.f32.draft")]
    for name in old:
        (tmp_path / name).write_text("old")
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) - 3 * 4
    assert clean(tmp_path) == size
    assert sorted(tmp_path.iterdir()) == sorted(mine) and os.listdir(mine[2]) == ["mine"]
    missing = tmp_path / "missing"
    assert cache_info(missing).empty and verify(missing) == [] and clean(missing) == 0


def test_what_killed_processes_left_half_written_is_removed(tmp_path):
    build(tmp_path)
    whole = content(tmp_path)
    left = only(tmp_path) / f".00009_3.{files.MARK}-999999999-abcdefgh.f32"
    left.touch()
    build(tmp_path)
    assert content(tmp_path) == whole
    left.touch()
    clean(tmp_path)
    assert not list(tmp_path.iterdir())


def test_bar_is_quiet_without_a_terminal_and_shows_rate_on_request(tmp_path, capsys, caplog):
    with caplog.at_level(logging.INFO):
        build(tmp_path / "a")
    assert capsys.readouterr().err == ""
    assert f"tda BTCUSDT: {T - 7} windows, {T - 7} of them computed in" in caplog.text
    build(tmp_path / "b", progress=True)
    shown = capsys.readouterr().err
    assert "tda BTCUSDT: 100%" in shown
    assert "windows/s" in shown


def wide(series, ends):
    return np.repeat(series[ends, None], 256, axis=1)


@pytest.mark.parametrize("kept", [False, True], ids=["computed", "read"])
def test_memory_beyond_the_result_does_not_grow_with_the_number_of_windows(tmp_path, kept):
    def peak(chunks):
        length = chunks * CHUNK_WINDOWS
        close, index, rows = series(length), times(length), np.arange(WINDOW - 1, length)
        sliding = Sliding("tda", close, WINDOW, wide, 256, {})
        read = partial(cached_features, sliding, f"S{chunks}", index, rows, cache_dir=tmp_path, jobs=1)
        if kept:
            read(rows[:0])
        tracemalloc.start()
        read(rows[:: CHUNK_WINDOWS // 8])
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        shutil.rmtree(tmp_path)
        return used

    peak(1)
    small, large = peak(3), peak(12)  # arrays of 6 and 25 MB
    assert large < small + 2_000_000
