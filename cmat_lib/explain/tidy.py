"""Attention maps as a long table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


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
