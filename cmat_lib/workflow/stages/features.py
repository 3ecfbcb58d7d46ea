"""Stage 02: the numbers of every other view at every sample, from the cache where it has them."""

from dataclasses import replace

import numpy as np
import pandas as pd

from cmat_lib.base.parts import part_hashes
from cmat_lib.config import Config, resolve_path
from cmat_lib.data.cache import cached_features, worker_pool
from cmat_lib.data.candles import unstack, window_ends
from cmat_lib.views import VIEWS, Sliding
from cmat_lib.views.compute import Windows, compute_views, sample_views
from cmat_lib.views.scaling import fit_scalers
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.data import load_candles


def build_features(config: Config, run: Run, progress: bool | None = None) -> pd.DataFrame:
    """Stage 02: numbers of the views that have no row per candle, the index of samples (returned), and the scalers.

    They are copied into the run, so that a cache which grows or is cleaned cannot change it.
    """
    market, labels = (unstack(run.read_frame(f"data/{name}.parquet")) for name in ("candles", "labels"))
    views = VIEWS.active(config)
    others = [view for view in views if not view.by_candle]
    with worker_pool(config.cache):
        samples, arrays = sample_views(
            others, market, labels, config, lambda symbol, rows: cached(symbol, market[symbol], rows, config, progress)
        )
    for name, values in arrays.items():
        run.save_array(f"data/{name}.npy", values)
    run.save_frame("data/samples.parquet", samples)
    arrays |= {view.name: run.read_array(f"data/{view.name}.npy") for view in views if view.by_candle}
    run.save_json("data/scalers.json", fit_scalers(views, arrays, samples, config))
    return samples


def build_cache(config: Config, progress: bool | None = None) -> None:
    """Features of every sliding window of all symbols, computed into the cache where it lacks them, without a run."""
    market = load_candles(config)
    rows = {symbol: np.empty(0, dtype=np.int64) for symbol in market}
    others = [view for view in VIEWS.active(config) if not view.by_candle]
    with worker_pool(config.cache):
        compute_views(others, market, rows, config, lambda s: cached(s, market[s], rows[s], config, progress))


def cached(symbol: str, candles: pd.DataFrame, rows: np.ndarray, config: Config, progress: bool | None) -> Windows:
    """Features of sliding windows that end at `rows`, from the cache or computed into it.

    The cache covers every window of the symbol, so that runs with other channels or look-backs share it.
    """
    data, cache = config.data, config.cache
    common = {"timeframe": data.timeframe}
    if data.sessions == "join":  # other windows, and so other files; the key of all others stays as it was
        common["sessions"] = f"{data.sessions} {data.clock_zone}"

    def windows(sliding: Sliding) -> np.ndarray:
        parts = part_hashes([sliding.compute])
        sliding = replace(sliding, parameters=sliding.parameters | common | ({"parts": parts} if parts else {}))
        ends = window_ends(candles, data.bar, sliding.window, sliding.stride)
        how = {"jobs": cache.jobs, "trust": cache.trust, "progress": progress}
        return cached_features(sliding, symbol, candles.index, ends, rows, resolve_path(cache.dir), **how)

    return windows
