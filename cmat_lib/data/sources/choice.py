"""Which files of a folder hold the candles of which symbol: by the names of `candle_makers`, and by what is in them.

A symbol is one file, the parts of an archive, or some rows of a file that tells several symbols apart.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.config import resolve_path
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.sources.makers import MAKERS, MINUTES_NAME, bare_name
from cmat_lib.data.sources.tables import has_header, is_candle_file, symbols_in

NAMES = [re.compile(maker.file) for maker in MAKERS if maker.file]
NO_CANDLES = re.compile(r".+-(\d+[mhdw]-(mark|index|premiumIndex|funding_rate)|(?P<kind>trades|\d+Mo))")  # freqtrade
UNREAD_ENDINGS = (".xlsx", ".xls", ".h5", ".hdf5", ".pkl", ".pickle")
UNITS = {"s": "s", "m": "min", "h": "h", "d": "D", "w": "W"}


@dataclass(frozen=True)
class CandleSource:
    """Where the candles of one symbol are."""

    paths: tuple[Path, ...]  # one file, or the parts of an archive in the order of time
    ticker: str | None = None  # its name inside a file that has several

    @property
    def written(self) -> pd.Timestamp:
        """When the newest of the files was changed last."""
        return pd.Timestamp(max(path.stat().st_mtime_ns for path in self.paths), tz="UTC")

    @property
    def parts(self) -> list[str]:
        """Month or day of each archive, such as ``2024-01``; empty for other files."""
        return [part for path in self.paths if (part := _told(path, "part"))]

    def __str__(self) -> str:
        return str(self.paths[0]) if len(self.paths) == 1 else f"{self.paths[0].parent} ({self.paths[0].name} …)"


def symbol_of(path: Path) -> str:
    """Symbol that a file name stands for: the name without its endings, timeframe and time.

    Examples
    --------
    >>> [symbol_of(Path(name)) for name in ("BTCUSDT_15m.parquet", "BTC_USDT-15m.feather", "SOL.csv")]
    ['BTCUSDT', 'BTC_USDT', 'SOL']
    >>> [symbol_of(Path(name)) for name in ("BTCUSDT-15m-2024-01.zip", "EURUSD_H1.csv", "BINANCE_BTCUSDT, 60.csv")]
    ['BTCUSDT', 'EURUSD', 'BINANCE_BTCUSDT']
    """
    return as_symbol(_told(path, "symbol") or bare_name(path))


def as_symbol(name: str) -> str:
    """A name that can be part of a file's: ``EURUSD=X`` becomes ``EURUSD_X``; letters of any script stay."""
    return re.sub(r"[^\w.-]|^\.", "_", unicodedata.normalize("NFC", name))


def market_files(data: DataConfig) -> dict[str, CandleSource]:
    """Candle files of every chosen symbol, sorted by symbol; sub-folders and hidden files are not looked at.

    A file whose name tells another timeframe is left out, so one folder may hold several.

    Raises
    ------
    CmatError
        If `data.data_dir` is null, missing or without candle files, or if a chosen symbol has no file or two.
    """
    folder, others = _data_folder(data), left_out(data)
    files = [path for path in candle_files(data) if path not in others]
    if not files:
        lengths = sorted({why.split()[1] for why in others.values() if why.startswith("timeframe")})
        if lengths:
            told = f"no candles of {data.timeframe}, by the file names {', '.join(lengths)} only"
            raise CmatError(f"{folder}: {told}; set data.timeframe")
        raise CmatError(f"{folder}: no .csv, .parquet, .feather or .zip file in this folder (data.data_dir)")
    found = [(path, *names) for path in files for names in _symbols_in(path, data)]
    if data.symbols is not None:
        _check_symbols_exist(data.symbols, [symbol for _, symbol, _ in found], folder)
        found = [entry for entry in found if entry[1] in data.symbols]
    return dict(sorted(_by_symbol(found).items()))


