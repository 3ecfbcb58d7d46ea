"""Scores of candles by a stored model: ``best_model.pt`` and candles are all that is needed.

A score is made at the close of a candle and reads only that candle and those before it. Features are computed for the
windows that are asked for, nothing else, so the newest candle costs milliseconds; the feature cache is not touched.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed, effective_n_jobs
from tqdm.auto import tqdm

from cmat_lib.config import merge, validate
from cmat_lib.data.cache import split_series
from cmat_lib.data.candle_sources import market_files
from cmat_lib.data.candles import closed
from cmat_lib.data.channels import compute_channels
from cmat_lib.data.complexity import log_ranges, path_complexity
from cmat_lib.data.panel import Panel, longest_look_back, sample_rows, unlabelled_samples
from cmat_lib.data.splits import Market
from cmat_lib.data.topology import SERIES, LiveTopology, candle_topology
from cmat_lib.errors import CmatError
from cmat_lib.evaluation.calibration import apply_calibration
from cmat_lib.schema import DataConfig
from cmat_lib.stages import load_candles, predict
from cmat_lib.training.checkpoint import load_model
from cmat_lib.training.devices import pick_device

COLUMNS = (
    "symbol",
    "timestamp",
    "close_time",
    "close",
    "raw_probability",
    "probability",
    "alarm",
    "predicted_max_pct",
    "in_sample",
    "model",
)
NAME_LENGTH = 12  # hex digits of the file's SHA-256

First = pd.Timestamp | Mapping[str, pd.Timestamp] | None


class Predictor:
    """A trained model that scores candles.

    Parameters
    ----------
    path : str or Path
        ``best_model.pt``.
    device : {"auto", "cpu", "cuda"}
    jobs : int
        Processes that compute features, as joblib counts them.

    Attributes
    ----------
    config : Config
        Of the training, but for device and processes, and with ``tda.stride`` 1: every candle can be scored.
    name : str
        First digits of the SHA-256 of the file, so that no prediction is without a known source.
    history : int
        Candles without a gap that one score reads, its own included.

    Raises
    ------
    CmatError
        If the file is missing, damaged or of another version, or the device is not there.
    """

    def __init__(self, path: str | Path, device: str = "auto", jobs: int = 1):
        model, config, content = load_model(path)
        own = {"tda": {"stride": 1, "jobs": jobs}, "training": {"device": device}}
        self.config = validate(merge(config.model_dump(mode="json"), own), str(path))
        self.device = pick_device(self.config.training)
        # In double precision a score is the same alone and in a batch, on one thread and on many; topology costs more.
        self.model = model.double().to(self.device)
        self.name = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:NAME_LENGTH]
        self.history = longest_look_back(self.config)
        self._scalers, self._calibration = content["scalers"], content["calibration"]
        self._threshold = content["threshold"]
        self._seen_until = pd.Timestamp(content["seen_until"])

    def data(self, data_dir: str | None = None, symbols: list[str] | None = None) -> DataConfig:
        """Where candles come from: the run's own data, or a folder with all symbols that it has; up to the newest."""
        own = self.config.data
        chosen = symbols or (own.symbols if data_dir is None else None)
        changes = {"data_dir": data_dir or own.data_dir, "symbols": chosen, "since": None, "until": None}
        return own.model_copy(update=changes)

    def market(self, data: DataConfig) -> Market:
        """Checked candles that were over when their file was written, from where `data` says.

        Raises
        ------
        CmatError
            If candles are missing, cannot be used, or are of another length than those of the training.
        """
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
        live: Mapping[str, LiveTopology] | None = None,
    ) -> pd.DataFrame:
        """Scores of the candles of a market.

        Parameters
        ----------
        market : dict of str to DataFrame
            Checked candles, see `cmat_lib.data.candles.load_market`; candles must be `Predictor.config.data.bar` long.
        first : Timestamp or dict of str to Timestamp, optional
            Open of the first candle to score, for all symbols or for each; the first possible one by default.
        progress : bool, optional
            Show a bar; None shows it where a terminal watches.
        live : mapping of str to LiveTopology, optional
            Topology of each symbol as the last call left it: the newest candle is added to it, and the same numbers
            come out.

        Returns
        -------
        DataFrame
            A row for each candle whose inputs are complete, by symbol and time: ``symbol``, ``timestamp`` (open),
            ``close_time`` (when the score is known), ``close``, ``raw_probability`` (as the model made it; ranks),
            ``probability`` (calibrated), ``alarm`` (does that reach the threshold), ``predicted_max_pct`` (expected
            largest rise, percent), ``in_sample`` (whether training, stopping or calibration saw candles or labels up
            to this close or later), ``model``.

        Raises
        ------
        CmatError
            If no symbol has `history` candles without a gap, a column that the model reads is missing, or a score is
            not finite.

        Warns
        -----
        UserWarning
            If a symbol, or its newest candle, cannot be scored.
        """
        possible = {symbol: sample_rows(candles, self.config) for symbol, candles in market.items()}
        for symbol, rows in possible.items():
            self._check(symbol, market[symbol], rows, alone=not any(map(len, possible.values())))
        wanted = {symbol: _from(market[symbol], rows, symbol, first) for symbol, rows in possible.items()}
        kept = live or {}
        inputs = [
            self._inputs(symbol, market[symbol], rows, progress, kept.get(symbol))
            for symbol, rows in wanted.items()
            if len(rows)
        ]
        if not inputs:
            return pd.DataFrame(columns=list(COLUMNS))
        samples, channels, tda, complexity = zip(*inputs, strict=True)
        offsets = np.cumsum([0, *(len(rows) for rows in channels[:-1])])
        samples = pd.concat([s.assign(row=s["row"] + n) for s, n in zip(samples, offsets, strict=True)])
        arrays = (np.concatenate(array) for array in (channels, tda, complexity))
        panel = Panel(*arrays, samples.reset_index(drop=True), self._scalers, self.config, self.device)
        return self._frame(panel)

    def _check(self, symbol: str, candles: pd.DataFrame, rows: np.ndarray, alone: bool) -> None:
        """Say why a symbol, or its newest candle, has no score."""
        why = None
        if not len(rows):
            why = f"{symbol}: no score without {self.history} candles in a row; there are {len(candles)}, gaps included"
        elif rows[-1] < len(candles) - 1:
            why = f"{symbol}: the newest candle has no score, because the last {self.history} candles have a gap"
        if why and alone:
            raise CmatError(why)
        if why:
            warnings.warn(why, stacklevel=3)

    def _inputs(
        self, symbol: str, candles: pd.DataFrame, rows: np.ndarray, progress: bool | None, live: LiveTopology | None
    ) -> tuple:
        """Samples (n rows), channels (T, C), topology (n, F), complexity (n, K), made from the candles they read."""
        begin, data = rows[0] - self.history + 1, self.config.data
        candles, rows = candles.iloc[begin:], rows - begin
        samples = unlabelled_samples(symbol, candles, rows, self.config)
        tda = candle_topology(candles, rows if live is None else rows[:-1], self.config.tda)
        if live is not None:
            tda = np.concatenate([tda, live.features(candles.iloc[: rows[-1] + 1])[None]])
        indicators = self._indicators(f"{symbol} complexity", candles, rows, progress)
        complexity = np.concatenate([indicators, log_ranges(candles, self.config.complexity.ranges)[rows]], axis=1)
        # In float64, so that a score does not depend on how many candles before its own were read.
        channels = compute_channels(candles, data.channel_names, data.bar, np.float64)
        return samples, channels, tda, complexity

    def _indicators(self, label: str, candles: pd.DataFrame, rows: np.ndarray, progress: bool | None) -> np.ndarray:
        """Complexity indicators of the windows that end at `rows`, chunk by chunk."""
        log_close, stamps, config = SERIES["log_close"](candles), candles.index.asi8, self.config.complexity
        chunks = split_series(log_close, stamps, rows, config.window_size)
        workers = Parallel(n_jobs=min(effective_n_jobs(self.config.tda.jobs), len(chunks)), return_as="generator")
        results = workers(delayed(path_complexity)(chunk.series, chunk.ends, config) for chunk in chunks)
        disable = None if progress is None else not progress
        return np.concatenate(list(tqdm(results, desc=label, total=len(chunks), unit="chunk", disable=disable)))

    def _frame(self, panel: Panel) -> pd.DataFrame:
        everything = torch.arange(len(panel), device=self.device)
        raw, max_pct = predict(self.model, panel, everything, self.config.evaluation.batch_size)
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
        return panel.samples.assign(**answers)[list(COLUMNS)]


def _from(candles: pd.DataFrame, rows: np.ndarray, symbol: str, first: First) -> np.ndarray:
    """Rows of candles that open at `first` or later."""
    start = first.get(symbol) if isinstance(first, Mapping) else first
    return rows if start is None else rows[rows >= candles.index.searchsorted(start)]
