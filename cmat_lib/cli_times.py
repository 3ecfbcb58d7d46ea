"""Times on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmat_lib.errors import CmatError

if TYPE_CHECKING:
    import pandas as pd


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
