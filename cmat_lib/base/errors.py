"""The one exception that users are meant to see: it names what is wrong and says what to do."""

import difflib
from collections.abc import Iterable


class CmatError(ValueError):
    """A mistake in the input, the parameters or the order of work; commands print it without a traceback."""


class LocalError(CmatError):
    """An error that only one of several training processes may have met, so that this one has to tell."""


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line; its type if it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


def nearest(name: str, valid: Iterable[str]) -> str:
    """End of an error message: the valid name that is nearest to `name`, or all of them."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; valid names are {', '.join(valid)}"
