"""The ledger under reruns, two processes and crashes, and what it says about luck."""

import multiprocessing
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.evaluation.overfitting import deflated_sharpe, overfitting_probability, sharpe_ratio
from cmat_lib.workflow.ledger import TRIED, append_trial, ledger_path, trial_row, trial_table
from cmat_lib.workflow.run import Run

DAYS = pd.date_range("2024-01-01", periods=64, freq="D")


def trial(number, returns=None, data="d"):
    values = np.random.default_rng(number).normal(size=64) if returns is None else returns
    name = {"daily_top_2": values.tolist(), "sharpe_top_2": sharpe_ratio(values), "first_day": DAYS[0].isoformat()}
    return {"fingerprint": f"f{number}", "data_hash": data, "run": f"run{number}", **name}


def test_a_rerun_replaces_its_row(tmp_path):
    path = tmp_path / "deep/ledger.parquet"
    for number in (1, 2, 1):
        ledger = append_trial(path, trial(number) | {"run": f"again{number}"})
    assert ledger["fingerprint"].tolist() == ["f2", "f1"]
    pd.testing.assert_frame_equal(pd.read_parquet(path)[["fingerprint", "run"]], ledger[["fingerprint", "run"]])


def test_a_row_without_scores_replaces_none(tmp_path):
    path = tmp_path / "ledger.parquet"
    tried = dict.fromkeys(TRIED, "x") | {"fingerprint": "f1"}
    append_trial(path, tried)
    append_trial(path, trial(1))
    ledger = append_trial(path, tried)
    assert len(ledger) == 1 and ledger["sharpe_top_2"].notna().all()
    assert pd.read_parquet(path)["sharpe_top_2"].notna().all()


def test_rows_with_other_shares_live_together(tmp_path):
    path = tmp_path / "ledger.parquet"
    append_trial(path, trial(1))
    other = {key.replace("top_2", "top_5"): value for key, value in trial(2).items()}
    ledger = append_trial(path, other)
    assert trial_table(ledger, "f2", [0.05]).loc[0.05, "trials"] == 2
    assert np.isnan(trial_table(ledger, "f2", [0.05]).loc[0.05, "overfitting"]), "the other has no such share"


def test_a_trial_without_daily_returns_counts_and_is_not_compared(tmp_path):
    path = tmp_path / "ledger.parquet"
    for number in (1, 2):
        append_trial(path, trial(number) | {"daily_top_2": None})
    found = trial_table(append_trial(path, trial(3)), "f3", [0.02]).loc[0.02]
    assert found["trials"] == 3 and np.isnan(found["overfitting"])


def _append(path, start):
    for number in range(start, start + 10):
        append_trial(path, trial(number))


def test_two_processes_lose_no_row(tmp_path):
    path = tmp_path / "ledger.parquet"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append, args=(path, start)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(pd.read_parquet(path)) == 20


def test_a_crash_while_writing_leaves_the_old_ledger(tmp_path, monkeypatch):
    path = tmp_path / "ledger.parquet"
    append_trial(path, trial(1))
    before = path.read_bytes()

    def crash(*_):
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(CmatError, match=r"ledger\.parquet: cannot be written \(power cut\)"):
        append_trial(path, trial(2))
    assert path.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".lock") == [
        path.name
    ]


def no_ledger(path, kind):
    if kind == "folder":
        return path.mkdir()
    if kind == "text":
        return path.write_text("nonsense")
    if kind == "metadata":
        table = pa.table({"fingerprint": ["f"]}).replace_schema_metadata({b"pandas": b"[]"})
        return pq.write_table(table, path)
    changes = {"fingerprint": {"fingerprint": 1}, "returns": {"daily_top_2": "x"}, "score": {"sharpe_top_2": "x"}}
    row = {"a": 1} if kind == "foreign" else trial(2) | changes[kind]
    return pd.DataFrame([row]).to_parquet(path)


@pytest.mark.parametrize("kind", ["text", "folder", "foreign", "metadata", "fingerprint", "returns", "score"])
def test_a_file_that_is_no_ledger_is_named(tmp_path, kind):
    path = tmp_path / "ledger.parquet"
    no_ledger(path, kind)
    with pytest.raises(CmatError, match=r"ledger\.parquet: not a ledger .*move it away"):
        append_trial(path, trial(1))


def test_a_lock_that_is_a_folder_is_named(tmp_path):
    (tmp_path / "ledger.parquet.lock").mkdir()
    with pytest.raises(CmatError, match=r"ledger\.parquet\.lock: cannot be locked .*move it away"):
        append_trial(tmp_path / "ledger.parquet", trial(1))


def test_luck_is_counted_among_trials_on_the_same_candles(tmp_path):
    path = tmp_path / "ledger.parquet"
    rows = [trial(number) for number in range(8)]
    append_trial(path, trial(99, data="other candles"))
    for row in rows:
        ledger = append_trial(path, row)
    found = trial_table(ledger, "f3", [0.02]).loc[0.02]
    assert found["trials"] == 8
    own = np.array(rows[3]["daily_top_2"])
    assert found["sharpe"] == pytest.approx(own.mean() / own.std(ddof=1))
    others = np.array([row["sharpe_top_2"] for row in rows])
    assert found["deflated_sharpe"] == pytest.approx(deflated_sharpe(own, others))
    returns = pd.DataFrame(np.column_stack([row["daily_top_2"] for row in rows]))
    assert found["overfitting"] == pytest.approx(overfitting_probability(returns))


