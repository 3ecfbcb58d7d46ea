"""Attention maps of many samples brought together: what each sample was, what groups looked at, and what differs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cmat_lib.evaluation.breakdown import OUTCOMES, outcomes, volatility_groups
from cmat_lib.evaluation.uncertainty import Resampling, bootstrap_table
from cmat_lib.explain.attention import rollout
from cmat_lib.explain.measures import weighted_means

TERCILES = ("calm", "middling", "wild")
MIN_GROUP = 20  # fewer samples lie in too few blocks for an interval
LATENT = ("pattern", "regime")  # hidden states of the synthetic market, +1 or -1
KEYS = ["symbol", "timestamp"]


def describe_samples(
    rows: np.ndarray, samples: pd.DataFrame, predictions: pd.DataFrame, candles: pd.DataFrame, threshold: float
) -> pd.DataFrame:
    """What the explained samples, some `rows` (N,), all of them in `predictions`, were.

    Columns ``symbol``, ``timestamp``, ``close``, ``trigger``, ``max_pct``, ``probability``, ``raw_probability``,
    ``outcome`` (of `OUTCOMES`), ``volatility`` (of `TERCILES`, each symbol by its own) and, where the candles have the
    hidden states of the synthetic market, ``latent``.
    """
    frame = samples.loc[rows, [*KEYS, "close", "trigger", "max_pct"]].reset_index(drop=True)
    frame[["probability", "raw_probability"]] = _lookup(frame, predictions, ["probability", "raw_probability"])
    frame["outcome"] = outcomes(frame["trigger"], frame["probability"], threshold)
    volatility = samples.loc[rows, "volatility"].reset_index(drop=True)
    rank = volatility.groupby(frame["symbol"]).rank(pct=True)  # a symbol's level must not pass for a regime
    frame["volatility"] = np.select([rank <= 1 / 3, rank <= 2 / 3], TERCILES[:2], TERCILES[2])
    if set(LATENT) <= set(candles):
        states = pd.DataFrame(_lookup(frame, candles, list(LATENT)), columns=LATENT)
        signs = {name: states[name].map({1.0: "+", -1.0: "−"}) for name in LATENT}
        frame["latent"] = "pattern " + signs["pattern"] + ", regime " + signs["regime"]
    return frame


def _lookup(frame: pd.DataFrame, other: pd.DataFrame, columns: list[str]) -> np.ndarray:
    return frame[KEYS].merge(other[[*KEYS, *columns]], on=KEYS, how="left", validate="one_to_one")[columns].to_numpy()


def token_shares(maps: np.ndarray, tokens: Sequence[str]) -> np.ndarray:
    """How much of each input token attention carries to the output, (N, M), from maps (N, layers, h, M, M).

    Rollout (Abnar & Zuidema 2020, section 3), then the pooling: the row of ``cls`` where there is one, else the
    mean over the tokens. Rows sum to 1; every token has 1/M when attention is uniform.
    """
    reached = rollout(maps)  # (N, M, M)
    return reached[:, list(tokens).index("cls")] if "cls" in tokens else reached.mean(axis=1)  # (N, M)


def group_names(groups: pd.Series) -> list[str]:
    """Groups that occur, in their natural order where they have one."""
    order = [*OUTCOMES, *TERCILES]
    return sorted(groups.unique(), key=lambda name: (order.index(name) if name in order else len(order), name))


def grouped_shares(
    shares: np.ndarray, tokens: Sequence[str], groups: pd.Series, timestamps: pd.Series, resampling: Resampling
) -> pd.DataFrame:
    """Mean share of every token in every group, with its block-bootstrap interval, of shares (N, M) and groups (N,).

    Index (group, token), columns ``value``, ``low``, ``high`` (NaN for a group of fewer than `MIN_GROUP` samples),
    ``n`` (samples of the group).
    """
    names = group_names(groups)
    member = np.stack([(groups == name).to_numpy() for name in names]).astype(np.float64)  # (G, N)
    index = pd.MultiIndex.from_product([names, list(tokens)], names=["group", "token"])
    table = bootstrap_table(timestamps, lambda weights: weighted_means(member * weights, shares), resampling, index)
    table["n"] = np.repeat(member.sum(axis=1).astype(int), len(tokens))  # (G * M,)
    table.loc[table["n"] < MIN_GROUP, ["low", "high"]] = np.nan
    return table


def pick_cases(frame: pd.DataFrame) -> dict[str, int]:
    """The surest hit and the surest false alarm of at least two samples of `describe_samples`: name -> row of `frame`.

    Without one of them the sample of the highest or of the lowest score takes its place.
    """
    score = frame["raw_probability"]
    found = {f"surest {name}": score[frame["outcome"] == name] for name in ("hit", "false alarm")}
    cases = {name: int(values.idxmax()) for name, values in found.items() if len(values)}
    others = score.drop(list(cases.values()))
    for name, row in (("highest score", others.idxmax()), ("lowest score", others.idxmin())):
        if len(cases) < 2:
            cases[name] = int(row)
    return cases


def case_prices(candles: pd.DataFrame, case: pd.Series, before: int, after: int) -> pd.DataFrame:
    """Closes and highs around one row of `describe_samples`, relative to its close, in percent.

    The sample's own candle, number 0 of the index, is the last of those `before`.
    """
    own = candles.loc[candles["symbol"] == case["symbol"]].set_index("timestamp")[["close", "high"]]
    row = own.index.get_loc(case["timestamp"])
    part = own.iloc[max(0, row - before + 1) : row + after + 1]
    steps = np.arange(len(part)) - min(row, before - 1)
    return (100 * (part / own["close"].iloc[row] - 1)).set_axis(steps)


def volatility_deciles(volatility: pd.Series, symbols: pd.Series) -> pd.Series:
    """Tenth of its own symbol's samples that each sample falls into, ``" 1"`` (calmest) to ``"10"``."""
    own = pd.DataFrame({"symbol": symbols.to_numpy(), "volatility": volatility.to_numpy()}, volatility.index)
    return volatility_groups(own, "volatility").map("{:2d}".format)


