"""The run folder: a stage that matches is kept, one that does not is refused, a failure leaves no record."""

import json
import os
import threading

import numpy as np
import pandas as pd
import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import atomic_path, write_text
from cmat_lib.config import load_config, project_root
from cmat_lib.workflow.pages import open_stage
from cmat_lib.workflow.run import STAGE_NAMES, Run


@pytest.fixture
def config(tmp_path):
    return load_config(changes={"run_dir": str(tmp_path / "run")})


def changed(config, **changes):
    return load_config(changes=changes, base=config.model_dump(mode="json"))


def finish(config, *stages):
    for stage in stages:
        run = Run(config, stage).begin()
        run.save_json(f"data/{stage}.json", {"value": 1.5})
        run.finish()


def test_finished_stage_is_recognised(config):
    finish(config, *STAGE_NAMES[:2])
    assert Run(config, STAGE_NAMES[2]).is_finished(STAGE_NAMES[1])
    assert not Run(config, STAGE_NAMES[2]).is_finished(STAGE_NAMES[2])


def test_missing_stage_names_the_notebook(config):
    with pytest.raises(CmatError, match=r"run notebooks/01_data_prep\.ipynb first"):
        Run(config, "04_training").begin()


def test_other_parameters_name_the_notebook(config):
    finish(config, *STAGE_NAMES[:3])
    other = changed(config, tda={"time_delay": 7})
    with pytest.raises(
        CmatError, match=r"stage 02_tda_cache was made with other parameters.*02_tda_cache\.ipynb again"
    ):
        Run(other, "04_training").begin()
    assert load_config(Run(config, "04_training").path("params.yaml")) == config, (
        "a refused stage must not touch the run"
    )


@pytest.mark.parametrize(
    ("section", "key", "value", "first_stale"),
    [
        ("labels", "horizon", 8, 0),
        ("complexity", "higuchi_kmax", 8, 1),
        ("fusion", "num_layers", 1, 2),
        ("training", "epochs", 3, 3),
        ("training", "focal_gamma", 1.0, 2),  # page 03 shows a loss
        ("tda", "betti_bins", 8, 1),
        ("tda", "window_size", 480, 0),  # page 01 shows samples, and how far each view looks back
        ("complexity", "window_size", 480, 0),
        ("evaluation", "calibration", "temperature", 3),  # fitted and stored with the model
        ("evaluation", "cost_pct", 0.05, 4),
        ("explain", "max_samples", 7, 5),
        ("cache", "jobs", 1, 6),
        ("cache", "backend", "dask", 6),
        ("cache", "dir", "elsewhere", 6),
        ("evaluation", "batch_size", 7, 6),
    ],
)
def test_a_change_makes_its_stage_and_all_later_ones_stale(config, section, key, value, first_stale):
    other = Run(changed(config, **{section: {key: value}}), STAGE_NAMES[0])
    same = Run(config, STAGE_NAMES[0])
    stale = [name for name in STAGE_NAMES if other.fingerprint(name) != same.fingerprint(name)]
    assert stale == list(STAGE_NAMES[first_stale:])


def test_seed_counts_from_the_model_on(config):
    other = Run(changed(config, seed=5), STAGE_NAMES[0])
    stale = [name for name in STAGE_NAMES if other.fingerprint(name) != Run(config, STAGE_NAMES[0]).fingerprint(name)]
    assert stale == list(STAGE_NAMES[2:])


def test_candle_files_count_by_content(config, tmp_path):
    folder = tmp_path / "candles"
    folder.mkdir()
    (folder / "A.csv").write_text("x")
    prints = []
    for action in (None, lambda: os.utime(folder / "A.csv", (1, 1)), lambda: (folder / "A.csv").write_text("y")):
        if action:
            action()
        prints.append(Run(changed(config, data={"data_dir": str(folder)}), STAGE_NAMES[0]).fingerprint())
    (folder / "notes.txt").write_text("not a candle file")
    prints.append(Run(changed(config, data={"data_dir": str(folder)}), STAGE_NAMES[0]).fingerprint())
    moved = folder.rename(tmp_path / "moved")
    prints.append(Run(changed(config, data={"data_dir": str(moved)}), STAGE_NAMES[0]).fingerprint())
    assert prints[0] == prints[1] != prints[2] == prints[3] == prints[4]


