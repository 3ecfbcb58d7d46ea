"""Stage 06: where the model looks, what its answers hang on, and what would contradict that."""

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
from cmat_lib.explain import attention, controls, permutation
from cmat_lib.explain.attribution import ShapleyTables, sample_table, shapley_tables
from cmat_lib.explain.groups import token_shares
from cmat_lib.explain.measures import Loss, mean_table, trigger_loss
from cmat_lib.explain.shapley import StandIns, coalition_logits, embed_samples, shapley_of
from cmat_lib.models.fusion.tokens import Features
from cmat_lib.models.multitask import MultiTaskCrossModalAttention
from cmat_lib.training.checkpoint import load_model
from cmat_lib.training.devices import pick_device
from cmat_lib.views.panel import Batch, Panel
from cmat_lib.workflow.run import Run, open_run
from cmat_lib.workflow.stages.common import load_panel

SAME = ("data_hash", "views", "scalers", "labels")  # for runs as controls


class Subject(NamedTuple):
    """What is explained: a trained model, and all samples of its run."""

    model: MultiTaskCrossModalAttention
    checkpoint: dict[str, Any]
    panel: Panel
    config: Config

    def index(self, part: str, *limits: int) -> Tensor:
        """Numbers of the samples of a part, (N,), thinned evenly to each limit in turn."""
        index = self.panel.index(part)
        for limit in limits:
            index = index[torch.linspace(0, len(index) - 1, min(len(index), limit)).long().to(index.device)]
        return index

    def encoded(self, index: Tensor, other: MultiTaskCrossModalAttention | None = None) -> Features:
        """What the encoders of the model, or of another, make of samples (N,)."""
        return embed_samples(other or self.model, self.panel, index, self.config.explain.batch_size)


def load_subject(config: Config, run: Run) -> Subject:
    """Model and samples of a run whose stage 04 is finished."""
    device = pick_device(config.training)
    model, _, checkpoint = load_model(run.model_path(), device)
    return Subject(model, checkpoint, load_panel(config, run, device), config)


def explain_model(subject: Subject, run: Run) -> dict[str, np.ndarray]:
    """Stage 06: attention maps of test samples, evenly spaced in time; also in ``attention.npz``.

    Returns ``sample`` (N,), row numbers of ``data/samples.parquet``. If the fusion has attention: ``maps`` (N, layers,
    h, M, M) between the ``tokens`` (M,), and ``signed`` (N, layers, M, M), weight times gradient of the trigger's
    logit, summed over the heads. If it has gates: ``gates`` (N, M) of the ``gate_tokens`` (M,). If the N-BEATS encoder
    has attention: ``stack_maps`` (N, 1, h, S, S) between the ``stack_tokens`` (S,). Numbers are float16.
    """
    model, explain = subject.model, subject.config.explain
    index = subject.index("test", explain.max_samples)
    arrays = {"sample": index.cpu().numpy()}
    for key, names, present, reader in (
        ("maps", "tokens", attention.has_attention(model), attention.attention_maps),
        ("signed", "tokens", attention.has_attention(model), _signed),
        ("gates", "gate_tokens", hasattr(model.fusion, "gates"), _gates),
        ("stack_maps", "stack_tokens", attention.attending_encoder(model) is not None, attention.stack_attention_maps),
    ):
        if present:
            found = attention.collect_maps(model, subject.panel.batches(index, explain.batch_size), len(index), reader)
            arrays |= {key: found.maps, names: np.array(found.token_names)}
    if "gates" in arrays:
        arrays["gates"] = arrays["gates"][:, 0]  # they stand in one layer
    run.save_arrays("attention.npz", **arrays)
    return arrays


def _signed(model: MultiTaskCrossModalAttention, batch: Batch) -> tuple[Tensor, attention.Names]:
    signed, names = attention.gradient_attention(model, batch)
    return signed.sum(dim=2), names  # (layers, B, M, M)


def _gates(model: MultiTaskCrossModalAttention, batch: Batch) -> tuple[Tensor, attention.Names]:
    gates, names = attention.gate_values(model, batch)
    return gates[None], names  # (1, B, M)


class _Judged(NamedTuple):
    """The samples of the tables, and how they are judged."""

    subject: Subject
    index: Tensor  # (N,)
    features: Features  # the samples, encoded once for all tables
    samples: pd.DataFrame  # N rows
    trigger: np.ndarray  # (N,)
    found: ShapleyTables
    order: Callable[[], np.ndarray]  # draws permutations of the samples, in blocks
    loss: Loss
    resampling: Resampling


