"""Attention weights of a trained model, read beside the fused kernels that compute its predictions.

The encoder layers are walked by hand: norm, attention with weights, then the layer itself for the next input. Hooks do
not help, torch's fast path in evaluation mode skips them. Weights say where a token looked, not why.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import entr
from torch import Tensor, nn

from cmat_lib.base.errors import CmatError
from cmat_lib.encoders.plain import numbered
from cmat_lib.explain.layers import Step, beside, explicit, walk
from cmat_lib.models.fusion.bottleneck import BottleneckLayer
from cmat_lib.models.multitask import MultiTaskCrossModalAttention, evaluation_mode
from cmat_lib.views.panel import Batch

Names = tuple[str, ...]
Reader = Callable[[MultiTaskCrossModalAttention, Batch], tuple[Tensor, Names]]


class AttentionMaps(NamedTuple):
    """Maps of many samples; entry (n, l, h, i, j) is the weight that token i gives to token j, and rows sum to 1."""

    maps: np.ndarray  # (N, layers, h, M, M) float16, three digits: 35,000 maps of 2 layers, 8 heads, 9 tokens are 91 MB
    token_names: Names  # M


def walk_layers(layers: Iterable[nn.Module], tokens: Tensor, step: Step = beside) -> tuple[Tensor, Tensor]:
    """Attention weights of the layers of a fusion, (layers, B, h, M, M), and what they make of the tokens (B, M, D).

    Each layer is an ``nn.TransformerEncoderLayer`` or a `BottleneckLayer`, run by `step` as
    `cmat_lib.explain.layers` describes; the output is that of the normal forward pass.
    """
    layers = list(layers)
    parts, output = walk(layers, tokens, step)
    return torch.stack([_whole(layer, weights) for layer, weights in zip(layers, parts, strict=True)]), output


def _whole(layer: nn.Module, weights: list[Tensor], share: float | None = None) -> Tensor:
    """(B, h, M, M) from the weights of a layer's parts."""
    return layer.whole_map(weights, share) if isinstance(layer, BottleneckLayer) else weights[0]


def has_attention(model: MultiTaskCrossModalAttention) -> bool:
    """Whether the tokens of the model's fusion attend to each other."""
    return bool(model.fusion.token_names)


@torch.no_grad()
def _attending(model: MultiTaskCrossModalAttention, batch: Batch) -> tuple[list[nn.Module], Tensor]:
    """Layers of the fusion and the tokens (B, M, D) that they begin with; an error if there are none."""
    if not has_attention(model):
        name, others = type(model.fusion).__name__, "'cross_modal_attention' or 'bottleneck'"
        raise CmatError(f"fusion.fusion_type: {name} has no attention to show; use {others}")
    return list(model.fusion.transformer.layers), model.fusion.tokens(model.encode(batch.inputs))


@torch.no_grad()
def attention_maps(model: MultiTaskCrossModalAttention, batch: Batch) -> tuple[Tensor, Names]:
    """Attention between the tokens of the fusion, in evaluation mode and without gradients, as all readers here.

    Returns
    -------
    maps : Tensor, shape (layers, B, h, M, M)
        Rows sum to 1.
    token_names : tuple of M str

    Raises
    ------
    CmatError
        If the fusion has no attention layers.
    """
    with evaluation_mode(model):
        maps, _ = walk_layers(*_attending(model, batch))
    return maps, tuple(model.fusion.token_names)


def gradient_attention(model: MultiTaskCrossModalAttention, batch: Batch) -> tuple[Tensor, Names]:
    """Attention weight times the gradient of the trigger's logit by it, with its sign: (layers, B, h, M, M), M names.

    A positive entry raised the logit, to first order. The weights that torch's attention returns are a detached view,
    so the layers are run in their explicit form (Chefer, Gur, Wolf, arXiv 2103.15679, eq. 5, without its cut at 0). No
    gradient is left on a parameter. A fusion without attention layers is a `CmatError`.
    """
    with evaluation_mode(model), torch.enable_grad():
        layers, tokens = _attending(model, batch)
        parts, output = walk(layers, tokens.requires_grad_(), explicit)
        logit = model.read_off(model.fusion.pool(output)).trigger_logits.sum()
        gradients = iter(torch.autograd.grad(logit, [weights for layer in parts for weights in layer]))
    signed = [[(weights * next(gradients)).detach() for weights in layer] for layer in parts]
    # What modalities write to a bottleneck token adds up; that it is averaged is in the gradient already.
    maps = [_whole(layer, weights, share=1.0) for layer, weights in zip(layers, signed, strict=True)]
    return torch.stack(maps), tuple(model.fusion.token_names)


