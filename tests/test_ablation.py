"""The ablation: its rows, its resumption, its tables; at smoke scale."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.ablation import rows as ablation
from cmat_lib.commands.ablation.command import read_folds
from cmat_lib.commands.ablation.rows import choose_rows, network_rows, reference_row, run_ablation, write_tables
from cmat_lib.config import load_config, merge, project_root, validate
from cmat_lib.evaluation.classic import CLASSIC
from cmat_lib.models.fusion import FUSIONS
from cmat_lib.views.panel import Panel
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.training import prepare_features

pytestmark = pytest.mark.filterwarnings("ignore:an epoch has")


def smoke(folder, **data):
    own = {
        "run_dir": str(folder / "run"),
        "cache": {"dir": str(folder / "cache"), "jobs": 1},
        "data": {"split": "walk_forward", "folds": 2, "synthetic_days": 180, **data},
        "training": {"epochs": 1},
    }
    return load_config(project_root() / "params/smoke.yaml", own)


def test_rows_are_every_subset_and_every_other_fusion():
    rows = network_rows(load_config())
    subsets = {"nbeats", "tda", "complexity", "nbeats+tda", "nbeats+complexity", "tda+complexity"}
    assert set(rows) == {"full", *subsets, *(set(FUSIONS) - {"cross_modal_attention"})}
    clocked = network_rows(load_config(changes={"model": {"modalities": ["nbeats", "tda", "clock"]}}))
    assert clocked["tda"] == {"model": {"modalities": ["tda", "clock"]}}, "the clock stays"
    assert "nbeats+tda" not in clocked, "that is the full model"


def test_unknown_rows_are_named():
    assert choose_rows(load_config(), ["full", "trees"]) == ["trees", "full"]
    with pytest.raises(CmatError, match="--rows: unknown row 'tres'; did you mean 'trees'"):
        choose_rows(load_config(), ["tres"])


def test_all_are_compared_with_full_or_the_first_row():
    assert reference_row(["trees", "full", "concat"]) == "full" and reference_row(["trees", "concat"]) == "trees"


@pytest.mark.parametrize("folds", ["2", "0,,1", "²", "-1", "x"])
def test_folds_that_are_none_are_named(folds):
    with pytest.raises(CmatError, match="write all, or numbers from 0 to 1"):
        read_folds(folds, 2)


def test_a_fold_counts_once():
    assert read_folds("1,0,1", 2) == [0, 1] == read_folds("all", 2)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    config = smoke(folder)
    run = prepare_features(config, lambda line: None)
    rows = ["base_rate", "volatility", "trees+clock", "full", "concat"]
    lines = []
    result = run_ablation(config, run, rows, 2, [0, 1], lines.append)
    return config, run, rows, result, lines


def test_tables_hold_every_row_pooled_and_within(small):
    _, _, rows, folder, lines = small
    table = pd.read_parquet(folder / "table.parquet")
    assert list(table.index.unique("row")) == [*rows, "oracle_probability"]
    auc = table.xs("roc_auc", level="metric")["value"].unstack("scope")
    assert auc.loc["oracle_probability", "pooled"] == auc["pooled"].max() > 0.65
    frame = pd.read_parquet(folder / "predictions.parquet")
    assert set(frame["fold"]) == {0, 1} and not frame.duplicated(["symbol", "timestamp"]).any()
    for row in rows:
        assert auc.loc[row, "pooled"] == pytest.approx(roc_auc_score(frame["trigger"], frame[row])), row
    by_fold = pd.read_parquet(folder / "folds.parquet")
    assert by_fold.loc[("base_rate", 0), "test"] == 0.5
    differences = pd.read_parquet(folder / "differences.parquet")
    pooled = differences.xs(("pooled", "roc_auc"), level=("scope", "metric"))["value"]
    assert pooled["concat"] == pytest.approx(auc.loc["full", "pooled"] - auc.loc["concat", "pooled"])
    assert any(line.startswith("smallest difference of ROC-AUC that") for line in lines)
    assert (folder / "forest.png").stat().st_size > 10_000 and (folder / "differences.png").stat().st_size > 10_000


def test_every_trained_network_is_a_trial(small):
    config, run, *_ = small
    ledger = pd.read_parquet(run.folder.parent / "ledger.parquet")
    assert len(ledger) == 2 * 2 * 2, "full and concat, seeds, folds"
    own = merge(config.model_dump(mode="json"), {"seed": config.seed + 1, "data": {"fold": 1}})
    same = Run(validate(own, "this test"), "04_training").fingerprint()
    assert (ledger["fingerprint"] == same).sum() == 1, "and `cmat run` with these parameters would be the same trial"
    assert ledger["data_hash"].nunique() == 1


def test_finished_cells_are_not_made_again_and_missing_ones_are(small, monkeypatch):
    config, run, rows, folder, _ = small
    made, original = [], ablation.make_scores
    monkeypatch.setattr(ablation, "make_scores", lambda cell, *args: made.append(cell) or original(cell, *args))
    before = pd.read_parquet(folder / "predictions.parquet")
    next((folder / "cells").glob("full-1-1-*")).unlink()
    run_ablation(config, run, rows, 2, [0, 1], lambda line: None)
    assert made == [("full", 1, 1)]
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "predictions.parquet"), before)
    more = config.model_copy(update={"training": config.training.model_copy(update={"weight_decay": 0.5})})
    run_ablation(more, type(run)(more, run.stage), ["concat"], 1, [0], lambda line: None)
    assert made[1:] == [("concat", 0, 0)], "other parameters are other cells"


@pytest.mark.parametrize("damage", ["empty", "cut", "zip", "part", "length", "nan", "text", "no archive"])
def test_damaged_cells_are_made_again(small, damage):
    config, run, _, folder, _ = small
    path = next((folder / "cells").glob("base_rate-0-0-*"))
    before, whole = path.read_bytes(), dict(np.load(path))
    odd = {"part": {"train": whole["train"]}, "length": whole | {"test": whole["test"][1:]}}
    odd |= {"nan": whole | {"test": whole["test"] * np.nan}, "text": whole | {"test": whole["test"].astype(str)}}
    if damage in odd:
        np.savez(path, **odd[damage])
    elif damage == "no archive":
        with path.open("wb") as file:
            np.save(file, whole["test"])
    else:
        path.write_bytes({"empty": b"", "cut": before[: len(before) // 2], "zip": b"PK\x03\x04junk"}[damage])
    _, panel = next(ablation.fold_panels(config, run, [0]))
    lines = []
    made = ablation.cell_scores(ablation.Cell("base_rate", 0, 0), panel, config, run, folder, lines.append)
    assert lines == [f"{path.name} is damaged; it is made again"]
    for part, scores in dict(np.load(path)).items():
        assert np.array_equal(scores, whole[part]) and np.array_equal(made[part], whole[part])


def test_seeds_and_rows_differ_and_folds_are_scaled_by_their_own_training_part(small):
    config, run, _, folder, _ = small
    cells = {path.name.rsplit("-", 1)[0]: np.load(path)["test"] for path in (folder / "cells").glob("*")}
    assert not np.array_equal(cells["full-0-0"], cells["full-0-1"])
    assert not np.array_equal(cells["full-0-0"], cells["concat-0-0"])
    (_, first), (_, second) = ablation.fold_panels(config, run, [0, 1])
    assert isinstance(first, Panel) and first.scalers != second.scalers
    train = [panel.samples.loc[panel.samples["part"] == "train", "close_time"].max() for panel in (first, second)]
    assert train[0] < train[1], "an expanding window"


def test_a_better_row_is_seen_with_its_interval(tmp_path):
    """Planted: one row knows, the other guesses; two folds with other levels of the score."""
    rng = np.random.default_rng(0)
    n = 4000
    time = pd.date_range("2025-01-01", periods=n // 2, freq="1h", tz="UTC")
    trigger = (rng.random(n) < 0.2).astype(float)
    frame = pd.DataFrame(
        {
            "symbol": np.repeat(["A", "B"], n // 2),
            "timestamp": np.tile(time, 2),
            "trigger": trigger,
            "fold": np.tile(np.arange(n // 2) >= n // 4, 2).astype(int),
            "full": 0.1 + 0.3 * trigger + 0.2 * rng.random(n),
            "concat": 0.3 * rng.random(n),
        }
    ).assign(part="test", train_auc_full=0.9, train_auc_concat=0.5)
    write_tables(frame, load_config(changes={"evaluation": {"bootstrap_samples": 100}}), tmp_path, lambda line: None)
    row = pd.read_parquet(tmp_path / "differences.parquet").loc[("concat", "pooled", "roc_auc")]
    assert row["value"] == pytest.approx(0.5, abs=0.05) and row["low"] > 0.4


def test_overlapping_test_parts_are_refused(small):
    config, run, *_ = small
    data = config.data.model_copy(update={"split": "combinatorial", "folds": 4})
    with pytest.raises(CmatError, match="every test row counts once"):
        run_ablation(config.model_copy(update={"data": data}), run, ["full"], 1, [0], lambda line: None)


@pytest.mark.long
def test_the_whole_table_at_smoke_scale(tmp_path):
    config = smoke(tmp_path)
    run = prepare_features(config, lambda line: None)
    folder = run_ablation(config, run, choose_rows(config, None), 3, [0, 1], lambda line: None)
    table = pd.read_parquet(folder / "table.parquet")
    assert {*CLASSIC, *network_rows(config)} <= set(table.index.unique("row"))
    assert table.xs("roc_auc", level="metric")["low"].notna().all()
