"""The numbers of views for the samples of a whole market."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Thread

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from tqdm.auto import tqdm

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config
from cmat_lib.data.cache import split_series
from cmat_lib.data.splits import Market
from cmat_lib.views.registry import Asked, Sliding, Values, View
from cmat_lib.views.samples import build_samples
from cmat_lib.views.scaling import row_column

Windows = Callable[[Sliding], np.ndarray]


def compute_views(
    views: Iterable[View],
    market: Market,
    rows: Mapping[str, np.ndarray],
    config: Config,
    windows: Callable[[str], Windows],
    cut: Market | None = None,
    **how,
) -> dict[str, Values]:
    """Numbers of views at rows of all symbols, one symbol behind the other.

    Parameters
    ----------
    rows : mapping of str to ndarray of int, shape (n,)
        Rows of each symbol's candles: those of the market, or of `cut`.
    windows : callable
        Gives, for a symbol, what computes or reads the features of sliding windows at its rows.
    **how
        Further fields of `cmat_lib.views.registry.Asked`.
    """
    found = {}
    views = sorted(views, key=lambda view: view.prepare is not None)  # who has to prepare comes last
    preparing = {v.name: Thread(target=v.prepare, args=(config,), daemon=True) for v in views if v.prepare}
    for thread in preparing.values():
        thread.start()
    for view in views:
        if view.name in preparing:
            preparing[view.name].join()
        parts = []
        for symbol, own in rows.items():
            known = market if cut is None else market | {symbol: cut[symbol]}
            parts.append(view.compute(Asked(symbol, known, own, config, windows(symbol), **how)))
            _check(view, parts[-1], own, config)
        values, ends = np.concatenate([part.values for part in parts]), None
        if parts[0].rows is not None:
            offsets = np.cumsum([0, *(len(part.values) for part in parts[:-1])])
            ends = np.concatenate([part.rows + offset for part, offset in zip(parts, offsets, strict=True)])
        found[view.name] = Values(values, ends)
    return found


def _check(view: View, found: Values, rows: np.ndarray, config: Config) -> None:
    """A view of somebody's own must give what its record says."""
    ends, length = found.rows, view.window(config)
    wanted = len(found.values) if ends is None else len(ends)
    fits = wanted == len(rows) and found.values.shape[1:] == (len(view.names(config)),)
    if not fits or (ends is None) != (length == 0) or (not view.by_candle and length and (ends < length - 1).any()):
        gives = f"the view '{view.name}' gives values of shape {found.values.shape} for {len(rows)} samples"
        need = "a column for each of its names, and a row per sample, or rows that end whole windows"
        raise CmatError(f"{gives}; they need {need}")


def sample_views(
    views: Sequence[View],
    market: Market,
    labels: dict[str, pd.DataFrame],
    config: Config,
    windows: Callable[[str, np.ndarray], Windows],
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Index of all samples of a market, and the numbers of views there; `windows` of a symbol and its rows."""
    samples = build_samples(market, labels, config)
    rows = {symbol: own["local_row"].to_numpy() for symbol, own in samples.groupby("symbol", sort=False)}
    found = compute_views(views, market, rows, config, lambda symbol: windows(symbol, rows[symbol]))
    return with_rows(samples, views, found), {name: values.values for name, values in found.items()}


def with_rows(samples: pd.DataFrame, views: Iterable[View], found: Mapping[str, Values]) -> pd.DataFrame:
    """Samples with a column for each view whose rows are neither candles nor samples."""
    columns = {row_column(v): found[v.name].rows for v in views if found[v.name].rows is not None and not v.by_candle}
    return samples.assign(**columns)


def computed(
    label: str, candles: pd.DataFrame, rows: np.ndarray, jobs: int = 1, progress: bool | None = False
) -> Windows:
    """Features of sliding windows that end at `rows`, computed chunk by chunk without a cache."""

    def windows(sliding: Sliding) -> np.ndarray:
        chunks = split_series(sliding.series, candles.index.asi8, rows, sliding.window)
        workers = Parallel(n_jobs=min(effective_n_jobs(jobs), len(chunks)), return_as="generator")
        results = workers(delayed(sliding.compute)(chunk.series, chunk.ends) for chunk in chunks)
        bar = {"desc": f"{label} {sliding.kind}", "total": len(chunks), "unit": "chunk"}
        return np.concatenate(list(tqdm(results, disable=None if progress is None else not progress, **bar)))

    return windows
