"""The walk over the layers against the normal forward pass and against softmax(QKᵀ/√d) written out."""

import tracemalloc
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.explain.attention import (
    attention_entropy,
    attention_maps,
    collect_maps,
    gate_values,
    gradient_attention,
    rollout,
    stack_attention_maps,
    walk_layers,
)
from cmat_lib.explain.groups import tidy_maps
from cmat_lib.explain.layers import beside, explicit, uniform
from cmat_lib.models import build_model

B, HEADS, LAYERS = 5, 2, 3


class Inputs(NamedTuple):
    """What the readers take of a batch."""

    inputs: dict[str, torch.Tensor]


def slim_model(**changes):
    sections = {
        "data": {"sequence_length": 12},
        "model": {
            "nbeats_hidden_size": 64,
            "nbeats_num_blocks": 1,
            "nbeats_num_layers": 2,
            "nbeats_block_width": 16,
            "tda_encoder_dim": 24,
            "complexity_encoder_dim": 16,
            **changes.get("model", {}),
        },
        "fusion": {
            "hidden_dim": 16,
            "output_dim": 16,
            "num_heads": HEADS,
            "num_layers": LAYERS,
            "ffn_dim": 32,
            "dropout": 0.3,
            **changes.get("fusion", {}),
        },
    }
    torch.manual_seed(0)
    model = build_model(load_config(changes=sections))
    for parameter in model.parameters():  # norms and biases start alike; trained ones are not
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def batch(rows: int = B, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"nbeats": (rows, 12, 14), "tda": (rows, 214), "complexity": (rows, 6)}
    return Inputs({name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()})


def of(whole: Inputs, rows: torch.Tensor) -> Inputs:
    """Samples of a batch."""
    return Inputs({name: x[rows] for name, x in whole.inputs.items()})


KINDS = [
    {"fusion_type": kind, "tokens": tokens, "use_cls_token": cls}
    for kind, cls in (("cross_modal_attention", False), ("cross_modal_attention", True), ("bottleneck", False))
    for tokens in ("modality", "fine")
]


def softmax_attention(attention: nn.MultiheadAttention, x: torch.Tensor) -> torch.Tensor:
    """softmax(QKᵀ/√d) from the layer's parameters: (B, M, D) to (B, h, M, M)."""
    q, k, _ = nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    q, k = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (q, k))  # (B, h, M, d)
    return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1)


