"""Fusion by attention bottlenecks: modalities meet only in a few tokens that all of them read and write."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from cmat_lib.models.fusion.tokens import (
    AttendingFusion,
    Features,
    Width,
    output_projection,
    positions,
    transformer_layer,
)

# Layer and its input (B, m, D) -> weights and output.
Step = Callable[[nn.TransformerEncoderLayer, Tensor], tuple[Tensor | None, Tensor]]


class BottleneckLayer(nn.Module):
    """One transformer layer per modality over its own tokens and the bottleneck tokens.

    Every modality writes its own version of the bottleneck tokens; the next layer reads their mean (Nagrani et al.,
    *Attention Bottlenecks for Multimodal Fusion*, arXiv 2107.00135, equations 8 and 9).

    Parameters
    ----------
    sizes : mapping of str to int
        Tokens of each modality, in order.
    bottlenecks : int
        Bottleneck tokens, which come last.
    hidden_dim, num_heads, ffn_dim, dropout
        As for `cmat_lib.models.fusion.tokens.transformer_layer`.
    """

    def __init__(
        self, sizes: Mapping[str, int], bottlenecks: int, hidden_dim: int, num_heads: int, ffn_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.sizes, self.bottlenecks = dict(sizes), bottlenecks
        self.own = nn.ModuleDict({name: transformer_layer(hidden_dim, num_heads, ffn_dim, dropout) for name in sizes})

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens after the layer: (B, M, D) to (B, M, D)."""
        return self.walk(tokens, lambda layer, x: (None, layer(x)))[1]

    def walk(self, tokens: Tensor, step: Step) -> tuple[list[Tensor | None], Tensor]:
        """The layer, each modality's part of it run by `step`.

        Parameters
        ----------
        tokens : Tensor, shape (B, M, D)
        step : callable
            Maps a layer and its input (B, m, D) to its weights (B, h, m, m) and its output.

        Returns
        -------
        weights : list of Tensor, shape (B, h, m, m)
            Of each modality's tokens and the bottleneck tokens.
        tokens : Tensor, shape (B, M, D)
        """
        *groups, shared = tokens.split([*self.sizes.values(), self.bottlenecks], dim=1)
        done = [step(layer, torch.cat([x, shared], 1)) for layer, x in zip(self.own.values(), groups, strict=True)]
        own = [out[:, : -self.bottlenecks] for _, out in done]  # (B, m - bottlenecks, D) each
        shared = torch.stack([out[:, -self.bottlenecks :] for _, out in done]).mean(0)  # (B, bottlenecks, D)
        return [weights for weights, _ in done], torch.cat([*own, shared], dim=1)

    def whole_map(self, weights: list[Tensor], share: float | None = None) -> Tensor:
        """One map over all tokens from those of the modalities.

        Parameters
        ----------
        weights : list of Tensor, shape (B, h, m, m)
            From `walk`.
        share : float, optional
            By what the modalities' rows of a bottleneck token are multiplied before they are added; by default one over
            their number, so that rows sum to 1, as the layer averages what the modalities write.

        Returns
        -------
        Tensor, shape (B, h, M, M)
            0 where two tokens do not meet.
        """
        share = 1 / len(weights) if share is None else share
        size = sum(self.sizes.values())
        whole = weights[0].new_zeros(*weights[0].shape[:2], size + self.bottlenecks, size + self.bottlenecks)
        start = 0
        for part, own in zip(weights, self.sizes.values(), strict=True):
            here = slice(start, start + own)
            whole[..., here, here], whole[..., here, size:] = part[..., :own, :own], part[..., :own, own:]
            whole[..., size:, here] = share * part[..., own:, :own]
            whole[..., size:, size:] += share * part[..., own:, own:]
            start += own
        return whole


class BottleneckEncoder(nn.Module):
    """`BottleneckLayer` after `BottleneckLayer`."""

    def __init__(self, layers: list[BottleneckLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens after all layers: (B, M, D) to (B, M, D)."""
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens


class BottleneckFusion(AttendingFusion):
    """Attention bottleneck tokens: what modalities tell each other has to pass through a few shared tokens.

    A bottleneck token starts as a learned vector, its position. In the first layer the modalities write to it, in the
    second they read what the others wrote; so one layer alone lets them meet in the mean over all tokens only. An
    unseen modality has no tokens. `bottleneck_tokens` are four as in the source; they stand last in `token_names`.
    """

    settings = (*AttendingFusion.settings, "bottleneck_tokens")

    def __init__(
        self,
        nbeats_dim: Width = 1024,
        tda_dim: Width = 256,
        complexity_dim: Width = 64,
        hidden_dim: int = 256,
        num_heads: int = 8,
        num_layers: int = 2,
        ffn_dim: int = 1024,
        dropout: float = 0.3,
        bottleneck_tokens: int = 4,
        **wiring,
    ) -> None:
        super().__init__(nbeats_dim, tda_dim, complexity_dim, hidden_dim, **wiring)
        own = [token for names in self.parts.values() for token in names]
        self.token_names = (*own, *(f"bottleneck {number}" for number in range(1, bottleneck_tokens + 1)))
        self.bottlenecks = bottleneck_tokens
        self.pos_embedding = positions(len(self.token_names), hidden_dim)
        sizes = {name: len(names) for name, names in self.parts.items()}
        shape = (sizes, bottleneck_tokens, hidden_dim, num_heads, ffn_dim, dropout)
        self.transformer = BottleneckEncoder([BottleneckLayer(*shape) for _ in range(num_layers)])
        self.output_proj = output_projection(hidden_dim, dropout)

    def tokens(self, features: Features) -> Tensor:
        """Tokens with positions, bottleneck tokens last: (B, M, D)."""
        rows = [*self.project(features).values()]
        rows.append(rows[0].new_zeros(rows[0].shape[0], self.bottlenecks, self.output_dim))
        return torch.cat(rows, dim=1) + self.pos_embedding  # (B, M, D)

    def pool(self, transformed: Tensor) -> Tensor:
        """Fused vector of the tokens that the last layer wrote: (B, M, D) to (B, D)."""
        return self.output_proj(transformed.mean(dim=1))  # (B, D)
