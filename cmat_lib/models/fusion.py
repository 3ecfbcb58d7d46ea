"""Fusion: how the encoded modalities become one vector.

Every fusion keeps the protocol `Fusion` and stands in the registry `FUSIONS`; a new one is one class and one entry.
A modality that the model does not see has the width None and the input None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, Self

import torch
from torch import Tensor, nn

from cmat_lib.errors import CmatError, nearest
from cmat_lib.models.dropout import Dropout
from cmat_lib.schema import SOURCE_MODALITIES

if TYPE_CHECKING:
    from cmat_lib.schema import FusionConfig

INIT_STD = 0.02  # standard deviation of positions and [CLS] at the start


class Fusion(Protocol):
    """What the model asks of a fusion (which is also an ``nn.Module``).

    Attributes
    ----------
    output_dim : int
        Length of the fused vector.
    token_names : tuple of str
        Names of the M tokens that attend to each other, in order; empty where nothing attends.
    """

    output_dim: int
    token_names: tuple[str, ...]

    @classmethod
    def from_config(cls, dims: Mapping[str, int | None], config: FusionConfig) -> Self:
        """Build from the modalities' widths (None for one that is not seen) and the parameters."""

    def forward(
        self, nbeats: Tensor | None, tda: Tensor | None, complexity: Tensor | None, clock: Tensor | None = None
    ) -> Tensor:
        """Fuse (B, nbeats_dim), (B, tda_dim), (B, complexity_dim) and (B, clock_dim) to (B, output_dim)."""


class CrossModalAttentionFusion(nn.Module):
    """Modalities as tokens of a small pre-norm transformer encoder.

    ``tokens = projections + positions``; `num_layers` layers of self-attention and feed-forward (Vaswani et al., arXiv
    1706.03762; pre-norm: Xiong et al., arXiv 2002.04745) without a final norm; mean over the tokens or [CLS]; linear,
    ReLU, dropout. The token of an unseen modality is its learned position alone; there is a clock token only where the
    model sees the clock.

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
    ) -> None:
        super().__init__()
        _check_widths(nbeats_dim, tda_dim, complexity_dim)
        if hidden_dim % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide hidden_dim {hidden_dim}")
        self.output_dim = hidden_dim
        seen = (*SOURCE_MODALITIES, "clock") if clock_dim else SOURCE_MODALITIES
        self.token_names = ("cls", *seen) if use_cls_token else seen
        self.proj_nbeats = _projection(nbeats_dim, hidden_dim)
        self.proj_tda = _projection(tda_dim, hidden_dim)
        self.proj_complexity = _projection(complexity_dim, hidden_dim)
        self.proj_clock = _projection(clock_dim, hidden_dim)
        self.pos_embedding = nn.Parameter(INIT_STD * torch.randn(1, len(self.token_names), hidden_dim))
        self.cls_token = nn.Parameter(INIT_STD * torch.randn(1, 1, hidden_dim)) if use_cls_token else None
        self.transformer = _transformer(hidden_dim, num_heads, num_layers, ffn_dim, dropout)
        self.output_proj = nn.Sequential(_xavier(nn.Linear(hidden_dim, hidden_dim)), nn.ReLU(), Dropout(dropout))

    @classmethod
    def from_config(cls, dims: Mapping[str, int | None], config: FusionConfig) -> Self:
        """Build from the modalities' widths (None for one that is not seen) and the parameters."""
        return cls(
            nbeats_dim=dims["nbeats"],
            tda_dim=dims["tda"],
            complexity_dim=dims["complexity"],
            hidden_dim=config.hidden_dim,
            num_heads=config.num_heads,
            num_layers=config.num_layers,
            ffn_dim=config.ffn_dim,
            dropout=config.dropout,
            use_cls_token=config.use_cls_token,
            clock_dim=dims.get("clock"),
        )

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
        seen = next(x for x in (nbeats, tda, complexity) if x is not None)
        absent = seen.new_zeros(len(seen), self.output_dim)  # (B, D)
        parts = ((self.proj_nbeats, nbeats), (self.proj_tda, tda), (self.proj_complexity, complexity))
        projected = [absent if proj is None else proj(x) for proj, x in parts]
        if self.proj_clock is not None:
            projected.append(self.proj_clock(clock))
        tokens = torch.stack(projected, dim=1)  # (B, 3 or 4, D)
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(len(seen), -1, -1), tokens], dim=1)
        return tokens + self.pos_embedding  # (B, M, D)

    def pool(self, transformed: Tensor) -> Tensor:
        """Fused vector of the tokens that the last transformer layer wrote: (B, M, D) to (B, D)."""
        pooled = transformed.mean(dim=1) if self.cls_token is None else transformed[:, 0]  # (B, D)
        return self.output_proj(pooled)  # (B, D)

    def forward(
        self, nbeats: Tensor | None, tda: Tensor | None, complexity: Tensor | None, clock: Tensor | None = None
    ) -> Tensor:
        """Fuse the modalities, as `tokens` takes them, to (B, D)."""
        return self.pool(self.transformer(self.tokens(nbeats, tda, complexity, clock)))  # (B, D)


