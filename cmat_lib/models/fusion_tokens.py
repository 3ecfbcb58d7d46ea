"""Modalities as tokens: the projections that fusions share, and the layers they are built of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from cmat_lib.models.dropout import Dropout
from cmat_lib.models.encoders import numbered
from cmat_lib.schema import MODALITIES, SOURCE_MODALITIES

if TYPE_CHECKING:
    from cmat_lib.config import Config
    from cmat_lib.schema import FusionConfig

INIT_STD = 0.02  # standard deviation of positions and [CLS] at the start
Parts = Mapping[str, tuple[str, ...]]  # modality -> names of its tokens
WHOLE: Parts = {name: (name,) for name in MODALITIES}  # a token for each modality
Width = int | None  # of an encoded modality; None for one that the model does not see
Seen = Tensor | None  # an encoded modality, (B, width); None for one that the model does not see


def beside(*views: Seen) -> Tensor:
    """Modalities that the model sees, one behind the other: (B, sum of widths)."""
    return torch.cat([view for view in views if view is not None], dim=1)


class FusionBase(nn.Module):
    """What every fusion knows: the widths that come in, the width that goes out, and the names of the tokens.

    All fusions take the widths as ``nbeats_dim``, ``tda_dim``, ``complexity_dim`` and ``clock_dim``, and `hidden_dim`,
    `dropout` and `parts`; their own docstrings name what they take beside these. ``forward`` reads the encoded
    modalities (B, nbeats_dim), (B, tda_dim), (B, complexity_dim), (B, clock_dim), or None, and gives (B, D).

    Parameters
    ----------
    dims : mapping of str to int or None
        Widths of the encoded modalities, their pieces together; None for one that the model does not see.
    hidden_dim : int
        Length D of the fused vector, which `output_dim` repeats.
    parts : mapping of str to tuple of str, optional
        Names of every modality's tokens, among which its width is shared; by default one token of the modality's name.

    Attributes
    ----------
    parts : dict of str to tuple of str
        Names of the tokens of every modality that the model sees.
    settings : tuple of str
        Keys of the section ``fusion`` that are arguments of the class.

    Raises
    ------
    ValueError
        If nbeats, tda and complexity are all None.
    """

    token_names: tuple[str, ...] = ()
    settings: tuple[str, ...] = ("hidden_dim", "dropout")

    def __init__(self, dims: Mapping[str, int | None], hidden_dim: int, parts: Parts | None = None) -> None:
        super().__init__()
        if all(dims.get(name) is None for name in SOURCE_MODALITIES):
            raise ValueError("a fusion needs at least one modality; nbeats_dim, tda_dim, complexity_dim are all None")
        names = WHOLE if parts is None else parts
        self.output_dim = hidden_dim
        self.parts = {name: tuple(names[name]) for name in MODALITIES if dims.get(name) is not None}

    @classmethod
    def from_config(cls, dims: Mapping[str, int | None], config: FusionConfig, parts: Parts | None = None) -> Self:
        """Build from the modalities' widths (None for one that is not seen), the parameters and the tokens' names."""
        widths = {f"{name}_dim": dims.get(name) for name in MODALITIES}
        return cls(**widths, parts=parts, **{key: getattr(config, key) for key in cls.settings})


class TokenFusion(FusionBase):
    """Base of fusions that project every modality to one or several tokens of equal width.

    A modality of G tokens is a vector of G equal pieces; its pieces share one projection.

    Parameters
    ----------
    dims, hidden_dim, parts
        As for `FusionBase`; the fused vector is as wide as a token.

    Raises
    ------
    ValueError
        If nbeats, tda and complexity are all None, or a width is no multiple of its number of tokens.
    """

    def __init__(self, dims: Mapping[str, int | None], hidden_dim: int, parts: Parts | None = None) -> None:
        super().__init__(dims, hidden_dim, parts)
        names = WHOLE if parts is None else parts
        for name in MODALITIES:
            setattr(self, f"proj_{name}", _projection(dims.get(name), len(names[name]), hidden_dim))

    def project(self, features: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Tokens of every modality that the model sees, without positions.

        Parameters
        ----------
        features : mapping of str to Tensor, shape (B, width), or None

        Returns
        -------
        dict of str to Tensor, shape (B, G, D)
        """
        pieces = {name: features[name].unflatten(1, (len(names), -1)) for name, names in self.parts.items()}
        return {name: getattr(self, f"proj_{name}")(piece) for name, piece in pieces.items()}


class AttendingFusion(TokenFusion):
    """Base of fusions that have ``tokens``, a ``transformer`` over them, and ``pool`` for what it makes of them.

    Beside the arguments of `FusionBase` they take `num_heads` h, `num_layers`, `ffn_dim` (width of the feed-forward
    part), and `dropout` for the layers and the output projection; the heads must divide the width (ValueError).
    """

    settings = ("hidden_dim", "num_heads", "num_layers", "ffn_dim", "dropout")

    def forward(self, nbeats: Seen, tda: Seen, complexity: Seen, clock: Seen = None) -> Tensor:
        """Fuse the modalities to (B, D)."""
        return self.pool(self.transformer(self.tokens(nbeats, tda, complexity, clock)))  # (B, D)


def token_parts(config: Config) -> Parts:
    """Names of the tokens of every modality, by ``fusion.tokens``.

    ``fine``: the N-BEATS stacks and the groups of topology features are a token each; with ``model.use_attention`` the
    stacks have exchanged something before they become tokens.
    """
    if config.fusion.tokens == "modality":
        return WHOLE
    return {**WHOLE, "nbeats": numbered(config.model.nbeats_stack_types), "tda": tuple(topology_groups(config))}


def topology_groups(config: Config) -> dict[str, slice]:
    """Columns of each group of topology features, see `cmat_lib.tda.features.feature_groups`."""
    from cmat_lib.tda.features import feature_groups  # numba, which a model does not need otherwise

    return feature_groups(config.tda)


def xavier(linear: nn.Linear) -> nn.Linear:
    """The layer itself, its weights drawn by Glorot's uniform rule and its bias 0."""
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def output_projection(hidden_dim: int, dropout: float) -> nn.Sequential:
    """Linear, ReLU, dropout of one width."""
    return nn.Sequential(xavier(nn.Linear(hidden_dim, hidden_dim)), nn.ReLU(), Dropout(dropout))


def positions(count: int, hidden_dim: int) -> nn.Parameter:
    """Learned vectors, (1, count, D)."""
    return nn.Parameter(INIT_STD * torch.randn(1, count, hidden_dim))


def transformer_layer(hidden_dim: int, num_heads: int, ffn_dim: int, dropout: float) -> nn.TransformerEncoderLayer:
    """Pre-norm GELU layer with the fast dropout.

    Raises
    ------
    ValueError
        If the heads do not divide the width.
    """
    if hidden_dim % num_heads:
        raise ValueError(f"num_heads {num_heads} does not divide hidden_dim {hidden_dim}")
    layer = nn.TransformerEncoderLayer(
        hidden_dim, num_heads, ffn_dim, dropout, activation="gelu", batch_first=True, norm_first=True
    )
    layer.dropout, layer.dropout1, layer.dropout2 = Dropout(dropout), Dropout(dropout), Dropout(dropout)
    return layer


def _projection(dim: int | None, tokens: int, hidden_dim: int) -> nn.Linear | None:
    if dim is None:
        return None
    if dim % tokens:
        raise ValueError(f"a width of {dim} cannot be shared among {tokens} tokens")
    return xavier(nn.Linear(dim // tokens, hidden_dim))
