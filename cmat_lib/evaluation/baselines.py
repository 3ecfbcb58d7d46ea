"""The baseline that a network has to beat: gradient-boosted trees on plain summaries of the very same inputs.

The other baseline, trailing volatility alone, is a column of the panel's samples (``volatility``) and needs no code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits
from torch import Tensor

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config
from cmat_lib.views import VIEWS, View

if TYPE_CHECKING:
    from cmat_lib.views.panel import Batch

MAX_ITERATIONS = 200


def summary_names(config: Config, context: bool = False) -> list[str]:
    """Names of the columns of `window_summaries`, in order."""
    views = _summarised(config, context)
    return [name for v in views for name in (v.summary_names(config) if v.summaries else v.names(config))]


def window_summaries(inputs: Mapping[str, Tensor], config: Config, context: bool = False) -> np.ndarray:
    """Plain features of a batch, made of nothing but the model's own inputs.

    What each view makes of its window, or its newest numbers. Scaling an input changes nothing for trees: scaled
    batches do.

    Parameters
    ----------
    inputs : mapping of str to Tensor
        View -> (B, F), or (B, L, F).
    context : bool
        Whether views that say nothing of the market by themselves, as a clock, come behind the others.

    Returns
    -------
    ndarray, shape (B, S)
        Columns as `summary_names`; NaN where a view has nothing to show.
    """
    columns = [_summary(view, inputs[view.name], config) for view in _summarised(config, context)]
    return np.hstack([x.cpu().numpy() for x in columns])


def _summarised(config: Config, context: bool) -> list[View]:
    views = VIEWS.active(config)
    return [v for v in views if not v.context] + [v for v in views if v.context and context]


def _summary(view: View, numbers: Tensor, config: Config) -> Tensor:
    if view.summaries:
        return view.summaries(numbers, config)
    return numbers if numbers.ndim == 2 else numbers[:, -1]


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


def summarise(batches: Iterable[Batch], config: Config, context: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Summaries (N, S) and triggers (N,), float32, of all batches, one batch of windows in memory at a time.

    `context` as for `window_summaries`.
    """
    features, trigger = [], []
    for batch in batches:
        features.append(window_summaries(batch.inputs, config, context))
        trigger.append(batch.trigger.cpu().numpy())
    return np.concatenate(features), np.concatenate(trigger)


def tree_scores(parts: Mapping[str, Iterable[Batch]], config: Config) -> dict[str, np.ndarray]:
    """Probability of a trigger by trees that saw the train and stop parts, for the rows of every part.

    The trees read the source's views, whichever the model has, and all others that the model reads.

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
    context = any(view.context for view in VIEWS.seen(config))
    summaries = {part: summarise(batches, config, context) for part, batches in parts.items()}
    # Small histograms: on a busy machine waiting threads make this twenty times slower, on an idle one little faster.
    with threadpool_limits(1, user_api="openmp"):
        trees = fit_trees(summaries["train"], summaries["stop"])
        return {part: trees.predict(features) for part, (features, _) in summaries.items()}
