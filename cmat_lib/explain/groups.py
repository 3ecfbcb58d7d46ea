"""Attention maps of many samples brought together: what each sample was, and what groups of samples looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cmat_lib.evaluation.breakdown import outcomes
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
    """What the explained samples were.

    Columns ``symbol``, ``timestamp``, ``close``, ``trigger``, ``max_pct``, ``probability``, ``raw_probability``,
    ``outcome`` (of `OUTCOMES`), ``volatility`` (of `TERCILES`, each symbol by its own) and, on the synthetic market,
    ``latent``.

    Parameters
    ----------
    rows : (N,) int array
        Rows of `samples`, all of them in `predictions`.
    candles : DataFrame
        All candles, with the columns ``symbol``, ``timestamp``, and the hidden states where the market has them.
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
    order = ["hit", "false alarm", "miss", "quiet", *TERCILES]
    present = sorted(groups.unique())
    return sorted(present, key=lambda name: order.index(name) if name in order else len(order))


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
    """Two single samples to look at, of at least two from `describe_samples`: what it is -> row of `frame`.

    The surest hit and the surest false alarm; without one of them the sample of the highest or of the lowest score
    takes its place.
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

    Of all candles, those up to the sample's own, which is the last of `before`, and those `after` it. Index: candles
    from the sample's, which is 0.
    """
    own = candles.loc[candles["symbol"] == case["symbol"]].set_index("timestamp")[["close", "high"]]
    row = own.index.get_loc(case["timestamp"])
    part = own.iloc[max(0, row - before + 1) : row + after + 1]
    steps = np.arange(len(part)) - min(row, before - 1)
    return (100 * (part / own["close"].iloc[row] - 1)).set_axis(steps)
