"""Writes the table of faults and outcomes into docs/reliability.md.

    python -m pytest tests/faults --junitxml=faults.xml
    python tests/faults/report.py faults.xml

Several files may be given; the table says what their tests have seen.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/reliability.md"
BEGIN, END = "<!-- table: written by tests/faults/report.py -->", "<!-- end of the table -->"


def rows(paths: Iterable[str]) -> dict[str, dict]:
    """Fault -> cases, kills, failures and the outcome that its tests demand."""
    found: dict[str, dict] = {}
    for path in paths:
        for case in ET.parse(path).iter("testcase"):
            noted = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
            if "fault" not in noted:
                if case.find("failure") is not None or case.find("error") is not None:
                    raise SystemExit(f"{path}: {case.get('name')} failed; mend that first")
                continue
            row = found.setdefault(noted["fault"], {"cases": 0, "kills": 0, "outcome": noted["outcome"]})
            row["cases"] += 1
            row["kills"] += int(noted.get("kills", 0))
    return found


def table(found: dict[str, dict]) -> str:
    """Markdown table."""
    lines = ["| fault | cases | kills | what comes of it |", "|---|---:|---:|---|"]
    for fault, row in sorted(found.items()):
        lines.append(f"| {fault} | {row['cases']} | {row['kills'] or ''} | {row['outcome']} |")
    total = sum(row["kills"] for row in found.values())
    return "\n".join([*lines, "", f"{total} processes were killed at work."])


def main(paths: list[str]) -> None:
    """Replace the table in the page."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{table(rows(paths))}\n\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
