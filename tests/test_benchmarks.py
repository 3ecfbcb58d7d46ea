"""The benchmarks run, and what they write has the rows that the README quotes. Their timings are not tested."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from cmat_lib.config import project_root


@pytest.mark.long
def test_tda_benchmark_without_real_candles(tmp_path, monkeypatch):
    monkeypatch.delenv("CMAT_TEST_DATA", raising=False)
    monkeypatch.syspath_prepend(project_root() / "benchmarks")
    spec = importlib.util.spec_from_file_location("benchmark_tda", project_root() / "benchmarks/tda.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # worker processes pickle its functions
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "throughput", lambda source, counts: module.growth_in_windows(source, 8))
    module.main(["--windows", "1", "--points", "330", "--out", str(tmp_path)])
    text = (tmp_path / "tda.md").read_text()
    exact = r"^\| (?:random walk|synthetic market) \| 1 \| (?:planar|giotto-tda|giotto-ph) \|.*\|.*\|(.*)\|(.*)\|$"
    rows = re.findall(exact, text, re.MULTILINE)
    assert len(rows) == 6 and "| real candles |" not in text
    assert all(float(h0) < 1e-5 and float(h1) < 1e-5 for h0, h1 in rows)
    assert "| half circle | 1 | planar |" in text
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
