"""N-BEATS blocks and stacks: fully connected blocks that explain their input away and hand on features.

References
----------
Oreshkin, Carpov, Chapados, Bengio, *N-BEATS: Neural basis expansion analysis for interpretable time series
forecasting*, arXiv 1905.10437, sections 3.1 (block), 3.2 (doubly residual stacking), 3.3 (trend and seasonality bases).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmat_lib.encoders.dropout import Dropout

TREND_DEGREE = 3
MAX_HARMONICS = 18


def trend_basis(length: int) -> Tensor:
    """Polynomial basis: row `i` is ``t ** i`` on ``t = arange(length) / length`` (arXiv 1905.10437, eq. 2).

    Shape (4, T) for a look-back of `length` T candles: powers 0 to 3.

    Examples
    --------
    >>> trend_basis(2).tolist()
    [[1.0, 1.0], [0.0, 0.5], [0.0, 0.25], [0.0, 0.125]]
    """
    t = torch.arange(length) / length  # (T,)
    return torch.stack([t**power for power in range(TREND_DEGREE + 1)])  # (4, T)


def seasonality_basis(length: int) -> Tensor:
    """Fourier basis: ``cos(2 pi k t)`` for k = 1, 2, ..., then the sines, without a constant (arXiv 1905.10437, eq. 3).

    Shape (2 * harmonics, T) for a look-back of `length` T candles, ``min(18, (T - 1) // 2)`` harmonics: above half the
    sampling rate they would repeat the lower ones.
    """
    harmonics = min(MAX_HARMONICS, (length - 1) // 2)
    t = torch.arange(length) / length  # (T,)
    angle = 2 * torch.pi * torch.outer(torch.arange(1, harmonics + 1), t)  # (harmonics, T)
    return torch.cat([angle.cos(), angle.sin()])  # (2 * harmonics, T)


BASES = {"trend": trend_basis, "seasonality": seasonality_basis}


class NBEATSBlock(nn.Module):
    """Layers of one fully connected block: trunk, feature head, and backcast; `NBEATSStack` runs them.

    `theta` gives the coefficients of the backcast, C * K per sample; it is None without `has_backcast`, that is for the
    last of all blocks, whose backcast nothing reads. `basis` (K, T) is None then, and for the stack type ``generic``,
    whose C * T coefficients are the backcast itself.
    """

    def __init__(
        self,
        channels: int,
        length: int,
        width: int,
        num_layers: int,
        feature_dim: int,
        stack_type: str,
        has_backcast: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        widths = [channels * length, *[width] * num_layers]
        layers = [(nn.Linear(n_in, n_out), nn.ReLU(), Dropout(dropout)) for n_in, n_out in pairwise(widths)]
        self.layers = nn.Sequential(*(module for layer in layers for module in layer))
        self.feature_head = nn.Linear(width, feature_dim)
        basis = BASES[stack_type](length) if has_backcast and stack_type in BASES else None  # (K, T)
        # The basis follows from T alone, so a checkpoint need not carry it.
        self.register_buffer("basis", basis, persistent=False)
        coefficients = length if basis is None else len(basis)  # per channel
        self.theta = nn.Linear(width, channels * coefficients) if has_backcast else None

    def expand(self, theta: Tensor) -> Tensor:
        """Backcast of coefficients: (B, C * K) to (B, C * T)."""
        if self.basis is None:
            return theta
        return (theta.unflatten(1, (-1, len(self.basis))) @ self.basis).flatten(1)  # (B, C * T)

    def read_coefficients(self) -> Tensor:
        """Weights by which the first layer reads an expanded backcast, from its coefficients: (width, C * K)."""
        weight = self.layers[0].weight  # (width, C * T)
        return (weight.unflatten(1, (-1, self.basis.shape[1])) @ self.basis.T).flatten(1)  # (width, C * K)


class NBEATSStack(nn.Module):
    """Blocks in doubly residual order: each subtracts its backcast from the input and adds to the features.

    Written out, a block reads what the backcasts before it have left, and every block writes a backcast of C * T
    numbers. Two identities save most of that traffic without changing the function:

    - the features of a stack are a sum of linear heads, and so one product with all heads side by side;
    - blocks of a basis write backcasts ``theta @ basis``, and reading them is linear too: ``W (x - theta @ basis)
      = W x - (W @ basis.T) theta``. So all blocks read the stack's input in one product, hand on the K coefficients per
      channel, and the sum of the backcasts is expanded once, at the end.
    """

    def __init__(self, blocks: Sequence[NBEATSBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the blocks' features (B, feature_dim), and what their backcasts leave of the input, (B, C * T)."""
        with_basis = all(block.basis is not None for block in self.blocks)
        hidden, residual = (self._run_in_basis if with_basis else self._run_generic)(residual)
        weight = torch.cat([block.feature_head.weight for block in self.blocks], dim=1)  # (feature_dim, n * width)
        bias = torch.stack([block.feature_head.bias for block in self.blocks]).sum(0)  # (feature_dim,)
        return F.linear(torch.cat(hidden, dim=1), weight, bias), residual

    def _run_generic(self, residual: Tensor) -> tuple[list[Tensor], Tensor]:
        """Last hidden layer of every block, (B, width) each, and the residual (B, C * T)."""
        hidden = []
        for block in self.blocks:
            hidden.append(block.layers(residual))
            if block.theta is not None:
                residual = residual - block.expand(block.theta(hidden[-1]))  # (B, C * T)
        return hidden, residual

    def _run_in_basis(self, residual: Tensor) -> tuple[list[Tensor], Tensor]:
        """As `_run_generic`, for blocks that all write in one basis."""
        firsts = [block.layers[0] for block in self.blocks]
        weight, bias = torch.cat([f.weight for f in firsts]), torch.cat([f.bias for f in firsts])
        reads = F.linear(residual, weight, bias).chunk(len(firsts), dim=1)  # (B, width) each
        hidden, theta = [], None  # (B, C * K), sum over the blocks so far
        for block, read in zip(self.blocks, reads, strict=True):
            first = read if theta is None else read - F.linear(theta, block.read_coefficients())  # (B, width)
            hidden.append(block.layers[1:](first))
            coefficients = block.theta(hidden[-1])  # (B, C * K)
            theta = coefficients if theta is None else theta + coefficients
        return hidden, residual - self.blocks[0].expand(theta)
