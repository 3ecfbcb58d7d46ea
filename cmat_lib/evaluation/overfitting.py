"""How much of a good result may be the luck of many tries: deflated Sharpe ratio and probability of overfitting."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import kurtosis, norm, rankdata, skew

from cmat_lib.base.errors import CmatError
from cmat_lib.evaluation.weighted import quotient


def sharpe_ratio(returns: np.ndarray) -> float:
    """Mean over standard deviation of the returns of single periods (T,), not annualised; NaN without variation."""
    return float(quotient(np.mean(returns), np.std(returns, ddof=1))) if len(returns) > 1 else np.nan


def expected_best_sharpe(variance: float, trials: int) -> float:
    """Sharpe ratio that the best of several worthless trials reaches on average.

    Bailey & López de Prado (2014), *The deflated Sharpe ratio*, eq. 1 (from extreme value theory), by the variance of
    the Sharpe ratios of independent trials. One trial was not chosen among any, so it expects 0.
    """
    if trials < 2:
        return 0.0
    best = (1 - np.euler_gamma) * norm.ppf(1 - 1 / trials) + np.euler_gamma * norm.ppf(1 - 1 / (trials * np.e))
    return float(np.sqrt(variance) * best)


def probabilistic_sharpe(sharpe: float, benchmark: float, periods: int, skewness: float, kurt: float) -> float:
    """Probability that the true Sharpe ratio exceeds `benchmark`, given one that was observed.

    Bailey & López de Prado (2014), eq. 2 (with `expected_best_sharpe` as benchmark: the deflated Sharpe ratio).
    NaN where the returns' moments allow none. Ratios are per period; a normal distribution has a `kurt` of 3.
    """
    variance = 1 - skewness * sharpe + (kurt - 1) / 4 * sharpe**2
    if not variance > 0:
        return np.nan
    return float(norm.cdf((sharpe - benchmark) * np.sqrt(periods - 1) / np.sqrt(variance)))


def deflated_sharpe(returns: np.ndarray, trials: np.ndarray) -> float:
    """Probability that the true Sharpe ratio of a trial exceeds what the best of N worthless trials would show.

    NaN where `returns` (T,) do not vary. `trials` (N,) are the Sharpe ratios of all, this one among them, over periods
    of the same length; NaN is one that is not known, because it never traded or its test part was not looked at (a
    sweep's), and counts as a try. Trials that are much alike count as many, which is severe, not lenient.
    """
    sharpe, known = sharpe_ratio(returns), trials[~np.isnan(trials)]
    if np.isnan(sharpe):
        return np.nan
    # With one ratio known, as after a sweep, the spread of worthless trials by eq. 2 at a ratio of 0.
    variance = float(np.var(known, ddof=1)) if len(known) > 1 else 1 / (len(returns) - 1)
    benchmark = expected_best_sharpe(variance, len(trials))
    return probabilistic_sharpe(sharpe, benchmark, len(returns), skew(returns), kurtosis(returns, fisher=False))


def overfitting_probability(returns: pd.DataFrame, blocks: int = 16) -> float:
    """Probability of backtest overfitting by combinatorially symmetric cross-validation.

    Bailey, Borwein, López de Prado & Zhu (2017), *The probability of backtest overfitting*, section 2: time is cut into
    blocks; for every choice of half of them the trial with the best Sharpe ratio there is looked up in the other half.
    The probability is the share of choices for which it ranks at or below the median of all trials there; it is near
    0.5 when the choice is worth nothing, and NaN with fewer than two trials or two periods a block. `returns` (T, N)
    are of each trial in the same periods. The paper's 16 blocks have 12,870 halves; an odd number is a `CmatError`.
    """
    if blocks % 2:
        raise CmatError(f"probability of overfitting: {blocks} blocks have no halves; choose an even number")
    periods, trials = returns.shape
    if trials < 2 or periods < 2 * blocks:
        return np.nan
    parts = np.array_split(returns.to_numpy(np.float64), blocks)
    count = np.array([len(part) for part in parts], np.float64)
    sums, squares = np.array([p.sum(0) for p in parts]), np.array([(p**2).sum(0) for p in parts])  # (blocks, N)
    choices = np.array(list(combinations(range(blocks), blocks // 2)))
    chosen = np.zeros((len(choices), blocks))
    np.put_along_axis(chosen, choices, 1.0, axis=1)
    inside, outside = (_sharpes(half, count, sums, squares) for half in (chosen, 1 - chosen))  # (choices, N)
    best = inside.argmax(axis=1)
    rank = rankdata(outside, axis=1)[np.arange(len(best)), best] / (trials + 1)
    return float((rank <= 0.5).mean())


def _sharpes(half: np.ndarray, count: np.ndarray, sums: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Sharpe ratio of each trial over the blocks of each half, (choices, N); 0 where its returns do not vary."""
    n = (half @ count)[:, None]
    mean = half @ sums / n
    variance = (half @ squares - n * mean**2) / (n - 1)
    return np.divide(mean, np.sqrt(np.maximum(variance, 0)), out=np.zeros_like(mean), where=variance > 1e-18)
