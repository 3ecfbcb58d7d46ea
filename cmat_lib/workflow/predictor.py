"""Scores of candles by a stored model: ``best_model.pt`` and candles are all that is needed.

A score is made at the close of a candle and reads only that candle and those before it. Features are computed for the
windows that are asked for, nothing else, so the newest candle costs milliseconds; the feature cache is not touched.
"""

import copy
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import file_hash
from cmat_lib.config import Config, merge, validate
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.candles import closed
from cmat_lib.data.sources.choice import market_files
from cmat_lib.data.splits import Market
from cmat_lib.evaluation.calibration import apply_calibration
from cmat_lib.models import MultiTaskCrossModalAttention
from cmat_lib.training.checkpoint import load_model
from cmat_lib.training.devices import pick_device
from cmat_lib.training.objective import predict
from cmat_lib.views import VIEWS, Asked, Sliding
from cmat_lib.views.compute import Windows, compute_views, computed, with_rows
from cmat_lib.views.panel import Panel
from cmat_lib.views.samples import sample_rows, unlabelled_samples
from cmat_lib.workflow.stages.data import load_candles

COLUMNS = ["symbol", "timestamp", "close_time", "close", "raw_probability", "probability", "alarm"]
COLUMNS += ["predicted_max_pct", "in_sample", "model"]

First = pd.Timestamp | Mapping[str, pd.Timestamp] | None  # open of the first candle to score, for all symbols or each
Live = dict[tuple[str, str, str], Callable[[np.ndarray], np.ndarray]]  # sliding windows that are fed candle by candle