def test_truncated_artefact_is_noticed(config):
    finish(config, STAGE_NAMES[0])
    path = Run(config, STAGE_NAMES[1]).path(f"data/{STAGE_NAMES[0]}.json")
    path.write_text("{")
    with pytest.raises(CmatError, match="missing, damaged or edited"):
        Run(config, STAGE_NAMES[1]).begin()


def edit(path):
    path.write_text(path.read_text().replace("1.5", "2.5"))


def swap(path):
    np.savez_compressed(path, x=np.arange(4))


DAMAGES = [
    ("a.json", edit),
    ("a.parquet", lambda path: path.write_bytes(path.read_bytes()[:-20])),
    ("a.npy", lambda path: np.save(path, np.arange(3.0) + 1)),
    ("a.npz", swap),
    ("a.json", lambda path: path.unlink()),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES, ids=["edited", "cut", "other numbers", "swapped", "deleted"])
def test_an_artefact_that_is_not_what_its_stage_wrote_is_named(config, name, damage):
    run = Run(config, STAGE_NAMES[0]).begin()
    run.save_json("a.json", {"value": 1.5})
    run.save_frame("a.parquet", pd.DataFrame({"x": [1.0]}))
    run.save_array("a.npy", np.arange(3.0))
    run.save_arrays("a.npz", x=np.arange(3))
    run.finish()
    later = Run(config, STAGE_NAMES[1]).begin()
    assert later.intact(name) == run.path(name) and not later.damaged(STAGE_NAMES[0])
    damage(run.path(name))
    read = {"json": later.read_json, "parquet": later.read_frame, "npy": later.read_array, "npz": later.intact}
    message = rf"{name} is missing, damaged or edited; run notebooks/01_data_prep\.ipynb again"
    with pytest.raises(CmatError, match=message):
        read[name.partition(".")[2]](name)
    assert later.damaged(STAGE_NAMES[0]) == [name]


@pytest.mark.parametrize("folder", ["models", "models/", "./models", "a//b"])
def test_a_model_is_checked_however_its_folder_is_written(config, folder):
    config = changed(config, logging={"save_dir": folder})
    finish(config, *STAGE_NAMES[:3])
    run = Run(config, "04_training").begin()
    run.claim(f"{folder}/best_model.pt").parent.mkdir(parents=True)
    run.model_path().write_bytes(b"a model")
    run.finish()
    later = Run(config, "05_evaluation").begin()
    later.model_path().write_bytes(b"another")
    with pytest.raises(CmatError, match=r"best_model\.pt is missing, damaged or edited; run notebooks/04_training"):
        later.model_path()


def test_what_cannot_be_read_is_damaged(config, monkeypatch):
    finish(config, STAGE_NAMES[0])

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("cmat_lib.workflow.run.file_hash", denied)
    with pytest.raises(CmatError, match="missing, damaged or edited"):
        Run(config, STAGE_NAMES[1]).intact(f"data/{STAGE_NAMES[0]}.json")


def test_a_stage_that_is_made_again_without_its_page_leaves_no_old_page(config):
    finish(config, STAGE_NAMES[0])
    pages = [
        Run(config, STAGE_NAMES[0]).path(name) for name in ("notebooks/01_data_prep.ipynb", "report/01_data_prep.html")
    ]
    for page in pages:
        page.parent.mkdir(exist_ok=True)
        page.write_text("of other parameters")
    finish(changed(config, labels={"horizon": 8}), STAGE_NAMES[0])
    assert not any(page.exists() for page in pages)


