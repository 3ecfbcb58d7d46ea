"""Encoders: the counts of every part, bases, doubly residual stacking, attention over the stacks."""

import pytest
import torch
from torch import nn

from cmat_lib.encoders.nbeats import seasonality_basis, trend_basis
from cmat_lib.encoders.plain import AttentionBlock, ClockEncoder
from cmat_lib.models import ComplexityEncoder, OHLCVNBEATSEncoder, TDAEncoder

SLIM = {
    "input_size": 17,
    "hidden_size": 64,
    "num_stacks": 4,
    "num_blocks": 3,
    "num_layers": 2,
    "num_channels": 5,
    "block_width": 13,
}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def slim(**changes) -> OHLCVNBEATSEncoder:
    torch.manual_seed(0)
    return OHLCVNBEATSEncoder(**{**SLIM, **changes}).eval()


def plain_block(block, residual):
    """Features and backcast of one block, written out."""
    hidden = block.layers(residual)
    backcast = None if block.theta is None else block.expand(block.theta(hidden))
    return block.feature_head(hidden), backcast


def plain_tokens(encoder, ohlcv):
    """Output of every stack by blocks that read the residual and write a backcast, one after the other."""
    residual, tokens = encoder.flatten_window(ohlcv), []
    for stack in encoder.stacks:
        total = 0
        for block in stack.blocks:
            features, backcast = plain_block(block, residual)
            total, residual = total + features, residual if backcast is None else residual - backcast
        tokens.append(total)
    return torch.stack(tokens, 1)


@pytest.fixture(scope="module")
def full() -> OHLCVNBEATSEncoder:
    return OHLCVNBEATSEncoder()


def test_nbeats_counts(full):
    trunk = 1344 * 128 + 128 + 5 * (128 * 128 + 128)
    head = 128 * 256 + 256
    theta = {"trend": 129 * 14 * 4, "seasonality": 129 * 14 * 36, "generic": 129 * 1344}
    assert full.stack_types == ("trend", "seasonality", "generic", "generic")
    for stack, stack_type in zip(full.stacks, full.stack_types, strict=True):
        assert [count(block.layers) for block in stack.blocks] == [trunk] * 6
        assert [count(block.feature_head) for block in stack.blocks] == [head] * 6
        thetas = [count(block.theta) for block in stack.blocks if block.theta is not None]
        assert thetas == [theta[stack_type]] * (5 if stack is full.stacks[-1] else 6)
    assert count(full.input_norm) == 2 * 14
    assert count(full.attention.token_norm) == 512
    assert count(full.attention.self_attn) == 263_168
    assert count(full.attention.ffn_norm) == 2048
    assert count(full.attention.ffn) == 1024 * 2048 + 2048 + 2048 * 1024 + 1024
    assert count(full) == 13_709_564


def test_small_encoder_counts():
    assert count(TDAEncoder()) == 60_544
    assert count(ComplexityEncoder()) == 4_608


def test_bases_are_buffers_and_only_the_last_block_has_no_backcast(full):
    shapes = {name: tuple(buffer.shape) for name, buffer in full.named_buffers() if name.endswith("basis")}
    expected = {f"stacks.{s}.blocks.{b}.basis": shape for s, shape in enumerate([(4, 96), (36, 96)]) for b in range(6)}
    assert shapes == expected
    without = [name for name, module in full.named_modules() if getattr(module, "theta", module) is None]
    assert without == ["stacks.3.blocks.5"]


def test_last_block_of_a_trend_stack_has_no_basis():
    last = slim(stack_types=["generic", "generic", "generic", "trend"]).stacks[-1].blocks[-1]
    assert last.theta is None
    assert last.basis is None


def test_trend_basis_spans_cubics():
    t = torch.arange(96) / 96
    cubic = 0.5 - 2 * t + 3 * t**2 - t**3
    assert torch.allclose(torch.tensor([0.5, -2.0, 3.0, -1.0]) @ trend_basis(96), cubic, atol=1e-6)


