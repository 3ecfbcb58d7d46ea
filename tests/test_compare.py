"""`cmat compare`: only rows that both runs tested, and clear words where there are none."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

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
    record = {"fingerprint": "x", "finished": "2024-03-01", "seconds": 1.0, "artefacts": {}}
    (folder / "stages/05_evaluation.json").write_text(json.dumps(record))
    (folder / "metrics.json").write_text(json.dumps({"thresholds": {"probability": 0.6}}))
    frame.to_parquet(folder / "predictions.parquet")


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


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"a": [1]}), "no column 'symbol' of texts"),
        (FRAME.iloc[:0], "no row of the test part"),
        (FRAME.assign(part="train"), "no row of the test part"),
        (FRAME.assign(probability="high"), "no column 'probability' of numbers"),
        (FRAME.assign(probability=np.inf), "without a finite number in column 'probability'"),
        (FRAME.assign(trigger=np.nan), "without a finite number in column 'trigger'"),
        (FRAME.assign(timestamp=FRAME["timestamp"].dt.tz_localize(None)), "no column 'timestamp' of times in UTC"),
        (FRAME.assign(timestamp=1), "no column 'timestamp' of times in UTC"),
        (FRAME.assign(symbol=[[1]] * len(FRAME)), "no column 'symbol' of texts"),
        (FRAME.iloc[[0, *range(len(FRAME))]], "row of A at 2024-01-01 00:00:00+00:00 more than once"),
        (None, "predictions.parquet"),  # a folder
    ],
)
def test_foreign_predictions_are_named(compare, tmp_path, frame, message):
    for name in ("one", "two"):
        write_run(tmp_path / name, FRAME)
    path = tmp_path / "two/predictions.parquet"
    path.unlink()
    path.mkdir() if frame is None else frame.to_parquet(path)
    code, _, err = compare(tmp_path / "one", tmp_path / "two")
    assert code == 1 and message in err and str(path) in err and "Traceback" not in err


@pytest.mark.parametrize("threshold", ["0.5", None, [], True, float("nan"), 10**400])
def test_foreign_thresholds_are_named(compare, tmp_path, threshold):
    for name in ("one", "two"):
        write_run(tmp_path / name, FRAME)
    path = tmp_path / "two/metrics.json"
    for content in ({"thresholds": {"probability": threshold}}, {"thresholds": threshold}, {}, []):
        path.write_text(json.dumps(content))
        code, _, err = compare(tmp_path / "one", tmp_path / "two")
        assert code == 1 and f"{path} has no probability at thresholds.probability" in err