def test_a_file_is_hashed_once_in_a_process(config, monkeypatch):
    run = Run(config, STAGE_NAMES[0]).begin()
    run.save_json("a.json", {})
    run.finish()
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("hashed again"))
    assert run.read_json("a.json") == {} and not run.damaged(STAGE_NAMES[0])


def test_an_ablation_and_another_model_that_is_compared_are_inputs_of_their_pages(config, tmp_path):
    config = changed(config, explain={"other_runs": [str(tmp_path / "other")]})
    prints = lambda: {stage: Run(config, STAGE_NAMES[0]).fingerprint(stage) for stage in STAGE_NAMES}  # noqa: E731
    model = tmp_path / "other" / config.logging.save_dir / "best_model.pt"
    for path, first in ((model, 5), (tmp_path / "run/ablation/table.parquet", 4)):
        before = prints()
        path.parent.mkdir(parents=True)
        path.write_text("x")
        after = prints()
        assert [stage for stage in STAGE_NAMES if before[stage] != after[stage]] == list(STAGE_NAMES[first:])


def test_the_first_write_withdraws_this_record_and_all_later_ones(config):
    finish(config, *STAGE_NAMES[:4])
    run = Run(config, STAGE_NAMES[1]).begin()
    assert run.is_finished(STAGE_NAMES[1]) and run.is_finished(STAGE_NAMES[3]), "nothing has changed yet"
    run.save_json("data/new.json", {})
    assert [run.record(stage) is not None for stage in STAGE_NAMES[:4]] == [True, False, False, False]


def test_a_mistake_in_the_input_leaves_a_finished_run_alone(config, tmp_path):
    finish(config, *STAGE_NAMES)
    wrong = changed(config, data={"data_dir": str(tmp_path / "nowhere")})
    with pytest.raises(CmatError, match="no such folder"):
        Run(wrong, STAGE_NAMES[0]).begin()
    with pytest.raises(CmatError, match="no such folder"):
        Run(wrong, STAGE_NAMES[0]).is_finished(STAGE_NAMES[0])  # the synthetic market is not what was asked for
    assert load_config(Run(config, STAGE_NAMES[0]).path("params.yaml")) == config
    assert all(Run(config, STAGE_NAMES[0]).is_finished(stage) for stage in STAGE_NAMES)


def test_two_stages_cannot_own_one_file(config):
    finish(config, STAGE_NAMES[0])
    run = Run(config, STAGE_NAMES[1]).begin()
    run.save_json(f"data/{STAGE_NAMES[0]}.json", {})
    with pytest.raises(CmatError, match="belongs to stage 01_data_prep"):
        run.finish()


def test_artefacts_round_trip(config):
    run = Run(config, STAGE_NAMES[0]).begin()
    frame = pd.DataFrame({"t": pd.date_range("2025", periods=2, tz="UTC"), "x": [1.0, np.nan]})
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    run.save_frame("a.parquet", frame)
    run.save_array("b.npy", array)
    run.save_json("c.json", {"nan": np.float32("nan"), "number": np.int64(3), "list": (1, np.float64(2.5))})
    pd.testing.assert_frame_equal(run.read_frame("a.parquet"), frame)
    np.testing.assert_array_equal(run.read_array("b.npy"), array)
    assert run.read_json("c.json") == {"nan": None, "number": 3, "list": [1, 2.5]}
    assert list(run.finish()["artefact"]) == ["a.parquet", "b.npy", "c.json"]


DEEP = b"[" * 200_000  # more than Python's stack can take


@pytest.mark.parametrize(
    ("read", "content"),
    [(Run.read_json, content) for content in (b"", b"\xff\xfe", DEEP)]
    + [(Run.read_frame, content) for content in (b"", b"PAR1PAR1", DEEP)]
    + [(Run.read_array, content) for content in (b"", b"PK\3\4junk", b"\x93NUMPY\1\0\5\0{'a':", b"[1]")],
)
def test_foreign_bytes_are_named(config, read, content):
    run = Run(config, STAGE_NAMES[0])
    run.folder.mkdir()
    run.path("artefact").write_bytes(content)
    with pytest.raises(CmatError, match=r"artefact cannot be read \(.+\); delete it"):
        read(run, "artefact")