@pytest.mark.parametrize("cls", [False, True])
def test_maps_have_one_row_per_token_and_rows_sum_to_one(cls):
    maps, names = attention_maps(slim_model(fusion={"use_cls_token": cls}).train(), batch())
    tokens = ("cls", "nbeats", "tda", "complexity") if cls else ("nbeats", "tda", "complexity")
    assert names == tokens
    assert maps.shape == (LAYERS, B, HEADS, len(tokens), len(tokens))
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]), atol=1e-6, rtol=0)
    assert not torch.allclose(maps[0], maps[1], atol=1e-4) and not torch.allclose(
        maps[:, :, 0], maps[:, :, 1], atol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("step", [beside, explicit])
@pytest.mark.parametrize("fusion", KINDS, ids=lambda k: "-".join(map(str, k.values())))
def test_walk_equals_the_forward_pass(fusion, step):
    model = slim_model(fusion=fusion).eval()
    whole = batch()
    maps, walked = walk_layers(model.fusion.transformer.layers, model.fusion.tokens(model.encode(whole.inputs)), step)
    logits = model.answers(whole.inputs).trigger_logits
    torch.testing.assert_close(model.read_off(model.fusion.pool(walked)).trigger_logits, logits, atol=1e-5, rtol=0)
    assert logits.std() > 1e-3
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(maps, attention_maps(model, whole)[0], atol=1e-6, rtol=0)
    assert maps.shape[-1] == len(model.fusion.token_names)


@pytest.mark.parametrize("fusion", KINDS, ids=lambda k: "-".join(map(str, k.values())))
def test_maps_follow_their_samples_through_any_order_and_batch_size(fusion):
    model, whole, order = slim_model(fusion=fusion), batch(9), torch.randperm(9)
    expected = attention_maps(model, whole)[0][:, order]
    shuffled = [of(whole, rows) for rows in order.split(2)]
    found = torch.cat([attention_maps(model, part)[0] for part in shuffled], dim=1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 1e-3


def test_bottleneck_maps_show_who_can_meet():
    maps, names = attention_maps(slim_model(fusion={"fusion_type": "bottleneck", "tokens": "fine"}), batch())
    owner = np.repeat(["nbeats", "tda", "complexity", "shared"], [4, 4, 1, 4])
    assert len(names) == 13 and names[-1] == "bottleneck 4"
    meet = (owner[:, None] == owner) | (owner[:, None] == "shared") | (owner == "shared")
    assert ((maps > 0).all(dim=(0, 1, 2)).numpy() == meet).all()


@torch.no_grad()
def test_bottleneck_maps_hold_every_weight_in_its_place():
    model = slim_model(fusion={"fusion_type": "bottleneck", "tokens": "fine"}).eval()
    tokens, maps = model.fusion.tokens(model.encode(batch().inputs)), attention_maps(model, batch())[0][0]
    own, written = model.fusion.transformer.layers[0].own, 0
    for name, places in (("nbeats", range(4)), ("tda", range(4, 8)), ("complexity", range(8, 9))):
        both = [*places, *range(9, 13)]
        part = softmax_attention(own[name].self_attn, own[name].norm1(tokens[:, both]))  # (B, h, m, m)
        torch.testing.assert_close(maps[..., places, :][..., both], part[..., : len(places), :], atol=1e-6, rtol=0)
        written = written + torch.zeros_like(maps).index_copy_(-1, torch.tensor(both), nn.functional.pad(
            part[..., len(places) :, :], (0, 0, 9, 0)))  # fmt: skip
    torch.testing.assert_close(maps[..., 9:, :], written[..., 9:, :] / 3, atol=1e-6, rtol=0)


def perturbed(places, epsilon):
    """The explicit layer with `epsilon` added to one weight of one layer of all samples."""
    calls = iter(range(100))

    def step(layer, tokens):
        weights, output = explicit(layer, tokens)
        if next(calls) != places[0]:
            return weights, output
        shift = torch.zeros_like(weights)
        shift[:, places[1], places[2], places[3]] = epsilon
        values = nn.functional.linear(layer.norm1(tokens), layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias)
        values = values.chunk(3, -1)[2].unflatten(-1, (HEADS, -1)).transpose(1, 2)
        mixed = ((weights + shift) @ values).transpose(1, 2).flatten(2)
        x = tokens + layer.self_attn.out_proj(mixed)
        return weights, x + layer.linear2(layer.activation(layer.linear1(layer.norm2(x))))

    return step


@torch.no_grad()
@pytest.mark.parametrize("use_cls_token", [False, True])
def test_gradient_attention_is_what_a_small_change_of_a_weight_does(use_cls_token):
    model = slim_model(fusion={"tokens": "fine", "use_cls_token": use_cls_token}).double().eval()
    whole = Inputs({name: x.double() for name, x in batch().inputs.items()})
    signed, _ = gradient_attention(model, whole)
    maps, _ = attention_maps(model, whole)
    tokens = model.fusion.tokens(model.encode(whole.inputs))
    for places in ((0, 0, 2, 5), (1, 1, 8, 0), (2, 0, 0, 3)):
        ends = []
        for epsilon in (1e-4, -1e-4):
            _, out = walk_layers(model.fusion.transformer.layers, tokens, perturbed(places, epsilon))
            ends.append(model.read_off(model.fusion.pool(out)).trigger_logits[:, 0])
        layer, head, row, column = places
        expected = (ends[0] - ends[1]) / 2e-4 * maps[layer, :, head, row, column]
        torch.testing.assert_close(signed[layer, :, head, row, column], expected, rtol=1e-4, atol=1e-12)
        assert expected.abs().min() > 1e-9
    assert (signed > 0).any() and (signed < 0).any()
    if use_cls_token:
        assert not signed[-1, :, :, 1:].any() and signed[-1, :, :, 0].any()  # only [CLS] is read


@torch.no_grad()
def test_what_a_modality_writes_to_a_bottleneck_counts_once():
    """Topology is the second of three parts, token 1 of the map; row 4 of the map is the second bottleneck token."""
    model = slim_model(fusion={"fusion_type": "bottleneck"}).double().eval()
    whole = Inputs({name: x.double() for name, x in batch().inputs.items()})
    tokens, ends = model.fusion.tokens(model.encode(whole.inputs)), []
    for epsilon in (1e-4, -1e-4):
        _, out = walk_layers(model.fusion.transformer.layers, tokens, perturbed((1, 0, 2, 0), epsilon))
        ends.append(model.read_off(model.fusion.pool(out)).trigger_logits[:, 0])
    weight = 3 * attention_maps(model, whole)[0][0, :, 0, 4, 1]  # the map shows the mean over three modalities
    signed = gradient_attention(model, whole)[0][0, :, 0, 4, 1]
    torch.testing.assert_close(signed, (ends[0] - ends[1]) / 2e-4 * weight, rtol=1e-4, atol=1e-12)
    assert signed.abs().min() > 1e-9


def test_gradient_attention_leaves_no_gradient_behind():
    model = slim_model(fusion={"fusion_type": "bottleneck"}).train().requires_grad_(False)
    signed, names = gradient_attention(model, batch())
    assert signed.shape == (LAYERS, B, HEADS, 7, 7) and len(names) == 7 and not signed.requires_grad
    assert all(p.grad is None for p in model.parameters()) and model.training


@torch.no_grad()
def test_uniform_weights_replace_the_layer_s_own():
    model = slim_model().eval()
    tokens = model.fusion.tokens(model.encode(batch().inputs))
    maps, out = walk_layers(model.fusion.transformer.layers, tokens, uniform)
    assert torch.equal(maps, torch.full_like(maps, 1 / 3))
    for layer in model.fusion.transformer.layers:  # no queries and no keys: softmax of zeros
        layer.self_attn.in_proj_weight[: 2 * 16] = 0
    torch.testing.assert_close(out, model.fusion.transformer(tokens), atol=1e-5, rtol=0)
    assert (out - walk_layers(slim_model().eval().fusion.transformer.layers, tokens)[1]).abs().max() > 1e-3


def test_gates_are_means_over_units():
    model = slim_model(fusion={"fusion_type": "gated", "tokens": "fine"}).train()
    gates, names = gate_values(model, batch())
    assert gates.shape == (B, 9) and names[4] == "H0 curve" and gates.min() > 0 and gates.max() < 1
    model.eval()
    encoded = torch.cat([*model.encode(batch().inputs).values()], dim=1)
    weight, bias = model.fusion.gate.weight[4 * 16 : 5 * 16], model.fusion.gate.bias[4 * 16 : 5 * 16]
    torch.testing.assert_close(gates[:, 4], torch.sigmoid(encoded @ weight.T + bias).mean(1), atol=1e-6, rtol=0)
    with pytest.raises(CmatError, match="no gates"):
        gate_values(slim_model(), batch())


def test_tidy_maps_name_every_weight():
    maps = np.arange(2 * 3 * 2 * 2 * 2, dtype=np.float16).reshape(2, 3, 2, 2, 2)
    times = pd.date_range("2025-01-01", periods=2, tz="UTC")
    samples = pd.DataFrame({"symbol": ["A", "B"], "timestamp": times}, index=[7, 11])
    tidy = tidy_maps(maps, ("x", "y"), samples)
    assert list(tidy) == ["sample", "timestamp", "symbol", "layer", "head", "from", "to", "weight"] and len(tidy) == 48
    row = tidy.set_index(["sample", "layer", "head", "from", "to"]).loc[(11, 3, 1, "y", "x")]
    assert row["weight"] == maps[1, 2, 0, 1, 0] and row["symbol"] == "B" and row["timestamp"] == times[1]


def test_collecting_needs_no_memory_beyond_the_maps():
    model, peaks = slim_model(), []
    for pieces in (2, 32):
        parts = (batch(256, seed) for seed in range(pieces))
        tracemalloc.start()
        found = collect_maps(model, parts, 256 * pieces)
        peaks.append(tracemalloc.get_traced_memory()[1] - found.maps.nbytes)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 0.1 * found.maps.nbytes


@torch.no_grad()
def test_weights_are_those_that_make_the_output():
    """Each layer rebuilt from its map: the weights read are the weights used."""
    model = slim_model().eval()
    x = model.fusion.tokens(model.encode(batch().inputs))  # (B, M, D)
    maps, _ = attention_maps(model, batch())
    for layer, weights in zip(model.fusion.transformer.layers, maps, strict=True):
        h = layer.norm1(x)
        torch.testing.assert_close(weights, softmax_attention(layer.self_attn, h), atol=1e-6, rtol=0)
        values = nn.functional.linear(h, layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias).chunk(3, -1)[2]
        mixed = weights @ values.unflatten(-1, (HEADS, -1)).transpose(1, 2)  # (B, h, M, d)
        y = x + layer.self_attn.out_proj(mixed.transpose(1, 2).flatten(2))  # (B, M, D)
        y = y + layer.linear2(nn.functional.gelu(layer.linear1(layer.norm2(y))))  # (B, M, D)
        x = layer(x)  # (B, M, D)
        torch.testing.assert_close(y, x, atol=1e-5, rtol=0)


def test_stack_maps():
    model = slim_model().train()
    maps, names = stack_attention_maps(model, batch())
    assert names == ("trend", "seasonality", "generic 1", "generic 2")
    assert maps.shape == (1, B, 8, 4, 4)
    model.eval()
    attention = model.encoders["nbeats"].attention
    with torch.no_grad():
        normed = attention.token_norm(model.encoders["nbeats"].stack_tokens(batch().inputs["nbeats"]))
        torch.testing.assert_close(maps[0], softmax_attention(attention.self_attn, normed), atol=1e-6, rtol=0)


def test_every_module_keeps_its_mode_and_nothing_is_learned_from():
    model = slim_model().train()
    model.encoders["nbeats"].eval()  # frozen encoders stand in evaluation mode inside a training model
    before = {name: module.training for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first, _ = attention_maps(model, batch())
    second, _ = attention_maps(model, batch())
    assert torch.equal(first, second)  # no dropout
    assert not first.requires_grad
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError):
        attention_maps(model, Inputs(batch().inputs | {"tda": torch.zeros(B, 3)}))
    assert {name: module.training for name, module in model.named_modules()} == before


@pytest.mark.parametrize("read", [attention_maps, stack_attention_maps])
def test_collect_equals_one_large_batch(read):
    model, whole = slim_model(), batch(11)
    pieces = [of(whole, part) for part in torch.arange(11).split(4)]
    found = collect_maps(model, pieces, 11, read)
    expected, names = read(model, whole)
    assert found.maps.dtype == np.float16 and found.token_names == names
    np.testing.assert_allclose(
        found.maps, expected.transpose(0, 1).numpy(), atol=3e-4
    )  # half of a unit of the last digit


def test_models_without_attention_say_so():
    with pytest.raises(CmatError, match="ConcatFusion has no attention"):
        attention_maps(slim_model(fusion={"fusion_type": "concat"}), batch())
    with pytest.raises(CmatError, match=r"model\.use_attention"):
        stack_attention_maps(slim_model(model={"use_attention": False}), batch())
    with pytest.raises(CmatError, match="it needs an N-BEATS encoder"):
        stack_attention_maps(slim_model(model={"modalities": ["tda", "complexity"]}), batch())
    with pytest.raises(CmatError, match="no samples"):
        collect_maps(slim_model(), [], 0)
    with pytest.raises(CmatError, match="9 samples were announced and there are 5"):
        collect_maps(slim_model(), [batch()], 9)


def test_rollout_of_two_known_layers():
    first = np.array([[1.0, 0.0], [0.5, 0.5]])
    second = np.array([[0.0, 1.0], [0.0, 1.0]])
    maps = np.stack([first, second])[None, :, None]  # (1, 2, 1, 2, 2)
    expected = np.array([[0.5, 0.5], [0, 1]]) @ np.array([[1, 0], [0.25, 0.75]])
    np.testing.assert_allclose(rollout(maps)[0], expected)
    heads = np.stack([first, second])[None, None]  # (1, 1, 2, 2, 2): the mean over heads
    np.testing.assert_allclose(rollout(heads)[0], 0.5 * (first + second) / 2 + 0.5 * np.eye(2))
    rows = rollout(collect_maps(slim_model(), [batch()], B).maps.astype(np.float64)).sum(-1)
    np.testing.assert_allclose(rows, 1, atol=1e-3)


def test_entropy_runs_from_one_token_to_all():
    rows = np.array([[1.0, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]])
    np.testing.assert_allclose(attention_entropy(rows), [0, 1, np.log(2) / np.log(3)])
    with pytest.raises(CmatError, match="one token"):
        attention_entropy(np.ones((1, 1)))
