"""The six pages executed by papermill on the smoke parameters, once, and what comes of it."""

import json
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from sklearn.metrics import roc_auc_score
from smoke_run import SMOKE, smoke_config

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config, project_root
from cmat_lib.evaluation.calibration import apply_calibration
from cmat_lib.training.checkpoint import load_model
from cmat_lib.workflow.notebooks import offline, run_notebooks
from cmat_lib.workflow.run import STAGE_NAMES, Run, select_stages


def test_every_stage_leaves_a_record_and_a_page(smoke):
    folder, report, lines = smoke
    run = Run(smoke_config(folder), STAGE_NAMES[0])
    assert all(run.is_finished(stage) for stage in STAGE_NAMES)
    assert [line.split()[0] for line in lines] == list(STAGE_NAMES)
    assert report == run.path("report/index.html")
    for stage in STAGE_NAMES:
        assert run.path(f"notebooks/{stage}.ipynb").is_file() and run.path(f"report/{stage}.html").is_file()


def test_second_run_does_nothing(smoke):
    folder, _, _ = smoke
    lines = []
    run_notebooks(smoke_config(folder), say=lines.append)
    assert all(line.endswith("up to date") for line in lines) and len(lines) == len(STAGE_NAMES)


def test_scores_stand_beside_base_rate_and_baselines(smoke):
    folder, _, _ = smoke
    run = Run(smoke_config(folder), STAGE_NAMES[0])
    scores = pd.DataFrame(run.read_json("metrics.json")["scores"])
    assert {"probability", "volatility", "trees", "oracle_probability"} <= set(scores["score"])
    assert {"roc_auc", "pr_auc", "brier", "base_rate"} <= set(scores["metric"])
    auc = scores[scores["metric"] == "roc_auc"].set_index(["score", "scope"])["value"]
    predictions = run.read_frame("predictions.parquet")
    assert roc_auc_score(predictions["trigger"], predictions["oracle_probability"]) > 0.65, "the oracle must know"
    test = predictions[predictions["part"] == "test"]
    rate = scores.set_index(["score", "scope", "metric"])["value"]["probability", "pooled", "base_rate"]
    assert rate == pytest.approx(test["trigger"].mean())
    for score in ("probability", "volatility", "trees", "oracle_probability"):
        ranking = test[f"raw_{score}" if f"raw_{score}" in test else score]
        assert auc[score, "pooled"] == pytest.approx(roc_auc_score(test["trigger"], ranking)), score
    checkpoint = load_model(run.model_folder / "best_model.pt")[2]
    calibrated = apply_calibration(predictions["raw_probability"], checkpoint["calibration"])
    np.testing.assert_allclose(predictions["probability"], calibrated)
    assert predictions["predicted_max_pct"].nunique() > len(predictions) / 2, "an answer for each sample"


def test_the_trial_stands_in_the_ledger_beside_the_run(smoke):
    folder, _, _ = smoke
    run = Run(smoke_config(folder), "05_evaluation")
    stored = run.read_json("metrics.json")
    ledger = pd.read_parquet(folder / "ledger.parquet")
    assert ledger["fingerprint"].tolist() == [run.fingerprint("04_training")]
    auc = next(r["value"] for r in stored["scores"] if (r["score"], r["metric"]) == ("probability", "roc_auc"))
    assert ledger["pooled_roc_auc"].item() == pytest.approx(auc)
    decided = {row["share"]: row for row in stored["decision"] if row["score"] == "probability"}
    assert ledger["trades_top_5"].item() == decided[0.05]["trades"]
    assert len(ledger["daily_top_5"].item()) == 18 and {row["trials"] for row in stored["trials"]} == {1}


def test_attention_is_kept(smoke):
    folder, _, _ = smoke
    run = Run(smoke_config(folder), STAGE_NAMES[0])
    with np.load(run.path("attention.npz"), allow_pickle=False) as stored:
        maps, tokens, sample = stored["maps"], stored["tokens"], stored["sample"]
    assert maps.shape[1:] == (2, 4, 4, 4) and len(tokens) == 4 and len(maps) == len(sample)
    np.testing.assert_allclose(maps.sum(-1, dtype=np.float32), 1, atol=2e-3)  # stored in half precision
    samples = run.read_frame("data/samples.parquet")
    assert (samples["part"].iloc[sample] == "test").all()


