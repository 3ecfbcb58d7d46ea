"""Candles from an exchange through ccxt: page by page, with patience, and never the candle that is not finished.

A download is one Parquet file, whose metadata say where its candles are from and which time was asked for.

ccxt's own paging (``params={"paginate": True}``) is not used: it silently leaves out what is older than some pages,
repeats failed requests without a pause, gives up at the first rate limit, and hands out nothing before the end.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import atomic_path

if TYPE_CHECKING:
    import ccxt

logger = logging.getLogger(__name__)

PAGE = 1000  # candles to ask for at once, where ccxt does not know the exchange's limit
SAVE_EVERY = 20  # pages; a kill costs at most that many
WAITS = (1, 2, 4, 8, 16, 32)  # seconds before each new try of a request that failed
REFUSED = (403, 451)  # HTTP: forbidden, unavailable for legal reasons
USABLE_TIMEFRAME = r"[1-9]\d*[mhd]"
KEY = b"cmat_download"
COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
Stretch = tuple[int, int]  # from and to (exclusive), epoch milliseconds


def open_exchange(name: str) -> ccxt.Exchange:
    """Exchange by its name in ccxt, with ccxt's rate limit; a CmatError if it is unknown, or offers no candles."""
    import ccxt  # takes a second

    if name not in ccxt.exchanges:
        raise CmatError(f"--exchange: ccxt knows no exchange '{name}'{_like(name, ccxt.exchanges)}")
    # Proxies and certificates come from the environment.
    options = {"enableRateLimit": True, "requests_trust_env": True, "enableLastJsonResponse": True, "timeout": 20_000}
    exchange = getattr(ccxt, name)(options)
    if not exchange.has["fetchOHLCV"]:
        raise CmatError(f"--exchange: {name} offers no candles; choose another one, such as binance, kraken or bybit")
    return exchange


