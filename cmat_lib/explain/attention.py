"""Attention weights of a trained model, read beside the fused kernels that compute its predictions.

The encoder layers are walked by hand: norm, attention with weights, then the layer itself for the next input. Hooks do
not help, torch's fast path in evaluation mode skips them. The weights say where a token looked, not why the prediction
came out as it did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.special import entr
from torch import Tensor, nn

from cmat_lib.errors import CmatError
from cmat_lib.models.multitask import MultiTaskCrossModalAttention, evaluation_mode

if TYPE_CHECKING:
    from cmat_lib.data.panel import Batch

Names = tuple[str, ...]


class AttentionMaps(NamedTuple):
    """Maps of many samples; entry (n, l, h, i, j) is the weight that token i gives to token j, and rows sum to 1."""

    maps: np.ndarray  # (N, layers, h, M, M) float32
    token_names: Names  # M


def walk_layers(layers: Iterable[nn.TransformerEncoderLayer], tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Attention weights of pre-norm encoder layers, and what the layers make of the tokens.

    Parameters
    ----------
    layers : iterable of nn.TransformerEncoderLayer
        With ``norm_first=True`` and in evaluation mode.
    tokens : Tensor, shape (B, M, D)
        Input of the first layer.

    Returns
    -------
    maps : Tensor, shape (layers, B, h, M, M)
    output : Tensor, shape (B, M, D)
        Output of the last layer, as the normal forward pass has it.
    """
    maps = []
    for layer in layers:
        maps.append(_weights(layer.self_attn, layer.norm1(tokens)))
        tokens = layer(tokens)  # (B, M, D)
    return torch.stack(maps), tokens  # (layers, B, h, M, M), (B, M, D)


def _weights(attention: nn.MultiheadAttention, normed: Tensor) -> Tensor:
    """(B, h, M, M) from (B, M, D)."""
    return attention(normed, normed, normed, need_weights=True, average_attn_weights=False)[1]


@torch.no_grad()
def attention_maps(model: MultiTaskCrossModalAttention, batch: Batch) -> tuple[Tensor, Names]:
    """Attention between the tokens of the fusion, in evaluation mode and without gradients.

    Parameters
    ----------
    model : MultiTaskCrossModalAttention
        Every module is left in the mode it was found in.
    batch : Batch
        B samples on the model's device.

    Returns
    -------
    maps : Tensor, shape (layers, B, h, M, M)
        Rows (the last axis) sum to 1.
    token_names : tuple of str
        M names.

    Raises
    ------
    CmatError
        If the fusion has no attention layers.
    """
    if not hasattr(model.fusion, "transformer"):
        raise CmatError(
            f"fusion.fusion_type: {type(model.fusion).__name__} has no attention to show; use 'cross_modal_attention'"
        )
    with evaluation_mode(model):
        tokens = model.fusion.tokens(*model.encode(*batch.inputs))  # (B, M, D)
        maps, _ = walk_layers(model.fusion.transformer.layers, tokens)  # (layers, B, h, M, M)
    return maps, tuple(model.fusion.token_names)


@torch.no_grad()
def stack_attention_maps(model: MultiTaskCrossModalAttention, batch: Batch) -> tuple[Tensor, Names]:
    """Attention between the N-BEATS stacks, in evaluation mode and without gradients.

    Parameters
    ----------
    model : MultiTaskCrossModalAttention
        Every module is left in the mode it was found in.
    batch : Batch
        B samples on the model's device.

    Returns
    -------
    maps : Tensor, shape (1, B, h, M, M)
        One layer; M stacks; rows sum to 1.
    token_names : tuple of str
        Stack types; a type that occurs more than once is numbered.

    Raises
    ------
    CmatError
        If the model has no N-BEATS encoder, or one without attention.
    """
    encoder = model.ohlcv_encoder
    if encoder is None or encoder.attention is None:
        raise CmatError(
            "no attention between stacks: it needs 'nbeats' in model.modalities and model.use_attention true"
        )
    with evaluation_mode(model):
        tokens = encoder.stack_tokens(batch.ohlcv)  # (B, M, D)
        maps = _weights(encoder.attention.self_attn, encoder.attention.token_norm(tokens))  # (B, h, M, M)
    return maps[None], _numbered(encoder.stack_types)  # (1, B, h, M, M)


def _numbered(names: Names) -> Names:
    return tuple(
        f"{name} {names[: i + 1].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)
    )


def collect_maps(
    model: MultiTaskCrossModalAttention,
    batches: Iterable[Batch],
    read: Callable[[MultiTaskCrossModalAttention, Batch], tuple[Tensor, Names]] = attention_maps,
) -> AttentionMaps:
    """Maps of all samples of all batches.

    Parameters
    ----------
    model : MultiTaskCrossModalAttention
    batches : iterable of Batch
        At least one.
    read : callable
        `attention_maps` or `stack_attention_maps`.

    Returns
    -------
    AttentionMaps
        ``maps`` of shape (N, layers, h, M, M), samples in the order of the batches.

    Raises
    ------
    CmatError
        If there are no batches, or the model has no such attention.
    """
    parts, names = [], ()
    for batch in batches:
        maps, names = read(model, batch)
        parts.append(maps.float().transpose(0, 1).cpu().numpy())  # (B, layers, h, M, M)
    if not parts:
        raise CmatError("attention maps: there are no samples")
    return AttentionMaps(np.concatenate(parts), names)


def rollout(maps: np.ndarray) -> np.ndarray:
    """Attention followed through all layers, residual paths included.

    Abnar & Zuidema (2020), arXiv 2005.00928, section 3: ``A_l = 0.5 W_l + 0.5 I`` with the mean ``W_l`` over heads, and
    ``R = A_L ... A_1``.

    Parameters
    ----------
    maps : ndarray, shape (N, layers, h, M, M)

    Returns
    -------
    ndarray, shape (N, M, M)
        How much of each input token (last axis) reaches each output token; rows sum to 1.
    """
    mixed = 0.5 * maps.mean(axis=2) + 0.5 * np.eye(maps.shape[-1], dtype=maps.dtype)  # (N, layers, M, M)
    result = mixed[:, 0]  # (N, M, M)
    for layer in range(1, mixed.shape[1]):
        result = mixed[:, layer] @ result  # (N, M, M)
    return result


def attention_entropy(maps: np.ndarray) -> np.ndarray:
    """Shannon entropy of each row of attention, relative to the entropy of looking everywhere alike.

    Parameters
    ----------
    maps : ndarray, shape (..., M, M)
        Rows sum to 1; M at least 2.

    Returns
    -------
    ndarray, shape (..., M)
        0 when a token looks at one token only, 1 when it looks at all alike.

    Raises
    ------
    CmatError
        If there is one token only.
    """
    tokens = maps.shape[-1]
    if tokens < 2:
        raise CmatError("attention entropy: a map over one token has no entropy")
    return entr(maps).sum(axis=-1) / np.log(tokens)
