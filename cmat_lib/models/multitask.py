"""The whole model: encoders, fusion and one head per task; and how many parameters every part of it has."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cmat_lib.config import Config
from cmat_lib.config.schema import AUXILIARY_TARGETS, SOURCE_MODALITIES
from cmat_lib.encoders.plain import ENCODERS, MaskedEncoder
from cmat_lib.models.fusion import fusion_class
from cmat_lib.views import VIEWS, View

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
    """Probability of a trigger and size of the largest rise, from several views of the market.

    `encoders` has the encoder of each view that the model sees, by name; other inputs are ignored. With
    ``model.auxiliary_head`` the fused vector first becomes a forecast of `AUXILIARY_TARGETS`, and trigger and max_pct
    are read off these four numbers: dense targets say more than a rare trigger, and so few numbers leave no room to
    learn the training triggers by heart. The buffer `max_pct_scale` () is percent per unit of the head's output: 1 at
    first, then the training standard deviation, so that the head works on numbers near 1.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleDict({view.name: _encoder(view, config) for view in VIEWS.seen(config)})
        dims = {name: encoder.output_dim for name, encoder in self.encoders.items()}
        is_fine = config.fusion.tokens == "fine"
        parts = {view.name: view.tokens(config) for view in VIEWS.known(config).values() if is_fine and view.tokens}
        self.fusion = fusion_class(config.fusion.fusion_type).from_config(dims, config.fusion, parts)
        width, targets, has_forecast = self.fusion.output_dim, len(AUXILIARY_TARGETS), config.model.auxiliary_head
        self.auxiliary_head = _head(width, targets) if has_forecast else None
        self.trigger_head = nn.Linear(targets, 1) if has_forecast else _head(width)
        if has_forecast:  # at the start more of each forecast means that a trigger is likelier
            nn.init.constant_(self.trigger_head.weight, 1 / targets)
        self.max_pct_head = _head(targets if has_forecast else width)
        self.register_buffer("max_pct_scale", torch.tensor(1.0))

    @torch.no_grad()
    def start_from(self, prior: float, max_pct_std: float) -> None:
        """Give both answers the level of the training part, so that the first steps need not look for it.

        `prior` is the share of triggers, by their weight in the loss: the model's first answer to every sample (Lin et
        al., arXiv 1708.02002, section 3.3). `max_pct_std` is the standard deviation of the largest rise, in percent.
        """
        last = self.trigger_head if isinstance(self.trigger_head, nn.Linear) else self.trigger_head[-1]
        last.bias.fill_(math.log(prior / (1 - prior)))
        self.max_pct_scale.fill_(max_pct_std)

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encoded views that the model sees, (B, width) each, of the views' numbers; see `input_shapes`."""
        return {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}

    def answers(self, inputs: Mapping[str, Tensor]) -> Answers:
        """All that the model says: `forward`'s answers and the auxiliary forecasts; inputs as for `encode`."""
        return self.read_off(self.fusion(**self.encode(inputs)))

    def read_off(self, fused: Tensor) -> Answers:
        """What the heads make of fused vectors (B, D)."""
        auxiliary = None if self.auxiliary_head is None else self.auxiliary_head(fused)  # (B, 4)
        read = fused if auxiliary is None else auxiliary
        return Answers(self.trigger_head(read), self.max_pct_scale * self.max_pct_head(read), auxiliary)

    def forward(
        self, ohlcv: Tensor | None = None, tda: Tensor | None = None, complexity: Tensor | None = None, **others: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logit of the trigger and largest rise in percent, (B, 1) each, of the views that the model sees."""
        return self.answers(dict(zip(SOURCE_MODALITIES, (ohlcv, tda, complexity), strict=True)) | others)[:2]

    @torch.no_grad()
    def predict(self, *inputs: Tensor, **others: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, but the probability of the trigger, in evaluation mode and without gradients."""
        with evaluation_mode(self):
            trigger_logits, max_pct = self(*inputs, **others)  # (B, 1), (B, 1)
        return torch.sigmoid(trigger_logits), max_pct

    def get_num_parameters(self) -> tuple[int, int]:
        """Number of trainable parameters and of all."""
        parameters = list(self.parameters())
        return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


def input_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Shape of one sample of each view that is computed, in order: (F,), or (L, F) of a window."""
    return {view.name: view.shape(config) for view in VIEWS.active(config)}


def _encoder(view: View, config: Config) -> nn.Module:
    encoder = view.encoder(config) if view.encoder else ENCODERS["mlp"](len(view.names(config)), 1, config)
    return MaskedEncoder(encoder) if view.may_be_absent else encoder


def build_model(config: Config) -> MultiTaskCrossModalAttention:
    """Model with fresh weights from torch's global random state."""
    return MultiTaskCrossModalAttention(config)


def _head(width: int, answers: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, HEAD_WIDTH), nn.ReLU(), nn.Linear(HEAD_WIDTH, answers))


class ParameterRow(NamedTuple):
    """One line of the parameter table."""

    part: str
    parameters: int
    source: str | None  # where the document gives a number


def parameter_table(model: MultiTaskCrossModalAttention) -> list[ParameterRow]:
    """Parameters of every part that the model has; the transformer's layers are alike, the first stands for each."""
    rows = []
    for part, prefix, source in _table_parts(model):
        size = sum(p.numel() for name, p in model.named_parameters() if name.startswith(prefix))
        rows += [ParameterRow(part, size, source)] if size else []
    return rows


def _table_parts(model: MultiTaskCrossModalAttention) -> Iterator[tuple[str, str, str | None]]:
    """Title, prefix of the parameter names, and the document's number."""
    for name, encoder in model.encoders.items():
        title = getattr(encoder, "title", f"{VIEWS.known(model.config)[name].title} encoder")
        for part, prefix, source in getattr(encoder, "inner_parts", list)():
            yield f"{title}: {part}", f"encoders.{name}.{prefix}", source
        yield title, f"encoders.{name}.", getattr(encoder, "stated_size", None)
    stated = model.fusion.stated_sizes
    for name in model.fusion.parts:
        yield f"Fusion: projection of {name}", f"fusion.proj_{name}.", stated.get(name)
    layer = "fusion.transformer.layers.0."
    yield "Fusion: position embedding", "fusion.pos_embedding", "768"
    yield "Fusion: [CLS] token", "fusion.cls_token", None
    yield "Fusion: self-attention, per layer", f"{layer}self_attn.", "263,168"
    yield "Fusion: feed-forward, per layer", f"{layer}linear", "525,312"
    yield "Fusion: norms, per layer", f"{layer}norm", "512 + 512"
    for name in model.fusion.parts:
        yield f"Fusion: layer, part of {name}", f"{layer}own.{name}.", None
    yield "Fusion: layer", layer, stated.get("layer")
    yield "Fusion: gates", "fusion.gate.", None
    yield "Fusion: output projection", "fusion.output_proj.", "65,792"
    yield "Fusion", "fusion.", stated.get("whole")
    yield "Auxiliary head", "auxiliary_head.", None
    yield "Trigger head", "trigger_head.", None
    yield "Max-pct head", "max_pct_head.", None
    yield "Model", "", None
