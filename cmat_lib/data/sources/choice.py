"""Which files of a folder hold the candles of which symbol, by the names of `makers`, and by what is in them.

A symbol is one file, the parts of an archive, or some rows of a file that tells several symbols apart. Sub-folders and
hidden files are not looked at.
"""

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
        return [part for path in self.paths if (part := _told(path).get("part"))]

    def __str__(self) -> str:
        return str(self.paths[0]) if len(self.paths) == 1 else f"{self.paths[0].parent} ({self.paths[0].name} …)"


def symbol_of(path: Path) -> str:
    """Symbol that a file name stands for: the name without its endings, timeframe and time.

    >>> [symbol_of(Path(name)) for name in ("BTCUSDT_15m.parquet", "BTC_USDT-15m.feather", "SOL.csv")]
    ['BTCUSDT', 'BTC_USDT', 'SOL']
    >>> [symbol_of(Path(name)) for name in ("BTCUSDT-15m-2024-01.zip", "EURUSD_H1.csv", "BINANCE_BTCUSDT, 60.csv")]
    ['BTCUSDT', 'EURUSD', 'BINANCE_BTCUSDT']
    """
    return _as_symbol(_told(path).get("symbol") or bare_name(path))


def _as_symbol(name: str) -> str:
    """A name that can be part of a file's: ``EURUSD=X`` becomes ``EURUSD_X``; letters of any script stay."""
    return re.sub(r"[^\w.-]|^\.", "_", unicodedata.normalize("NFC", name))


def market_files(data: DataConfig) -> dict[str, CandleSource]:
    """Candle files of every chosen symbol, sorted by symbol; files of another timeframe by their name are left out.

    Raises a CmatError if `data.data_dir` is null, missing or without candle files, or a chosen symbol has none or two.
    """
    folder, files = _data_folder(data), _judged_files(data)
    found: list[tuple[Path, str, str | None]] = []
    for path in (path for path, why in files.items() if not why):
        tickers = symbols_in(path, data)
        found += [(path, _as_symbol(ticker), ticker) for ticker in tickers] or [(path, symbol_of(path), None)]
    if not found:
        lengths = ", ".join(sorted({why.split()[1] for why in files.values() if why.startswith("timeframe")}))
        told = f"no candles of {data.timeframe}, by the file names {lengths} only; set data.timeframe"
        none = "no .csv, .parquet, .feather or .zip file in this folder (data.data_dir)"
        raise CmatError(f"{folder}: {told if lengths else none}")
    if data.symbols == []:
        raise CmatError("data.symbols is an empty list: name at least one symbol, or null for every file")
    present = [symbol for _, symbol, _ in found]
    if absent := [symbol for symbol in data.symbols or [] if symbol not in present]:
        close = difflib.get_close_matches(absent[0].upper(), present, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"the folder has {', '.join(dict.fromkeys(present))}"
        raise CmatError(f"data.symbols: no file for '{absent[0]}' in {folder}; {hint}")
    taken: dict[str, tuple[str, CandleSource]] = {}  # names without case, because some file systems ignore it
    for path, symbol, ticker in (entry for entry in found if data.symbols is None or entry[1] in data.symbols):
        name, other = taken.get(symbol.lower(), (symbol, None))
        source = CandleSource((path,), ticker)
        if other is not None:
            if name != symbol or not (other.parts and source.parts):
                before = other.paths[0].name
                raise CmatError(f"{path}: symbol '{symbol}' already comes from {before}; keep one file per symbol")
            source = CandleSource((*other.paths, path), ticker)
        taken[symbol.lower()] = (symbol, source)
    return dict(sorted(taken.values()))


def candle_files(data: DataConfig) -> list[Path]:
    """Files of the folder that may hold candles, of any length."""
    return [path for path, why in _judged_files(data).items() if not why or why.startswith("timeframe")]


def left_out(data: DataConfig) -> dict[Path, str]:
    """Files of the folder that are not read, and why: what their name, or its ending, says."""
    return {path: why for path, why in _judged_files(data).items() if why}


def _judged_files(data: DataConfig) -> dict[Path, str]:
    """Files that are candles by their ending, and why some of them are not read; nothing about the others."""
    folder, judged = _data_folder(data), {}
    paths = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    for path in (path for path in paths if path.is_file() and not path.name.startswith(".")):
        if path.suffix.lower() in UNREAD_ENDINGS:
            judged[path] = f"{path.suffix} is not read; save it as CSV or Parquet"
        elif not is_candle_file(path):
            continue
        elif NO_CANDLES.fullmatch(bare_name(path)):
            judged[path] = "by its name, no candles that can be used"
        else:
            judged[path] = "" if told_length(path) in (None, data.bar) else f"timeframe {_told(path)['timeframe']}"
    return judged


def _data_folder(data: DataConfig) -> Path:
    if data.data_dir is None:
        raise CmatError("data.data_dir is null (the synthetic market): set it to a folder of candle files")
    folder = resolve_path(data.data_dir)
    if not folder.exists():
        raise CmatError(f"{folder}: no such folder; set data.data_dir to a folder with one candle file per symbol")
    return folder


def _told(path: Path) -> dict[str, str]:
    """``symbol``, ``timeframe`` and ``part`` as far as a maker's file name tells them."""
    for form in NAMES:
        if (found := form.fullmatch(bare_name(path))) and (form.pattern != MINUTES_NAME or not has_header(path)):
            return {what: text for what, text in found.groupdict().items() if text}
    return {}


def told_length(path: Path) -> pd.Timedelta | None:
    """Length of a candle as the file's name tells it: 15m, 1h, d, minute, M15, H1, Daily, 1D, 1_H or 60 (minutes)."""
    if (timeframe := _told(path).get("timeframe")) is None:
        return None
    number, unit = re.sub(r"\D", "", timeframe), re.sub(r"[\d_]", "", timeframe).lower()
    return pd.Timedelta(int(number or 1), unit=UNITS[unit[:1] or "m"])
