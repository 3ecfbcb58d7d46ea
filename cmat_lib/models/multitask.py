"""The whole model: encoders, fusion and one head per task."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cmat_lib.config import Config
from cmat_lib.models.encoders import ClockEncoder, ComplexityEncoder, OHLCVNBEATSEncoder
from cmat_lib.models.fusion import fusion_class
from cmat_lib.models.fusion_tokens import token_parts, topology_groups
from cmat_lib.models.topology_encoders import TDAEncoder, TDAGroupEncoder
from cmat_lib.schema import AUXILIARY_TARGETS, MODALITIES

HEAD_WIDTH = 32


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is back in its own mode, as frozen encoders may differ."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class Answers(NamedTuple):
    """What the model says of a batch."""

    trigger_logits: Tensor  # (B, 1)
    max_pct: Tensor  # (B, 1), percent
    auxiliary: Tensor | None  # (B, 4), in training standard deviations around the training mean; None without the head


class MultiTaskCrossModalAttention(nn.Module):
    """Probability of a trigger and size of the largest rise, from three views of the market.

    A modality that ``model.modalities`` does not list has no encoder; its input is ignored. With
    ``model.auxiliary_head`` the fused vector first becomes a forecast of `AUXILIARY_TARGETS`, and trigger and max_pct
    are read off these four numbers: dense targets say more than a rare trigger, and so few numbers leave no room to
    learn the training triggers by heart.

    Parameters
    ----------
    config : Config
        Read are the sections data (look-back and channels), tda and complexity (numbers of features), model and fusion.

    Attributes
    ----------
    max_pct_scale : Tensor, shape ()
        Buffer, 1 at first: percent per unit of the head's output. The trainer sets it to the training standard
        deviation, so that the head works on numbers near 1 and `forward` always answers in percent.

    Raises
    ------
    CmatError
        If ``fusion.fusion_type`` is unknown.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        seen, model = config.model.modalities, config.model
        self.ohlcv_encoder = _ohlcv_encoder(config) if "nbeats" in seen else None
        self.tda_encoder = _tda_encoder(config) if "tda" in seen else None
        self.complexity_encoder = (
            ComplexityEncoder(len(config.complexity.names), model.complexity_encoder_dim)
            if "complexity" in seen
            else None
        )
        self.clock_encoder = (
            ClockEncoder(model.clock_encoder_dim, dropout=model.encoder_dropout) if "clock" in seen else None
        )
        dims = {name: None if encoder is None else encoder.output_dim for name, encoder in self.encoders.items()}
        self.fusion = fusion_class(config.fusion.fusion_type).from_config(dims, config.fusion, token_parts(config))
        width, targets = self.fusion.output_dim, len(AUXILIARY_TARGETS)
        self.auxiliary_head = _head(width, targets) if model.auxiliary_head else None
        self.trigger_head = _reading_head(targets) if model.auxiliary_head else _head(width)
        self.max_pct_head = _head(targets if model.auxiliary_head else width)
        self.register_buffer("max_pct_scale", torch.tensor(1.0))

    @torch.no_grad()
    def start_from(self, prior: float, max_pct_std: float) -> None:
        """Give both answers the level of the training part, so that the first steps need not look for it.

        Parameters
        ----------
        prior : float
            Share of triggers, by their weight in the loss: the model's first answer to every sample (Lin et al., arXiv
            1708.02002, section 3.3).
        max_pct_std : float
            Standard deviation of the largest rise, in percent.
        """
        last = self.trigger_head if isinstance(self.trigger_head, nn.Linear) else self.trigger_head[-1]
        last.bias.fill_(math.log(prior / (1 - prior)))
        self.max_pct_scale.fill_(max_pct_std)

    @property
    def encoders(self) -> dict[str, nn.Module | None]:
        """Encoder of each modality, in the order of `MODALITIES`; None for one that the model does not see."""
        found = (self.ohlcv_encoder, self.tda_encoder, self.complexity_encoder, self.clock_encoder)
        return dict(zip(MODALITIES, found, strict=True))

    def encode(
        self, ohlcv: Tensor, tda: Tensor, complexity: Tensor, clock: Tensor | None = None
    ) -> tuple[Tensor | None, ...]:
        """Encoded modalities, as `fusion` takes them.

        Parameters
        ----------
        ohlcv : Tensor, shape (B, T, C)
        tda : Tensor, shape (B, F)
        complexity : Tensor, shape (B, K)
        clock : Tensor, shape (B, 2), optional
            Fraction of the day and of the week; needed by a model that sees the clock.

        Returns
        -------
        tuple of Tensor, shape (B, nbeats_dim), (B, tda_dim), (B, complexity_dim), (B, clock_dim), or None
            None for a modality that the model does not see.
        """
        inputs = (ohlcv, tda, complexity, clock)
        return tuple(None if e is None else e(x) for e, x in zip(self.encoders.values(), inputs, strict=True))

    def answers(self, *inputs: Tensor) -> Answers:
        """All that the model says: `forward`'s answers and the auxiliary forecasts; arguments as for `forward`."""
        return self.read_off(self.fusion(*self.encode(*inputs)))

    def read_off(self, fused: Tensor) -> Answers:
        """What the heads make of fused vectors (B, D)."""
        auxiliary = None if self.auxiliary_head is None else self.auxiliary_head(fused)  # (B, 4)
        read = fused if auxiliary is None else auxiliary
        return Answers(self.trigger_head(read), self.max_pct_scale * self.max_pct_head(read), auxiliary)

    def forward(
        self, ohlcv: Tensor, tda: Tensor, complexity: Tensor, clock: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logit of the trigger and size of the largest rise; arguments as for `encode`.

        Returns
        -------
        trigger_logits : Tensor, shape (B, 1)
        max_pct : Tensor, shape (B, 1)
            In percent.
        """
        trigger_logits, max_pct, _ = self.answers(ohlcv, tda, complexity, clock)
        return trigger_logits, max_pct

    @torch.no_grad()
    def predict(
        self, ohlcv: Tensor, tda: Tensor, complexity: Tensor, clock: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Probability of the trigger and size of the largest rise, in evaluation mode and without gradients.

        Every module is left in the mode it was found in, also when the forward pass raises.

        Arguments as for `encode`.

        Returns
        -------
        probability : Tensor, shape (B, 1)
            Between 0 and 1.
        max_pct : Tensor, shape (B, 1)
            In percent.
        """
        with evaluation_mode(self):
            trigger_logits, max_pct = self(ohlcv, tda, complexity, clock)  # (B, 1), (B, 1)
        return torch.sigmoid(trigger_logits), max_pct

    def get_num_parameters(self) -> tuple[int, int]:
        """Number of trainable parameters and of all."""
        sizes = [(p.numel(), p.requires_grad) for p in self.parameters()]
        return sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes)


