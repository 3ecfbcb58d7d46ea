"""The picture of the architecture: boxes with shapes and numbers of parameters, drawn from a model that exists."""

from __future__ import annotations

import re
from textwrap import fill
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import nn

from cmat_lib.data.panel import Batch
from cmat_lib.models.fusion_attention import CrossModalAttentionFusion
from cmat_lib.models.multitask import MultiTaskCrossModalAttention
from cmat_lib.plots.style import GREY, PALETTE
from cmat_lib.schema import SOURCE_MODALITIES

MODALITY_COLORS = dict(zip(SOURCE_MODALITIES, PALETTE, strict=False))
_TITLES = {"nbeats": "OHLCV window", "tda": "TDA features", "complexity": "Complexity"}
_ENCODERS = {"nbeats": "ohlcv_encoder", "tda": "tda_encoder", "complexity": "complexity_encoder"}


class _Box(NamedTuple):
    """A box of the picture: centre and size in units of the canvas, heading, and lines below it."""

    x: float
    y: float
    width: float
    height: float
    title: str
    text: str
    color: str


_ROWS = {"nbeats": 49.0, "tda": 29.0, "complexity": 11.0}
_MIDDLE = 30.0


def architecture(model: MultiTaskCrossModalAttention, batch: Batch) -> Figure:
    """Picture of the model from left to right: inputs, encoders, tokens, fusion, heads.

    Every box holds the shape that leaves it (B is the batch) and its number of parameters; a modality that the model
    does not see is grey.
    """
    figure = Figure(figsize=(12.5, 5.2))
    ax = figure.add_subplot()
    ax.set(xlim=(-1, 125), ylim=(-1, 61))
    ax.axis("off")
    ax.set_title(f"The model: {_count(model)}")
    fusion = _fusion_box(model)
    _draw_box(ax, fusion)
    for name, x in zip(SOURCE_MODALITIES, batch.inputs, strict=False):
        boxes = _modality_boxes(model, name, tuple(x.shape[1:]))
        for box in boxes:
            _draw_box(ax, box)
        reaches = [*boxes[1:], fusion] if _is_seen(model, name) else boxes[1:]
        for left, right in zip(boxes, reaches, strict=False):
            _draw_arrow(ax, left, right)
    for head in _head_boxes(model):
        _draw_box(ax, head)
        _draw_arrow(ax, fusion, head)
    return figure


def _is_seen(model: MultiTaskCrossModalAttention, name: str) -> bool:
    """Whether the fusion gets anything of a modality; with self-attention, an unseen one still has its position."""
    return name in model.fusion.parts or isinstance(model.fusion, CrossModalAttentionFusion)


def _modality_boxes(model: MultiTaskCrossModalAttention, name: str, shape: tuple[int, ...]) -> list[_Box]:
    """Input, encoder and, where the fusion has tokens, projection of one modality."""
    y, height = _ROWS[name], 20.0 if name == "nbeats" else 14.0
    encoder = getattr(model, _ENCODERS[name])
    color = MODALITY_COLORS[name] if encoder is not None else GREY
    boxes = [_Box(8.5, y, 17, 11, _TITLES[name], _shape(*shape), color)]
    if encoder is None:
        boxes.append(_Box(40, y, 34, height, "not seen", "model.modalities leaves it out", color))
    else:
        lines = [_inside(encoder), f"{_shape(encoder.output_dim)} · {_count(encoder)}"]
        boxes.append(_Box(40, y, 34, height, type(encoder).__name__, "\n".join(filter(None, lines)), color))
    if model.fusion.token_names and _is_seen(model, name):
        projection = getattr(model.fusion, f"proj_{name}", None)
        tokens = len(model.fusion.parts.get(name, ("one",)))
        size = f"\n{_count(projection)}" if projection is not None else ""
        title, text = ("token" if tokens == 1 else f"{tokens} tokens"), f"{_shape(model.fusion.output_dim)}{size}"
        boxes.append(_Box(70, y, 17, 13, title, text, color))
    return boxes


def _inside(encoder: nn.Module) -> str:
    """What an encoder consists of, in a few words."""
    if hasattr(encoder, "groups"):
        return f"{len(encoder.groups)} groups of features, each → {encoder.output_dim // len(encoder.groups)}"
    if not hasattr(encoder, "stack_types"):
        return " → ".join(str(m.out_features) for m in encoder.modules() if isinstance(m, nn.Linear))
    text = fill(" → ".join(encoder.stack_types), 40)
    return f"{text}\nthen attention between the stacks" if encoder.attention is not None else text


def _fusion_box(model: MultiTaskCrossModalAttention) -> _Box:
    fusion = model.fusion
    size = [_shape(fusion.output_dim), _count(fusion)]
    lines = size
    if hasattr(fusion, "transformer"):
        layers = fusion.transformer.layers
        pool = "mean of the tokens" if getattr(fusion, "cls_token", None) is None else "[CLS] token"
        heads = next(m.num_heads for m in layers.modules() if isinstance(m, nn.MultiheadAttention))
        lines = [
            f"{len(fusion.token_names)} tokens",
            "+ positions",
            f"{len(layers)} layers,",
            f"{heads} heads each",
            pool,
            *size,
            "(projections included)",
        ]
    title = " ".join(re.findall("[A-Z][a-z]+", type(fusion).__name__)).capitalize()
    return _Box(91, _MIDDLE, 18, 44, fill(title, 14), "\n".join(lines), PALETTE[3])


def _head_boxes(model: MultiTaskCrossModalAttention) -> list[_Box]:
    heads = (("Trigger", 42, "probability", model.trigger_head), ("Max-pct", 18, "percent", model.max_pct_head))
    return [
        _Box(115, y, 17, 14, title, f"(B, 1) · {unit}\n{_count(head)}", PALETTE[4]) for title, y, unit, head in heads
    ]


def _draw_box(ax: Axes, box: _Box) -> None:
    corner = (box.x - box.width / 2, box.y - box.height / 2)
    ax.add_patch(
        FancyBboxPatch(
            corner, box.width, box.height, "round,pad=0,rounding_size=1.2", fc=f"{box.color}22", ec=box.color, lw=1.5
        )
    )
    lines = box.text.count("\n") + 1
    ax.text(box.x, box.y + 1.45 * lines, box.title, ha="center", va="center", fontsize=10, fontweight="bold")
    ax.text(box.x, box.y - 1.6, box.text, ha="center", va="center", fontsize=9, linespacing=1.35)


def _draw_arrow(ax: Axes, left: _Box, right: _Box) -> None:
    start = (left.x + left.width / 2, left.y)
    # Arrows into a tall box arrive level, those out of it leave level with their target.
    tall = right.height > 40 or left.height > 40
    end = (right.x - right.width / 2, left.y if right.height > 40 else right.y)
    start = (start[0], end[1]) if tall else start
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1.4, "shrinkA": 2, "shrinkB": 2})


def _shape(*sizes: int) -> str:
    return f"(B, {', '.join(str(size) for size in sizes)})"


def _count(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,} weights"
