"""The whole model: counts, shapes, gradients, prediction mode, saving, overfitting one batch."""

import pytest
import torch

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config, load_config
from cmat_lib.models import FUSIONS, MultiTaskLoss, build_model, parameter_table
from cmat_lib.views import VIEWS
from cmat_lib.workflow.stages.common import check_before_work

SUBSETS = [["nbeats"], ["tda"], ["complexity"], ["nbeats", "complexity"], ["nbeats", "tda", "complexity"]]


def slim_config(**changes) -> Config:
    """A model of a few thousand parameters: T = 17, C = 5, F = 26, K = 6."""
    base = {
        "data": {"sequence_length": 17, "channels": ["log_open", "log_high", "log_low", "log_close", "rsi"]},
        "tda": {"betti_bins": 6},
        "model": {
            "nbeats_hidden_size": 64,
            "nbeats_num_blocks": 2,
            "nbeats_num_layers": 2,
            "nbeats_block_width": 24,
            "tda_encoder_dim": 16,
            "complexity_encoder_dim": 8,
        },
        "fusion": {"hidden_dim": 32, "output_dim": 32, "num_heads": 4, "ffn_dim": 48},
    }
    return load_config(base=base, changes=changes)


def slim_model(**changes):
    torch.manual_seed(0)
    return build_model(slim_config(**changes))


def inputs(batch=7):
    torch.manual_seed(1)
    return torch.randn(batch, 17, 5), torch.randn(batch, 26), torch.randn(batch, 6)


def test_counts():
    model = build_model(Config())
    assert model.get_num_parameters() == (15_782_142, 15_782_142)
    heads = [sum(p.numel() for p in head.parameters()) for head in (model.trigger_head, model.max_pct_head)]
    assert sum(heads) == 16_514
    model.encoders["nbeats"].requires_grad_(False)
    assert model.get_num_parameters() == (15_782_142 - 13_709_564, 15_782_142)


def test_parameter_table_adds_up_and_stands_beside_the_document():
    rows = {row.part: row for row in parameter_table(build_model(Config()))}
    assert rows["Model"].parameters == 15_782_142
    parts = ["N-BEATS encoder", "TDA encoder", "Complexity encoder", "Fusion", "Trigger head", "Max-pct head"]
    assert sum(rows[part].parameters for part in parts) == 15_782_142
    nbeats = [row.parameters for part, row in rows.items() if part.startswith("N-BEATS encoder: ")]
    assert (len(nbeats), sum(nbeats)) == (6, 13_709_564)
    assert rows["Fusion: feed-forward, per layer"][1:] == (525_568, "525,312")
    assert rows["Fusion: norms, per layer"].parameters == 1024
    assert rows["Fusion"][1:] == (1_990_912, "1,990,400")


FINE = ("trend", "seasonality", "generic 1", "generic 2", "H0 curve", "H1 curve", "H0 summary", "H1 summary")


@pytest.mark.parametrize("clock", [False, True])
def test_fine_tokens_and_their_counts(clock):
    modalities = ["nbeats", "tda", "complexity", *(["clock"] if clock else [])]
    config = load_config(changes={"fusion": {"tokens": "fine"}, "model": {"modalities": modalities}})
    model = build_model(config)
    assert model.fusion.token_names == (*FINE, "complexity", *(["clock"] if clock else []))
    small_encoder = lambda width: width * 64 + 64 + 64 * 256 + 256  # noqa: E731
    rows = {row.part: row.parameters for row in parameter_table(model)}
    assert [rows[f"TDA encoder: {name}"] for name in FINE[4:]] == [small_encoder(w) for w in (100, 100, 7, 7)]
    tda = 2 * small_encoder(100) + 2 * small_encoder(7)
    projections = 2 * (256 * 256 + 256) + 64 * 256 + 256
    extra = (15 * 64 + 64 + 64 * 64 + 64) + (64 * 256 + 256) + 256 if clock else 0
    fusion = projections + 9 * 256 + 2 * 789_760 + 65_792
    assert (tda, fusion) == (80_512, 1_795_840)
    assert model.get_num_parameters()[0] == 13_709_564 + tda + 4_608 + fusion + 16_514 + extra


def test_fine_tokens_of_one_dimension_of_homology():
    config = load_config(
        changes={"fusion": {"tokens": "fine"}, "tda": {"homology_dimensions": [1], "betti_max": [1.3]}}
    )
    assert build_model(config).fusion.token_names[4:] == ("H1 curve", "H1 summary", "complexity")


