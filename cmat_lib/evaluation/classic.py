"""Baselines of the ablation: classic models on summaries of the network's very own inputs, with and without clock."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from cmat_lib.config import Config
from cmat_lib.config.schema import AUXILIARY_TARGETS
from cmat_lib.evaluation.baselines import fit_trees, summarise, summary_names
from cmat_lib.views.panel import Panel

CLASSIC = ("base_rate", "volatility", "har+clock", "logistic", "trees", "logistic+clock", "trees+clock")
STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # inverse regularisation of the logistic regression; the stop part chooses
Parts = Mapping[str, tuple[np.ndarray, np.ndarray]]  # part -> features (n, S), trigger (n,)


def classic_rows(config: Config) -> tuple[str, ...]:
    """Those of `CLASSIC` that the inputs allow: ``har+clock`` needs ``complexity.ranges``."""
    return tuple(name for name in CLASSIC if name != "har+clock" or config.complexity.ranges)


def classic_scores(name: str, panel: Panel, parts: tuple[str, ...], config: Config) -> dict[str, np.ndarray]:
    """Scores of one of the `CLASSIC` baselines, fitted on the train part, with the stop part to choose its strength.

    Parameters
    ----------
    name : str
        ``base_rate`` says the same of every sample, ``volatility`` is the trailing volatility; ``har+clock`` forecasts
        volatility from the trailing ranges alone; ``logistic`` and ``trees`` read
        `cmat_lib.evaluation.baselines.window_summaries`, with ``+clock`` hour and weekday too.

    Returns
    -------
    dict
        Part -> (n,) float64 array in [0, 1], rows in the order of ``panel.index(part)``.

    Raises
    ------
    CmatError
        If the training part has one class only.
    """
    if name in ("base_rate", "volatility"):
        train = panel.samples.loc[panel.samples["part"] == "train", "trigger"].mean()
        values = panel.samples.assign(base_rate=train)[name].to_numpy(np.float64)
        return {part: values[panel.index(part).cpu().numpy()] for part in parts}
    if name == "har+clock":
        return _har(panel, parts, config)
    data = {part: _features(panel, part, name.endswith("+clock"), config) for part in {"train", "stop", *parts}}
    with threadpool_limits(1):  # small matrices: waiting threads cost more than they bring on a busy machine
        fit = _logistic if name.startswith("logistic") else _trees
        predict = fit(data)
        return {part: predict(data[part][0]) for part in parts}


def _features(panel: Panel, part: str, context: bool, config: Config) -> tuple[np.ndarray, np.ndarray]:
    return summarise(panel.batches(panel.index(part), config.evaluation.batch_size), config, context)


def _har(panel: Panel, parts: tuple[str, ...], config: Config) -> dict[str, np.ndarray]:
    """Chance of a trigger given a linear forecast of log volatility by log ranges of several lengths and the clock.

    Heterogeneous autoregression (Corsi 2009, Journal of Financial Econometrics 7), with ranges for realised volatility.
    """
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


def _trees(data: Parts):
    return fit_trees(data["train"], data["stop"]).predict


def _logistic(data: Parts):
    """Logistic regression on standardised features, with the strength that is best on the stop part.

    What a view cannot show counts as its training median, which scaled inputs have at 0.
    """
    data = {part: (np.nan_to_num(features), trigger) for part, (features, trigger) in data.items()}
    features, trigger = data["stop"]
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=strength, solver="newton-cholesky")).fit(*data["train"])
        for strength in STRENGTHS
    ]
    best = min(models, key=lambda model: log_loss(trigger, model.predict_proba(features)[:, 1], labels=[0, 1]))
    return lambda x: best.predict_proba(np.nan_to_num(x))[:, 1]
