"""`cmat run --grid`: the members, their folder names, and what happens when one of them fails."""

import pandas as pd
import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.run import check_folders, grid_members, run_many
from cmat_lib.config import load_config, project_root

SMOKE = project_root() / "params/smoke.yaml"


def test_the_product_of_the_values():
    members = grid_members(["fusion.fusion_type=concat,gated", "seed=1,2"])
    assert members == {
        f"fusion.fusion_type={fusion}__seed={seed}": {"fusion": {"fusion_type": fusion}, "seed": seed}
        for fusion in ("concat", "gated")
        for seed in (1, 2)
    }
    assert grid_members([]) == {"": {}}


def test_two_keys_of_one_section_stand_together():
    (changes,) = grid_members(["training.epochs=3", "training.compile=off"]).values()
    assert changes == {"training": {"epochs": 3, "compile": False}}
    assert load_config(changes=changes).training.compile == "off"


def test_values_are_yaml_and_names_hold_no_path():
    members = grid_members(["data.channels=[log_close],[log_close, roc]", "data.data_dir=../a/b,'..\\a\\b',null"])
    assert [m["data"]["channels"] for m in members.values()][::3] == [["log_close"], ["log_close", "roc"]]
    assert [m["data"]["data_dir"] for m in members.values()][:3] == ["../a/b", "..\\a\\b", None]
    for name in members:
        assert not set(name) & set('/\\:*?"<>| ,[]{}#') and len(name) < 200
    assert len(members) == 6, "values that look alike keep different names"


def test_a_name_depends_on_the_member_alone():
    alone = next(iter(grid_members(["training.learning_rate=0.001"])))
    assert alone == "training.learning_rate=0.001"
    assert alone in grid_members(["training.learning_rate=0.01,0.001"])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["seed"], "write it as section.key=value,value"),
        (["a.b.c=1"], "write it as section.key=value,value"),
        (["seed="], "no value is given"),
        (["seed=[1"], "not YAML"),
        (["seed=1,1"], "would be run twice"),
        (["seed=1", "seed=2"], "is given twice"),
        (["run_dir=a,b"], "run folder of its own"),
    ],
)
def test_mistakes(texts, message):
    with pytest.raises(CmatError, match=message):
        grid_members(texts)


def test_folders_that_differ_in_case_only_are_one():
    configs = [load_config(changes={"run_dir": name}) for name in ("outputs/a", "outputs/A")]
    with pytest.raises(CmatError, match="share one run folder"):
        check_folders(configs)


def test_one_failure_stops_no_other_run_and_shows_in_table_and_exit_code(cmat, tmp_path):
    """Page 01 alone: with a window longer than the market one member cannot have a sample."""
    arguments = ["--grid", "complexity.window_size=5000,72", "--until", "01", "--run-dir", tmp_path / "r"]
    code, out, err = cmat("run", SMOKE, *arguments)
    table = out.split("\n\n")[-1].splitlines()
    assert [line.split()[:2] for line in table[1:3]] == [
        ["r__complexity.window_size=5000", "failed"],
        ["r__complexity.window_size=72", "done"],
    ]
    assert (tmp_path / "r__complexity.window_size=72/report/index.html").is_file()
    assert "r__complexity.window_size=5000: failed: notebooks/01_data_prep.ipynb failed in cell" in out
    assert code == 1 and "1 of 2 runs failed" in err


def test_a_mistake_in_one_member_stops_before_any_work(cmat, tmp_path):
    code, _, err = cmat("run", SMOKE, "--grid", "fusion.fusion_type=concat,gatd", "--run-dir", tmp_path / "r")
    assert code == 1 and "did you mean 'gated'?" in err and not list(tmp_path.iterdir())


def test_whatever_breaks_one_run_the_next_one_starts(monkeypatch):
    def break_first(config, stages, say):
        if config.seed == 1:
            raise OSError("disk full")
        return "report"

    monkeypatch.setattr("cmat_lib.workflow.notebooks.run_notebooks", break_first)
    configs = [load_config(SMOKE, {"seed": seed}) for seed in (1, 2)]
    found = run_many(configs, ("01_data_prep",), 1)
    assert found["status"].tolist() == ["failed", "done"] and isinstance(found, pd.DataFrame)
