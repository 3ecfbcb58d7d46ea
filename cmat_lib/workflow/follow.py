"""Where predictions go, and candles that are scored as their files grow."""

import os
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path

import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import atomic_path, make_folder, unwritten
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.sources.choice import CandleSource, market_files
from cmat_lib.data.splits import Market
from cmat_lib.workflow.predictor import Live, Predictor

HEAD = b"symbol,timestamp,"  # how a file of predictions begins
Signature = tuple[tuple[int, int], ...]  # size and time of change of each file of a symbol


def write_predictions(scores: pd.DataFrame, output: Path | None) -> None:
    """Write scores to a .parquet or .csv file, whole or not at all; without a file as CSV to the terminal."""
    if output is None:
        sys.stdout.write(scores.to_csv(index=False))
        return
    check_ending(output)
    with atomic_path(output) as temporary:
        write = scores.to_parquet if output.suffix == ".parquet" else scores.to_csv
        write(temporary, index=False)
    print(f"{output}: {len(scores):,} candles of {scores['symbol'].nunique()} symbols")


def check_ending(output: Path) -> None:
    """Raise a CmatError for a file that is neither .parquet nor .csv."""
    if output.suffix not in (".parquet", ".csv"):
        raise CmatError(f"--output {output}: write predictions to a .parquet or a .csv file")


class CsvOutput:
    """CSV lines, appended to a file or sent to the terminal (None) as soon as they are known.

    A file of the same `model` (`Predictor.name`) is continued, but half a line at its end, which a kill can leave, is
    dropped; `last` is the newest candle open of each symbol in it. A CmatError if the file does not end in .csv, cannot
    be read, or holds something else.
    """

    def __init__(self, path: Path | None, model: str):
        if path is not None and path.suffix != ".csv":
            raise CmatError(f"--output {path}: --follow appends line by line, which needs a .csv file")
        self.path, is_there = path, path is not None and path.exists()
        self.last = self._continue(model) if is_there else {}
        self._needs_header = not (is_there and path.stat().st_size)

    def _continue(self, model: str) -> dict[str, pd.Timestamp]:
        """Newest times in a file of ours; only then its half line is dropped, as a file of others stays as it is."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise self._refused(f"cannot be read ({error.strerror})") from None
        whole, last = content[: content.rfind(b"\n") + 1], {}
        if content and not content.startswith(HEAD[: len(content)]):
            raise self._refused("not a file of predictions")
        if whole:
            try:
                known = pd.read_csv(BytesIO(whole), usecols=["symbol", "timestamp", "model"], dtype=str)
                times = pd.to_datetime(known["timestamp"], utc=True)
            except ValueError as error:
                raise self._refused(f"not a file of predictions ({error})") from None
            if known.isna().any(axis=None):
                raise self._refused("a line has no symbol, time or model")
            if others := set(known["model"]) - {model}:
                raise self._refused(f"holds scores of another model ({others.pop()})")
            last = times.groupby(known["symbol"]).max().to_dict()
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        return last

    def _refused(self, why: str) -> CmatError:
        return CmatError(f"{self.path}: {why}; choose another --output")

    def append(self, scores: pd.DataFrame) -> None:
        """Add rows, or raise a CmatError; they are out of this process when this returns."""
        text = scores.to_csv(index=False, header=self._needs_header)
        self._needs_header = False
        if self.path is None:
            print(text, end="", flush=True)
            return
        make_folder(self.path.parent)
        try:
            with open(self.path, "a", encoding="utf-8", newline="") as stream:
                stream.write(text)
        except OSError as error:
            raise unwritten(self.path, error) from None


class Follower:
    """Scores candles as their files grow.

    A candle is scored once its file is at rest (the same at two looks, so that nobody is writing it), if it was over
    when the file was written. One that comes late, into a gap, is scored with those after it. What a file cannot give,
    for a bad row or too few candles, is told once, and the file is read again when it changes.

    `data` is from `Predictor.data`, with a folder; `last` has the last candle open of each symbol that is scored
    already, and symbols that are not in it begin at `first`, by default the newest. `symbols` are to be scored, all by
    default. A CmatError if there is no folder to follow.
    """

    def __init__(
        self,
        predictor: Predictor,
        data: DataConfig,
        first: pd.Timestamp | None,
        last: Mapping[str, pd.Timestamp],
        symbols: Collection[str] | None = None,
    ):
        if data.data_dir is None:
            raise CmatError("--follow needs a folder of files that grow; name it with --data-dir")
        self.predictor, self.data, self.first, self.last, self.symbols = predictor, data, first, dict(last), symbols
        self._start: dict[str, pd.Timestamp] = {}
        self._live: Live = {}
        self._seen: dict[str, Signature] = {}
        self._read: dict[str, Signature] = {}

    def look(self) -> Iterator[pd.DataFrame]:
        """Scores of what is new, a frame for each symbol."""
        try:
            ready = self._at_rest(market_files(self.data))
        except (CmatError, OSError) as error:  # a stray file, or one that is being replaced
            warnings.warn(str(error), stacklevel=2)
            return
        for symbol in ready:
            self._read[symbol] = self._seen[symbol]
            if self.symbols and symbol not in self.symbols:
                continue
            try:
                scores = self._score(symbol)
            except (CmatError, OSError) as error:
                warnings.warn(str(error), stacklevel=2)
                continue
            if len(scores):
                yield scores
                self.last[symbol] = scores["timestamp"].iloc[-1]

    def _at_rest(self, sources: Mapping[str, CandleSource]) -> list[str]:
        """Symbols whose file changed since it was read, not since the last look; if views read others, all or none."""
        beside = _signature(path for view in self.predictor.views for path in view.files(self.predictor.config))
        now = {symbol: _signature(source.paths) + beside for symbol, source in sources.items()}
        resting = [symbol for symbol, signature in now.items() if self._seen.get(symbol) == signature]
        ready = [symbol for symbol in resting if now[symbol] != self._read.get(symbol)]
        self._seen = now
        if self.predictor.reads_others:
            return resting if ready and len(resting) == len(now) else []
        return ready

    def _score(self, symbol: str) -> pd.DataFrame:
        """Scores of a symbol's candles that were over when the file was written and have none yet."""
        market = self._finished(symbol)
        finished = market[symbol]
        if finished.empty:
            return finished
        start = self._start.setdefault(symbol, finished.index[-1] if self.first is None else self.first)
        if symbol in self.last:
            start = self.last[symbol] + self.data.bar
        if finished.index[-1] < start:
            return finished[:0]
        self.predictor.refuse_stale(market, [symbol])
        return self.predictor.scores(market, start, live=self._live, symbols=[symbol])

    def _finished(self, symbol: str) -> Market:
        """Candles that were over when their file was written; of all symbols, up to the same time, if views ask so."""
        data = self.data if self.predictor.reads_others else self.data.model_copy(update={"symbols": [symbol]})
        market = self.predictor.market(data)
        newest = {s: candles.index[-1] for s, candles in market.items() if len(candles)}
        if symbol not in newest or not self.predictor.reads_others:
            return market
        behind = min(newest, key=newest.get)
        if newest[symbol] > newest[behind] + data.bar:
            warnings.warn(f"{behind} has no candle after {newest[behind]}, and all others wait for it", stacklevel=2)
        return {s: candles.loc[: newest[behind]] for s, candles in market.items()}


def _signature(paths: Iterable[Path]) -> Signature:
    return tuple((state.st_size, state.st_mtime_ns) for state in map(Path.stat, paths))
