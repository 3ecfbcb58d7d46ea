"""Parameters: every mistake stops with the key, the file and the nearest valid name."""

import json
import subprocess
import sys
from collections import OrderedDict

import pytest
import yaml

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.run import grid_members
from cmat_lib.config import Config, dump_params, load_config, project_root, resolve_path, validate
from cmat_lib.config.load import ALIASES, commented_defaults, parse_assignment
from cmat_lib.config.schema import SECTIONS

PARAMS = project_root() / "params"
# A sweep file names a parameter file and is none itself (tests/test_sweep.py).
PROFILES = sorted(path for path in PARAMS.glob("*.yaml") if path.name not in ("default.yaml", "sweep.yaml"))


def test_default_yaml_is_the_schema():
    text = (PARAMS / "default.yaml").read_text()
    assert text == commented_defaults(), "run `cmat schema --defaults`"
    assert load_config(PARAMS / "default.yaml") == Config()
    keys = yaml.safe_load(text)
    assert set(keys) == set(Config.model_fields)
    for section in SECTIONS:
        assert set(keys[section]) == set(Config.model_fields[section].annotation.model_fields)


def test_every_key_has_a_comment():
    for section in SECTIONS:
        for name, field in Config.model_fields[section].annotation.model_fields.items():
            assert field.description, f"{section}.{name}"


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_profiles_hold_differences_only(path):
    config, default = load_config(path), Config()
    for section, keys in yaml.safe_load(path.read_text()).items():
        if section not in SECTIONS:
            continue
        for key in keys:
            changed = getattr(getattr(config, section), key) != getattr(getattr(default, section), key)
            assert changed, f"{path.name}: {section}.{key} is the default"


def test_schema_file_is_current():
    assert json.loads((PARAMS / "schema.json").read_text()) == json.loads(json.dumps(Config.model_json_schema()))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"trainng": {}}, "unknown section 'trainng'; did you mean 'training'?"),
        ({"training": {"epoch": 3}}, "unknown key 'training.epoch'; did you mean 'training.epochs'?"),
        ({"training": {"horizon": 3}}, "unknown key 'training.horizon'; did you mean 'labels.horizon'?"),
        ({"training": {"epochs": True}}, "training.epochs: Input should be a valid integer, got True"),
        ({"training": {"epochs": "ten"}}, "training.epochs: Input should be a valid integer, got 'ten'"),
        ({"training": {"learning_rate": "1e-3"}}, "write 0.001 or 1.0e-3; YAML reads 1e-3 as text"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate"),
        ({"training": {"freeze_encoder_epochs": 500}}, "must be below epochs 500"),
        ({"fusion": {"num_heads": 7}}, "num_heads 7 does not divide hidden_dim 256"),
        ({"fusion": {"output_dim": 128}}, "output_dim 128 must equal hidden_dim 256"),
        ({"model": {"nbeats_num_stacks": 3}}, "nbeats_num_stacks is 3, nbeats_stack_types lists 4"),
        ({"model": {"nbeats_hidden_size": 1000}}, "must be a multiple of 32"),
        (
            {"tda": {"window_size": 15}},
            "window_size 15 is shorter than the embedding with time_delay 12 needs (at least 16 candles)",
        ),
        ({"tda": {"betti_max": [1.0]}}, "betti_max needs one value per homology dimension"),
        ({"data": {"split_shares": [0.5, 0.1, 0.1, 0.2]}}, "must sum to 1, they sum to 0.9"),
        ({"data": {"since": "2025-02-01", "until": "2025-01-01"}}, "ascending order"),
        ({"data": {"channels": ["log_open"]}}, "log_close, which is not listed"),
        ({"labels": {"source": "file"}}, "the synthetic market has no label columns"),
        ({"logging": {"save_dir": "../x"}}, "must be a relative path inside the run folder"),
        ({"cache": {"jobs": 0}}, "jobs is 0"),
        ({"training": {"task_weighting": "learned", "max_pct_weight": 0}}, "one of them is 0"),
        (
            {"complexity": {"window_size": 32, "higuchi_kmax": 20}},
            "orders, delays and kmax (at least 41)",
        ),
        ({"data": None}, "data"),
        ({"data": {"timeframe": "99999999999999d"}}, "data.timeframe: String should match pattern"),
        ({"data": {"timeframe": "367d"}}, "data.timeframe: a candle of 367d is longer than a year"),
        ({"seed": 2**32}, "seed: Input should be less than or equal to 4294967295, got 4294967296"),
        ({"data": {"synthetic_seed": 2**32}}, "data.synthetic_seed: Input should be less than or equal to 4294967295"),
        ({"training": {"epochs": 2**63}}, "training.epochs: whole numbers end at 9223372036854775807"),
        ({"data": {"since": "9999-12-31T23:59:59-12:00"}}, "data.since: 9999-12-31 23:59:59-12:00 is no time in UTC"),
        ({"data": {"file_zone": "\ud800"}}, "a text holds what is no character"),
        *[({"run_dir": path}, "run_dir: choose a folder of its own") for path in ("", ".", "/", "~", "outputs/..")],
    ],
)
def test_mistakes_are_named(raw, message):
    with pytest.raises(CmatError) as error:
        validate(raw, "my.yaml")
    assert message in str(error.value)
    assert str(error.value).startswith("my.yaml: ")


