"""``cmat doctor`` and ``cmat audit``: is everything here that a run needs; do its numbers know more than they may."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmat_lib.commands.options import Assignments


def doctor(
    params: Annotated[
        Path | None, typer.Option("--params", help="Parameter file of a planned run: look at its data and memory too.")
    ] = None,
    assignments: Assignments = None,
) -> None:
    """Check Python, packages, machine, folders, data, topology, model and notebook kernel; say how to mend each.

    Exit code 1 if there is a problem; a warning is none. Takes half a minute.
    """
    from cmat_lib.commands.cli import run_config
    from cmat_lib.commands.doctor.examination import examine, one_line, worst

    config = run_config(params, assignments, None) if params or assignments else None
    findings = []
    for finding in examine(config):
        findings.append(finding)
        print(f"{finding.state:<8} {finding.check:<16} {one_line(finding.text)}", flush=True)
        if finding.mend:
            print(f"{'':<25} mend: {finding.mend}", flush=True)
    if (state := worst(findings)) == "problem":
        print("\nThere are problems; the lines above say how to mend them.")
        raise typer.Exit(1)
    print("\nAll is well." if state == "ok" else "\nThis works; look at the warnings.")


def audit(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder such as outputs/demo.")],
    rows: Annotated[int, typer.Option(min=2, help="Rows of each symbol that are computed anew.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of rows.")] = 0,
) -> None:
    """Look for leaks in a run: cut the candles at a row, compute again, compare, and name what differs.

    Looks at channels and every other view (your own too), tables, labels, split, scalers, inputs that know too much
    and, if the run has them, predictions. Exit code 0: nothing found; 1: findings, each with its feature, row and
    meaning.
    """
    from cmat_lib.commands.audit import audit_run, open_subject

    subject = open_subject(run, rows, seed)
    found = []
    try:
        for name, report in audit_run(subject):
            verdict = "skipped" if report.skipped else f"FOUND {len(report.findings)}" if report.findings else "ok"
            print(f"{name:<14} {verdict:<9} {report.looked_at}", flush=True)
            found += [(name, finding) for finding in report.findings]
    finally:  # a check that cannot go on must not take away what the others have found
        if found:
            print(_table(found), _meanings(finding.cause for _, finding in found), sep="\n")
    if found:
        raise typer.Exit(1)
    print("\nnothing found")


def _table(found: list) -> str:
    """Findings one below the other; times are candle opens in UTC."""
    lines = []
    for check, finding in found:
        where = f"{finding.symbol} {finding.time:%Y-%m-%d %H:%M}" if finding.time is not None else "whole run"
        lines.append(f"\n{check}: {finding.feature} ({finding.cause}), first at {where}")
        if finding.stored != "":
            lines.append(f"    stored {_text(finding.stored)}, should be {_text(finding.recomputed)}")
        lines.append(f"    {finding.detail}")
    return "\n".join(lines)


def _text(value: object) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _meanings(causes) -> str:
    from cmat_lib.commands.audit import CAUSES

    lines = [f"\n{cause}: {CAUSES[cause][0]}\n    What to do: {CAUSES[cause][1]}" for cause in dict.fromkeys(causes)]
    return "\n".join(lines)
