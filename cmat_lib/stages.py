"""What each notebook computes, one function a stage; 04, 05 and 06 stand in `stage_training` and its like."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from cmat_lib.config import Config
from cmat_lib.data.cache import cached_features, worker_pool
from cmat_lib.data.candle_files import market_files
from cmat_lib.data.candles import audit, data_hash, load_market, read_market, stack, unstack, window_ends
from cmat_lib.data.channels import compute_channels, look_back
from cmat_lib.data.complexity import check_indicators, log_ranges, path_complexity
from cmat_lib.data.labels import compute_labels
from cmat_lib.data.panel import Panel, build_samples, check_length, fit_scalers
from cmat_lib.data.splits import Market
from cmat_lib.data.synthetic import synthetic_market
from cmat_lib.data.topology import SERIES, compile_kernels, embeddings
from cmat_lib.errors import CmatError, nearest
from cmat_lib.models.fusion import fusion_class
from cmat_lib.models.multitask import MultiTaskCrossModalAttention, parameter_table
from cmat_lib.run import Run, resolve_path
from cmat_lib.tda.features import feature_params, path_features
from cmat_lib.tracking import check_mlflow
from cmat_lib.training.devices import pick_device

ORACLE_THRESHOLDS_PCT = (2.5, 4.0)  # below, other moves reach it within hours; above, some squeezes do not


def check_before_work(config: Config) -> None:
    """Check what the schema cannot know: names that stand in registries, candle files, packages, and the device.

    Raises
    ------
    CmatError
        For an unknown channel, indicator or fusion (with the nearest name), missing candle files, a missing GPU,
        or a package that is asked for and not installed.
    """
    check_mlflow(config)
    look_back(config.data.channel_names)
    check_indicators(config.complexity.indicators)
    fusion_class(config.fusion.fusion_type)
    if config.data.data_dir is not None:
        market_files(config.data)
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
    """Stage 01: candles, channels and labels of all symbols.

    ``market`` (symbol to candles), ``channels`` (symbol to (T, C) float32), ``labels`` (symbol to frame).

    Raises
    ------
    CmatError
        For candles that cannot be used, or too few of them.
    """
    check_before_work(config)
    market = load_candles(config)
    for symbol, candles in market.items():
        check_length(symbol, candles, config)
    channels = {s: compute_channels(c, config.data.channel_names, config.data.bar) for s, c in market.items()}
    labels = {s: compute_labels(c, config.labels, config.data.bar) for s, c in market.items()}
    run.save_frame("data/candles.parquet", stack(market))
    run.save_frame("data/labels.parquet", stack(labels))
    run.save_array("data/channels.npy", np.concatenate(list(channels.values())))
    run.save_json("data/data.json", {"data_hash": data_hash(market), "symbols": list(market)})
    return {"market": market, "channels": channels, "labels": labels}


# -- 02 ----------------------------------------------------------------------------------------------------------------


def build_features(config: Config, run: Run, progress: bool | None = None) -> pd.DataFrame:
    """Stage 02: topology and complexity of every sample's window, the index of samples (returned), and the scalers.

    Features come from the cache where it has them. The run keeps its own copy, so that a cache which grows or is
    cleaned cannot change a finished run.
    """
    market = unstack(run.read_frame("data/candles.parquet"))
    labels = unstack(run.read_frame("data/labels.parquet"))
    samples = build_samples(market, labels, config)
    rows = {symbol: frame["local_row"].to_numpy() for symbol, frame in samples.groupby("symbol", sort=False)}
    with worker_pool(config.tda):
        compiling = compile_kernels(config.tda)
        complexity = np.concatenate([all_complexity(s, market[s], rows[s], config, progress) for s in market])
        compiling.join()
        tda = np.concatenate([cached_tda(s, market[s], rows[s], config, progress) for s in market])
    channels = run.read_array("data/channels.npy")
    run.save_array("data/tda.npy", tda)
    run.save_array("data/complexity.npy", complexity)
    run.save_frame("data/samples.parquet", samples)
    run.save_json("data/scalers.json", fit_scalers(channels, tda, complexity, samples, config))
    return samples


def build_cache(config: Config, progress: bool | None = None) -> None:
    """Features of every window of all symbols, computed into the cache where it lacks them; no run is touched."""
    market, no_rows = load_candles(config), np.empty(0, dtype=np.int64)
    with worker_pool(config.tda):
        compiling = compile_kernels(config.tda)
        for symbol, candles in market.items():
            cached_complexity(symbol, candles, no_rows, config, progress)
        compiling.join()
        for symbol, candles in market.items():
            cached_tda(symbol, candles, no_rows, config, progress)


def cached_tda(
    symbol: str, candles: pd.DataFrame, rows: np.ndarray, config: Config, progress: bool | None
) -> np.ndarray:
    """Topology features of the windows that end at `rows`, shape (N, F), from the cache or computed into it."""
    parts, stride = [], 1 if config.tda.slides else config.tda.stride
    for embedding in embeddings(config.tda):
        window, delay = embedding.window, embedding.delay
        compute = partial(path_features, window=window, delay=delay, config=config.tda)
        parameters = {**feature_params(config.tda), **embedding._asdict(), "stride": stride}
        values, width = SERIES[embedding.series](candles), config.tda.features_per_scale
        ends = window_ends(candles, config.data.bar, window, stride)
        parts.append(
            _cached("tda", symbol, candles, values, ends, rows, window, compute, width, parameters, config, progress)
        )
    return np.concatenate(parts, axis=1)


def all_complexity(
    symbol: str, candles: pd.DataFrame, rows: np.ndarray, config: Config, progress: bool | None
) -> np.ndarray:
    """Complexity features of the windows that end at `rows`, shape (N, K): cached indicators, then the ranges."""
    indicators = cached_complexity(symbol, candles, rows, config, progress)
    return np.concatenate([indicators, log_ranges(candles, config.complexity.ranges)[rows]], axis=1)


def cached_complexity(
    symbol: str, candles: pd.DataFrame, rows: np.ndarray, config: Config, progress: bool | None
) -> np.ndarray:
    """Complexity indicators of the windows that end at `rows`, shape (N, K), from the cache or computed into it."""
    compute = partial(path_complexity, config=config.complexity)
    # The ranges are computed from the candles at once, and their choice does not touch the cache.
    parameters = {**config.complexity.model_dump(mode="json", exclude={"ranges"}), "stride": config.tda.stride}
    window, width = config.complexity.window_size, len(config.complexity.indicators)
    ends, values = window_ends(candles, config.data.bar, window, config.tda.stride), SERIES["log_close"](candles)
    return _cached(
        "complexity", symbol, candles, values, ends, rows, window, compute, width, parameters, config, progress
    )


# -- 03 to 06 read the panel -----------------------------------------------------------------------------------------


def load_panel(config: Config, run: Run, device: torch.device | str = "cpu") -> Panel:
    """Panel of a run whose stages 01 and 02 are finished."""
    arrays = (run.read_array(f"data/{name}.npy") for name in ("channels", "tda", "complexity"))
    return Panel(*arrays, run.read_frame("data/samples.parquet"), run.read_json("data/scalers.json"), config, device)


def describe_model(model: MultiTaskCrossModalAttention, run: Run) -> pd.DataFrame:
    """Stage 03: table of the model's parts and their parameters, beside what the source states."""
    table = pd.DataFrame(parameter_table(model), columns=["part", "parameters", "source"])
    run.save_json("model_spec.json", {"parameters": table.to_dict("records"), "tokens": list(model.fusion.token_names)})
    return table


