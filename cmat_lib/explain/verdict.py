"""What the evidence of page 06 allows to say, in sentences made from its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pandas as pd
from scipy.stats import norm

NEAR_UNIFORM = 0.95  # mean entropy relative to uniform from which a map has little to tell
ALIKE = 0.5  # rank correlation from which two rankings are said to be alike


class Finding(NamedTuple):
    """One sentence, and whether it is a thing that may be concluded."""

    may: bool
    text: str


def verdict(
    evidence: Mapping[str, pd.DataFrame],
    contrasts: pd.DataFrame | None = None,
    entropy: float | None = None,
    confidence: float = 0.95,
) -> str:
    """Sentences on what may and what may not be concluded, as Markdown.

    A statement is one that may be made when its interval lies on one side of zero, and for rank correlations of other
    trainings above `ALIKE`; without an interval nothing is claimed.

    Parameters
    ----------
    evidence : mapping of str to DataFrame
        ``shapley`` (modality, measure, value, low, high), ``interactions`` (first, second, value, low, high) and, for a
        fusion with attention, ``agreement`` (reference, scope, statistic, value, low, high) and ``controls`` (control,
        measure with ``loss increase`` and ``agreement``, value, low, high).
    contrasts : DataFrame, optional
        From `contrast_table`.
    entropy : float, optional
        Mean entropy of the maps relative to uniform, in [0, 1].
    confidence : float
        Coverage of each interval of `contrasts`.
    """
    found = [*_modalities(evidence["shapley"]), *_interactions(evidence["interactions"])]
    if entropy is not None:
        found += [_entropy(entropy), *_agreement(evidence.get("agreement")), *_uniform(evidence.get("controls"))]
        found += [*_other_models(evidence.get("controls")), *_contrasts(contrasts, confidence)]
    found.append(Finding(False, "that any of this *causes* a price to move: it describes a model, not the market"))
    titles = {True: "**These numbers allow to say that**", False: "**They do not allow to say**"}
    lists = {may: "\n".join(f"- {text}" for own, text in found if own == may) for may in titles}
    return "\n\n".join(f"{title}\n\n{lists[may] or '- nothing'}" for may, title in titles.items())


def _range(row: pd.Series) -> str:
    return f"{row['value']:+.3g} ({row['low']:+.3g} to {row['high']:+.3g})"


def _above(row: pd.Series) -> bool:
    return bool(row["low"] > 0)  # False for NaN: no interval, no claim


def _modalities(shapley: pd.DataFrame) -> Iterator[Finding]:
    rows = shapley[shapley["measure"] == "shapley"]
    for _, row in rows.iterrows():
        if _above(row):
            yield Finding(True, f"{row['modality']} lowers the loss by {_range(row)}")
        else:
            yield Finding(False, f"that {row['modality']} helps at all: {_range(row)}")


def _interactions(interactions: pd.DataFrame) -> Iterator[Finding]:
    for _, row in interactions.iterrows():
        pair = f"{row['first']} and {row['second']}"
        if _above(row):
            yield Finding(True, f"{pair} are worth more together than apart: interaction {_range(row)}")
        else:
            yield Finding(False, f"that {pair} gain from each other: {_range(row)}")


def _entropy(entropy: float) -> Finding:
    if entropy >= NEAR_UNIFORM:
        return Finding(False, f"anything from the average map, which is near uniform (entropy {entropy:.2f} of 1)")
    return Finding(True, f"the heads choose where they look (entropy {entropy:.2f} of 1)")


def _agreement(agreement: pd.DataFrame | None) -> Iterator[Finding]:
    """Is what is looked at what matters? Disagreement is told as well as agreement, and a weak one is none."""
    if agreement is None:
        return
    for _, row in agreement[agreement["statistic"] == "spearman"].iterrows():
        where, correlation = row["scope"], f"rank correlation with {row['reference']} {_range(row)}"
        if where == "global":
            if row["value"] < 0:
                low = f"rank correlation with {row['reference']} {row['value']:+.3g}"
                yield Finding(False, f"that the modality which is looked at most matters most: {low} over all samples")
        elif where == "within samples":
            if row["low"] > 0 and row["value"] >= ALIKE:
                yield Finding(True, f"within a sample attention tends to go where it matters: {correlation}")
            else:
                yield Finding(False, f"that within a sample a modality matters because it is looked at: {correlation}")
        elif row["high"] < 0:
            yield Finding(False, f"that {where} matters where it is looked at more: across samples {correlation}")


def _uniform(controls: pd.DataFrame | None) -> Iterator[Finding]:
    """Does the loss rise when the model may no longer choose where to look?"""
    if controls is None:
        return
    rise = controls[(controls["measure"] == "loss increase") & (controls["control"] == "uniform attention")]
    for _, row in rise.iterrows():
        if _above(row):
            yield Finding(True, f"predictions depend on where it looks: uniform attention costs {_range(row)} of loss")
        else:
            yield Finding(False, f"that predictions depend on where it looks: uniform attention costs {_range(row)}")


def _other_models(controls: pd.DataFrame | None) -> Iterator[Finding]:
    """Do models that learned from other random numbers, or nothing at all, look at the same tokens?"""
    if controls is None:
        return
    rows = controls[(controls["measure"] == "agreement") & (controls["control"] != "shuffled tokens")]
    alike = "ranks the tokens of a sample as this model does: rank correlation"
    for _, row in rows.iterrows():
        if row["control"] == "untrained model":
            if _above(row):
                yield Finding(
                    False, f"that the maps come from what was learned: an untrained model {alike} {_range(row)}"
                )
        elif row["low"] > ALIKE:
            yield Finding(True, f"the maps are no accident of one training: {row['control']} {alike} {_range(row)}")
        else:
            text = f"rank correlation of {row['control']} with this model {_range(row)}, short of {ALIKE:g}"
            yield Finding(False, f"that another training would look at the same tokens: {text}")
    if rows["control"].isin(["untrained model"]).all():
        yield Finding(
            False, "that another training would look at the same tokens: none was compared (`explain.other_runs`)"
        )


def _contrasts(contrasts: pd.DataFrame | None, confidence: float) -> Iterator[Finding]:
    if contrasts is None or contrasts.empty:
        return
    wide = _widened(contrasts, confidence)
    for name, table in wide.groupby(level="contrast", sort=False):
        apart = table[(table["low"] > 0) | (table["high"] < 0)]
        if len(apart):
            largest = apart.loc[apart["value"].abs().idxmax()]
            found = f"{largest.name[1]} {_range(largest)}, the interval widened for {len(wide)} differences looked at"
            yield Finding(True, f"it looks elsewhere ({name}): {found}")
        else:
            yield Finding(False, f"that it looks elsewhere ({name}), as {len(wide)} differences were looked at")


def _widened(table: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Intervals that hold all at once (Bonferroni), as of a normal distribution: resamples do not reach that far."""
    tail = (1 - confidence) / 2
    ratio = norm.isf(tail / len(table)) / norm.isf(tail)
    limits = {name: table["value"] + ratio * (table[name] - table["value"]) for name in ("low", "high")}
    return table.assign(**limits)
