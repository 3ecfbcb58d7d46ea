"""Stage 06: what page 06 computes. The other stages stand in `cmat_lib.workflow.stages.data`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config
from cmat_lib.evaluation.uncertainty import Resampling
from cmat_lib.explain.attention import (
    Names,
    attending_encoder,
    attention_maps,
    collect_maps,
    gate_values,
    gradient_attention,
    has_attention,
    stack_attention_maps,
)
from cmat_lib.explain.attribution import ShapleyTables, sample_table, shapley_tables
from cmat_lib.explain.controls import (
    Reading,
    agreement_table,
    control_readings,
    control_table,
    mean_maps,
    modality_shares,
    read_model,
    untrained,
)
from cmat_lib.explain.groups import token_shares
from cmat_lib.explain.measures import Loss, mean_table, trigger_loss
from cmat_lib.explain.permutation import block_order, input_pieces, modality_pieces, permutation_table, permuted_logits
from cmat_lib.explain.shapley import StandIns, coalition_logits, embed_samples, shapley_of
from cmat_lib.models.fusion.tokens import Features
from cmat_lib.models.multitask import MultiTaskCrossModalAttention
from cmat_lib.training.checkpoint import load_model
from cmat_lib.training.devices import pick_device
from cmat_lib.views.panel import Batch, Panel
from cmat_lib.workflow.run import Run, resolve_path
from cmat_lib.workflow.stages.data import load_panel

Order = Callable[[], np.ndarray]
SAME = ("data_hash", "views", "scalers", "labels")  # for runs as controls


class Subject(NamedTuple):
    """What is explained."""

    model: MultiTaskCrossModalAttention
    checkpoint: dict[str, Any]
    panel: Panel
    index: Tensor  # (N,), test samples
    config: Config

    @property
    def samples(self) -> pd.DataFrame:
        """Rows of ``data/samples.parquet``, N of them."""
        return self.panel.samples.iloc[self.index.cpu().numpy()]


def explain_model(config: Config, run: Run) -> dict[str, np.ndarray]:
    """Stage 06: attention maps of test samples, evenly spaced in time.

    Returns
    -------
    dict of ndarray
        ``sample`` (N,) row numbers of ``data/samples.parquet``. If the fusion has attention: ``maps`` (N, layers, h, M,
        M) between the ``tokens`` (M,), and ``signed`` (N, layers, M, M), weight times gradient of the trigger's logit,
        summed over the heads. If it has gates: ``gates`` (N, M) of the ``gate_tokens`` (M,). If the N-BEATS encoder has
        attention: ``stack_maps`` (N, 1, h, S, S) between the ``stack_tokens`` (S,). Numbers are float16. Also in
        ``attention.npz``.
    """
    subject = _subject(config, run, config.explain.max_samples)
    model, index = subject.model, subject.index
    arrays = {"sample": index.cpu().numpy()}
    stacks_attend = attending_encoder(model) is not None
    for key, names, present, reader in (
        ("maps", "tokens", has_attention(model), attention_maps),
        ("signed", "tokens", has_attention(model), _signed),
        ("gates", "gate_tokens", hasattr(model.fusion, "gates"), _gates),
        ("stack_maps", "stack_tokens", stacks_attend, stack_attention_maps),
    ):
        if present:
            batches = subject.panel.batches(index, config.explain.batch_size)
            found = collect_maps(model, batches, len(index), reader)
            arrays |= {key: found.maps, names: np.array(found.token_names)}
    if "gates" in arrays:
        arrays["gates"] = arrays["gates"][:, 0]
    run.save_arrays("attention.npz", **arrays)
    return arrays


def _signed(model: MultiTaskCrossModalAttention, batch: Batch) -> tuple[Tensor, Names]:
    signed, names = gradient_attention(model, batch)
    return signed.sum(dim=2), names  # (layers, B, M, M)


def _gates(model: MultiTaskCrossModalAttention, batch: Batch) -> tuple[Tensor, Names]:
    gates, names = gate_values(model, batch)
    return gates[None], names  # (1, B, M)


def _subject(config: Config, run: Run, *limits: int) -> Subject:
    """Test samples are thinned evenly to each limit in turn."""
    device = pick_device(config.training)
    model, _, checkpoint = load_model(run.model_folder / "best_model.pt", device)
    panel = load_panel(config, run, device)
    index = panel.index("test")
    for limit in limits:
        index = _thinned(index, limit)
    return Subject(model, checkpoint, panel, index, config)


def _thinned(index: Tensor, limit: int) -> Tensor:
    return index[torch.linspace(0, len(index) - 1, min(len(index), limit)).long().to(index.device)]


def attribute_model(config: Config, run: Run) -> dict[str, pd.DataFrame]:
    """Stage 06: what the answers hang on, and what would contradict the attention maps.

    The samples are a part of those of `explain_model`.

    Returns
    -------
    dict of DataFrame
        ``shapley``, ``interactions``, ``efficiency``, ``shapley_samples`` (see
        `cmat_lib.explain.attribution.shapley_tables`); ``ablation`` of the modalities and ``importance`` of channels,
        groups of topology features and complexity indicators (see
        `cmat_lib.explain.permutation.permutation_table`); ``controls`` (see
        `cmat_lib.explain.controls.control_table`); if the fusion has attention, ``mean_maps`` of the model and its
        controls, ``shares`` of the modalities in it and their ``agreement`` with Shapley values and ablation. Also in
        ``attribution.json``, the samples in ``shapley_samples.parquet``.

    Raises
    ------
    CmatError
        If a folder of ``explain.other_runs`` holds no model of the same data.
    """
    explain = config.explain
    subject = _subject(config, run, explain.max_samples, explain.attribution_samples)
    resampling, loss = Resampling.from_config(config), trigger_loss(config, subject.panel)
    samples, features = subject.samples, embed_samples(subject.model, subject.panel, subject.index, explain.batch_size)
    worth = coalition_logits(subject.model, features, _absent(subject), explain.batch_size)
    found = shapley_tables(worth, tuple(features), samples, loss, resampling)
    rng = np.random.default_rng(config.seed)
    order = partial(block_order, samples["symbol"], samples["timestamp"], resampling.block, rng)
    permuted, moved = _permutations(subject, features, found, order, loss, resampling)
    beside = _attention_beside(subject, features, found, permuted["ablation"], moved, order, loss, resampling)
    kept = {name: getattr(found, name) for name in ("shapley", "interactions", "efficiency")} | permuted | beside
    run.save_json("attribution.json", {name: frame.to_dict("records") for name, frame in kept.items()})
    run.save_frame("shapley_samples.parquet", found.samples)
    return kept | {"shapley_samples": found.samples}


def attribute_samples(config: Config, run: Run, rows: Sequence[int]) -> pd.DataFrame:
    """Stage 06: how the logits of chosen samples come about.

    Parameters
    ----------
    rows : sequence of int
        Row numbers of ``data/samples.parquet``, K of them.

    Returns
    -------
    DataFrame of K rows
        ``sample``, ``trigger``, ``base``, ``logit``, ``shapley_<modality>``, ``interaction_<a>_<b>``.
    """
    subject, size = _subject(config, run), config.explain.batch_size
    index = torch.as_tensor(np.asarray(rows), device=subject.index.device)
    features = embed_samples(subject.model, subject.panel, index, size)
    worth = coalition_logits(subject.model, features, _absent(subject), size)
    return sample_table(shapley_of(worth, tuple(features)), subject.panel.samples.iloc[np.asarray(rows)])


def _absent(subject: Subject) -> StandIns:
    """What absent modalities show: training samples, evenly spaced."""
    explain = subject.config.explain
    background = _thinned(subject.panel.index("train"), explain.attribution_samples)
    features = embed_samples(subject.model, subject.panel, background, explain.batch_size)
    return StandIns(features, explain.absent_draws, subject.config.seed)


def _permutations(
    subject: Subject, features: Features, found: ShapleyTables, order: Order, loss: Loss, resampling: Resampling
) -> tuple[dict[str, pd.DataFrame], np.ndarray]:
    """Tables of ablation and importance; how far ablation moves the logit of each sample, (N, K)."""
    explain, samples = subject.config.explain, subject.samples
    pieces = [*modality_pieces(subject.model), *input_pieces(subject.model)]
    orders = np.stack([order() for _ in range(explain.permutations)])
    given = subject.model, subject.panel, subject.index, features
    logits = permuted_logits(*given, pieces, orders, explain.batch_size)
    trigger = samples["trigger"].to_numpy()
    rise = loss(logits, trigger), loss(found.single.logit, trigger)
    table = permutation_table(*rise, pieces, samples["timestamp"], resampling)
    whole = table["kind"] == "modality"
    ablation = table[whole].drop(columns="kind").rename(columns={"name": "modality"})
    moved = np.abs(logits[:, whole.to_numpy()] - found.single.logit[:, None, None]).mean(axis=2)  # (N, K)
    return {"ablation": ablation, "importance": table[~whole].reset_index(drop=True)}, moved


def _attention_beside(
    subject: Subject,
    features: Features,
    found: ShapleyTables,
    ablation: pd.DataFrame,
    moved: np.ndarray,
    order: Order,
    loss: Loss,
    resampling: Resampling,
) -> dict[str, pd.DataFrame]:
    """Controls, and where tokens attend, attention shares of the modalities and their agreement with other measures."""
    model, samples, size = subject.model, subject.samples, subject.config.explain.batch_size
    readings = control_readings(model, features, [order() for _ in features], size) | _other_readings(subject)
    trigger, times, own = samples["trigger"].to_numpy(), samples["timestamp"], readings["model"]
    tables = {"controls": control_table(readings, trigger, times, loss, resampling)}
    if own.maps is None:
        return tables
    tables["mean_maps"] = mean_maps(readings)
    parts = model.fusion.parts
    shares = modality_shares(token_shares(own.maps, own.tokens), own.tokens, parts)  # (N, K)
    overall = found.shapley.loc[found.shapley["measure"] == "shapley", "value"].to_numpy()
    references = {"shapley": (overall, found.single.values), "ablation": (ablation["value"].to_numpy(), moved)}
    tables["shares"] = mean_table(shares, times, resampling, {"modality": list(parts)})
    tables["agreement"] = agreement_table(shares, references, list(parts), times, resampling)
    return tables


def _other_readings(subject: Subject) -> dict[str, Reading]:
    """An untrained model, and those of other runs."""
    config, size = subject.config, subject.config.explain.batch_size
    others = {"untrained model": untrained(subject.model, config.seed)}
    for folder in config.explain.other_runs:
        path = resolve_path(folder) / config.logging.save_dir / "best_model.pt"
        others[folder], _, theirs = load_model(path, subject.panel.device)
        if differing := [name for name in SAME if theirs[name] != subject.checkpoint[name]]:
            raise CmatError(f"explain.other_runs: {folder} has another {', '.join(differing)}; name a run of this data")
    return {
        name: read_model(other, embed_samples(other, subject.panel, subject.index, size), size)
        for name, other in others.items()
    }
