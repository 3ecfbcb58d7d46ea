"""What would contradict an attention map: other measures, and maps that cannot mean anything.

Attention need not explain (Jain & Wallace, arXiv 1902.10186; Wiegreffe & Pinter, arXiv 1908.04626, who bring the
uniform weights; Adebayo et al., arXiv 1810.03292, who bring the untrained model).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau, rankdata, spearmanr

from cmat_lib.evaluation.uncertainty import Resampling, bootstrap_table
from cmat_lib.evaluation.weighted import Statistic, quotient
from cmat_lib.explain.attention import attention_entropy, has_attention, rollout, walk_layers
from cmat_lib.explain.groups import token_shares
from cmat_lib.explain.layers import Step, beside, uniform
from cmat_lib.explain.measures import Loss, mean_table
from cmat_lib.explain.shapley import logits, split_features
from cmat_lib.models.fusion.tokens import Features
from cmat_lib.models.multitask import MultiTaskCrossModalAttention, build_model, evaluation_mode


class Reading(NamedTuple):
    """What a model says of samples and where its tokens look."""

    logits: np.ndarray  # (n,)
    maps: np.ndarray | None  # (n, layers, h, M, M); None where nothing attends
    tokens: tuple[str, ...]  # M


@torch.no_grad()
def read_model(model: MultiTaskCrossModalAttention, features: Features, size: int, step: Step = beside) -> Reading:
    """Logits and maps from encoded modalities, (n, width) each, in evaluation mode; layers are run by `step`."""
    said, maps = [], []
    with evaluation_mode(model):
        for part in split_features(features, size):
            if has_attention(model):
                found, output = walk_layers(model.fusion.transformer.layers, model.fusion.tokens(part), step)
                maps.append(found.transpose(0, 1).cpu().numpy())
                said.append(model.read_off(model.fusion.pool(output)).trigger_logits[:, 0])
            else:
                said.append(logits(model, part))
    found = np.concatenate(maps) if maps else None
    return Reading(torch.cat(said).double().cpu().numpy(), found, tuple(model.fusion.token_names))


def modality_shares(shares: np.ndarray, tokens: Sequence[str], parts: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Attention shares of modalities (n, K), rows sum to 1, from those of their own tokens (n, M), named by `parts`.

    Other tokens ([CLS], bottlenecks) do not count.
    """
    sums = np.stack([shares[:, [tokens.index(t) for t in own]].sum(axis=1) for own in parts.values()], axis=1)
    return sums / sums.sum(axis=1, keepdims=True)


def row_spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row of (n, K) with that of another, (n,); NaN where a row has no order."""
    ranks = [rankdata(x, axis=1) - (x.shape[1] + 1) / 2 for x in (a, b)]
    return quotient((ranks[0] * ranks[1]).sum(1), np.sqrt((ranks[0] ** 2).sum(1) * (ranks[1] ** 2).sum(1)))


def row_kendall(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each row of (n, K) with that of another, (n,); NaN where a row has no order."""
    i, j = np.triu_indices(a.shape[1], 1)
    signs = [np.sign(x[:, i] - x[:, j]) for x in (a, b)]
    return quotient((signs[0] * signs[1]).sum(1), np.sqrt(np.abs(signs[0]).sum(1) * np.abs(signs[1]).sum(1)))


def agreement_table(
    shares: np.ndarray,
    references: Mapping[str, tuple[np.ndarray, np.ndarray]],
    modalities: Sequence[str],
    timestamps: pd.Series,
    resampling: Resampling,
) -> pd.DataFrame:
    """Whether attention ranks the modalities as other measures do, by their shares (n, K).

    A reference is what a measure gives each modality over all samples, (K,), and in each, (n, K), whose size is
    compared, whatever its sign. ``reference``, ``scope``, ``statistic`` (``spearman``, ``kendall``), ``value``,
    ``low``, ``high``. Scopes: ``global``, the K means, without an interval (of the six rankings of three, chance hits
    the right one in six); ``within samples``, the mean over samples of their own correlation; or a modality, the
    correlation over samples of its share with its size in the reference (intervals with the ranks held).
    """
    rows = []
    for name, (overall, single) in references.items():
        sizes, means = np.abs(single), shares.mean(axis=0)
        for statistic, whole, each in (("spearman", spearmanr, row_spearman), ("kendall", kendalltau, row_kendall)):
            found = whole(means, overall).statistic if len(modalities) > 1 else np.nan
            rows.append((name, "global", statistic, float(found), np.nan, np.nan))
            within = mean_table(each(shares, sizes)[:, None], timestamps, resampling).iloc[0]
            rows.append((name, "within samples", statistic, *within))
        for i, modality in enumerate(modalities):
            across = bootstrap_table(timestamps, _rank_correlation(shares[:, i], sizes[:, i]), resampling).iloc[0]
            rows.append((name, modality, "spearman", *across))
    return pd.DataFrame(rows, columns=["reference", "scope", "statistic", "value", "low", "high"])


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> Statistic:
    """Spearman's correlation over samples, (n,) both, as a weighted statistic."""
    x, y = rankdata(a), rankdata(b)

    def correlation(weights: np.ndarray) -> float:
        cov = np.cov(x, y, aweights=weights)
        return quotient(cov[0, 1], np.sqrt(cov[0, 0] * cov[1, 1]))

    return correlation