@dataclass
class DownloadFile:
    """Candles of one symbol as they are being downloaded."""

    path: Path
    source: dict[str, str]  # ``exchange``, ``symbol``, ``timeframe``
    # Time for which the exchange has answered, ascending, apart: what no candle fills there was never traded.
    asked: list[Stretch] = field(default_factory=list)
    # `COLUMNS`, ascending; ``timestamp`` is the candle's open, datetime64[ms, UTC]
    candles: pd.DataFrame = field(default_factory=lambda: _frame([]))
    new: int = 0  # candles that this download added
    _rows: list[list] = field(default_factory=list)
    _changed: bool = False

    @classmethod
    def open(cls, path: Path, source: dict[str, str]) -> Self:
        """The file on disk, or an empty one; a CmatError if it is no download, damaged, or of another `source`."""
        if not path.exists():
            return cls(path, source)
        try:
            table = pq.read_table(path)
            noted = json.loads((table.schema.metadata or {})[KEY])
            asked = [(int(begin), int(end)) for begin, end in noted["asked"]]
            found = {name: noted[name] for name in source}
        except (KeyError, TypeError):
            raise CmatError(f"{path} is not from cmat download; move it away or choose another --data-dir") from None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise CmatError(f"{path}: cannot be read ({error}); remove it and download again") from None
        if found != source:
            has, wanted = (" ".join(which.values()) for which in (found, source))
            raise CmatError(f"{path} has candles of {has}, not of {wanted}; choose another --data-dir")
        return cls(path, source, asked, table.to_pandas())

    def missing(self, start: int, stop: int) -> list[Stretch]:
        """Stretches of time from `start` to `stop` that were not asked for yet, ascending."""
        found, cursor = [], start
        for begin, end in self.asked:
            if cursor < min(begin, stop):
                found.append((cursor, min(begin, stop)))
            cursor = max(cursor, end)
        return [*found, (cursor, stop)] if cursor < stop else found

    def holes(self, bar: int) -> tuple[int, int]:
        """Missing candles of `bar` milliseconds: how many the exchange lacks, and how many nobody asked for."""
        opens = self.candles["timestamp"].dt.as_unit("ms").astype("int64")
        first, stop = int(opens.iloc[0]), int(opens.iloc[-1]) + bar
        spans = [(max(begin, first), min(end, stop)) for begin, end in self.asked if begin < stop and end > first]
        asked = sum(-(-(end - first) // bar) + -(begin - first) // bar for begin, end in spans)  # rounded up, both
        return asked - len(opens), (stop - first) // bar - asked

    def add(self, rows: list[list], begin: int, end: int) -> None:
        """Note that the exchange's whole answer for `begin` to `end` are these rows (open time in ms, OHLC, volume)."""
        self._rows += rows
        self._changed = True
        self.new += len(rows)
        known, self.asked = sorted([*self.asked, (begin, end)]), []
        for start, stop in known:
            if self.asked and start <= self.asked[-1][1]:
                start, before = self.asked.pop()
                stop = max(stop, before)
            self.asked.append((start, stop))

    def save(self) -> None:
        """Write candles and what was asked for, atomically; an unchanged file is left alone, an empty one not made."""
        if not self._changed:
            return
        frames = [frame for frame in (self.candles, _frame(self._rows)) if len(frame)]
        self._rows, self._changed = [], False
        if not frames:
            return
        latest = pd.concat(frames).drop_duplicates("timestamp", keep="last")
        self.candles = latest.sort_values("timestamp", ignore_index=True)
        table = pa.Table.from_pandas(self.candles, preserve_index=False)
        noted = json.dumps({**self.source, "asked": self.asked}).encode()
        table = table.replace_schema_metadata({**table.schema.metadata, KEY: noted})
        with atomic_path(self.path) as temporary:
            pq.write_table(table, temporary, compression="zstd")


def _frame(rows: list[list]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COLUMNS[1:], float))
    times = pd.to_datetime(frame["timestamp"].astype("int64"), unit="ms", utc=True)
    return frame.assign(timestamp=times.dt.as_unit("ms"))


@dataclass(frozen=True)
class Downloader:
    """Downloads candles of one timeframe from one exchange into one folder."""

    exchange: ccxt.Exchange
    timeframe: str  # as in `data.timeframe`
    folder: Path
    waits: Sequence[float] = WAITS  # seconds before each new try of a request; after the last, the download stops
    progress: bool | None = None  # bar; by default only where a terminal watches

    def find_symbols(self, names: Sequence[str]) -> list[str]:
        """Unified symbols for names such as ``BTC/USDT``, ``btc/usdt`` or ``BTCUSDT``; a CmatError for unknown ones."""
        offered = [name for name in self.exchange.timeframes or {} if re.fullmatch(USABLE_TIMEFRAME, name)]
        if self.timeframe not in offered:
            has = f"{self.exchange.id} has no candles of '{self.timeframe}'; it has {', '.join(offered)}"
            raise CmatError(f"--timeframe: {has}")
        markets = self._ask(self.exchange.load_markets)
        # Spot and perpetual may share an id; spot, which is entered last and stays, is what people mean.
        spot_first = sorted(markets, key=lambda symbol: bool(markets[symbol].get("spot")), reverse=True)
        known = {markets[symbol]["id"].upper(): symbol for symbol in spot_first[::-1]} | {s.upper(): s for s in markets}
        for name in names:
            if name.upper() not in known:
                raise CmatError(f"{self.exchange.id} has no symbol '{name}'{_like(name.upper(), list(markets))}")
        return list(dict.fromkeys(known[name.upper()] for name in names))

    def download(self, symbol: str, since: pd.Timestamp, until: pd.Timestamp | None = None) -> DownloadFile:
        """Candles of one symbol that open from `since` to before `until`, added to what its file already has.

        Progress is saved every `SAVE_EVERY` pages and at the end, so the same call goes on from there. Times are UTC,
        `symbol` is unified. Without `until`, up to the newest candle that is finished by the exchange's clock. Raises a
        CmatError if the exchange does not answer or refuses, or the file there is not this download's.
        """
        source = {"exchange": self.exchange.id, "symbol": symbol, "timeframe": self.timeframe}
        file = DownloadFile.open(self.folder / file_name(symbol, self.timeframe), source)
        self._ask(self.exchange.load_markets)  # at once if they are loaded
        bar = self.exchange.parse_timeframe(self.timeframe) * 1000
        now = self._ask(self.exchange.fetch_time) if self.exchange.has["fetchTime"] else None
        # A candle that opens before this moment is finished, by the local clock if the exchange tells no time.
        stop = (now or self.exchange.milliseconds()) - bar + 1
        stop = stop if until is None else min(stop, int(until.timestamp() * 1000))
        stretches = file.missing(int(since.timestamp() * 1000), stop)
        total = sum(end - start for start, end in stretches) // bar
        hidden = None if self.progress is None else not self.progress  # None: unless a terminal watches
        pages = (page for start, end in stretches for page in self._pages(symbol, start, end, bar))
        with tqdm(total=total, desc=symbol, unit=" candles", disable=hidden) as meter:
            try:
                for number, (rows, begin, end) in enumerate(pages, 1):
                    file.add(rows, begin, end)
                    meter.update((end - begin) // bar)
                    if number % SAVE_EVERY == 0:
                        file.save()
            finally:
                file.save()
        return file

    def _pages(self, symbol: str, start: int, stop: int, bar: int) -> Iterator[tuple[list, int, int]]:
        """New rows and the stretch of time that they settle, which is never asked for again.

        An empty page (a later listing, a halt) is passed over only if the exchange says so twice. The last one is not
        settled if it reaches the present, where a candle may only be late.
        """
        limit = self.exchange.feature_value(symbol, "fetchOHLCV", "limit", PAGE) or PAGE
        cursor, quiet = start, False
        while cursor < stop:
            page = self._ask(lambda since=cursor: self.fetch_page(symbol, since, limit))
            if not page:
                time.sleep(0 if quiet else self.waits[0])  # years before a listing are many empty pages: one pause
                page = self._ask(lambda since=cursor: self.fetch_page(symbol, since, limit))
            quiet = not page
            rows = [row for row in page if cursor <= row[0] < stop]
            end = rows[-1][0] + bar if rows else cursor + limit * bar
            whole = [row for row in rows if None not in row[:6]]  # [t, null, …] is a time without a trade
            if lost := len(rows) - len(whole):
                when = pd.Timestamp(cursor, unit="ms")
                logger.warning("%s: %d of %d candles from %s are empty, and gaps", symbol, lost, len(rows), when)
            if rows or end <= stop:
                yield whole, cursor, end
            cursor = end

    def fetch_page(self, symbol: str, since: int, limit: int) -> list[list]:
        """At most `limit` candles from `since` on (milliseconds), as ccxt gives them."""
        import ccxt

        page = self.exchange.fetch_ohlcv(symbol, self.timeframe, since, limit)
        if self.exchange.last_json_response is None:  # cut off on its way; ccxt makes an empty page of it
            raise ccxt.BadResponse("the answer is no JSON")
        return sorted(page)

    def _ask(self, request: Callable[[], Any]) -> Any:
        """Answer to a request; failures that may pass are waited out, as long as the exchange asks for if it does."""
        import ccxt

        name = self.exchange.id
        for wait in (*self.waits, None):
            try:
                return request()
            except (ccxt.OperationFailed, ccxt.RestrictedLocation) as error:
                status, retry_after = _http_answer(error)
                if status in REFUSED or isinstance(error, ccxt.RestrictedLocation):
                    why = f"(HTTP {status or 'error'}), usually because of the country of this computer"
                    advice = "choose another --exchange, or bring files (docs/howto/own-data.md)"
                    raise CmatError(f"{name} refuses requests from here {why}; {advice}") from None
                reason = f"{type(error).__name__}: HTTP {status}" if status else _reason(error)
                if wait is None:
                    advice = "is there a network?" if status is None else "try again later"
                    kept = "What has come is kept; the same command goes on from there"
                    problem = f"{name} did not answer {len(self.waits) + 1} times ({reason})"
                    raise CmatError(f"{problem}: {advice} {kept}") from None
                wait = max(wait, retry_after)
                logger.warning("%s: %s; next try in %g s", name, reason, wait)
                time.sleep(wait)
            except ccxt.BaseError as error:
                raise CmatError(f"{name}: {_reason(error)}") from None


def file_name(symbol: str, timeframe: str) -> str:
    """File for a symbol, a name without any folder: BTC/USDT becomes ``BTCUSDT_15m.parquet``.

    >>> file_name("BTC/USDT", "15m"), file_name("BTC/USDT:USDT", "1h"), file_name("../../x", "1d")
    ('BTCUSDT_15m.parquet', 'BTCUSDT_USDT_1h.parquet', '____x_1d.parquet')
    """
    return f"{re.sub(r'[^A-Za-z0-9-]', '_', symbol.replace('/', ''))}_{timeframe}.parquet"


def _like(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _http_answer(error: Exception) -> tuple[int | None, float]:
    """HTTP status of a failed request and the seconds of its Retry-After; ccxt keeps requests' error as the cause."""
    response = getattr(error.__cause__ or error.__context__, "response", None)
    if response is None:
        return None, 0.0
    seconds = response.headers.get("Retry-After", "")
    return response.status_code, float(seconds) if seconds.isdigit() else 0.0


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
