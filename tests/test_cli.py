"""The command, as a user types it: what works, and how mistakes end."""

import json
import subprocess
import sys

import pytest
import yaml

from cmat_lib import __version__
from cmat_lib.commands.options import run_config
from cmat_lib.config import Config, load_config, project_root
from cmat_lib.workflow.run import STAGE_NAMES, Run

SMOKE = project_root() / "params/smoke.yaml"


def test_the_module_is_the_command():
    result = subprocess.run([sys.executable, "-m", "cmat_lib", "--version"], capture_output=True, text=True)
    assert result.stdout.strip() == f"cmat {__version__}"


def test_help(cmat):
    for command in ("run", "train", "schema"):
        code, out, _ = cmat(command, "--help")
        assert code == 0 and "--help" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "params/nowhere.yaml"], "params/nowhere.yaml: no such parameter file"),
        (["run", "params/smoke.yaml", "--set", "trainng.epochs=3"], "did you mean 'training'?"),
        (["run", "params/smoke.yaml", "--set", "training.epochs"], "write it as section.key=value"),
        (["run", "params/smoke.yaml", "--set", "fusion.fusion_type=concta"], "did you mean 'concat'?"),
        (["run", "params/smoke.yaml", "--set", "data.channels=[log_close, rsii]"], "did you mean 'rsi'?"),
        (["run", "params/smoke.yaml", "--set", "complexity.indicators=[lempel_zif]"], "did you mean 'lempel_ziv'?"),
        (["run", "params/smoke.yaml", "--from", "09"], "no stage '09'"),
        (["run", "params/smoke.yaml", "params/smoke.yaml"], "would share one run folder"),
        (["train", "--params", "params/smoke.yaml", "--set", "data.data_dir=/nowhere"], "/nowhere"),
        (["train", "--params", "params/smoke.yaml", "--device", "tpu"], "training.device"),
    ],
)
def test_mistakes_end_with_one_message(cmat, arguments, message, tmp_path):
    code, _, err = cmat(*arguments, "--run-dir", tmp_path / "run")
    assert code == 1
    assert err.startswith("cmat: ") and message in err
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "stages").exists()


def test_train_takes_the_flags_of_the_source(cmat, tmp_path):
    flags = ["--cache-dir", tmp_path / "cache", "--log-level", "WARNING", "--epochs", 1, "--batch-size", 128]
    flags += ["--lr", 0.0003, "--fusion-hidden-dim", 16, "--fusion-num-heads", 2, "--fusion-num-layers", 1]
    flags += ["--run-dir", tmp_path / "run", "--device", "cpu", "--seed", 3, "--set", "cache.jobs=1"]
    code, out, err = cmat("train", "--params", SMOKE, *flags)
    assert code == 0, err
    config = load_config(tmp_path / "run/params.yaml")
    assert (config.training.epochs, config.training.batch_size, config.training.learning_rate) == (1, 128, 0.0003)
    assert (config.fusion.hidden_dim, config.fusion.output_dim, config.fusion.num_heads) == (16, 16, 2)
    assert (config.fusion.num_layers, config.seed, config.logging.level) == (1, 3, "WARNING")
    assert "epoch   1" in out and list((tmp_path / "cache").glob("tda_features_*/0*.f32"))
    _, again, _ = cmat("train", "--params", SMOKE, *flags)
    assert all(f"{stage} is up to date" in again for stage in STAGE_NAMES[:4])


def test_a_failed_training_leaves_nothing_that_looks_like_success(cmat, tmp_path):
    flags = ["--run-dir", tmp_path / "run", "--cache-dir", tmp_path / "cache", "--set", "cache.jobs=1"]
    code, _, err = cmat("train", "--params", SMOKE, *flags, "--set", "training.learning_rate=1.0e+30")
    assert code == 1 and "loss is not finite at step" in err
    run = Run(load_config(tmp_path / "run/params.yaml"), STAGE_NAMES[3])
    assert run.record(STAGE_NAMES[3]) is None and not run.model_folder.exists()


@pytest.mark.parametrize(
    ("change", "lies_there", "message"),
    [
        ("data.timeframe=1h", "stages/01_data_prep.json", "stages/01_data_prep.json: Is a directory; move away"),
        ("tda.betti_bins=10000000000000", "elsewhere", "not enough memory (Unable to allocate"),
        ("model.nbeats_hidden_size=1000000000000", "elsewhere", "not enough memory ("),
    ],
)
def test_what_the_machine_lacks_is_one_message(cmat, tmp_path, change, lies_there, message):
    (tmp_path / "run" / lies_there).mkdir(parents=True)
    flags = ["--run-dir", tmp_path / "run", "--cache-dir", tmp_path / "cache", "--set", "cache.jobs=1"]
    code, _, err = cmat("train", "--params", SMOKE, *flags, "--set", change)
    assert code == 1 and message in err and "Traceback" not in err, err


def test_set_wins_over_the_file_and_run_dir_over_both():
    config = run_config(SMOKE, ["training.epochs=7", "run_dir=a"], "b")
    assert config.training.epochs == 7 and config.run_dir == "b"
    assert config.training.batch_size == yaml.safe_load(SMOKE.read_text())["training"]["batch_size"]


def test_run_folder_takes_the_name_of_the_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 3\n")
    assert run_config(tmp_path / "mine.yaml", None, None).run_dir == "outputs/mine"


def test_schema(cmat, tmp_path):
    assert cmat("schema", tmp_path / "schema.json")[0] == 0
    assert json.loads((tmp_path / "schema.json").read_text()) == json.loads(json.dumps(Config.model_json_schema()))


def test_commands_start_without_heavy_imports():
    code = "import sys, cmat_lib.commands.cli; assert not {'torch', 'gtda', 'papermill'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_and_scores_need_no_figures():
    modules = "cmat_lib.commands.compare, cmat_lib.evaluation.breakdown, cmat_lib.evaluation.names"
    code = f"import sys, {modules}; assert not {{'torch', 'matplotlib'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
