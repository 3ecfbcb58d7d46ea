"""Stage 01: candles and labels, and the views that have a row per candle."""

from typing import Any

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.config import Config
from cmat_lib.data.candles import audit, data_hash, load_market, read_market, stack
from cmat_lib.data.labels import compute_labels
from cmat_lib.data.splits import Market
from cmat_lib.data.synthetic import synthetic_market
from cmat_lib.views import VIEWS
from cmat_lib.views.compute import compute_views
from cmat_lib.views.samples import check_length
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.common import check_before_work

ORACLE_THRESHOLDS_PCT = (2.5, 4.0)  # below, other moves reach it within hours; above, some squeezes do not


def read_candles(config: Config) -> Market:
    """Candles of every symbol as they are in the files of ``data.data_dir``, or the synthetic market."""
    return _synthetic(config) if config.data.data_dir is None else read_market(config.data)


def load_candles(config: Config, raw: Market | None = None) -> Market:
    """Candles of every symbol that all else may rely on; `raw` are those of `read_candles`, if they are at hand."""
    if config.data.data_dir is not None:
        return load_market(config.data, raw)
    return _synthetic(config) if raw is None else raw


def _synthetic(config: Config) -> Market:
    data, labels = config.data, config.labels
    told = {key: getattr(data, f"synthetic_{key}") for key in ("symbols", "days", "seed", "plant")}
    market = synthetic_market(**told, timeframe=data.timeframe, horizon=labels.horizon)
    chosen = data.symbols or list(market)
    for symbol in chosen:
        if symbol not in market:
            raise CmatError(f"data.symbols: the synthetic market has no '{symbol}'{nearest(symbol, market)}")
    # The market's true probability is that of a squeeze, which is the one cause of triggers near +3 % only.
    low, high = ORACLE_THRESHOLDS_PCT
    is_true = labels.mode == "percent" and low <= labels.threshold_pct <= high
    unknown = [] if is_true else ["oracle_probability"]
    return {symbol: candles.drop(columns=unknown) for symbol, candles in market.items() if symbol in chosen}


def audit_candles(config: Config, raw: Market) -> pd.DataFrame:
    """What raw candles hold and what is wrong with them, see `cmat_lib.data.candles.audit`."""
    return audit(raw, config.data.bar, config.data.clock_zone, config.data.sessions)


def prepare_data(config: Config, run: Run, raw: Market | None = None) -> dict[str, Any]:
    """Stage 01, see `load_candles` for `raw`.

    Returns ``market`` (symbol to candles), ``labels`` (symbol to frame) and ``views`` (view to symbol to (T, C)
    float32). A CmatError says which candles cannot be used, or are too few.
    """
    check_before_work(config)
    market = load_candles(config, raw)
    check_market(market, config)
    rows = {symbol: np.arange(len(candles)) for symbol, candles in market.items()}
    views = [view for view in VIEWS.active(config) if view.by_candle]
    found = compute_views(views, market, rows, config, lambda symbol: None)
    labels = {s: compute_labels(c, config.labels, config.data.bar) for s, c in market.items()}
    run.save_frame("data/candles.parquet", stack(market))
    run.save_frame("data/labels.parquet", stack(labels))
    for name, values in found.items():
        run.save_array(f"data/{name}.npy", values.values)
    run.save_json("data/data.json", {"data_hash": data_hash(market), "symbols": list(market)})
    ends = np.cumsum([len(candles) for candles in market.values()])[:-1]
    by_symbol = {n: dict(zip(market, np.split(v.values, ends), strict=True)) for n, v in found.items()}
    return {"market": market, "labels": labels, "views": by_symbol}


def check_market(market: Market, config: Config) -> None:
    """Raise a CmatError for candles that are too few, or that a view cannot be made of."""
    for symbol, candles in market.items():
        check_length(symbol, candles, config)
    for view in VIEWS.active(config):
        view.admit(market, config)
