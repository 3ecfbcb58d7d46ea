"""The benchmarks run and write the rows that the README quotes; ratios are true, on engines of known cost."""

import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cmat_lib.config import project_root

FAKES = """
import os, time
import numpy as np

BARS = [np.array([[0.0, 1.0]]), np.array([[1.0, 2.0], [3.0, 3.5]])]


def spends(milliseconds, sleeps=0.0, bars=BARS):
    def compute(cloud):
        end = time.process_time() + milliseconds / 1000
        while time.process_time() < end:
            pass
        time.sleep(sleeps)
        return bars
    return lambda: compute


ours, slower = spends(2), spends(8)
waits = spends(2, sleeps=0.02)
loses = spends(1, bars=[BARS[0], BARS[1][:1]])
hangs = lambda: lambda cloud: BARS if len(cloud) == 100 else time.sleep(600)
crashes = lambda: lambda cloud: BARS if len(cloud) == 100 else os.abort()
raises = lambda: lambda cloud: BARS if len(cloud) == 100 else {}["no"]
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Engines of known cost, each in its process, by name."""
    monkeypatch.syspath_prepend(project_root() / "benchmarks")
    (tmp_path / "fakes.py").write_text(FAKES)
    from tda_engines import Engine

    names = ("ours", "slower", "waits", "loses", "hangs", "crashes", "raises")
    engines = {name: Engine(f"fakes:{name}", library=tmp_path) for name in names}
    yield engines
    for engine in engines.values():
        engine.close()


def test_ratios_and_differences_are_those_of_engines_that_one_knows(fakes):
    from tda_tables import compare

    engines = {"scratch": fakes["ours"]} | {name: fakes[name] for name in ("slower", "waits", "loses")}
    table = compare(engines, {"some": np.zeros((3, 5, 2))}, limit=60).set_index("engine")
    assert list(table.index) == ["scratch", "slower", "waits", "loses"] and (table["windows"] == 3).all()
    assert table["ms"]["scratch"] == pytest.approx(2, rel=0.25)
    ratios = table["times scratch"]
    assert ratios["slower"] == pytest.approx(4, rel=0.25) and ratios["loses"] == pytest.approx(0.5, rel=0.25)
    assert ratios["waits"] == pytest.approx(1, rel=0.25), "CPU time, not the clock on the wall"
    assert list(table["H1 bars lost"]) == [0, 0, 0, 3]
    assert list(table["H1 difference"]) == pytest.approx([0, 0, 0, 0.25]) and (table["H0 difference"] == 0).all()


def test_an_engine_that_fails_is_a_cell_and_not_the_end(fakes):
    from tda_tables import take_turns

    engines = {name: fakes[name] for name in ("hangs", "crashes", "raises", "ours")}
    found = take_turns(engines, np.zeros((1, 5, 2)), limit=1.0, rounds=2)
    texts = [found[name][1] for name in ("hangs", "crashes", "raises")]
    assert texts == [["> 1 s"], ["crash"], ["KeyError"]] and not found["hangs"][0]
    assert len(found["ours"][0]) == 2
    again = take_turns(engines, np.zeros((1, 100, 2)), limit=60)
    assert all(len(times) == 1 for times, _ in again.values()), "a new process takes the place of one that ended"


def test_goals_are_met_or_missed_by_the_tables(monkeypatch):
    monkeypatch.syspath_prepend(project_root() / "benchmarks")
    from tda_report import goals

    def verdicts(geoph, slid, worst, power, seconds):
        windows = [("A", "scratch", 1.0, 0.0), ("A", "geoph", geoph, 0.0), ("A", "giotto-ph", 99.0, 1e-8)]
        windows = pd.DataFrame(windows, columns=["cloud", "engine", "ms", "H1 difference"]).assign(
            **{"H0 difference": 0.0}
        )
        tables = {
            "windows": pd.concat([windows, windows.assign(cloud="random walk", ms=7.0)]),
            "sliding": pd.DataFrame({"before": [5.0, 9.9], "stride 1": [slid, 9.9]}, index=["A", "random walk"]),
            "shapes": pd.DataFrame({"better / scratch": [3.0, worst]}, index=["grid", "circle"]),
            "features": pd.DataFrame({"vectors a second, stride 1": [1e4, 5.0]}, index=["A", "random walk"]),
            "growth": pd.DataFrame({"exponent": power}, index=pd.MultiIndex.from_tuples([("random", "scratch")])),
            "loops": pd.DataFrame({"surplus": [0.1], "surplus of the call": [0.3]}, index=["A"]),
            "commands": pd.DataFrame({"wall s": [seconds]}, index=["cache build"]),
        }
        return [(goal.met, goal.line) for goal in goals(tables)]

    good, bad = verdicts(2.6, 0.04, 1.1, 1.0, 59.0), verdicts(2.4, 0.06, 0.9, 1.2, 61.0)
    assert [met for met, _ in good] == [True, True, True, True, True, True, False, True, True]
    assert [met for met, _ in bad] == [False, False, False, True, False, True, False, True, False]
    assert "times geoph: 2.6, wanted at least 2.5: met." in good[0][1] and "**missed**" in bad[0][1]
    assert "(circle)" in bad[1][1] and "times before: 125," in good[2][1]


