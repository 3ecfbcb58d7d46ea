"""``best_model.pt``: whole or refused, and no code in it is ever run."""

import os
import pickle

import pytest
import torch
from slim import model_content

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.models import build_model
from cmat_lib.training import checkpoint
from cmat_lib.training.checkpoint import load_checkpoint, load_model, save_checkpoint

SLIM = {
    "data": {"sequence_length": 16},
    "fusion": {"hidden_dim": 16, "num_heads": 2, "num_layers": 1, "ffn_dim": 16, "output_dim": 16},
    "model": {"nbeats_hidden_size": 32, "nbeats_num_blocks": 1, "nbeats_num_layers": 1, "nbeats_block_width": 8},
}


@pytest.fixture
def saved(tmp_path):
    config = load_config(changes=SLIM)
    torch.manual_seed(0)
    model = build_model(config).eval()
    save_checkpoint(tmp_path / "best_model.pt", model_content(config, model))
    return tmp_path / "best_model.pt", model


def test_round_trip_gives_the_same_predictions(saved):
    path, model = saved
    inputs = torch.randn(3, 16, 14), torch.randn(3, 214), torch.randn(3, 6)
    loaded, config, content = load_model(path)
    for a, b in zip(model(*inputs), loaded(*inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not loaded.training and content["threshold"] == 0.25 and config.data.sequence_length == 16


@pytest.mark.parametrize("keep", [0, 10, 1000, 0.5, 0.999])
def test_truncated_file_is_named(saved, keep):
    path, _ = saved
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(CmatError, match=r"best_model\.pt: damaged or not a model"):
        load_checkpoint(path)


def test_missing_file_says_what_to_run(tmp_path):
    with pytest.raises(CmatError, match="no such model; run notebooks/04_training"):
        load_checkpoint(tmp_path / "best_model.pt")


class Malicious:
    """Makes a folder when a careless reader unpickles it."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path, legacy):
    path, folder = tmp_path / "best_model.pt", tmp_path / "proof"
    if legacy:
        path.write_bytes(pickle.dumps({"x": Malicious(folder)}))
    else:
        torch.save({"x": Malicious(folder)}, path)
    with pytest.raises(CmatError, match="damaged or not a model"):
        load_checkpoint(path)
    assert not folder.exists()
    if not legacy:
        torch.load(path, weights_only=False)
        assert folder.exists(), "the attack itself must work"


@pytest.mark.parametrize(
    "change", [{"format_version": 99}, {"format_version": torch.tensor([3, 3])}, {"extra": 1}], ids=str
)
def test_other_formats_are_refused(saved, change):
    path, _ = saved
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(CmatError, match="not a model of this version"):
        load_checkpoint(path)


@pytest.mark.parametrize("section, key", [("data", "sequence_length"), ("model", "nbeats_hidden_size")])
def test_sizes_that_the_weights_do_not_have_cost_no_memory(saved, monkeypatch, section, key):
    path, _ = saved
    content = torch.load(path, weights_only=True)
    content["config"][section][key] = 10**8
    torch.save(content, path)
    built = []
    monkeypatch.setattr(
        checkpoint, "build_model", lambda config: built.append(str(torch.get_default_device())) or build_model(config)
    )
    with pytest.raises(CmatError, match="the weights do not fit the stored parameters"):
        load_model(path)
    assert built == ["meta"]


def isotonic(**changes):
    return {"method": "isotonic", "x": [0.1, 0.2], "y": [0.0, 1.0]} | changes


def scalers(group="tda", **changes):
    return lambda content: {**content["scalers"], group: {**content["scalers"][group], **changes}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seen_until", "x"),
        ("seen_until", "2025-01-01"),
        ("seen_until", "NaT"),
        ("threshold", float("nan")),
        ("threshold", 1.5),
        ("calibration", {}),
        ("calibration", {"method": []}),
        ("calibration", isotonic(x=[0.1])),
        ("calibration", isotonic(x=[], y=[])),
        ("calibration", isotonic(y=[0.0, float("nan")])),
        ("calibration", isotonic(x=[0.2, 0.1])),
        ("calibration", {"method": "temperature", "slope": "1", "bias": 0.0}),
        ("scalers", {}),
        ("scalers", scalers(center=[0.0])),
        ("scalers", scalers("complexity", scale=["a"] * 8)),
        ("scalers", scalers("nbeats", scale=[0.0] * 14)),
        ("views", []),
        ("views", lambda content: content["views"] | {"nbeats": [1]}),
        ("views", lambda content: content["views"] | {"tda": [1, *content["views"]["tda"][1:]]}),
        ("views", lambda content: {n: names for n, names in content["views"].items() if n != "complexity"}),
        ("symbols", [1]),
        ("symbols", "A"),
        ("labels", {"mode": torch.zeros(2)}),
        ("config", lambda content: content["config"] | {"tda": content["config"]["tda"] | {"betti_bins": 10**8}}),
        ("weights", {1: 2}),
    ],
)
def test_content_of_another_shape_is_refused_before_any_work(saved, key, value):
    path, _ = saved
    content = torch.load(path, weights_only=True)
    torch.save(content | {key: value(content) if callable(value) else value}, path)
    with pytest.raises(CmatError, match=r"damaged or not a model of CMAT \(") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_isotonic_calibration_is_a_calibration(saved):
    path, _ = saved
    torch.save(torch.load(path, weights_only=True) | {"calibration": isotonic()}, path)
    assert load_checkpoint(path)["calibration"] == isotonic()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(saved, number):
    path, _ = saved
    content = torch.load(path, weights_only=True)
    next(tensor for tensor in content["weights"].values() if tensor.is_floating_point()).view(-1)[0] = number
    torch.save(content, path)
    with pytest.raises(CmatError, match="weights are not all finite"):
        load_model(path)


def test_weights_that_do_not_fit_are_told_in_one_line(saved):
    path, _ = saved
    torch.save(torch.load(path, weights_only=True) | {"weights": {}}, path)
    with pytest.raises(CmatError, match=r"do not fit .* Missing key.*train again") as error:
        load_model(path)
    assert len(str(error.value)) < 300 + len(str(path)) and "\n" not in str(error.value)


def test_a_checkpoint_needs_all_keys(tmp_path):
    with pytest.raises(CmatError, match="needs the keys"):
        save_checkpoint(tmp_path / "best_model.pt", {"weights": {}})
    assert not list(tmp_path.iterdir())