def test_the_model_file_gives_the_stored_predictions(smoke):
    folder, _, _ = smoke
    config = smoke_config(folder)
    run = Run(config, STAGE_NAMES[0])
    from cmat_lib.training.objective import predict
    from cmat_lib.workflow.stages.common import load_panel

    model, stored, content = load_model(run.model_folder / "best_model.pt")
    panel = load_panel(config, run)
    raw, _ = predict(model, panel, panel.index("test"), 64)
    predictions = run.read_frame("predictions.parquet")
    expected = predictions.loc[predictions["part"] == "test", "raw_probability"]
    np.testing.assert_allclose(raw, expected, atol=1e-6)
    assert stored == config and content["scalers"] == run.read_json("data/scalers.json")
    results = json.loads((run.model_folder / "training_results.json").read_text())
    assert len(results["history"]) == 2 and results["base_rates"]["train"] > 0


def test_pages_have_no_warnings_and_no_litter(smoke):
    folder, _, _ = smoke
    run = Run(smoke_config(folder), STAGE_NAMES[0])
    for stage in STAGE_NAMES:
        notebook = json.loads(run.path(f"notebooks/{stage}.ipynb").read_text())
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                text = "".join(output.get("text", ""))
                noisy = output.get("name") == "stderr" and "optimiser steps" not in text
                assert not noisy, f"{stage}: {text[:300]}"
                assert "%|" not in text, f"{stage}: a progress bar"


def test_every_code_cell_shows_something(smoke):
    folder, _, _ = smoke
    run = Run(smoke_config(folder), STAGE_NAMES[0])
    for stage in STAGE_NAMES:
        notebook = json.loads(run.path(f"notebooks/{stage}.ipynb").read_text())
        for cell in notebook["cells"]:
            tags = cell["metadata"].get("tags", [])
            if cell["cell_type"] == "code" and not {"parameters", "injected-parameters"} & set(tags):
                assert cell["outputs"], f"{stage}: {''.join(cell['source'])[:80]}"


def test_report_loads_nothing_from_the_network(smoke):
    _, report, _ = smoke
    for page in report.parent.glob("*.html"):
        text = page.read_text()
        for tag in ('<script src="http', "<script src='http", '<link rel="stylesheet" href="http', "import mermaid"):
            assert tag not in text, f"{page.name}: {tag}"
    index = report.read_text()
    assert all(f'href="{stage}.html"' in index for stage in STAGE_NAMES) and "oracle" in index


def test_offline_keeps_what_is_inline():
    page = '<script>let a = 1</script><script src="https://x.org/y.js"></script><link href="https://x.org/z.css">'
    assert offline(page) == "<script>let a = 1</script>"


def test_change_in_a_later_stage_keeps_the_earlier_ones(smoke):
    folder, _, _ = smoke
    copy = folder / "copy"
    shutil.copytree(folder / "run", copy)
    config = smoke_config(folder, run_dir=str(copy), evaluation={"cost_pct": 0.1, "bootstrap_samples": 50})
    lines = []
    run_notebooks(config, select_stages("01", "05"), lines.append)
    assert [line.endswith("up to date") for line in lines] == [True, True, True, True, False]
    assert load_config(copy / "params.yaml").evaluation.cost_pct == 0.1


