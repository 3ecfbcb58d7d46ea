"""The view ``tda``: persistent homology of the Takens-embedded window."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from cmat_lib.config import Config
from cmat_lib.config.schema import TdaConfig
from cmat_lib.views.registry import Asked, Sliding, Values, View

if TYPE_CHECKING:
    from torch import nn

BETTI_STEP = 10  # neighbouring bins of a Betti curve say nearly the same; trees take every tenth


def _names(config: Config) -> list[str]:
    from cmat_lib.tda.features import feature_names  # numba, which a model does not need otherwise

    return feature_names(config.tda)


def _groups(config: Config) -> dict[str, slice]:
    from cmat_lib.tda.features import feature_groups

    return feature_groups(config.tda)


def _compute(asked: Asked) -> Values:
    """Windows of each series at each scale; where they slide, those of every candle are cached."""
    from cmat_lib.data.topology import SERIES, FollowedWindow, embeddings
    from cmat_lib.tda.features import feature_params, path_features

    config, parts = asked.config.tda, []
    stride = 1 if config.slides else asked.config.data.stride
    for embedding in embeddings(config):
        series, window, delay = embedding
        compute = partial(path_features, window=window, delay=delay, config=config)
        key = {**feature_params(config), **embedding._asdict(), "stride": stride}
        follow = partial(FollowedWindow, delay, config) if config.slides else None
        numbers, width = SERIES[series](asked.candles), config.features_per_scale
        parts.append(asked.windows(Sliding("tda", numbers, window, compute, width, key, stride, 2, follow)))
    return Values(np.concatenate(parts, axis=1))


def _longer(config: Config, candles: int) -> Config:
    windows, delays = zip(*config.tda.scales, strict=True)
    scales = {"windows": [window + candles for window in windows], "delays": list(delays)}
    return config.model_copy(update={"tda": config.tda.model_copy(update=scales)})


def _encoder(config: Config) -> nn.Module:
    from cmat_lib.encoders.plain import TDAEncoder, TDAGroupEncoder

    width, dropout = config.model.tda_encoder_dim, config.model.encoder_dropout
    if config.fusion.tokens == "fine":
        return TDAGroupEncoder(_groups(config), width, dropout)
    return TDAEncoder(config.tda.feature_dim, width, dropout)


def _kept(config: TdaConfig) -> list[int]:
    """Columns that trees see: every tenth Betti bin, and all that is no bin."""
    size = config.features_per_dimension
    kept = [column for column in range(size) if column >= config.betti_bins or column % BETTI_STEP == 0]
    return [start + column for start in range(0, config.feature_dim, size) for column in kept]


def _prepare(config: Config) -> None:
    """Compile what sliding needs before workers compute topology, which would each compile it for twenty seconds."""
    from cmat_lib.tda.features import path_features

    if config.tda.slides:
        path_features(np.sin(np.arange(50.0)), np.array([48, 49]), 48, 8, config.tda)


VIEW = View(
    name="tda",
    title="Topology",
    names=_names,
    compute=_compute,
    encoder=_encoder,
    look_back=lambda config: config.tda.longest_window,
    groups=_groups,
    tokens=lambda config: tuple(_groups(config)),
    summaries=lambda features, config: features[:, _kept(config.tda)],
    summary_names=lambda config: np.array(_names(config))[_kept(config.tda)].tolist(),
    width=lambda config: config.tda.feature_dim,
    longer=_longer,
    prepare=_prepare,
    sections=("tda",),
    standard=True,
)
