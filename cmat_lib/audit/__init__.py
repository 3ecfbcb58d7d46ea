"""Audit of a finished run: truncate, recompute, compare, and name what differs.

Nothing of the run is trusted but its candles: each check makes its numbers again from the candles that they may know
and compares them with what the run has stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cmat_lib.audit.channels import check_channels
from cmat_lib.audit.knowing import check_single_inputs
from cmat_lib.audit.labels import check_candles, check_labels, check_samples
from cmat_lib.audit.predictions import check_predictions
from cmat_lib.audit.scalers import check_scalers
from cmat_lib.audit.splits import check_split
from cmat_lib.audit.subject import CAUSES, Finding, Report, Subject, open_subject
from cmat_lib.audit.windows import check_complexity, check_topology

__all__ = ["CAUSES", "CHECKS", "Finding", "Report", "Subject", "audit_run", "open_subject"]

CHECKS: dict[str, Callable[[Subject], Report]] = {
    "candles": check_candles,
    "channels": check_channels,
    "topology": check_topology,
    "complexity": check_complexity,
    "labels": check_labels,
    "samples": check_samples,
    "split": check_split,
    "scalers": check_scalers,
    "single inputs": check_single_inputs,
    "predictions": check_predictions,
}


def audit_run(subject: Subject) -> Iterator[tuple[str, Report]]:
    """Name and report of every check, one after the other."""
    for name, check in CHECKS.items():
        yield name, check(subject)
