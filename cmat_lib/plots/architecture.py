"""The picture of the architecture: boxes with shapes and numbers of parameters, drawn from a model that exists."""

from __future__ import annotations

import re
from textwrap import fill
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import nn

from cmat_lib.models.fusion.attention import CrossModalAttentionFusion
from cmat_lib.models.multitask import MultiTaskCrossModalAttention
from cmat_lib.plots.style import GREY, PALETTE, token_color
from cmat_lib.views import VIEWS, View
from cmat_lib.views.panel import Batch


class _Box(NamedTuple):
    """A box of the picture: centre and size in units of the canvas, heading, and lines below it."""

    x: float
    y: float
    width: float
    height: float
    title: str
    text: str
    color: str


FUSION_X = 91.0
ROW = 19.0  # height of a view, in units of the canvas


def architecture(model: MultiTaskCrossModalAttention, batch: Batch) -> Figure:
    """Picture of the model from left to right: inputs, encoders, tokens, fusion, heads.

    Every box holds the shape that leaves it (B is the batch) and its number of parameters; a view that the model does
    not see is grey.
    """
    views = [v for v in VIEWS.active(model.config) if v.name in model.encoders or v.name in model.fusion.rows]
    height = ROW * len(views)
    figure = Figure(figsize=(12.5, 0.4 + 1.6 * len(views)))
    ax = figure.add_subplot()
    ax.set(xlim=(-1, 125), ylim=(-1, height + 1))
    ax.axis("off")
    ax.set_title(f"The model: {_count(model)}")
    fusion = _fusion_box(model, height / 2, max(44.0, height - 8))
    _draw_box(ax, fusion)
    for number, view in enumerate(views):
        y, shape = height - ROW * (number + 0.5), tuple(batch.inputs[view.name].shape[1:])
        boxes = _view_boxes(model, view, y, token_color(number), shape)
        for box in boxes:
            _draw_box(ax, box)
        reaches = [*boxes[1:], fusion] if _is_seen(model, view.name) else boxes[1:]
        for left, right in zip(boxes, reaches, strict=False):
            _draw_arrow(ax, left, right)
    for head in _head_boxes(model, height / 2):
        _draw_box(ax, head)
        _draw_arrow(ax, fusion, head)
    return figure


def _is_seen(model: MultiTaskCrossModalAttention, name: str) -> bool:
    """Whether the fusion gets anything of a view; with self-attention, an unseen one may still have its position."""
    return name in model.fusion.parts or isinstance(model.fusion, CrossModalAttentionFusion)


def _view_boxes(
    model: MultiTaskCrossModalAttention, view: View, y: float, color: str, shape: tuple[int, ...]
) -> list[_Box]:
    """Input, encoder and, where the fusion has tokens, projection of one view, on a level y."""
    name = view.name
    encoder = dict(model.encoders).get(name)
    color = GREY if encoder is None else color
    boxes = [_Box(8.5, y, 17, 11, view.title, _shape(*shape), color)]
    if encoder is None:
        boxes.append(_Box(40, y, 34, 14, "not seen", "model.modalities leaves it out", color))
    else:
        lines = [_inside(encoder), f"{_shape(encoder.output_dim)} · {_count(encoder)}"]
        title, height = _encoder_title(encoder), 18.0 if hasattr(encoder, "stack_types") else 14.0
        boxes.append(_Box(40, y, 34, height, title, "\n".join(filter(None, lines)), color))
    if model.fusion.token_names and _is_seen(model, name):
        projection = getattr(model.fusion, f"proj_{name}", None)
        tokens = len(model.fusion.rows[name])
        size = f"\n{_count(projection)}" if projection is not None else ""
        title, text = ("token" if tokens == 1 else f"{tokens} tokens"), f"{_shape(model.fusion.output_dim)}{size}"
        boxes.append(_Box(70, y, 17, 13, title, text, color))
    return boxes


def _encoder_title(encoder: nn.Module) -> str:
    inner = getattr(encoder, "encoder", encoder)
    return type(inner).__name__ + (" or mask" if inner is not encoder else "")


def _inside(encoder: nn.Module) -> str:
    """What an encoder consists of, in a few words."""
    encoder = getattr(encoder, "encoder", encoder)
    if hasattr(encoder, "groups"):
        return f"{len(encoder.groups)} groups of features, each → {encoder.output_dim // len(encoder.groups)}"
    if not hasattr(encoder, "stack_types"):
        return " → ".join(str(m.out_features) for m in encoder.modules() if isinstance(m, nn.Linear))
    text = fill(" → ".join(encoder.stack_types), 40)
    return f"{text}\nthen attention between the stacks" if encoder.attention is not None else text


def _fusion_box(model: MultiTaskCrossModalAttention, middle: float, height: float) -> _Box:
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
    return _Box(FUSION_X, middle, 18, height, fill(title, 14), "\n".join(lines), PALETTE[3])


def _head_boxes(model: MultiTaskCrossModalAttention, middle: float) -> list[_Box]:
    heads = (
        ("Trigger", middle + 9, "probability", model.trigger_head),
        ("Max-pct", middle - 9, "percent", model.max_pct_head),
    )
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
    is_fusion = [box.x == FUSION_X for box in (left, right)]
    end = (right.x - right.width / 2, _within(left.y, right) if is_fusion[1] else right.y)
    start = (start[0], _within(end[1], left)) if is_fusion[0] else start
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1.4, "shrinkA": 2, "shrinkB": 2})


def _within(y: float, box: _Box) -> float:
    """The nearest level on the side of a box."""
    reach = box.height / 2 - 2
    return min(max(y, box.y - reach), box.y + reach)


def _shape(*sizes: int) -> str:
    return f"(B, {', '.join(str(size) for size in sizes)})"


def _count(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,} weights"
