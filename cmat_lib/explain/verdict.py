"""What the evidence of page 06 allows to say, in sentences made from its numbers."""

from collections.abc import Iterator, Mapping

import pandas as pd
from scipy.stats import norm

NEAR_UNIFORM = 0.95  # mean entropy relative to uniform from which a map has little to tell
ALIKE = 0.5  # rank correlation from which two rankings are said to be alike
Sentence = tuple[bool, str]  # whether it may be concluded, and what is said


def verdict(
    evidence: Mapping[str, pd.DataFrame],
    contrasts: pd.DataFrame | None = None,
    entropy: float | None = None,
    confidence: float = 0.95,
) -> str:
    """Sentences on what may and what may not be concluded, as Markdown.

    A statement is one that may be made when its interval lies on one side of zero, and for rank correlations of other
    trainings above `ALIKE`; without an interval nothing is claimed. The evidence is the tables ``shapley`` and
    ``interactions`` of `shapley_tables` and, for a fusion with attention, `agreement_table` and `control_table`, the
    contrasts those of `contrast_table`, with intervals of `confidence` each, and the entropy the mean of the maps'
    relative to uniform, in [0, 1].
    """
    worth = evidence["shapley"].query("measure == 'shapley'")
    found = _claims(worth, "{modality} lowers the loss by {range}", "that {modality} helps at all: {range}")
    found += _claims(
        evidence["interactions"],
        "{first} and {second} are worth more together than apart: interaction {range}",
        "that {first} and {second} gain from each other: {range}",
    )
    if entropy is not None:
        chosen = f"the heads choose where they look (entropy {entropy:.2f} of 1)"
        vague = f"anything from the average map, which is near uniform (entropy {entropy:.2f} of 1)"
        found.append((False, vague) if entropy >= NEAR_UNIFORM else (True, chosen))
        found += _agreement(evidence["agreement"]) if "agreement" in evidence else []
        if "controls" in evidence:
            controls = evidence["controls"]
            rise = controls[(controls["measure"] == "loss increase") & (controls["control"] == "uniform attention")]
            claim = "predictions depend on where it looks: uniform attention costs {range}"
            found += [*_claims(rise, f"{claim} of loss", f"that {claim}"), *_other_models(controls)]
        found += [] if contrasts is None or contrasts.empty else _contrasts(contrasts, confidence)
    found.append((False, "that any of this *causes* a price to move: it describes a model, not the market"))
    titles = {True: "**These numbers allow to say that**", False: "**They do not allow to say**"}
    lists = {may: "\n".join(f"- {text}" for own, text in found if own == may) for may in titles}
    return "\n\n".join(f"{title}\n\n{lists[may] or '- nothing'}" for may, title in titles.items())


def _range(row: pd.Series) -> str:
    return f"{row['value']:+.3g} ({row['low']:+.3g} to {row['high']:+.3g})"


def _claims(table: pd.DataFrame, claim: str, doubt: str) -> list[Sentence]:
    """`claim` of each row whose interval lies above zero, else `doubt`; NaN is no interval, and no claim."""
    rows = [(bool(row["low"] > 0), row) for _, row in table.iterrows()]
    return [(above, (claim if above else doubt).format(**row, range=_range(row))) for above, row in rows]


def _agreement(agreement: pd.DataFrame) -> Iterator[Sentence]:
    """Is what is looked at what matters? Disagreement is told as well as agreement, and a weak one is none."""
    for _, row in agreement[agreement["statistic"] == "spearman"].iterrows():
        where, correlation = row["scope"], f"rank correlation with {row['reference']}"
        if where == "global":
            if row["value"] < 0:
                low = f"{correlation} {row['value']:+.3g}"
                yield False, f"that the modality which is looked at most matters most: {low} over all samples"
        elif where == "within samples":
            alike = row["low"] > 0 and row["value"] >= ALIKE
            claim = "within a sample attention tends to go where it matters"
            doubt = "that within a sample a modality matters because it is looked at"
            yield alike, f"{claim if alike else doubt}: {correlation} {_range(row)}"
        elif row["high"] < 0:
            text = f"that {where} matters where it is looked at more: across samples {correlation} {_range(row)}"
            yield False, text


def _other_models(controls: pd.DataFrame) -> Iterator[Sentence]:
    """Do models that learned from other random numbers, or nothing at all, look at the same tokens?"""
    rows = controls[(controls["measure"] == "agreement") & (controls["control"] != "shuffled tokens")]
    alike = "ranks the tokens of a sample as this model does: rank correlation"
    elsewhere = "that another training would look at the same tokens"
    for _, row in rows.iterrows():
        name, value = row["control"], _range(row)
        if name == "untrained model":
            if row["low"] > 0:
                learned = "that the maps come from what was learned"
                yield False, f"{learned}: an untrained model {alike} {value}"
        elif row["low"] > ALIKE:
            yield True, f"the maps are no accident of one training: {name} {alike} {value}"
        else:
            short = f"rank correlation of {name} with this model {value}, short of {ALIKE:g}"
            yield False, f"{elsewhere}: {short}"
    if rows["control"].isin(["untrained model"]).all():
        yield False, f"{elsewhere}: none was compared (`explain.other_runs`)"


def _contrasts(contrasts: pd.DataFrame, confidence: float) -> Iterator[Sentence]:
    # Intervals that hold all at once (Bonferroni), as of a normal distribution: resamples do not reach that far.
    tail = (1 - confidence) / 2
    ratio = norm.isf(tail / len(contrasts)) / norm.isf(tail)
    middle = contrasts["value"]
    wide = contrasts.assign(**{name: middle + ratio * (contrasts[name] - middle) for name in ("low", "high")})
    for name, table in wide.groupby(level="contrast", sort=False):
        apart = table[(table["low"] > 0) | (table["high"] < 0)]
        if len(apart):
            largest = apart.loc[apart["value"].abs().idxmax()]
            found = f"{largest.name[1]} {_range(largest)}, the interval widened for {len(wide)} differences looked at"
            yield True, f"it looks elsewhere ({name}): {found}"
        else:
            yield False, f"that it looks elsewhere ({name}), as {len(wide)} differences were looked at"