def attending_encoder(model: MultiTaskCrossModalAttention) -> str | None:
    """Name of the view whose encoder has attention between its stacks, if there is one."""
    return next((name for name, e in model.encoders.items() if getattr(e, "attention", None) is not None), None)


@torch.no_grad()
def stack_attention_maps(model: MultiTaskCrossModalAttention, batch: Batch) -> tuple[Tensor, Names]:
    """Attention between the M N-BEATS stacks, (1, B, h, M, M), rows summing to 1, and their types, numbered if needed.

    A model without an N-BEATS encoder, or whose encoder has no attention, is a `CmatError`.
    """
    name = attending_encoder(model)
    if name is None:
        raise CmatError("no attention between stacks: it needs an N-BEATS encoder and model.use_attention true")
    encoder = model.encoders[name]
    with evaluation_mode(model):
        normed = encoder.attention.token_norm(encoder.stack_tokens(batch.inputs[name]))  # (B, M, D)
        _, maps = encoder.attention.self_attn(normed, normed, normed, average_attn_weights=False)  # (B, h, M, M)
    return maps[None], numbered(encoder.stack_types)


@torch.no_grad()
def gate_values(model: MultiTaskCrossModalAttention, batch: Batch) -> tuple[Tensor, Names]:
    """Gates of a gated fusion, (B, M), the mean over its units, and their names; a `CmatError` without gates.

    Between 0 (closed) and 1 (open); they need not sum to 1.
    """
    if not hasattr(model.fusion, "gates"):
        raise CmatError(f"fusion.fusion_type: {type(model.fusion).__name__} has no gates to show; use 'gated'")
    with evaluation_mode(model):
        return model.fusion.gates(model.encode(batch.inputs)).mean(dim=2), model.fusion.gate_names


def collect_maps(
    model: MultiTaskCrossModalAttention, batches: Iterable[Batch], count: int, read: Reader = attention_maps
) -> AttentionMaps:
    """Maps of the `count` samples of all batches, in order; nothing else is kept, so memory grows by the maps alone.

    `read` is `attention_maps`, `gradient_attention` or `stack_attention_maps`. A `CmatError` if there are no samples.
    """
    found, names, done = None, (), 0
    for batch in batches:
        maps, names = read(model, batch)
        maps = maps.transpose(0, 1).cpu().numpy()  # (B, layers, h, M, M)
        if found is None:
            found = np.empty((count, *maps.shape[1:]), dtype=np.float16)
        found[done : done + len(maps)] = maps
        done += len(maps)
    if found is None or done != count:
        raise CmatError(f"attention maps: {count} samples were announced and there are {done or 'no samples'}")
    return AttentionMaps(found, names)


def rollout(maps: np.ndarray) -> np.ndarray:
    """Attention followed through all layers, residual paths included: (N, layers, h, M, M) to (N, M, M).

    How much of each input token (last axis) reaches each output token; rows sum to 1; at least float32. Abnar & Zuidema
    (2020), arXiv 2005.00928, section 3: ``R = A_L ... A_1``, ``A_l = 0.5 W_l + 0.5 I``, ``W_l`` the mean over heads.
    """
    kind = np.result_type(maps.dtype, np.float32)
    mixed = 0.5 * maps.mean(axis=2, dtype=kind) + 0.5 * np.eye(maps.shape[-1], dtype=kind)  # (N, layers, M, M)
    result = mixed[:, 0]  # (N, M, M)
    for layer in range(1, mixed.shape[1]):
        result = mixed[:, layer] @ result
    return result


def attention_entropy(maps: np.ndarray) -> np.ndarray:
    """Shannon entropy of each row of attention, relative to the entropy of looking everywhere alike.

    From (..., M, M), rows summing to 1, to (..., M): 0 when a token looks at one token only, 1 when it looks at all
    alike; at least float32. A map over one token is a `CmatError`.
    """
    tokens = maps.shape[-1]
    if tokens < 2:
        raise CmatError("attention entropy: a map over one token has no entropy")
    return entr(maps, dtype=np.result_type(maps.dtype, np.float32)).sum(axis=-1) / np.log(tokens)
