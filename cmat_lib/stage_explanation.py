"""Stage 06: what page 06 computes. The other stages stand in `cmat_lib.stages`."""

from __future__ import annotations

import numpy as np
import torch

from cmat_lib.config import Config
from cmat_lib.explain.attention import attention_maps, collect_maps, stack_attention_maps
from cmat_lib.run import Run
from cmat_lib.stages import load_panel
from cmat_lib.training.checkpoint import load_model
from cmat_lib.training.devices import pick_device


def explain_model(config: Config, run: Run) -> dict[str, np.ndarray]:
    """Stage 06: attention maps of test samples, evenly spaced in time.

    Returns
    -------
    dict of ndarray
        ``sample`` (N,) row numbers of ``data/samples.parquet``; ``maps`` (N, layers, h, M, M) between the ``tokens``
        (M,) of the fusion, if it has attention; ``stack_maps`` (N, 1, h, S, S) between the N-BEATS ``stack_tokens``
        (S,), if the encoder has attention. Also in ``attention.npz``.
    """
    device = pick_device(config.training)
    model, _, _ = load_model(run.model_folder / "best_model.pt", device)
    panel = load_panel(config, run, device)
    index = panel.index("test")
    index = index[torch.linspace(0, len(index) - 1, min(len(index), config.explain.max_samples)).long().to(device)]
    arrays = {"sample": index.cpu().numpy()}
    for prefix, present, read in (
        ("", hasattr(model.fusion, "transformer"), attention_maps),
        ("stack_", getattr(model.ohlcv_encoder, "attention", None) is not None, stack_attention_maps),
    ):
        if present:
            found = collect_maps(model, panel.batches(index, config.explain.batch_size), read)
            arrays |= {f"{prefix}maps": found.maps, f"{prefix}tokens": np.array(found.token_names)}
    run.save_arrays("attention.npz", **arrays)
    return arrays
