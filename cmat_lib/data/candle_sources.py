"""Which files of a folder hold the candles of which symbol: file names of this project and of other people's tools.

`BTCUSDT_15m.parquet` (this project), `BTC_USDT-15m.feather`, `BTC_USDT_USDT-15m-futures.json` (freqtrade),
`BTCUSDT-15m-2024-01.zip` (one of many Binance archives), `EURUSD_M15_202401020000_202412312345.csv` (MetaTrader), and
yfinance frames, which have the candles of several tickers in one file.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cmat_lib.config import resolve_path
from cmat_lib.data.candle_tables import is_candle_file, tickers_in
from cmat_lib.errors import CmatError
from cmat_lib.schema import DataConfig

ARCHIVE = re.compile(r"(?P<symbol>.+)-(?P<timeframe>\d{1,9}[mhdw])-(?P<part>(19|20)\d{2}-(0[1-9]|1[0-2])(-\d{2})?)")
METATRADER = re.compile(r"(?P<symbol>.+)_(?P<timeframe>[MH]\d{1,9}|D1|Daily)_\d{8,14}_\d{8,14}")
FREQTRADE_OTHERS = re.compile(r".+-\d+[mhdw]-(mark|index|premiumIndex|funding_rate)")  # no candles of trades
PLAIN = re.compile(r"(?P<symbol>.+)[-_](?P<timeframe>\d{1,9}[mhdw])(-futures)?")


@dataclass(frozen=True)
class CandleSource:
    """Where the candles of one symbol are.

    Attributes
    ----------
    paths : tuple of Path
        One file, or the parts of an archive in the order of time.
    ticker : str, optional
        Its name inside a file that has several.
    """

    paths: tuple[Path, ...]
    ticker: str | None = None

    @property
    def written(self) -> pd.Timestamp:
        """When the newest of the files was changed last."""
        return pd.Timestamp(max(path.stat().st_mtime_ns for path in self.paths), tz="UTC")

    @property
    def parts(self) -> list[str]:
        """Month or day of each archive, such as ``2024-01``; empty for other files."""
        return [found["part"] for path in self.paths if (found := ARCHIVE.fullmatch(bare_name(path)))]

    def __str__(self) -> str:
        return str(self.paths[0]) if len(self.paths) == 1 else f"{self.paths[0].parent} ({self.paths[0].name} …)"


def bare_name(path: Path) -> str:
    """File name without its endings."""
    return re.sub(r"\.json\.gz$|\.[^.]+$", "", path.name)


def symbol_of(path: Path) -> str:
    """Symbol that a file name stands for: the name without its endings, timeframe and time.

    Examples
    --------
    >>> [symbol_of(Path(name)) for name in ("BTCUSDT_15m.parquet", "BTC_USDT-15m.feather", "SOL.csv")]
    ['BTCUSDT', 'BTC_USDT', 'SOL']
    >>> [symbol_of(Path(name)) for name in ("BTCUSDT-15m-2024-01.zip", "EURUSD_M15_202401020000_202412312345.csv")]
    ['BTCUSDT', 'EURUSD']
    """
    found = _parsed(path)
    return found["symbol"] if found else bare_name(path)


def market_files(data: DataConfig) -> dict[str, CandleSource]:
    """Candle files of every chosen symbol, sorted by symbol; sub-folders and hidden files are not looked at.

    A file whose name tells another timeframe is left out, so one folder may hold several.

    Raises
    ------
    CmatError
        If `data.data_dir` is null, missing or without candle files, if a chosen symbol has no file or two,
        or if a symbol could not be used as a file name.
    """
    folder = _data_folder(data)
    visible = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    files = [path for path in visible if is_candle_file(path) and not FREQTRADE_OTHERS.fullmatch(bare_name(path))]
    if not files:
        raise CmatError(f"{folder}: no .csv, .parquet, .feather or .zip file in this folder (data.data_dir)")
    found = [(path, *names) for path in _of_timeframe(files, data, folder) for names in _symbols_in(path)]
    if data.symbols is not None:
        _check_symbols_exist(data.symbols, [symbol for _, symbol, _ in found], folder)
        found = [entry for entry in found if entry[1] in data.symbols]
    return dict(sorted(_by_symbol(found).items()))


def _data_folder(data: DataConfig) -> Path:
    if data.data_dir is None:
        raise CmatError("data.data_dir is null (the synthetic market): set it to a folder of candle files")
    folder = resolve_path(data.data_dir)
    if not folder.is_dir():
        raise CmatError(f"{folder}: no such folder; set data.data_dir to a folder with one candle file per symbol")
    return folder


def _parsed(path: Path) -> re.Match | None:
    return next((found for form in (ARCHIVE, METATRADER, PLAIN) if (found := form.fullmatch(bare_name(path)))), None)


def _of_timeframe(files: list[Path], data: DataConfig, folder: Path) -> list[Path]:
    told = {path: _length(found["timeframe"]) for path in files if (found := _parsed(path))}
    chosen = [path for path in files if told.get(path, data.bar) == data.bar]
    if not chosen:
        others = sorted({_parsed(path)["timeframe"] for path in files})
        raise CmatError(
            f"{folder}: no candles of {data.timeframe}, by the file names {', '.join(others)} only; set data.timeframe"
        )
    return chosen


def _length(timeframe: str) -> pd.Timedelta:
    """Length of a candle from 15m, 1h, 1d or MetaTrader's M15, H1, D1, Daily."""
    text = timeframe.lower().replace("daily", "d1")
    number, unit = re.sub(r"\D", "", text), re.sub(r"\d", "", text)
    return pd.Timedelta(int(number), unit={"m": "min", "h": "h", "d": "D", "w": "W"}[unit])


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
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", symbol):
            raise CmatError(f"{path}: symbol '{symbol}' may only have letters, digits, '.', '_' and '-'; rename it")
        name, other = taken.get(symbol.lower(), (symbol, None))
        source = CandleSource((path,), ticker)
        if other is not None:
            if name != symbol or not (other.parts and source.parts):
                before = other.paths[0].name
                raise CmatError(f"{path}: symbol '{symbol}' already comes from {before}; keep one file per symbol")
            source = CandleSource((*other.paths, path))
        taken[symbol.lower()] = (symbol, source)
    return dict(taken.values())


def _symbols_in(path: Path) -> list[tuple[str, str | None]]:
    """Symbols of a file, each with its ticker if the file names its own; ``EURUSD=X`` becomes ``EURUSD_X``."""
    tickers = tickers_in(path)
    return [(re.sub(r"[^A-Za-z0-9._-]", "_", t), t) for t in tickers] if tickers else [(symbol_of(path), None)]
