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
import time
import tracemalloc
from functools import partial

import numpy as np
import pandas as pd
import pytest

from cmat_lib.data.cache import chunks as store
from cmat_lib.data.cache.chunks import CHUNK_WINDOWS, FeatureStore
from cmat_lib.data.cache.upkeep import cache_info, cached_features, clean, verify
from cmat_lib.errors import CmatError

WINDOW, WIDTH = 8, 3
T = 5 * CHUNK_WINDOWS + 100  # the last chunk holds 93 windows


def series(length=T, seed=0):
    return np.cumsum(np.random.default_rng(seed).normal(size=length))


def times(length=T):
    return pd.date_range("2025-01-01", periods=length, freq="15min", tz="UTC")


def ends(length=T):
    return np.arange(WINDOW - 1, length)


def moments(windows):
    return np.column_stack([windows.mean(axis=1), windows.std(axis=1), windows[:, -1] - windows[:, 0]])


def slow_moments(windows, log):
    """`moments` that takes a while and leaves a line per call, also from other processes."""
    time.sleep(0.04)
    with open(log, "a") as file:
        file.write(f"{len(windows)}\n")
    return moments(windows)


class Counting:
    """`moments` that counts its windows."""

    def __init__(self):
        self.windows = 0

    def __call__(self, windows):
        self.windows += len(windows)
        return moments(windows)


def build(folder, close=None, compute=moments, kind="tda", symbol="BTCUSDT", rows=None, **changes):
    close = series() if close is None else close
    rows = ends(len(close)) if rows is None else rows
    options = {"params": {"delay": 12}, "jobs": 1, **changes}
    return cached_features(
        kind, symbol, close, times(len(close)), rows, WINDOW, compute, WIDTH, cache_dir=folder, **options
    )


def expected(close):
    return moments(np.lib.stride_tricks.sliding_window_view(close, WINDOW)).astype(np.float32)


def chunks_named(lines):
    return [int(re.search(r": chunk (\d+) \(2025-", line)[1]) for line in lines]


def only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def test_rows_names_and_record(tmp_path):
    rows = build(tmp_path)
    np.testing.assert_array_equal(rows, expected(series()))
    assert isinstance(rows, np.memmap)
    assert not rows.flags.writeable
    array = only(tmp_path, "*.npy")
    assert array.name.startswith("tda_features_BTCUSDT_")
    np.testing.assert_array_equal(np.load(array), rows)
    record = json.loads(array.with_suffix(".json").read_text())
    assert [chunk["rows"] for chunk in record["chunks"]] == [512, 512, 512, 512, 512, 93]
    assert record["chunks"][1]["first"] == str(times()[WINDOW - 1 + 512].isoformat())
    assert record["params"] == {"delay": 12}
    assert not list(tmp_path.glob("*.parts"))


def test_second_read_computes_nothing(tmp_path):
    build(tmp_path)
    before = only(tmp_path, "*.npy").stat().st_mtime_ns
    count = Counting()
    np.testing.assert_array_equal(build(tmp_path, compute=count), expected(series()))
    assert count.windows == 0
    assert only(tmp_path, "*.npy").stat().st_mtime_ns == before


def test_only_windows_without_gaps_are_asked_for(tmp_path):
    rows = np.delete(ends(), slice(300, 400))
    np.testing.assert_array_equal(build(tmp_path, rows=rows), np.delete(expected(series()), slice(300, 400), axis=0))


@pytest.mark.parametrize("added", [1, 50, 419, 420, 2000])
def test_new_candles_compute_new_windows_only(tmp_path, added):
    close = series(T + added)
    build(tmp_path / "grown", close[:T])
    count = Counting()
    np.testing.assert_array_equal(build(tmp_path / "grown", close, compute=count), expected(close))
    assert count.windows == added
    build(tmp_path / "whole", close)
    assert only(tmp_path / "grown", "*.npy").read_bytes() == only(tmp_path / "whole", "*.npy").read_bytes()
    assert build(tmp_path / "grown", close, compute=count).shape == (T + added - 7, WIDTH)
    assert count.windows == added


def test_changed_candles_rebuild_their_chunk_and_name_it(tmp_path, caplog):
    build(tmp_path)
    close, count = series(), Counting()
    close[1200] += 1  # windows ending at rows 1200 to 1207: chunk (1200 - 7) // 512 = 2
    np.testing.assert_array_equal(build(tmp_path, close, compute=count), expected(close))
    assert count.windows == 512
    (line,) = caplog.messages
    assert "chunk 2 (" in line
    assert "candles changed" in line


