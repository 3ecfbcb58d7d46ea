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
from cmat_lib.models.fusion_attention import CrossModalAttentionFusion
from cmat_lib.models.fusion_bottleneck import BottleneckFusion
from cmat_lib.models.fusion_gated import GatedFusion
from cmat_lib.models.fusion_tokens import FusionBase, Parts, xavier

if TYPE_CHECKING:
    from cmat_lib.schema import FusionConfig


class Fusion(Protocol):
    """What the model asks of a fusion (which is also an ``nn.Module``).

    Attributes
    ----------
    output_dim : int
        Length of the fused vector.
    parts : dict of str to tuple of str
        Names of the tokens of every modality that the model sees, among which its width is shared.
    token_names : tuple of str
        Names of the M tokens that attend to each other, in order; empty where nothing attends.
    """

    output_dim: int
    parts: dict[str, tuple[str, ...]]
    token_names: tuple[str, ...]

    @classmethod
    def from_config(cls, dims: Mapping[str, int | None], config: FusionConfig, parts: Parts | None = None) -> Self:
        """Build from the modalities' widths (None for one that is not seen), the parameters and the tokens' names."""

    def forward(
        self, nbeats: Tensor | None, tda: Tensor | None, complexity: Tensor | None, clock: Tensor | None = None
    ) -> Tensor:
        """Fuse (B, nbeats_dim), (B, tda_dim), (B, complexity_dim) and (B, clock_dim) to (B, output_dim)."""


class ConcatFusion(FusionBase):
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
    parts : mapping of str to tuple of str, optional
        Names of every modality's tokens, which are concatenated like everything else.

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

    def __init__(
        self,
        nbeats_dim: int | None = 1024,
        tda_dim: int | None = 256,
        complexity_dim: int | None = 64,
        hidden_dim: int = 256,
        dropout: float = 0.3,
        clock_dim: int | None = None,
        parts: Parts | None = None,
    ) -> None:
        dims = {"nbeats": nbeats_dim, "tda": tda_dim, "complexity": complexity_dim, "clock": clock_dim}
        super().__init__(dims, hidden_dim, parts)
        width = sum(dim for dim in dims.values() if dim is not None)
        self.shared_fc = nn.Sequential(
            xavier(nn.Linear(width, 2 * hidden_dim)),
            nn.ReLU(),
            Dropout(dropout),
            xavier(nn.Linear(2 * hidden_dim, hidden_dim)),
            nn.ReLU(),
            Dropout(dropout),
        )

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