def input_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Shape of one sample of each argument of the model's `forward`, in order."""
    return {
        "ohlcv": (config.data.sequence_length, len(config.data.channel_names)),
        "tda": (config.tda.feature_dim,),
        "complexity": (len(config.complexity.names),),
        "clock": (2,),
    }


def build_model(config: Config) -> MultiTaskCrossModalAttention:
    """Model with fresh weights from torch's global random state.

    Raises
    ------
    CmatError
        If ``fusion.fusion_type`` is unknown, naming the nearest valid one.
    """
    return MultiTaskCrossModalAttention(config)


class ParameterRow(NamedTuple):
    """One line of the parameter table; `source` is None where the document gives no number."""

    part: str
    parameters: int
    source: str | None


def parameter_table(model: MultiTaskCrossModalAttention) -> list[ParameterRow]:
    """Parameters of every part, beside what the document states for its own sizes (the defaults).

    Parts that the model does not have are left out; the transformer's layers are alike, the first stands for each.
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    rows = [
        ParameterRow(part, sum(size for name, size in sizes.items() if name.startswith(prefix)), source)
        for part, prefix, source in _table_parts(model)
    ]
    return [row for row in rows if row.parameters]


def _table_parts(model: MultiTaskCrossModalAttention) -> Iterator[tuple[str, str, str | None]]:
    """Title, prefix of the parameter names, and the document's number."""
    stack_types = () if model.ohlcv_encoder is None else model.ohlcv_encoder.stack_types
    groups = getattr(model.tda_encoder, "groups", {})
    layer = "fusion.transformer.layers.0."
    fusion_total = {"cross_modal_attention": "1,990,400", "concat": "820,736"}
    yield "N-BEATS: input norm", "ohlcv_encoder.input_norm.", None
    for number, stack_type in enumerate(stack_types):
        yield f"N-BEATS: stack {number + 1}, {stack_type}", f"ohlcv_encoder.stacks.{number}.", None
    yield "N-BEATS: attention block", "ohlcv_encoder.attention.", None
    yield "N-BEATS encoder", "ohlcv_encoder.", "~13.7M"
    for name in groups:
        yield f"TDA encoder: {name}", f"tda_encoder.groups.{name}.", None
    yield "TDA encoder", "tda_encoder.", None if groups else "~61K"
    yield "Complexity encoder", "complexity_encoder.", "~5K"
    yield "Clock encoder", "clock_encoder.", None
    yield "Fusion: projection of N-BEATS", "fusion.proj_nbeats.", "262,400"
    yield "Fusion: projection of TDA", "fusion.proj_tda.", "65,792"
    yield "Fusion: projection of complexity", "fusion.proj_complexity.", "16,640"
    yield "Fusion: projection of the clock", "fusion.proj_clock.", None
    yield "Fusion: position embedding", "fusion.pos_embedding", "768"
    yield "Fusion: [CLS] token", "fusion.cls_token", None
    yield "Fusion: self-attention, per layer", f"{layer}self_attn.", "263,168"
    yield "Fusion: feed-forward, per layer", f"{layer}linear", "525,312"
    yield "Fusion: norms, per layer", f"{layer}norm", "512 + 512"
    for name in model.fusion.parts:
        yield f"Fusion: layer, part of {name}", f"{layer}own.{name}.", None
    yield "Fusion: layer", layer, "789,504" if model.config.fusion.fusion_type == "cross_modal_attention" else None
    yield "Fusion: gates", "fusion.gate.", None
    yield "Fusion: output projection", "fusion.output_proj.", "65,792"
    yield "Fusion", "fusion.", fusion_total.get(model.config.fusion.fusion_type)
    yield "Auxiliary head", "auxiliary_head.", None
    yield "Trigger head", "trigger_head.", None
    yield "Max-pct head", "max_pct_head.", None
    yield "Model", "", None


