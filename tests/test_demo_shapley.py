"""Attribution on the demo's market: the planted interaction is found, and none where nothing is planted."""

import numpy as np
import pandas as pd
import pytest
import torch

from cmat_lib.config import load_config, merge, project_root
from cmat_lib.evaluation.uncertainty import Resampling
from cmat_lib.explain.attribution import ShapleyTables, shapley_tables
from cmat_lib.explain.measures import mean_table, trigger_loss
from cmat_lib.explain.shapley import StandIns, coalition_logits, embed_samples
from cmat_lib.training.trainer import train
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.common import load_panel
from cmat_lib.workflow.stages.data import prepare_data
from cmat_lib.workflow.stages.features import build_features

pytestmark = pytest.mark.long


def attributed(folder, plant) -> tuple[ShapleyTables, pd.DataFrame, Resampling]:
    """Shapley tables of a trained demo over its whole test part, each sample with the market's hidden states."""
    base = {"run_dir": str(folder / str(plant)), "cache": {"dir": str(folder / "cache")}}
    config = load_config(project_root() / "params/demo.yaml", merge(base, {"data": {"synthetic_plant": plant}}))
    prepare_data(config, Run(config, "01_data_prep"))
    build_features(config, run := Run(config, "02_tda_cache"))
    panel = load_panel(config, run)
    model, resampling = train(config, panel).model, Resampling.from_config(config)
    index, background = panel.index("test"), embed_samples(model, panel, panel.index("train"), 4096)
    absent = StandIns(background, config.explain.absent_draws, config.seed)
    features, samples = embed_samples(model, panel, index, 4096), panel.samples.iloc[index.numpy()]
    worth = coalition_logits(model, features, absent, 4096)
    found = shapley_tables(worth, tuple(features), samples, trigger_loss(config, panel), resampling)
    samples = samples.reset_index(drop=True)
    states = run.read_frame("data/candles.parquet")[["symbol", "timestamp", "pattern", "regime"]]
    return found, samples.merge(states, on=["symbol", "timestamp"], how="left"), resampling


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("shapley")


def interaction(found):
    pairs = found.interactions.set_index(["first", "second"])
    return pairs.loc[("nbeats", "tda")]


def test_the_planted_interaction_is_found(folder):
    found, samples, resampling = attributed(folder, plant=True)
    print(found.shapley.to_string(), found.interactions.to_string(), found.efficiency.to_string(), sep="\n")
    values = found.shapley.set_index(["measure", "modality"])
    assert found.efficiency["largest_gap"].item() < 1e-5
    # Seeing both views is worth more than what either adds by itself.
    assert interaction(found)["low"] > max(0, values.loc["main"]["high"].max())
    assert (values.loc["last"]["value"] > values.loc["alone"]["value"])[["nbeats", "tda"]].all()
    assert (values.loc["shapley"]["low"] > 0).tolist() == [True, True, False]

    # What tells agreeing states from disagreeing ones is the interaction, not either view on its own.
    single, agree = found.single, (samples["pattern"] * samples["regime"] > 0).to_numpy()
    pair = single.interactions[:, single.pairs.index(("nbeats", "tda"))]
    touching = np.array([[name in names for names in single.pairs] for name in single.modalities])  # (K, P)
    main = single.values - 0.5 * single.interactions @ touching.T  # (N, K)
    columns = np.column_stack([pair, main[:, 0], main[:, 1]])
    share = np.where(agree, 1 / agree.mean(), -1 / (1 - agree.mean()))[:, None]
    table = mean_table(columns * share, samples["timestamp"], resampling)
    table.index = ["interaction", "nbeats", "tda"]
    print(table.to_string())
    assert table.loc["interaction", "low"] > table.loc[["nbeats", "tda"], "high"].max()


def test_nothing_is_found_where_nothing_is_planted(folder):
    found, _, _ = attributed(folder, plant=False)
    print(found.shapley.to_string(), found.interactions.to_string(), found.efficiency.to_string(), sep="\n")
    assert (found.shapley["low"] <= 0).all() and (found.interactions["low"] <= 0).all()
    assert interaction(found)["low"] <= 0 <= interaction(found)["high"]
    assert found.shapley["value"].abs().max() < 0.002  # of a loss of 0.25; the planted market's are 0.01 to 0.03