def control_readings(
    model: MultiTaskCrossModalAttention, features: Features, orders: Sequence[np.ndarray], size: int
) -> dict[str, Reading]:
    """The ``model`` as it is, with ``uniform attention`` (only where tokens attend), and with ``shuffled tokens``.

    Those of every modality, (n, width), come from other samples, each by its own of the `orders` (n,), from
    `cmat_lib.explain.permutation.block_order`.
    """
    readings = {"model": read_model(model, features, size)}
    if has_attention(model):
        readings["uniform attention"] = read_model(model, features, size, uniform)
    mixed = {name: x[torch.from_numpy(order)] for (name, x), order in zip(features.items(), orders, strict=False)}
    return readings | {"shuffled tokens": read_model(model, mixed, size)}


def untrained(model: MultiTaskCrossModalAttention, seed: int) -> MultiTaskCrossModalAttention:
    """A model of the same parameters with fresh weights, on the same device; torch's random state is left alone.

    The weights are not those from which a training with this seed starts: a trained model still resembles its own.
    """
    other = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(other)  # of the CPU alone, where models are built
        return build_model(model.config).to(next(model.parameters()).device).eval()


def control_table(
    readings: Mapping[str, Reading], trigger: np.ndarray, timestamps: pd.Series, loss: Loss, resampling: Resampling
) -> pd.DataFrame:
    """Loss, entropy and agreement of the model and of its controls.

    ``control``, ``measure``, ``value``, ``low``, ``high``. Measures: ``loss``; ``loss increase`` over the model;
    ``entropy`` of the maps relative to uniform; ``agreement``, the mean over samples of Spearman's correlation of the
    tokens' attention shares with the model's (not for uniform weights, which have no order, nor between models of
    different tokens).
    """
    names, columns, own = {"control": [], "measure": []}, [], readings["model"]
    reference = loss(own.logits, trigger)
    for control, reading in readings.items():
        losses = loss(reading.logits, trigger)
        found = {"loss": losses, "loss increase": losses - reference}
        if reading.maps is not None:
            found["entropy"] = attention_entropy(reading.maps).mean(axis=(1, 2, 3))
            if control not in ("model", "uniform attention") and reading.tokens == own.tokens:
                found["agreement"] = row_spearman(*(token_shares(r.maps, r.tokens) for r in (reading, own)))
        names["control"] += [control] * len(found)
        names["measure"] += found
        columns += found.values()
    return mean_table(np.stack(columns, axis=1), timestamps, resampling, names)


def mean_maps(readings: Mapping[str, Reading]) -> pd.DataFrame:
    """Rollout of the model and of the other models among its controls, mean over samples.

    ``control``, ``from``, ``to``, ``weight``; every ``from`` sums to 1. Models of other tokens are left out, and what
    has a mean that is known beforehand: uniform attention, and shuffled tokens, which are those of the same samples.
    """
    own, rows = readings["model"], []
    for control, reading in readings.items():
        known = control in ("uniform attention", "shuffled tokens")
        if known or reading.maps is None or reading.tokens != own.tokens:
            continue
        mean = rollout(reading.maps).mean(axis=0)  # (M, M)
        rows += [(control, a, b, float(mean[i, j])) for i, a in enumerate(own.tokens) for j, b in enumerate(own.tokens)]
    return pd.DataFrame(rows, columns=["control", "from", "to", "weight"])
