"""Losses: the formulas on cases worked by hand, stability, weights of the tasks."""

import math

import pytest
import torch
from torch.nn import functional as F

from cmat_lib.models import MultiTaskLoss
from cmat_lib.models.losses import focal_loss


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_focal_loss_by_hand():
    # p = 0.2 on a trigger (w = 3) and p = 0.9 on none, gamma = 2
    expected = (3 * 0.8**2 * -math.log(0.2) + 0.9**2 * -math.log(0.1)) / 2
    logits, target = torch.tensor([logit(0.2), logit(0.9)]), torch.tensor([1.0, 0.0])
    got = focal_loss(logits, target, gamma=2.0, positive_weight=3.0).mean()
    assert got.item() == pytest.approx(expected, rel=1e-6)


def test_focal_loss_without_focus_is_weighted_cross_entropy():
    torch.manual_seed(0)
    logits, target = 4 * torch.randn(101), (torch.rand(101) < 0.3).float()
    expected = F.binary_cross_entropy_with_logits(logits, target, pos_weight=torch.tensor(5.0))
    got = focal_loss(logits, target, gamma=0.0, positive_weight=5.0).mean()
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


def test_focus_shrinks_easy_cases_most():
    easy, hard = torch.tensor([logit(0.95)]), torch.tensor([logit(0.3)])
    ratio = {g: focal_loss(easy, torch.ones(1), g, 1.0) / focal_loss(hard, torch.ones(1), g, 1.0) for g in (0.0, 2.0)}
    assert (ratio[2.0] / ratio[0.0]).item() == pytest.approx((0.05 / 0.7) ** 2, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_finite_for_huge_logits(dtype, gamma):
    logits = torch.tensor([-6e4, -100, 0, 100, 6e4], dtype=dtype).repeat(2).requires_grad_()
    target = torch.tensor([0.0] * 5 + [1.0] * 5)
    loss = focal_loss(logits, target, gamma, positive_weight=2.0).mean()
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    wrong = float(logits[4].item())  # surest mistakes cost their logit: negatives once, positives with weight 2
    rest = loss.item() * 10 - wrong - 2 * wrong
    assert rest == pytest.approx(300 + 3 * math.log(2) * 0.5**gamma, rel=0.05)


def test_multi_task_loss_by_hand():
    loss = MultiTaskLoss(gamma=2.0, positive_weight=3.0, max_pct_std=2.0, max_pct_clip=5.0, task_weights=(0.5, 4.0))
    logits, predicted = torch.tensor([[logit(0.2)], [logit(0.9)]]), torch.tensor([[1.0], [8.0]])
    got = loss(logits, predicted, torch.tensor([1.0, 0.0]), torch.tensor([4.0, 9.0]))
    trigger = (3 * 0.8**2 * -math.log(0.2) + 0.9**2 * -math.log(0.1)) / 2
    max_pct = (((1 - 4) / 2) ** 2 + ((8 - 5) / 2) ** 2) / 2  # the target 9 is clipped to 5, the prediction 8 is not
    assert list(got) == ["total", "trigger", "max_pct"]
    assert got["trigger"].item() == pytest.approx(trigger, rel=1e-6)
    assert got["max_pct"].item() == pytest.approx(max_pct, rel=1e-6)
    assert got["total"].item() == pytest.approx(0.5 * trigger + 4 * max_pct, rel=1e-6)
    assert all(value.shape == () for value in got.values())


def test_fixed_weights_are_no_parameters_and_not_saved():
    loss = MultiTaskLoss()
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}


def batch():
    return (
        torch.tensor([[0.3], [-1.0]]),
        torch.tensor([[0.5], [2.0]]),
        torch.tensor([1.0, 0.0]),
        torch.tensor([1.0, 4.0]),
    )


def test_learned_weights_start_at_the_fixed_ones():
    fixed = MultiTaskLoss(task_weights=(2.0, 0.25))(*batch())["total"]
    loss = MultiTaskLoss(task_weighting="learned", task_weights=(2.0, 0.25))
    assert [p.numel() for p in loss.parameters()] == [2]
    log_terms = -math.log(2.0) - math.log(0.25)
    assert loss(*batch())["total"].item() == pytest.approx(fixed.item() + log_terms, rel=1e-6)


