"""The baseline that a network has to beat: gradient-boosted trees on plain summaries of the very same inputs.

The other baseline, trailing volatility alone, is a column of the panel's samples (``volatility``) and needs no code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

from cmat_lib.config import Config
from cmat_lib.errors import CmatError
from cmat_lib.schema import TdaConfig
from cmat_lib.tda.features import feature_names

if TYPE_CHECKING:
    from cmat_lib.data.panel import Batch

SUMMARIES = ("last", "mean", "std", "min", "max", "slope")
RETURN_HORIZONS = (1, 4, 16, 48)  # candles; the whole window comes on top
BETTI_STEP = 10  # neighbouring bins of a Betti curve say nearly the same; trees take every tenth
MAX_ITERATIONS = 200
HARMONICS = {"day": (1, 2), "week": (1,)}


def summary_names(config: Config) -> list[str]:
    """Names of the columns of `window_summaries`, in order."""
    channels = [f"{channel}_{summary}" for summary in SUMMARIES for channel in config.data.channel_names]
    returns = [f"return_{horizon}" for horizon in _return_horizons(config)]
    volatility = ["return_std"] if returns else []
    topology = feature_names(config.tda)
    picked = [topology[column] for column in tda_columns(config.tda)]
    return channels + returns + volatility + picked + config.complexity.names


def window_summaries(ohlcv: torch.Tensor, tda: torch.Tensor, complexity: torch.Tensor, config: Config) -> torch.Tensor:
    """Plain features of a batch, made of nothing but the model's own inputs.

    Per channel the last value, mean, standard deviation, minimum, maximum and least-squares slope over the window; log
    returns over several horizons and the standard deviation of the one-candle returns; every tenth Betti bin and all
    other topology features; all complexity indicators. Scaling an input changes nothing for trees: scaled batches do.

    Parameters
    ----------
    ohlcv : torch.Tensor, shape (B, T, C)
    tda : torch.Tensor, shape (B, F)
    complexity : torch.Tensor, shape (B, K)

    Returns
    -------
    torch.Tensor, shape (B, S)
        Columns as `summary_names`.
    """
    steps = torch.arange(ohlcv.shape[1], dtype=ohlcv.dtype, device=ohlcv.device)  # (T,)
    steps = steps - steps.mean()
    slope = torch.einsum("t,btc->bc", steps / (steps @ steps), ohlcv)  # (B, C)
    per_channel = [ohlcv[:, -1], ohlcv.mean(1), ohlcv.std(1), ohlcv.amin(1), ohlcv.amax(1), slope]  # (B, C) each
    returns = _return_summaries(ohlcv, config)
    return torch.cat([*per_channel, *returns, tda[:, tda_columns(config.tda)], complexity], dim=1)  # (B, S)


def _return_summaries(ohlcv: torch.Tensor, config: Config) -> list[torch.Tensor]:
    if "log_close" not in config.data.channel_names:
        return []
    close = ohlcv[:, :, config.data.channel_names.index("log_close")]  # (B, T)
    returns = [close[:, -1:] - close[:, -1 - horizon, None] for horizon in _return_horizons(config)]  # (B, 1) each
    return [*returns, close.diff(dim=1).std(1, keepdim=True)]  # (B, 1) each


def _return_horizons(config: Config) -> list[int]:
    if "log_close" not in config.data.channel_names:
        return []
    whole = config.data.sequence_length - 1
    return [horizon for horizon in RETURN_HORIZONS if horizon < whole] + [whole]


def tda_columns(config: TdaConfig) -> list[int]:
    """Columns of the topology features that the trees see: every tenth Betti bin, and all that is no bin."""
    size = config.features_per_dimension
    kept = [column for column in range(size) if column >= config.betti_bins or column % BETTI_STEP == 0]
    return [start + column for start in range(0, config.feature_dim, size) for column in kept]


def clock_columns(clock: torch.Tensor) -> np.ndarray:
    """Fractions of day and week (n, 2) as numbers for trees and as harmonics for linear models, (n, 8)."""
    fractions = clock.cpu().numpy().astype(np.float64)
    turns = [k * fractions[:, column] for column, ks in enumerate(HARMONICS.values()) for k in ks]
    waves = [wave(2 * np.pi * turn) for turn in turns for wave in (np.sin, np.cos)]
    return np.column_stack([fractions, *waves])


@dataclass(frozen=True)
class Trees:
    """Fitted trees, cut after the iteration that was best on the stop part."""

    model: HistGradientBoostingClassifier
    iterations: int  # trees in use

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Probability of a trigger, (N,) float64, for features (N, S)."""
        staged = self.model.staged_predict_proba(features)
        return next(islice(staged, self.iterations - 1, None))[:, 1]