def test_an_archive_is_no_array(config):
    run = Run(config, STAGE_NAMES[0])
    run.save_arrays("a.npz", x=np.arange(3))
    with pytest.raises(CmatError, match="cannot be read"):
        run.read_array("a.npz")


def test_atomic_write_keeps_the_old_file_on_error(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path], "a temporary file was left behind"


def test_unwritable_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CmatError, match="cannot be written to"):
        write_text(tmp_path / "file" / "x.txt", "text")


def test_atomic_writes_from_many_threads(tmp_path):
    path = tmp_path / "file.json"
    texts = [json.dumps([i] * 1000) for i in range(8)]
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts


# -- what a notebook opens ---------------------------------------------------------------------------------------------


def page(tmp_path, **variables):
    empty = {name: {} for name in ("data", "labels", "tda", "complexity", "fusion", "model", "training")}
    return {"run_dir": str(tmp_path / "run"), "seed": None, **empty, **variables}


def test_first_page_starts_from_the_defaults(tmp_path):
    config, run = open_stage("01_data_prep", page(tmp_path, labels={"horizon": 8}))
    assert config.labels.horizon == 8 and config.tda.window_size == 672
    assert not run.folder.exists(), "nothing is written before there is something to keep"
    run.finish()
    assert run.path("params.yaml").is_file() and run.path("environment.json").is_file()


def test_demo_folder_starts_from_the_demo():
    from cmat_lib.workflow.pages import base_parameters

    base, origin = base_parameters("01_data_prep", "outputs/demo")
    assert origin == "params/demo.yaml" and base == load_config_mapping("demo")


def load_config_mapping(name):
    from cmat_lib.config import read_params

    return read_params(project_root() / f"params/{name}.yaml")


def test_later_pages_continue_the_run(tmp_path):
    _, run = open_stage("01_data_prep", page(tmp_path, labels={"horizon": 8}))
    run.finish()
    later, run = open_stage("02_tda_cache", page(tmp_path, training={"epochs": 3}))
    assert later.labels.horizon == 8 and later.training.epochs == 3
    run.finish()
    assert open_stage("02_tda_cache", page(tmp_path))[0].training.epochs == 3


def test_later_page_without_a_run_names_the_first(tmp_path):
    with pytest.raises(CmatError, match=r"run notebooks/01_data_prep\.ipynb first"):
        open_stage("05_evaluation", page(tmp_path))


def test_misspelt_section_is_an_error(tmp_path):
    with pytest.raises(CmatError, match="unknown section 'trainng'; did you mean 'training'"):
        open_stage("01_data_prep", page(tmp_path, trainng={"epochs": 3}))
    injected = "# Parameters\nrun_dir = 'x'\nhorizon = 3\n"
    with pytest.raises(CmatError, match="unknown section 'horizon'"):
        open_stage("01_data_prep", page(tmp_path, horizon=3, In=["", injected]))


def test_results_of_later_cells_are_not_parameters(tmp_path):
    """Running the setup cell again in JupyterLab finds the page's own variables beside the parameters."""
    config, _ = open_stage("01_data_prep", page(tmp_path, market={"A": 1}, frame=pd.DataFrame(), count=3))
    assert config == open_stage("01_data_prep", page(tmp_path))[0]


def test_paths_do_not_depend_on_the_working_directory(monkeypatch):
    monkeypatch.chdir(project_root() / "notebooks")
    assert Run(load_config(), STAGE_NAMES[0]).folder == project_root() / "outputs/demo"


def test_what_was_interrupted_can_be_used_but_is_not_finished(config):
    run = Run(config, "01_data_prep").begin()
    run.save_json("a.json", {})
    run.interrupted = True
    run.finish()
    assert not run.is_finished("01_data_prep"), "the runner has to do it again"
    Run(config, "02_tda_cache").begin()  # who wants to can go on