def _tda_encoder(config: Config) -> TDAEncoder | TDAGroupEncoder:
    width, dropout = config.model.tda_encoder_dim, config.model.encoder_dropout
    if config.fusion.tokens == "fine":
        return TDAGroupEncoder(topology_groups(config), width, dropout)
    return TDAEncoder(config.tda.feature_dim, width, dropout)


def _ohlcv_encoder(config: Config) -> OHLCVNBEATSEncoder:
    model = config.model
    return OHLCVNBEATSEncoder(
        input_size=config.data.sequence_length,
        hidden_size=model.nbeats_hidden_size,
        num_stacks=model.nbeats_num_stacks,
        num_blocks=model.nbeats_num_blocks,
        num_layers=model.nbeats_num_layers,
        dropout=model.encoder_dropout,
        stack_types=model.nbeats_stack_types,
        num_channels=len(config.data.channel_names),
        use_attention=model.use_attention,
        block_width=model.nbeats_block_width,
    )


def _reading_head(targets: int) -> nn.Linear:
    """Linear reading of the auxiliary forecasts; at the start more of each means that a trigger is likelier."""
    head = nn.Linear(targets, 1)
    nn.init.constant_(head.weight, 1 / targets)
    return head


def _head(width: int, answers: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, HEAD_WIDTH), nn.ReLU(), nn.Linear(HEAD_WIDTH, answers))