def kinds_of_moments(samples: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of kinds of the N samples of `describe_samples` that people ask about: name -> two boolean masks (N,).

    Contrasts with fewer than `MIN_GROUP` on one side are left out.
    """
    quiet = samples["max_pct"] < samples["max_pct"].median()
    kinds = {
        "before a trigger against quiet times": (samples["trigger"] == 1, quiet),
        "hit against false alarm": (samples["outcome"] == "hit", samples["outcome"] == "false alarm"),
        "wild against calm": (samples["volatility"] == "wild", samples["volatility"] == "calm"),
    }
    if "latent" in samples:
        for name in LATENT:
            plus = samples["latent"].str.contains(f"{name} +", regex=False)
            kinds[f"{name} + against {name} −"] = (plus, ~plus)
    masks = {name: (first.to_numpy(), second.to_numpy()) for name, (first, second) in kinds.items()}
    return {name: pair for name, pair in masks.items() if min(pair[0].sum(), pair[1].sum()) >= MIN_GROUP}


def contrast_table(
    shares: np.ndarray,
    tokens: Sequence[str],
    kinds: Mapping[str, tuple[np.ndarray, np.ndarray]],
    timestamps: pd.Series,
    resampling: Resampling,
) -> pd.DataFrame:
    """Mean share (N, M) in the first kind of samples minus that in the second, both on the same resamples.

    Two overlapping intervals of groups can hide a difference that this one shows, because a resample that holds more
    of a wild week holds more of it on both sides. Index (contrast, token), columns ``value``, ``low``, ``high``,
    ``n_first``, ``n_second``.
    """
    first, second = (np.array([pair[side] for pair in kinds.values()], dtype=np.float64) for side in (0, 1))  # (K, N)

    def difference(weights: np.ndarray) -> np.ndarray:
        return weighted_means(first * weights, shares) - weighted_means(second * weights, shares)  # (K, M)

    index = pd.MultiIndex.from_product([kinds, tokens], names=["contrast", "token"])
    if not kinds:
        return pd.DataFrame(columns=["value", "low", "high", "n_first", "n_second"], index=index, dtype=float)
    table = bootstrap_table(timestamps, difference, resampling, index)
    counts = [np.repeat(mask.sum(axis=1).astype(int), len(tokens)) for mask in (first, second)]
    return table.assign(n_first=counts[0], n_second=counts[1])


def tidy_maps(maps: np.ndarray, tokens: Sequence[str], samples: pd.DataFrame) -> pd.DataFrame:
    """One row per weight of maps (N, layers, h, M, M), for plots and tables of one's own.

    ``sample`` (the index of `samples`), ``timestamp``, ``symbol``, ``layer`` and ``head`` (from 1), ``from``, ``to``,
    ``weight``.
    """
    levels = [samples.index, np.arange(1, maps.shape[1] + 1), np.arange(1, maps.shape[2] + 1)]
    place = np.indices(maps.shape).reshape(5, -1)
    columns = {n: level.take(p) for n, level, p in zip(("sample", "layer", "head"), levels, place, strict=False)}
    columns |= {n: pd.Categorical.from_codes(place[i], list(tokens)) for n, i in (("from", 3), ("to", 4))}
    columns |= {n: samples[n].array.take(place[0]) for n in ("timestamp", "symbol")}
    columns["weight"] = maps.ravel().astype(np.float32)
    return pd.DataFrame(columns)[["sample", "timestamp", "symbol", "layer", "head", "from", "to", "weight"]]
