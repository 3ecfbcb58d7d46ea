"""What an audit looks at: the artefacts of one run and the rows chosen from them; and what it says about them."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.config import Config
from cmat_lib.data.candles import unstack
from cmat_lib.data.channels import channel_of
from cmat_lib.data.sessions import stretch_ids
from cmat_lib.data.splits import Market
from cmat_lib.views import VIEWS, View
from cmat_lib.views.scaling import sample_rows_of
from cmat_lib.workflow.run import Run, open_run
from cmat_lib.workflow.stages.common import read_views

LABEL_COLUMNS = ("trigger", "max_pct", "oracle_probability")  # columns of candles that know the future

# Runs keep float32. Recursive averages forget their start only to 1e-7 of a channel's spread (measured on a year of
# SOL and XRP candles); whatever reads more candles than it may moves by far more than 1e-5 of it.
SHARE_OF_SPREAD = 1e-5
SPREAD_ROWS = 10_000
ROUNDING = 4 * float(np.finfo(np.float32).eps)

# A finished stage is skipped as long as parameters and files are the same; of changed functions it notices parts' own.
AGAIN = "then make the run in a new folder (cmat run ... --run-dir)."

# Cause of a finding -> what it means, and what to do about it.
CAUSES = {
    "future": (
        "The value changes when the candles after its row are taken away: it reads the future, and every score of this "
        "run flatters.",
        f"Make the function read its own row and earlier ones only (a shift must be positive), {AGAIN}",
    ),
    "label": (
        "The value follows a column that is made from the future (trigger, max_pct, oracle_probability).",
        f"Stop the function from reading that column, or take it out of the parameters, {AGAIN}",
    ),
    "look_back": (
        "The value needs more candles than its channel declares; windows, gaps and cmat predict rely on the "
        "declaration. A channel that depends on the price level reads the symbol's first candle.",
        f"Raise the look-back in CHANNELS to what the function reads, {AGAIN}",
    ),
    "window": (
        "The feature was made from another window than the declared candles up to its row.",
        f"Correct what cuts the windows, cmat cache clean, {AGAIN}",
    ),
    "batch": (
        "The indicator's value depends on the other windows that are computed with it, later ones among them.",
        f"Make each row of the result depend on its own row of returns only, cmat cache clean, {AGAIN}",
    ),
    "stored": (
        "The stored value is not what today's code makes of the run's own candles: the code has changed since, a cache "
        "was trusted that holds something else, or the file was altered.",
        f"If it is a feature of windows, cmat cache clean; {AGAIN}",
    ),
    "border": (
        "The row's label ends after the next part has begun: the part before knows what the part after is asked.",
        f"Purge such rows, as assign_parts in cmat_lib/data/splits.py does, {AGAIN}",
    ),
    "embargo": (
        "The row's inputs reach back into an earlier stretch of a part that it must not know.",
        f"Leave out the rows whose inputs do not lie behind that stretch, as assign_parts does, {AGAIN}",
    ),
    "overlap": (
        "The row is in a part to which the fold gives another time, or it has no label.",
        f"Split by time, all symbols at once, {AGAIN}",
    ),
    "selection": (
        "The row is left out, and not for the reason that its part names: scores over chosen rows can say anything.",
        f"Leave out what assign_parts leaves out and nothing else, {AGAIN}",
    ),
    "scaler": (
        "Centre or scale is not that of the training rows: the inputs carry knowledge of other rows.",
        f"Fit scalers on the rows whose part is train, {AGAIN}",
    ),
    "suspicious": (
        "This input alone ranks the triggers of the test part better than any honest one could, or is a label.",
        "Find out how it knows; a column of the candle files that it reads may be made from the future.",
    ),
    "published": (
        "Rows of a table are shown to candles before they were published.",
        f"Correct lag, zone or time of the table in the section views, or the file, {AGAIN}",
    ),
    "early": (
        "A table knows what candles do next, more than any honest one could: it seems to be joined too early.",
        f"Find out when its rows are published, and correct lag and zone of the table in the section views, {AGAIN}",
    ),
    "prediction": (
        "The stored model, given the candles up to the row alone, does not say what the run says.",
        "If no other check has a finding, the model or the predictions were replaced: train and evaluate again.",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing that should not be."""

    cause: str  # key of `CAUSES`
    feature: str  # channel, feature, label column, part or scaler
    symbol: str = ""
    time: pd.Timestamp | None = None  # candle open of the first differing row, of those that were looked at
    stored: Any = ""  # what the run says there
    recomputed: Any = ""  # what it should say
    detail: str = ""  # how many rows differ, and what is known about the cause


