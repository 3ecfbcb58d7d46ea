"""Sections of what the model is shown: candles, labels, the cache, and the views computed from candles and tables."""
# One line per parameter reads better than four.
# fmt: off

import itertools
import math
import re
from typing import Annotated, Literal, Self

import pandas as pd
from pydantic import ConfigDict, Field, field_validator, model_validator

from cmat_lib.config.section import LastingSpan, Positive, Section, Seed, Share, Span, UtcTime, Zone, as_span

OHLC = ("open", "high", "low", "close")  # the columns of prices
PRICE_CHANNELS = tuple(f"log_{price}" for price in OHLC)
VOLUME_CHANNELS = ("volume_zscore", "volume_ratio", "obv_change", "vwap_distance", "mfi")
TECHNICAL_CHANNELS = ("rsi", "macd", "bollinger", "atr", "roc")
TAKER_SWAP = {"obv_change": "taker_imbalance", "mfi": "trade_size"}
COMPLEXITY_INDICATORS = ("permutation_entropy", "sample_entropy", "spectral_entropy", "lempel_ziv", "dfa_exponent", "higuchi_dimension")
NAME = r"[a-z][a-z0-9_]*"  # of a column or view here


class DataConfig(Section):
    """Where candles come from, which channels are made of them, and how time is split."""

    data_dir: str | None = Field(None, description="folder with one CSV, Parquet or Feather file per symbol; null is the synthetic market")
    symbols: list[str] | None = Field(None, description="symbols to use; null is every file in the folder")
    timeframe: str = Field("15m", pattern=r"^[1-9]\d{0,5}[mhd]$", description="length of a candle: 1m to 1d")
    since: UtcTime | None = Field(None, description="first candle open (UTC) to use")
    until: UtcTime | None = Field(None, description="candles from this open (UTC) on are not used")
    file_zone: Zone = Field("UTC", description="time zone of times in candle files that bring none, such as a broker's")
    columns: dict[str, str] = Field({}, description="names in the files that no guess finds, {timestamp: trade_date, volume: Vol.}; cmat candles shows what is found")
    time_format: str | None = Field(None, min_length=1, description="form of the times as strptime writes it, such as %d/%m/%Y %H:%M; null: seen from the file")
    encoding: str | None = Field(None, description="encoding of text files, such as gb18030; null: seen from the file")
    decimal: Literal[".", ","] | None = Field(None, description="decimal mark; null: seen from the file")
    thousands: Literal[",", ".", " ", "'"] | None = Field(None, description="mark between thousands; null: seen from the file")
    stamp: Literal["open", "close"] = Field("open", description="whether the times in the files are those at which candles open or close")
    clock_zone: Zone = Field("UTC", description="time zone of hour and weekday, for the clock modality and sessions; America/New_York follows its daylight saving")
    sessions: Literal["continuous", "join"] = Field("continuous", description="join: windows, channels and labels run over regular closures (nights, weekends, holidays), which are read off the candles; continuous: a closure is a gap")
    gaps: Literal["drop", "fill_flat"] = Field("drop", description="missing candles: windows across them are dropped, or they are filled with flat, volume-less candles")
    stride: Positive = Field(1, description="samples are every k-th candle, aligned to the clock")
    sequence_length: Annotated[int, Field(ge=8)] = Field(96, description="candles in the OHLCV window (T)")
    channels: list[str] = Field([*PRICE_CHANNELS, *VOLUME_CHANNELS, *TECHNICAL_CHANNELS], min_length=1, description="input channels in order (C); volume_zscore:168 is that channel over 168 candles")
    volume_channels: Literal["ohlcv", "taker"] = Field("ohlcv", description="taker: signed taker imbalance and log trade size instead of OBV change and MFI")
    split_shares: list[Share] = Field([0.6, 0.1, 0.1, 0.2], min_length=4, max_length=4, description="shares of time for train, stop, calibrate, test")
    split_dates: list[UtcTime] | None = Field(None, min_length=3, max_length=3, description="starts of stop, calibrate, test (UTC); overrides the shares")
    split: Literal["holdout", "walk_forward", "combinatorial"] = Field("holdout", description="one split, a test part that moves forward in time, or every choice of groups of time as the test part")
    folds: Positive = Field(4, description="walk_forward: test intervals in the last part of time; combinatorial: groups of time")
    fold: Annotated[int, Field(ge=0)] = Field(0, description="fold of this run, from 0")
    fold_window: Literal["expanding", "rolling"] = Field("expanding", description="walk_forward: training starts at the first candle, or keeps its length")
    test_groups: Positive = Field(2, description="combinatorial: groups of time that are tested in one fold")
    synthetic_symbols: Positive = Field(4, description="symbols of the synthetic market")
    synthetic_days: Annotated[int, Field(ge=30, le=36_500)] = Field(360, description="days of the synthetic market")
    synthetic_seed: Seed = Field(0, description="seed of the synthetic market")
    synthetic_plant: bool = Field(True, description="plant the interaction; false makes triggers unpredictable")

    @property
    def channel_names(self) -> list[str]:
        """Channels in use, after the taker swap."""
        swap = TAKER_SWAP if self.volume_channels == "taker" else {}
        return [swap.get(name, name) for name in self.channels]

    @property
    def bar(self) -> pd.Timedelta:
        """Length of one candle."""
        unit = {"m": "min", "h": "h", "d": "D"}[self.timeframe[-1]]
        return pd.Timedelta(int(self.timeframe[:-1]), unit=unit)

    @field_validator("timeframe")
    @classmethod
    def _candle_is_short(cls, timeframe: str) -> str:
        """Many candles of centuries are more nanoseconds than pandas counts."""
        if int(timeframe[:-1]) * {"m": 1, "h": 60, "d": 1440}[timeframe[-1]] > 366 * 1440:
            raise ValueError(f"a candle of {timeframe} is longer than a year")
        return timeframe

    @field_validator("columns")
    @classmethod
    def _columns_are_ours(cls, columns: dict[str, str]) -> dict[str, str]:
        if unknown := [name for name in columns if not re.fullmatch(NAME, name)]:
            raise ValueError(f"'{unknown[0]}' is no name of a column here; write timestamp, clock, symbol, open, high, low, close, volume, or one that a channel reads")
        return columns

    def __hash__(self) -> int:
        """Of the values, lists too, so that what was read is remembered by how it was told to be read."""
        return hash(self.model_dump_json())

    @property
    def fold_count(self) -> int:
        """Folds that the split has."""
        return {"holdout": 1, "walk_forward": self.folds, "combinatorial": math.comb(self.folds, self.test_groups)}[self.split]

    @field_validator("split_shares")
    @classmethod
    def _shares_sum_to_one(cls, shares: list[float]) -> list[float]:
        if abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"the four shares must sum to 1, they sum to {sum(shares):g}")
        return shares

    @field_validator("channels")
    @classmethod
    def _channels_are_distinct(cls, channels: list[str]) -> list[str]:
        if len(set(channels)) < len(channels):
            raise ValueError("a channel is listed twice")
        if set(channels) & set(PRICE_CHANNELS) and "log_close" not in channels:
            raise ValueError("price channels are relative to the window's last log_close, which is not listed")
        return channels

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        if self.decimal is not None and self.decimal == self.thousands:
            raise ValueError("decimal and thousands are the same mark")
        marks = [t for t in (self.since, *(self.split_dates or []), self.until) if t is not None]
        if any(a >= b for a, b in itertools.pairwise(marks)):
            raise ValueError("since, the three split_dates and until must be in ascending order")
        if self.split == "combinatorial" and self.test_groups >= self.folds:
            raise ValueError(f"test_groups {self.test_groups} must be below folds {self.folds}: nothing would be left to train on")
        if self.split == "combinatorial" and self.split_dates is not None:
            raise ValueError("split_dates have no meaning with split: combinatorial; use split_shares")
        if self.fold >= self.fold_count:
            raise ValueError(f"fold {self.fold} does not exist: split {self.split} has the folds 0 to {self.fold_count - 1}")
        return self


