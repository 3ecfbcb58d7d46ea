"""The baseline that a network has to beat: gradient-boosted trees on plain summaries of the very same inputs."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits
from torch import Tensor

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config
from cmat_lib.views import VIEWS, View
from cmat_lib.views.panel import Batch


def summary_names(config: Config, context: bool = False) -> list[str]:
    """Names of the columns of `window_summaries`, in order."""
    views = _summarised(config, context)
    return [name for v in views for name in (v.summary_names(config) if v.summaries else v.names(config))]


def window_summaries(inputs: Mapping[str, Tensor], config: Config, context: bool = False) -> np.ndarray:
    """Plain features of a batch (B, S), made of nothing but the model's own inputs, (B, F) or (B, L, F) of each view.

    What each view makes of its window, or its newest numbers; NaN where it has nothing to show. With `context`, views
    that say nothing of the market by themselves, as a clock, come behind the others.
    """
    columns = []
    for view in _summarised(config, context):
        numbers = inputs[view.name]
        newest = numbers if numbers.ndim == 2 else numbers[:, -1]
        columns.append((view.summaries(numbers, config) if view.summaries else newest).cpu().numpy())
    return np.hstack(columns)


def _summarised(config: Config, context: bool) -> list[View]:
    views = VIEWS.active(config)
    return [v for v in views if not v.context] + [v for v in views if v.context and context]


class Trees(NamedTuple):
    """Fitted trees, cut after the iteration that was best on the stop part."""

    model: HistGradientBoostingClassifier
    iterations: int  # trees in use

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Probability of a trigger, (N,) float64, for features (N, S)."""
        staged = self.model.staged_predict_proba(features)
        return next(islice(staged, self.iterations - 1, None))[:, 1]


def fit_trees(
    train: tuple[np.ndarray, np.ndarray], stop: tuple[np.ndarray, np.ndarray], max_iterations: int = 200
) -> Trees:
    """Histogram gradient boosting (Ke et al. 2017), all training rows, number of trees by the stop part's log loss.

    scikit-learn's own early stopping holds out random rows; rows overlap in time, so those are all but known from
    training. Equal rows give equal trees. `train` and `stop` are features (n, S) and triggers (n,); one class only in
    training is a `CmatError`.
    """
    features, trigger = train
    if len(np.unique(trigger)) < 2:
        raise CmatError("trees: the training part has triggers only or none; choose another label threshold (labels)")
    strength = {"learning_rate": 0.05, "max_iter": max_iterations, "max_leaf_nodes": 15, "l2_regularization": 1.0}
    # The state is for the bins, which above 200,000 rows are made from a drawn share.
    model = HistGradientBoostingClassifier(**strength, early_stopping=False, random_state=0).fit(features, trigger)
    losses = [log_loss(stop[1], p[:, 1], labels=[0, 1]) for p in model.staged_predict_proba(stop[0])]
    return Trees(model, int(np.argmin(losses)) + 1)


def summarise(batches: Iterable[Batch], config: Config, context: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Summaries (N, S) and triggers (N,), float32, of all batches, one batch of windows in memory at a time."""
    found = [(window_summaries(batch.inputs, config, context), batch.trigger.cpu().numpy()) for batch in batches]
    features, trigger = zip(*found, strict=True)
    return np.concatenate(features), np.concatenate(trigger)


def tree_scores(parts: Mapping[str, Iterable[Batch]], config: Config) -> dict[str, np.ndarray]:
    """Probability of a trigger by trees that saw the train and stop parts: part -> (n,) float64, in batch order.

    The trees read the source's views, whichever the model has, and all others that the model reads. A `CmatError` if
    the train or stop part is missing, or training has one class only.
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
