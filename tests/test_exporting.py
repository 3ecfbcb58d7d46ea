"""The exported program answers as the model does."""

import json

import pytest
import torch
from slim import SLIM, model_content

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.models import build_model
from cmat_lib.training.checkpoint import save_checkpoint
from cmat_lib.workflow.export import ABOUT, export_model

FUSIONS = [
    {"fusion_type": "cross_modal_attention"},
    {"fusion_type": "cross_modal_attention", "use_cls_token": True, "tokens": "fine"},
    {"fusion_type": "concat"},
    {"fusion_type": "gated"},
    {"fusion_type": "bottleneck"},
]


def checkpoint(path, fusion, modalities=("nbeats", "tda", "complexity", "clock")):
    base = {**SLIM, "fusion": {**SLIM["fusion"], **fusion}}
    changes = {"model": {**SLIM["model"], "modalities": list(modalities)}}
    config = load_config(changes=changes, base={k: v for k, v in base.items() if k != "model"})
    model = build_model(config)
    save_checkpoint(path, model_content(config, model))
    return model.eval(), config


def inputs(config, batch):
    generator = torch.Generator().manual_seed(batch)
    shapes = (config.data.sequence_length, len(config.data.channel_names)), (config.tda.feature_dim,), (6,), (2,)
    names = ("nbeats", "tda", "complexity", "clock")
    return {n: torch.rand(batch, *shape, generator=generator) for n, shape in zip(names, shapes, strict=True)}


@pytest.mark.parametrize("fusion", FUSIONS, ids=lambda fusion: "-".join(map(str, fusion.values())))
def test_round_trip(tmp_path, fusion):
    model, config = checkpoint(tmp_path / "best_model.pt", fusion)
    export_model(tmp_path / "best_model.pt", tmp_path / "model.pt2")
    about = {ABOUT: ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=about).module()
    for batch in (1, 2, 7):
        given = inputs(config, batch)
        with torch.no_grad():
            expected = model(*list(given.values())[:3], clock=given["clock"])
        assert expected[0].shape == (batch, 1)
        for answer, wanted in zip(program(given), expected, strict=True):
            torch.testing.assert_close(answer, wanted, atol=1e-6, rtol=0)
    about = json.loads(about[ABOUT])
    assert about["threshold"] == 0.25
    shapes = {name: tuple(shape) for name, shape in about["inputs"].items()}
    assert list(shapes) == ["nbeats", "tda", "complexity", "clock"]
    assert list(shapes.values()) == [tuple(x.shape[1:]) for x in given.values()]


def test_a_view_that_the_model_does_not_see_is_still_an_argument(tmp_path):
    model, config = checkpoint(tmp_path / "best_model.pt", {}, ("nbeats", "complexity"))
    program = export_model(tmp_path / "best_model.pt", tmp_path / "model.pt2").module()
    given = inputs(config, 3)
    torch.testing.assert_close(program(given)[0], model(*list(given.values())[:3])[0].detach())


def test_another_ending(tmp_path):
    checkpoint(tmp_path / "best_model.pt", {})
    with pytest.raises(CmatError, match=r"model\.onnx: torch\.export files end in \.pt2"):
        export_model(tmp_path / "best_model.pt", tmp_path / "model.onnx")
