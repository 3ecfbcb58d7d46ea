"""CMAT in a program: a market and parameters in memory, through the same functions as pages and commands, no files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.base.parts import load_parts
from cmat_lib.config import Config
from cmat_lib.data.candles import checked_market, data_hash
from cmat_lib.data.labels import compute_labels
from cmat_lib.data.splits import Market
from cmat_lib.explain.attention import attention_maps, collect_maps
from cmat_lib.models import MultiTaskCrossModalAttention
from cmat_lib.training.checkpoint import load_model, save_checkpoint
from cmat_lib.training.devices import make_fabric
from cmat_lib.training.trainer import Row, train
from cmat_lib.views import VIEWS
from cmat_lib.views.compute import computed, sample_views
from cmat_lib.views.panel import Panel
from cmat_lib.views.scaling import fit_scalers
from cmat_lib.workflow.predictor import First, Predictor
from cmat_lib.workflow.stages.common import check_parameters
from cmat_lib.workflow.stages.data import check_market
from cmat_lib.workflow.stages.evaluation import evaluate
from cmat_lib.workflow.stages.training import settle


class Attention(NamedTuple):
    """Where a model looked at N moments."""

    maps: np.ndarray  # (N, layers, h, M, M) float16; rows sum to 1
    tokens: tuple[str, ...]  # M
    samples: pd.DataFrame  # N rows: ``symbol``, ``timestamp``, ``close_time``, ``close``


@dataclass
class Fitted:
    """A trained model with all that a prediction needs; `panel` and `market` are those of its training, if at hand."""

    model: MultiTaskCrossModalAttention
    config: Config
    checkpoint: dict[str, Any]
    panel: Panel | None = None
    market: Market | None = None

    def predict(self, market: Market, first: First = None) -> pd.DataFrame:
        """Scores of the candles of a market, see `cmat_lib.workflow.predictor.Predictor.scores`."""
        predictor, market = self._ready(market)
        return predictor.scores(market, first)

    def attention(self, market: Market, first: First = None) -> Attention:
        """Attention between the tokens at the candles that `predict` would score; a CmatError where there is none."""
        predictor, market = self._ready(market)
        panel = predictor.panel(market, first)
        if panel is None:
            raise CmatError("no candle can be scored from there on; give more candles, or an earlier first")
        index, size = panel.everything, self.config.evaluation.batch_size
        found = collect_maps(self.model, panel.batches(index, size), len(index), attention_maps)
        return Attention(found.maps, found.token_names, panel.samples[["symbol", "timestamp", "close_time", "close"]])

    def evaluate(self) -> dict[str, pd.DataFrame]:
        """Tables of `cmat_lib.workflow.stages.evaluation.evaluate`; not of a model from a file, which has no market."""
        if self.panel is None:
            raise CmatError("a model from a file brings no market to be judged on; fit it, or use `cmat run`")
        tables, _, _ = evaluate(self.model, self.panel, self.market, self.config, self.checkpoint)
        return tables

    def save(self, path: str | Path) -> None:
        """Write ``best_model.pt``, which `load`, `cmat predict` and `cmat export` read."""
        save_checkpoint(path, self.checkpoint)

    def _ready(self, market: Market) -> tuple[Predictor, Market]:
        any_symbols = self.config.data.model_copy(update={"symbols": None})  # not those of the training alone
        return Predictor.of(self.model, self.config, self.checkpoint), checked_market(market, any_symbols)


def fit(market: Market, config: Config, on_epoch: Callable[[Row], None] = lambda row: None) -> Fitted:
    """Train a model on candles.

    Parameters
    ----------
    market : mapping of str to DataFrame
        Candles of each symbol, see `cmat_lib.data.candles.checked_market`.
    on_epoch : callable
        Takes each row of the history.

    Raises
    ------
    CmatError
        If candles or parameters do not fit.
    """
    load_parts()
    check_parameters(config)
    market = checked_market(market, config.data)
    check_market(market, config)
    fabric, views = make_fabric(config.training), VIEWS.active(config)
    labels = {symbol: compute_labels(candles, config.labels, config.data.bar) for symbol, candles in market.items()}
    jobs = config.cache.jobs
    samples, arrays = sample_views(views, market, labels, config, lambda s, rows: computed(s, market[s], rows, jobs))
    scalers = fit_scalers(views, arrays, samples, config)
    panel = Panel(arrays, samples, scalers, config, fabric.device)
    model = train(config, panel, on_epoch, fabric=fabric).model
    checkpoint, _ = settle(model, panel, config, {"data_hash": data_hash(market), "symbols": list(market)})
    return Fitted(model, config, checkpoint, panel, market)


def load(path: str | Path) -> Fitted:
    """A model from ``best_model.pt``."""
    load_parts()
    model, config, checkpoint = load_model(path)
    return Fitted(model, config, checkpoint)
