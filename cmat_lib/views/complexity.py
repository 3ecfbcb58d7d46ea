"""The view ``complexity``: how regular, how predictable, how rough; and how wide the market swings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from cmat_lib.base.parts import part_hashes
from cmat_lib.config import Config
from cmat_lib.data.complexity import INDICATORS, check_indicators, log_ranges, path_complexity
from cmat_lib.views.registry import Asked, Sliding, Values, View

if TYPE_CHECKING:
    from torch import nn


def _compute(asked: Asked) -> Values:
    """Indicators, from the cache where there is one, then the ranges, which cost nothing."""
    config, stride = asked.config.complexity, asked.config.data.stride
    parts = part_hashes(INDICATORS[name].function for name in config.indicators)
    log_close, compute = np.log(asked.candles["close"].to_numpy(np.float64)), partial(path_complexity, config=config)
    # The choice of ranges does not touch the cache.
    key = config.model_dump(mode="json", exclude={"ranges"}) | {"stride": stride} | ({"parts": parts} if parts else {})
    sliding = Sliding("complexity", log_close, config.window_size, compute, len(config.indicators), key, stride)
    ranges = log_ranges(asked.candles, config.ranges)[asked.rows]
    return Values(np.concatenate([asked.windows(sliding), ranges], axis=1))


def _longer(config: Config, candles: int) -> Config:
    size = config.complexity.window_size + candles
    return config.model_copy(update={"complexity": config.complexity.model_copy(update={"window_size": size})})


def _encoder(config: Config) -> nn.Module:
    from cmat_lib.encoders.plain import ComplexityEncoder

    return ComplexityEncoder(len(config.complexity.names), config.model.complexity_encoder_dim)


VIEW = View(
    name="complexity",
    title="Complexity",
    names=lambda config: config.complexity.names,
    compute=_compute,
    encoder=_encoder,
    look_back=lambda config: config.complexity.window_size,
    longer=_longer,
    check=lambda config: check_indicators(config.complexity.indicators),
    sections=("complexity",),
    standard=True,
)