def fit_trees(
    train: tuple[np.ndarray, np.ndarray], stop: tuple[np.ndarray, np.ndarray], max_iterations: int = MAX_ITERATIONS
) -> Trees:
    """Histogram gradient boosting (Ke et al. 2017), all training rows, number of trees by the stop part's log loss.

    scikit-learn's own early stopping holds out random rows; rows overlap in time, so those are all but known from
    training. Equal rows give equal trees.

    Parameters
    ----------
    train, stop : tuple of arrays (n, S), (n,)
        Features and triggers (0/1).

    Raises
    ------
    CmatError
        If the training rows have one class only.
    """
    features, trigger = train
    if len(np.unique(trigger)) < 2:
        raise CmatError("trees: the training part has triggers only or none; choose another label threshold (labels)")
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=max_iterations,
        max_leaf_nodes=15,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,  # above 200,000 rows the bins are made from a drawn share
    ).fit(features, trigger)
    losses = [log_loss(stop[1], p[:, 1], labels=[0, 1]) for p in model.staged_predict_proba(stop[0])]
    return Trees(model, int(np.argmin(losses)) + 1)


def summarise(batches: Iterable[Batch], config: Config, clock: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Summaries and triggers of all batches, one batch of windows in memory at a time.

    Parameters
    ----------
    clock : bool
        Whether hour and weekday come behind the summaries, as `clock_columns`.

    Returns
    -------
    features : (N, S) array, with the clock (N, S + 8)
    trigger : (N,) float32 array
    """
    features, trigger = [], []
    for batch in batches:
        columns = [window_summaries(*batch.inputs[:3], config).cpu().numpy()]
        features.append(np.hstack([*columns, clock_columns(batch.clock)] if clock else columns))
        trigger.append(batch.trigger.cpu().numpy())
    return np.concatenate(features), np.concatenate(trigger)


def tree_scores(parts: Mapping[str, Iterable[Batch]], config: Config) -> dict[str, np.ndarray]:
    """Probability of a trigger by trees that saw the train and stop parts, for the rows of every part.

    The trees read all three views, whichever the model has, and the clock if the model reads it.

    Parameters
    ----------
    parts : mapping
        Part -> its batches, unshuffled; ``train`` and ``stop`` must be among them.

    Returns
    -------
    dict
        Part -> (n,) float64 array, rows in the order of the batches.

    Raises
    ------
    CmatError
        If the train or stop part is missing, or the training rows have one class only.
    """
    for part in ("train", "stop"):
        if part not in parts:
            raise CmatError(f"trees: the {part} part is missing; the parts given are {', '.join(parts)}")
    clock = "clock" in config.model.modalities
    summaries = {part: summarise(batches, config, clock) for part, batches in parts.items()}
    # Small histograms: on a busy machine waiting threads make this twenty times slower, on an idle one little faster.
    with threadpool_limits(1, user_api="openmp"):
        trees = fit_trees(summaries["train"], summaries["stop"])
        return {part: trees.predict(features) for part, (features, _) in summaries.items()}
