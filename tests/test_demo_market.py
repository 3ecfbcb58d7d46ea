"""The demo's claim: the planted interaction is found, and only the views together find it."""

import pandas as pd
import pytest

from cmat_lib.commands.ablation.rows import run_ablation
from cmat_lib.config import load_config, project_root
from cmat_lib.workflow.stages.training import prepare_features

pytestmark = pytest.mark.long
ROWS = ["trees", "full", "concat", "nbeats", "tda", "complexity"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Folder of the demo's ablation with one training of each network."""
    folder = tmp_path_factory.mktemp("demo")
    changes = {"run_dir": str(folder / "run"), "cache": {"dir": str(folder / "cache")}}
    config = load_config(project_root() / "params/demo.yaml", changes)
    return run_ablation(config, prepare_features(config, print), ROWS, 1, [0], print)


@pytest.fixture(scope="module")
def differences(tables):
    """AUC of the full model minus that of each row, pooled and within symbols."""
    return pd.read_parquet(tables / "differences.parquet").xs("roc_auc", level="metric")


@pytest.mark.parametrize("single", ["nbeats", "tda", "complexity"])
def test_no_single_view_is_enough(differences, single):
    assert (differences.loc[single, "low"] > 0).all()


def test_attention_is_not_below_concat(differences):
    assert (differences.loc["concat", "value"] >= 0).all()


def test_most_of_the_oracle_s_lift_is_reached(tables):
    assert (pd.read_parquet(tables / "oracle_share.parquet").loc["full", "value"] >= 0.7).all()