def test_a_group_of_topology_features_reaches_its_own_token_only():
    model = slim_model(fusion={"tokens": "fine"}).eval()
    ohlcv, tda, complexity = inputs()
    changed = tda.clone()
    changed[:, 13 + 6 :] += 1  # H1 summary: the last seven of 2 * (6 + 7) columns
    shown = {"nbeats": ohlcv, "complexity": complexity}
    before, after = (model.fusion.tokens(model.encode(shown | {"tda": x})) for x in (tda, changed))
    moved = (before != after).any(dim=2).any(dim=0)
    assert [name for name, m in zip(model.fusion.token_names, moved, strict=True) if m] == ["H1 summary"]


def test_parameter_table_leaves_out_what_is_not_there():
    model = slim_model(fusion={"fusion_type": "concat"}, model={"modalities": ["tda"]})
    rows = {row.part: row for row in parameter_table(model)}
    assert list(rows) == ["TDA encoder", "Fusion", "Trigger head", "Max-pct head", "Model"]
    assert rows["Fusion"].source == "820,736"


@pytest.mark.parametrize("tokens", ["modality", "fine"])
@pytest.mark.parametrize("fusion_type", FUSIONS)
@pytest.mark.parametrize("modalities", SUBSETS, ids="-".join)
def test_shapes_and_a_gradient_for_every_parameter(fusion_type, modalities, tokens):
    model = slim_model(fusion={"fusion_type": fusion_type, "tokens": tokens}, model={"modalities": modalities})
    logits, max_pct = model(*inputs())
    assert logits.shape == max_pct.shape == (7, 1)
    MultiTaskLoss()(logits, max_pct, torch.ones(7), torch.ones(7))["total"].backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert idle == []


@pytest.mark.parametrize("modalities", SUBSETS, ids="-".join)
def test_only_listed_modalities_are_read(modalities):
    model = slim_model(model={"modalities": modalities}).eval()
    before = inputs()
    for number, name in enumerate(["nbeats", "tda", "complexity"]):
        after = list(before)
        after[number] = torch.full_like(before[number], torch.nan) if name not in modalities else before[number] + 1
        same = torch.equal(model(*before)[0], model(*after)[0])
        assert same == (name not in modalities), name


@pytest.mark.parametrize("length", [8, 11, 23])
@pytest.mark.parametrize("use_cls_token", [False, True])
def test_short_look_backs(length, use_cls_token):
    model = slim_model(data={"sequence_length": length}, fusion={"use_cls_token": use_cls_token})
    logits, _ = model(torch.randn(3, length, 5), *inputs(3)[1:])
    assert logits.shape == (3, 1)


def test_fixed_weights_give_fixed_numbers():
    """Every weight 0.02 and every bias 0.01: the fusion sees constants, so each layer can be followed by hand."""
    model = slim_model(fusion={"fusion_type": "concat"}, model={"modalities": ["complexity"]}).eval()
    for name, parameter in model.named_parameters():
        parameter.data.fill_(0.01 if name.endswith("bias") else 0.02)
    logits, max_pct = model(*inputs(1)[:2], torch.full((1, 6), 2.0))
    x = 2.0
    for width in (6, 64, 8, 64, 32, 32):  # complexity encoder, shared_fc, head
        x = 0.02 * width * x + 0.01
    assert logits.item() == pytest.approx(x, rel=1e-5)
    assert max_pct.item() == pytest.approx(x, rel=1e-5)


def test_max_pct_scale_turns_units_into_percent():
    model = slim_model().eval()
    logits, units = model(*inputs())
    model.max_pct_scale.fill_(2.5)
    scaled_logits, percent = model(*inputs())
    assert torch.equal(logits, scaled_logits)
    assert torch.allclose(percent, 2.5 * units)
    assert model.state_dict()["max_pct_scale"].item() == 2.5


def test_predict_is_sigmoid_in_evaluation_mode_without_gradients():
    model = slim_model().train()
    probability, max_pct = model.predict(*inputs())
    again, _ = model.predict(*inputs())
    logits, expected = model.eval()(*inputs())
    assert not probability.requires_grad
    assert torch.equal(probability, again)
    assert torch.allclose(probability, 1 / (1 + torch.exp(-logits)), atol=1e-6)
    assert torch.allclose(max_pct, expected, atol=1e-6)


def test_predict_restores_every_mode_and_touches_no_statistics():
    model = slim_model().train()
    model.encoders["nbeats"].eval()  # as a frozen encoder stands beside training parts
    modes = [module.training for module in model.modules()]
    statistics = model.encoders["nbeats"].input_norm.running_mean.clone()
    model.predict(*inputs())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model.encoders["nbeats"].input_norm.running_mean, statistics)
    with pytest.raises(RuntimeError):
        model.predict(*inputs()[:2], torch.randn(7, 5))
    assert [module.training for module in model.modules()] == modes


