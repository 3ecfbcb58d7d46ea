"""The estimate of memory against what autograd really keeps, and the message where it does not suffice."""

import pytest
import torch
from slim import panel_of, slim

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.models import build_model
from cmat_lib.training import memory, trainer
from cmat_lib.training.memory import check_memory, memory_need
from cmat_lib.training.trainer import train
from cmat_lib.views import panel as panel_module
from cmat_lib.views.panel import Panel

CPU = torch.device("cpu")


def test_estimate_is_what_a_forward_pass_keeps():
    """Counted on a real pass: the tensors that a graph holds are freed with it."""
    config = load_config()
    model = build_model(config).train()
    sizes = []
    for batch in (32, 96):
        kept = {}
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.setdefault(id(t), t), lambda t: t)
        with hooks:
            answer = model(torch.randn(batch, 96, 14), torch.randn(batch, 214), torch.randn(batch, 6))
        parameters = {p.data_ptr() for p in model.parameters()}
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept.values()}
        sizes.append(sum(size for pointer, size in storages.items() if pointer not in parameters))
        del answer
    assert memory_need(config).per_sample == pytest.approx((sizes[1] - sizes[0]) / 64, rel=0.01)


def test_every_part_of_the_model_counts():
    more = {"modalities": ["nbeats", "tda", "complexity", "clock"], "auxiliary_head": True}
    assert memory_need(load_config(changes={"model": more})).per_sample > memory_need(load_config()).per_sample + 1000


def test_weights_and_optimiser_are_in_the_fixed_part():
    need = memory_need(load_config())
    assert need.fixed >= 5 * 15_782_142 * 4
    assert need.total(10) == need.fixed + 10 * need.per_sample


def test_a_batch_that_does_not_fit_is_refused_with_one_that_does(monkeypatch):
    config = load_config(changes={"training": {"batch_size": 2048, "gradient_accumulation_steps": 3}})
    need = memory_need(config)
    monkeypatch.setattr(memory, "free_memory", lambda device: need.total(800))
    message = r"needs about 1\.5 GB on cpu, where .* training\.batch_size: 512 and .*accumulation_steps: 12 take"
    with pytest.raises(CmatError, match=message):
        check_memory(config, CPU, 2048)
    check_memory(config, CPU, 800)
    monkeypatch.setattr(memory, "free_memory", lambda device: need.fixed / 2)
    with pytest.raises(CmatError, match="no batch fits"):
        check_memory(config, CPU, 2048)
    monkeypatch.setattr(memory, "free_memory", lambda device: need.total(800))
    with pytest.raises(CmatError, match=r"training\.batch_size: 1536 and .*accumulation_steps: 6 "):
        check_memory(config, CPU, 3072, processes=3)  # a multiple of the processes


def test_training_asks_before_it_starts(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    config = slim()
    with pytest.raises(CmatError, match=r"a batch of 32 samples .* needs about"):
        train(config, panel_of(config))


def test_running_out_all_the_same_ends_with_the_same_advice(monkeypatch):
    def no_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer.Steps, "step", no_memory)
    config = slim(batch_size=10_000, gradient_accumulation_steps=2)  # there are 240 samples
    with (
        pytest.warns(UserWarning, match="optimiser steps"),
        pytest.raises(CmatError, match=r"training\.batch_size: 120 and training\.gradient_accumulation_steps: 4 "),
    ):
        train(config, panel_of(config))


def test_a_panel_too_large_for_the_device_stays_at_home(monkeypatch):
    """The device ``meta`` stands for a GPU: it takes shapes and holds nothing."""
    config = slim()
    small = panel_of(config)
    arrays = {name: shown.values.numpy() for name, shown in small.shown.items()}
    size = 4 * sum(array.size for array in arrays.values())
    monkeypatch.setattr(panel_module, "free_memory", lambda device: 3 * size)
    there = Panel(arrays, small.samples, small.scalers, config, "meta")
    assert {shown.values.device.type for shown in there.shown.values()} == {"meta"}
    monkeypatch.setattr(panel_module, "free_memory", lambda device: 1.9 * size)
    with pytest.warns(UserWarning, match=r"the panel \(0\.0 GB\) leaves too little .* stays in the machine's memory"):
        large = Panel(arrays, small.samples, small.scalers, config, "meta")
    assert {shown.values.device.type for shown in large.shown.values()} == {"cpu"}
    batch = large.gather(torch.arange(5))
    assert {tensor.device.type for tensor in [*batch.inputs.values(), *batch[1:]]} == {"meta"}
    assert batch.inputs["nbeats"].shape == (5, 8, 2)
