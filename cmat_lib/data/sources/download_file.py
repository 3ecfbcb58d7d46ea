"""One downloaded Parquet file: candles, and in its metadata where they are from and which time was asked for."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import atomic_path

KEY = b"cmat_download"
COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
Stretch = tuple[int, int]  # from and to (exclusive), epoch milliseconds


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
