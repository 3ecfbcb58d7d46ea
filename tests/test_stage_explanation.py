"""Stage 06 on a tiny trained run: what it writes, and which runs it takes as controls."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logit

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import write_text
from cmat_lib.config import dump_params, load_config, merge, project_root
from cmat_lib.training.checkpoint import load_model
from cmat_lib.training.objective import predict
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.common import load_panel
from cmat_lib.workflow.stages.data import prepare_data
from cmat_lib.workflow.stages.explanation import attribute_model, attribute_samples, explain_model, load_subject
from cmat_lib.workflow.stages.features import build_features
from cmat_lib.workflow.stages.training import train_model

TINY = {
    "model": {"modalities": ["nbeats", "tda", "complexity"]},  # without the clock of the smoke run
    "data": {"synthetic_symbols": 1, "synthetic_days": 60},
    "training": {"epochs": 1},
    "explain": {"max_samples": 60, "attribution_samples": 40, "batch_size": 25},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Maker of runs over one market, in one folder each."""
    folder = tmp_path_factory.mktemp("explain")

    def made(name, **changes):
        base = {"run_dir": str(folder / name), "cache": {"dir": str(folder / "cache"), "jobs": 1}}
        config = load_config(project_root() / "params/smoke.yaml", merge(merge(TINY, base), changes))
        for stage, work in (
            ("01_data_prep", prepare_data),
            ("02_tda_cache", build_features),
            ("04_training", train_model),
        ):
            work(config, Run(config, stage))
        write_text(folder / name / "params.yaml", dump_params(config))
        return config, Run(config, "06_attention_visualization")

    return made


def test_maps_and_attribution_are_kept(trained):
    config, run = trained("plain")
    subject = load_subject(config, run)
    arrays, tables = explain_model(subject, run), attribute_model(subject, run)
    with np.load(run.path("attention.npz"), allow_pickle=False) as stored:
        assert set(stored) == {"sample", "maps", "signed", "tokens", "stack_maps", "stack_tokens"}
        assert all((stored[name] == arrays[name]).all() for name in stored)
    assert arrays["maps"].shape == (60, 2, 4, 3, 3) and arrays["signed"].shape == (60, 2, 3, 3)
    assert arrays["maps"].dtype == np.float16
    np.testing.assert_allclose(arrays["maps"].sum(-1, dtype=np.float32), 1, atol=2e-3)
    each = tables.pop("shapley_samples")
    assert len(each) == 40 and set(each["sample"]) <= set(arrays["sample"])
    pd.testing.assert_frame_equal(run.read_frame("shapley_samples.parquet"), each)
    stored = json.loads(run.path("attribution.json").read_text())
    assert set(stored) == set(tables) == {
        "shapley", "interactions", "efficiency", "ablation", "importance", "controls", "mean_maps",
        "shares", "agreement"
    }  # fmt: skip
    for name, frame in tables.items():
        assert list(stored[name][0]) == list(frame) and len(stored[name]) == len(frame)
    assert list(tables["ablation"]["modality"]) == ["nbeats", "tda", "complexity"]
    controls = ["model", "uniform attention", "shuffled tokens", "untrained model"]
    assert list(tables["controls"]["control"].unique()) == controls
    assert tables["shares"]["value"].sum() == pytest.approx(1)
    again = attribute_model(subject, run)
    assert all(again[name].equals(tables[name]) for name in tables)  # the seed decides every draw


def test_chosen_samples_are_explained_themselves(trained):
    config, run = trained("plain")
    every = run.read_frame("data/samples.parquet")
    rows = every.index[every["part"] == "test"].to_numpy()[[5, -1]]
    each = attribute_samples(load_subject(config, run), rows)
    assert each["sample"].tolist() == rows.tolist()
    assert each["trigger"].tolist() == every["trigger"].iloc[rows].tolist()
    said, _ = predict(load_model(run.model_folder / "best_model.pt")[0], load_panel(config, run), torch.tensor(rows), 8)
    np.testing.assert_allclose(each["logit"], logit(said), atol=1e-4)
    np.testing.assert_allclose(each["base"] + each.filter(regex="^shapley_").sum(axis=1), each["logit"], atol=1e-4)


def test_other_runs_are_controls_if_their_data_are_the_same(trained):
    _, other = trained("seed1", seed=1)
    folder = str(other.folder)
    config, run = trained("seed0", explain={"other_runs": [folder]})
    controls = attribute_model(load_subject(config, run), run)["controls"].set_index(["control", "measure"])["value"]
    assert -1 <= controls[folder, "agreement"] <= 1 and controls[folder, "loss"] != controls["model", "loss"]
    _, strange = trained("strange", data={"synthetic_seed": 5})
    config, run = trained("seed0", explain={"other_runs": [str(strange.folder)]})
    with pytest.raises(CmatError, match=r"explain\.other_runs: .*strange has another data_hash"):
        attribute_model(load_subject(config, run), run)


@pytest.mark.parametrize("fusion_type", ["gated", "bottleneck", "concat"])
def test_other_fusions(trained, fusion_type):
    fusion = {"fusion_type": fusion_type, "tokens": "fine"}
    config, run = trained(fusion_type, fusion=fusion, model={"use_attention": False})
    subject = load_subject(config, run)
    arrays, tables = explain_model(subject, run), attribute_model(subject, run)
    assert "stack_maps" not in arrays and len(tables["interactions"]) == 3
    assert ("gates" in arrays) == (fusion_type == "gated") and ("maps" in arrays) == (fusion_type == "bottleneck")
    assert ("agreement" in tables) == (fusion_type == "bottleneck")
    if fusion_type == "gated":
        assert arrays["gates"].shape == (60, 9) and arrays["gate_tokens"][-1] == "complexity"
