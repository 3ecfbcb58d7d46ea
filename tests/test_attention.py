"""The walk over the layers against the normal forward pass and against softmax(QKᵀ/√d) written out."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from cmat_lib.config import load_config
from cmat_lib.errors import CmatError
from cmat_lib.explain.attention import (
    attention_entropy,
    attention_maps,
    collect_maps,
    rollout,
    stack_attention_maps,
    walk_layers,
)
from cmat_lib.models import build_model

B, HEADS, LAYERS = 5, 2, 3


class Inputs(NamedTuple):
    """What the readers take of a batch."""

    ohlcv: torch.Tensor
    tda: torch.Tensor
    complexity: torch.Tensor

    @property
    def inputs(self):
        return tuple(self)


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
    return build_model(load_config(changes=sections))


def batch(rows: int = B, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, 12, 14), (rows, 214), (rows, 6))
    return Inputs(*(torch.randn(*shape, generator=generator) for shape in shapes))


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
def test_walk_equals_the_forward_pass():
    model = slim_model().eval()
    fusion, tokens = model.fusion, model.fusion.tokens(*model.encode(*batch()))
    _, walked = walk_layers(fusion.transformer.layers, tokens)
    torch.testing.assert_close(walked, fusion.transformer(tokens), atol=1e-5, rtol=0)
    torch.testing.assert_close(fusion.pool(walked), fusion(*model.encode(*batch())), atol=1e-5, rtol=0)


@torch.no_grad()
def test_weights_are_those_that_make_the_output():
    """Each layer rebuilt from its map: the weights read are the weights used."""
    model = slim_model().eval()
    x = model.fusion.tokens(*model.encode(*batch()))  # (B, M, D)
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
    attention = model.ohlcv_encoder.attention
    with torch.no_grad():
        normed = attention.token_norm(model.ohlcv_encoder.stack_tokens(batch().ohlcv))
        torch.testing.assert_close(maps[0], softmax_attention(attention.self_attn, normed), atol=1e-6, rtol=0)


def test_every_module_keeps_its_mode_and_nothing_is_learned_from():
    model = slim_model().train()
    model.ohlcv_encoder.eval()  # frozen encoders stand in evaluation mode inside a training model
    before = {name: module.training for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first, _ = attention_maps(model, batch())
    second, _ = attention_maps(model, batch())
    assert torch.equal(first, second)  # no dropout
    assert not first.requires_grad
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError):
        attention_maps(model, batch()._replace(tda=torch.zeros(B, 3)))
    assert {name: module.training for name, module in model.named_modules()} == before


@pytest.mark.parametrize("read", [attention_maps, stack_attention_maps])
def test_collect_equals_one_large_batch(read):
    model, whole = slim_model(), batch(11)
    pieces = [Inputs(*(x[part] for x in whole)) for part in torch.arange(11).split(4)]
    found = collect_maps(model, pieces, read)
    expected, names = read(model, whole)
    assert found.maps.dtype == np.float32 and found.token_names == names
    np.testing.assert_allclose(found.maps, expected.transpose(0, 1).numpy(), atol=1e-6)


def test_models_without_attention_say_so():
    with pytest.raises(CmatError, match="ConcatFusion has no attention"):
        attention_maps(slim_model(fusion={"fusion_type": "concat"}), batch())
    with pytest.raises(CmatError, match=r"model\.use_attention"):
        stack_attention_maps(slim_model(model={"use_attention": False}), batch())
    with pytest.raises(CmatError, match=r"model\.modalities"):
        stack_attention_maps(slim_model(model={"modalities": ["tda", "complexity"]}), batch())
    with pytest.raises(CmatError, match="no samples"):
        collect_maps(slim_model(), [])


def test_rollout_of_two_known_layers():
    first = np.array([[1.0, 0.0], [0.5, 0.5]])
    second = np.array([[0.0, 1.0], [0.0, 1.0]])
    maps = np.stack([first, second])[None, :, None]  # (1, 2, 1, 2, 2)
    expected = np.array([[0.5, 0.5], [0, 1]]) @ np.array([[1, 0], [0.25, 0.75]])
    np.testing.assert_allclose(rollout(maps)[0], expected)
    heads = np.stack([first, second])[None, None]  # (1, 1, 2, 2, 2): the mean over heads
    np.testing.assert_allclose(rollout(heads)[0], 0.5 * (first + second) / 2 + 0.5 * np.eye(2))
    rows = rollout(collect_maps(slim_model(), [batch()]).maps).sum(-1)
    np.testing.assert_allclose(rows, 1, atol=1e-6)


def test_entropy_runs_from_one_token_to_all():
    rows = np.array([[1.0, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]])
    np.testing.assert_allclose(attention_entropy(rows), [0, 1, np.log(2) / np.log(3)])
    with pytest.raises(CmatError, match="one token"):
        attention_entropy(np.ones((1, 1)))
