"""What each notebook computes, one function a stage; ``cmat train`` makes the same calls without pages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from cmat_lib import __version__
from cmat_lib.config import Config
from cmat_lib.data.candle_files import market_files
from cmat_lib.data.candles import audit, data_hash, load_market, read_market, window_ends
from cmat_lib.data.channels import compute_channels, look_back
from cmat_lib.data.complexity import complexity_features
from cmat_lib.data.labels import compute_labels
from cmat_lib.data.panel import Panel, build_samples, fit_scalers, needed_candles, too_few_candles
from cmat_lib.data.splits import PARTS, Market
from cmat_lib.data.synthetic import synthetic_market
from cmat_lib.evaluation.baselines import tree_scores
from cmat_lib.evaluation.breakdown import ORACLE, oracle_share
from cmat_lib.evaluation.calibration import apply_calibration, fit_calibration
from cmat_lib.evaluation.metrics import SCOPES, choose_threshold, choose_thresholds, gap_table
from cmat_lib.evaluation.uncertainty import Resampling, interval_table, paired_difference
from cmat_lib.explain.attention import attention_maps, collect_maps, stack_attention_maps
from cmat_lib.models import build_model
from cmat_lib.models.fusion import fusion_class
from cmat_lib.models.multitask import MultiTaskCrossModalAttention, parameter_table
from cmat_lib.run import Run, environment, resolve_path
from cmat_lib.tda.cache import cached_features
from cmat_lib.tda.features import feature_names, feature_params, tda_features
from cmat_lib.tda.workers import worker_pool
from cmat_lib.training.checkpoint import load_model, save_checkpoint
from cmat_lib.training.trainer import Row, Training, pick_device, train

ORACLE_THRESHOLDS_PCT = (2.5, 4.0)  # below, other moves reach it within hours; above, some squeezes do not
SCORES = ("probability", "volatility", "trees")  # the model, and what it must beat


def check_before_work(config: Config) -> None:
    """Check what the schema cannot know: names that stand in registries, candle files, and the device.

    Raises
    ------
    CmatError
        For an unknown channel or fusion (with the nearest valid name), missing candle files, or a missing GPU.
    """
    look_back(config.data.channel_names)
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
    if _oracle_applies(config):
        return market
    return {symbol: candles.drop(columns="oracle_probability") for symbol, candles in market.items()}


def _oracle_applies(config: Config) -> bool:
    """The market's true probability is that of a squeeze, which is the one cause of triggers near +3 % only."""
    low, high = ORACLE_THRESHOLDS_PCT
    return config.labels.mode == "percent" and low <= config.labels.threshold_pct <= high


def audit_candles(config: Config) -> pd.DataFrame:
    """What the candles hold and what is wrong with them, before anything is refused or repaired.

    Returns
    -------
    DataFrame
        One row per symbol, see `cmat_lib.data.candles.audit`.
    """
    market = load_candles(config) if config.data.data_dir is None else read_market(config.data)
    return audit(market, config.data.bar)


def prepare_data(config: Config, run: Run) -> dict[str, Any]:
    """Stage 01: candles, channels and labels of all symbols.

    Returns
    -------
    dict
        ``market`` (symbol to candles), ``channels`` (symbol to (T, C) float32), ``labels`` (symbol to frame).

    Raises
    ------
    CmatError
        For candles that cannot be used, or too few of them.
    """
    check_before_work(config)
    market = load_candles(config)
    for symbol, candles in market.items():
        if not len(window_ends(candles.index, config.data.bar, needed_candles(config))):
            raise too_few_candles(symbol, candles, config)
    channels = {s: compute_channels(c, config.data.channel_names, config.data.bar) for s, c in market.items()}
    labels = {s: compute_labels(c, config.labels, config.data.bar) for s, c in market.items()}
    run.save_frame("data/candles.parquet", stack(market))
    run.save_frame("data/labels.parquet", stack(labels))
    run.save_array("data/channels.npy", np.concatenate(list(channels.values())))
    run.save_json("data/data.json", {"data_hash": data_hash(market), "symbols": list(market)})
    return {"market": market, "channels": channels, "labels": labels}


