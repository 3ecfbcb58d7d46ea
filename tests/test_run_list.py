"""`cmat runs`: every state a run can be in, told from its folder."""

import json
import shutil
import sys

import pandas as pd
import pytest
import yaml

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.cli import main
from cmat_lib.commands.runs import list_runs
from cmat_lib.workflow.lock import working_in


@pytest.fixture(scope="module")
def folder(smoke, tmp_path_factory):
    """Copies of one finished run (without its large pages), each with something done to it."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("whole", "changed", "cut", "until4", "lost"):
        skip = shutil.ignore_patterns("figures", "[0-9]*.ipynb", "[0-9]*.html")
        shutil.copytree(smoke[0] / "run", folder / name, ignore=skip)
    params = yaml.safe_load((folder / "changed/params.yaml").read_text())
    params["training"]["epochs"] = 1
    (folder / "changed/params.yaml").write_text(yaml.safe_dump(params))
    (folder / "cut/stages/05_evaluation.json").unlink()
    (folder / "cut/stages/06_attention_visualization.json").unlink()
    (folder / "cut/notebooks/05_evaluation.ipynb").write_text("{}")
    for stage in ("05_evaluation", "06_attention_visualization"):
        (folder / f"until4/stages/{stage}.json").unlink()
    params = yaml.safe_load((folder / "lost/params.yaml").read_text())
    params["data"]["data_dir"] = str(folder / "nowhere")
    (folder / "lost/params.yaml").write_text(yaml.safe_dump(params))
    (folder / "early/notebooks").mkdir(parents=True)
    (folder / "early/notebooks/01_data_prep.ipynb").write_text("{}")
    (folder / "cache").mkdir()
    for record in folder.glob("*/stages/0[1-6]*.json"):  # the figures were left out of the copies
        content = json.loads(record.read_text())
        content["artefacts"] = {k: v for k, v in content["artefacts"].items() if not k.startswith("figures")}
        record.write_text(json.dumps(content))
    return folder


def test_states(folder):
    runs = list_runs(folder).set_index("run")
    assert runs["status"].to_dict() == {
        "whole": "finished",
        "changed": "stale 04",
        "cut": "failed 05",
        "until4": "unfinished",
        "lost": "no data",
        "early": "failed 01",
    }
    assert runs.loc["whole", "stages"] == "1-6" and runs.loc["until4", "stages"] == "1-4"
    with working_in(folder / "until4"):
        assert list_runs(folder).set_index("run").loc["until4", "status"] == "running"
    assert list_runs(folder).set_index("run").loc["until4", "status"] == "unfinished"


def test_headline_is_that_of_the_metrics(folder, smoke):
    row = list_runs(folder).set_index("run").loc["whole"]
    scores = json.loads((smoke[0] / "run/metrics.json").read_text())["scores"]
    wanted = {(s["scope"], s["metric"]): s for s in scores if s["score"] == "probability"}
    auc = wanted["pooled", "roc_auc"]
    assert [row["auc"], row["auc_low"], row["auc_high"]] == [auc["value"], auc["low"], auc["high"]]
    assert row["auc_within"] == wanted["within", "roc_auc"]["value"]
    assert row["base_rate"] == wanted["pooled", "base_rate"]["value"]
    assert pd.isna(list_runs(folder).set_index("run").loc["until4", "auc"])


def test_command_and_csv(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cmat", "runs", str(folder), "--csv", str(tmp_path / "runs.csv")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    out = capsys.readouterr().out
    assert "stale 04" in out and " to " in out
    assert pd.read_csv(tmp_path / "runs.csv")["run"].tolist() == sorted(list_runs(folder)["run"])


DEEP = "[" * 200_000  # more than Python's stack can take
WITHOUT_TIME = '{"fingerprint": "", "finished": "", "artefacts": {}}'
RECORDS = (WITHOUT_TIME, "5", '"x"', "[1]", DEEP, '{"fingerprint": 1, "artefacts": 5}', '{"finished": 5}')
SYMBOLS = ("[]", "{}", '{"symbols": 5}', '{"symbols": [1, 2]}', DEEP)
OTHERS = [{"score": "trees", "scope": "pooled", "metric": "roc_auc", "value": 0.5, "low": 0.4, "high": 0.6}]
WITHOUT_AUC = [{**OTHERS[0], "score": "probability", "metric": "pr_auc"}]
METRICS = ("[]", "{}", '{"scores": 5}', json.dumps({"scores": OTHERS}), json.dumps({"scores": WITHOUT_AUC}), DEEP)


@pytest.mark.parametrize(
    ("file", "text", "status"),
    [
        *(("stages/03_model_build.json", text, "damaged 03") for text in RECORDS),
        *(("data/data.json", text, "damaged 01") for text in SYMBOLS),
        *(("metrics.json", text, "damaged 05") for text in METRICS),
    ],
)
def test_one_damaged_run_does_not_cost_the_list(folder, tmp_path, file, text, status):
    for name in ("bad", "good"):
        shutil.copytree(folder / "whole", tmp_path / name)
    (tmp_path / "bad" / file).write_text(text)
    assert list_runs(tmp_path)["status"].tolist() == [status, "finished"]


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(CmatError, match="no such folder"):
        list_runs(tmp_path / "nowhere")
