"""A market of candles: its defects, the one repair that may be asked for, and where its gap-free stretches lie.

A market is a dict of symbol to candles, sorted by symbol. Candles are a frame with the index `timestamp` (candle open,
UTC, ascending) and the float64 columns open, high, low, close, volume and, if known, those of taker statistics. With
`data.sessions: join` the column `closed_before` tells which steps are regular closures and no gaps.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.config.inputs import OHLC
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.sessions import CLOSED, closed_when_filled, find_closures, join_sessions, off_session, stretch_ids
from cmat_lib.data.sources.choice import market_files
from cmat_lib.data.sources.files import read_market

Market = dict[str, pd.DataFrame]
PRICES = list(OHLC)
AMOUNTS = ["volume", "quote_volume", "trades", "taker_buy_volume", "taker_buy_quote_volume"]
EXTREME_RANGE = 20.0  # times the symbol's median high-low range
ROUNDING = 1e-9  # share of a price by which adjusted prices may contradict each other
SPLITS = np.array([1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50, 100])
SPLIT_NEAR = 0.04  # of the logarithm: what a market moves besides, overnight
SPLIT_MOVES = 12  # usual moves that a jump must be, or it is one of them
REPEAT = 20  # candles, of which ten at least must differ
TIME = "%Y-%m-%d %H:%M"
PART = 50  # steps by which the size of candles is judged

# Mistakes that make candles unusable, causes before their consequences: name in the audit -> what the error says.
DEFECTS = {
    "duplicate_times": "the time is there twice; keep one of the rows",
    "unsorted_times": "the row is older than the row before; sort the file by time",
    "off_grid_times": "the time is no whole number of candles after the first; correct or remove the row, or, if the "
    "market has breaks, set data.sessions: join",
    "missing_values": "a value is missing or infinite; complete or remove the row",
    "non_positive_prices": "a price is not positive; correct or remove the row",
    "negative_amounts": "a volume or count is negative; correct or remove the row",
    "inconsistent_candles": "high is not the highest price or low not the lowest; correct or remove the row",
}


def load_market(data: DataConfig, raw: Market | None = None) -> Market:
    """Candles that everything else may rely on: read (`raw`, if at hand), checked, repaired as `data.gaps` declares.

    Raises a CmatError that names file and row for each of the `DEFECTS`, or if a file cannot be read.
    """
    raw, files = read_market(data) if raw is None else raw, market_files(data)
    market = {symbol: candles.copy(deep=False) for symbol, candles in raw.items()}
    for candles in market.values():
        candles.attrs = {"source": candles.attrs["source"]}  # what else the reader noted is for the audit
    return _checked(market, data, {symbol: str(source) for symbol, source in files.items()})


def checked_market(market: Market, data: DataConfig) -> Market:
    """The same of candles in memory: frames by candle open with the prices and what views read; text is left out."""
    if absent := [symbol for symbol in data.symbols or [] if symbol not in market]:
        raise CmatError(f"data.symbols: the market has no '{absent[0]}'{nearest(absent[0], market)}")
    frames = {symbol: market[symbol] for symbol in sorted(data.symbols or market)}
    for symbol, candles in frames.items():
        if not isinstance(candles.index, pd.DatetimeIndex) or candles.index.tz is None or not len(candles):
            raise CmatError(f"{symbol}: the index must be candle opens with a time zone (UTC), one at least")
        if missing := [name for name in PRICES if name not in candles]:
            raise CmatError(f"{symbol}: no column '{missing[0]}'")
        frames[symbol] = candles.select_dtypes("number").set_axis(candles.index.tz_convert("UTC"))
    return _checked(frames, data, {symbol: symbol for symbol in frames})


def _checked(market: Market, data: DataConfig, names: Mapping[str, str]) -> Market:
    """Checked and repaired candles; `names` says what a symbol is called in error messages."""
    joined = data.sessions == "join"
    for symbol, candles in market.items():
        for defect, rows in _defects(candles, data.bar, data.clock_zone if joined else None).items():
            if rows.any():
                row = candles.iloc[int(rows.argmax())]
                values = ", ".join(f"{name} {row[name]:.10g}" for name in [*PRICES, *AMOUNTS] if name in candles)
                problem = f"{DEFECTS[defect]} (rows affected: {rows.sum()})"
                raise CmatError(f"{names[symbol]}: {row.name:%Y-%m-%d %H:%M:%S} UTC ({values}): {problem}")
    if joined:
        market = {s: join_sessions(own, data.bar, data.clock_zone, names[s]) for s, own in market.items()}
    return repair(market, data)


def audit(market: Market, bar: pd.Timedelta, zone: str = "UTC", sessions: str = "continuous") -> pd.DataFrame:
    """What a market holds and what is wrong with it, also for candles that `load_market` refuses; one row per symbol.

    In `zone` a market's session has the same hours all year; `sessions` is as `data.sessions`. unread: columns that
    nothing reads; from, to: first and last open, UTC; longest_gap: in candles; regular_closures: gaps that are, see
    `cmat_lib.data.sessions`; rows with each of the `DEFECTS`; largest_move_pct: close to close, signed; volume_hour:
    hour by `zone` that trades most, by which times that are no opens can be told; doubts: see `doubts`.
    """
    rows = {symbol: _audit_symbol(candles, bar, zone, sessions == "join") for symbol, candles in market.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("symbol")


def _audit_symbol(candles: pd.DataFrame, bar: pd.Timedelta, zone: str, joined: bool) -> dict[str, object]:
    times = candles.index.unique().sort_values()
    lengths = np.diff(times.as_unit("ns").asi8) // bar.as_unit("ns").value - 1
    gaps = lengths[lengths > 0]
    spread = candles["high"] / candles["low"] - 1
    moves = 100 * candles["close"].pct_change(fill_method=None).to_numpy()
    volume, volume_hour = candles.get("volume", pd.Series(dtype=float)), ""
    if bar < pd.Timedelta("1D") and volume.any():
        volume_hour = f"{volume.groupby(candles.index.tz_convert(zone).hour).mean().idxmax():02d}:00"
    return {
        "source": candles.attrs.get("source", ""),
        "unread": ", ".join(candles.attrs.get("unread", [])),
        "rows": len(candles),
        "from": candles.index.min(),
        "to": candles.index.max(),
        "missing_candles": int(gaps.sum()),
        "gaps": len(gaps),
        "longest_gap": int(gaps.max(initial=0)),
        "regular_closures": int((find_closures(times, bar, zone).before > 0).sum()),
        **{name: int(rows.sum()) for name, rows in _defects(candles, bar, zone if joined else None).items()},
        "zero_volume": int((volume == 0).sum()),
        "extreme_candles": int((spread > EXTREME_RANGE * spread.median()).sum()),
        "largest_move_pct": float(moves[np.nanargmax(np.abs(moves))]) if np.isfinite(moves).any() else 0.0,
        "volume_hour": volume_hour,
        "doubts": "; ".join(doubts(candles, bar)),
    }


def doubts(candles: pd.DataFrame, bar: pd.Timedelta) -> list[str]:
    """Sentences on what may be wrong, and is never refused: those of the reader, a split, repeats, other bars."""
    found = [*candles.attrs.get("doubts", []), _split(candles), _repeat(candles), _other_bars(candles.index, bar)]
    return [text for text in found if text]


def _split(candles: pd.DataFrame) -> str:
    """A jump from close to open by a factor of `SPLITS` after which the price stays there."""
    opens, closes = (np.log(candles[name].clip(lower=1e-300).to_numpy()) for name in ("open", "close"))
    jumps, moves = opens[1:] - closes[:-1], np.abs(np.diff(closes))
    size, usual = np.abs(jumps), np.median(moves[moves > 0]) if (moves > 0).any() else np.inf
    near = np.abs(size[:, None] - np.log(SPLITS)).min(axis=1, initial=np.inf) < SPLIT_NEAR
    rows = np.flatnonzero(near & (moves > size / 2) & (size > SPLIT_MOVES * usual))
    if not len(rows):
        return ""
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    first = candles.index[rows[0] + 1]
    return f"the price jumps by {np.exp(jumps[rows[0]]):.3g} at {first:{TIME}}{more}, as at a split"


def _repeat(candles: pd.DataFrame) -> str:
    """A stretch whose prices stood in the file before, in the same order."""
    rows = pd.util.hash_pandas_object(candles[PRICES], index=False)
    place, _ = pd.factorize(rows)
    lag = np.arange(len(rows)) - np.flatnonzero(~rows.duplicated())[place]
    starts = np.flatnonzero(np.diff(lag, prepend=-1) != 0)
    for start, stop in zip(starts, [*starts[1:], len(lag)], strict=True):
        if lag[start] and stop - start >= REPEAT and len(np.unique(place[start:stop])) >= REPEAT // 2:
            now, before = candles.index[start], candles.index[start - lag[start]]
            return f"{stop - start} candles from {now:{TIME}} repeat those from {before:{TIME}}"
    return ""


def _other_bars(index: pd.DatetimeIndex, bar: pd.Timedelta) -> str:
    """A part of the file in which candles are of another length."""
    for part in np.array_split(np.arange(1, len(index)), min(20, len(index) // PART) or 1) if len(index) > PART else []:
        counts = pd.Series(index[part] - index[part - 1]).value_counts()
        if counts.index[0] != bar and counts.iloc[0] > 0.6 * len(part):
            return f"candles about {index[part[0] - 1]:{TIME}} are {counts.index[0]} apart"
    return ""


def _defects(candles: pd.DataFrame, bar: pd.Timedelta, join_zone: str | None) -> dict[str, np.ndarray]:
    """Rows, (T,) bool, with each of the `DEFECTS`; with joined sessions each session has a grid of its own."""
    opens, step = candles.index.as_unit("ns").asi8, bar.as_unit("ns").value
    prices = candles[PRICES].to_numpy()  # (T, 4)
    amounts = candles[[name for name in AMOUNTS if name in candles]].to_numpy()  # (T, 0 to 5)
    slack = ROUNDING * np.abs(prices[:, 3])
    lower_high = candles["high"] < prices.max(axis=1) - slack
    higher_low = candles["low"] > prices.min(axis=1) + slack
    off_grid = (opens - opens[:1]) % step != 0
    if join_zone and off_grid.any():
        steps = np.diff(opens, prepend=opens[:1] - step)
        off_grid &= off_session(candles.index, join_zone) | ((steps > 0) & (steps < step))
    return {
        "duplicate_times": candles.index.duplicated(),
        "unsorted_times": np.diff(opens, prepend=opens[:1]) < 0,
        "off_grid_times": off_grid,
        "missing_values": ~(np.isfinite(prices).all(axis=1) & np.isfinite(amounts).all(axis=1)),
        "non_positive_prices": (prices <= 0).any(axis=1),
        "negative_amounts": (amounts < 0).any(axis=1),
        "inconsistent_candles": (lower_high | higher_low).to_numpy(),
    }


def repair(market: Market, data: DataConfig) -> Market:
    """Do what `data.gaps` declares about missing candles, and nothing else.

    `drop`: the same candles (windows across a gap are left out later). `fill_flat`: missing candles, with `sessions:
    join` those of a session, get the last close as all four prices and no volume; other columns (labels) are NaN there.
    """
    return market if data.gaps == "drop" else {symbol: _fill_flat(own, data) for symbol, own in market.items()}


def _fill_flat(candles: pd.DataFrame, data: DataConfig) -> pd.DataFrame:
    if joined := data.sessions == "join":
        grid = candles.index.union(find_closures(candles.index, data.bar, data.clock_zone).absent)
    else:
        grid = pd.date_range(candles.index[0], candles.index[-1], freq=data.bar, unit=candles.index.unit)
    filled = candles.reindex(grid.rename(candles.index.name))
    amounts = [name for name in AMOUNTS if name in filled]
    filled["close"] = filled["close"].ffill()
    filled[PRICES] = filled[PRICES].apply(lambda prices: prices.fillna(filled["close"]))
    filled[amounts] = filled[amounts].fillna(0.0)
    return filled.assign(**{CLOSED: closed_when_filled(filled.index, data.bar)}) if joined else filled


def closed(candles: pd.DataFrame, bar: pd.Timedelta, written: pd.Timestamp) -> pd.DataFrame:
    """Candles that were over when their file was `written`: a row that was saved before its close is not the candle."""
    return candles[candles.index + bar <= min(written, pd.Timestamp.now("UTC"))]


def window_ends(candles: pd.DataFrame, bar: pd.Timedelta, window: int, stride: int = 1) -> np.ndarray:
    """Rows at which a window of candles can end without crossing a gap, ascending; `window` counts the row itself.

    Every `stride`-th candle is kept, counted from 1970-01-01 UTC, so that all symbols keep the same moments and new
    candles do not shift them. Raises a ValueError if `window` or `stride` is below 1.
    """
    if window < 1 or stride < 1:
        raise ValueError(f"window and stride must be at least 1, got {window} and {stride}")
    rows = np.arange(len(candles))
    starts = np.where(np.diff(stretch_ids(candles, bar), prepend=-1) != 0, rows, 0)
    start = np.maximum.accumulate(starts)  # of the stretch of each row
    on_stride = candles.index.as_unit("ns").asi8 // bar.as_unit("ns").value % stride == 0
    return np.flatnonzero((rows - start + 1 >= window) & on_stride)


def stack(frames: Market) -> pd.DataFrame:
    """One long frame with the columns ``symbol`` and ``timestamp`` first."""
    return pd.concat(frames, names=["symbol", "timestamp"]).reset_index()


def unstack(frame: pd.DataFrame) -> Market:
    """Inverse of `stack`."""
    return {s: f.drop(columns="symbol").set_index("timestamp") for s, f in frame.groupby("symbol", sort=False)}


def data_hash(market: Market) -> str:
    """SHA-256 (hex) of symbols, column names, candle opens and values; the order of the symbols does not matter."""
    digest = hashlib.sha256()
    for symbol, candles in sorted(market.items()):
        digest.update(repr((symbol, [str(name) for name in candles.columns], len(candles))).encode())
        digest.update(candles.index.as_unit("ns").asi8.tobytes())
        digest.update(np.ascontiguousarray(candles.to_numpy(dtype=np.float64)).tobytes())
    return digest.hexdigest()