def candle_files(data: DataConfig) -> list[Path]:
    """Files of the folder that may hold candles, of any length."""
    others = left_out(data)
    visible = [path for path in _visible(_data_folder(data)) if is_candle_file(path)]
    return [path for path in visible if others.get(path, "timeframe").startswith("timeframe")]


def told_length(path: Path) -> pd.Timedelta | None:
    """Length of a candle as the file's name tells it."""
    timeframe = _told(path, "timeframe")
    return _length(timeframe) if timeframe else None


def left_out(data: DataConfig) -> dict[Path, str]:
    """Files of the folder that are not read, and why: what their name, or its ending, says."""
    reasons = {}
    for path in _visible(_data_folder(data)):
        if path.suffix.lower() in UNREAD_ENDINGS:
            reasons[path] = f"{path.suffix} is not read; save it as CSV or Parquet"
        elif not is_candle_file(path):
            continue
        elif NO_CANDLES.fullmatch(bare_name(path)):
            reasons[path] = "by its name, no candles that can be used"
        elif told_length(path) not in (None, data.bar):
            reasons[path] = f"timeframe {_told(path, 'timeframe')}"
    return reasons


def _data_folder(data: DataConfig) -> Path:
    if data.data_dir is None:
        raise CmatError("data.data_dir is null (the synthetic market): set it to a folder of candle files")
    folder = resolve_path(data.data_dir)
    if not folder.exists():
        raise CmatError(f"{folder}: no such folder; set data.data_dir to a folder with one candle file per symbol")
    return folder


def _visible(folder: Path) -> list[Path]:
    """Files of a folder, sorted; the file itself if it is one."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    return [path for path in paths if path.is_file() and not path.name.startswith(".")]


def _told(path: Path, what: str) -> str | None:
    """``symbol``, ``timeframe`` or ``part`` as a maker's file name tells it."""
    for form in NAMES:
        if (found := form.fullmatch(bare_name(path))) and (form.pattern != MINUTES_NAME or not has_header(path)):
            return found.groupdict().get(what)
    return None


def _length(timeframe: str) -> pd.Timedelta:
    """Length of a candle from 15m, 1h, d, minute, M15, H1, Daily, 1D, 1_H or 60, which is minutes."""
    number, unit = re.sub(r"\D", "", timeframe), re.sub(r"[\d_]", "", timeframe).lower()
    return pd.Timedelta(int(number or 1), unit=UNITS[unit[:1] or "m"])


def _check_symbols_exist(symbols: list[str], present: list[str], folder: Path) -> None:
    if not symbols:
        raise CmatError("data.symbols is an empty list: name at least one symbol, or null for every file")
    for symbol in symbols:
        if symbol not in present:
            close = difflib.get_close_matches(symbol.upper(), present, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"the folder has {', '.join(dict.fromkeys(present))}"
            raise CmatError(f"data.symbols: no file for '{symbol}' in {folder}; {hint}")


def _by_symbol(found: list[tuple[Path, str, str | None]]) -> dict[str, CandleSource]:
    """Sources by symbol; names are compared without case because some file systems cannot tell them apart."""
    taken: dict[str, tuple[str, CandleSource]] = {}
    for path, symbol, ticker in found:
        name, other = taken.get(symbol.lower(), (symbol, None))
        source = CandleSource((path,), ticker)
        if other is not None:
            if name != symbol or not (other.parts and source.parts):
                before = other.paths[0].name
                raise CmatError(f"{path}: symbol '{symbol}' already comes from {before}; keep one file per symbol")
            source = CandleSource((*other.paths, path), ticker)
        taken[symbol.lower()] = (symbol, source)
    return dict(taken.values())


def _symbols_in(path: Path, data: DataConfig) -> list[tuple[str, str | None]]:
    """Symbols of a file, each with its ticker if the file tells several apart."""
    tickers = symbols_in(path, data)
    return [(as_symbol(ticker), ticker) for ticker in tickers] if tickers else [(symbol_of(path), None)]