def attribute_model(subject: Subject, run: Run) -> dict[str, pd.DataFrame]:
    """Stage 06: what the answers hang on, for a part of the samples of `explain_model`, and what would contradict maps.

    Returns ``shapley``, ``interactions``, ``efficiency``, ``shapley_samples`` (see
    `cmat_lib.explain.attribution.shapley_tables`); ``ablation`` of the modalities and ``importance`` of channels,
    groups of topology features and complexity indicators (see `cmat_lib.explain.permutation.permutation_table`);
    ``controls`` (see `cmat_lib.explain.controls.control_table`); if the fusion has attention, ``mean_maps`` of the
    model and its controls, ``shares`` of the modalities in it and their ``agreement`` with Shapley values and ablation.
    Also in ``attribution.json``, the samples in ``shapley_samples.parquet``. A CmatError if a folder of
    ``explain.other_runs`` holds no model of the same data.
    """
    model, _, panel, config = subject
    index = subject.index("test", config.explain.max_samples, config.explain.attribution_samples)
    resampling, loss = Resampling.from_config(config), trigger_loss(config, panel)
    samples, features = panel.samples.iloc[index.cpu().numpy()], subject.encoded(index)
    worth = coalition_logits(model, features, _absent(subject), config.explain.batch_size)
    found = shapley_tables(worth, tuple(features), samples, loss, resampling)
    rng = np.random.default_rng(config.seed)
    order = partial(permutation.block_order, samples["symbol"], samples["timestamp"], resampling.block, rng)
    judged = _Judged(subject, index, features, samples, samples["trigger"].to_numpy(), found, order, loss, resampling)
    permuted, moved = _permutations(judged)
    kept = {name: getattr(found, name) for name in ("shapley", "interactions", "efficiency")} | permuted
    kept |= _attention_beside(judged, permuted["ablation"], moved)
    run.save_json("attribution.json", {name: frame.to_dict("records") for name, frame in kept.items()})
    run.save_frame("shapley_samples.parquet", found.samples)
    return kept | {"shapley_samples": found.samples}


def attribute_samples(subject: Subject, rows: Sequence[int]) -> pd.DataFrame:
    """Stage 06: how the logits of chosen `rows` of ``data/samples.parquet`` come about, see `sample_table`."""
    features = subject.encoded(torch.as_tensor(np.asarray(rows), device=subject.panel.device))
    worth = coalition_logits(subject.model, features, _absent(subject), subject.config.explain.batch_size)
    return sample_table(shapley_of(worth, tuple(features)), subject.panel.samples.iloc[np.asarray(rows)])


def _absent(subject: Subject) -> StandIns:
    """What absent modalities show: training samples, evenly spaced."""
    explain = subject.config.explain
    background = subject.encoded(subject.index("train", explain.attribution_samples))
    return StandIns(background, explain.absent_draws, subject.config.seed)


def _permutations(judged: _Judged) -> tuple[dict[str, pd.DataFrame], np.ndarray]:
    """Tables of ablation and importance; how far ablation moves the logit of each sample, (N, K)."""
    model, _, panel, config = judged.subject
    pieces = [*permutation.modality_pieces(model), *permutation.input_pieces(model)]
    orders = np.stack([judged.order() for _ in range(config.explain.permutations)])
    given = model, panel, judged.index, judged.features
    logits = permutation.permuted_logits(*given, pieces, orders, config.explain.batch_size)
    plain = judged.found.single.logit  # (N,)
    rise = judged.loss(logits, judged.trigger), judged.loss(plain, judged.trigger)
    table = permutation.permutation_table(*rise, pieces, judged.samples["timestamp"], judged.resampling)
    whole = table["kind"] == "modality"
    ablation = table[whole].drop(columns="kind").rename(columns={"name": "modality"})
    moved = np.abs(logits[:, whole.to_numpy()] - plain[:, None, None]).mean(axis=2)  # (N, K)
    return {"ablation": ablation, "importance": table[~whole].reset_index(drop=True)}, moved


def _attention_beside(judged: _Judged, ablation: pd.DataFrame, moved: np.ndarray) -> dict[str, pd.DataFrame]:
    """Controls, and where tokens attend, attention shares of the modalities and their agreement with other measures."""
    model, size = judged.subject.model, judged.subject.config.explain.batch_size
    times, resampling = judged.samples["timestamp"], judged.resampling
    orders = [judged.order() for _ in judged.features]
    readings = controls.control_readings(model, judged.features, orders, size) | _other_readings(judged)
    own = readings["model"]
    tables = {"controls": controls.control_table(readings, judged.trigger, times, judged.loss, resampling)}
    if own.maps is None:
        return tables
    tables["mean_maps"] = controls.mean_maps(readings)
    parts, shapley = model.fusion.parts, judged.found.shapley
    shares = controls.modality_shares(token_shares(own.maps, own.tokens), own.tokens, parts)  # (N, K)
    overall = shapley.loc[shapley["measure"] == "shapley", "value"].to_numpy()
    references = {"shapley": (overall, judged.found.single.values), "ablation": (ablation["value"].to_numpy(), moved)}
    tables["shares"] = mean_table(shares, times, resampling, {"modality": list(parts)})
    tables["agreement"] = controls.agreement_table(shares, references, list(parts), times, resampling)
    return tables


def _other_readings(judged: _Judged) -> dict[str, controls.Reading]:
    """An untrained model, and those of other runs."""
    model, checkpoint, panel, config = judged.subject
    others = {"untrained model": controls.untrained(model, config.seed)}
    for folder in config.explain.other_runs:
        others[folder], _, theirs = load_model(open_run(folder, "04_training").model_path(), panel.device)
        if differing := [name for name in SAME if theirs[name] != checkpoint[name]]:
            raise CmatError(f"explain.other_runs: {folder} has another {', '.join(differing)}; name a run of this data")
    encoded, size = partial(judged.subject.encoded, judged.index), config.explain.batch_size
    return {name: controls.read_model(other, encoded(other), size) for name, other in others.items()}
