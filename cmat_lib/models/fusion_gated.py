"""Fusion by gates: how much of each modality goes into the fused vector, decided by all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cmat_lib.models.fusion_tokens import Parts, TokenFusion, output_projection, xavier


class GatedFusion(TokenFusion):
    """Gated multimodal unit, ``sum_i sigmoid(W_i [x_1 ... x_M]) * tanh(V_i x_i)``, then linear, ReLU, dropout.

    Arevalo et al., *Gated Multimodal Units for Information Fusion*, arXiv 1702.01992, section 3.1 (figure 2a). Every
    unit has its own gate; gates lie between 0 and 1 and need not sum to 1. An unseen modality has no gate.

    Parameters
    ----------
    nbeats_dim, tda_dim, complexity_dim : int or None
        Widths of the encoded modalities; None for one that the model does not see.
    hidden_dim : int
        Units D.
    dropout : float
        Dropout of the output projection.
    clock_dim : int or None
        Width of the encoded clock; None without one.
    parts : mapping of str to tuple of str, optional
        Names of every modality's tokens, among which its width is shared; by default one token each.

    Attributes
    ----------
    gate_names : tuple of str
        Names of the M tokens that are gated, in order.
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
        self.gate_names = tuple(token for names in self.parts.values() for token in names)
        width = sum(dim for dim in dims.values() if dim is not None)
        self.gate = xavier(nn.Linear(width, len(self.gate_names) * hidden_dim))
        self.output_proj = output_projection(hidden_dim, dropout)

    def gates(
        self, nbeats: Tensor | None, tda: Tensor | None, complexity: Tensor | None, clock: Tensor | None = None
    ) -> Tensor:
        """Gate of every unit, between 0 and 1: (B, M, D); arguments as for `forward`."""
        seen = [x for x in (nbeats, tda, complexity, clock) if x is not None]
        return self.gate(torch.cat(seen, dim=1)).sigmoid().unflatten(1, (len(self.gate_names), -1))  # (B, M, D)

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
        projected = self.project({"nbeats": nbeats, "tda": tda, "complexity": complexity, "clock": clock})
        units = torch.cat([*projected.values()], dim=1).tanh()  # (B, M, D)
        return self.output_proj((self.gates(nbeats, tda, complexity, clock) * units).sum(1))  # (B, D)
