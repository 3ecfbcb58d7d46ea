"""What each notebook computes, one function a stage; 04, 05 and 06 stand in `stage_training` and its like."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.base.parts import part_hashes
from cmat_lib.config import Config
from cmat_lib.data.cache import cached_features, worker_pool
from cmat_lib.data.candles import audit, data_hash, load_market, read_market, stack, unstack, window_ends
from cmat_lib.data.labels import compute_labels
from cmat_lib.data.sources.files import market_files
from cmat_lib.data.splits import Market
from cmat_lib.data.synthetic import synthetic_market
from cmat_lib.models import MultiTaskCrossModalAttention, parameter_table
from cmat_lib.models.fusion import fusion_class
from cmat_lib.training.devices import pick_device
from cmat_lib.views import VIEWS, Sliding
from cmat_lib.views.compute import Windows, compute_views, sample_views
from cmat_lib.views.panel import Panel
from cmat_lib.views.samples import check_length
from cmat_lib.views.scaling import fit_scalers
from cmat_lib.workflow.run import Run, resolve_path
from cmat_lib.workflow.tracking import check_mlflow

ORACLE_THRESHOLDS_PCT = (2.5, 4.0)  # below, other moves reach it within hours; above, some squeezes do not


def check_before_work(config: Config) -> None:
    """Check what the schema cannot know: names that stand in registries, candle files, packages, and the device.

    Raises
    ------
    CmatError
        For an unknown view, channel, indicator or fusion (with the nearest name), a view that the parameters do not
        allow, missing candle files, a missing GPU, or a package that is asked for and not installed.
    """
    check_parameters(config)
    if config.data.data_dir is not None:
        market_files(config.data)


def check_parameters(config: Config) -> None:
    """The same of all but the candle files."""
    check_mlflow(config)
    VIEWS.check(config)
    fusion_class(config.fusion.fusion_type)
    pick_device(config.training)


# -- 01 ----------------------------------------------------------------------------------------------------------------


def load_candles(config: Config) -> Market:
    """Candles of every symbol, from the files of ``data.data_dir`` or from the synthetic market."""
    if config.data.data_dir is not None:
        return load_market(config.data)
    market = synthetic_market(
        symbols=config.data.synthetic_symbols,
        days=config.data.synthetic_days,
        timeframe=config.data.timeframe,
        horizon=config.labels.horizon,
        seed=config.data.synthetic_seed,
        plant=config.data.synthetic_plant,
    )
    chosen = config.data.symbols or list(market)
    for symbol in chosen:
        if symbol not in market:
            raise CmatError(f"data.symbols: the synthetic market has no '{symbol}'{nearest(symbol, market)}")
    unknown = [] if _oracle_applies(config) else ["oracle_probability"]
    return {symbol: candles.drop(columns=unknown) for symbol, candles in market.items() if symbol in chosen}


def _oracle_applies(config: Config) -> bool:
    """The market's true probability is that of a squeeze, which is the one cause of triggers near +3 % only."""
    low, high = ORACLE_THRESHOLDS_PCT
    return config.labels.mode == "percent" and low <= config.labels.threshold_pct <= high


def audit_candles(config: Config) -> pd.DataFrame:
    """What the candles hold and what is wrong with them, before anything is refused or repaired.

    One row per symbol, see `cmat_lib.data.candles.audit`.
    """
    market = load_candles(config) if config.data.data_dir is None else read_market(config.data)
    return audit(market, config.data.bar, config.data.clock_zone, config.data.sessions)


def prepare_data(config: Config, run: Run) -> dict[str, Any]:
    """Stage 01: candles and labels of all symbols, and the views that have a row per candle.

    ``market`` (symbol to candles), ``labels`` (symbol to frame), ``views`` (view to symbol to (T, C) float32).

    Raises
    ------
    CmatError
        For candles that cannot be used, or too few of them.
    """
    check_before_work(config)
    market = load_candles(config)
    check_market(market, config)
    rows = {symbol: np.arange(len(candles)) for symbol, candles in market.items()}
    views = [view for view in VIEWS.active(config) if view.by_candle]
    found = compute_views(views, market, rows, config, lambda symbol: None)
    labels = {s: compute_labels(c, config.labels, config.data.bar) for s, c in market.items()}
    run.save_frame("data/candles.parquet", stack(market))
    run.save_frame("data/labels.parquet", stack(labels))
    ends = np.cumsum([len(candles) for candles in market.values()])[:-1]
    for name, values in found.items():
        run.save_array(f"data/{name}.npy", values.values)
    run.save_json("data/data.json", {"data_hash": data_hash(market), "symbols": list(market)})
    by_symbol = {n: dict(zip(market, np.split(v.values, ends), strict=True)) for n, v in found.items()}
    return {"market": market, "labels": labels, "views": by_symbol}


def check_market(market: Market, config: Config) -> None:
    """Raise a CmatError for candles that are too few, or that a view cannot be made of."""
    for symbol, candles in market.items():
        check_length(symbol, candles, config)
    for view in VIEWS.active(config):
        view.admit(market, config)


# -- 02 ----------------------------------------------------------------------------------------------------------------


def build_features(config: Config, run: Run, progress: bool | None = None) -> pd.DataFrame:
    """Stage 02: the numbers of every other view at every sample, the index of samples (returned), and the scalers.

    Features of sliding windows come from the cache where it has them. The run keeps its own copy, so that a cache which
    grows or is cleaned cannot change a finished run.
    """
    market = unstack(run.read_frame("data/candles.parquet"))
    labels = unstack(run.read_frame("data/labels.parquet"))
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

    def windows(sliding: Sliding) -> np.ndarray:
        common = {"timeframe": config.data.timeframe} | _sessions(config)
        if parts := part_hashes([sliding.compute]):
            common["parts"] = parts
        return cached_features(
            replace(sliding, parameters=sliding.parameters | common),
            symbol,
            candles.index,
            window_ends(candles, config.data.bar, sliding.window, sliding.stride),
            rows,
            resolve_path(config.cache.dir),
            jobs=config.cache.jobs,
            trust=config.cache.trust,
            progress=progress,
        )

    return windows


# -- 03 to 06 read the panel -----------------------------------------------------------------------------------------


def read_views(config: Config, run: Run) -> dict[str, np.ndarray]:
    """Numbers of all views of a run whose stages 01 and 02 are finished."""
    return {view.name: run.read_array(f"data/{view.name}.npy") for view in VIEWS.active(config)}


def load_panel(config: Config, run: Run, device: torch.device | str = "cpu") -> Panel:
    """Panel of a run whose stages 01 and 02 are finished."""
    samples, scalers = run.read_frame("data/samples.parquet"), run.read_json("data/scalers.json")
    return Panel(read_views(config, run), samples, scalers, config, device)


def describe_model(model: MultiTaskCrossModalAttention, run: Run) -> pd.DataFrame:
    """Stage 03: table of the model's parts and their parameters, beside what the source states."""
    table = pd.DataFrame(parameter_table(model), columns=["part", "parameters", "source"])
    run.save_json("model_spec.json", {"parameters": table.to_dict("records"), "tokens": list(model.fusion.token_names)})
    return table


def _sessions(config: Config) -> dict[str, str]:
    """Joined sessions have other windows, and so other cache files; the key of all others stays as it was."""
    data = config.data
    return {"sessions": f"{data.sessions} {data.clock_zone}"} if data.sessions == "join" else {}