def test_a_rebuilt_chunk_does_not_vouch_for_the_old_candles(tmp_path):
    old, new = series(T + 60), series(T + 60)
    new[T + 10] += 1
    for close in (old[:T], old[: T + 50], new, old[: T + 50], old[:T], new[: T + 11]):
        np.testing.assert_array_equal(build(tmp_path, close), expected(close))


def test_shorter_request_keeps_what_is_behind_it(tmp_path, caplog):
    close, count = series(), Counting()
    build(tmp_path, close)
    content = only(tmp_path, "*.npy").read_bytes()
    for computed in (300 - 7, 0):  # the cut chunk is checked by computing it once, then remembered
        count.windows = 0
        np.testing.assert_array_equal(build(tmp_path, close[:1324], compute=count), expected(close[:1324]))
        assert count.windows == computed
    np.testing.assert_array_equal(build(tmp_path, close[:1031], compute=count), expected(close[:1031]))
    np.testing.assert_array_equal(build(tmp_path, close, compute=count), expected(close))
    assert count.windows == 0
    assert only(tmp_path, "*.npy").read_bytes() == content
    assert not caplog.messages


def test_shorter_request_with_changed_candles_replaces_the_chunk(tmp_path, caplog):
    build(tmp_path)
    close = series()[:1300]
    close[1290] += 1
    np.testing.assert_array_equal(build(tmp_path, close), expected(close))
    assert "chunk 2 (" in caplog.text
    np.testing.assert_array_equal(build(tmp_path), expected(series()))


@pytest.mark.parametrize("where", ["flip", "truncate", "empty", "missing"])
def test_damage_is_named_and_rebuilt(tmp_path, caplog, where):
    build(tmp_path)
    path = only(tmp_path, "*.npy")
    whole = path.read_bytes()
    damage = {
        "flip": whole[:10_000] + bytes([whole[10_000] ^ 1]) + whole[10_001:],  # row 822 of 2653
        "truncate": whole[:20_000],
        "empty": b"",
    }
    path.unlink() if where == "missing" else path.write_bytes(damage[where])
    lost = {"flip": [1], "truncate": [3, 4, 5]}.get(where, [0, 1, 2, 3, 4, 5])
    assert chunks_named(verify(tmp_path)) == lost
    count = Counting()
    np.testing.assert_array_equal(build(tmp_path, compute=count), expected(series()))
    assert path.read_bytes() == whole
    assert count.windows == sum(93 if index == 5 else 512 for index in lost)
    assert chunks_named(caplog.messages) == lost
    assert all("is damaged" in line for line in caplog.messages)
    assert verify(tmp_path) == []


@pytest.mark.parametrize("place", [0, 25, 60], ids=["magic", "syntax", "order of the columns"])
def test_a_damaged_header_costs_no_computation(tmp_path, caplog, place):
    build(tmp_path)
    path = only(tmp_path, "*.npy")
    whole = path.read_bytes()
    changed = whole.replace(b"False", b"True ", 1) if place == 60 else whole[:place] + b"{" + whole[place + 1 :]
    path.write_bytes(changed)
    assert verify(tmp_path) == [f"{path.name}: its header is damaged"]
    count = Counting()
    np.testing.assert_array_equal(build(tmp_path, compute=count), expected(series()))
    assert count.windows == 0 and path.read_bytes() == whole and verify(tmp_path) == []
    assert caplog.messages == [f"{path.name}: its header is damaged; it is written again"]


@pytest.mark.parametrize("content", ["", "{", '{"format": 1, "chunks": [{"rows": 3}]}', '{"format": 1, "chunks": [1]}'])
def test_damaged_record_is_named_and_rebuilt(tmp_path, caplog, content):
    build(tmp_path)
    only(tmp_path, "*.json").write_text(content)
    assert verify(tmp_path) == [f"{only(tmp_path, '*.json').name}: the record is damaged"]
    np.testing.assert_array_equal(build(tmp_path), expected(series()))
    assert "the record is damaged" in caplog.text
    assert verify(tmp_path) == []