class LabelsConfig(Section):
    """What is predicted."""

    source: Literal["computed", "file"] = Field("computed", description="file: take trigger and max_pct from the candle files")
    mode: Literal["percent", "sigma", "triple_barrier"] = Field("percent", description="unit and shape of the trigger")
    horizon: Positive = Field(16, description="candles ahead (H)")
    threshold_pct: Annotated[float, Field(gt=0)] = Field(3.0, description="percent: smallest rise that counts as a trigger, in percent")
    threshold_sigma: Annotated[float, Field(gt=0)] = Field(2.0, description="sigma: smallest rise, in trailing volatility times sqrt(H)")
    volatility_window: Annotated[int, Field(ge=2)] = Field(96, description="sigma: log returns that make the trailing volatility (a day of 15 minutes)")
    upper_pct: Annotated[float, Field(gt=0)] = Field(3.0, description="triple_barrier: upper barrier, in percent")
    lower_pct: Annotated[float, Field(gt=0, lt=100)] = Field(3.0, description="triple_barrier: lower barrier, in percent below the close")
    uniqueness_weights: bool = Field(False, description="weigh training samples by the uniqueness of their labels, which matters where samples are unevenly spaced")


class CacheConfig(Section):
    """The cache of features that slide over candles, and who computes what is not in it."""

    dir: str = Field("outputs/cache", description="folder of the cache, shared by all runs")
    jobs: Annotated[int, Field(ge=-1)] = Field(-1, description="worker processes on this machine; -1 is one per core")
    backend: Literal["loky", "dask"] = Field("loky", description="who runs them: joblib itself, or a Dask cluster")
    dask_scheduler: Annotated[str, Field(pattern=r"^(tcp|tls|ws|wss)://.")] | None = Field(None, description="dask: address of a running scheduler, tcp://host:port; null is a cluster of jobs workers here")
    trust: bool = Field(False, description="read an (N, 214) file of older code that has no record beside it")

    @model_validator(mode="after")
    def _workers_are_told(self) -> Self:
        if self.jobs == 0:
            raise ValueError("jobs is 0: give the number of worker processes, or -1 for one per core")
        if self.dask_scheduler is not None and self.backend != "dask":
            raise ValueError(f"dask_scheduler is {self.dask_scheduler}, but backend is {self.backend}; set backend: dask")
        return self


