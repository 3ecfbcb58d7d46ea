"""Fusion: how the encoded views become one vector; a new one is one class of `FusionBase` and an entry in `FUSIONS`."""

from itertools import chain, pairwise

import torch
from torch import Tensor, nn

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.encoders.dropout import Dropout
from cmat_lib.models.fusion.attention import CrossModalAttentionFusion
from cmat_lib.models.fusion.bottleneck import BottleneckFusion
from cmat_lib.models.fusion.tokens import Features, FusionBase, TokenFusion, Width, output_projection, xavier


class ConcatFusion(FusionBase):
    """Concatenation and two linear layers, sum of widths → 2 D → D, with ReLU and dropout after each.

    The document's ``shared_fc``. An unseen view is left out: zeros in its place would add weights that never learn.
    """

    stated_sizes = FusionBase.stated_sizes | {"whole": "820,736"}

    def __init__(self, *dims: Width, dropout: float = 0.3, **wiring) -> None:
        super().__init__(*dims, **wiring)
        widths = (sum(self.dims.values()), 2 * self.output_dim, self.output_dim)
        layers = [[xavier(nn.Linear(*ends)), nn.ReLU(), Dropout(dropout)] for ends in pairwise(widths)]
        self.shared_fc = nn.Sequential(*chain(*layers))

    def fuse(self, features: Features) -> Tensor:
        """Fuse the views to (B, D)."""
        return self.shared_fc(torch.cat([*features.values()], dim=1))  # (B, D)


class GatedFusion(TokenFusion):
    """Gated multimodal unit, ``sum_i sigmoid(W_i [x_1 ... x_M]) * tanh(V_i x_i)``, then linear, ReLU, dropout.

    Arevalo et al., *Gated Multimodal Units for Information Fusion*, arXiv 1702.01992, section 3.1 (figure 2a). Every
    unit has its own gate, which need not sum to 1; an unseen view has none. `gate_names` are the M tokens, in order.
    """

    def __init__(self, *dims: Width, dropout: float = 0.3, **wiring) -> None:
        super().__init__(*dims, **wiring)
        self.gate_names = tuple(chain(*self.parts.values()))
        self.gate = xavier(nn.Linear(sum(self.dims.values()), len(self.gate_names) * self.output_dim))
        self.output_proj = output_projection(self.output_dim, dropout)

    def gates(self, features: Features) -> Tensor:
        """Gate of every unit, between 0 and 1: (B, M, D)."""
        gates = self.gate(torch.cat([*features.values()], dim=1)).sigmoid()  # (B, M * D)
        return gates.unflatten(1, (len(self.gate_names), -1))  # (B, M, D)

    def fuse(self, features: Features) -> Tensor:
        """Fuse the views to (B, D)."""
        units = torch.cat([*self.project(features).values()], dim=1).tanh()  # (B, M, D)
        return self.output_proj((self.gates(features) * units).sum(1))  # (B, D)


FUSIONS: dict[str, type[FusionBase]] = {
    "cross_modal_attention": CrossModalAttentionFusion,
    "bottleneck": BottleneckFusion,
    "gated": GatedFusion,
    "concat": ConcatFusion,
}


def fusion_class(name: str) -> type[FusionBase]:
    """Class of a fusion by its name in the parameters; a CmatError with the nearest name for one that is unknown."""
    if name in FUSIONS:
        return FUSIONS[name]
    raise CmatError(f"fusion.fusion_type: unknown fusion '{name}'{nearest(name, FUSIONS)}")
