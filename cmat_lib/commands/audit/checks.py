"""Audit of a finished run: truncate, recompute, compare, and name what differs.

Nothing of the run is trusted but its candles: each check makes its numbers again from the candles that they may know
and compares them with what the run has stored.
"""

from collections.abc import Callable, Iterator
from functools import partial

from cmat_lib.commands.audit.knowing import check_single_inputs
from cmat_lib.commands.audit.labels import check_candles, check_labels, check_samples
from cmat_lib.commands.audit.predictions import check_predictions
from cmat_lib.commands.audit.scalers import check_scalers
from cmat_lib.commands.audit.splits import check_split
from cmat_lib.commands.audit.subject import Report, Subject
from cmat_lib.commands.audit.table_leaks import check_tables
from cmat_lib.commands.audit.values import check_channels, check_view

Check = Callable[[Subject], Report]


def checks(subject: Subject) -> dict[str, Check]:
    """All checks of a run by name: those of candles and labels, and one of each view that has a row per sample."""
    found: dict[str, Check] = {"candles": check_candles, "channels": check_channels}
    others = {"tables": check_tables} if any(v.name in subject.config.views.tables for v in subject.views) else {}
    others |= {"labels": check_labels, "samples": check_samples, "split": check_split, "scalers": check_scalers}
    others |= {"single inputs": check_single_inputs, "predictions": check_predictions}
    for view in (view for view in subject.views if not view.by_candle):
        name = view.title.lower()
        name = f"view {view.name}" if name in found or name in others else name  # no check may hide another one
        found[name] = partial(check_view, view=view)
    return found | others


def audit_run(subject: Subject) -> Iterator[tuple[str, Report]]:
    """Name and report of every check, one after the other."""
    return ((name, check(subject)) for name, check in checks(subject).items())
