"""Fusion by self-attention: every token attends to every token."""

from __future__ import annotations

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


class CrossModalAttentionFusion(AttendingFusion):
    """Modalities as tokens of a small pre-norm transformer encoder.

    ``tokens = projections + positions``; `num_layers` layers of self-attention and feed-forward (Vaswani et al., arXiv
    1706.03762; pre-norm: Xiong et al., arXiv 2002.04745) without a final norm; mean over the tokens, or [CLS] with
    `use_cls_token`; linear, ReLU, dropout. The tokens of one of the source's views that is not seen are their learned
    positions alone; other views have tokens only where they are seen. `token_names` has ``"cls"`` first where it is
    used. The ``layers`` of `transformer` can be walked to read attention maps.
    """

    settings = (*AttendingFusion.settings, "use_cls_token")
    stated_sizes = AttendingFusion.stated_sizes | {"layer": "789,504", "whole": "1,990,400"}

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
        use_cls_token: bool = False,
        **wiring,
    ) -> None:
        super().__init__(nbeats_dim, tda_dim, complexity_dim, hidden_dim, **wiring)
        own = [token for row in self.rows.values() for token in row]
        self.token_names = ("cls", *own) if use_cls_token else tuple(own)
        self.pos_embedding = positions(len(self.token_names), hidden_dim)
        self.cls_token = positions(1, hidden_dim) if use_cls_token else None
        self.transformer = _transformer(hidden_dim, num_heads, num_layers, ffn_dim, dropout)
        self.output_proj = output_projection(hidden_dim, dropout)

    def tokens(self, features: Features) -> Tensor:
        """Tokens with positions, as the first transformer layer reads them: (B, M, D)."""
        projected = self.project(features)
        batch = next(iter(projected.values())).shape[0]  # a len would be a constant to torch.export
        absent = self.pos_embedding.new_zeros(batch, 1, self.output_dim)
        rows = [projected.get(name, absent.expand(-1, len(names), -1)) for name, names in self.rows.items()]
        if self.cls_token is not None:
            rows.insert(0, self.cls_token.expand(batch, -1, -1))
        return torch.cat(rows, dim=1) + self.pos_embedding  # (B, M, D)

    def pool(self, transformed: Tensor) -> Tensor:
        """Fused vector of the tokens that the last transformer layer wrote: (B, M, D) to (B, D)."""
        pooled = transformed.mean(dim=1) if self.cls_token is None else transformed[:, 0]  # (B, D)
        return self.output_proj(pooled)  # (B, D)


def _transformer(
    hidden_dim: int, num_heads: int, num_layers: int, ffn_dim: int, dropout: float
) -> nn.TransformerEncoder:
    """Pre-norm GELU encoder without a final norm."""
    layers = [transformer_layer(hidden_dim, num_heads, ffn_dim, dropout) for _ in range(num_layers)]
    encoder = nn.TransformerEncoder(layers[0], num_layers, norm=None, enable_nested_tensor=False)
    # nn.TransformerEncoder copies one layer, weights included; separately built layers start apart.
    encoder.layers = nn.ModuleList(layers)
    return encoder