def candles_hash(text):
    def change(record):
        chunk = record["chunks"][0]
        chunk["candles"] = dict.fromkeys(chunk["candles"], text)
        chunk["bytes"] = "0" * 64

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(lambda record, width=width: record.update(width=width) for width in (10**30, 10**11, 0, -1)),
        *(lambda record, chunks=chunks: record.update(chunks=chunks) for chunks in ({}, "")),
        *(candles_hash(text) for text in ("/etc/passwd", "**a", "", 1)),
        lambda record: record["chunks"][0]["candles"].update(x="0" * 64),
    ],
)
def test_a_record_that_no_build_writes_is_damaged(tmp_path, change):
    build(tmp_path)
    path = only(tmp_path, "*.json")
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    assert verify(tmp_path) == [f"{path.name}: the record is damaged"]
    assert len(cache_info(tmp_path)) == 1
    np.testing.assert_array_equal(build(tmp_path), expected(series()))
    assert verify(tmp_path) == []


@pytest.mark.parametrize("suffix", [".json", ".npy"])
def test_a_folder_in_the_place_of_a_file_is_damage(tmp_path, suffix):
    build(tmp_path)
    path = only(tmp_path, f"*{suffix}")
    for mend in (build, clean):
        path.unlink()
        path.mkdir()
        assert verify(tmp_path) and len(cache_info(tmp_path)) == 1
        mend(tmp_path)
        assert verify(tmp_path) == []
    assert not path.exists()
    build(tmp_path)
    path.unlink()
    (path / "of somebody").mkdir(parents=True)
    for mend in (build, clean):
        with pytest.raises(CmatError, match=f"{path.name}: cannot be removed .*move it away"):
            mend(tmp_path)
    assert (path / "of somebody").exists()


class Crash(BaseException):
    """Stands for a kill: nothing after it runs."""


def crash_at(monkeypatch, number, after):
    """Die at the given call that changes the disk, just before it or just after it."""
    calls = iter(range(10**6))

    def wrapped(original, *args, **kwargs):
        dies = next(calls) == number
        if dies and not after:
            raise Crash
        original(*args, **kwargs)
        if dies:
            raise Crash

    monkeypatch.setattr(store.os, "replace", partial(wrapped, os.replace))
    monkeypatch.setattr(store.shutil, "rmtree", partial(wrapped, shutil.rmtree))


def changed_series():
    close = series(T + 700)
    close[100] += 1
    return close


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("first", [None, T], ids=["fresh", "append and change"])
def test_death_at_any_write_resumes_to_the_same_bytes(tmp_path, monkeypatch, caplog, first, after):
    close = changed_series()
    build(tmp_path / "whole", close)
    whole = only(tmp_path / "whole", "*.npy").read_bytes()
    died, number = True, 0
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
        assert only(folder, "*.npy").read_bytes() == whole
        assert "damaged" not in caplog.text
        # At most the chunk in hand at the moment of death is computed twice.
        assert count.windows <= (len(ends(len(close))) if first is None else 512 + 700) + 512
        number += 1
    assert number > (9 if first is None else 5)


def test_killed_builder_process_resumes_to_the_same_bytes(tmp_path):
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
    assert only(tmp_path / "killed", "*.npy").read_bytes() == only(tmp_path / "whole", "*.npy").read_bytes()


