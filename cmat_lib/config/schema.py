"""The schema: every parameter of CMAT, typed and in twelve sections.

A section is a frozen pydantic model. Types are strict (a YAML ``yes`` is no number, ``1e-3`` without a dot is text), unknown
keys are errors, and an impossible combination is one too. Nothing here imports torch or giotto-tda.
"""

from __future__ import annotations

import itertools
import math
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

# One line per parameter reads better than four.
# fmt: off

PRICE_CHANNELS = ("log_open", "log_high", "log_low", "log_close")
VOLUME_CHANNELS = ("volume_zscore", "volume_ratio", "obv_change", "vwap_distance", "mfi")
TECHNICAL_CHANNELS = ("rsi", "macd", "bollinger", "atr", "roc")
TAKER_SWAP = {"obv_change": "taker_imbalance", "mfi": "trade_size"}
COMPLEXITY_INDICATORS = ("permutation_entropy", "sample_entropy", "spectral_entropy", "lempel_ziv", "dfa_exponent", "higuchi_dimension")
SOURCE_MODALITIES = ("nbeats", "tda", "complexity")  # the views of the source document; all views stand in cmat_lib.views
AUXILIARY_TARGETS = ("log_volatility", "log_range", "log_rise", "log_fall")
STACK_TYPES = ("trend", "seasonality", "generic")


def _as_utc(value: Any) -> Any:
    """Dates come as dates from YAML and as text from papermill and the command line; both mean midnight UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        try:
            value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        except OverflowError:  # hours before the year 1 or after 9999
            raise ValueError(f"{value} is no time in UTC") from None
    return value


def _as_switch(value: Any) -> Any:
    """YAML reads ``on`` and ``off`` as truth values."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def known_zone(zone: str) -> str:
    """The name of a time zone itself, if there is one of that name."""
    if zone not in available_timezones():
        raise ValueError(f"no time zone '{zone}'; write it as America/New_York or UTC")
    return zone


Positive = Annotated[int, Field(ge=1)]
Depth = Annotated[int, Field(ge=1, le=100)]  # more would only take long to refuse
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what every library takes, with room for what is added to it
Share = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
UtcTime = Annotated[datetime, BeforeValidator(_as_utc)]
Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_as_switch)]