def test_all_mistakes_at_once():
    with pytest.raises(CmatError) as error:
        validate({"trainng": {}, "labels": {"horizn": 3}}, "my.yaml")
    assert "trainng" in str(error.value) and "labels.horizn" in str(error.value)


def test_integers_stand_for_floats():
    assert load_config(changes={"labels": {"threshold_pct": 2}}).labels.threshold_pct == 2.0


@pytest.mark.parametrize(("old", "new"), ALIASES.items())
def test_names_of_the_source_are_accepted_with_a_warning(old, new):
    value = {"fusion_type": "concat", "lstm_dropout": 0.25, "fusion_use_cls_token": True}.get(old[1], 512)
    value = {"fusion_num_heads": 4, "fusion_num_layers": 1}.get(old[1], value)
    value = {"backend": "dask", "dask_scheduler": "tcp://a:1", "cache_dir": "x", "trust_cache": True}.get(old[1], value)
    others = {"fusion_hidden_dim": {"fusion": {"output_dim": 512}}, "dask_scheduler": {"cache": {"backend": "dask"}}}
    raw = {old[0]: {old[1]: value}, **others.get(old[1], {})}
    with pytest.warns(FutureWarning, match=f"'{old[0]}.{old[1]}' is now '{new[0]}.{new[1]}'"):
        config = validate(raw, "my.yaml")
    assert getattr(getattr(config, new[0]), new[1]) == value


@pytest.mark.parametrize("section", [None, 5, "concat"])
def test_alias_beside_a_section_that_is_none(section):
    with pytest.raises(CmatError, match=r"my\.yaml: fusion: "):
        validate({"model": {"fusion_type": "concat"}, "fusion": section}, "my.yaml")


def test_alias_and_name_together_are_an_error():
    with pytest.raises(CmatError, match="give only the latter"):
        validate({"model": {"lstm_dropout": 0.1, "encoder_dropout": 0.2}}, "my.yaml")


def test_dates_as_text_and_as_dates_are_one():
    as_yaml = yaml.safe_load("data: {since: 2025-01-01}")
    assert load_config(changes=as_yaml) == load_config(changes={"data": {"since": "2025-01-01"}})
    assert load_config(changes=as_yaml).data.since.utcoffset().total_seconds() == 0


def test_dump_round_trip(tmp_path):
    config = load_config(changes={"data": {"since": "2025-01-01", "symbols": ["A"]}, "seed": 3})
    (tmp_path / "params.yaml").write_text(dump_params(config))
    assert load_config(tmp_path / "params.yaml") == config


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [", "cannot be read as YAML"), ("- 1", "expected sections"), (None, "no such parameter")],
)
def test_broken_files_are_named(tmp_path, content, message):
    path = tmp_path / "broken.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CmatError, match=message) as error:
        load_config(path)
    assert "broken.yaml" in str(error.value)


# What PyYAML answers with errors of Python's own types, or not at all within a lifetime.
NO_YAML = {
    "30 February": "2025-02-30",
    "hour 99": "2025-01-01T99:00:00",
    "zone of 99 hours": "2025-01-01T00:00:00+99:00",
    "no digits": "0x_",
    "no number": "!!int abc",
    "5,000 digits": "9" * 5000,
    "deep": "[" * 5000,
    "alias": "[&a x, *a]",
    "half a surrogate pair": '"\\ud800"',
    "merged bomb": "[&a0 {x: 1}, " + ", ".join(f"&a{i} {{<<: [{f'*a{i - 1}, ' * 9}]}}" for i in range(1, 12)) + "]",
}


