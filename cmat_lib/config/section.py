"""What sections of parameters are made of: their base, and the types of their values."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

import pandas as pd
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

_SPAN = re.compile(r"(\d+(\.\d+)?\s*[A-Za-z]+\s*)+")
_LONGEST_SPAN = pd.Timedelta(36_525, unit="D")  # times after the year 2262 are more nanoseconds than pandas counts


def as_span(text: str) -> pd.Timedelta:
    """Length of time written with its units, such as 16h15m or 1d; a ValueError for others, and beyond a century."""
    problem = f"'{text}' is no length of time; write it with its units, as 1d, 16h15m or 0h"
    if not _SPAN.fullmatch(text.strip()):
        raise ValueError(problem)
    try:
        span = pd.Timedelta(re.sub(r"(?<=[\d\s])d(?![a-z])", "D", text.strip()))  # pandas gives up the small d
    except ValueError:
        raise ValueError(problem) from None
    if not span <= _LONGEST_SPAN:
        raise ValueError(f"'{text}' is longer than a century")
    return span


def _is_span(text: str) -> str:
    as_span(text)
    return text


def _lasts(text: str) -> str:
    if as_span(text) <= pd.Timedelta(0):
        raise ValueError(f"'{text}' must be longer than 0")
    return text


def _is_zone(zone: str) -> str:
    if zone not in available_timezones():
        raise ValueError(f"no time zone '{zone}'; write it as America/New_York or UTC")
    return zone


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


Positive = Annotated[int, Field(ge=1)]
Depth = Annotated[int, Field(ge=1, le=100)]  # more would only take long to refuse
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what every library takes, with room for what is added to it
Share = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
UtcTime = Annotated[datetime, BeforeValidator(_as_utc)]
Zone = Annotated[str, AfterValidator(_is_zone)]
Span = Annotated[str, AfterValidator(_is_span)]
LastingSpan = Annotated[str, AfterValidator(_lasts)]
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
