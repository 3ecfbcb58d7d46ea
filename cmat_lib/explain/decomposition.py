"""What each N-BEATS stack takes out of a window.

A stack subtracts its backcast and hands on the rest, so a window is the sum of what the stacks took and of what the
last one left (Oreshkin et al., arXiv 1905.10437, sections 3.2 and 3.3).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cmat_lib.base.errors import CmatError
from cmat_lib.encoders.plain import OHLCVNBEATSEncoder, numbered
from cmat_lib.models.multitask import MultiTaskCrossModalAttention, evaluation_mode
from cmat_lib.views import VIEWS, View
from cmat_lib.views.panel import Panel


class Decomposition(NamedTuple):
    """``input = parts.sum(1) + rest``."""

    stacks: tuple[str, ...]  # S names
    parts: Tensor  # (B, S, ..., T), what each stack took
    rest: Tensor  # (B, ..., T), what the last stack left
    input: Tensor  # (B, ..., T)


@torch.no_grad()
def decompose(model: MultiTaskCrossModalAttention, ohlcv: Tensor) -> Decomposition:
    """Windows (B, T, C) as sums of what the stacks take out of them, in the units in which the stacks read them.

    ``parts`` (B, S, C, T), ``rest`` and ``input`` (B, C, T), all after the encoder's batch norm. The very last block
    has no backcast, so a last stack of one block takes nothing. A model without an N-BEATS encoder is a `CmatError`.
    """
    encoder = model.encoders[_view(model).name]
    with evaluation_mode(model):
        left = [encoder.flatten_window(ohlcv)]  # (B, C * T)
        for stack in encoder.stacks:
            left.append(stack(left[-1])[1])
    residuals = torch.stack(left, dim=1).unflatten(2, (ohlcv.shape[2], -1))  # (B, S + 1, C, T)
    parts = residuals[:, :-1] - residuals[:, 1:]  # (B, S, C, T)
    return Decomposition(numbered(encoder.stack_types), parts, residuals[:, -1], residuals[:, 0])


def decompose_log_price(
    model: MultiTaskCrossModalAttention, panel: Panel, index: Tensor, channel: str = "log_close"
) -> Decomposition:
    """The same of samples (B,) for one price channel (``log_open``, ``log_high``, ``log_low`` or ``log_close``).

    ``parts`` (B, S, T), ``rest`` and ``input`` (B, T), in log price relative to the window's last close. The constant
    by which the batch norm shifts the channel is in ``rest``. Moves of more than 10 scales are clipped in the input, as
    the model sees them. A channel that the model does not see is a `CmatError`.
    """
    view = _view(model)
    norm, names = model.encoders[view.name].input_norm, view.names(model.config)
    if channel not in names:
        raise CmatError(f"decomposition: the model has no channel '{channel}'; data.channels lists {', '.join(names)}")
    place = names.index(channel)
    ohlcv = panel.gather(index).inputs[view.name]  # (B, T, C)
    found = decompose(model, ohlcv)
    scale = panel.scalers[view.name]["scale"][place]
    unit = scale * (norm.running_var[place] + norm.eps).sqrt() / norm.weight[place].detach()
    parts = found.parts[:, :, place] * unit  # (B, S, T)
    window = ohlcv[:, :, place] * scale  # (B, T)
    return Decomposition(found.stacks, parts, window - parts.sum(1), window)


def _view(model: MultiTaskCrossModalAttention) -> View:
    """The view of the candles, if an N-BEATS encoder reads it."""
    for view in VIEWS.seen(model.config):
        if view.by_candle and isinstance(model.encoders[view.name], OHLCVNBEATSEncoder):
            return view
    raise CmatError("decomposition: the model sees no candles by an N-BEATS encoder; add its view to model.modalities")
