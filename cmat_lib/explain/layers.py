"""Ways to run a pre-norm transformer layer so that its attention weights come out, or are replaced.

Layers have ``norm_first=True`` and are in evaluation mode; tokens (B, m, D) give weights (B, h, m, m) and the layer's
output (B, m, D).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmat_lib.models.fusion.bottleneck import BottleneckLayer, Step


def beside(layer: nn.TransformerEncoderLayer, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Weights beside the layer's own forward pass; they carry no gradient."""
    normed = layer.norm1(tokens)  # (B, m, D)
    _, weights = layer.self_attn(normed, normed, normed, need_weights=True, average_attn_weights=False)
    return weights, layer(tokens)


def explicit(layer: nn.TransformerEncoderLayer, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """``softmax(Q K^T / sqrt(d)) V`` written out, so that gradients reach the weights."""
    queries, keys, values = _heads(layer, tokens)
    weights = torch.softmax(queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5, dim=-1)  # (B, h, m, m)
    return weights, _finish(layer, tokens, weights @ values)


def uniform(layer: nn.TransformerEncoderLayer, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """As `explicit`, but every token attends to all alike."""
    values = _heads(layer, tokens)[2]  # (B, h, m, d)
    weights = values.new_full((*values.shape[:2], values.shape[2], values.shape[2]), 1 / values.shape[2])
    return weights, _finish(layer, tokens, weights @ values)


def walk(layers: Iterable[nn.Module], tokens: Tensor, step: Step) -> tuple[list[list[Tensor]], Tensor]:
    """Run the layers of a fusion by `step`, one of the above; tokens (B, M, D) come in and go out.

    Each layer has a list of weights: a `BottleneckLayer` one for each modality, any other a single one with m = M.
    """
    weights = []
    for layer in layers:
        bottleneck = isinstance(layer, BottleneckLayer)
        parts, tokens = layer.walk(tokens, step) if bottleneck else step(layer, tokens)
        weights.append(parts if bottleneck else [parts])
    return weights, tokens


def _heads(layer: nn.TransformerEncoderLayer, tokens: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values, (B, h, m, d) each."""
    attention = layer.self_attn
    projected = F.linear(layer.norm1(tokens), attention.in_proj_weight, attention.in_proj_bias)  # (B, m, 3 D)
    return tuple(x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for x in projected.chunk(3, dim=-1))


def _finish(layer: nn.TransformerEncoderLayer, tokens: Tensor, mixed: Tensor) -> Tensor:
    """Output of the layer from the attended values (B, h, m, d)."""
    tokens = tokens + layer.self_attn.out_proj(mixed.transpose(1, 2).flatten(2))  # (B, m, D)
    return tokens + layer.linear2(layer.activation(layer.linear1(layer.norm2(tokens))))
