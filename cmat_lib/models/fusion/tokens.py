"""Views as tokens: the projections that fusions share, and the layers they are built of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn

from cmat_lib.config.schema import SOURCE_MODALITIES
from cmat_lib.encoders.dropout import Dropout

if TYPE_CHECKING:
    from cmat_lib.config.schema import FusionConfig

INIT_STD = 0.02  # standard deviation of positions, [CLS] and mask tokens at the start
Parts = Mapping[str, tuple[str, ...]]  # view -> names of its tokens, for those that have several
Width = int | None  # of an encoded view; None for one that the model does not see
Seen = Tensor | None  # an encoded view, (B, width); None for one that the model does not see
Features = Mapping[str, Tensor]  # encoded views that the model sees, (B, width) each


class FusionBase(nn.Module):
    """What every fusion knows: the widths that come in, the width that goes out, and the names of the tokens.

    A class defines `fuse`, which the call of the module ends in, and takes what its docstring and `settings` name
    beside the arguments here, which it hands on.

    Parameters
    ----------
    nbeats_dim, tda_dim, complexity_dim : int or None
        Widths of the source's three views, encoded, their pieces together; None for one that the model does not see.
        A ValueError if nothing is seen.
    hidden_dim : int
        Length D of the fused vector, which `output_dim` repeats.
    others : mapping of str to int, optional
        Widths of the other views that the model sees.
    parts : mapping of str to tuple of str, optional
        Names of the tokens of views that have several, among which their width is shared; afterwards those of every
        view that the model sees.
    """

    token_names: tuple[str, ...] = ()  # of the M tokens that attend to each other, in order
    # What the document states of its own sizes: weights of the projections, of a layer, of the whole.
    stated_sizes: ClassVar = dict(zip(SOURCE_MODALITIES, ("262,400", "65,792", "16,640"), strict=True))
    settings: tuple[str, ...] = ("hidden_dim", "dropout")  # keys of the section fusion that are arguments

    def __init__(
        self,
        nbeats_dim: Width = 1024,
        tda_dim: Width = 256,
        complexity_dim: Width = 64,
        hidden_dim: int = 256,
        others: Mapping[str, int] | None = None,
        parts: Parts | None = None,
    ) -> None:
        super().__init__()
        dims = dict(zip(SOURCE_MODALITIES, (nbeats_dim, tda_dim, complexity_dim), strict=True)) | dict(others or {})
        self.dims = {name: dim for name, dim in dims.items() if dim is not None}
        if not self.dims:
            raise ValueError("a fusion needs at least one view; nbeats_dim, tda_dim, complexity_dim are all None")
        self.output_dim = hidden_dim
        self.rows = {name: tuple((parts or {}).get(name, (name,))) for name in dims}  # tokens, also of unseen views
        self.parts = {name: self.rows[name] for name in self.dims}

    @classmethod
    def from_config(cls, dims: Mapping[str, int], config: FusionConfig, parts: Parts | None = None) -> Self:
        """Build from the widths of the views that are seen, the parameters and the names of their tokens."""
        widths = {f"{name}_dim": dims.get(name) for name in SOURCE_MODALITIES}
        others = {name: dim for name, dim in dims.items() if name not in SOURCE_MODALITIES}
        return cls(**widths, others=others, parts=parts, **{key: getattr(config, key) for key in cls.settings})

    def forward(self, nbeats: Seen = None, tda: Seen = None, complexity: Seen = None, **others: Tensor) -> Tensor:
        """Fuse encoded views, (B, width) each, to (B, D); one that the model does not see is None or left out."""
        given = dict(zip(SOURCE_MODALITIES, (nbeats, tda, complexity), strict=True)) | others
        return self.fuse({name: given[name] for name in self.dims})

    def fuse(self, features: Features) -> Tensor:
        """The same of a mapping, in the order of `parts`."""
        raise NotImplementedError


class TokenFusion(FusionBase):
    """Base of fusions that project every view to one or several tokens of equal width; takes what `FusionBase` takes.

    A view of G tokens is a vector of G equal pieces; its pieces share one projection. A width that is no multiple of
    its number of tokens is a ValueError.
    """

    def __init__(self, *dims: Width, **wiring) -> None:
        super().__init__(*dims, **wiring)
        for name, dim in self.dims.items():
            tokens = len(self.parts[name])
            if dim % tokens:
                raise ValueError(f"a width of {dim} cannot be shared among {tokens} tokens")
            setattr(self, f"proj_{name}", xavier(nn.Linear(dim // tokens, self.output_dim)))

    def project(self, features: Features) -> dict[str, Tensor]:
        """Tokens of every view that the model sees, without positions: (B, G, D) each."""
        pieces = {name: features[name].unflatten(1, (len(names), -1)) for name, names in self.parts.items()}
        return {name: getattr(self, f"proj_{name}")(piece) for name, piece in pieces.items()}


class AttendingFusion(TokenFusion):
    """Base of fusions that have ``tokens``, a ``transformer`` over them, and ``pool`` for what it makes of them.

    The `num_heads` h must divide the width (ValueError); `ffn_dim` is the width of the feed-forward part, `dropout`
    that of the layers and the output projection. A class ends its constructor with `add_layers`, once its tokens are
    there.
    """

    settings = ("hidden_dim", "num_heads", "num_layers", "ffn_dim", "dropout")

    def __init__(
        self,
        *dims: Width,
        num_heads: int = 8,
        num_layers: int = 2,
        ffn_dim: int = 1024,
        dropout: float = 0.3,
        **wiring,
    ) -> None:
        super().__init__(*dims, **wiring)
        self.new_layer = partial(transformer_layer, self.output_dim, num_heads, ffn_dim, dropout)
        self.num_layers, self.dropout = num_layers, dropout

    def add_layers(self, new_layer: Callable[[], nn.Module]) -> None:
        """Make the layers, which start apart from each other, and the output projection."""
        self.transformer = Layers(new_layer() for _ in range(self.num_layers))
        self.output_proj = output_projection(self.output_dim, self.dropout)

    def fuse(self, features: Features) -> Tensor:
        """Fuse the views to (B, D)."""
        return self.pool(self.transformer(self.tokens(features)))  # (B, D)


class Layers(nn.Module):
    """One layer after the other, each (B, M, D) to (B, M, D); without the final norm of `nn.TransformerEncoder`."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens after all layers."""
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens


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
    """Pre-norm GELU layer with the fast dropout; a ValueError if the heads do not divide the width."""
    if hidden_dim % num_heads:
        raise ValueError(f"num_heads {num_heads} does not divide hidden_dim {hidden_dim}")
    kind = {"activation": "gelu", "batch_first": True, "norm_first": True}
    layer = nn.TransformerEncoderLayer(hidden_dim, num_heads, ffn_dim, dropout, **kind)
    layer.dropout, layer.dropout1, layer.dropout2 = Dropout(dropout), Dropout(dropout), Dropout(dropout)
    return layer
