"""The panel: candles of all symbols in one array, samples as an index into it, and batches gathered on the device.

A window is never copied out. The panel holds one (ΣT, C) array of channels and, per sample, one row of topology and
one of complexity features; a batch is cut from a strided view (``unfold``) by ``index_select``. Memory grows with
candles, not with candles times look-back.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
import torch
from sklearn.preprocessing import RobustScaler

from cmat_lib.config import Config
from cmat_lib.data.candles import window_ends
from cmat_lib.data.channels import look_back
from cmat_lib.data.label_audit import uniqueness_weights
from cmat_lib.data.labels import trailing_volatility
from cmat_lib.data.sessions import closure_hint
from cmat_lib.data.splits import PARTS, Market, Span, assign_parts, split_spans
from cmat_lib.errors import CmatError
from cmat_lib.schema import AUXILIARY_TARGETS, PRICE_CHANNELS, DataConfig

LARGEST_SHARE = 0.5  # of a GPU's free memory that the panel may take; the rest is for training
FEW = 0.8  # share of the candles that could end a window, below which it is said what costs the others
LABELS = ("trigger", "max_pct", "label_end", *AUXILIARY_TARGETS)
CLIP = 10.0  # robustly scaled inputs beyond this say "extreme", and nothing more


class Batch(NamedTuple):
    """Samples as tensors on one device: inputs of the model, targets (NaN where there is no label), weight."""

    ohlcv: torch.Tensor  # (B, T, C)
    tda: torch.Tensor  # (B, F)
    complexity: torch.Tensor  # (B, K)
    clock: torch.Tensor  # (B, 2), fraction of the day and of the week at the close
    trigger: torch.Tensor  # (B,)
    max_pct: torch.Tensor  # (B,)
    auxiliary: torch.Tensor  # (B, 4)
    weight: torch.Tensor  # (B,)

    @property
    def inputs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the model takes."""
        return self.ohlcv, self.tda, self.complexity, self.clock

    @property
    def targets(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the loss takes."""
        return self.trigger, self.max_pct, self.auxiliary


def longest_look_back(config: Config) -> int:
    """Candles that the inputs of one sample read, the newest included."""
    ohlcv = config.data.sequence_length - 1 + look_back(config.data.channel_names)
    return max(ohlcv, config.tda.longest_window, config.complexity.window_size)


def needed_candles(config: Config) -> int:
    """Smallest gap-free series with one labelled sample: the largest look-back of any input, plus the horizon."""
    return longest_look_back(config) + config.labels.horizon


def too_few_candles(symbol: str, candles: pd.DataFrame, config: Config) -> CmatError:
    """Error for a symbol that has no complete sample; it says how many candles would give one."""
    return CmatError(
        f"{symbol}: {len(candles)} candles are too few; the look-backs and the horizon need "
        f"{needed_candles(config)} without a gap. "
        + (closure_hint(candles, config.data) or "Use more candles, or smaller windows")
    )


def check_length(symbol: str, candles: pd.DataFrame, config: Config) -> None:
    """Refuse a symbol without one labelled sample; warn if the market's closures cost most of its samples.

    Raises
    ------
    CmatError
        If no gap-free run is long enough.
    """
    possible = len(window_ends(candles, config.data.bar, needed_candles(config)))
    if not possible:
        raise too_few_candles(symbol, candles, config)
    hint = closure_hint(candles, config.data) if possible < FEW * (len(candles) - needed_candles(config)) else ""
    if hint:
        warnings.warn(f"{symbol}: only {possible} of {len(candles)} candles end a window. {hint}", stacklevel=2)


def sample_rows(candles: pd.DataFrame, config: Config) -> np.ndarray:
    """Rows of one symbol at which every input is complete inside one gap-free run.

    Returns
    -------
    ndarray of int64, shape (N,)
        Every ``tda.stride``-th such row, aligned to the clock, so that all symbols share their moments.
    """
    return window_ends(candles, config.data.bar, longest_look_back(config), config.tda.stride)


def build_samples(market: Market, labels: dict[str, pd.DataFrame], config: Config) -> pd.DataFrame:
    """Index of all samples of all symbols.

    Parameters
    ----------
    labels : dict of str to DataFrame
        From `cmat_lib.data.labels.compute_labels`, rows as the candles.

    Returns
    -------
    DataFrame of N rows
        ``symbol``, ``timestamp`` (candle open), ``close_time``, ``input_start`` (open of the oldest candle that an
        input reads), ``row`` (into the stacked channels), ``local_row`` (into the symbol's candles), ``close``,
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
    """The same samples in the parts of another fold.

    Returns
    -------
    DataFrame of N rows
        A copy of `samples` with the columns ``part`` and ``weight`` (of the sample in the loss: mean 1 over the
        training part, all 1 unless ``labels.uniqueness_weights``).

    Raises
    ------
    CmatError
        If a part is empty or of one class only.
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
        "input_start": candles.index[rows - longest_look_back(config) + 1],
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
    """Samples of one symbol whose labels are not known yet, for a prediction.

    Parameters
    ----------
    rows : ndarray of int64, shape (N,)
        From `sample_rows`.

    Returns
    -------
    DataFrame of N rows
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
            raise CmatError(
                f"the {part} part{fold} {what} ({len(triggers)} samples); give it more time ({knobs}), "
                "use more candles, or choose another label threshold"
            )


def fit_scalers(
    channels: np.ndarray, tda: np.ndarray, complexity: np.ndarray, samples: pd.DataFrame, config: Config
) -> dict[str, Any]:
    """Centres and scales of all inputs, from the training part alone.

    Medians and interquartile ranges, because single candles of −33 % happen. The four price channels share one
    scale, the interquartile range of the log-price change over the look-back, and no centre: a window already
    ends at 0.

    Parameters
    ----------
    channels : ndarray, shape (ΣT, C)
    tda : ndarray, shape (N, F)
    complexity : ndarray, shape (N, K)

    Returns
    -------
    dict
        ``{"ohlcv" | "tda" | "complexity": {"center": list of float, "scale": list of float}}``
    """
    train = np.flatnonzero(samples["part"] == "train")
    rows = samples["row"].to_numpy()[train]
    names = config.data.channel_names
    ohlcv = _robust(channels[rows])
    if "log_close" in names:
        close = channels[:, names.index("log_close")]
        change = _robust((close[rows] - close[rows - config.data.sequence_length + 1])[:, None])
        for index in (names.index(name) for name in PRICE_CHANNELS if name in names):
            ohlcv["center"][index], ohlcv["scale"][index] = 0.0, change["scale"][0]
    return {"ohlcv": ohlcv, "tda": _robust(tda[train]), "complexity": _robust(complexity[train])}


def _robust(values: np.ndarray) -> dict[str, list[float]]:
    scaler = RobustScaler().fit(values)
    return {"center": scaler.center_.tolist(), "scale": scaler.scale_.tolist()}


class Panel:
    """All inputs and targets of a run on one device; a sample is a number from 0 to N − 1.

    What does not fit into a GPU's memory stays in the machine's, with a warning; batches are cut there and sent over.

    Parameters
    ----------
    channels : ndarray, shape (ΣT, C)
        Stacked channels of all symbols, unscaled, may be a memory map. Kept in their precision; batches are float32.
    tda : ndarray, shape (N, F)
    complexity : ndarray, shape (N, K)

    Attributes
    ----------
    weight : Tensor, shape (N,)
        Weight of each sample in the loss: the samples' column ``weight``, else 1.
    """

    def __init__(
        self,
        channels: np.ndarray,
        tda: np.ndarray,
        complexity: np.ndarray,
        samples: pd.DataFrame,
        scalers: dict[str, Any],
        config: Config,
        device: torch.device | str = "cpu",
    ):
        self.samples, self.scalers, self.device = samples, scalers, torch.device(device)
        self.length = config.data.sequence_length
        self._home = _home(self.device, 4 * (channels.size + tda.size + complexity.size))
        names = config.data.channel_names
        price = torch.tensor([float(name in PRICE_CHANNELS) for name in names], device=self._home)
        self._price = price[None, :, None]  # (1, C, 1)
        self._close = names.index("log_close") if "log_close" in names else None
        self._channels = self._scaled(channels, scalers["ohlcv"], clip=False)  # (ΣT, C)
        self._tda = self._scaled(tda, scalers["tda"])  # (N, F)
        self._complexity = self._scaled(complexity, scalers["complexity"])  # (N, K)
        self._start = torch.from_numpy(samples["row"].to_numpy() - self.length + 1).to(self._home)  # (N,)
        self._clock = torch.tensor(clock_fractions(samples["close_time"], config.data.clock_zone), device=self.device)
        columns = ("trigger", "max_pct", list(AUXILIARY_TARGETS))  # (N,), (N,), (N, 4)
        self._targets = tuple(torch.tensor(samples[c].to_numpy(np.float32), device=self.device) for c in columns)
        weight = samples["weight"].to_numpy(np.float32) if "weight" in samples else np.ones(len(samples), np.float32)
        self.weight = torch.from_numpy(weight).to(self.device)  # (N,)

    def __len__(self) -> int:
        return len(self.samples)

    def _scaled(self, values: np.ndarray, scaler: dict[str, list[float]], clip: bool = True) -> torch.Tensor:
        tensor = torch.tensor(values, device=self._home)
        tensor.sub_(tensor.new_tensor(scaler["center"]))
        tensor.div_(tensor.new_tensor(scaler["scale"]))
        return tensor.clamp_(-CLIP, CLIP) if clip else tensor

    def index(self, part: str) -> torch.Tensor:
        """Numbers of a part's samples, in time order within each symbol, shape (n,), on the device."""
        return torch.from_numpy(np.flatnonzero(self.samples["part"] == part)).to(self.device)

    def clock(self, index: torch.Tensor) -> torch.Tensor:
        """Fraction of the day and of the week at the closes of the samples of `index`, shape (B, 2)."""
        return self._clock[index]

    def gather(self, index: torch.Tensor) -> Batch:
        """Samples by number, (B,) int64."""
        home = index.to(self._home)
        windows = self._channels.unfold(0, self.length, 1)  # (ΣT − T + 1, C, T), a view
        ohlcv = windows.index_select(0, self._start[home])  # (B, C, T)
        if self._close is not None:
            ohlcv -= ohlcv[:, self._close, -1, None, None] * self._price  # every price relative to the last close
        ohlcv = ohlcv.clamp_(-CLIP, CLIP).transpose(1, 2).float()  # (B, T, C)
        inputs = (x.to(self.device) for x in (ohlcv, self._tda[home], self._complexity[home]))
        return Batch(*inputs, self._clock[index], *self.targets(index), self.weight[index])

    def targets(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Trigger (B,), largest rise in percent (B,) and auxiliary targets (B, 4) of the samples of `index`."""
        trigger, max_pct, auxiliary = (target[index] for target in self._targets)
        return trigger, max_pct, auxiliary

    def batches(self, index: torch.Tensor, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Batches over `index`, shuffled if a generator is given; the last one may be smaller and is never dropped."""
        if generator is not None:
            index = index[torch.randperm(len(index), generator=generator, device=generator.device).to(self.device)]
        for part in index.split(size):
            yield self.gather(part)


def clock_fractions(close_time: pd.Series, zone: str) -> np.ndarray:
    """Fraction of the day and of the week (from Monday) that has passed at each moment, in a time zone.

    Parameters
    ----------
    close_time : Series of Timestamp, length N
    zone : str
        Name of the IANA time zone.

    Returns
    -------
    ndarray of float32, shape (N, 2)
        In [0, 1).
    """
    local = close_time.dt.tz_convert(zone).dt
    day = (local.hour + local.minute / 60) / 24
    return np.stack([day, (local.dayofweek + day) / 7], axis=1).astype(np.float32)


def _home(device: torch.device, size: int) -> torch.device:
    """Where inputs of `size` bytes live: on the device unless they would take most of its free memory."""
    free = free_memory(device)
    if device.type == "cpu" or size < LARGEST_SHARE * free:
        return device
    warnings.warn(
        f"the panel ({size / 1e9:.1f} GB) leaves too little of the {free / 1e9:.1f} GB that are free on {device}: it "
        "stays in the machine's memory, and batches are sent over, which is slower",
        stacklevel=3,
    )
    return torch.device("cpu")


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, what torch keeps for reuse included, or in the machine."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept
