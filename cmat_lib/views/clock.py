"""The view ``clock``: hour and weekday at the close."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cmat_lib.config import Config
from cmat_lib.views.registry import Asked, Values, View

if TYPE_CHECKING:
    from torch import Tensor, nn

NAMES = ("day", "week")
HARMONICS = {0: (1, 2), 1: (1,)}  # column -> turns of the waves that linear models read
WAVES = [f"{NAMES[column]}_{wave}_{k}" for column, ks in HARMONICS.items() for k in ks for wave in ("sin", "cos")]


def clock_fractions(close_time: pd.DatetimeIndex, zone: str) -> np.ndarray:
    """Fraction of the day and of the week (from Monday) passed at moments in an IANA zone, float32 (N, 2) in [0, 1)."""
    local = close_time.tz_convert(zone)
    day = (local.hour + local.minute / 60) / 24
    return np.stack([day, (local.dayofweek + day) / 7], axis=1).astype(np.float32)


def _compute(asked: Asked) -> Values:
    data = asked.config.data
    return Values(clock_fractions(asked.candles.index[asked.rows] + data.bar, data.clock_zone))


def _encoder(config: Config) -> nn.Module:
    from cmat_lib.encoders.plain import ClockEncoder

    return ClockEncoder(config.model.clock_encoder_dim, dropout=config.model.encoder_dropout)


def _summaries(clock: Tensor, config: Config) -> Tensor:
    """Fractions (n, 2) as numbers for trees and as harmonics for linear models, (n, 8)."""
    import torch

    fractions = clock.double()
    turns = [k * fractions[:, column] for column, ks in HARMONICS.items() for k in ks]
    waves = [wave(2 * torch.pi * turn) for turn in turns for wave in (torch.sin, torch.cos)]
    return torch.cat([fractions, torch.stack(waves, dim=1)], dim=1)


VIEW = View(
    name="clock",
    title="Clock",
    names=lambda config: list(NAMES),
    compute=_compute,
    encoder=_encoder,
    groups=lambda config: {},
    scale=lambda values, rows, config: {"center": [0.0, 0.0], "scale": [1.0, 1.0]},  # fractions stay what they are
    summaries=_summaries,
    summary_names=lambda config: [*NAMES, *WAVES],
    standard=True,
    context=True,
)