class Section(BaseModel):
    """Base of all sections: strict types, no unknown keys, no change after validation."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _fits_into_a_file(cls, value: Any) -> Any:
        """YAML has numbers of any length; tables do not, and Python writes none of more than 4,300 digits."""
        if isinstance(value, int) and value >= 2**63:
            raise ValueError(f"whole numbers end at {2**63 - 1}")
        return value


class DataConfig(Section):
    """Where candles come from, which channels are made of them, and how time is split."""

    data_dir: str | None = Field(None, description="folder with one CSV, Parquet or Feather file per symbol; null is the synthetic market")
    symbols: list[str] | None = Field(None, description="symbols to use; null is every file in the folder")
    timeframe: str = Field("15m", pattern=r"^[1-9]\d{0,5}[mhd]$", description="length of a candle: 1m to 1d")
    since: UtcTime | None = Field(None, description="first candle open (UTC) to use")
    until: UtcTime | None = Field(None, description="candles from this open (UTC) on are not used")
    file_zone: str = Field("UTC", description="time zone of times in candle files that bring none, such as a broker's")
    columns: dict[str, str] = Field({}, description="names in the files that no guess finds, {timestamp: trade_date, volume: Vol.}; cmat candles shows what is found")
    time_format: str | None = Field(None, min_length=1, description="form of the times as strptime writes it, such as %d/%m/%Y %H:%M; null: seen from the file")
    encoding: str | None = Field(None, description="encoding of text files, such as gb18030; null: seen from the file")
    decimal: Literal[".", ","] | None = Field(None, description="decimal mark; null: seen from the file")
    thousands: Literal[",", ".", " ", "'"] | None = Field(None, description="mark between thousands; null: seen from the file")
    stamp: Literal["open", "close"] = Field("open", description="whether the times in the files are those at which candles open or close")
    clock_zone: str = Field("UTC", description="time zone of hour and weekday, for the clock modality and sessions; America/New_York follows its daylight saving")
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
        if unknown := [name for name in columns if not re.fullmatch(r"[a-z][a-z0-9_]*", name)]:
            raise ValueError(f"'{unknown[0]}' is no name of a column here; write timestamp, clock, symbol, open, high, low, close, volume, or one that a channel reads")
        return columns

    def __hash__(self) -> int:
        """Of the values, lists too, so that what was read is remembered by how it was told to be read."""
        return hash(self.model_dump_json())

    @model_validator(mode="after")
    def _marks_differ(self) -> DataConfig:
        if self.decimal is not None and self.decimal == self.thousands:
            raise ValueError("decimal and thousands are the same mark")
        return self

    @field_validator("file_zone", "clock_zone")
    @classmethod
    def _zone_exists(cls, zone: str) -> str:
        return known_zone(zone)

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
    def _times_are_ordered(self) -> DataConfig:
        marks = [t for t in (self.since, *(self.split_dates or []), self.until) if t is not None]
        if any(a >= b for a, b in itertools.pairwise(marks)):
            raise ValueError("since, the three split_dates and until must be in ascending order")
        return self

    @model_validator(mode="after")
    def _fold_exists(self) -> DataConfig:
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
    def _workers_are_told(self) -> CacheConfig:
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
    def first(self) -> TdaConfig:
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
    def _window_holds_the_embedding(self) -> TdaConfig:
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
    def _ranges_fit(self) -> ComplexityConfig:
        if sorted(set(self.ranges)) != self.ranges:
            raise ValueError("ranges must be ascending and distinct")
        if self.ranges and self.ranges[-1] > self.window_size:
            raise ValueError(f"ranges lists {self.ranges[-1]} candles, more than window_size {self.window_size}")
        return self

    @model_validator(mode="after")
    def _window_is_long_enough(self) -> ComplexityConfig:
        span = (self.permutation_order - 1) * self.permutation_delay + 1
        needed = 1 + max(span, self.sample_order + 2, 2 * self.higuchi_kmax)
        if self.window_size < needed:
            raise ValueError(f"window_size {self.window_size} is too short for these orders, delays and kmax (at least {needed})")
        return self


RESERVED = ("time", "symbol")  # columns of what is read
SPAN = re.compile(r"(\d+(\.\d+)?\s*[A-Za-z]+\s*)+")
LONGEST = pd.Timedelta(36_525, unit="D")  # times after the year 2262 are more nanoseconds than pandas counts


def as_span(text: str) -> pd.Timedelta:
    """Length of time that is written with its units, such as 16h15m or 1d.

    Raises
    ------
    ValueError
        If it is written otherwise, is negative, or longer than a century.
    """
    how = "write it with its units, as 1d, 16h15m or 0h"
    if not SPAN.fullmatch(text.strip()):
        raise ValueError(f"'{text}' is no length of time; {how}")
    try:
        span = pd.Timedelta(re.sub(r"(?<=[\d\s])d(?![a-z])", "D", text.strip()))  # pandas gives up the small d
    except ValueError:
        raise ValueError(f"'{text}' is no length of time; {how}") from None
    if not span <= LONGEST:
        raise ValueError(f"'{text}' is longer than a century")
    return span


class TableConfig(Section):
    """A table whose rows are joined to candles as of their close, less the lag."""

    file: str = Field(min_length=1, description="CSV or Parquet file, or a pattern such as funding/*.csv; relative paths start at the project root")
    columns: list[str] = Field(min_length=1, description="columns of numbers to use, by their names in the file")
    time: str | None = Field(None, description="column of times; null is the only one that reads as times")
    symbol: str | None = Field(None, description="column of symbols; null is one named symbol, if there is one; a table without one is the same for all symbols")
    zone: str | None = Field(None, description="time zone of times that bring none, such as America/New_York; null: the times must bring theirs")
    lag: str = Field(description="how long after its time a row is known, such as 16h15m or 1d; 0h if the times are those of publication")
    look_back: str = Field("30d", description="span of the mean and deviation of the z-score")
    stale: str | None = Field(None, description="a row that has been known for longer is as good as missing; null: a row holds until the next")
    encoder: str = Field("mlp", description="mlp reads the newest row; gru, nbeats, or one of your own, read the last rows")
    rows: Annotated[int, Field(ge=2)] = Field(16, description="rows that gru or nbeats read")

    @property
    def lag_span(self) -> pd.Timedelta:
        """How long after its time a row is known."""
        return as_span(self.lag)

    @property
    def look_back_span(self) -> pd.Timedelta:
        """Span of the z-score."""
        return as_span(self.look_back)

    @property
    def stale_span(self) -> pd.Timedelta | None:
        """Age beyond which a row is as good as missing."""
        return None if self.stale is None else as_span(self.stale)

    @property
    def is_sequence(self) -> bool:
        """Whether the encoder reads several rows."""
        return self.encoder != "mlp"

    @property
    def feature_names(self) -> list[str]:
        """Names of the numbers that the encoder reads of each row."""
        own = ("", "_change", "_zscore") if self.is_sequence else ("", "_change", "_zscore", "_age")
        names = [f"{column}{ending}" for column in self.columns for ending in own]
        return [*names, "gap"] if self.is_sequence else names

    @field_validator("lag", "look_back", "stale")
    @classmethod
    def _is_a_span(cls, text: str | None) -> str | None:
        if text is not None:
            as_span(text)
        return text

    @field_validator("look_back", "stale")
    @classmethod
    def _lasts(cls, text: str | None) -> str | None:
        if text is not None and as_span(text) <= pd.Timedelta(0):
            raise ValueError(f"'{text}' must be longer than 0")
        return text

    @field_validator("zone")
    @classmethod
    def _zone_exists(cls, zone: str | None) -> str | None:
        return zone if zone is None else known_zone(zone)

    @field_validator("columns")
    @classmethod
    def _columns_are_distinct(cls, columns: list[str]) -> list[str]:
        if len(set(columns)) < len(columns):
            raise ValueError("a column is listed twice")
        if taken := [name for name in columns if name in RESERVED]:
            raise ValueError(f"a column of numbers cannot be named '{taken[0]}'; rename it in the file")
        return columns

    @model_validator(mode="after")
    def _columns_have_one_use(self) -> TableConfig:
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
    def _names_are_plain(self) -> ViewsConfig:
        if odd := [name for name in self.tables if not re.fullmatch(r"[a-z][a-z0-9_]*", name)]:
            raise ValueError(f"'{odd[0]}' is no name of a view; write it in small letters, digits and _")
        return self


class FusionConfig(Section):
    """How the tokens of the modalities meet."""

    fusion_type: str = Field("cross_modal_attention", description="cross_modal_attention, bottleneck, gated or concat (an entry of the fusion registry)")
    tokens: Literal["modality", "fine"] = Field("modality", description="modality: one token each; fine: one for each N-BEATS stack, each group of topology features (curve and summary of H0 and H1), and complexity")
    hidden_dim: Positive = Field(256, description="token width (D)")
    num_heads: Positive = Field(8, description="attention heads (h)")
    num_layers: Depth = Field(2, description="transformer layers")
    ffn_dim: Positive = Field(1024, description="width of the feed-forward part")
    dropout: Rate = Field(0.1, description="dropout of the fusion")
    use_cls_token: bool = Field(False, description="cross_modal_attention: read a [CLS] token instead of the mean of all tokens")
    bottleneck_tokens: Positive = Field(4, description="bottleneck: tokens through which the modalities meet")
    output_dim: Positive = Field(256, description="must equal hidden_dim")

    @model_validator(mode="after")
    def _widths_fit(self) -> FusionConfig:
        if self.hidden_dim % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide hidden_dim {self.hidden_dim}")
        if self.output_dim != self.hidden_dim:
            raise ValueError(f"output_dim {self.output_dim} must equal hidden_dim {self.hidden_dim}")
        return self


NBEATS_ATTENTION_HEADS = 8  # the N-BEATS attention block has eight heads over one token per stack


class ModelConfig(Section):
    """Encoders."""

    model_type: Literal["cross_modal_attention"] = Field("cross_modal_attention", description="the source's name of the model")
    modalities: list[str] = Field([*SOURCE_MODALITIES], min_length=1, description="views that the model sees: nbeats, tda, complexity, clock (hour and weekday), market (the other symbols), flow (takers and trades), or a table of the section views; of the first three, one that is not listed gets a learned constant (other fusions than cross_modal_attention leave it out)")
    nbeats_hidden_size: Positive = Field(1024, description="width of the N-BEATS encoder output")
    nbeats_num_stacks: Depth = Field(4, description="stacks; must match nbeats_stack_types")
    nbeats_stack_types: list[Literal[STACK_TYPES]] = Field(["trend", "seasonality", "generic", "generic"], description="basis of each stack")
    nbeats_num_blocks: Depth = Field(6, description="blocks per stack")
    nbeats_num_layers: Depth = Field(6, description="fully connected layers per block")
    nbeats_block_width: Positive = Field(128, description="width inside a block")
    use_attention: bool = Field(True, description="self-attention over the stacks' outputs")
    tda_encoder_dim: Positive = Field(256, description="width of the TDA encoder output")
    complexity_encoder_dim: Positive = Field(64, description="width of the complexity encoder output")
    clock_encoder_dim: Positive = Field(64, description="width of the clock encoder output")
    view_encoder_dim: Positive = Field(64, description="width of the encoder output of every other view")
    encoder_dropout: Rate = Field(0.1, description="dropout inside the encoders")
    auxiliary_head: bool = Field(False, description="forecast volatility, range, rise and fall of the horizon too, and read trigger and max_pct off these forecasts")

    @model_validator(mode="after")
    def _stacks_fit(self) -> ModelConfig:
        if len(self.nbeats_stack_types) != self.nbeats_num_stacks:
            raise ValueError(
                f"nbeats_num_stacks is {self.nbeats_num_stacks}, nbeats_stack_types lists {len(self.nbeats_stack_types)}"
            )
        parts = self.nbeats_num_stacks * (NBEATS_ATTENTION_HEADS if self.use_attention else 1)
        if self.nbeats_hidden_size % parts:
            raise ValueError(
                f"nbeats_hidden_size {self.nbeats_hidden_size} must be a multiple of {parts} (stacks times attention heads)"
            )
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError("a view is listed twice in modalities")
        return self


class TrainingConfig(Section):
    """Loss, optimiser and the training loop."""

    batch_size: Positive = Field(2048, description="samples per forward pass, over all devices")
    gradient_accumulation_steps: Positive = Field(4, description="forward passes per optimiser step")
    epochs: Positive = Field(500, description="largest number of epochs")
    early_stopping_patience: Positive = Field(30, description="epochs without a better stop part before training ends")
    early_stopping_metric: Literal["loss", "roc_auc"] = Field("loss", description="what better means on the stop part; it also picks the best epoch")
    learning_rate: Annotated[float, Field(gt=0)] = Field(0.0005, description="encoders, projections and heads")
    transformer_learning_rate: Annotated[float, Field(gt=0)] = Field(0.0003, description="transformer layers")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="AdamW; not on biases, norms, positions")
    warmup_share: Rate = Field(0.05, description="share of the optimiser steps that warm up; cosine after")
    gradient_clip: Annotated[float, Field(gt=0)] = Field(1.0, description="largest gradient norm")
    freeze_encoder_epochs: Annotated[int, Field(ge=0)] = Field(0, description="first epochs in which the encoders do not learn")
    loss: str = Field("multi_task", description="multi_task (focal loss and squared error), or one of your own")
    focal_gamma: Annotated[float, Field(ge=0)] = Field(2.0, description="focusing exponent of the focal loss")
    positive_weight: Literal["balanced"] | Annotated[float, Field(gt=0)] = Field("balanced", description="weight of triggers; balanced is negatives over positives in training")
    max_pct_clip_quantile: Annotated[float, Field(gt=0.5, le=1)] = Field(0.995, description="max_pct is clipped at this training quantile in the loss")
    task_weighting: Literal["fixed", "learned"] = Field("fixed", description="learned: homoscedastic uncertainty weights")
    trigger_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="fixed weight of the trigger loss")
    max_pct_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="fixed weight of the max_pct loss")
    auxiliary_weight: Annotated[float, Field(gt=0)] = Field(1.0, description="weight of the loss of the auxiliary head, if the model has one")
    ema_decay: Rate = Field(0.0, description="the model that is judged and kept is a moving average of the weights over the steps, with this decay; 0 is none")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto is the first GPU, else the CPU")
    mixed_precision: Switch = Field("auto", description="bf16 where the chip has it, else fp16 with loss scaling; auto is off on a CPU")
    compile: Switch = Field("auto", description="torch.compile; auto is off on a CPU")
    cudnn_benchmark: Switch = Field("auto", description="cuDNN benchmark mode; auto is off on a CPU. It buys nothing here: the model has no convolutions")
    tf32: Switch = Field("auto", description="TF32 matrix products; auto is off on a CPU")
    determinism: Literal["fast", "strict"] = Field("fast", description="strict asks torch for deterministic kernels")
    devices: Positive = Field(1, description="GPUs (or processes on a CPU) per node; batch_size is shared among all of them")
    num_nodes: Positive = Field(1, description="machines; the same command is started on each")
    resume: bool = Field(False, description="go on from last.pt if a training with the same parameters was killed or interrupted")

    @model_validator(mode="after")
    def _some_task_counts(self) -> TrainingConfig:
        if self.trigger_weight == 0 and self.max_pct_weight == 0:
            raise ValueError("trigger_weight and max_pct_weight are both 0: nothing would be learned")
        if self.task_weighting == "learned" and 0 in (self.trigger_weight, self.max_pct_weight):
            raise ValueError("task_weighting 'learned' starts at the two weights, and one of them is 0; use 'fixed'")
        if self.freeze_encoder_epochs >= self.epochs:
            raise ValueError(f"freeze_encoder_epochs {self.freeze_encoder_epochs} must be below epochs {self.epochs}")
        return self


class EvaluationConfig(Section):
    """Scores and their intervals."""

    calibration: Literal["isotonic", "temperature"] = Field("isotonic", description="from raw score to probability; temperature: slope and bias on the logit")
    top_shares: list[Share] = Field([0.01, 0.02, 0.05], min_length=1, description="precision, recall and lift are also given among these shares of the highest scores; what acting on them would have returned, too")
    cost_pct: Annotated[float, Field(ge=0)] = Field(0.2, description="fees and spread of one round trip (buy and sell), in percent")
    bootstrap_samples: Annotated[int, Field(ge=50)] = Field(500, description="resamples of the block bootstrap")
    block_horizons: Annotated[int, Field(ge=7)] = Field(7, description="bootstrap block length, in horizons")
    confidence: Share = Field(0.95, description="coverage of the intervals")
    batch_size: Positive = Field(4096, description="samples per forward pass")

    @field_validator("top_shares")
    @classmethod
    def _shares_ascend(cls, shares: list[float]) -> list[float]:
        if sorted(set(shares)) != shares:
            raise ValueError("top_shares must be ascending and distinct")
        return shares


class ExplainConfig(Section):
    """Attention maps, and what stands beside them."""

    max_samples: Positive = Field(20000, description="test samples whose maps are kept, evenly spaced in time")
    attribution_samples: Positive = Field(2000, description="of these, samples for Shapley values, permutations and controls, evenly spaced in time")
    absent_draws: Annotated[int, Field(ge=0)] = Field(32, description="training samples that stand in for absent modalities in Shapley values; 0: their mean embedding")
    permutations: Annotated[int, Field(ge=2)] = Field(3, description="draws of every permutation of inputs")
    other_runs: list[str] = Field([], description="run folders of the same data with another seed, as controls")
    batch_size: Positive = Field(2048, description="samples per forward pass")


class LoggingConfig(Section):
    """Where models go inside the run folder and how much is said."""

    save_dir: str = Field("models/cross_modal_attention", description="inside the run folder")
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="log level")
    mlflow: bool | Annotated[str, Field(min_length=1)] = Field(False, description="log finished runs to MLflow too: true (MLFLOW_TRACKING_URI, else mlflow.db beside the run folders) or a tracking URI")

    @field_validator("save_dir")
    @classmethod
    def _stays_inside_the_run(cls, save_dir: str) -> str:
        path = Path(save_dir)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in save_dir:
            raise ValueError("save_dir must be a relative path inside the run folder")
        return save_dir

    @field_validator("mlflow")
    @classmethod
    def _holds_no_password(cls, mlflow: bool | str) -> bool | str:
        if isinstance(mlflow, str) and re.search(r"://[^/]+@", mlflow):
            raise ValueError("leave name and password out of this file, which is copied into every run; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        return mlflow


class Config(Section):
    """All parameters of a run: two keys and twelve sections."""

    run_dir: str = Field("outputs/demo", description="run folder; relative paths start at the project root")
    seed: Seed = Field(0, description="seed of everything from training on")
    data: DataConfig = DataConfig()
    labels: LabelsConfig = LabelsConfig()
    cache: CacheConfig = CacheConfig()
    tda: TdaConfig = TdaConfig()
    complexity: ComplexityConfig = ComplexityConfig()
    views: ViewsConfig = ViewsConfig()
    fusion: FusionConfig = FusionConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    explain: ExplainConfig = ExplainConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _sections_fit_together(self) -> Config:
        if self.labels.source == "file" and self.data.data_dir is None:
            raise ValueError(
                "labels.source is 'file' but data.data_dir is null: the synthetic market has no label columns"
            )
        return self


SECTIONS = tuple(
    name
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
)
