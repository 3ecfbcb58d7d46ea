"""The benchmarks run, and what they write has the rows that the README quotes. Their timings are not tested."""

import importlib.util
import re
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
    assert len(rows) == 6 and "real candles" not in text
    assert all(float(h0) < 1e-5 and float(h1) < 1e-5 for h0, h1 in rows)
    assert "| half circle | 1 | planar |" in text
    assert (tmp_path / "tda.png").stat().st_size > 10_000