@pytest.mark.parametrize(("length", "harmonics"), [(96, 18), (37, 18), (36, 17), (8, 3)])
def test_seasonality_basis_is_orthogonal_and_below_half_the_sampling_rate(length, harmonics):
    basis = seasonality_basis(length).double()
    assert basis.shape == (2 * harmonics, length)
    gram = basis @ basis.T  # harmonics on a full period: orthogonal, squared norm T / 2
    assert torch.allclose(gram, torch.eye(2 * harmonics, dtype=torch.float64) * length / 2, atol=1e-3)


@pytest.mark.parametrize("stack_type", ["trend", "seasonality"])
def test_backcast_stays_in_its_basis_for_every_channel(stack_type):
    encoder = slim(stack_types=[stack_type] * 4)
    block = encoder.stacks[0].blocks[0]
    _, backcast = plain_block(block, torch.randn(7, 5 * 17))
    rows = backcast.view(7, 5, 17)
    projector = torch.linalg.pinv(block.basis) @ block.basis  # (T, T)
    assert rows.std() > 1e-3
    assert torch.allclose(rows @ projector, rows, atol=1e-5)


@pytest.mark.parametrize(("batch", "length", "channels"), [(2, 11, 3), (3, 13, 7), (1, 19, 5)])
@pytest.mark.parametrize("use_attention", [True, False])
def test_output_shape(batch, length, channels, use_attention):
    encoder = slim(input_size=length, num_channels=channels, use_attention=use_attention)
    x = torch.randn(batch, length, channels)
    assert encoder(x).shape == (batch, encoder.output_dim) == (batch, 64)
    assert encoder.stack_tokens(x).shape == (batch, 4, 16)


def test_small_encoder_shapes():
    assert TDAEncoder(input_dim=23, output_dim=11)(torch.randn(3, 23)).shape == (3, 11)
    assert ComplexityEncoder(input_dim=5, output_dim=7)(torch.randn(3, 5)).shape == (3, 7)


def test_stacks_are_doubly_residual():
    """The residual is the input less all backcasts, also across stacks, and features add up."""
    encoder = slim()
    ohlcv = torch.randn(3, 17, 5)
    start = residual = encoder.flatten_window(ohlcv)
    tokens, removed = [], torch.zeros_like(start)
    for stack in encoder.stacks:
        features = torch.zeros(3, 16)
        left = residual
        for block in stack.blocks:
            feature, backcast = plain_block(block, left)
            features = features + feature
            if backcast is not None:
                left, removed = left - backcast, removed + backcast
        got, residual = stack(residual)
        assert torch.allclose(got, features, atol=1e-6)
        tokens.append(features)
    assert removed.abs().max() > 1e-2
    assert torch.allclose(residual, start - removed, atol=1e-5)
    assert torch.allclose(encoder.stack_tokens(ohlcv), torch.stack(tokens, 1), atol=1e-5)


