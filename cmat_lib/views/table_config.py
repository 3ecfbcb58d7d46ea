"""Parameters of a table view: a table of the user's own as an input of the model."""

# ruff: noqa: E501  # one line per parameter reads better than four

from __future__ import annotations

import re
from typing import Annotated, Literal
from zoneinfo import available_timezones

import pandas as pd
from pydantic import Field, field_validator, model_validator

from cmat_lib.schema import Positive, Section

# fmt: off

ENCODERS = ("mlp", "gru", "nbeats")
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
    encoder: Literal["mlp", "gru", "nbeats"] = Field("mlp", description="mlp reads the newest row; gru and nbeats read the last rows")
    rows: Annotated[int, Field(ge=2)] = Field(16, description="rows that gru or nbeats read")
    output_dim: Positive = Field(64, description="length of the view's vector")

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
        if zone is not None and zone not in available_timezones():
            raise ValueError(f"no time zone '{zone}'; write it as America/New_York or UTC")
        return zone

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
