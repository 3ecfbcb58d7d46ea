"""``cmat audit``: do the numbers of a run know more than they may."""

from typing import Annotated

import typer

from cmat_lib.commands.options import examples


@examples("cmat audit outputs/demo", "cmat audit outputs/demo --rows 1000 --seed 1")
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
    from cmat_lib.commands.audit.checks import audit_run
    from cmat_lib.commands.audit.subject import open_subject

    found, subject = [], open_subject(run, rows, seed)
    try:
        for name, report in audit_run(subject):
            verdict = "skipped" if report.skipped else f"FOUND {len(report.findings)}" if report.findings else "ok"
            print(f"{name:<14} {verdict:<9} {report.looked_at}", flush=True)
            found += [(name, finding) for finding in report.findings]
    finally:  # a check that cannot go on must not take away what the others have found
        if found:
            print(_table(found))
    if found:
        raise typer.Exit(1)
    print("\nnothing found")


def _table(found: list) -> str:
    """Findings one below the other (times are candle opens in UTC), then what their causes mean."""
    from cmat_lib.commands.audit.subject import CAUSES

    lines = []
    for check, finding in found:
        where = f"{finding.symbol} {finding.time:%Y-%m-%d %H:%M}" if finding.time is not None else "whole run"
        lines.append(f"\n{check}: {finding.feature} ({finding.cause}), first at {where}")
        if finding.stored != "":
            values = (f"{v:.7g}" if isinstance(v, float) else v for v in (finding.stored, finding.recomputed))
            lines.append("    stored {}, should be {}".format(*values))
        lines.append(f"    {finding.detail}")
    for cause in dict.fromkeys(finding.cause for _, finding in found):
        meaning, mend = CAUSES[cause]
        lines.append(f"\n{cause}: {meaning}\n    What to do: {mend}")
    return "\n".join(lines)
