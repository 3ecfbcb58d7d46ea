"""The picture of the architecture: boxes with shapes and numbers of parameters, drawn from a model that exists."""

import re
from itertools import pairwise
from textwrap import fill
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import nn

from cmat_lib.config.schema import AUXILIARY_TARGETS
from cmat_lib.plots.style import GREY, PALETTE, new_figure, token_color
from cmat_lib.views import VIEWS
from cmat_lib.views.panel import Batch

LEVEL = 19.0  # height of a view, in units of the canvas
BOX_STEP = 24.0  # from one column of boxes to the next, right of the fusion


class _Box(NamedTuple):
    """A box of the picture: centre and size in units of the canvas, heading, and lines below it."""

    x: float
    y: float
    width: float
    height: float
    title: str
    text: str
    color: str


def architecture(model: nn.Module, batch: Batch) -> Figure:
    """Picture of the model from left to right: inputs, encoders, tokens, fusion, heads.

    Every box holds the shape that leaves it (B is the batch) and its number of parameters; a view that the model, one
    of `cmat_lib.models.build_model`, does not see is grey.
    """
    views = [v for v in VIEWS.active(model.config) if v.name in model.encoders or v.name in model.fusion.rows]
    height = LEVEL * len(views)
    fusion = _fusion_box(model.fusion, height / 2, max(44.0, height - 8))
    forecast, heads = _head_boxes(model, height / 2)
    width = heads[0].x + 10
    figure, (ax,) = new_figure(0.1 * width, 0.4 + 1.6 * len(views))
    ax.set(xlim=(-1, width), ylim=(-1, height + 1))
    ax.axis("off")
    ax.set_title(f"The model: {_count(model)}")
    chains = [[fusion, *forecast, head] for head in heads]
    for number, view in enumerate(views):
        shape = _shape(*batch.inputs[view.name].shape[1:])
        boxes = _view_boxes(model, view.name, (view.title, shape), height - LEVEL * (number + 0.5), token_color(number))
        chains.append([*boxes, fusion] if _reaches_fusion(model.fusion, view.name) else boxes)
    for box in dict.fromkeys(box for boxes in chains for box in boxes):
        _draw_box(ax, box)
    for left, right in dict.fromkeys(pair for boxes in chains for pair in pairwise(boxes)):
        _draw_arrow(ax, left, right)
    return figure


def _reaches_fusion(fusion: nn.Module, name: str) -> bool:
    """Whether the fusion gets anything of a view; with self-attention, an unseen one may still have its position."""
    return name in fusion.parts or set(fusion.rows[name]) <= set(fusion.token_names)


def _view_boxes(model: nn.Module, name: str, given: tuple[str, str], y: float, color: str) -> list[_Box]:
    """Input, encoder and, where the fusion has tokens, projection of one view, on a level y."""
    encoder, fusion = dict(model.encoders).get(name), model.fusion
    if encoder is None:
        color, height, about = GREY, 14.0, ("not seen", "model.modalities leaves it out")
    else:
        inner = getattr(encoder, "encoder", encoder)  # a view that may be absent has its encoder inside a mask
        lines = [_inside(inner), f"{_shape(encoder.output_dim)} · {_count(encoder)}"]
        height = 18.0 if hasattr(encoder, "stack_types") else 14.0
        about = type(inner).__name__ + (" or mask" if inner is not encoder else ""), "\n".join(filter(None, lines))
    boxes = [_Box(8.5, y, 17, 11, *given, color), _Box(40, y, 34, height, *about, color)]
    if fusion.token_names and _reaches_fusion(fusion, name):
        projection = getattr(fusion, f"proj_{name}", None)
        tokens = len(fusion.rows[name])
        size = f"\n{_count(projection)}" if projection is not None else ""
        title, text = ("token" if tokens == 1 else f"{tokens} tokens"), f"{_shape(fusion.output_dim)}{size}"
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


def _fusion_box(fusion: nn.Module, middle: float, height: float) -> _Box:
    lines = [_shape(fusion.output_dim), _count(fusion)]
    if hasattr(fusion, "transformer"):
        layers = fusion.transformer.layers
        pool = "mean of the tokens" if getattr(fusion, "cls_token", None) is None else "[CLS] token"
        heads = next(m.num_heads for m in layers.modules() if isinstance(m, nn.MultiheadAttention))
        depth = f"{len(layers)} layer{'s' if len(layers) > 1 else ''},"
        attends = [f"{len(fusion.token_names)} tokens", "+ positions", depth, f"{heads} heads each", pool]
        lines = [*attends, *lines, "(projections included)"]
    title = " ".join(re.findall("[A-Z][a-z]+", type(fusion).__name__)).capitalize()
    return _Box(91, middle, 18, height, fill(title, 14), "\n".join(lines), PALETTE[3])


def _head_boxes(model: nn.Module, middle: float) -> tuple[list[_Box], list[_Box]]:
    """The forecast of the auxiliary targets, where the model has one, and the heads, which read it or the fusion."""
    x, forecast = 91 + BOX_STEP, []
    if model.auxiliary_head is not None:
        names = fill(", ".join(name.removeprefix("log_") for name in AUXILIARY_TARGETS), 18)
        text = f"{names}\n{_shape(len(AUXILIARY_TARGETS))}\n{_count(model.auxiliary_head)}"
        forecast, x = [_Box(x, middle, 17, 24, "Auxiliary head", text, PALETTE[4])], x + BOX_STEP
    heads = (("Trigger", 9, "probability", model.trigger_head), ("Max-pct", -9, "percent", model.max_pct_head))
    return forecast, [
        _Box(x, middle + up, 17, 14, title, f"(B, 1) · {unit}\n{_count(head)}", PALETTE[4])
        for title, up, unit, head in heads
    ]


def _draw_box(ax: Axes, box: _Box) -> None:
    corner, look = (box.x - box.width / 2, box.y - box.height / 2), {"fc": f"{box.color}22", "ec": box.color, "lw": 1.5}
    ax.add_patch(FancyBboxPatch(corner, box.width, box.height, "round,pad=0,rounding_size=1.2", **look))
    lines = box.text.count("\n") + 1
    ax.text(box.x, box.y + 1.45 * lines, box.title, ha="center", va="center", fontsize=10, fontweight="bold")
    ax.text(box.x, box.y - 1.6, box.text, ha="center", va="center", fontsize=9, linespacing=1.35)


def _draw_arrow(ax: Axes, left: _Box, right: _Box) -> None:
    y = min(left, right, key=lambda box: box.height).y  # the taller box meets the arrow at the level of the other
    ends = (right.x - right.width / 2, y), (left.x + left.width / 2, y)
    ax.annotate("", *ends, arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1.4, "shrinkA": 2, "shrinkB": 2})


def _shape(*sizes: int) -> str:
    return f"(B, {', '.join(str(size) for size in sizes)})"


def _count(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,} weights"
