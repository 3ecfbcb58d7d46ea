"""Samples: the moments at which every view is complete, with their labels and their parts."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config
from cmat_lib.config.schema import AUXILIARY_TARGETS, DataConfig
from cmat_lib.data.candles import window_ends
from cmat_lib.data.label_audit import uniqueness_weights
from cmat_lib.data.labels import trailing_volatility
from cmat_lib.data.sessions import closure_hint
from cmat_lib.data.splits import PARTS, Market, Span, assign_parts, split_spans
from cmat_lib.views import VIEWS

FEW = 0.8  # share of the candles that could end a window, below which it is said what costs the others
LABELS = ("trigger", "max_pct", "label_end", *AUXILIARY_TARGETS)


def needed_candles(config: Config) -> int:
    """Smallest gap-free series with one labelled sample: the largest look-back of any input, plus the horizon."""
    return VIEWS.look_back(config) + config.labels.horizon


def too_few_candles(symbol: str, candles: pd.DataFrame, config: Config) -> CmatError:
    """Error for a symbol that has no complete sample; it says how many candles would give one."""
    hint = closure_hint(candles, config.data) or "Use more candles, or smaller windows"
    need = f"the look-backs and the horizon need {needed_candles(config)} without a gap"
    return CmatError(f"{symbol}: {len(candles)} candles are too few; {need}. {hint}")


def check_length(symbol: str, candles: pd.DataFrame, config: Config) -> None:
    """A CmatError if no gap-free stretch is long enough for a labelled sample; a warning if closures cost most."""
    possible = len(window_ends(candles, config.data.bar, needed_candles(config)))
    if not possible:
        raise too_few_candles(symbol, candles, config)
    hint = closure_hint(candles, config.data) if possible < FEW * (len(candles) - needed_candles(config)) else ""
    if hint:
        warnings.warn(f"{symbol}: only {possible} of {len(candles)} candles end a window. {hint}", stacklevel=2)


def sample_rows(candles: pd.DataFrame, config: Config) -> np.ndarray:
    """Rows (N,) of one symbol at which every input is complete inside one gap-free stretch of candles.

    Every ``data.stride``-th such row, aligned to the clock, so that all symbols share their moments.
    """
    return window_ends(candles, config.data.bar, VIEWS.look_back(config), config.data.stride)


def build_samples(market: Market, labels: dict[str, pd.DataFrame], config: Config) -> pd.DataFrame:
    """Index of all samples of all symbols, with the labels of `cmat_lib.data.labels.compute_labels`.

    N rows of ``symbol``, ``timestamp`` (candle open), ``close_time``, ``input_start`` (open of the oldest candle that
    an input reads), ``row`` (into the stacked channels), ``local_row`` (into the symbol's candles), ``close``,
    ``volatility`` (standard deviation of the log returns over the look-back, the plainest baseline), ``trigger``,
    ``max_pct``, ``label_end``, ``part``, ``weight``, and ``oracle_probability`` on the synthetic market.

    Raises
    ------
    CmatError
        If a symbol is shorter than the look-backs and the horizon need, or a part would be empty or of one class only.
    """
    frames, offset = [], 0
    for symbol, candles in market.items():
        rows = sample_rows(candles, config)
        if not np.isfinite(labels[symbol]["trigger"].to_numpy()[rows]).any():
            raise too_few_candles(symbol, candles, config)
        frames.append(_symbol_samples(symbol, candles, labels[symbol], rows, offset, config))
        offset += len(candles)
    samples = pd.concat(frames, ignore_index=True)
    samples["close_time"] = samples["timestamp"] + config.data.bar
    return with_parts(samples, split_spans(market, config.data), config)


def with_parts(samples: pd.DataFrame, spans: list[Span], config: Config) -> pd.DataFrame:
    """The same samples in the parts of another fold; a CmatError if a part is empty or of one class only.

    A copy with the columns ``part`` and ``weight`` (of the sample in the loss: mean 1 over the training part, all 1
    unless ``labels.uniqueness_weights``).
    """
    parts = assign_parts(samples["close_time"], samples["label_end"], samples["input_start"], spans)
    samples = samples.assign(part=parts, weight=1.0)
    _check_parts(samples, config.data)
    if config.labels.uniqueness_weights:
        samples["weight"] = uniqueness_weights(samples, config.labels.horizon)
    return samples


def _symbol_samples(
    symbol: str, candles: pd.DataFrame, labels: pd.DataFrame, rows: np.ndarray, offset: int, config: Config
) -> pd.DataFrame:
    data = config.data
    columns = {
        "symbol": symbol,
        "timestamp": candles.index[rows],
        "input_start": candles.index[rows - VIEWS.look_back(config) + 1],
        "row": rows + offset,
        "local_row": rows,
        "close": candles["close"].to_numpy()[rows],
        "volatility": trailing_volatility(candles, data.bar, data.sequence_length - 1)[rows],
        **{name: labels[name].array[rows] for name in LABELS},
    }
    if "oracle_probability" in candles:
        columns["oracle_probability"] = candles["oracle_probability"].to_numpy()[rows]
    return pd.DataFrame(columns)


def unlabelled_samples(symbol: str, candles: pd.DataFrame, rows: np.ndarray, config: Config) -> pd.DataFrame:
    """Samples of one symbol at `rows` (N,) whose labels are not known yet, for a prediction.

    As from `build_samples`, with labels NaN, and without ``part`` and ``weight``.
    """
    labels = pd.DataFrame(index=candles.index, columns=[*LABELS], dtype=np.float64)
    samples = _symbol_samples(symbol, candles, labels, rows, 0, config)
    return samples.assign(close_time=samples["timestamp"] + config.data.bar)


def _check_parts(samples: pd.DataFrame, data: DataConfig) -> None:
    fold = "" if data.split == "holdout" else f" of fold {data.fold} ({data.split})"
    knobs = "data.split_shares, data.split_dates" if data.split == "holdout" else "data.folds, data.split_shares"
    for part in PARTS:
        triggers = samples.loc[samples["part"] == part, "trigger"]
        if triggers.nunique() < 2:
            what = "is empty" if triggers.empty else "has no triggers" if triggers.max() == 0 else "has triggers only"
            advice = f"give it more time ({knobs}), use more candles, or choose another label threshold"
            raise CmatError(f"the {part} part{fold} {what} ({len(triggers)} samples); {advice}")