def test_batch_rows_do_not_mix():
    model = slim_model()
    together, _ = model.predict(*inputs())
    alone = torch.cat([model.predict(*(x[row : row + 1] for x in inputs()))[0] for row in range(7)])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("fusion_type", FUSIONS)
def test_state_dict_round_trip(fusion_type, tmp_path):
    model = slim_model(fusion={"fusion_type": fusion_type})
    model(*inputs())  # moves the BatchNorm statistics away from their defaults
    model.max_pct_scale.fill_(1.7)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    torch.manual_seed(99)
    other = build_model(model.config)
    fresh = other.predict(*inputs())
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    for expected, got, before in zip(model.predict(*inputs()), other.predict(*inputs()), fresh, strict=True):
        assert torch.equal(expected, got)
        assert not torch.allclose(expected, before, atol=1e-4)


@pytest.mark.parametrize("fusion_type", FUSIONS)
def test_overfits_one_batch(fusion_type):
    model = slim_model(fusion={"fusion_type": fusion_type, "dropout": 0.0}, model={"encoder_dropout": 0.0})
    torch.manual_seed(2)
    batch, trigger, target = inputs(16), (torch.arange(16) % 3 == 0).float(), 2 * torch.randn(16)
    loss = MultiTaskLoss(gamma=2.0, positive_weight=2.0, max_pct_std=2.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    history = []
    for _ in range(200):
        optimizer.zero_grad()
        losses = loss(*model(*batch), trigger, target)
        losses["total"].backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.items()})
        if all(history[-1][name] < 0.05 * history[0][name] for name in losses):
            return
    pytest.fail(f"after 200 steps {history[-1]}, at the start {history[0]}")


def test_unknown_fusion_names_the_nearest():
    with pytest.raises(CmatError, match="did you mean 'cross_modal_attention'"):
        slim_model(fusion={"fusion_type": "cross_modal_atention"})


def test_views_are_seen_in_one_order_whatever_the_parameters_say():
    one, other = (slim_model(model={"modalities": names}) for names in (["tda", "nbeats"], ["nbeats", "tda"]))
    assert list(one.encoders) == list(one.fusion.parts) == ["nbeats", "tda"]
    assert all(torch.equal(a, b) for a, b in zip(one(*inputs()), other(*inputs()), strict=True))


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        (["nbeats", "tad"], "there is no view 'tad'; did you mean 'tda'"),
        (["clock"], "lists clock alone, which says nothing of the market"),
    ],
)
def test_views_that_cannot_be_seen(modalities, message):
    config = slim_config(model={"modalities": modalities})
    for check in (build_model, VIEWS.check, check_before_work):
        with pytest.raises(CmatError, match=rf"model\.modalities.* {message}|model\.modalities {message}"):
            check(config)


def test_the_clock_is_a_fourth_token_and_costs_nothing_when_off():
    plain = build_model(load_config())
    seen = build_model(load_config(changes={"model": {"modalities": ["nbeats", "tda", "complexity", "clock"]}}))
    assert plain.fusion.token_names == ("nbeats", "tda", "complexity") and plain.get_num_parameters()[1] == 15_782_142
    assert seen.fusion.token_names == ("nbeats", "tda", "complexity", "clock")
    encoder = 15 * 64 + 64 + 64 * 64 + 64
    assert seen.get_num_parameters()[1] == 15_782_142 + encoder + (64 * 256 + 256) + 256
    inputs = [torch.randn(3, *shape) for shape in ((96, 14), (214,), (6,))]
    noon, midnight = torch.full((3, 2), 0.5), torch.zeros(3, 2)
    assert not torch.allclose(seen.predict(*inputs, clock=noon)[0], seen.predict(*inputs, clock=midnight)[0])
    assert torch.equal(plain.predict(*inputs, clock=noon)[0], plain.predict(*inputs, clock=midnight)[0])


def test_answers_are_read_off_the_auxiliary_forecasts():
    model = build_model(load_config(changes={"model": {"auxiliary_head": True}})).eval()
    shapes = {"nbeats": (96, 14), "tda": (214,), "complexity": (6,)}
    answers = model.answers({name: torch.randn(3, *shape) for name, shape in shapes.items()})
    assert answers.auxiliary.shape == (3, 4)
    torch.testing.assert_close(answers.trigger_logits, model.trigger_head(answers.auxiliary))
    assert sum(p.numel() for p in model.trigger_head.parameters()) == 5