@pytest.mark.long
def test_tda_benchmark_in_its_quick_form(tmp_path):
    """In a process of its own, as a user runs it, without real candles, an earlier version or geoph."""
    environment = {name: value for name, value in os.environ.items() if name != "CMAT_TEST_DATA"}
    command = [sys.executable, "benchmarks/tda.py", "--quick", "--out", str(tmp_path)]
    subprocess.run(command, cwd=project_root(), env=environment | {"PYTHONPATH": str(project_root())}, check=True)
    text = (tmp_path / "tda.md").read_text()
    measured = r"^\| (?:random walk|synthetic market) \| 1 \| {} \|.*\|.*\| (\S+) \| (\S+) \| 0 \|$"
    for engine in ("giotto-ph", "giotto-tda"):
        rows = re.findall(measured.format(engine), text, re.MULTILINE)
        assert len(rows) == 2
        assert all(0 < float(gap) < 1e-5 for row in rows for gap in row), "single precision differs, and no more"
    alpha = re.findall(measured.format("weak alpha").replace("0 \\|", r"\d+ \|"), text, re.MULTILINE)
    assert all(float(h0) < 1e-5 and float(h1) > 1e-3 for h0, h1 in alpha), "another filtration"
    assert "| before |" not in text and "geoph |" not in text.split("## Shapes")[0]
    slid = re.findall(r"^\| (?:random walk|synthetic market) \|.*\| (yes|NO) \|$", text, re.MULTILINE)
    assert slid == ["yes"] * 4, "diagrams and vectors, of two series"
    shapes = text.split("## Shapes")[1].split("## Growth")[0]
    exact = re.findall(r"^\| [^|]+ \| [\d.]+ \| .*\| (\de[+-]\d\d) \|$", shapes, re.MULTILINE)
    assert len(exact) >= 36 and all(float(gap) < 1e-5 for gap in exact)
    assert (tmp_path / "tda.png").stat().st_size > 10_000


@pytest.mark.long
def test_training_benchmark_in_its_quick_form(tmp_path):
    """On the CPU, in a process of its own, as a user runs it."""
    command = [sys.executable, "benchmarks/training.py", "--quick", "--device", "cpu", "--out", str(tmp_path)]
    subprocess.run(command, cwd=project_root(), env=os.environ | {"PYTHONPATH": str(project_root())}, check=True)
    text = (tmp_path / "training.md").read_text()
    rows = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}
    assert rows >= {"concat", "cross-modal attention", "eager, fp32", "eager, bf16", "step", "its matrix products"}
    assert rows >= {"gather", "N-BEATS", "topology and complexity", "fusion", "heads and loss", "clip", "optimiser"}
    assert rows >= {"aten::mm", "as it is", "torch.nn.Dropout", "10,000"}
    ways = r"^\| 64 \| (by index|DataLoader, [02] workers) \|"
    assert len(re.findall(ways, text, re.MULTILINE)) == 3
    assert re.search(r"^\| 64 \| [\d.]+ \| [\d.]+ \| [\d,]+ \|$", text, re.MULTILINE), "samples per second"
    goals = re.findall(r"^- .* is (?:\*\*missed\*\*|met)\.$", text, re.MULTILINE)
    assert len(goals) == 4
    each, copies = re.search(r"holds (\d+) bytes a candle, .* at most ([\d.]+) times", text).groups()
    assert 800 < int(each) <= 1000 and 0.8 < float(copies) < 1.2
    assert (tmp_path / "training.png").stat().st_size > 10_000


@pytest.mark.long
def test_soak_for_a_minute(tmp_path):
    command = [sys.executable, "benchmarks/soak.py", "--minutes", "1", "--out", str(tmp_path)]
    subprocess.run(command, cwd=project_root(), env=os.environ | {"PYTHONPATH": str(project_root())}, check=True)
    text = (tmp_path / "soak.md").read_text()
    counts = dict(re.findall(r"^\| ([^|]+) \| ([\d,]+) \|$", text, re.MULTILINE))
    assert int(counts["candles scored by --follow"]) > 4 and counts["most kernels at a time"] == "1"
    assert counts["scores that differ from `cmat predict` in one go"] == counts["processes left"] == "0"
    trends = re.findall(r"^\| cmat (predict --follow|run --grid) \| ([^|]+) \|", text, re.MULTILINE)
    assert len(trends) == len(set(trends)) == 6
    assert (tmp_path / "soak.png").stat().st_size > 10_000


@pytest.mark.long
def test_candles_benchmark_in_small(tmp_path):
    command = [sys.executable, "benchmarks/candles.py", "--rows", "20000", "--rounds", "1", "--out", str(tmp_path)]
    subprocess.run(command, cwd=project_root(), env=os.environ | {"PYTHONPATH": str(project_root())}, check=True)
    text = (tmp_path / "candles.md").read_text()
    assert len(re.findall(r"^\| (pandas\.read_csv|read_market) \| [\d.]+ \| 20,000 \|", text, re.MULTILINE)) == 2
    assert len(re.findall(r"^- (time|memory): .*: (?:\*\*missed\*\*|met)\.$", text, re.MULTILINE)) == 2