def test_days_that_differ_are_not_laid_side_by_side(tmp_path):
    path = tmp_path / "ledger.parquet"
    append_trial(path, trial(1) | {"first_day": "2023-01-01T00:00:00"})
    append_trial(path, trial(2, np.random.default_rng(0).normal(size=50)))
    found = trial_table(append_trial(path, trial(3)), "f3", [0.02]).loc[0.02]
    assert found["trials"] == 3 and np.isnan(found["overfitting"])


def test_trials_that_never_trade_are_not_ranked(tmp_path):
    path = tmp_path / "ledger.parquet"
    for number in (1, 2):
        ledger = append_trial(path, trial(number, np.zeros(64)))
    found = trial_table(ledger, "f2", [0.02]).loc[0.02]
    assert found["trials"] == 2 and found[["sharpe", "deflated_sharpe", "overfitting"]].isna().all()


def test_a_ratio_over_other_days_is_a_try_without_a_ratio(tmp_path):
    path = tmp_path / "ledger.parquet"
    for number in (1, 2):
        append_trial(path, trial(number))
    append_trial(path, trial(4) | {"first_day": "2023-01-01T00:00:00", "sharpe_top_2": 9.0})
    append_trial(path, trial(5, np.random.default_rng(5).normal(size=50)) | {"sharpe_top_2": -9.0})
    found = trial_table(append_trial(path, trial(3)), "f3", [0.02]).loc[0.02]
    ratios = np.array([trial(number)["sharpe_top_2"] for number in (1, 2, 3)] + [np.nan, np.nan])
    assert found["trials"] == 5
    assert found["deflated_sharpe"] == pytest.approx(deflated_sharpe(np.array(trial(3)["daily_top_2"]), ratios))


def save_candles(run, **columns):
    frame = pd.DataFrame({"symbol": "A", "timestamp": pd.to_datetime(["2024-01-01"], utc=True), "close": 1.0})
    run.save_frame("data/candles.parquet", frame.assign(**columns))


def test_row_of_a_run(tmp_path):
    config = load_config(changes={"run_dir": str(tmp_path / "mine")})
    run = Run(config, "05_evaluation")
    save_candles(run)
    index = pd.MultiIndex.from_tuples([("pooled", "roc_auc"), ("within", "roc_auc")])
    scores = pd.DataFrame({"value": [0.7, 0.6]}, index=index)
    decision = pd.DataFrame({"trades": [12], "net_pct": [0.3], "std_pct": [1.1]}, index=[0.02])
    returns = pd.Series(np.random.default_rng(0).normal(size=64), DAYS)
    row = trial_row(run, scores, decision, {0.02: returns})
    assert (row["run"], row["within_roc_auc"], row["trades_top_2"]) == ("mine", 0.6, 12)
    assert row["fingerprint"] == run.fingerprint("04_training") and row["first_day"] == "2024-01-01T00:00:00"
    assert row["skew_top_2"] == pytest.approx(returns.skew(), rel=0.05)
    assert row["kurtosis_top_2"] == pytest.approx(returns.kurt() + 3, rel=0.1)
    assert ledger_path(run) == tmp_path / "ledger.parquet"
    moved = Run(load_config(changes={"run_dir": str(tmp_path / "other")}), "05_evaluation")
    save_candles(moved, oracle_probability=0.1)
    twin = trial_row(moved, scores, decision, {0.02: returns * 0})
    assert (twin["fingerprint"], twin["config_hash"]) == (row["fingerprint"], row["config_hash"]), (
        "the folder is no trial"
    )
    assert twin["data_hash"] == row["data_hash"], "labels change the true probability, and no price"
    save_candles(moved, close=2.0)
    assert trial_row(moved, scores, decision, {0.02: returns})["data_hash"] != row["data_hash"]
    assert np.isnan(twin["sharpe_top_2"]) and len(append_trial(ledger_path(run), twin)) == 1


def test_what_was_tried_without_a_look_at_the_test_part_counts(tmp_path):
    path = tmp_path / "ledger.parquet"
    append_trial(path, trial(1))
    alone = trial_table(append_trial(path, trial(1)), "f1", [0.02]).loc[0.02]
    for number in (2, 3):
        append_trial(path, {"fingerprint": f"f{number}", "data_hash": "d", "run": "sweep"})
    append_trial(path, {"fingerprint": "f4", "data_hash": "other candles", "run": "sweep"})
    among = trial_table(pd.read_parquet(path), "f1", [0.02]).loc[0.02]
    assert (alone["trials"], among["trials"]) == (1, 3) and among["deflated_sharpe"] < alone["deflated_sharpe"]
    evaluated = append_trial(path, trial(3))
    assert trial_table(evaluated, "f3", [0.02]).loc[0.02, "trials"] == 3, "its scores take the place of the empty row"
