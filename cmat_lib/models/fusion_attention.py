"""Fusion by self-attention: every token attends to every token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cmat_lib.models.fusion_tokens import WHOLE, Parts, TokenFusion, output_projection, positions, transformer_layer
from cmat_lib.schema import SOURCE_MODALITIES


class CrossModalAttentionFusion(TokenFusion):
    """Modalities as tokens of a small pre-norm transformer encoder.

    ``tokens = projections + positions``; `num_layers` layers of self-attention and feed-forward (Vaswani et al., arXiv
    1706.03762; pre-norm: Xiong et al., arXiv 2002.04745) without a final norm; mean over the tokens or [CLS]; linear,
    ReLU, dropout. The tokens of an unseen modality are their learned positions alone; there is a clock token only where
    the model sees the clock.

    Parameters
    ----------
    nbeats_dim, tda_dim, complexity_dim : int or None
        Widths of the encoded modalities; None for one that the model does not see.
    hidden_dim : int
        Token width D.
    num_heads : int
        Attention heads h.
    num_layers : int
        Transformer layers.
    ffn_dim : int
        Width of the feed-forward part.
    dropout : float
        Dropout of layers and output projection.
    use_cls_token : bool
        Read a learned [CLS] token, put first, instead of the mean over all tokens.
    clock_dim : int or None
        Width of the encoded clock; None without one.
    parts : mapping of str to tuple of str, optional
        Names of every modality's tokens, among which its width is shared; by default one token each.

    Attributes
    ----------
    output_dim : int
        Equal to `hidden_dim`.
    token_names : tuple of str
        ``("nbeats", "tda", "complexity")``, with ``"cls"`` first and ``"clock"`` last where they are used.
    transformer : nn.TransformerEncoder
        Its ``layers`` can be walked to read attention maps.

    Raises
    ------
    ValueError
        If all three widths are None, or the heads do not divide the width.
    """

    settings = ("hidden_dim", "num_heads", "num_layers", "ffn_dim", "dropout", "use_cls_token")

    def __init__(
        self,
        nbeats_dim: int | None = 1024,
        tda_dim: int | None = 256,
        complexity_dim: int | None = 64,
        hidden_dim: int = 256,
        num_heads: int = 8,
        num_layers: int = 2,
        ffn_dim: int = 1024,
        dropout: float = 0.3,
        use_cls_token: bool = False,
        clock_dim: int | None = None,
        parts: Parts | None = None,
    ) -> None:
        dims = {"nbeats": nbeats_dim, "tda": tda_dim, "complexity": complexity_dim, "clock": clock_dim}
        super().__init__(dims, hidden_dim, parts)
        names = WHOLE if parts is None else parts
        self._rows = {name: tuple(names[name]) for name in (*SOURCE_MODALITIES, *(["clock"] if clock_dim else []))}
        own = [token for row in self._rows.values() for token in row]
        self.token_names = ("cls", *own) if use_cls_token else tuple(own)
        self.pos_embedding = positions(len(self.token_names), hidden_dim)
        self.cls_token = positions(1, hidden_dim) if use_cls_token else None
        self.transformer = _transformer(hidden_dim, num_heads, num_layers, ffn_dim, dropout)
        self.output_proj = output_projection(hidden_dim, dropout)

    def tokens(
        self, nbeats: Tensor | None, tda: Tensor | None, complexity: Tensor | None, clock: Tensor | None = None
    ) -> Tensor:
        """Tokens with positions, as the first transformer layer reads them.

        Parameters
        ----------
        nbeats, tda, complexity, clock : Tensor, shape (B, nbeats_dim), (B, tda_dim), (B, complexity_dim), \
                (B, clock_dim), or None
            Encoded modalities; None for one that the model does not see.

        Returns
        -------
        Tensor, shape (B, M, D)
        """
        projected = self.project({"nbeats": nbeats, "tda": tda, "complexity": complexity, "clock": clock})
        batch = next(iter(projected.values())).shape[0]  # a len would be a constant to torch.export
        absent = self.pos_embedding.new_zeros(batch, 1, self.output_dim)
        rows = [projected.get(name, absent.expand(-1, len(names), -1)) for name, names in self._rows.items()]
        if self.cls_token is not None:
            rows.insert(0, self.cls_token.expand(batch, -1, -1))
        return torch.cat(rows, dim=1) + self.pos_embedding  # (B, M, D)

    def pool(self, transformed: Tensor) -> Tensor:
        """Fused vector of the tokens that the last transformer layer wrote: (B, M, D) to (B, D)."""
        pooled = transformed.mean(dim=1) if self.cls_token is None else transformed[:, 0]  # (B, D)
        return self.output_proj(pooled)  # (B, D)

    def forward(
        self, nbeats: Tensor | None, tda: Tensor | None, complexity: Tensor | None, clock: Tensor | None = None
    ) -> Tensor:
        """Fuse the modalities, as `tokens` takes them, to (B, D)."""
        return self.pool(self.transformer(self.tokens(nbeats, tda, complexity, clock)))  # (B, D)


def _transformer(
    hidden_dim: int, num_heads: int, num_layers: int, ffn_dim: int, dropout: float
) -> nn.TransformerEncoder:
    """Pre-norm GELU encoder without a final norm."""
    layers = [transformer_layer(hidden_dim, num_heads, ffn_dim, dropout) for _ in range(num_layers)]
    encoder = nn.TransformerEncoder(layers[0], num_layers, norm=None, enable_nested_tensor=False)
    # nn.TransformerEncoder copies one layer, weights included; separately built layers start apart.
    encoder.layers = nn.ModuleList(layers)
    return encoder
