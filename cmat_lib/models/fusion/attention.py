"""Fusion by self-attention: every token attends to every token."""

from itertools import chain

import torch
from torch import Tensor

from cmat_lib.models.fusion.tokens import AttendingFusion, Features, Width, positions


class CrossModalAttentionFusion(AttendingFusion):
    """Modalities as tokens of a small pre-norm transformer encoder.

    ``tokens = projections + positions``; `num_layers` layers of self-attention and feed-forward (Vaswani et al., arXiv
    1706.03762; pre-norm: Xiong et al., arXiv 2002.04745) without a final norm; mean over the tokens, or [CLS]; linear,
    ReLU, dropout. The tokens of one of the source's views that is not seen are their learned positions alone; other
    views have tokens only where they are seen.

    Parameters
    ----------
    nbeats_dim, tda_dim, complexity_dim : int or None
        Widths of the source's encoders; None for a view that is not seen.
    hidden_dim : int
        Token width D.
    num_heads, num_layers, ffn_dim, dropout
        Of the transformer.
    use_cls_token : bool
        A learned token that comes first, and is read in place of the mean.
    """

    settings = (*AttendingFusion.settings, "use_cls_token")
    stated_sizes = AttendingFusion.stated_sizes | {"layer": "789,504", "whole": "1,990,400"}

    def __init__(self, *dims: Width, use_cls_token: bool = False, **wiring) -> None:
        super().__init__(*dims, **wiring)
        self.token_names = (*(["cls"] if use_cls_token else []), *chain(*self.rows.values()))
        self.pos_embedding = positions(len(self.token_names), self.output_dim)
        self.cls_token = positions(1, self.output_dim) if use_cls_token else None
        self.add_layers(self.new_layer)

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
        return self.output_proj(transformed.mean(dim=1) if self.cls_token is None else transformed[:, 0])  # (B, D)