class TdaConfig(Section):
    """Persistent homology of the Takens-embedded log close."""

    window_size: Positive = Field(672, description="candles in the topology window (7 days of 15 minutes)")
    embedding_dim: Annotated[int, Field(ge=2)] = Field(2, description="dimension of the Takens embedding")
    time_delay: Positive = Field(12, description="delay of the Takens embedding, in candles")
    windows: Annotated[list[Positive], Field(min_length=1)] | None = Field(None, description="several windows at once instead of window_size; each gives a feature vector")
    delays: Annotated[list[Positive], Field(min_length=1)] | None = Field(None, description="delay of each of the windows, or one for all, instead of time_delay")
    series: list[Literal["log_close", "log_range", "log_volume"]] = Field(["log_close"], min_length=1, description="what is embedded: log close, log of the candle's range, log of its volume; each gives a feature vector")
    homology_dimensions: list[Literal[0, 1]] = Field([0, 1], min_length=1, description="homology dimensions")
    betti_bins: Annotated[int, Field(ge=2)] = Field(100, description="bins of each Betti curve")
    betti_max: list[Annotated[float, Field(gt=0)]] = Field([0.6, 1.3], description="upper end of the Betti grid per homology dimension, in window standard deviations")
    landscape_layers: Positive = Field(5, description="persistence landscape layers whose L2 norm is a feature")
    engine: Literal["planar", "giotto", "weak_alpha"] = Field("planar", description="planar: exact and fast; giotto: reference; weak_alpha: another filtration, other H1")

    @property
    def scales(self) -> list[tuple[int, int]]:
        """Window and delay of each embedding, in candles."""
        windows, delays = self.windows or [self.window_size], self.delays or [self.time_delay]
        count = max(len(windows), len(delays))
        return list(zip(*(own * count if len(own) == 1 else own for own in (windows, delays)), strict=True))

    @property
    def slides(self) -> bool:
        """Whether a window is made from the last one, and every candle costs next to nothing."""
        return self.engine == "planar" and self.embedding_dim == 2

    @property
    def longest_window(self) -> int:
        """Candles that topology looks back on."""
        return max(window for window, _ in self.scales)

    @property
    def first(self) -> Self:
        """The first scale of the first series by itself: what the pages draw. Its features are the first columns."""
        (window, delay), *_ = self.scales
        alone = {"window_size": window, "time_delay": delay, "windows": None, "delays": None}
        return self.model_copy(update={**alone, "series": self.series[:1]})

    @property
    def features_per_dimension(self) -> int:
        """Numbers per homology dimension: Betti curve, entropy, landscape norms, total persistence."""
        return self.betti_bins + 1 + self.landscape_layers + 1

    @property
    def features_per_scale(self) -> int:
        """Length of the feature vector of one series at one scale; 214 with the defaults."""
        return len(self.homology_dimensions) * self.features_per_dimension

    @property
    def feature_dim(self) -> int:
        """Length of the whole feature vector."""
        return len(self.series) * len(self.scales) * self.features_per_scale

    @model_validator(mode="after")
    def _window_holds_the_embedding(self) -> Self:
        if self.windows and self.delays and 1 != len(self.delays) != len(self.windows) != 1:
            raise ValueError(f"{len(self.windows)} windows and {len(self.delays)} delays do not fit: give one for each, or one for all")
        for window, delay in self.scales:
            if window < (needed := (self.embedding_dim - 1) * delay + 4):
                names = ("windows", "delays") if self.windows or self.delays else ("window_size", "time_delay")
                raise ValueError(f"{names[0]} {window} is shorter than the embedding with {names[1]} {delay} needs (at least {needed} candles)")
        if len(set(self.scales)) < len(self.scales) or len(set(self.series)) < len(self.series):
            raise ValueError("a scale or a series is listed twice")
        if sorted(set(self.homology_dimensions)) != self.homology_dimensions:
            raise ValueError("homology_dimensions must be ascending and distinct")
        if len(self.betti_max) != len(self.homology_dimensions):
            raise ValueError("betti_max needs one value per homology dimension")
        return self


