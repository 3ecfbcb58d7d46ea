"""`torch.compile`: two graphs for a whole training, whatever the number of samples, and the same result as eager."""

from functools import partial

import pytest
import torch
from slim import panel_of, slim

from cmat_lib.training import objective
from cmat_lib.training.devices import make_fabric
from cmat_lib.training.objective import compiled_graphs
from cmat_lib.training.steps import Steps
from cmat_lib.training.trainer import train

pytestmark = pytest.mark.filterwarnings("ignore:an epoch has")


@pytest.fixture(autouse=True)
def without_code_generation(monkeypatch):
    """Graphs are traced and differentiated as usual, but run by torch's own kernels: seconds instead of minutes."""
    torch._dynamo.reset()
    monkeypatch.setattr(objective.torch, "compile", partial(torch.compile, backend="aot_eager"))
    yield
    torch._dynamo.reset()


def test_one_graph_for_training_and_one_for_validation():
    """240 samples in batches of 50: the last one is short, and must not make a graph of its own."""
    config = slim(compile="on", batch_size=50, gradient_accumulation_steps=2, epochs=3)
    before = compiled_graphs()
    result = train(config, panel_of(config))
    assert compiled_graphs() - before == 2
    eager = train(slim(batch_size=50, gradient_accumulation_steps=2, epochs=3), panel_of(config))
    for row, plain in zip(result.history, eager.history, strict=True):
        assert row["stop_loss"] == pytest.approx(plain["stop_loss"], rel=1e-4)
        assert row["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-4)


def test_a_thaw_is_expected_and_not_reported(recwarn):
    config = slim(compile="on", epochs=3, freeze_encoder_epochs=1)
    before = compiled_graphs()
    train(config, panel_of(config))
    assert compiled_graphs() - before == 4, "both graphs are made again when the weights ask for gradients"
    assert not [w for w in recwarn if "more graphs" in str(w.message)]


def test_a_recompile_is_reported(monkeypatch):
    """Batches of changing shape are what fixed shapes prevent: planted here, they must be seen."""
    config = slim(compile="on", epochs=3)
    original = Steps.own_share
    sizes = iter([*[32] * 8, *[31] * 8, *[30] * 8])

    def cut(self, *args):
        size = next(sizes)
        index, weight = original(self, *args)
        return index[:size], weight[:size]

    monkeypatch.setattr(Steps, "own_share", cut)
    with pytest.warns(UserWarning) as caught:
        train(config, panel_of(config))
    reported = [str(w.message) for w in caught if "more graphs" in str(w.message)]
    assert reported == [f"torch.compile made 1 more graphs in epoch {epoch}" for epoch in (2, 3)]


def test_short_batches_are_filled_up_with_weight_0():
    config = slim(batch_size=50, gradient_accumulation_steps=3)
    steps = Steps(make_fabric(config.training), panel_of(config), config)
    order = steps.new_order()
    chunk, weights = order[150:], torch.full((90,), 1 / 90)
    index, weight = steps.own_share(chunk, weights, 50, order)
    assert torch.equal(index, torch.cat([order[200:], order[:10]])) and (weight[40:] == 0).all()
    assert weight[:40].sum().item() == pytest.approx(40 / 90)