def test_learned_weights_settle_at_one_over_the_losses():
    """d/ds (exp(-s) L + s) = 0 at s = log L."""
    loss = MultiTaskLoss(task_weighting="learned")
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        total = loss(*batch())["total"]
        total.backward()
        return total

    optimizer.step(closure)
    parts = loss(*batch())
    expected = torch.stack([parts["trigger"], parts["max_pct"]]).log()
    assert torch.allclose(loss.log_variance.detach(), expected, atol=1e-3)


def test_half_precision_predictions_are_scored_in_float32():
    logits, predicted, trigger, target = batch()
    full = MultiTaskLoss(max_pct_std=0.001)(logits.half(), predicted.half(), trigger, target.half())
    assert full["max_pct"].dtype == torch.float32
    assert full["max_pct"].item() == pytest.approx((0.5**2 + 2.0**2) / 2 * 1e6, rel=1e-5)  # beyond float16


def test_targets_of_another_shape_are_refused():
    logits, predicted, trigger, target = batch()
    with pytest.raises(ValueError, match=r"\(2, 1\), \(2, 1\), \(2, 1\), \(2,\)"):
        MultiTaskLoss()(logits, predicted, trigger[:, None], target)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positive_weight": math.inf}, "positive_weight is inf"),
        ({"positive_weight": math.nan}, "positive_weight is nan"),
        ({"max_pct_std": 0.0}, "max_pct_std is 0.0"),
        ({"max_pct_clip": math.nan}, "max_pct_clip is nan"),
        ({"gamma": -1.0}, "gamma is -1.0"),
        ({"task_weighting": "learnt"}, "'fixed' or 'learned'"),
        ({"task_weighting": "learned", "task_weights": (1.0, 0.0)}, "positive to be learned"),
    ],
)
def test_numbers_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MultiTaskLoss(**changes)


def test_auxiliary_loss_by_hand():
    """Two samples, two targets in their own units; one error is small (squared) and one large (linear)."""
    loss = MultiTaskLoss(gamma=0.0, auxiliary_scales=[(1.0, 2.0), (0.0, 0.5)], auxiliary_weight=3.0)
    logits, predicted = torch.zeros(2, 1), torch.zeros(2, 1)
    targets = torch.tensor([[2.0, 0.0], [1.0, 2.0]])  # in standard deviations: (0.5, 0), (0, 4)
    forecast = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    weight = torch.tensor([0.25, 0.75])
    got = loss(logits, predicted, torch.zeros(2), torch.zeros(2), weight, forecast, targets)
    expected = 0.25 * 0.5 * 0.5**2 + 0.75 * (4 - 0.5)
    assert loss.terms == ("total", "trigger", "max_pct", "auxiliary")
    assert got["auxiliary"].item() == pytest.approx(expected, rel=1e-6)
    assert got["total"].item() == pytest.approx(math.log(2) + 3 * expected, rel=1e-6)


@pytest.mark.parametrize("weighting", ["fixed", "learned"])
def test_losses_of_parts_add_up_to_the_loss_of_the_whole(weighting):
    torch.manual_seed(0)
    loss = MultiTaskLoss(task_weighting=weighting, task_weights=(0.5, 1.0))
    logits, predicted, target = torch.randn(7, 1), torch.randn(7, 1), torch.randn(7)
    trigger, weight = torch.tensor([1.0, 0, 0, 1, 0, 0, 1]), torch.full((7,), 1 / 7)
    whole = loss(logits, predicted, trigger, target)
    parts = [loss(logits[s], predicted[s], trigger[s], target[s], weight[s]) for s in (slice(0, 3), slice(3, 7))]
    for name, value in whole.items():
        assert sum(part[name] for part in parts).item() == pytest.approx(value.item(), rel=1e-5), name
