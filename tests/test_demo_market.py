"""The demo's claim: the planted interaction is found, and only the views together find it."""

import numpy as np
import pandas as pd
import pytest

from cmat_lib.config import load_config, merge, project_root
from cmat_lib.evaluation.breakdown import ORACLE, oracle_share
from cmat_lib.evaluation.uncertainty import Resampling, draw_scores, paired_difference
from cmat_lib.run import Run
from cmat_lib.stages import build_features, load_panel, predict, prepare_data
from cmat_lib.training.trainer import train

pytestmark = pytest.mark.long
VARIANTS = {
    "full": {},
    "nbeats": {"model": {"modalities": ["nbeats"]}},
    "tda": {"model": {"modalities": ["tda"]}},
    "complexity": {"model": {"modalities": ["complexity"]}},
    "concat": {"fusion": {"fusion_type": "concat"}},
}


def demo_config(folder, **changes):
    base = {"run_dir": str(folder / "run"), "tda": {"cache_dir": str(folder / "cache")}}
    return load_config(project_root() / "params/demo.yaml", merge(base, changes))


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """Test predictions of all variants over one market, and the resampling of the demo."""
    folder = tmp_path_factory.mktemp("demo")
    config = demo_config(folder)
    for stage, work in (("01_data_prep", prepare_data), ("02_tda_cache", build_features)):
        run = Run(config, stage).begin()
        work(config, run)
        run.finish()
    frames = []
    for name, changes in VARIANTS.items():
        variant = demo_config(folder, **changes)
        panel = load_panel(variant, run)
        index = panel.index("test")
        score, _ = predict(train(variant, panel).model, panel, index, 4096)
        frames.append(pd.Series(score, name=name))
    frame = panel.samples.iloc[index.numpy()].reset_index(drop=True)
    return pd.concat([frame, *frames], axis=1), Resampling.from_config(config)


@pytest.mark.parametrize("single", ["nbeats", "tda", "complexity"])
def test_no_single_view_is_enough(market, single):
    frame, resampling = market
    difference = paired_difference(frame, "full", single, "roc_auc", resampling)
    print(difference.to_string())
    assert (difference["low"] > 0).all()


def test_attention_is_not_below_concat(market):
    frame, resampling = market
    difference = paired_difference(frame, "full", "concat", "roc_auc", resampling)
    print(difference.to_string())
    assert (difference["high"] > 0).all() and (difference["difference"] > -0.02).all()


def test_most_of_the_oracle_s_lift_is_reached(market):
    frame, resampling = market
    share = oracle_share(draw_scores(frame, dict.fromkeys([*VARIANTS, ORACLE], np.nan), resampling))
    print(share.to_string())
    assert (share.loc["full", "value"] >= 0.7).all()
