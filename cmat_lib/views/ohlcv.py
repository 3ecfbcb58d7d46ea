"""The view ``nbeats``: channels of the last candles, read by N-BEATS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cmat_lib.config import Config
from cmat_lib.config.inputs import PRICE_CHANNELS
from cmat_lib.data.channels import compute_channels, look_back
from cmat_lib.views.registry import Asked, Scaler, Values, View
from cmat_lib.views.scaling import robust

if TYPE_CHECKING:
    from torch import Tensor, nn

SUMMARIES = ("last", "mean", "std", "min", "max", "slope")
RETURN_HORIZONS = (1, 4, 16, 48)  # candles; the whole window comes on top


def _look_back(config: Config) -> int:
    return config.data.sequence_length - 1 + look_back(config.data.channel_names)


def _compute(asked: Asked) -> Values:
    """A row per candle; in float64, if asked for, a score does not depend on how many candles before it were read."""
    data = asked.config.data
    dtype = np.float64 if asked.exact else np.float32
    return Values(compute_channels(asked.candles, data.channel_names, data.bar, dtype), asked.rows)


def _scale(values: np.ndarray, rows: np.ndarray, config: Config) -> Scaler:
    """The price channels share one scale, that of the change over the look-back, and no centre: windows end at 0."""
    scaler, names = robust(values[rows]), config.data.channel_names
    if "log_close" in names:
        close = values[:, names.index("log_close")]
        change = robust((close[rows] - close[rows - config.data.sequence_length + 1])[:, None])
        for index in (names.index(name) for name in PRICE_CHANNELS if name in names):
            scaler["center"][index], scaler["scale"][index] = 0.0, change["scale"][0]
    return scaler


def _rebase(config: Config) -> Callable[[Tensor], Tensor] | None:
    """Every price of a window relative to its last close."""
    names = config.data.channel_names
    if "log_close" not in names:
        return None
    import torch

    close = names.index("log_close")
    prices = torch.tensor([float(name in PRICE_CHANNELS) for name in names])[None, :, None]  # (1, C, 1)

    def relative(windows: Tensor) -> Tensor:  # (B, C, T)
        return windows.sub_(windows[:, close, -1, None, None] * prices.to(windows))

    return relative


def _tokens(config: Config) -> tuple[str, ...]:
    """A token for each stack; with ``model.use_attention`` they have exchanged something before."""
    from cmat_lib.encoders.plain import numbered

    return numbered(config.model.nbeats_stack_types)


def _encoder(config: Config) -> nn.Module:
    from cmat_lib.encoders.plain import nbeats_encoder

    model, shape = config.model, (len(config.data.channel_names), config.data.sequence_length)
    return nbeats_encoder(*shape, model.nbeats_hidden_size, model.use_attention, config)


def _summary_names(config: Config) -> list[str]:
    channels = [f"{channel}_{summary}" for summary in SUMMARIES for channel in config.data.channel_names]
    returns = [f"return_{horizon}" for horizon in _return_horizons(config)]
    return channels + returns + (["return_std"] if returns else [])


def _summaries(ohlcv: Tensor, config: Config) -> Tensor:
    """Of each channel over the window, and log returns over several horizons: (B, T, C) to (B, S)."""
    import torch

    steps = torch.arange(ohlcv.shape[1], dtype=ohlcv.dtype, device=ohlcv.device)  # (T,)
    steps = steps - steps.mean()
    slope = torch.einsum("t,btc->bc", steps / (steps @ steps), ohlcv)  # (B, C)
    summaries = [ohlcv[:, -1], ohlcv.mean(1), ohlcv.std(1), ohlcv.amin(1), ohlcv.amax(1), slope]  # (B, C) each
    if horizons := _return_horizons(config):
        close = ohlcv[:, :, config.data.channel_names.index("log_close")]  # (B, T)
        summaries += [close[:, -1:] - close[:, -1 - horizon, None] for horizon in horizons]  # (B, 1) each
        summaries.append(close.diff(dim=1).std(1, keepdim=True))  # (B, 1)
    return torch.cat(summaries, dim=1)


def _return_horizons(config: Config) -> list[int]:
    if "log_close" not in config.data.channel_names:
        return []
    whole = config.data.sequence_length - 1
    return [horizon for horizon in RETURN_HORIZONS if horizon < whole] + [whole]


VIEW = View(
    name="nbeats",
    title="OHLCV window",
    names=lambda config: config.data.channel_names,
    compute=_compute,
    encoder=_encoder,
    look_back=_look_back,
    window=lambda config: config.data.sequence_length,
    tokens=_tokens,
    scale=_scale,
    rebase=_rebase,
    summaries=_summaries,
    summary_names=_summary_names,
    check=_look_back,
    sections=("data",),
    standard=True,
    by_candle=True,
)
