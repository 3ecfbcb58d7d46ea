"""Encoders of the topology features: of all together, or of each group apart."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cmat_lib.encoders.plain import MLPEncoder


class TDAEncoder(MLPEncoder):
    """The document's `MLPEncoder` of F topology features."""

    title, stated_size = "TDA encoder", "~61K"

    def __init__(
        self, input_dim: int = 214, output_dim: int = 256, dropout: float = 0.1, hidden_dim: int = 128
    ) -> None:
        super().__init__(input_dim, output_dim, dropout, hidden_dim)


class TDAGroupEncoder(nn.Module):
    """A small `TDAEncoder` of `group_dim` for each group of `cmat_lib.tda.features.feature_groups`, side by side."""

    title = "TDA encoder"

    def __init__(
        self, groups: Mapping[str, slice], group_dim: int = 256, dropout: float = 0.1, hidden_dim: int = 64
    ) -> None:
        super().__init__()
        self.columns = tuple(groups.values())
        self.output_dim = group_dim * len(groups)
        widths = {name: columns.stop - columns.start for name, columns in groups.items()}
        self.groups = nn.ModuleDict({n: TDAEncoder(w, group_dim, dropout, hidden_dim) for n, w in widths.items()})

    def inner_parts(self) -> list[tuple[str, str, str | None]]:
        """Title, prefix of the names of its parameters, and the document's number, of each part."""
        return [(name, f"groups.{name}.", None) for name in self.groups]

    def forward(self, features: Tensor) -> Tensor:
        """Encode topology features group by group: (B, F) to (B, output_dim)."""
        parts = zip(self.groups.values(), self.columns, strict=True)
        return torch.cat([encoder(features[:, columns]) for encoder, columns in parts], dim=1)  # (B, output_dim)
