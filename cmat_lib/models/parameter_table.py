"""How many parameters every part of a model has, beside what the source document states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cmat_lib.models.multitask import MultiTaskCrossModalAttention
from cmat_lib.views import VIEWS


class ParameterRow(NamedTuple):
    """One line of the parameter table."""

    part: str
    parameters: int
    source: str | None  # where the document gives a number


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
