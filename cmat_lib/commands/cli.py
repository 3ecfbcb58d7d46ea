"""The command ``cmat``."""

import errno
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from cmat_lib import __version__
from cmat_lib.base.errors import CmatError, LocalError, first_line
from cmat_lib.base.parts import load_parts, use_parts
from cmat_lib.commands.ablation.command import ablate
from cmat_lib.commands.audit.command import audit
from cmat_lib.commands.cache import cache_app
from cmat_lib.commands.candles import candles
from cmat_lib.commands.compare import compare
from cmat_lib.commands.doctor import doctor
from cmat_lib.commands.download import download
from cmat_lib.commands.options import add_commands
from cmat_lib.commands.predict import export, predict
from cmat_lib.commands.run import run
from cmat_lib.commands.runs import runs
from cmat_lib.commands.schema import schema
from cmat_lib.commands.sweep.command import sweep
from cmat_lib.commands.train import train

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # wherever a library met them
EPILOG = (
    "First steps: cmat doctor, cmat run params/demo.yaml, cmat runs. Every command has examples in its --help.\n\n"
    "Exit codes: 0 all went well · 1 a mistake in the input or a run that failed, with a message that says what to do"
    " · 2 the command line was not understood · 130 interrupted (Ctrl-C)\n\n"
    "Completion with the Tab key: cmat --install-completion"
)

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown", epilog=EPILOG)


def main() -> None:
    """Entry point: mistakes of the user end with one message and exit code 1, without a traceback."""
    warnings.showwarning = lambda message, *_, **__: _complain(f"warning: {message}")
    # GNU OpenMP's threads spin for milliseconds at every barrier: on a busy CPU that slows training seventeenfold, and
    # tens of microseconds cost nothing on an idle one. Read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        use_parts(*_taken_parts(sys.argv))
        load_parts()
        app()
    except Exception as error:
        if (message := str(error) if isinstance(error, CmatError) else _lack(error)) is None:
            raise
        _complain(message, everywhere=isinstance(error, LocalError))
        sys.exit(1)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(130)


def _lack(error: Exception) -> str | None:
    """Message for an error of the machine, not of the program: no room, no permission, no memory; None for others."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return f"{error.filename or 'a file'} cannot be written: {error.strerror}; make room, and run the command again"
    if isinstance(error, (PermissionError, IsADirectoryError, NotADirectoryError)):
        return f"{error.filename or 'a file'}: {error.strerror}; move away what is there, or make it yours"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # torch's is a RuntimeError on a CPU
        return f"not enough memory ({first_line(error)}); use smaller windows, batches or networks, or fewer candles"
    return None


def _complain(message: str, everywhere: bool = False) -> None:
    """One message on stderr; of several training processes on a machine only the first one tells what all know."""
    if everywhere or os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"cmat: {message}", file=sys.stderr, flush=True)


def _version(asked: bool) -> None:
    if asked:
        print(f"cmat {__version__}")
        raise typer.Exit


def _taken_parts(arguments: list[str]) -> list[str]:
    """Values of --parts, taken out of the arguments wherever they stand: parts are there before any command."""
    found = []
    for place in reversed(range(1, len(arguments))):
        option, equals, value = arguments[place].partition("=")
        if option != "--parts":
            continue
        if not equals:
            if place + 1 == len(arguments):
                raise CmatError("--parts needs a Python file")
            value = arguments.pop(place + 1)
        del arguments[place]
        found.insert(0, value)
    return found


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    parts: Annotated[
        list[Path] | None,
        typer.Option("--parts", help="Python file with parts of your own; before or after a command."),
    ] = None,
) -> None:
    """Three views of a market, fused by attention."""


add_commands(app, run, train, schema, sweep, runs, compare, ablate, candles, download, predict, export, audit, doctor)
app.add_typer(cache_app, name="cache")
