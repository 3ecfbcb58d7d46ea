"""Options that several commands have, and what their texts mean."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmat_lib.base.errors import CmatError
from cmat_lib.config import merge, parse_assignment

if TYPE_CHECKING:
    import pandas as pd

Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one parameter; may be repeated.")
]
RunDir = Annotated[str | None, typer.Option("--run-dir", help="Run folder; by default outputs/NAME for NAME.yaml.")]


def assign(assignments: list[str] | None, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """Raw parameters `base` with all ``--set`` laid over them, in order."""
    return reduce(merge, map(parse_assignment, assignments or []), base or {})


def utc_time(text: str, option: str) -> pd.Timestamp:
    """Moment that a text means, in UTC unless it says otherwise.

    Raises
    ------
    CmatError
        Naming the option, if the text is no time.
    """
    import pandas as pd

    try:
        time = pd.Timestamp(text)
    except ValueError:
        time = pd.NaT
    if time is pd.NaT:
        raise CmatError(f"{option}: '{text}' is no time; write it as 2023-01-01 or 2023-01-01T06:00")
    return time.tz_localize("UTC") if time.tz is None else time.tz_convert("UTC")
