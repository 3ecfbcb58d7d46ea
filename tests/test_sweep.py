"""`cmat sweep`: the file, the search, its end after a kill, and what it leaves."""

import json
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import optuna
import pandas as pd
import pytest
import yaml

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.sweep.file import KEYS, Sweep, read_sweep
from cmat_lib.commands.sweep.search import run_sweep, study_table
from cmat_lib.config import load_config, project_root
from cmat_lib.config.schema import OF_THE_LOSS
from cmat_lib.training.optimisation import build_loss
from cmat_lib.training.trainer import train
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.common import load_panel

PARAMS = project_root() / "params"
SEARCH = {
    "fusion.hidden_dim": [16, 32],
    "fusion.num_layers": {"low": 1, "high": 2},
    "model.modalities": [["nbeats"], ["nbeats", "tda"]],
    "training.learning_rate": {"low": 0.001, "high": 0.01, "log": True},
}


def write(folder, **changes):
    content = {"base": str(PARAMS / "smoke.yaml"), "pruning": None, "search": SEARCH} | changes
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def base_of(folder, base, **training):
    own = {"run_dir": str(folder / "sweep"), "cache": {"dir": str(folder / "cache"), "jobs": 1}}
    return base | own | {"training": base["training"] | {"determinism": "strict", **training}}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of four trials: its folder, what was read, what was said, its table."""
    folder, said = tmp_path_factory.mktemp("sweep"), []
    sweep, base = read_sweep(write(folder))
    base = base_of(folder, base)
    return folder, sweep, base, said, run_sweep(sweep, base, 4, 1, said.append)


def test_the_file_of_the_repository_is_a_sweep_and_its_schema_is_current():
    sweep, base = read_sweep(PARAMS / "sweep.yaml")
    assert sweep.metric == "stop_roc_auc" and load_config(base=base).data.timeframe == "1h"
    assert json.loads((PARAMS / "sweep.schema.json").read_text()) == Sweep.model_json_schema(), "run `cmat schema`"


def test_the_schema_completes_the_keys_of_the_search():
    names = Sweep.model_json_schema()["properties"]["search"]["propertyNames"]["enum"]
    assert "training.learning_rate" in names and "training.device" not in names and "data.timeframe" not in names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"training.learning_rat": [0.1]}}, "did you mean 'training.learning_rate'?"),
        ({"search": {"learning_rate": [0.1]}}, "did you mean 'training.learning_rate'?"),
        ({"search": {"data.timeframe": ["1h"]}}, "changes what all trials share"),
        ({"search": {"training.device": ["cpu"]}}, "set it in the base file"),
        ({"search": {"training.learning_rate": ["1e-3"]}}, "write 0.001 or 1.0e-3"),
        ({"search": {"fusion.num_layers": {"low": 1.5, "high": 3}}}, "valid integer, got 1.5"),
        ({"search": {"fusion.dropout": {"low": 0, "high": 1}}}, "fusion.dropout: Input should be less than 1"),
        ({"search": {"fusion.dropout": {"low": 0.2, "high": 0.1}}}, "low 0.2 must be below high 0.1"),
        ({"search": {"fusion.dropout": {"low": 0, "hgh": 0.1}}}, "unknown key 'hgh' in search: fusion.dropout"),
        ({"search": {"fusion.dropout": [0.1, 0.1]}}, "list every value once"),
        ({"search": {"fusion.dropout": list(range(10**5))}}, "at most 1000 items"),
        ({"search": {"training.focal_gamma": [0.0, 2.0]}, "metric": "stop_loss"}, "losses cannot be compared"),
        ({"search": {"training.loss": ["multi_task"]}, "metric": "stop_loss"}, "losses cannot be compared"),
        ({"metric": "test_roc_auc"}, "metric: Input should be 'stop_roc_auc' or 'stop_loss'"),
        ({"tials": 3}, "did you mean 'trials'?"),
        ({"pruning": {"startup": 3}}, "did you mean 'startup_trials'?"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml: no such parameter file"),
    ],
)
def test_mistakes_are_named(tmp_path, changes, message):
    with pytest.raises(CmatError) as error:
        read_sweep(write(tmp_path, **changes))
    assert message in str(error.value)


def test_a_parameter_file_is_no_sweep():
    with pytest.raises(CmatError, match="no 'search' in this file"):
        read_sweep(PARAMS / "demo.yaml")


def test_an_unknown_fusion_stops_before_any_work(tmp_path):
    sweep, base = read_sweep(write(tmp_path, search={"fusion.fusion_type": ["concat", "gatd"]}))
    with pytest.raises(CmatError, match="did you mean 'gated'"):
        run_sweep(sweep, base_of(tmp_path, base), 1, 1, print)
    assert not (tmp_path / "sweep").exists()


def test_best_file_trains_to_the_value_of_the_best_trial(swept):
    folder, _, _, _, table = swept
    best = load_config(folder / "sweep/best.yaml")
    assert best.run_dir == str(folder / "sweep_best") and best.fusion.output_dim == best.fusion.hidden_dim
    first = table.iloc[0]
    assert first["state"] == "complete" and first["value"] == table["value"].max() and best.seed == first["trial"]
    run = Run(load_config(folder / "sweep/params.yaml"), "04_training")
    again = train(best, load_panel(best, run))
    assert again.history[again.best_epoch - 1]["stop_roc_auc"] == first["value"]


def test_every_trial_is_counted_without_a_look_at_the_test_part(swept):
    folder, _, _, _, table = swept
    ledger = pd.read_parquet(folder / "ledger.parquet")
    assert len(ledger) == len(table) == 4 and ledger["fingerprint"].is_unique
    assert not [name for name in ledger if "auc" in name or "sharpe" in name]
    best = Run(load_config(folder / "sweep/best.yaml"), "04_training")
    assert best.fingerprint() in ledger["fingerprint"].tolist(), "evaluating the best one must not count it twice"


def test_every_key_that_the_loss_reads_is_marked(swept):
    folder, *_ = swept
    config, read = load_config(folder / "sweep/best.yaml"), set()

    class Watched:
        def __init__(self, section):
            self.section = section

        def __getattr__(self, key):
            read.add(f"{self.section}.{key}")
            return getattr(getattr(config, self.section), key)

    panel = load_panel(config, Run(load_config(folder / "sweep/params.yaml"), "04_training"))
    build_loss(SimpleNamespace(model=Watched("model"), training=Watched("training")), panel)
    assert read == {key for key, field in KEYS.items() if OF_THE_LOSS in field.metadata}


def test_trials_differ(swept):
    _, _, _, said, table = swept
    assert table["training.learning_rate"].is_unique and table["fusion.hidden_dim"].nunique() == 2
    assert len([line for line in said if line.startswith("trial ")]) == 4


def test_the_same_sweep_makes_the_same_trials(swept, tmp_path):
    _, sweep, base, _, table = swept
    again = run_sweep(sweep, base | {"run_dir": str(tmp_path / "sweep")}, 4, 1, lambda line: None)
    columns = ["trial", "value", *SEARCH]
    pd.testing.assert_frame_equal(again[columns], table[columns])


def test_a_killed_sweep_goes_on_and_ends_as_an_undisturbed_one(swept, tmp_path):
    """Killed in the second trial; the number of a trial that was cut off is not given again."""
    _, sweep, base, _, table = swept
    base = base | {"run_dir": str(tmp_path / "sweep")}
    run_sweep(sweep, base, 1, 1, lambda line: None)
    script = "import sys, yaml; from pathlib import Path; from cmat_lib.commands.sweep import search as sweep; "
    script += "from cmat_lib.commands.sweep.file import Sweep, read_sweep; "
    script += "sweep.train = lambda *a: (print('training', flush=True), __import__('time').sleep(60)); "
    script += "sweep.run_sweep(read_sweep(Path(sys.argv[1]))[0], yaml.safe_load(sys.argv[2]), 2, 1, print)"
    command = [sys.executable, "-c", script, str(write(tmp_path)), yaml.safe_dump(base)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert any(line.strip() == "training" for line in process.stdout)
        with pytest.raises(CmatError, match=r"process \d+ on .* works here since"):
            run_sweep(sweep, base, 2, 1, lambda line: None)
        process.kill()
    said = []
    again = run_sweep(sweep, base, 3, 1, said.append).set_index("trial")
    assert "trial 1 was cut off and is marked as failed" in said
    assert again["state"].to_dict() == {0: "complete", 1: "failed", 2: "complete", 3: "complete"}
    assert again.loc[0, "value"] == table.set_index("trial").loc[0, "value"]


def test_half_a_line_of_the_journal_is_dropped(swept, tmp_path):
    folder, sweep, base, _, table = swept
    own = base_of(tmp_path, base)
    shutil.copytree(folder / "sweep", tmp_path / "sweep")
    journal = tmp_path / "sweep/journal.log"
    with open(journal, "ab") as file:
        file.write(b'{"op_code": 5, "worker_id": "a full di')
    pd.testing.assert_frame_equal(run_sweep(sweep, own, 4, 1, lambda line: None), table)
    run_sweep(sweep, own, 5, 1, lambda line: None)
    assert len(run_sweep(sweep, own, 5, 1, lambda line: None)) == 5, "the journal can be read again"
    journal.write_text("no journal\n" + journal.read_text())
    with pytest.raises(CmatError, match=r"journal\.log: not a journal of Optuna \(.*\); give --run-dir"):
        run_sweep(sweep, own, 5, 1, lambda line: None)


def test_another_search_in_the_same_folder_is_refused(swept, tmp_path):
    _, _, base, _, _ = swept
    other, _ = read_sweep(write(tmp_path, search=SEARCH | {"fusion.num_layers": {"low": 1, "high": 3}}))
    with pytest.raises(CmatError, match="a sweep with another search"):
        run_sweep(other, base, 5, 1, print)
    with pytest.raises(CmatError, match="a sweep with another base"):
        sweep, _ = read_sweep(write(tmp_path))
        run_sweep(sweep, base | {"evaluation": {"calibration": "temperature"}}, 5, 1, print)


def test_what_cannot_be_built_fails_and_the_rest_goes_on(swept, tmp_path):
    _, _, base, _, _ = swept
    sweep, _ = read_sweep(write(tmp_path, search={"fusion.num_heads": [4, 5]}))
    said = []
    table = run_sweep(sweep, base | {"run_dir": str(tmp_path / "sweep")}, 6, 1, said.append)
    states = table.groupby("fusion.num_heads")["state"].unique()
    assert states[4].tolist() == ["complete"] and states[5].tolist() == ["failed"]
    assert any("num_heads 5 does not divide hidden_dim 32" in line for line in said)


def test_pruning_looks_at_the_curve_and_leaves_the_first_epochs_alone(swept, tmp_path):
    _, _, base, _, _ = swept
    search = {"training.learning_rate": {"low": 0.0001, "high": 0.03, "log": True}}
    sweep, _ = read_sweep(write(tmp_path, search=search, pruning={"startup_trials": 2, "warmup_epochs": 1}))
    base = base | {"run_dir": str(tmp_path / "sweep"), "training": base["training"] | {"epochs": 4}}
    table = run_sweep(sweep, base, 8, 1, lambda line: None)
    pruned = table[table["state"] == "pruned"]
    assert len(pruned) >= 1 and pruned["epochs"].between(2, 4).all() and pruned["value"].isna().all()
    assert (table.loc[table["trial"] < 2, "state"] == "complete").all()
    ledger = pd.read_parquet(tmp_path / "ledger.parquet")
    assert len(ledger) == 8, "a pruned trial was tried too"


def test_two_at_a_time_share_the_study(swept, tmp_path):
    _, sweep, base, _, _ = swept
    started = time.monotonic()
    table = run_sweep(sweep, base | {"run_dir": str(tmp_path / "sweep")}, 4, 2, print)
    assert sorted(table["trial"]) == [0, 1, 2, 3] and (table["state"] == "complete").all()
    assert time.monotonic() - started < 300, "trials do not wait for each other's locks"


def test_a_smaller_metric_is_sorted_upwards():
    study = optuna.create_study(direction="minimize")
    for value in (0.3, 0.1, 0.2):
        study.add_trial(optuna.trial.create_trial(value=value))
    assert study_table(study)["value"].tolist() == [0.1, 0.2, 0.3]