def test_shared_work_changes_nothing_at_full_size(full):
    """Values and gradients of the stacks against blocks written out."""
    torch.manual_seed(1)
    ohlcv, seed = torch.randn(32, 96, 14), torch.randn(32, 4, 256)
    encoder = full.eval()
    results = []
    for tokens in (encoder.stack_tokens(ohlcv), plain_tokens(encoder, ohlcv)):
        encoder.zero_grad()
        (tokens * seed).sum().backward()
        results.append((tokens, {n: p.grad.clone() for n, p in encoder.stacks.named_parameters()}))
    (got, grads), (expected, expected_grads) = results
    assert expected.abs().mean() > 0.1
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    for name, gradient in expected_grads.items():
        scale = gradient.abs().max()
        torch.testing.assert_close(grads[name] / scale, gradient / scale, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("stack_types", [["seasonality"] * 4, ["generic", "generic", "seasonality", "trend"]])
def test_shared_work_changes_nothing_in_other_orders(stack_types):
    encoder, ohlcv = slim(stack_types=stack_types), torch.randn(3, 17, 5)
    torch.testing.assert_close(encoder.stack_tokens(ohlcv), plain_tokens(encoder, ohlcv), rtol=1e-5, atol=1e-5)


def test_window_is_normalised_per_channel_and_flattened_channel_by_channel():
    encoder = slim().train()
    ohlcv = torch.randn(11, 17, 5) * torch.tensor([1.0, 10.0, 0.1, 3.0, 7.0]) + 4
    rows = encoder.flatten_window(ohlcv).view(11, 5, 17)
    expected = (ohlcv - ohlcv.mean((0, 1))) / ohlcv.std((0, 1), unbiased=False)
    assert torch.allclose(rows, expected.transpose(1, 2), atol=1e-2)


def test_attention_block_by_hand():
    torch.manual_seed(0)
    block = AttentionBlock(32, num_tokens=4, num_heads=2).eval()
    tokens = torch.randn(3, 4, 8)
    q, k, v = nn.functional.linear(block.token_norm(tokens), block.self_attn.in_proj_weight).chunk(3, dim=-1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(q[..., head] @ k[..., head].transpose(1, 2) / 4**0.5, dim=-1)
        heads.append(weights @ v[..., head])
    x = (tokens + block.self_attn.out_proj(torch.cat(heads, -1))).reshape(3, 32)
    first, _, _, second, _ = block.ffn
    expected = x + second(nn.functional.gelu(first(block.ffn_norm(x))))
    assert torch.allclose(block(tokens), expected, atol=1e-5)


def test_tda_encoder_by_hand():
    encoder = TDAEncoder(input_dim=2, output_dim=1, hidden_dim=2).eval()
    first, second = encoder.layers[0], encoder.layers[3]
    first.weight.data, first.bias.data = torch.tensor([[1.0, 2.0], [-1.0, 0.0]]), torch.tensor([0.5, 0.0])
    second.weight.data, second.bias.data = torch.tensor([[2.0, 5.0]]), torch.tensor([-1.0])
    # (1, 1): 3.5 and relu(-1) = 0, so 2 * 3.5 - 1; (-4, 0): relu(-3.5) = 0 and 4, so 5 * 4 - 1
    assert encoder(torch.tensor([[1.0, 1.0], [-4.0, 0.0]])).flatten().tolist() == [6.0, 19.0]


def test_dropout_is_after_each_relu_and_in_the_attention_block():
    encoder = slim(dropout=0.25)
    for block in [block for stack in encoder.stacks for block in stack.blocks]:
        assert [type(m).__name__ for m in block.layers] == ["Linear", "ReLU", "Dropout"] * 2
    rates = [m.p for m in encoder.modules() if isinstance(m, nn.Dropout)] + [encoder.attention.self_attn.dropout]
    assert len(rates) == 12 * 2 + 2 + 1
    assert set(rates) == {0.25}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stack_types": ["trend", "sawtooth", "generic", "generic"]}, "sawtooth"),
        ({"stack_types": ["trend"]}, "num_stacks is 4, stack_types lists 1"),
        ({"hidden_size": 66}, "multiple of num_stacks 4"),
        ({"hidden_size": 68}, "4 tokens times 8 heads"),
    ],
)
def test_impossible_architectures_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        slim(**changes)


def test_clock_encoder_sees_midnight_and_new_week_as_neighbours_and_the_weekend_as_a_step():
    torch.manual_seed(0)
    encoder = ClockEncoder(output_dim=11).eval()
    around_midnight = encoder(torch.tensor([[0.9999, 1.9999 / 7], [0.0001, 2.0001 / 7]]))
    torch.testing.assert_close(*around_midnight, atol=5e-3, rtol=0)
    noon = encoder(torch.tensor([[0.5, 2.5 / 7]]))
    assert around_midnight.shape == (2, 11) and not torch.allclose(around_midnight[0], noon[0], atol=0.01)
    before, after = encoder(torch.tensor([[0.0, 5 / 7 - 1e-6], [0.0, 5 / 7 + 1e-6]]))
    assert not torch.allclose(before, after, atol=0.01), "Saturday must be told from Friday"