@pytest.mark.long
def test_killed_parent_of_workers_resumes_to_the_same_bytes(tmp_path):
    script = (
        "import sys, pathlib, functools, test_cache as t; folder = pathlib.Path(sys.argv[1]); "
        "t.build(folder, compute=functools.partial(t.slow_moments, log=folder / 'log'), jobs=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path / "killed"], cwd=os.path.dirname(__file__))
    while process.poll() is None and not list(tmp_path.glob("killed/*.parts/*.f32")):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    count = Counting()
    build(tmp_path / "killed", compute=count)
    build(tmp_path / "whole")
    assert 0 < count.windows < len(ends())
    assert only(tmp_path / "killed", "*.npy").read_bytes() == only(tmp_path / "whole", "*.npy").read_bytes()


def test_two_builders_share_the_work(tmp_path):
    context = multiprocessing.get_context("fork")
    compute = partial(slow_moments, log=tmp_path / "log")
    pair = [context.Process(target=build, args=(tmp_path / "c",), kwargs={"compute": compute}) for _ in range(2)]
    [process.start() for process in pair]
    [process.join() for process in pair]
    assert [process.exitcode for process in pair] == [0, 0]
    assert sum(map(int, (tmp_path / "log").read_text().split())) == len(ends())
    np.testing.assert_array_equal(build(tmp_path / "c"), expected(series()))


def test_worker_processes_give_the_same_bytes(tmp_path):
    build(tmp_path / "one")
    build(tmp_path / "two", compute=partial(slow_moments, log=tmp_path / "log"), jobs=2)
    assert only(tmp_path / "one", "*.npy").read_bytes() == only(tmp_path / "two", "*.npy").read_bytes()
    assert len((tmp_path / "log").read_text().split()) == 6


def test_key_covers_parameters_symbol_kind_and_start(tmp_path):
    build(tmp_path)
    build(tmp_path, params={"delay": 13})
    build(tmp_path, symbol="ETH/USDT")
    build(tmp_path, kind="complexity")
    build(tmp_path, rows=ends()[1:])
    info = cache_info(tmp_path)
    assert sorted(info["symbol"]) == ["BTCUSDT"] * 4 + ["ETH/USDT"]
    assert sorted(info["windows"]) == [T - 8] + [T - 7] * 4
    assert sorted(path.name.rsplit("_", 1)[0] for path in tmp_path.glob("*.npy")) == [
        "complexity_features_BTCUSDT",
        *["tda_features_BTCUSDT"] * 3,
        "tda_features_ETH_USDT",
    ]


@pytest.mark.parametrize("name", ["own", "tda_features_BTCUSDT.npy"])
def test_file_without_a_record_needs_trust(tmp_path, name):
    build(tmp_path)
    only(tmp_path, "*.json").unlink()
    path = only(tmp_path, "*.npy")
    if name != "own":
        path = path.rename(tmp_path / name)
    old = expected(series()) + 1
    np.save(path, old)
    assert verify(tmp_path) == [f"{path.name}: no record beside it"]
    with pytest.raises(CmatError, match=f"{path.name}: this cache file has no record.*--trust-cache"):
        build(tmp_path)
    np.testing.assert_array_equal(build(tmp_path, trust=True), old)
    np.save(path, old[:-1])
    with pytest.raises(CmatError, match="wanted float32 "):
        build(tmp_path, trust=True)
    path.write_bytes(b"no array")
    with pytest.raises(CmatError, match=r"not a readable \.npy file"):
        build(tmp_path, trust=True)


def test_mistakes_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CmatError, match=r"file/cache: the cache folder cannot be written \(Not a directory\)"):
        build(tmp_path / "file" / "cache")
    with pytest.raises(CmatError, match="BTCUSDT: no gap-free window of 8 candles"):
        build(tmp_path, rows=np.array([], dtype=int))
    with pytest.raises(CmatError, match="unknown kind of cached features 'prices'"):
        build(tmp_path, kind="prices")
    with pytest.raises(CmatError, match=r"tda BTCUSDT: features of shape \(512, 2\), wanted \(512, 3\)"):
        build(tmp_path, compute=lambda windows: windows[:, :2])
    with pytest.raises(CmatError, match="tda BTCUSDT: chunk 0 has features that are not finite"):
        build(tmp_path, compute=lambda windows: windows[:, :3] * np.nan)
    assert not list(tmp_path.glob("*.npy"))


def test_clean_frees_everything_but_strangers_and_busy_files(tmp_path):
    build(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    size = only(tmp_path, "*.npy").stat().st_size + only(tmp_path, "*.json").stat().st_size
    with FeatureStore(tmp_path, only(tmp_path, "*.npy").stem, WIDTH).lock():
        with pytest.raises(CmatError, match="another process is building it"):
            clean(tmp_path)
        assert len(list(tmp_path.glob("*.npy"))) == 1
    assert clean(tmp_path) == size
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".lock", ".txt"]
    assert cache_info(tmp_path / "missing").empty
    assert verify(tmp_path / "missing") == []
    assert clean(tmp_path / "missing") == 0


def test_bar_is_quiet_without_a_terminal_and_shows_rate_on_request(tmp_path, capsys, caplog):
    with caplog.at_level(logging.INFO):
        build(tmp_path / "a")
    assert capsys.readouterr().err == ""
    assert f"tda BTCUSDT: {T - 7} windows, {T - 7} of them computed in" in caplog.text
    build(tmp_path / "b", progress=True)
    shown = capsys.readouterr().err
    assert "tda BTCUSDT: 100%" in shown
    assert "windows/s" in shown


def test_memory_does_not_grow_with_the_number_of_windows(tmp_path):
    def peak(chunks):
        length = chunks * CHUNK_WINDOWS
        close, index, rows = series(length), times(length), np.arange(WINDOW - 1, length)
        tracemalloc.start()
        wide = partial(np.repeat, repeats=32, axis=1)  # 256 features
        cached_features("tda", f"S{chunks}", close, index, rows, WINDOW, wide, 256, {}, tmp_path, jobs=1)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(1)
    small, large = peak(4), peak(24)  # arrays of 2 and 12.6 MB
    assert large < small + 2_000_000
