"""What the stacks take out of a window adds up to the window, and lies in the space of their basis."""

import numpy as np
import pytest
import torch
from slim import panel_of, slim

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.encoders.nbeats import seasonality_basis, trend_basis
from cmat_lib.explain.decomposition import decompose, decompose_log_price
from cmat_lib.models import build_model

WIDTHS = {"nbeats_hidden_size": 64, "nbeats_num_layers": 2, "nbeats_block_width": 16}


def model_of(**changes):
    torch.manual_seed(0)
    changes = {"data": {"sequence_length": 40}, "model": WIDTHS | {"nbeats_num_blocks": 2} | changes}
    model = build_model(load_config(changes=changes))
    model.train()(torch.randn(64, 40, 14) + 0.5, torch.randn(64, 214), torch.randn(64, 6))  # moves the batch norm
    return model


def test_parts_and_rest_are_the_window():
    model, ohlcv = model_of(), torch.randn(5, 40, 14)
    found = decompose(model, ohlcv)
    assert found.stacks == ("trend", "seasonality", "generic 1", "generic 2") and model.training
    assert found.parts.shape == (5, 4, 14, 40) and found.rest.shape == (5, 14, 40)
    torch.testing.assert_close(found.parts.sum(1) + found.rest, found.input, atol=1e-5, rtol=0)
    model.eval()
    torch.testing.assert_close(
        found.input, model.encoders["nbeats"].input_norm(ohlcv.transpose(1, 2)), atol=1e-6, rtol=0
    )
    left = model.encoders["nbeats"].flatten_window(ohlcv)
    for stack in model.encoders["nbeats"].stacks[:2]:
        left = stack(left)[1]
    torch.testing.assert_close(found.rest + found.parts[:, 2:].sum(1), left.view(5, 14, 40), atol=1e-5, rtol=0)
    assert (found.parts.abs().amax(dim=(0, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize(("stack", "basis"), [(0, trend_basis), (1, seasonality_basis)])
def test_parts_lie_in_their_basis(stack, basis):
    part = decompose(model_of(), torch.randn(5, 40, 14)).parts[:, stack].reshape(-1, 40).double()
    span = basis(40).double()
    fitted = torch.linalg.lstsq(span.T, part.T).solution
    torch.testing.assert_close((span.T @ fitted).T, part, atol=1e-5, rtol=0)
    assert part.std() > 1e-3


def test_log_price_parts_are_the_price_path():
    config = slim()
    panel = panel_of(config)
    torch.manual_seed(0)
    model = build_model(config)
    model.train().answers(panel.gather(torch.arange(300)).inputs)
    model.eval()
    panel.scalers["nbeats"]["scale"][0] = 1.0
    index = torch.tensor([50, 7, 300])
    found = decompose_log_price(model, panel, index)
    assert found.parts.shape == (3, 4, 8)
    torch.testing.assert_close(found.parts.sum(1) + found.rest, found.input, atol=1e-6, rtol=0)
    close = panel.shown["nbeats"].values[:, 0].numpy()
    rows = panel.samples["row"].to_numpy()[index]
    expected = np.stack([close[row - 7 : row + 1] - close[row] for row in rows])
    np.testing.assert_allclose(found.input.numpy(), expected, atol=1e-6)
    raw = decompose(model, panel.gather(index).inputs["nbeats"])
    norm = model.encoders["nbeats"].input_norm
    unit = ((norm.running_var + norm.eps).sqrt() / norm.weight)[0].detach()
    torch.testing.assert_close(found.parts, raw.parts[:, :, 0] * unit, atol=1e-6, rtol=0)
    assert abs(unit - 1) > 0.01


def test_what_cannot_be_decomposed_says_so():
    with pytest.raises(CmatError, match=r"model\.modalities"):
        decompose(model_of(modalities=["tda"]), torch.randn(5, 40, 14))
    config = slim()
    with pytest.raises(CmatError, match="no channel 'log_high'"):
        decompose_log_price(build_model(config), panel_of(config), torch.tensor([9]), "log_high")