class Report(NamedTuple):
    """Result of one check: what it looked at, and what it found; if ``skipped``, why it looked at nothing."""

    looked_at: str
    findings: Sequence[Finding] = ()
    skipped: bool = False


@dataclass(frozen=True)
class Subject:
    """A run under audit."""

    run: Run
    market: Market
    labels: dict[str, pd.DataFrame]
    samples: pd.DataFrame
    numbers: dict[str, np.ndarray]  # of each view, (R, F)
    rows: int = 200  # of each symbol to look at
    seed: int = 0  # of the choice of rows

    @property
    def config(self) -> Config:
        return self.run.config

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Row of each symbol's first candle among those of all symbols."""
        ends = np.cumsum([len(candles) for candles in self.market.values()]).tolist()
        return dict(zip(self.market, [0, *ends[:-1]], strict=True))

    @cached_property
    def views(self) -> list[View]:
        """Those that the run has computed."""
        return VIEWS.active(self.config)

    @cached_property
    def channels(self) -> np.ndarray:
        """Numbers of the view that has a row per candle, (ΣT, C)."""
        return next(self.numbers[view.name] for view in self.views if view.by_candle)

    def at_samples(self, view: View) -> np.ndarray:
        """Newest numbers of a view at each sample, (N, F)."""
        return self.numbers[view.name][sample_rows_of(view, self.samples)]

    @cached_property
    def runs(self) -> dict[str, np.ndarray]:
        """Number of the gap-free stretch of every candle, by symbol."""
        return {symbol: stretch_ids(candles, self.config.data.bar) for symbol, candles in self.market.items()}

    @cached_property
    def hidden(self) -> Market:
        """The candles with other numbers in the columns that know the future."""
        return {symbol: _without_labels(candles) for symbol, candles in self.market.items()}

    @cached_property
    def candle_rows(self) -> pd.DataFrame:
        """Candles to look at: ``symbol``, ``timestamp``, ``local_row``, ``row``; chosen ones, and look-backs' ends.

        The first complete rows of a gap-free stretch are where something that looks across a gap shows.
        """
        frames = []
        for symbol, candles in self.market.items():
            chosen = np.union1d(self._choose(np.arange(len(candles))), self._choose(self._borders(symbol)))
            places = {"timestamp": candles.index[chosen], "local_row": chosen, "row": chosen + self.offsets[symbol]}
            frames.append(pd.DataFrame({"symbol": symbol, **places}))
        return pd.concat(frames, ignore_index=True)

    @cached_property
    def sample_rows(self) -> pd.DataFrame:
        """Samples to look at, a part of `samples`: chosen ones, and the first and last of each gap-free stretch."""
        chosen = []
        for symbol, frame in self.samples.groupby("symbol", sort=False):
            runs = self.runs[symbol][frame["local_row"]]
            border = np.flatnonzero((np.diff(runs, prepend=-1) != 0) | (np.diff(runs, append=-1) != 0))
            chosen.append(frame.iloc[np.union1d(self._choose(np.arange(len(frame))), self._choose(border))])
        return pd.concat(chosen)

    def _choose(self, numbers: np.ndarray) -> np.ndarray:
        if len(numbers) <= self.rows:
            return numbers
        inner = np.random.default_rng(self.seed).choice(numbers[1:-1], max(self.rows - 2, 0), replace=False)
        return np.union1d(inner, numbers[[0, -1]])

    def _borders(self, symbol: str) -> np.ndarray:
        """Rows at which a look-back becomes complete, and those just before, in every gap-free stretch."""
        starts = np.flatnonzero(np.diff(self.runs[symbol], prepend=-1))
        look_backs = np.unique([channel_of(name).look_back for name in self.config.data.channel_names])
        rows = np.unique(starts[:, None, None] + look_backs[:, None] + np.array([-2, -1]))
        return rows[(rows >= 0) & (rows < len(self.runs[symbol]))]

    def end(self, symbol: str, time: pd.Timestamp) -> int:
        """Number of candles of a symbol up to the one that opens at `time`, it included."""
        return int(self.market[symbol].index.searchsorted(time, side="right"))

    def has(self, stage: str) -> bool:
        """Whether a stage is finished."""
        return self.run.record(stage) is not None


