"""What the evidence of page 06 allows to say, in sentences made from its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pandas as pd

NEAR_UNIFORM = 0.95  # mean entropy relative to uniform from which a map has little to tell
ALIKE = 0.5  # rank correlation from which two trainings are said to look at the same tokens


class Finding(NamedTuple):
    """One sentence, and whether it is a thing that may be concluded."""

    may: bool
    text: str


def verdict(
    evidence: Mapping[str, pd.DataFrame], contrasts: pd.DataFrame | None = None, entropy: float | None = None
) -> str:
    """Sentences on what may and what may not be concluded, as Markdown.

    A statement is one that may be made when its interval lies on one side of zero; without an interval nothing is
    claimed.

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

    Returns
    -------
    str
    """
    found = [*_modalities(evidence["shapley"]), *_interactions(evidence["interactions"])]
    if entropy is not None:
        found += [_entropy(entropy), *_agreement(evidence.get("agreement")), *_uniform(evidence.get("controls"))]
        found += [*_other_models(evidence.get("controls")), *_contrasts(contrasts)]
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
    if agreement is None:
        return
    rows = agreement[(agreement["scope"] == "within samples") & (agreement["statistic"] == "spearman")]
    for _, row in rows.iterrows():
        if _above(row):
            text = f"within a sample attention tends to rank the modalities as {row['reference']} does"
            yield Finding(True, f"{text}: rank correlation {_range(row)}")
        else:
            text = f"that a modality matters because it is looked at: rank correlation with {row['reference']}"
            yield Finding(False, f"{text} {_range(row)}")


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


def _contrasts(contrasts: pd.DataFrame | None) -> Iterator[Finding]:
    if contrasts is None:
        return
    for name, table in contrasts.groupby(level="contrast", sort=False):
        apart = table[(table["low"] > 0) | (table["high"] < 0)]
        if len(apart):
            largest = apart.loc[apart["value"].abs().idxmax()]
            yield Finding(True, f"it looks elsewhere ({name}): {largest.name[1]} {_range(largest)}")
        else:
            yield Finding(False, f"that it looks elsewhere ({name})")
