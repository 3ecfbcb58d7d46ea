"""Contrasts of attention and the sentences made from evidence, on data whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from cmat_lib.evaluation.uncertainty import Resampling
from cmat_lib.explain import groups
from cmat_lib.explain.verdict import verdict

TOKENS = ["a", "b"]
RESAMPLING = Resampling(pd.Timedelta("12h"), samples=200, confidence=0.9, seed=0)


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    n = 400
    rises = rng.gamma(1, 1, n)
    frame = pd.DataFrame({"timestamp": pd.date_range("2024-01-01", periods=n, freq="1h", tz="UTC"), "max_pct": rises})
    frame["trigger"] = (rises > 2).astype(float)
    frame["outcome"] = rng.choice(["hit", "false alarm", "quiet"], n)
    frame["volatility"] = rng.choice(["calm", "middling", "wild"], n)
    frame["latent"] = "pattern +, regime " + pd.Series(rng.choice(["+", "−"], n))
    return frame


def test_deciles_are_tenths_of_each_symbol():
    volatility = pd.Series([*np.arange(100.0), *1000 + np.arange(50.0)])
    symbols = pd.Series(["A"] * 100 + ["B"] * 50)
    found = groups.volatility_deciles(volatility, symbols)
    assert sorted(found.unique()) == [f"{n:2d}" for n in range(1, 11)]
    assert found[symbols == "A"].value_counts().unique().tolist() == [10]
    assert found[symbols == "B"].value_counts().unique().tolist() == [5]
    assert found[99] == "10" and found[100] == " 1", "the calmest of B is wilder than the wildest of A"


def test_kinds_are_who_they_say(samples):
    kinds = groups.kinds_of_moments(samples)
    first, second = kinds["before a trigger against quiet times"]
    assert samples["max_pct"][first].min() > 2 and samples["max_pct"][second].max() < samples["max_pct"].median()
    first, second = kinds["regime + against regime −"]
    assert (first == samples["latent"].str.endswith("regime +")).all() and (first ^ second).all()
    assert "pattern + against pattern −" not in kinds, "nothing to compare with"
    few = samples.assign(outcome=np.where(np.arange(len(samples)) < 19, "hit", "false alarm"))
    assert "hit against false alarm" not in groups.kinds_of_moments(few), "19 hits are too few"


def test_contrast_finds_a_difference_and_only_where_it_is(samples):
    kinds = groups.kinds_of_moments(samples)
    noise = 0.02 * np.random.default_rng(1).normal(size=len(samples))
    first = 0.5 + 0.05 * samples["trigger"].to_numpy() + noise
    shares = np.column_stack([first, 1 - first])
    table = groups.contrast_table(shares, TOKENS, kinds, samples["timestamp"], RESAMPLING)
    moved = table.loc["before a trigger against quiet times", "a"]
    masks = kinds["before a trigger against quiet times"]
    assert moved["value"] == pytest.approx(first[masks[0]].mean() - first[masks[1]].mean())
    assert moved["low"] > 0.04 and moved["high"] < 0.06
    still = table.loc["wild against calm", "a"]
    assert still["low"] < 0 < still["high"]
    assert (moved["n_first"], moved["n_second"]) == (masks[0].sum(), masks[1].sum())
    np.testing.assert_allclose(table["value"].xs("a", level="token"), -table["value"].xs("b", level="token"))
    assert groups.contrast_table(shares, TOKENS, {}, samples["timestamp"], RESAMPLING).empty


def evidence(low=0.1, uniform_low=0.1):
    given = {"value": 0.2, "low": low, "high": 0.3}
    return {
        "shapley": pd.DataFrame([{"modality": "tda", "measure": m, **given} for m in ("shapley", "alone")]),
        "interactions": pd.DataFrame([{"first": "nbeats", "second": "tda", **given}]),
        "agreement": pd.DataFrame(
            [{"reference": "shapley", "scope": "within samples", "statistic": "spearman", **given, "value": 0.6}]
        ),
        "controls": pd.DataFrame(
            [{"control": "uniform attention", "measure": "loss increase", **given, "low": uniform_low}]
        ),
    }


def split(text):
    allowed, not_allowed = text.split("**They do not allow to say**")
    return allowed, not_allowed


@pytest.mark.parametrize("low", [-0.1, np.nan], ids=["interval around zero", "no interval"])
def test_verdict_claims_only_what_lies_above_zero(low):
    allowed, _ = split(verdict(evidence(), entropy=0.5))
    for words in (
        "tda lowers the loss",
        "nbeats and tda are worth more together",
        "attention tends to go where it matters",
        "predictions depend on where it looks",
        "the heads choose",
    ):
        assert words in allowed, words
    assert "+0.2 (+0.1 to +0.3)" in allowed and allowed.count("tda lowers") == 1
    allowed, refused = split(verdict(evidence(low, low), entropy=0.99))
    assert "- nothing" in allowed
    for words in ("tda helps", "gain from each other", "because it is looked at", "uniform attention", "near uniform"):
        assert words in refused, words


def test_verdict_without_attention_is_silent_about_it():
    text = verdict({name: evidence()[name] for name in ("shapley", "interactions")})
    assert "tda lowers the loss" in text and "look" not in text and "causes" in text


def test_verdict_names_the_contrasts(samples):
    index = pd.MultiIndex.from_product(
        [["wild against calm", "hit against false alarm"], TOKENS], names=["contrast", "token"]
    )
    table = pd.DataFrame({"value": [0.1, -0.3, 0.1, -0.1], "low": [0.05, -0.4, -1, -1]}, index=index)
    table["high"] = [0.2, -0.2, 1, 1]
    allowed, refused = split(verdict(evidence(), table, 0.5))
    assert (
        "it looks elsewhere (wild against calm): b -0.3 (-0.427 to -0.173), the interval widened for 4 diff" in allowed
    )
    assert "it looks elsewhere (hit against false alarm)" in refused
    table.loc[("wild against calm", "b")] = [-0.3, -0.56, -0.04]  # apart from zero alone, not among four
    table.loc[("wild against calm", "a")] = [0.0, -0.1, 0.1]
    assert "it looks elsewhere (wild against calm)" in split(verdict(evidence(), table, 0.5))[1]


def test_verdict_tells_disagreement(samples):
    rows = [
        ("shapley", "global", "spearman", -0.5, np.nan, np.nan),
        ("shapley", "within samples", "spearman", 0.13, 0.1, 0.16),
        ("shapley", "nbeats", "spearman", -0.3, -0.4, -0.2),
        ("shapley", "tda", "spearman", 0.1, -0.1, 0.2),
    ]
    columns = ["reference", "scope", "statistic", "value", "low", "high"]
    allowed, refused = split(verdict({**evidence(), "agreement": pd.DataFrame(rows, columns=columns)}, entropy=0.5))
    assert "goes where it matters" not in allowed and "rank correlation" not in allowed
    assert "looked at most matters most: rank correlation with shapley -0.5 over all samples" in refused
    assert "because it is looked at: rank correlation with shapley +0.13 (+0.1 to +0.16)" in refused
    assert (
        "that nbeats matters where it is looked at more: across samples" in refused
        and "that tda matters" not in refused
    )


def test_verdict_tells_another_training_from_none_at_all():
    controls = [
        {"control": name, "measure": "agreement", "value": low + 0.1, "low": low, "high": low + 0.2}
        for name, low in (
            ("shuffled tokens", 0.1),
            ("untrained model", 0.1),
            ("outputs/seed1", 0.6),
            ("outputs/b", 0.4),
        )
    ]
    text = {**evidence(), "controls": pd.DataFrame(controls)}
    allowed, refused = split(verdict(text, entropy=0.5))
    assert "no accident of one training: outputs/seed1" in allowed and "outputs/b" not in allowed
    assert "same tokens: rank correlation of outputs/b with this model +0.5 (+0.4 to +0.6)" in refused
    assert "what was learned" in refused and "shuffled" not in allowed + refused and "none was compared" not in refused
    controls[1]["low"] = -0.1
    text["controls"] = pd.DataFrame(controls[:2])
    refused = split(verdict(text, entropy=0.5))[1]
    assert "what was learned" not in refused and "none was compared" in refused