def open_subject(folder: str, rows: int = 200, seed: int = 0) -> Subject:
    """A run folder; a CmatError if it is none, or its stages 01 and 02 are not finished, or damaged or edited."""
    run = open_run(folder, "06_attention_visualization")
    for stage in ("01_data_prep", "02_tda_cache"):
        if run.record(stage) is None:
            raise CmatError(f"{folder}: stage {stage} is not finished; run notebooks/{stage}.ipynb or `cmat run` first")
    market, labels = (unstack(run.read_frame(f"data/{name}.parquet")) for name in ("candles", "labels"))
    samples = run.read_frame("data/samples.parquet").reset_index(drop=True)
    return Subject(run, market, labels, samples, read_views(run.config, run), rows, seed)


def _without_labels(candles: pd.DataFrame) -> pd.DataFrame:
    """Other, still finite numbers in each label column, so that whoever reads it gives another value."""
    return candles.assign(**{name: 1.0 - candles[name].fillna(0.0) for name in LABEL_COLUMNS if name in candles})


def differs(stored: np.ndarray, again: np.ndarray, spread: np.ndarray | float) -> np.ndarray:
    """Where two numbers are not the same but for rounding; NaN is equal to NaN, and infinity to nothing but itself.

    `spread` is that of the feature, see the function `spread`.
    """
    stored, again = np.asarray(stored, np.float64), np.asarray(again, np.float64)
    allowed = SHARE_OF_SPREAD * spread + ROUNDING * np.abs(stored)
    with np.errstate(invalid="ignore"):
        close = np.isfinite(stored) & (np.abs(stored - again) <= allowed)
    return ~(close | (stored == again) | (np.isnan(stored) & np.isnan(again)))


def spread(values: np.ndarray) -> np.ndarray:
    """Interquartile range of each column, its standard deviation where that is 0, of evenly spaced rows, shape (n,).

    Of the finite values alone; of a column without any it is NaN.
    """
    values = np.asarray(values[:: max(1, len(values) // SPREAD_ROWS)], np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns without a finite value
        low, high = np.nanpercentile(values, [25, 75], axis=0)
        return np.where(high > low, high - low, np.nanstd(values, axis=0))


def earliest(rows: pd.DataFrame) -> pd.Series:
    """First of some rows in time."""
    return rows.iloc[int(rows["timestamp"].argmin())]


def differing(cause: str, name: str, rows: pd.DataFrame, wrong: np.ndarray, what: str) -> Iterator[Finding]:
    """Finding of column `name`, which should be ``<name>_again``, at the earliest of the rows that are wrong."""
    if wrong.any():
        row, detail = earliest(rows[wrong]), f"{wrong.sum()} of {len(rows)} rows {what}"
        yield Finding(cause, name, row["symbol"], row["timestamp"], row[name], row[f"{name}_again"], detail)


def odd_rows(feature: str, stored: pd.DataFrame, right: pd.DataFrame, what: str) -> Iterator[Finding]:
    """Findings of rows, by symbol and time, that are stored twice, or not and should be, or the other way round."""
    keys = ["symbol", "timestamp"]
    both = right[keys].merge(stored[keys].drop_duplicates(), how="outer", on=keys, indicator="where")
    for rows, found, wanted in (
        (stored[stored.duplicated(keys)], "twice", "once"),
        (both[both["where"] == "left_only"], "not there", "there"),
        (both[both["where"] == "right_only"], "there", "not there"),
    ):
        if len(rows):
            row = earliest(rows)
            yield Finding("stored", feature, row["symbol"], row["timestamp"], found, wanted, f"{len(rows)} {what}")