def stack(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One long frame with the columns ``symbol`` and ``timestamp`` first."""
    return pd.concat(frames, names=["symbol", "timestamp"]).reset_index()


def unstack(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Inverse of `stack`."""
    return {s: f.drop(columns="symbol").set_index("timestamp") for s, f in frame.groupby("symbol", sort=False)}


# -- 02 ----------------------------------------------------------------------------------------------------------------


def build_features(config: Config, run: Run, progress: bool | None = None) -> pd.DataFrame:
    """Stage 02: topology and complexity of every sample's window, the index of samples, and the scalers.

    Features come from the cache where it has them. The run keeps its own copy, so that a cache which grows or is
    cleaned cannot change a finished run.

    Returns
    -------
    DataFrame
        Samples, see `cmat_lib.data.panel.build_samples`.
    """
    market = unstack(run.read_frame("data/candles.parquet"))
    labels = unstack(run.read_frame("data/labels.parquet"))
    samples = build_samples(market, labels, config)
    rows = {symbol: frame["local_row"].to_numpy() for symbol, frame in samples.groupby("symbol", sort=False)}
    with worker_pool(config.tda):
        tda = np.concatenate([cached_tda(s, market[s], rows[s], config, progress) for s in market])
        complexity = np.concatenate([cached_complexity(s, market[s], rows[s], config, progress) for s in market])
    channels = run.read_array("data/channels.npy")
    run.save_array("data/tda.npy", tda)
    run.save_array("data/complexity.npy", complexity)
    run.save_frame("data/samples.parquet", samples)
    run.save_json("data/scalers.json", fit_scalers(channels, tda, complexity, samples, config))
    return samples


def build_cache(config: Config, progress: bool | None = None) -> None:
    """Features of every window of all symbols, computed into the cache where it lacks them; no run is touched."""
    no_rows = np.empty(0, dtype=np.int64)
    with worker_pool(config.tda):
        for symbol, candles in load_candles(config).items():
            cached_tda(symbol, candles, no_rows, config, progress)
            cached_complexity(symbol, candles, no_rows, config, progress)


def cached_tda(
    symbol: str, candles: pd.DataFrame, rows: np.ndarray, config: Config, progress: bool | None
) -> np.ndarray:
    """Topology features of the windows that end at `rows`, shape (N, F), from the cache or computed into it."""
    compute = partial(tda_features, config=config.tda)
    parameters = feature_params(config.tda)
    return _cached("tda", symbol, candles, rows, config, compute, config.tda.feature_dim, parameters, progress)


def cached_complexity(
    symbol: str, candles: pd.DataFrame, rows: np.ndarray, config: Config, progress: bool | None
) -> np.ndarray:
    """Complexity indicators of the windows that end at `rows`, shape (N, K), from the cache or computed into it."""
    compute = partial(complexity_features, config=config.complexity)
    parameters = {**config.complexity.model_dump(mode="json"), "stride": config.tda.stride}
    width = len(config.complexity.indicators)
    return _cached("complexity", symbol, candles, rows, config, compute, width, parameters, progress)


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


def train_model(config: Config, run: Run, on_epoch: Callable[[Row], None] = lambda row: None) -> Training:
    """Stage 04: train, then fit threshold and calibration on the calibrate part, and store both with the weights.

    Returns
    -------
    Training
    """
    panel = load_panel(config, run, pick_device(config.training))
    training = train(config, panel, on_epoch)
    raw, trigger = {}, {}
    for part in ("stop", "calibrate"):
        index = panel.index(part)
        raw[part], _ = predict(training.model, panel, index, config.evaluation.batch_size)
        trigger[part] = panel.samples["trigger"].to_numpy()[index.cpu()]
    calibration = fit_calibration(raw["calibrate"], trigger["calibrate"])
    threshold = choose_threshold(apply_calibration(raw["calibrate"], calibration), trigger["calibrate"])
    content = _checkpoint(training.model, panel, config, run, threshold, calibration)
    save_checkpoint(run.claim(f"{config.logging.save_dir}/best_model.pt"), content)
    parts = panel.samples[panel.samples["trigger"].notna()].groupby("part")["trigger"]
    results = {
        "best_epoch": training.best_epoch,
        "threshold": threshold,
        "calibration": calibration,
        "base_rates": parts.mean().to_dict(),
        "samples": parts.size().to_dict(),
        "scores": {part: ranking_scores(trigger[part], raw[part]) for part in raw},
        "history": training.history,
        "environment": environment(),
        "device": str(panel.device),
    }
    run.save_json(f"{config.logging.save_dir}/training_results.json", results)
    return training


def evaluate_model(config: Config, run: Run) -> dict[str, pd.DataFrame]:
    """Stage 05: predictions of every labelled sample, and scores with intervals beside the baselines.

    Returns
    -------
    dict of DataFrame
        ``predictions``, ``scores`` (test part), ``differences`` (model minus each baseline), ``gap`` (the model in
        every part) and, on the synthetic market, ``oracle_share``; all also in the run folder.
    """
    device = pick_device(config.training)
    model, _, checkpoint = load_model(run.model_folder / "best_model.pt", device)
    panel = load_panel(config, run, device)
    predictions = _predictions(model, panel, config, checkpoint)
    thresholds = choose_thresholds(predictions, SCORES) | {"probability": checkpoint["threshold"]}
    test = predictions[predictions["part"] == "test"]
    resampling = Resampling.from_config(config)
    top = config.evaluation.top_share
    scores = interval_table(test, _with_oracle(thresholds, predictions), top, resampling)
    differences = pd.concat(
        {name: paired_difference(test, "probability", name, "roc_auc", resampling) for name in SCORES[1:]},
        names=["baseline", "scope"],
    )
    gap = pd.concat(
        {scope: gap_table(predictions, thresholds["probability"], top, scope=scope) for scope in SCOPES},
        names=["scope", "metric"],
    )
    tables = {"scores": scores, "differences": differences, "gap": gap}
    if ORACLE in predictions:
        tables["oracle_share"] = oracle_share(test, SCORES, resampling)
    run.save_frame("predictions.parquet", predictions)
    run.save_json("metrics.json", {"thresholds": thresholds} | {name: records(t) for name, t in tables.items()})
    return {"predictions": predictions, **tables}


def explain_model(config: Config, run: Run) -> dict[str, np.ndarray]:
    """Stage 06: attention maps of test samples, evenly spaced in time.

    Returns
    -------
    dict of ndarray
        ``sample`` (N,) row numbers of ``data/samples.parquet``; ``maps`` (N, layers, h, M, M) between the ``tokens``
        (M,) of the fusion, if it has attention; ``stack_maps`` (N, 1, h, S, S) between the N-BEATS ``stack_tokens``
        (S,), if the encoder has attention. Also in ``attention.npz``.
    """
    device = pick_device(config.training)
    model, _, _ = load_model(run.model_folder / "best_model.pt", device)
    panel = load_panel(config, run, device)
    index = panel.index("test")
    index = index[torch.linspace(0, len(index) - 1, min(len(index), config.explain.max_samples)).long().to(device)]
    arrays = {"sample": index.cpu().numpy()}
    for prefix, present, read in (
        ("", hasattr(model.fusion, "transformer"), attention_maps),
        ("stack_", getattr(model.ohlcv_encoder, "attention", None) is not None, stack_attention_maps),
    ):
        if present:
            found = collect_maps(model, panel.batches(index, config.explain.batch_size), read)
            arrays |= {f"{prefix}maps": found.maps, f"{prefix}tokens": np.array(found.token_names)}
    run.save_arrays("attention.npz", **arrays)
    return arrays


def run_until_training(config: Config, say: Callable[[str], None]) -> Path:
    """Stages 01 to 04 without pages; finished ones are skipped.

    Parameters
    ----------
    config : Config
    say : callable
        Takes lines of progress.

    Returns
    -------
    Path
        ``best_model.pt``.
    """
    check_before_work(config)
    steps = {
        "01_data_prep": lambda run: prepare_data(config, run),
        "02_tda_cache": lambda run: build_features(config, run),
        "03_model_build": lambda run: describe_model(build_model(config), run),
        "04_training": lambda run: train_model(config, run, lambda row: say(epoch_line(row))),
    }
    for stage, work in steps.items():
        run = Run(config, stage)
        if run.is_finished(stage):
            say(f"{stage} is up to date")
            continue
        for name in run.damaged(stage):
            say(f"{stage}: {name} is missing or cut short; it is made again")
        say(stage)
        work(run.begin())
        run.finish()
    say(f"model: {run.model_folder / 'best_model.pt'}")
    return run.model_folder / "best_model.pt"


def epoch_line(row: Row) -> str:
    """One line of text for one epoch of the history."""
    return (
        f"epoch {row['epoch']:>3}  train loss {row['train_loss']:.4f}  stop loss {row['stop_loss']:.4f}  "
        f"stop AUC {row['stop_roc_auc']:.3f}  {row['samples_per_second']:,.0f} samples/s"
    )


def ranking_scores(trigger: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """ROC-AUC and PR-AUC of one part; the stop part chose the epoch, so its scores flatter."""
    return {"roc_auc": roc_auc_score(trigger, score), "pr_auc": average_precision_score(trigger, score)}


# -- shared ------------------------------------------------------------------------------------------------------------


def predict(
    model: MultiTaskCrossModalAttention, panel: Panel, index: torch.Tensor, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Raw trigger probability and largest rise in percent of the samples of `index`, shape (n,) each."""
    pairs = [model.predict(*batch.inputs) for batch in panel.batches(index, size)]
    return tuple(
        torch.cat(column)[:, 0].float().cpu().numpy().astype(np.float64) for column in zip(*pairs, strict=True)
    )


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as mappings, index included, for JSON."""
    return table.reset_index().to_dict("records")


def _predictions(model, panel: Panel, config: Config, checkpoint: dict[str, Any]) -> pd.DataFrame:
    """Frame of all samples of the four parts with the scores of the model and of the trees."""
    size = config.evaluation.batch_size
    indices = {part: panel.index(part) for part in PARTS}
    trees = tree_scores({part: panel.batches(index, size) for part, index in indices.items()}, config)
    every = torch.cat(list(indices.values()))
    raw, max_pct = predict(model, panel, every, size)
    frame = panel.samples.iloc[every.cpu().numpy()].drop(columns=["row", "local_row"]).reset_index(drop=True)
    frame["raw_probability"] = raw
    frame["probability"] = apply_calibration(raw, checkpoint["calibration"])
    frame["predicted_max_pct"] = max_pct
    frame["trees"] = np.concatenate(list(trees.values()))
    return frame


def _with_oracle(thresholds: dict[str, float], predictions: pd.DataFrame) -> dict[str, float]:
    if ORACLE not in predictions:
        return thresholds
    return thresholds | choose_thresholds(predictions, [ORACLE])


def _checkpoint(model, panel: Panel, config: Config, run: Run, threshold: float, calibration: dict) -> dict[str, Any]:
    return {
        "weights": {name: tensor.cpu() for name, tensor in model.state_dict().items()},
        "config": config.model_dump(mode="json"),
        "channel_names": config.data.channel_names,
        "feature_names": feature_names(config.tda),
        "complexity_names": list(config.complexity.indicators),
        "scalers": panel.scalers,
        "threshold": threshold,
        "calibration": calibration,
        "labels": config.labels.model_dump(mode="json"),
        "data_hash": run.read_json("data/data.json")["data_hash"],
        "versions": {"cmat": __version__, "torch": metadata.version("torch")},
    }


def _cached(kind, symbol, candles, rows, config, compute, width, parameters, progress) -> np.ndarray:
    """The cache covers every window of the symbol, so that runs with other channels or look-backs share it."""
    window = getattr(config, kind).window_size
    ends = window_ends(candles.index, config.data.bar, window, config.tda.stride)
    features = cached_features(
        kind,
        symbol,
        np.log(candles["close"].to_numpy()),
        candles.index,
        ends,
        window,
        compute,
        width,
        {**parameters, "timeframe": config.data.timeframe},
        resolve_path(config.tda.cache_dir),
        jobs=config.tda.jobs,
        trust=config.tda.trust_cache,
        progress=progress,
    )
    return features[np.searchsorted(ends, rows)]
