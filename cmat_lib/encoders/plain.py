"""Encoders of the views."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from cmat_lib.config import Config
from cmat_lib.config.schema import NBEATS_ATTENTION_HEADS, STACK_TYPES
from cmat_lib.encoders.dropout import Dropout
from cmat_lib.encoders.nbeats import NBEATSBlock, NBEATSStack

DAY_HARMONICS, WEEK_HARMONICS = 4, 3  # down to periods of 6 hours and of 56 hours
MASK_STD = 0.02  # standard deviation of mask tokens at the start
SATURDAY = 5 / 7  # fraction of the week at which the weekend starts


class AttentionBlock(nn.Module):
    """Pre-norm self-attention over the stacks' outputs, then a pre-norm feed-forward part over their concatenation.

    ``x = x + attention(norm(x))`` over M tokens of ``width / M``, then ``x = x + ffn(norm(x))`` over ``width``
    (Vaswani et al., arXiv 1706.03762; pre-norm: Xiong et al., arXiv 2002.04745). `token_norm` and `self_attn` are
    public, so that attention maps can be read. Tokens times heads must divide the width (ValueError).
    """

    def __init__(self, width: int, num_tokens: int, num_heads: int = NBEATS_ATTENTION_HEADS, dropout: float = 0.1):
        super().__init__()
        if width % (num_tokens * num_heads):
            raise ValueError(f"width {width} must be a multiple of {num_tokens} tokens times {num_heads} heads")
        token_width = width // num_tokens
        self.token_norm = nn.LayerNorm(token_width)
        self.self_attn = nn.MultiheadAttention(token_width, num_heads, dropout=dropout, batch_first=True)
        self.ffn_norm = nn.LayerNorm(width)
        wide = (nn.Linear(width, 2 * width), nn.GELU(), Dropout(dropout))
        self.ffn = nn.Sequential(*wide, nn.Linear(2 * width, width), Dropout(dropout))

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix the tokens: (B, M, width / M) to (B, width)."""
        h = self.token_norm(tokens)  # (B, M, width / M)
        attended, _ = self.self_attn(h, h, h, need_weights=False)  # (B, M, width / M)
        x = (tokens + attended).flatten(1)  # (B, width)
        return x + self.ffn(self.ffn_norm(x))  # (B, width)


