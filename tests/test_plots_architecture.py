"""The picture of the architecture shows the model it is given: parts, shapes, counts, and what is not seen."""

import pytest
import torch
from matplotlib.colors import to_hex

from cmat_lib.config import load_config
from cmat_lib.models import build_model
from cmat_lib.plots.architecture import architecture
from cmat_lib.plots.style import GREY
from cmat_lib.views.panel import Batch


@pytest.fixture
def draw():
    def made(**changes):
        with torch.device("meta"):
            model = build_model(load_config(changes=changes))
            sizes = {"nbeats": (96, 14), "tda": (214,), "complexity": (6,), "clock": (2,)}
            inputs = {name: torch.zeros(5, *size) for name, size in sizes.items()}  # of the views that there may be
            targets = [torch.zeros(5, *size) for size in ((), (), (4,), ())]
        return architecture(model, Batch(inputs, *targets)).axes[0]

    return made


def words(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def arrows(ax):
    return [text for text in ax.texts if getattr(text, "arrow_patch", None) is not None]


def test_every_part_has_its_shape_and_count(draw):
    ax = draw()
    shown = words(ax)
    assert "The model: 15,782,142 weights" in (ax.get_title(), ax.get_title(loc="left"))
    assert {"(B, 96, 14)", "(B, 214)", "(B, 6)"} <= set(shown)
    assert "128 → 256\n(B, 256) · 60,544 weights" in shown and "64 → 64\n(B, 64) · 4,608 weights" in shown
    assert any("trend → seasonality → generic → generic" in t and "13,709,564 weights" in t for t in shown)
    assert {f"(B, 256)\n{count} weights" for count in ("262,400", "65,792", "16,640")} <= set(shown)
    fusion = next(t for t in shown if "heads each" in t)
    assert fusion.split("\n")[:5] == ["3 tokens", "+ positions", "2 layers,", "8 heads each", "mean of the tokens"]
    assert "1,990,912 weights" in fusion
    assert [t for t in shown if "8,257" in t] == [
        "(B, 1) · probability\n8,257 weights",
        "(B, 1) · percent\n8,257 weights",
    ]
    assert len(ax.patches) == 3 * 3 + 1 + 2 and len(arrows(ax)) == 3 * 3 + 2


def test_cls_token_is_named(draw):
    assert any("[CLS] token" in text and "4 tokens" in text for text in words(draw(fusion={"use_cls_token": True})))


def test_concat_has_no_tokens(draw):
    ax = draw(fusion={"fusion_type": "concat"})
    assert "token" not in words(ax) and "Concat fusion" in words(ax)
    assert "(B, 256)\n819,968 weights" in words(ax)
    assert len(ax.patches) == 3 * 2 + 1 + 2 and len(arrows(ax)) == 3 * 2 + 2


def test_an_unseen_modality_is_grey(draw):
    with_tokens = draw(model={"modalities": ["nbeats", "complexity"]})
    assert words(with_tokens).count("not seen") == 1
    assert sum(to_hex(box.get_edgecolor()) == GREY for box in with_tokens.patches) == 3
    concat = draw(model={"modalities": ["nbeats", "complexity"]}, fusion={"fusion_type": "concat"})
    assert len(arrows(concat)) == 3 * 2 + 2 - 1, "nothing of it reaches the fusion"


def test_heads_read_the_auxiliary_forecast_where_there_is_one(draw):
    ax = draw(model={"modalities": ["nbeats", "tda", "complexity", "clock"], "auxiliary_head": True})
    shown = words(ax)
    assert "volatility, range,\nrise, fall\n(B, 4)\n8,356 weights" in shown and {"Clock", "(B, 2)"} <= set(shown)
    assert [t for t in shown if t.startswith("(B, 1)")] == [
        "(B, 1) · probability\n5 weights",
        "(B, 1) · percent\n193 weights",
    ]
    assert any(t.startswith("4 tokens\n") for t in shown) and shown.count("token") == 4
    assert len(ax.patches) == 4 * 3 + 1 + 3 and len(arrows(ax)) == 4 * 3 + 1 + 2
    assert "Auxiliary head" not in words(draw())


def test_stack_attention_is_named_only_where_it_is(draw):
    assert any("attention between the stacks" in text for text in words(draw()))
    assert not any("attention between" in text for text in words(draw(model={"use_attention": False})))


@pytest.mark.parametrize("fusion_type", ["cross_modal_attention", "bottleneck", "gated", "concat"])
def test_every_fusion_is_drawn_with_its_tokens(draw, fusion_type):
    shown = words(draw(fusion={"fusion_type": fusion_type, "tokens": "fine"}))
    assert any("4 groups of features, each → 256" in text for text in shown)
    attends = fusion_type in ("cross_modal_attention", "bottleneck")
    assert shown.count("4 tokens") == (2 if attends else 0)
    assert any("8 heads each" in text for text in shown) == attends
