"""Summaries with values known by hand, and trees that learn what is there and stop where the stop part says."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config, load_config
from cmat_lib.evaluation.baselines import fit_trees, summarise, summary_names, tree_scores, window_summaries
from cmat_lib.views import VIEWS


class Inputs(NamedTuple):
    """What the baselines read of a batch."""

    inputs: dict[str, torch.Tensor]
    trigger: torch.Tensor


def slim(channels=("log_close", "rsi")) -> Config:
    data = {"sequence_length": 24, "channels": list(channels)}
    return load_config(changes={"data": data, "tda": {"betti_bins": 20}})


def random_batch(rows: int, config: Config, seed: int) -> Inputs:
    """A trigger is likely when the close rose over the window and the first complexity indicator is high."""
    generator = torch.Generator().manual_seed(seed)
    ohlcv = torch.randn(rows, 24, len(config.data.channel_names), generator=generator).cumsum(1)
    tda = torch.randn(rows, config.tda.feature_dim, generator=generator)
    complexity = torch.randn(rows, 6, generator=generator)
    likely = (ohlcv[:, -1, 0] > ohlcv[:, 0, 0]) & (complexity[:, 0] > 0)
    trigger = (torch.rand(rows, generator=generator) < torch.where(likely, 0.6, 0.05)).float()
    clock = torch.rand(rows, 2, generator=generator)
    return Inputs({"nbeats": ohlcv, "tda": tda, "complexity": complexity, "clock": clock}, trigger)


def test_summaries_of_a_known_window():
    config = slim()
    steps = torch.arange(24.0)
    close = 0.5 * steps + (steps % 2)  # slope 0.5 and a zigzag
    ohlcv = torch.stack([close, torch.full((24,), 3.0)], dim=1)[None]  # (1, 24, 2)
    tda = torch.arange(config.tda.feature_dim, dtype=torch.float32)[None]
    complexity = torch.arange(6.0)[None] + 1000
    row = window_summaries({"nbeats": ohlcv, "tda": tda, "complexity": complexity}, config)[0].tolist()
    found = dict(zip(summary_names(config), row, strict=True))
    expected = {
        "log_close_last": 12.5,
        "log_close_mean": close.mean().item(),
        "log_close_std": np.std(close.numpy(), ddof=1),
        "log_close_min": 0.0,
        "log_close_max": 12.5,
        "log_close_slope": np.polyfit(steps.numpy(), close.numpy(), 1)[0],
        "rsi_last": 3.0,
        "rsi_std": 0.0,
        "rsi_slope": 0.0,
        "return_1": 1.5,
        "return_4": 2.0,
        "return_16": 8.0,
        "return_23": 12.5,
        "return_std": np.std(np.diff(close.numpy()), ddof=1),
        "permutation_entropy": 1000.0,
        "higuchi_dimension": 1005.0,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-5), name
    assert "return_48" not in found


def test_topology_columns_are_every_tenth_bin_and_all_others():
    shown, features = VIEWS.views["tda"], torch.arange(54)[None]
    kept = [0, 10, *range(20, 27), 27, 37, *range(47, 54)]
    assert shown.summaries(features, slim())[0].tolist() == kept
    assert shown.summary_names(slim()) == [shown.names(slim())[column] for column in kept]
    names = summary_names(slim())
    assert "h1_entropy" in names and sum("betti" in name for name in names) == 4
    assert len(shown.summary_names(Config())) == 34


def test_without_log_close_there_are_no_returns():
    config = slim(channels=("rsi", "roc"))
    inputs = random_batch(3, config, 0).inputs
    assert window_summaries(inputs, config).shape == (3, len(summary_names(config)))
    assert not any(name.startswith("return") for name in summary_names(config))


def test_batches_change_nothing():
    config = slim()
    whole = random_batch(50, config, 1)
    pieces = [
        Inputs({name: x[part] for name, x in whole.inputs.items()}, whole.trigger[part])
        for part in torch.arange(50).split(17)
    ]
    for clock in (False, True):
        for one, many in zip(summarise([whole], config, clock), summarise(pieces, config, clock), strict=True):
            np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-5)


def test_trees_find_the_signal_and_score_every_part():
    config = slim()
    batches = {
        part: [random_batch(n, config, i)]
        for i, (part, n) in enumerate({"train": 3000, "stop": 1000, "test": 1500}.items())
    }
    found = tree_scores(batches, config)
    assert {part: len(values) for part, values in found.items()} == {"train": 3000, "stop": 1000, "test": 1500}
    trigger = batches["test"][0].trigger.numpy()
    assert roc_auc_score(trigger, found["test"]) > 0.8  # knowing the rule gives 0.84
    assert log_loss(trigger, found["test"]) < log_loss(trigger, np.full(1500, trigger.mean())) - 0.08


@pytest.mark.parametrize(("modalities", "knows"), [(["nbeats", "clock"], True), (["nbeats", "tda"], False)])
def test_trees_read_the_clock_if_the_model_does(modalities, knows):
    config = load_config(changes=slim().model_dump(mode="json") | {"model": {"modalities": modalities}})
    batches = {part: random_batch(2000, config, i) for i, part in enumerate(("train", "stop", "test"))}
    batches = {part: [b._replace(trigger=(b.inputs["clock"][:, 0] > 0.7).float())] for part, b in batches.items()}
    auc = roc_auc_score(batches["test"][0].trigger, tree_scores(batches, config)["test"])
    assert auc > 0.99 if knows else auc < 0.6


def test_the_stop_part_chooses_the_number_of_trees():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 5)).astype(np.float32)
    noise = (rng.random(600) < 0.3).astype(float)
    overfit = fit_trees((features, noise), (rng.normal(size=(400, 5)), (rng.random(400) < 0.3).astype(float)))
    assert overfit.iterations < 20  # noise: more trees only hurt
    own = fit_trees((features, noise), (features, noise), max_iterations=40)
    assert own.iterations == 40  # the same rows: more trees always help
    np.testing.assert_array_equal(own.predict(features), own.model.predict_proba(features)[:, 1])
    cut = list(overfit.model.staged_predict_proba(features))[overfit.iterations - 1][:, 1]
    np.testing.assert_array_equal(overfit.predict(features), cut)


def test_one_class_or_a_missing_part_is_an_error():
    config = slim()
    batch = random_batch(50, config, 0)
    with pytest.raises(CmatError, match="stop part is missing"):
        tree_scores({"train": [batch]}, config)
    with pytest.raises(CmatError, match="triggers only or none"):
        tree_scores({"train": [batch._replace(trigger=torch.zeros(50))], "stop": [batch]}, config)