class ComplexityConfig(Section):
    """Complexity measures of the log returns."""

    window_size: Annotated[int, Field(ge=32)] = Field(672, description="candles in the window; one return fewer")
    indicators: list[str] = Field([*COMPLEXITY_INDICATORS], min_length=1, description="indicators in order, from the registry in cmat_lib/data/complexity.py")
    ranges: list[Positive] = Field([], description="the log range (highest high over lowest low) of that many last candles is added to the indicators, for each entry")
    permutation_order: Annotated[int, Field(ge=2, le=7)] = Field(3, description="order of permutation entropy")
    permutation_delay: Positive = Field(1, description="delay of permutation entropy, in candles")
    sample_order: Positive = Field(2, description="m of sample entropy")
    sample_tolerance: Annotated[float, Field(gt=0)] = Field(0.2, description="r of sample entropy, in standard deviations")
    higuchi_kmax: Annotated[int, Field(ge=2)] = Field(10, description="kmax of the Higuchi dimension")

    @property
    def names(self) -> list[str]:
        """Columns of the complexity features: the indicators, then the ranges."""
        return [*self.indicators, *(f"log_range_{candles}" for candles in self.ranges)]

    @model_validator(mode="after")
    def _window_is_long_enough(self) -> Self:
        if sorted(set(self.ranges)) != self.ranges:
            raise ValueError("ranges must be ascending and distinct")
        if self.ranges and self.ranges[-1] > self.window_size:
            raise ValueError(f"ranges lists {self.ranges[-1]} candles, more than window_size {self.window_size}")
        span = (self.permutation_order - 1) * self.permutation_delay + 1
        needed = 1 + max(span, self.sample_order + 2, 2 * self.higuchi_kmax)
        if self.window_size < needed:
            raise ValueError(f"window_size {self.window_size} is too short for these orders, delays and kmax (at least {needed})")
        return self


