"""Fusion: counts of every part, keys, initial weights, a hand-written pre-norm layer, absent modalities."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.models import FUSIONS, BottleneckFusion, ConcatFusion, CrossModalAttentionFusion, GatedFusion
from cmat_lib.models.fusion import fusion_class

DIMS = {"nbeats": 12, "tda": 8, "complexity": 5}
PARTS = {"nbeats": ("a", "b", "c"), "tda": ("d", "e"), "complexity": ("complexity",), "clock": ("clock",)}
SUBSETS = [("nbeats",), ("tda", "complexity"), ("nbeats", "complexity"), ("nbeats", "tda", "complexity")]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def inputs(seen=tuple(DIMS), batch=3):
    torch.manual_seed(1)
    drawn = {name: torch.randn(batch, dim) for name, dim in DIMS.items()}
    return {name: drawn[name] for name in seen}


def small(cls=CrossModalAttentionFusion, seen=tuple(DIMS), parts=None, **changes):
    torch.manual_seed(0)
    config = load_config(
        changes={"fusion": {"hidden_dim": 16, "output_dim": 16, "num_heads": 2, "ffn_dim": 24, **changes}}
    )
    dims = {name: DIMS[name] for name in seen}
    return cls.from_config(dims, config.fusion, parts).eval()


def test_cross_modal_attention_counts():
    fusion = CrossModalAttentionFusion()
    assert [count(m) for m in (fusion.proj_nbeats, fusion.proj_tda, fusion.proj_complexity)] == [
        262_400,
        65_792,
        16_640,
    ]
    assert fusion.pos_embedding.numel() == 768
    for layer in fusion.transformer.layers:
        assert count(layer.self_attn) == 263_168
        assert count(layer.linear1) + count(layer.linear2) == 525_568
        assert (count(layer.norm1), count(layer.norm2)) == (512, 512)
        assert count(layer) == 789_760
    assert len(fusion.transformer.layers) == 2
    assert count(fusion.output_proj) == 65_792
    assert count(fusion) == 1_990_912
    assert count(CrossModalAttentionFusion(use_cls_token=True)) == 1_991_424


def test_concat_counts():
    assert [count(m) for m in ConcatFusion().shared_fc if isinstance(m, nn.Linear)] == [
        1344 * 512 + 512,
        512 * 256 + 256,
    ]
    assert count(ConcatFusion()) == 819_968


def layer_size(d, ffn):
    return 4 * (d * d + d) + (d * ffn + ffn) + (ffn * d + d) + 4 * d


def test_gated_and_bottleneck_counts():
    projections, output = 262_400 + 65_792 + 16_640, 65_792
    gates = 1344 * 3 * 256 + 3 * 256
    assert count(GatedFusion()) == projections + gates + output == 1_443_584
    layers = 2 * 3 * layer_size(256, 1024)
    assert layer_size(256, 1024) == 789_760
    assert count(BottleneckFusion()) == projections + 7 * 256 + layers + output == 5_150_976


def test_gated_by_hand():
    fusion = small(GatedFusion, parts=PARTS)
    features = inputs()
    nbeats, tda, complexity = features.values()
    pieces = [*nbeats.split(4, 1), *tda.split(4, 1), complexity]
    weights = fusion.gate.weight.view(6, 16, 25)  # token, unit, input
    own = [fusion.proj_nbeats] * 3 + [fusion.proj_tda] * 2 + [fusion.proj_complexity]
    gates = [torch.sigmoid(torch.cat([nbeats, tda, complexity], 1) @ w.T) for w in weights]
    expected = sum(z * torch.tanh(v(x)) for z, v, x in zip(gates, own, pieces, strict=True))
    assert torch.allclose(fusion(**features), F.relu(F.linear(expected, fusion.output_proj[0].weight)), atol=1e-6)
    assert fusion.gate_names == ("a", "b", "c", "d", "e", "complexity") and fusion.token_names == ()
    assert torch.allclose(fusion.gates(features), torch.stack(gates, 1), atol=1e-6)


def test_bottleneck_by_hand():
    """Modalities meet in the shared tokens only, each layer reads the mean of what all wrote."""
    fusion = small(BottleneckFusion, parts=PARTS, bottleneck_tokens=2)
    features, position = inputs(), fusion.pos_embedding
    pieces = [x.view(3, len(PARTS[name]), -1) for name, x in features.items()]
    own = (fusion.proj_nbeats, fusion.proj_tda, fusion.proj_complexity)
    groups = [p(x) + at for p, x, at in zip(own, pieces, position[:, :6].split([3, 2, 1], 1), strict=True)]
    shared = position[:, 6:].expand(3, -1, -1)
    for layer in fusion.transformer.layers:
        done = [
            pre_norm_layer(part, torch.cat([x, shared], 1), heads=2)
            for part, x in zip(layer.own.values(), groups, strict=True)
        ]
        groups, shared = [out[:, :-2] for out in done], sum(out[:, -2:] for out in done) / 3
    expected = F.relu(F.linear(torch.cat([*groups, shared], 1).mean(1), fusion.output_proj[0].weight))
    assert torch.allclose(fusion(**features), expected, atol=1e-5)
    assert fusion.token_names == ("a", "b", "c", "d", "e", "complexity", "bottleneck 1", "bottleneck 2")


def test_one_bottleneck_layer_keeps_modalities_apart():
    for layers, meets in ((1, False), (2, True)):
        fusion = small(BottleneckFusion, num_layers=layers)
        features = inputs()
        others = (features, features | {"tda": features["tda"] + 1})
        written = [fusion.transformer(fusion.tokens(x))[:, 0] for x in others]
        assert torch.equal(*written) != meets


def test_pieces_of_a_modality_share_their_projection():
    fusion = small(parts=PARTS)
    features = inputs()
    tokens = fusion.tokens(features) - fusion.pos_embedding
    assert fusion.token_names == ("a", "b", "c", "d", "e", "complexity")
    assert torch.allclose(tokens[:, 4], fusion.proj_tda(features["tda"][:, 4:]), atol=1e-6)
    alone = small(seen=("complexity",), parts=PARTS)
    assert torch.equal(alone.tokens(inputs(("complexity",)))[:, :5], alone.pos_embedding[:, :5].expand(3, -1, -1))
    with pytest.raises(ValueError, match="width of 8 cannot be shared among 3 tokens"):
        small(parts={**PARTS, "tda": ("d", "e", "f")})


def test_transformer_keys_hold_no_final_norm():
    layer = [
        "self_attn.in_proj_weight",
        "self_attn.in_proj_bias",
        "self_attn.out_proj.weight",
        "self_attn.out_proj.bias",
        *(f"{part}.{kind}" for part in ("linear1", "linear2", "norm1", "norm2") for kind in ("weight", "bias")),
    ]
    keys = CrossModalAttentionFusion().transformer.state_dict()
    assert sorted(keys) == sorted(f"layers.{number}.{name}" for number in range(2) for name in layer)


@pytest.mark.parametrize("parts", [None, PARTS], ids=["modality", "fine"])
@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("seen", SUBSETS)
def test_protocol_and_gradients(name, seen, parts):
    fusion = small(fusion_class(name), seen, parts)
    assert fusion.parts == {m: PARTS[m] if parts else (m,) for m in seen}
    fused = fusion(**inputs(seen))
    assert fused.shape == (3, fusion.output_dim) == (3, 16)
    assert isinstance(fusion.token_names, tuple)
    fused.square().sum().backward()
    idle = [key for key, p in fusion.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert idle == []


def test_initial_weights():
    torch.manual_seed(0)
    fusion = CrossModalAttentionFusion(use_cls_token=True)
    for linear in (fusion.proj_nbeats, fusion.proj_tda, fusion.proj_complexity, fusion.output_proj[0]):
        bound = (6 / (linear.in_features + linear.out_features)) ** 0.5  # Xavier uniform
        assert 0.99 * bound < linear.weight.abs().max() <= bound
        assert not linear.bias.any()
    for parameter in (fusion.pos_embedding, fusion.cls_token):
        assert 0.017 < parameter.std() < 0.023
        assert parameter.mean().abs() < 0.005
    first, second = fusion.transformer.layers
    for name in ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"):
        a, b = first.get_parameter(name), second.get_parameter(name)
        assert (a - b).abs().mean() > 0.5 * a.abs().mean(), name
        assert 0.9 < a.std() / b.std() < 1.1, name


def pre_norm_layer(layer: nn.TransformerEncoderLayer, x, heads):
    """x + attention(norm(x)), then x + ffn(norm(x)), written out."""
    q, k, v = F.linear(layer.norm1(x), layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias).chunk(3, dim=-1)
    split = lambda z: z.unflatten(-1, (heads, -1)).transpose(1, 2)  # noqa: E731  (B, h, M, D / h)
    q, k, v = split(q), split(k), split(v)
    weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1)  # (B, h, M, M)
    x = x + layer.self_attn.out_proj((weights @ v).transpose(1, 2).flatten(2))
    return x + layer.linear2(F.gelu(layer.linear1(layer.norm2(x))))


@pytest.mark.parametrize("grad", [True, False])  # without gradients torch takes its own fast path
@pytest.mark.parametrize("use_cls_token", [False, True])
def test_equals_hand_written_transformer(use_cls_token, grad):
    fusion = small(use_cls_token=use_cls_token)
    features = inputs()
    tokens = torch.stack(
        [F.linear(x, p.weight, p.bias) for x, p in zip(features.values(), _projections(fusion), strict=True)], 1
    )
    if use_cls_token:
        tokens = torch.cat([fusion.cls_token.expand(3, 1, 16), tokens], 1)
    x = tokens + fusion.pos_embedding
    with torch.set_grad_enabled(grad):
        assert torch.allclose(fusion.tokens(features), x, atol=1e-6)
        for layer in fusion.transformer.layers:
            x = pre_norm_layer(layer, x, heads=2)
        pooled = x[:, 0] if use_cls_token else x.mean(1)
        expected = F.relu(F.linear(pooled, fusion.output_proj[0].weight))
        assert expected.std() > 0.05
        assert torch.allclose(fusion(**features), expected, atol=1e-5)
    assert fusion.token_names == (("cls",) if use_cls_token else ()) + ("nbeats", "tda", "complexity")


def _projections(fusion):
    return fusion.proj_nbeats, fusion.proj_tda, fusion.proj_complexity


def test_absent_modality_is_its_position_alone():
    fusion = small(seen=("nbeats", "complexity"))
    tokens = fusion.tokens(inputs(("nbeats", "complexity")))
    assert not hasattr(fusion, "proj_tda") and not any("tda" in name for name in fusion.state_dict())
    assert torch.equal(tokens[:, 1], fusion.pos_embedding[:, 1].expand(3, -1))
    assert (tokens[:, 0] - fusion.pos_embedding[:, 0]).abs().mean() > 0.1


def test_concat_by_hand():
    fusion = small(ConcatFusion, seen=("nbeats", "complexity"))
    nbeats, complexity = inputs(("nbeats", "complexity")).values()
    first, second = (m for m in fusion.shared_fc if isinstance(m, nn.Linear))
    expected = F.relu(second(F.relu(first(torch.cat([nbeats, complexity], 1)))))
    assert torch.allclose(fusion(nbeats, None, complexity), expected, atol=1e-6)
    assert fusion.token_names == ()


@pytest.mark.parametrize("name", FUSIONS)
def test_dropout_rates_follow_the_parameters(name):
    fusion = small(fusion_class(name), dropout=0.25)
    attention = [m.dropout for m in fusion.modules() if isinstance(m, nn.MultiheadAttention)]
    assert {m.p for m in fusion.modules() if isinstance(m, nn.Dropout)} | set(attention) == {0.25}
    assert {m.p for m in fusion_class(name)().modules() if isinstance(m, nn.Dropout)} == {0.3}


def test_mistakes_are_named():
    with pytest.raises(CmatError, match=r"fusion\.fusion_type.*'concatt'; did you mean 'concat'"):
        fusion_class("concatt")
    with pytest.raises(CmatError, match=r"valid names are cross_modal_attention, bottleneck, gated, concat"):
        fusion_class("xyz")
    with pytest.raises(ValueError, match="num_heads 3 does not divide hidden_dim 16"):
        CrossModalAttentionFusion(hidden_dim=16, num_heads=3)
    for cls in FUSIONS.values():
        with pytest.raises(ValueError, match="at least one view"):
            cls(nbeats_dim=None, tda_dim=None, complexity_dim=None)