class OHLCVNBEATSEncoder(nn.Module):
    """N-BEATS stacks on a window of candles, one token per stack, and self-attention over these tokens.

    The document's ``output_size`` is dropped: an encoder has no forecast, so nothing would read it.

    Parameters
    ----------
    input_size : int
        Look-back T.
    hidden_size : int
        Length of the output, of which every stack yields ``hidden_size / num_stacks``.
    stack_types : sequence of {'trend', 'seasonality', 'generic'}
        Basis of each stack.
    num_channels : int
        Channels C.
    use_attention : bool
        Without it the output is the stacks' concatenation.

    Raises
    ------
    ValueError
        If the stack types do not match the stacks, or the hidden size cannot be shared among stacks and heads.
    """

    title, stated_size = "N-BEATS encoder", "~13.7M"

    def __init__(
        self,
        input_size: int = 96,
        hidden_size: int = 1024,
        num_stacks: int = 4,
        num_blocks: int = 6,
        num_layers: int = 6,
        dropout: float = 0.1,
        stack_types: Sequence[str] = ("trend", "seasonality", "generic", "generic"),
        num_channels: int = 14,
        use_attention: bool = True,
        block_width: int = 128,
    ) -> None:
        super().__init__()
        if unknown := sorted(set(stack_types) - set(STACK_TYPES)):
            raise ValueError(f"stack_types: unknown {', '.join(unknown)}; valid are {', '.join(STACK_TYPES)}")
        if len(stack_types) != num_stacks:
            raise ValueError(f"num_stacks is {num_stacks}, stack_types lists {len(stack_types)}")
        if hidden_size % num_stacks:
            raise ValueError(f"hidden_size {hidden_size} must be a multiple of num_stacks {num_stacks}")
        self.stack_types, self.output_dim = tuple(stack_types), hidden_size
        self.input_norm = nn.BatchNorm1d(num_channels)
        shape = (num_channels, input_size, block_width, num_layers, hidden_size // num_stacks)
        self.stacks, last = nn.ModuleList(), num_stacks * num_blocks - 1  # whose backcast nothing reads
        for stack, kind in enumerate(stack_types):
            is_read = [stack * num_blocks + block < last for block in range(num_blocks)]
            self.stacks.append(NBEATSStack([NBEATSBlock(*shape, kind, read, dropout) for read in is_read]))
        self.attention = AttentionBlock(hidden_size, num_stacks, dropout=dropout) if use_attention else None

    def inner_parts(self) -> list[tuple[str, str, str | None]]:
        """Title, prefix of the names of its parameters, and the document's number, of each part."""
        stacks = [(f"stack {n + 1}, {kind}", f"stacks.{n}.", None) for n, kind in enumerate(self.stack_types)]
        return [("input norm", "input_norm.", None), *stacks, ("attention block", "attention.", None)]

    def flatten_window(self, ohlcv: Tensor) -> Tensor:
        """Normalise each channel and lay the window out channel by channel: (B, T, C) to (B, C * T)."""
        return self.input_norm(ohlcv.transpose(1, 2)).flatten(1)  # (B, C * T)

    def stack_tokens(self, ohlcv: Tensor) -> Tensor:
        """Output of every stack, before they attend to each other: (B, T, C) to (B, stacks, hidden_size / stacks)."""
        residual, tokens = self.flatten_window(ohlcv), []  # (B, C * T)
        for stack in self.stacks:
            features, residual = stack(residual)
            tokens.append(features)
        return torch.stack(tokens, dim=1)  # (B, stacks, hidden_size / stacks)

    def forward(self, ohlcv: Tensor) -> Tensor:
        """Encode OHLCV windows: (B, T, C) to (B, hidden_size)."""
        tokens = self.stack_tokens(ohlcv)  # (B, stacks, hidden_size / stacks)
        return tokens.flatten(1) if self.attention is None else self.attention(tokens)  # (B, hidden_size)


def numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Names of the stacks: their types; a type that occurs more than once is numbered.

    >>> numbered(["trend", "generic", "generic"])
    ('trend', 'generic 1', 'generic 2')
    """
    names = list(names)
    return tuple(f"{n} {names[: i + 1].count(n)}" if names.count(n) > 1 else n for i, n in enumerate(names))


class MLPEncoder(nn.Module):
    """Two linear layers on F numbers, `input_dim` F → `hidden_dim` → `output_dim`, ReLU after each, dropout between."""

    def __init__(self, input_dim: int, output_dim: int = 64, dropout: float = 0.0, hidden_dim: int = 64) -> None:
        super().__init__()
        self.output_dim = output_dim
        first = [nn.Linear(input_dim, hidden_dim), nn.ReLU(), *([Dropout(dropout)] if dropout else [])]
        self.layers = nn.Sequential(*first, nn.Linear(hidden_dim, output_dim), nn.ReLU())

    def forward(self, features: Tensor) -> Tensor:
        """Encode features: (B, F) to (B, output_dim)."""
        return self.layers(features)  # (B, output_dim)


class ClockEncoder(MLPEncoder):
    """Harmonics of the day and of the week, and whether it is the weekend; then two linear layers, ReLU after each."""

    def __init__(self, output_dim: int = 64, hidden_dim: int = 64, dropout: float = 0.1) -> None:
        super().__init__(2 * (DAY_HARMONICS + WEEK_HARMONICS) + 1, output_dim, dropout, hidden_dim)
        for name, count in (("day", DAY_HARMONICS), ("week", WEEK_HARMONICS)):
            self.register_buffer(name, 2 * torch.pi * torch.arange(1, count + 1), persistent=False)

    def forward(self, clock: Tensor) -> Tensor:
        """Encode times: (B, 2), fractions of the day and of the week in [0, 1), to (B, output_dim)."""
        angles = torch.cat([clock[:, :1] * self.day, clock[:, 1:] * self.week], dim=1)  # (B, harmonics)
        weekend = (clock[:, 1:] >= SATURDAY).to(angles.dtype)  # (B, 1)
        return self.layers(torch.cat([angles.sin(), angles.cos(), weekend], dim=1))  # (B, output_dim)


class ComplexityEncoder(MLPEncoder):
    """The document's `MLPEncoder` of K complexity indicators, without dropout."""

    title, stated_size = "Complexity encoder", "~5K"

    def __init__(self, input_dim: int = 6, output_dim: int = 64, hidden_dim: int = 64) -> None:
        super().__init__(input_dim, output_dim, hidden_dim=hidden_dim)


class TDAEncoder(MLPEncoder):
    """The document's `MLPEncoder` of F topology features."""

    title, stated_size = "TDA encoder", "~61K"

    def __init__(self, input_dim: int = 214, output_dim: int = 256, dropout: float = 0.1, hidden_dim: int = 128):
        super().__init__(input_dim, output_dim, dropout, hidden_dim)


class TDAGroupEncoder(nn.Module):
    """A small `TDAEncoder` of `group_dim` for each group of `cmat_lib.tda.features.feature_groups`, side by side."""

    title = "TDA encoder"

    def __init__(self, groups: Mapping[str, slice], group_dim: int = 256, dropout: float = 0.1, hidden_dim: int = 64):
        super().__init__()
        self.columns, self.output_dim = tuple(groups.values()), group_dim * len(groups)
        widths = {name: columns.stop - columns.start for name, columns in groups.items()}
        self.groups = nn.ModuleDict({n: TDAEncoder(w, group_dim, dropout, hidden_dim) for n, w in widths.items()})

    def inner_parts(self) -> list[tuple[str, str, str | None]]:
        """Title, prefix of the names of its parameters, and the document's number, of each part."""
        return [(name, f"groups.{name}.", None) for name in self.groups]

    def forward(self, features: Tensor) -> Tensor:
        """Encode topology features group by group: (B, F) to (B, output_dim)."""
        parts = zip(self.groups.values(), self.columns, strict=True)
        return torch.cat([encoder(features[:, columns]) for encoder, columns in parts], dim=1)  # (B, output_dim)


class GRUEncoder(nn.Module):
    """Last state of a gated recurrent unit over L rows (Cho et al., arXiv 1406.1078): (B, L, F) to (B, output_dim)."""

    def __init__(self, input_dim: int, output_dim: int = 64) -> None:
        super().__init__()
        self.output_dim = output_dim
        self.gru = nn.GRU(input_dim, output_dim, batch_first=True)

    def forward(self, rows: Tensor) -> Tensor:
        """Encode rows, oldest first."""
        return self.gru(rows)[1][0]  # (B, output_dim)


def nbeats_encoder(features: int, rows: int, hidden_size: int, use_attention: bool, config: Config) -> nn.Module:
    """N-BEATS on windows of F features and L rows, with the stacks of the section ``model``."""
    keys = ("num_stacks", "num_blocks", "num_layers", "stack_types", "block_width")
    shape = {key: getattr(config.model, f"nbeats_{key}") for key in keys} | {"num_channels": features}
    dropout = config.model.encoder_dropout
    return OHLCVNBEATSEncoder(rows, hidden_size, dropout=dropout, use_attention=use_attention, **shape)


def _nbeats_of_rows(features: int, rows: int, config: Config) -> nn.Module:
    encoder = nbeats_encoder(features, rows, config.model.view_encoder_dim, False, config)
    encoder.input_norm = nn.Identity()  # rows that are absent must not count in the statistics of a batch
    return encoder


# Encoders of tables by name: of F features and L rows, (B, L, F) -> (B, output_dim); mlp reads one row, (B, F).
ENCODERS: dict[str, Callable[[int, int, Config], nn.Module]] = {
    "mlp": lambda f, rows, config: MLPEncoder(f, config.model.view_encoder_dim, config.model.encoder_dropout),
    "gru": lambda f, rows, config: GRUEncoder(f, config.model.view_encoder_dim),
    "nbeats": _nbeats_of_rows,
}


class MaskedEncoder(nn.Module):
    """An encoder of a view that may have nothing to show: where its numbers are NaN, a learned mask token stands."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.output_dim = encoder, encoder.output_dim
        self.absent = nn.Parameter(MASK_STD * torch.randn(encoder.output_dim))

    def forward(self, numbers: Tensor) -> Tensor:
        """Encode (B, F) or (B, L, F) to (B, output_dim)."""
        is_there = ~numbers.flatten(1).isnan().any(dim=1, keepdim=True)  # (B, 1)
        return torch.where(is_there, self.encoder(numbers.nan_to_num()), self.absent)