class Predictor:
    """A trained model, ``best_model.pt``, that scores candles; `jobs` processes, as joblib counts, compute features.

    `config` is that of the training and its symbols, but for device and processes, and with ``data.stride`` 1: every
    candle can be scored. `name` is the start of the file's SHA-256, so that no prediction is without a known source.
    One score reads `history` candles without a gap, its own included. A CmatError if the file is missing, damaged or of
    another version, or the device is not there.
    """

    def __init__(self, path: str | Path, device: str = "auto", jobs: int = 1):
        name = file_hash(Path(path)) if Path(path).is_file() else ""
        self._take(*load_model(path), name, device, jobs)

    @classmethod
    def of(cls, model: MultiTaskCrossModalAttention, config: Config, checkpoint: dict[str, Any]) -> Self:
        """The same of a model in memory, on its device; its name is the digest of its weights."""
        weights = b"".join(tensor.numpy().tobytes() for tensor in checkpoint["weights"].values())
        name, device = hashlib.sha256(weights).hexdigest(), next(model.parameters()).device.type
        predictor = cls.__new__(cls)
        predictor._take(copy.deepcopy(model), config, checkpoint, name, device, config.cache.jobs)
        return predictor

    def _take(self, model, config: Config, checkpoint: dict[str, Any], name: str, device: str, jobs: int) -> None:
        self._data, self.name = config.data, name[:12]
        own_data = {"stride": 1, "symbols": config.data.symbols or sorted(checkpoint["symbols"])}
        own = {"data": own_data, "cache": {"jobs": jobs}, "training": {"device": device}}
        self.config = validate(merge(config.model_dump(mode="json"), own), "parameters of the model")
        self.device = pick_device(self.config.training)
        # In double precision a score is the same alone and in a batch, on one thread and on many; topology costs more.
        self.model = model.double().to(self.device)
        self.history, self.views = VIEWS.look_back(self.config), VIEWS.active(self.config)
        self.reads_others = any(view.reads_others for view in self.views)
        self.scalers, self._calibration = checkpoint["scalers"], checkpoint["calibration"]
        self._threshold = checkpoint["threshold"]
        self._seen_until = pd.Timestamp(checkpoint["seen_until"])

    def data(self, data_dir: str | None = None, symbols: list[str] | None = None) -> DataConfig:
        """Where candles come from: the run's own data, or a folder with all symbols that it has; up to the newest.

        Where a view reads the other symbols, always those of the training, whichever are to be scored.
        """
        chosen = symbols or (self._data.symbols if data_dir is None else None)
        if self.reads_others:
            chosen = self.config.data.symbols
        changes = {"data_dir": data_dir or self._data.data_dir, "symbols": chosen, "since": None, "until": None}
        return self._data.model_copy(update=changes)

    def market(self, data: DataConfig) -> Market:
        """Checked candles that were over when their file was written, from where `data` says."""
        market = load_candles(self.config.model_copy(update={"data": data}))
        if data.data_dir is None:
            return market
        sources = market_files(data)
        return {symbol: closed(candles, data.bar, sources[symbol].written) for symbol, candles in market.items()}

    def scores(
        self,
        market: Market,
        first: First = None,
        progress: bool | None = False,
        live: Live | None = None,
        symbols: Iterable[str] | None = None,
    ) -> pd.DataFrame:
        """Scores of the checked candles of a market, which must be `Predictor.config.data.bar` long.

        A row for each candle whose inputs are complete, by symbol and time: ``symbol``, ``timestamp`` (open),
        ``close_time`` (when the score is known), ``close``, ``raw_probability`` (as the model made it; ranks),
        ``probability`` (calibrated), ``alarm`` (does that reach the threshold), ``predicted_max_pct`` (expected largest
        rise, percent), ``in_sample`` (whether training, stopping or calibration saw candles or labels up to this close
        or later), ``model``. A symbol, or its newest candle, that cannot be scored is a UserWarning. A CmatError if no
        symbol has `history` candles without a gap, a view cannot be made of these candles, or a score is not finite.

        Scored are `symbols`, all by default (the others are only looked at), from `first` on, the first possible candle
        by default. `progress` shows a bar; None shows it where a terminal watches. `live` is empty at first, and given
        back at the next call: sliding windows as this call leaves them. The newest candle is then added to them, and
        the same numbers come out.
        """
        panel = self.panel(market, first, progress, live, symbols)
        if panel is None:
            return pd.DataFrame(columns=COLUMNS)
        raw, max_pct = predict(self.model, panel, panel.everything, self.config.evaluation.batch_size)
        if not np.isfinite([raw, max_pct]).all():  # it would be no alarm
            raise CmatError(f"model {self.name} gives scores that are not finite; check these candles, or train again")
        probability = apply_calibration(raw, self._calibration)
        answers = {
            "raw_probability": raw,
            "probability": probability,
            "alarm": probability >= self._threshold,
            "predicted_max_pct": max_pct,
            "in_sample": panel.samples["close_time"] <= self._seen_until,
            "model": self.name,
        }
        return panel.samples.assign(**answers)[COLUMNS]

    def panel(
        self,
        market: Market,
        first: First = None,
        progress: bool | None = False,
        live: Live | None = None,
        symbols: Iterable[str] | None = None,
    ) -> Panel | None:
        """What the model sees at the candles that `scores` would score; None where there are none."""
        for view in self.views:
            view.admit(market, self.config)
        possible = {symbol: sample_rows(market[symbol], self.config) for symbol in symbols or market}
        self._check(market, possible)
        wanted = {}
        for symbol, rows in possible.items():
            start = first.get(symbol) if isinstance(first, Mapping) else first
            rows = rows if start is None else rows[rows >= market[symbol].index.searchsorted(start)]
            if len(rows):
                wanted[symbol] = rows
        return self._panel(market, wanted, progress, live) if wanted else None

    def _check(self, market: Market, possible: dict[str, np.ndarray]) -> None:
        """Say why a symbol, or its newest candle, has no score; an error if none has one."""
        for symbol, rows in possible.items():
            count = len(market[symbol])
            if not len(rows):
                why = f"{symbol}: no score without {self.history} candles in a row; there are {count}, gaps included"
                if not any(map(len, possible.values())):
                    raise CmatError(why)
                warnings.warn(why, stacklevel=3)
            elif rows[-1] < count - 1:
                why = f"{symbol}: the newest candle has no score, because the last {self.history} candles have a gap"
                warnings.warn(why, stacklevel=3)

    def _panel(self, market: Market, wanted: dict[str, np.ndarray], progress: bool | None, live: Live | None) -> Panel:
        """What the model sees at these rows, made from the candles that they read."""
        cut, rows = {}, {}  # the candles that are read, and the same rows counted in them
        for symbol, own in wanted.items():
            begin = own[0] - self.history + 1
            cut[symbol], rows[symbol] = market[symbol].iloc[begin:], own - begin

        def windows(symbol: str) -> Windows:
            make = partial(computed, symbol, cut[symbol], jobs=self.config.cache.jobs, progress=progress)
            return make(rows[symbol]) if live is None else followed(symbol, rows[symbol], make, live)

        found = compute_views(self.views, market, rows, self.config, windows, cut, exact=True)
        own_samples, offset = [], 0
        for symbol, own in rows.items():
            one = unlabelled_samples(symbol, cut[symbol], own, self.config)
            own_samples.append(one.assign(row=one["row"] + offset))
            offset += len(cut[symbol])
        samples = with_rows(pd.concat(own_samples, ignore_index=True), self.views, found)
        arrays = {name: values.values for name, values in found.items()}
        return Panel(arrays, samples, self.scalers, self.config, self.device)

    def refuse_stale(self, market: Market, symbols: Iterable[str] | None = None) -> None:
        """Raise a CmatError if a view that the model sees has nothing new enough to show at a newest candle.

        A score of long ago may rest on a mask token; one of today should not, without anybody knowing.
        """
        for view in VIEWS.seen(self.config):
            for symbol in symbols or market:
                candles = market[symbol]
                asked = Asked(symbol, market, np.array([len(candles) - 1]), self.config, None)
                if len(candles) and (why := view.problem(asked)):
                    raise CmatError(f"{symbol}: no score of the newest candle: {why}")


def followed(symbol: str, rows: np.ndarray, make: Callable[[np.ndarray], Windows], live: Live) -> Windows:
    """Windows of which the newest is made from the one that the last call saw, where that can be."""

    def windows(sliding: Sliding) -> np.ndarray:
        if sliding.follow is None:
            return make(rows)(sliding)
        key = (symbol, sliding.kind, json.dumps(sliding.parameters, sort_keys=True, default=str))
        if key not in live:
            live[key] = sliding.follow()
        newest = live[key](sliding.series[rows[-1] - sliding.window + 1 : rows[-1] + 1])
        return np.concatenate([make(rows[:-1])(sliding), newest[None]]) if len(rows) > 1 else newest[None]

    return windows
