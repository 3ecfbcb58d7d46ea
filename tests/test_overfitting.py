"""Deflated Sharpe ratio against the paper's example, probability of overfitting against simulated trials."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kurtosis, skew

from cmat_lib.base.errors import CmatError
from cmat_lib.evaluation.overfitting import (
    deflated_sharpe,
    expected_best_sharpe,
    overfitting_probability,
    probabilistic_sharpe,
    sharpe_ratio,
)


def test_the_example_of_the_paper():
    """Bailey & López de Prado (2014): a Sharpe ratio of 2.5 a year over 1250 days, skew -3, kurtosis 10, variance 1/2.

    After 100 trials it is not significant at 95 %; after 46 it would have been.
    """
    daily = 2.5 / math.sqrt(250)
    for trials, expected in ((100, 0.9004), (46, 0.9505)):
        benchmark = expected_best_sharpe(0.5 / 250, trials)
        assert probabilistic_sharpe(daily, benchmark, 1250, -3, 10) == pytest.approx(expected, abs=5e-5)
    assert expected_best_sharpe(0.5 / 250, 100) == pytest.approx(0.1132, abs=5e-5)


def test_expected_best_of_worthless_trials_by_simulation():
    rng = np.random.default_rng(0)
    best = rng.normal(0, 0.3, (20_000, 50)).max(axis=1).mean()
    assert expected_best_sharpe(0.09, 50) == pytest.approx(best, rel=0.02), "an approximation for large N"
    assert expected_best_sharpe(0.09, 1) == 0


def test_deflated_is_probabilistic_against_the_best_of_the_others():
    rng = np.random.default_rng(1)
    returns = rng.normal(0.1, 1, 500)
    alone = deflated_sharpe(returns, np.array([sharpe_ratio(returns)]))
    among = deflated_sharpe(returns, np.append(rng.normal(0, 0.05, 99), sharpe_ratio(returns)))
    # by hand: normal returns have skew 0 and kurtosis 3, nearly
    assert alone == pytest.approx(probabilistic_sharpe(sharpe_ratio(returns), 0, 500, 0, 3), abs=0.01)
    assert among < alone - 0.2
    assert math.isnan(deflated_sharpe(np.zeros(50), np.array([0.1, np.nan]))), "no trade, no ratio"


def test_trials_without_a_known_ratio_count_as_tries():
    rng = np.random.default_rng(1)
    returns = rng.normal(0.1, 1, 500)
    own, others = sharpe_ratio(returns), rng.normal(0, 0.05, 9)
    known = deflated_sharpe(returns, np.append(others, own))
    blind = deflated_sharpe(returns, np.concatenate([others, [own], np.full(90, np.nan)]))
    benchmark = expected_best_sharpe(np.var(np.append(others, own), ddof=1), 100)
    assert blind < known - 0.05
    assert blind == pytest.approx(
        probabilistic_sharpe(own, benchmark, 500, skew(returns), kurtosis(returns, fisher=False))
    )


def test_after_a_sweep_the_spread_is_that_of_worthless_trials():
    """One trial of 20 was evaluated: by simulation, what the best of 20 worthless ones of 500 days shows."""
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(2000, 20, 500))
    best = (noise.mean(axis=2) / noise.std(axis=2, ddof=1)).max(axis=1).mean()
    returns = rng.normal(0.1, 1, 500)
    found = deflated_sharpe(returns, np.append(np.full(19, np.nan), sharpe_ratio(returns)))
    expected = probabilistic_sharpe(sharpe_ratio(returns), best, 500, skew(returns), kurtosis(returns, fisher=False))
    assert found == pytest.approx(expected, abs=0.02)


def test_sharpe_ratio_by_hand():
    assert sharpe_ratio(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)
    assert math.isnan(sharpe_ratio(np.array([1.0, 1.0]))) and math.isnan(sharpe_ratio(np.array([1.0])))


def test_noise_is_overfit_half_of_the_time():
    found = [
        overfitting_probability(pd.DataFrame(np.random.default_rng(seed).normal(size=(160, 20))), 8)
        for seed in range(60)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.07)


def test_one_better_trial_is_no_overfitting():
    noise = np.random.default_rng(3).normal(size=(160, 20))
    noise[:, 4] += 0.8
    assert overfitting_probability(pd.DataFrame(noise)) < 0.001


def test_a_trial_that_is_good_in_one_half_only_is_overfitting():
    """Each trial shines in one block and pays in the others, so the best of one half is the worst of the other."""
    days = np.arange(160) // 10
    returns = pd.DataFrame({k: np.where(days == k, 5.0, -0.1) + 0.01 * np.cos(np.arange(160)) for k in range(16)})
    assert overfitting_probability(returns) > 0.99


def test_all_splits_against_a_plain_count():
    """Four blocks, three trials, six splits counted one by one; the median of three trials is no success."""
    blocks = {"a": [3.0, 1.0, 2.0, 2.0], "b": [1.0, 2.0, 0.0, 4.0], "c": [0.0, 3.0, 1.0, 3.0]}
    wiggle = np.tile([0.5, -0.5], 2)  # four days a block
    returns = pd.DataFrame({name: np.concatenate([mean + wiggle for mean in means]) for name, means in blocks.items()})
    places = []
    for chosen in combinations(range(4), 2):
        other = [block for block in range(4) if block not in chosen]
        inside, outside = (
            {n: sharpe_ratio(np.concatenate([blocks[n][b] + wiggle for b in half])) for n in blocks}
            for half in (chosen, other)
        )
        best = max(inside, key=inside.get)
        places.append(sum(value <= outside[best] for value in outside.values()))  # 1 is last
    assert set(places) == {1, 2, 3}
    assert overfitting_probability(returns, 4) == pytest.approx(np.mean(np.array(places) <= 2))


def test_too_few_trials_or_days_have_no_probability():
    noise = np.random.default_rng(0).normal(size=(64, 3))
    assert math.isnan(overfitting_probability(pd.DataFrame(noise[:, :1])))
    assert math.isnan(overfitting_probability(pd.DataFrame(noise[:31])))
    with pytest.raises(CmatError, match="even"):
        overfitting_probability(pd.DataFrame(noise), 5)
