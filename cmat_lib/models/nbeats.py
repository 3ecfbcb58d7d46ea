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
from torch import Tensor, nn

TREND_DEGREE = 3
MAX_HARMONICS = 18


def trend_basis(length: int) -> Tensor:
    """Polynomial basis: row `i` is ``t ** i`` on ``t = arange(length) / length`` (arXiv 1905.10437, eq. 2).

    Parameters
    ----------
    length : int
        Look-back T in candles.

    Returns
    -------
    Tensor, shape (4, T)
        Powers 0 to 3.

    Examples
    --------
    >>> trend_basis(2).tolist()
    [[1.0, 1.0], [0.0, 0.5], [0.0, 0.25], [0.0, 0.125]]
    """
    t = torch.arange(length) / length  # (T,)
    return torch.stack([t**power for power in range(TREND_DEGREE + 1)])  # (4, T)


def seasonality_basis(length: int) -> Tensor:
    """Fourier basis: ``cos(2 pi k t)`` for k = 1, 2, ..., then the sines, without a constant (arXiv 1905.10437, eq. 3).

    Parameters
    ----------
    length : int
        Look-back T in candles.

    Returns
    -------
    Tensor, shape (2 * harmonics, T)
        ``min(18, (T - 1) // 2)`` harmonics: above half the sampling rate they would repeat the lower ones.
    """
    harmonics = min(MAX_HARMONICS, (length - 1) // 2)
    t = torch.arange(length) / length  # (T,)
    angle = 2 * torch.pi * torch.outer(torch.arange(1, harmonics + 1), t)  # (harmonics, T)
    return torch.cat([angle.cos(), angle.sin()])  # (2 * harmonics, T)


BASES = {"trend": trend_basis, "seasonality": seasonality_basis}


class NBEATSBlock(nn.Module):
    """Fully connected block with a feature head and, unless it is the last of all blocks, a backcast.

    Parameters
    ----------
    channels, length : int
        Channels C and look-back T of the window that the flattened input holds.
    width : int
        Width of the fully connected layers.
    num_layers : int
        Fully connected layers, the one that reads the input included.
    feature_dim : int
        Length of the feature vector.
    stack_type : {"trend", "seasonality", "generic"}
        Basis of the backcast; ``generic`` has none, its coefficients are the backcast itself.
    has_backcast : bool
        Whether anything reads the backcast.
    dropout : float
        Dropout after each ReLU.

    Attributes
    ----------
    basis : Tensor, shape (K, T), or None
        Buffer; None for ``generic`` and without a backcast.
    theta : nn.Linear or None
        Coefficients: C * K per sample, C * T for ``generic``.
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
        layers = [(nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout)) for n_in, n_out in pairwise(widths)]
        self.layers = nn.Sequential(*(module for layer in layers for module in layer))
        self.feature_head = nn.Linear(width, feature_dim)
        basis = BASES[stack_type](length) if has_backcast and stack_type in BASES else None  # (K, T)
        # The basis follows from T alone, so a checkpoint need not carry it.
        self.register_buffer("basis", basis, persistent=False)
        coefficients = length if basis is None else len(basis)  # per channel
        self.theta = nn.Linear(width, channels * coefficients) if has_backcast else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features and backcast of a residual.

        Parameters
        ----------
        x : Tensor, shape (B, C * T)
            Residual, channel by channel.

        Returns
        -------
        features : Tensor, shape (B, feature_dim)
        backcast : Tensor, shape (B, C * T), or None
        """
        hidden = self.layers(x)  # (B, width)
        features = self.feature_head(hidden)  # (B, feature_dim)
        if self.theta is None:
            return features, None
        backcast = self.theta(hidden)  # (B, C * K) or (B, C * T)
        if self.basis is not None:
            theta = backcast.unflatten(1, (-1, self.basis.shape[0]))  # (B, C, K)
            backcast = (theta @ self.basis).flatten(1)  # (B, C * T)
        return features, backcast


class NBEATSStack(nn.Module):
    """Blocks in doubly residual order: each subtracts its backcast from the input and adds to the features."""

    def __init__(self, blocks: Sequence[NBEATSBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Summed features of the blocks, and what their backcasts leave of the input.

        Parameters
        ----------
        residual : Tensor, shape (B, C * T)

        Returns
        -------
        features : Tensor, shape (B, feature_dim)
        residual : Tensor, shape (B, C * T)
        """
        total = 0
        for block in self.blocks:
            features, backcast = block(residual)
            total = total + features  # (B, feature_dim)
            if backcast is not None:
                residual = residual - backcast  # (B, C * T)
        return total, residual
