"""Baselines of the ablation: classic models on summaries of the network's very own inputs, with and without clock."""

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_limits

from cmat_lib.config import Config
from cmat_lib.config.schema import AUXILIARY_TARGETS
from cmat_lib.evaluation.baselines import fit_trees, summarise, summary_names
from cmat_lib.views.panel import Panel

CLASSIC = ("base_rate", "volatility", "har+clock", "logistic", "trees", "logistic+clock", "trees+clock")
STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # inverse regularisation of the logistic regression; the stop part chooses


def classic_rows(config: Config) -> tuple[str, ...]:
    """Those of `CLASSIC` that the inputs allow: ``har+clock`` needs ``complexity.ranges``."""
    return tuple(name for name in CLASSIC if name != "har+clock" or config.complexity.ranges)


def classic_scores(name: str, panel: Panel, parts: tuple[str, ...], config: Config) -> dict[str, np.ndarray]:
    """Scores of one of the `CLASSIC` baselines: part -> (n,) float64 in [0, 1], in the order of ``panel.index(part)``.

    Fitted on the train part (two classes, or a `CmatError`), with the stop part to choose its strength. ``base_rate``
    says the same of every sample, ``volatility`` is the trailing volatility; ``har+clock`` forecasts volatility from
    the trailing ranges alone; ``logistic`` and ``trees`` read `cmat_lib.evaluation.baselines.window_summaries`, with
    ``+clock`` hour and weekday too.
    """
    if name in ("base_rate", "volatility"):
        train = panel.samples.loc[panel.samples["part"] == "train", "trigger"].mean()
        values = panel.samples.assign(base_rate=train)[name].to_numpy(np.float64)
        return {part: values[panel.index(part).cpu().numpy()] for part in parts}
    if name == "har+clock":
        return _har(panel, parts, config)
    data = {part: _features(panel, part, name.endswith("+clock"), config) for part in {"train", "stop", *parts}}
    with threadpool_limits(1):  # small matrices: waiting threads cost more than they bring on a busy machine
        if name.startswith("trees"):
            trees = fit_trees(data["train"], data["stop"])
            return {part: trees.predict(data[part][0]) for part in parts}
        logistic = _logistic(data["train"], *data["stop"])
        return {part: logistic.predict_proba(data[part][0])[:, 1] for part in parts}


def _features(panel: Panel, part: str, context: bool, config: Config) -> tuple[np.ndarray, np.ndarray]:
    return summarise(panel.batches(panel.index(part), config.evaluation.batch_size), config, context)


def _har(panel: Panel, parts: tuple[str, ...], config: Config) -> dict[str, np.ndarray]:
    """Chance of a trigger given a linear forecast of log volatility by log ranges of several lengths and the clock."""
    # Heterogeneous autoregression (Corsi 2009, J. of Financial Econometrics 7), with ranges for realised volatility.
    names = summary_names(config, context=True)
    ranges = [names.index(f"log_range_{candles}") for candles in config.complexity.ranges]
    read = [*ranges, *range(len(summary_names(config)), len(names))]

    def features(part: str) -> np.ndarray:
        return _features(panel, part, True, config)[0][:, read]

    trigger, _, realised = (values.cpu().numpy() for values in panel.targets(panel.index("train")))
    target = realised[:, AUXILIARY_TARGETS.index("log_volatility")]
    ridge = make_pipeline(StandardScaler(), Ridge()).fit(features("train"), target)
    forecast = {part: ridge.predict(features(part))[:, None] for part in {"train", *parts}}
    chance = LogisticRegression(C=np.inf, solver="newton-cholesky").fit(forecast["train"], trigger)
    return {part: chance.predict_proba(forecast[part])[:, 1] for part in parts}


def _logistic(train: tuple[np.ndarray, np.ndarray], features: np.ndarray, trigger: np.ndarray) -> Pipeline:
    """Logistic regression on standardised features, with the strength that is best on these of the stop part."""
    models = []
    for strength in STRENGTHS:  # what a view cannot show counts as its training median, which scaled inputs have at 0
        regression = LogisticRegression(C=strength, solver="newton-cholesky")
        models.append(make_pipeline(FunctionTransformer(np.nan_to_num), StandardScaler(), regression).fit(*train))
    return min(models, key=lambda model: log_loss(trigger, model.predict_proba(features)[:, 1], labels=[0, 1]))
