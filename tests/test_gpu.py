"""What only a GPU can show; skipped where torch sees none."""

import pytest
import torch
from slim import panel_of, slim

from cmat_lib.config import load_config
from cmat_lib.models import build_model
from cmat_lib.training.devices import make_fabric
from cmat_lib.training.memory import memory_need
from cmat_lib.training.objective import compiled_graphs
from cmat_lib.training.steps import Steps
from cmat_lib.training.trainer import train
from cmat_lib.views.panel import Panel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
    pytest.mark.filterwarnings("ignore:an epoch has"),
]
PLAIN = {"mixed_precision": "off", "tf32": "off", "compile": "off"}


def on_gpu(config) -> Panel:
    small = panel_of(config)
    arrays = {name: shown.values.numpy() for name, shown in small.shown.items()}
    return Panel(arrays, small.samples, small.scalers, config, "cuda")


def losses(**training):
    config = slim(**training)
    return [row["stop_loss"] for row in train(config, on_gpu(config)).history]


def test_gpu_learns_what_the_cpu_learns():
    """Dropout is 0, so only rounding and the order of samples differ; one batch an epoch leaves no order."""
    whole = {"batch_size": 240, "epochs": 5, "learning_rate": 0.01}
    config = slim(device="cpu", **whole)
    cpu = [row["stop_loss"] for row in train(config, panel_of(config)).history]
    assert losses(**whole, **PLAIN) == pytest.approx(cpu, rel=1e-3)


@pytest.mark.parametrize("switch", ["mixed_precision", "compile", "tf32"])
def test_every_switch_learns_the_same_within_its_precision(switch):
    tolerance = {"mixed_precision": 0.05, "compile": 1e-3, "tf32": 0.01}[switch]
    plain, switched = losses(**PLAIN), losses(**{**PLAIN, switch: "on"})
    assert switched == pytest.approx(plain, rel=tolerance)
    if switch == "mixed_precision":
        assert switched != pytest.approx(plain, rel=1e-5), "rounding to 16 bits must be seen"


def test_two_graphs_and_no_more():
    config = slim(batch_size=50, epochs=3)
    before = compiled_graphs()
    train(config, on_gpu(config))
    assert compiled_graphs() - before == 2


def test_strict_reruns_are_equal():
    assert losses(determinism="strict", compile="off") == losses(determinism="strict", compile="off")


@pytest.mark.parametrize("freeze", [0, 1])
def test_compiled_steps_may_accumulate(freeze):
    """Gradients must not live in the memory of a graph that is replayed."""
    more = {"gradient_accumulation_steps": 4, "epochs": 3, "freeze_encoder_epochs": freeze}
    assert losses(**{**PLAIN, "compile": "on"}, **more) == pytest.approx(losses(**PLAIN, **more), rel=1e-3)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_steps_do_not_wait_for_the_device(ema_decay):
    config = slim(**PLAIN, ema_decay=ema_decay)
    steps = Steps(make_fabric(config.training), on_gpu(config), config)
    steps.freeze_encoders(False)
    steps.step(steps.new_order(), 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        order = steps.new_order()
        for number in range(1, steps.per_epoch):
            steps.step(order, number)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_memory_estimate_is_a_close_lower_bound():
    config = load_config(changes={"training": {**PLAIN, "determinism": "fast"}})
    network = build_model(config).cuda()
    inputs = [torch.randn(1024, *shape, device="cuda") for shape in ((96, 14), (214,), (6,))]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    logits, max_pct = network(*inputs)
    (logits.sum() + max_pct.sum()).backward()
    need = memory_need(config)
    activations = need.total(1024) - 5 * sum(p.numel() for p in network.parameters()) * 4
    used = torch.cuda.max_memory_allocated() - before
    assert activations <= used <= 2 * activations
