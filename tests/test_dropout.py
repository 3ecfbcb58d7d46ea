"""Dropout with the cheap mask: rate, mean, independence, and where it must equal torch's own."""

import pytest
import torch
from torch import nn

from cmat_lib.encoders.dropout import LEVELS, Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.85])
def test_rate_and_mean(p):
    torch.manual_seed(0)
    x = torch.ones(1001, 997)  # no multiple of four
    y = Dropout(p)(x)
    exact = round(p * LEVELS) / LEVELS
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - exact)])
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert (y == 0).float().mean().item() == pytest.approx(exact, abs=4 * deviation)
    assert y.mean().item() == pytest.approx(1, abs=4 * deviation / (1 - p))


def test_neighbours_are_independent():
    """Four elements share one draw; they must not share their fate."""
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(4_000_000)) > 0).float()
    for lag in (1, 2, 3, 4):
        assert abs(torch.corrcoef(torch.stack([kept[:-lag], kept[lag:]]))[0, 1].item()) < 0.003


def test_gradient_has_the_same_mask():
    x = torch.ones(64, 33, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_evaluation_and_rates_without_a_choice():
    x = torch.randn(7, 5)
    assert Dropout(0.5).eval()(x) is x
    assert torch.equal(Dropout(0.0)(x), x)
    assert not Dropout(1.0)(x).any()


def test_same_seed_same_mask_as_torch_promises():
    masks = []
    for _ in range(2):
        torch.manual_seed(3)
        masks.append(Dropout(0.2)(torch.ones(513)))
    assert torch.equal(*masks) and not torch.equal(masks[0], Dropout(0.2)(torch.ones(513)))


def test_half_precision_and_strides():
    x = torch.ones(6, 8, dtype=torch.bfloat16).T
    assert Dropout(0.5)(x).dtype == torch.bfloat16
    assert isinstance(Dropout(0.5), nn.Dropout)