class TableConfig(Section):
    """A table whose rows are joined to candles as of their close, less the lag."""

    file: str = Field(min_length=1, description="CSV or Parquet file, or a pattern such as funding/*.csv; relative paths start at the project root")
    columns: list[str] = Field(min_length=1, description="columns of numbers to use, by their names in the file")
    time: str | None = Field(None, description="column of times; null is the only one that reads as times")
    symbol: str | None = Field(None, description="column of symbols; null is one named symbol, if there is one; a table without one is the same for all symbols")
    zone: Zone | None = Field(None, description="time zone of times that bring none, such as America/New_York; null: the times must bring theirs")
    lag: Span = Field(description="how long after its time a row is known, such as 16h15m or 1d; 0h if the times are those of publication")
    look_back: LastingSpan = Field("30d", description="span of the mean and deviation of the z-score")
    stale: LastingSpan | None = Field(None, description="a row that has been known for longer is as good as missing; null: a row holds until the next")
    encoder: str = Field("mlp", description="mlp reads the newest row; gru, nbeats, or one of your own, read the last rows")
    rows: Annotated[int, Field(ge=2)] = Field(16, description="rows that gru or nbeats read")

    @property
    def lag_span(self) -> pd.Timedelta:
        return as_span(self.lag)

    @property
    def look_back_span(self) -> pd.Timedelta:
        return as_span(self.look_back)

    @property
    def stale_span(self) -> pd.Timedelta | None:
        return None if self.stale is None else as_span(self.stale)

    @property
    def is_sequence(self) -> bool:
        """Whether the encoder reads several rows."""
        return self.encoder != "mlp"

    @property
    def feature_names(self) -> list[str]:
        """Names of the numbers that the encoder reads of each row."""
        endings = ("", "_change", "_zscore") if self.is_sequence else ("", "_change", "_zscore", "_age")
        names = [f"{column}{ending}" for column in self.columns for ending in endings]
        return [*names, "gap"] if self.is_sequence else names

    @field_validator("columns")
    @classmethod
    def _columns_are_distinct(cls, columns: list[str]) -> list[str]:
        if len(set(columns)) < len(columns):
            raise ValueError("a column is listed twice")
        if taken := [name for name in columns if name in ("time", "symbol")]:
            raise ValueError(f"a column of numbers cannot be named '{taken[0]}'; rename it in the file")
        return columns

    @model_validator(mode="after")
    def _columns_have_one_use(self) -> Self:
        for role in ("time", "symbol"):
            if getattr(self, role) in self.columns:
                raise ValueError(f"'{getattr(self, role)}' is the column of {role}s, and listed in columns")
        if self.time is not None and self.time == self.symbol:
            raise ValueError(f"time and symbol are the same column '{self.time}'")
        names = self.feature_names
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two inputs would be named '{twice[0]}'; rename a column in the file")
        return self


class ViewsConfig(Section):
    """Tables of your own as views: a name and what a table needs, see docs/howto/views.md."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, TableConfig]

    @property
    def tables(self) -> dict[str, TableConfig]:
        """Table of each name."""
        return self.model_extra or {}

    @model_validator(mode="after")
    def _names_are_plain(self) -> Self:
        if odd := [name for name in self.tables if not re.fullmatch(NAME, name)]:
            raise ValueError(f"'{odd[0]}' is no name of a view; write it in small letters, digits and _")
        return self