@pytest.mark.parametrize("value", NO_YAML.values(), ids=NO_YAML)
def test_values_that_yaml_cannot_make_are_named(tmp_path, value):
    (tmp_path / "p.yaml").write_text(f"seed: {value}")
    with pytest.raises(CmatError, match=r"p\.yaml: cannot be read as YAML: \S"):
        load_config(tmp_path / "p.yaml")
    with pytest.raises(CmatError, match=r"--set seed=.*: the value is not YAML: \S"):
        parse_assignment(f"seed={value}")
    with pytest.raises(CmatError, match=r"--grid seed=.*: the values are not YAML: \S"):
        grid_members([f"seed={value}"])


def shared(kind, levels=11):
    """Nine times the level below in each level: 9 ** 11 values in a hundred objects."""
    value = ["x"] * 9
    for _ in range(levels):
        value = kind([value] * 9)
    return value


def deep(levels=5000):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [shared(list), shared(lambda x: OrderedDict(enumerate(x))), deep(), 16**5000, "x" * 10**6, {"a": [deep()]}],
    ids=["shared lists", "shared dicts", "deep", "5,000 hex digits", "long", "deep in dict"],
)
@pytest.mark.parametrize(("section", "key"), [("data", "symbols"), ("tda", "betti_max"), ("training", "epochs")])
def test_values_of_any_size_are_named_in_a_few_words(value, section, key):
    """A checkpoint may hold what YAML cannot write."""
    with pytest.raises(CmatError, match=rf"m\.pt: {section}\.{key}") as error:
        validate({section: {key: value}}, "m.pt")
    assert max(map(len, str(error.value).splitlines())) < 1000


@pytest.mark.parametrize("path", ["~nosuch/x", "a\0b", "\ud800"])
def test_what_is_no_path(path):
    with pytest.raises(CmatError, match=r"^'.*' is no path on this machine \(.+\); correct it$"):
        resolve_path(path)


def test_assignments():
    assert parse_assignment("training.epochs=3") == {"training": {"epochs": 3}}
    assert parse_assignment("data.data_dir=../x") == {"data": {"data_dir": "../x"}}
    assert parse_assignment("seed=3") == {"seed": 3}
    for text in ("training.epochs", "=3", "a.b.c=3", "training.=3", "data.symbols=[1"):
        with pytest.raises(CmatError, match="--set"):
            parse_assignment(text)


def test_config_imports_nothing_heavy():
    heavy = {"torch", "numba", "gtda", "antropy", "sklearn", "matplotlib", "plotly", "papermill", "joblib"}
    code = f"import cmat_lib.config, sys; assert not {heavy} & set(sys.modules)"  # pandas counts spans of time
    subprocess.run([sys.executable, "-c", code], check=True)


def test_environment_file_has_one_list_of_packages():
    assert _conda_pip_list() == ["-c constraints.txt", "-e .[dev]"]


@pytest.mark.long
def test_environment_file_feeds_pip(tmp_path):
    """conda cannot run everywhere; pip must at least resolve its list, with the constraints applied."""
    root = project_root()
    listed = [line.replace("constraints.txt", str(root / "constraints.txt")) for line in _conda_pip_list()]
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("\n".join(line.replace("-e .", f"-e {root}") for line in listed))
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
        "-r",
        str(requirements),
    ]
    subprocess.run(command, check=True, capture_output=True)


def _conda_pip_list():
    return yaml.safe_load((project_root() / "environment.yml").read_text())["dependencies"][-1]["pip"]


def test_switches_are_what_yaml_makes_of_on_and_off(tmp_path):
    (tmp_path / "p.yaml").write_text("training:\n  compile: on\n  tf32: off\n  mixed_precision: auto\n")
    training = load_config(tmp_path / "p.yaml").training
    assert (training.compile, training.tf32, training.mixed_precision) == ("on", "off", "auto")
    assert load_config(changes=parse_assignment("training.compile=on")).training.compile == "on"
    (tmp_path / "again.yaml").write_text(dump_params(load_config(tmp_path / "p.yaml")))
    assert load_config(tmp_path / "again.yaml").training == training