class ConcatFusion(nn.Module):
    """Concatenation and two linear layers, sum of widths → 2 D → D, with ReLU and dropout after each.

    These are the document's ``shared_fc``. An unseen modality is left out of the concatenation: zeros in its place
    would add weights that never learn.

    Parameters
    ----------
    nbeats_dim, tda_dim, complexity_dim : int or None
        Widths of the encoded modalities; None for one that the model does not see.
    hidden_dim : int
        Length D of the output.
    dropout : float
        Dropout after each ReLU.
    clock_dim : int or None
        Width of the encoded clock; None without one.

    Attributes
    ----------
    output_dim : int
        Equal to `hidden_dim`.
    token_names : tuple of str
        Empty: nothing attends.

    Raises
    ------
    ValueError
        If all three widths are None.
    """

    token_names: tuple[str, ...] = ()

    def __init__(
        self,
        nbeats_dim: int | None = 1024,
        tda_dim: int | None = 256,
        complexity_dim: int | None = 64,
        hidden_dim: int = 256,
        dropout: float = 0.3,
        clock_dim: int | None = None,
    ) -> None:
        super().__init__()
        _check_widths(nbeats_dim, tda_dim, complexity_dim)
        self.output_dim = hidden_dim
        width = sum(dim for dim in (nbeats_dim, tda_dim, complexity_dim, clock_dim) if dim is not None)
        self.shared_fc = nn.Sequential(
            _xavier(nn.Linear(width, 2 * hidden_dim)),
            nn.ReLU(),
            Dropout(dropout),
            _xavier(nn.Linear(2 * hidden_dim, hidden_dim)),
            nn.ReLU(),
            Dropout(dropout),
        )

    @classmethod
    def from_config(cls, dims: Mapping[str, int | None], config: FusionConfig) -> Self:
        """Build from the modalities' widths (None for one that is not seen) and the parameters."""
        widths = (dims["nbeats"], dims["tda"], dims["complexity"])
        return cls(*widths, config.hidden_dim, config.dropout, clock_dim=dims.get("clock"))

    def forward(
        self, nbeats: Tensor | None, tda: Tensor | None, complexity: Tensor | None, clock: Tensor | None = None
    ) -> Tensor:
        """Fuse the modalities.

        Parameters
        ----------
        nbeats, tda, complexity, clock : Tensor, shape (B, nbeats_dim), (B, tda_dim), (B, complexity_dim), \
                (B, clock_dim), or None
            Encoded modalities; None for one that the model does not see.

        Returns
        -------
        Tensor, shape (B, D)
        """
        seen = [x for x in (nbeats, tda, complexity, clock) if x is not None]
        return self.shared_fc(torch.cat(seen, dim=1))  # (B, D)


FUSIONS: dict[str, type[Fusion]] = {
    "cross_modal_attention": CrossModalAttentionFusion,
    "concat": ConcatFusion,
}


def fusion_class(name: str) -> type[Fusion]:
    """Class of a fusion by its name in the parameters.

    Raises
    ------
    CmatError
        For a name that is not in `FUSIONS`, with the nearest one that is.
    """
    if name in FUSIONS:
        return FUSIONS[name]
    raise CmatError(f"fusion.fusion_type: unknown fusion '{name}'{nearest(name, FUSIONS)}")


def _check_widths(*dims: int | None) -> None:
    if all(dim is None for dim in dims):
        raise ValueError("a fusion needs at least one modality: nbeats_dim, tda_dim and complexity_dim are all None")


def _xavier(linear: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _projection(dim: int | None, hidden_dim: int) -> nn.Linear | None:
    return None if dim is None else _xavier(nn.Linear(dim, hidden_dim))


def _transformer(
    hidden_dim: int, num_heads: int, num_layers: int, ffn_dim: int, dropout: float
) -> nn.TransformerEncoder:
    """Pre-norm GELU encoder without a final norm."""
    layers = [_transformer_layer(hidden_dim, num_heads, ffn_dim, dropout) for _ in range(num_layers)]
    encoder = nn.TransformerEncoder(layers[0], num_layers, norm=None, enable_nested_tensor=False)
    # nn.TransformerEncoder copies one layer, weights included; separately built layers start apart.
    encoder.layers = nn.ModuleList(layers)
    return encoder


def _transformer_layer(hidden_dim: int, num_heads: int, ffn_dim: int, dropout: float) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(
        hidden_dim, num_heads, ffn_dim, dropout, activation="gelu", batch_first=True, norm_first=True
    )
    layer.dropout, layer.dropout1, layer.dropout2 = Dropout(dropout), Dropout(dropout), Dropout(dropout)
    return layer
