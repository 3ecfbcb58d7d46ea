"""Fusion: how the encoded modalities become one vector.

Every fusion keeps the protocol `Fusion` and stands in the registry `FUSIONS`; a new one is one class and one entry.
A view that the model does not see has the width None, or none at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, Self

import torch
from torch import Tensor, nn

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.encoders.dropout import Dropout
from cmat_lib.models.fusion.attention import CrossModalAttentionFusion
from cmat_lib.models.fusion.bottleneck import BottleneckFusion
from cmat_lib.models.fusion.tokens import Features, FusionBase, Parts, TokenFusion, Width, output_projection, xavier

if TYPE_CHECKING:
    from cmat_lib.config.schema import FusionConfig


class Fusion(Protocol):
    """What the model asks of a fusion (which is also an ``nn.Module``).

    Attributes
    ----------
    output_dim : int
        Length of the fused vector.
    parts : dict of str to tuple of str
        Names of the tokens of every view that the model sees, among which its width is shared.
    token_names : tuple of str
        Names of the M tokens that attend to each other, in order; empty where nothing attends.
    """

    output_dim: int
    parts: dict[str, tuple[str, ...]]
    token_names: tuple[str, ...]

    @classmethod
    def from_config(cls, dims: Mapping[str, int], config: FusionConfig, parts: Parts | None = None) -> Self:
        """Build from the widths of the views that are seen, the parameters and the names of their tokens."""

    def forward(self, **features: Tensor) -> Tensor:
        """Fuse encoded views, (B, width) each, to (B, output_dim)."""


class ConcatFusion(FusionBase):
    """Concatenation and two linear layers, sum of widths → 2 D → D, with ReLU and dropout after each.

    These are the document's ``shared_fc``. An unseen view is left out of the concatenation: zeros in its place would
    add weights that never learn.
    """

    stated_sizes = FusionBase.stated_sizes | {"whole": "820,736"}

    def __init__(
        self,
        nbeats_dim: Width = 1024,
        tda_dim: Width = 256,
        complexity_dim: Width = 64,
        hidden_dim: int = 256,
        dropout: float = 0.3,
        **wiring,
    ) -> None:
        super().__init__(nbeats_dim, tda_dim, complexity_dim, hidden_dim, **wiring)
        self.shared_fc = nn.Sequential(
            xavier(nn.Linear(sum(self.dims.values()), 2 * hidden_dim)),
            nn.ReLU(),
            Dropout(dropout),
            xavier(nn.Linear(2 * hidden_dim, hidden_dim)),
            nn.ReLU(),
            Dropout(dropout),
        )

    def fuse(self, features: Features) -> Tensor:
        """Fuse the views to (B, D)."""
        return self.shared_fc(torch.cat([*features.values()], dim=1))  # (B, D)


class GatedFusion(TokenFusion):
    """Gated multimodal unit, ``sum_i sigmoid(W_i [x_1 ... x_M]) * tanh(V_i x_i)``, then linear, ReLU, dropout.

    Arevalo et al., *Gated Multimodal Units for Information Fusion*, arXiv 1702.01992, section 3.1 (figure 2a). Every
    unit has its own gate; gates lie between 0 and 1 and need not sum to 1. An unseen view has no gate. `gate_names` are
    the M tokens that are gated, in order.
    """

    def __init__(
        self,
        nbeats_dim: Width = 1024,
        tda_dim: Width = 256,
        complexity_dim: Width = 64,
        hidden_dim: int = 256,
        dropout: float = 0.3,
        **wiring,
    ) -> None:
        super().__init__(nbeats_dim, tda_dim, complexity_dim, hidden_dim, **wiring)
        self.gate_names = tuple(token for names in self.parts.values() for token in names)
        self.gate = xavier(nn.Linear(sum(self.dims.values()), len(self.gate_names) * hidden_dim))
        self.output_proj = output_projection(hidden_dim, dropout)

    def gates(self, features: Features) -> Tensor:
        """Gate of every unit, between 0 and 1: (B, M, D)."""
        gates = self.gate(torch.cat([*features.values()], dim=1)).sigmoid()  # (B, M * D)
        return gates.unflatten(1, (len(self.gate_names), -1))  # (B, M, D)

    def fuse(self, features: Features) -> Tensor:
        """Fuse the views to (B, D)."""
        units = torch.cat([*self.project(features).values()], dim=1).tanh()  # (B, M, D)
        return self.output_proj((self.gates(features) * units).sum(1))  # (B, D)


FUSIONS: dict[str, type[Fusion]] = {
    "cross_modal_attention": CrossModalAttentionFusion,
    "bottleneck": BottleneckFusion,
    "gated": GatedFusion,
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
