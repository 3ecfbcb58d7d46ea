"""What the benchmarks share: progress, the machine in one line, tables as Markdown."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pandas as pd


def say(line: str) -> None:
    """Progress, at once."""
    print(line, flush=True)


def machine(packages: tuple[str, ...]) -> str:
    """Date, processor, cores and versions, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = [f"{name} {_version(name)}" for name in packages]
    processor = names[0] if names else platform.processor() or platform.machine()
    return (
        f"{datetime.now(UTC):%Y-%m-%d} · {processor}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()} · {', '.join(versions)}"
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def markdown(table: pd.DataFrame, formats: dict[str, str], default: str = "{}") -> str:
    """A table as Markdown; a named index comes first."""
    table = table.reset_index() if table.index.name else table
    cells = [[formats.get(n, default).format(value) for n, value in row.items()] for row in table.to_dict("records")]
    header = list(table.columns)
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [header, ["---"] * len(header), *cells])
