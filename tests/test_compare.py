"""`cmat compare`: only rows that both runs tested, and clear words where there are none."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from smoke_run import signed

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.cli import main
from cmat_lib.commands.compare import common_rows
from cmat_lib.config import dump_params, load_config


def predictions(start="2024-01-01", skill=1.0, seed=0, symbols="AB"):
    rng = np.random.default_rng(seed)
    frames = []
    for symbol in symbols:
        time = pd.date_range(start, periods=1200, freq="1h", tz="UTC")
        trigger = (np.sin(np.arange(1200) * (1 + ord(symbol))) > 0.6).astype(float)
        raw = skill * trigger + rng.normal(size=1200)
        frame = pd.DataFrame({"symbol": symbol, "timestamp": time, "part": "test", "trigger": trigger})
        frame["raw_probability"], frame["probability"] = raw, 1 / (1 + np.exp(-raw))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def write_run(folder, frame):
    (folder / "stages").mkdir(parents=True)
    config = load_config(changes={"labels": {"horizon": 4}, "evaluation": {"bootstrap_samples": 50}})
    (folder / "params.yaml").write_text(dump_params(config))
    unsigned = {name: {"bytes": 0, "sha256": ""} for name in ("metrics.json", "predictions.parquet")}
    record = {"fingerprint": "x", "finished": "2024-03-01", "seconds": 1.0, "artefacts": unsigned}
    (folder / "stages/05_evaluation.json").write_text(json.dumps(record))
    (folder / "metrics.json").write_text(json.dumps({"thresholds": {"probability": 0.6}}))
    frame.to_parquet(folder / "predictions.parquet")
    signed(folder)


@pytest.fixture
def compare(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["cmat", "compare", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    return run


def test_a_run_that_is_named_like_a_column_is_an_error():
    for names in (("trigger", "two"), ("two", "raw_two")):
        with pytest.raises(CmatError, match="is the name of a column"):
            common_rows({name: predictions() for name in names})


def test_common_rows_are_those_of_both():
    late = predictions("2024-01-11", symbols="BC", seed=1)
    late["trigger"] = late.merge(predictions(), on=["symbol", "timestamp"], how="left")["trigger_y"].fillna(0)
    both = common_rows({"one": predictions(), "two": late})
    assert set(both["symbol"]) == {"B"} and len(both) == 1200 - 240
    assert both["timestamp"].min() == pd.Timestamp("2024-01-11", tz="UTC")
    expected = late[late["symbol"] == "B"].set_index("timestamp")["raw_probability"]
    np.testing.assert_array_equal(both["raw_two"], expected.loc[both["timestamp"]])
    train = predictions().assign(part="train")
    assert len(common_rows({"one": pd.concat([predictions(), train]), "two": predictions(seed=2)})) == 2400


def test_no_common_row_and_other_triggers_are_errors():
    with pytest.raises(CmatError, match=r"no test row .* in common: one tests A, B from 2024-01-01"):
        common_rows({"one": predictions(), "two": predictions("2025-01-01")})
    other = predictions()
    other["trigger"] = 1 - other["trigger"]
    with pytest.raises(CmatError, match=r"other triggers in 100\.0% of their common rows"):
        common_rows({"one": predictions(), "two": other})


def test_command_shows_scores_and_paired_differences(compare, tmp_path):
    frames = {"good": predictions(skill=2.0), "bad": predictions(skill=0.5, seed=1)}
    for name, frame in frames.items():
        write_run(tmp_path / name, frame)
    good, bad = (str(tmp_path / name) for name in frames)
    code, out, err = compare(good, bad)
    assert code == 0, err
    assert "2,400 test rows in common, 2 symbols" in out and f"{good} minus" in out
    auc = {name: roc_auc_score(frame["trigger"], frame["raw_probability"]) for name, frame in frames.items()}
    scores, differences = (part for part in out.split("\n\n") if "ROC-AUC" in part)
    assert f"{auc['good']:.3f} (" in scores and f"{auc['bad']:.3f} (" in scores
    assert f"{auc['good'] - auc['bad']:.3f} (" in differences


def test_mistakes_are_named(compare, tmp_path):
    write_run(tmp_path / "one", predictions())
    write_run(tmp_path / "raw", predictions())
    (tmp_path / "raw/stages/05_evaluation.json").unlink()
    for arguments, message in (
        ([tmp_path / "one", tmp_path / "nowhere"], "no run here"),
        ([tmp_path / "one", tmp_path / "raw"], "is not evaluated yet"),
        ([tmp_path / "one"], "two different runs"),
        ([tmp_path / "one", tmp_path / "one"], "two different runs"),
    ):
        code, _, err = compare(*arguments)
        assert code == 1 and message in err and "Traceback" not in err


FRAME = predictions()
DAMAGES = [
    ("predictions.parquet", lambda path: FRAME.assign(probability="high").to_parquet(path)),
    ("predictions.parquet", lambda path: FRAME.iloc[:0].to_parquet(path)),
    ("predictions.parquet", lambda path: path.write_bytes(path.read_bytes()[:1000])),
    ("predictions.parquet", lambda path: path.unlink()),
    ("metrics.json", lambda path: path.write_text(path.read_text().replace("0.6", "0.7"))),
    ("metrics.json", lambda path: path.write_text("[]")),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_damaged_results_are_named(compare, tmp_path, name, damage):
    for run in ("one", "two"):
        write_run(tmp_path / run, FRAME)
    path = tmp_path / "two" / name
    damage(path)
    code, _, err = compare(tmp_path / "one", tmp_path / "two")
    assert code == 1 and "Traceback" not in err
    assert f"{path} is missing, damaged or edited; run notebooks/05_evaluation.ipynb again" in err