# -- shared ------------------------------------------------------------------------------------------------------------


def predict(
    model: MultiTaskCrossModalAttention, panel: Panel, index: torch.Tensor, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Raw trigger probability and largest rise in percent of the samples of `index`, shape (n,) each, float64.

    Computed in the precision of the model's weights.
    """
    dtype = next(model.parameters()).dtype
    pairs = [model.predict(*(x.to(dtype) for x in batch.inputs)) for batch in panel.batches(index, size)]
    return tuple(torch.cat(column)[:, 0].double().cpu().numpy() for column in zip(*pairs, strict=True))


def _cached(kind, symbol, candles, values, ends, rows, window, compute, width, parameters, config, progress):
    """The cache covers every window of the symbol, so that runs with other channels or look-backs share it."""
    return cached_features(
        kind,
        symbol,
        values,
        candles.index,
        ends,
        rows,
        window,
        compute,
        width,
        parameters | {"timeframe": config.data.timeframe} | _sessions(config),
        resolve_path(config.tda.cache_dir),
        jobs=config.tda.jobs,
        trust=config.tda.trust_cache,
        progress=progress,
    )


def _sessions(config: Config) -> dict[str, str]:
    """Joined sessions have other windows, and so other cache files; the key of all others stays as it was."""
    data = config.data
    return {"sessions": f"{data.sessions} {data.clock_zone}"} if data.sessions == "join" else {}