def test_stock_papermill_runs_a_page(smoke, tmp_path):
    folder, _, _ = smoke
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "smoke.yaml").write_text(SMOKE.read_text().replace("outputs/smoke", str(tmp_path / "run")))
    command = [sys.executable, "-m", "papermill", "notebooks/05_evaluation.ipynb", str(tmp_path / "out.ipynb")]
    command += ["-f", str(tmp_path / "smoke.yaml"), "--no-progress-bar"]
    result = subprocess.run(command, cwd=project_root(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def test_misspelt_section_stops_stock_papermill(tmp_path):
    (tmp_path / "bad.yaml").write_text(f"run_dir: {tmp_path / 'run'}\ntrainng:\n  epochs: 3\n")
    command = [sys.executable, "-m", "papermill", "notebooks/01_data_prep.ipynb", str(tmp_path / "out.ipynb")]
    command += ["-f", str(tmp_path / "bad.yaml"), "--no-progress-bar"]
    result = subprocess.run(command, cwd=project_root(), capture_output=True, text=True)
    assert result.returncode != 0 and "did you mean 'training'?" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_page_that_raises_is_named_and_leaves_no_record(smoke, tmp_path, monkeypatch):
    folder, _, _ = smoke
    shutil.copytree(folder / "run", tmp_path / "run")
    config = smoke_config(folder, run_dir=str(tmp_path / "run"), evaluation={"cost_pct": 0.3, "bootstrap_samples": 50})
    (tmp_path / "notebooks").mkdir()
    broken = json.loads((project_root() / "notebooks/05_evaluation.ipynb").read_text())
    broken["cells"][-3:-3] = [papermill.iorw.nbformat.v4.new_code_cell("1 / 0", id="bang")]
    (tmp_path / "notebooks/05_evaluation.ipynb").write_text(json.dumps(broken))
    monkeypatch.setattr("cmat_lib.workflow.notebooks.project_root", lambda: tmp_path)
    with pytest.raises(CmatError, match=r"notebooks/05_evaluation\.ipynb failed in cell \d+: ZeroDivisionError"):
        run_notebooks(config, select_stages("05", "05"), lambda line: None)
    run = Run(config, "05_evaluation")
    assert run.record("05_evaluation") is None and run.path("notebooks/05_evaluation.ipynb").is_file()
    assert not run.path("report/05_evaluation.html").is_file(), "an old page must not pass for the failed one"


def test_a_dead_kernel_is_named(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    cells = [papermill.iorw.nbformat.v4.new_code_cell("import os; os._exit(1)", id="exit")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    page = papermill.iorw.nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    (tmp_path / "notebooks/01_data_prep.ipynb").write_text(papermill.iorw.nbformat.writes(page))
    monkeypatch.setattr("cmat_lib.workflow.notebooks.project_root", lambda: tmp_path)
    with pytest.raises(CmatError, match=r"01_data_prep\.ipynb: the kernel died"):
        run_notebooks(smoke_config(tmp_path), select_stages("01", "01"), lambda line: None)


def test_a_damaged_model_is_named_and_made_again(smoke, tmp_path):
    folder, _, _ = smoke
    shutil.copytree(folder / "run", tmp_path / "run")
    config = smoke_config(folder, run_dir=str(tmp_path / "run"))
    model = Run(config, "04_training").model_folder / "best_model.pt"
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(CmatError, match=r"best_model\.pt is missing, damaged or edited"):
        Run(config, "05_evaluation").begin()
    lines = []
    run_notebooks(config, select_stages("04", "04"), lines.append)
    assert "best_model.pt is missing, damaged or edited; it is made again" in lines[0]
    assert Run(config, "05_evaluation").record("05_evaluation") is None, "it was made from the model that is gone"


def test_an_unwritable_run_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    config = smoke_config(tmp_path, run_dir=str(tmp_path / "file/run"))
    with pytest.raises(CmatError, match="cannot be written to"):
        run_notebooks(config, say=lambda line: None)


def test_select_stages():
    assert select_stages() == STAGE_NAMES
    assert select_stages("4", "05") == STAGE_NAMES[3:5]
    assert select_stages("06_attention_visualization") == STAGE_NAMES[5:]
    for wrong in (("7", None), ("05", "04")):
        with pytest.raises(CmatError):
            select_stages(*wrong)


def run_cells(stage, variables, given, only=None):
    """Execute code cells of a page here and not in a kernel, which saves its start; returns their variables."""
    page = nbformat.read(project_root() / f"notebooks/{stage}.ipynb", as_version=4)
    for cell in page.cells:
        if cell.cell_type == "code" and only in (None, cell.id):
            exec(compile(cell.source, f"{stage}, {cell.id}", "exec"), variables)
        if "parameters" in cell.metadata.get("tags", []):
            variables.update(given)
    return variables


def test_pages_follow_the_first_of_several_scales_and_series(tmp_path, capsys):
    tda = {"windows": [48, 96], "delays": [3, 6], "series": ["log_range", "log_close"]}
    few = {"indicators": ["lempel_ziv"]}  # the others take long to compile
    given = smoke_config(tmp_path, complexity=few, tda=tda).model_dump()
    reach = run_cells("01_data_prep", {}, given)["reach"]
    assert reach["Topology"] == 96, "the longest"
    page = run_cells("02_tda_cache", {"display": print}, given)
    said, run, hits, topology = capsys.readouterr().out, page["run"], page["hits"], page["topology"]
    for other in ("log range of 96 candles with a delay of 6", "log close of 48", "log close of 96"):
        assert f"also computed, not drawn: {other}" in said
    assert page["cloud"].shape == (45, 2) and page["name"] == "log range" and page["windows"].shape[1] == 48
    assert run.path("figures/window_loop.html").is_file() and page["loop"].points.max() < 45
    assert hits["kind"].tolist() == ["tda", "tda", "complexity", "complexity"]
    assert (hits["hit rate"] == 0).all() and (hits["per second"] > 0).all(), "nothing was there before"
    stored = run.read_array("data/tda.npy")
    assert stored.shape[1] == 4 * topology.shape[1] and list(topology) == list(page["numbers"].index)
    np.testing.assert_array_equal(topology, stored[:, : topology.shape[1]])
    np.testing.assert_array_equal(page["actual"], topology.loc[page["picked"].index])
    run_cells("02_tda_cache", page, {}, only="loop")
    page["first"] = page["first"].model_copy(update={"engine": "giotto"})
    assert "nothing to draw" not in capsys.readouterr().out
    run_cells("02_tda_cache", page, {}, only="loop")
    assert "nothing to draw" in capsys.readouterr().out
