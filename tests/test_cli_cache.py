"""``cmat cache``, as a user types it."""

import re
import sys

import pytest

from cmat_lib.commands.cli import main
from cmat_lib.config import load_config, project_root
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.data import prepare_data
from cmat_lib.workflow.stages.features import build_features

SMOKE = project_root() / "params/smoke.yaml"


@pytest.fixture
def cmat_cache(monkeypatch, capsys):
    """Run ``cmat cache ...`` in this process; returns exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["cmat", "cache", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def build(cmat_cache, tmp_path):
    options = ["--params", SMOKE, "--cache-dir", tmp_path / "cache"]
    return lambda: cmat_cache("build", *options, "--set", "cache.jobs=1", "--set", "run_dir=never_made")


def test_build_info_verify_clean(build, cmat_cache, tmp_path):
    folder = tmp_path / "cache"
    code, out, err = build()
    assert code == 0, err
    assert not (project_root() / "never_made").exists()
    arrays = sorted(folder.glob("*_features_*"))
    names = [f"{kind} {symbol}" for kind in ("complexity", "tda") for symbol in ("SYNA", "SYNB")]
    assert [re.sub(r"_features_(\w+)_\w+", r" \1", path.name) for path in arrays] == names
    chunks = sorted(arrays[2].glob("*.f32"))
    damaged, windows = chunks[-1], sum(int(path.name.split("_")[1]) for path in chunks)
    total = sum(int(path.name.split("_")[1]) for path in folder.glob("*/*.f32"))
    assert total == 2 * windows + 2 * (windows // 4)  # topology at every candle, complexity at every fourth
    assert out.startswith(f"{folder}: 4 folders, ") and all(path.name in out for path in arrays)
    assert cmat_cache("info", "--cache-dir", folder)[1] == out
    assert re.search(rf"tda +SYNA +{windows} +\d+ +2024-", out)

    before = damaged.stat().st_mtime_ns
    assert build()[0] == 0 and damaged.stat().st_mtime_ns == before

    whole = (0, f"{folder}: 4 folders, {total} windows, all as they were written\n", "")
    assert cmat_cache("verify", "--cache-dir", folder) == whole
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    code, out, _ = cmat_cache("verify", "--cache-dir", folder)
    assert code == 1 and re.fullmatch(
        rf"{arrays[2].name}: chunk {len(chunks) - 1} \(2024-\S+ to 2024-\S+\) is damaged\n", out
    )
    assert build()[0] == 0 and cmat_cache("verify", "--cache-dir", folder) == whole

    code, out, _ = cmat_cache("clean", "--cache-dir", folder)
    assert code == 0 and not list(folder.iterdir())
    assert all(f"deleted {path.name}" in out for path in arrays) and re.search(r"cache: \d+\.\d MB freed", out)


def test_a_run_computes_nothing_that_was_built_before(build, tmp_path, caplog):
    build()
    caplog.set_level("INFO", "cmat_lib.data.cache")
    caplog.clear()
    places = {"run_dir": str(tmp_path / "run"), "cache": {"dir": str(tmp_path / "cache"), "jobs": 1}}
    config = load_config(SMOKE, places)
    run = Run(config, "01_data_prep").begin()
    prepare_data(config, run)
    run.finish()
    assert len(build_features(config, Run(config, "02_tda_cache").begin(), progress=False)) > 0
    assert not caplog.messages


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "--set", "data.strid=3"], "did you mean 'data.stride'?"),
        (["build", "--params", "nowhere.yaml"], "nowhere.yaml: no such parameter file"),
        (["build", "--set", "cache.dask_scheduler=tcp://127.0.0.1:1"], "backend is loky; set backend: dask"),
        (["build", "--set", "cache.dask_scheduler=127.0.0.1:1", "--set", "cache.backend=dask"], "cache.dask_scheduler"),
        (["info"], "no such cache folder; 'cmat cache build' makes one"),
        (["verify"], "no such cache folder"),
        (["clean"], "no such cache folder"),
    ],
)
def test_mistakes_end_with_one_message(cmat_cache, tmp_path, arguments, message):
    code, out, err = cmat_cache(*arguments, "--cache-dir", tmp_path / "missing")
    assert code == 1 and out == ""
    assert err.startswith("cmat: ") and message in err
    assert not (tmp_path / "missing").exists()
