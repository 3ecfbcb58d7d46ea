"""What has to be right before work starts: environment, machine, folders, data, and three self-tests.

A check yields findings; one that cannot even run is a problem itself, so that a broken environment is still told apart.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.version import Version

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.doctor import selftest
from cmat_lib.commands.doctor.selftest import Finding
from cmat_lib.config import Config, project_root, resolve_path

PYTHONS = ((3, 11), (3, 12))  # giotto-tda has no wheels for others
INSTALL = 'pip install -c constraints.txt -e ".[dev]"'
LITTLE_DISK, LITTLE_MEMORY = 5e9, 4e9  # bytes; below, work may end in the middle


def examine(config: Config | None) -> Iterator[Finding]:
    """All findings, one by one as they are made.

    Parameters
    ----------
    config : Config, optional
        Parameters of the run that is planned: its folders, data and model are looked at. The defaults' folders and
        nothing of data and memory without it.
    """
    chosen = config or Config()
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": check_python,
        "packages": check_packages,
        "machine": partial(check_machine, chosen),
        "memory": partial(check_memory_for, config),
        "disk": partial(check_folders, chosen),
        **({"data": partial(check_data, config)} if config else {}),
        "topology": selftest.check_topology,
        "model": partial(selftest.check_model, chosen),
        "notebook kernel": selftest.check_kernel,
    }
    for name, check in checks.items():
        try:
            for finding in check():
                yield finding._replace(check=name)
        except Exception as error:  # whatever is broken here, the other checks can still say something
            message = str(error) if isinstance(error, CmatError) else f"{type(error).__name__}: {error}"
            yield Finding(name, "problem", message, "" if isinstance(error, CmatError) else INSTALL)


def check_python() -> Iterator[Finding]:
    """Whether this Python can hold the packages."""
    text = f"{platform.python_version()} on {platform.platform(terse=True)}"
    known = tuple(map(int, platform.python_version_tuple()[:2])) in PYTHONS
    yield Finding("", "ok" if known else "problem", text, "" if known else "use Python 3.11 or 3.12")


def check_packages() -> Iterator[Finding]:
    """Installed packages against what is required, and against the tested set where constraints.txt is at hand."""
    required = [Requirement(text) for text in metadata.requires("cmat") or []]
    broken = [_shortfall(item) for item in required if item.marker is None or item.marker.evaluate({"extra": ""})]
    if broken := [text for text in broken if text]:
        yield Finding("", "problem", "; ".join(broken), INSTALL)
    path = project_root() / "constraints.txt"
    if not path.is_file():
        yield Finding("", "ok", "within the required ranges; no constraints.txt here to compare with the tested set")
        return
    tested = dict(line.split("==") for line in path.read_text(encoding="utf-8").split() if "==" in line)
    installed = {name: version for name in tested if (version := _installed(name)) is not None}
    other = [
        f"{name} {version} (tested: {tested[name]})"
        for name, version in installed.items()
        if _differs(version, tested[name])
    ]
    if other:
        listed = ", ".join(other[:6]) + (f" and {len(other) - 6} more" if len(other) > 6 else "")
        yield Finding("", "warning", f"other versions than the tested ones: {listed}", INSTALL)
    else:
        yield Finding("", "ok", f"{len(installed)} packages, all in the tested versions")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _shortfall(item: Requirement) -> str | None:
    version = _installed(item.name)
    if version is None:
        return f"{item.name} is not installed"
    return (
        None
        if item.specifier.contains(version, prereleases=True)
        else f"{item.name} {version}, needed {item.specifier}"
    )


def _differs(installed: str, tested: str) -> bool:
    """A build for another device (2.13.0+cpu) is the same version."""
    return Version(installed).public != Version(tested).public


def check_machine(config: Config) -> Iterator[Finding]:
    """Cores and GPU."""
    import torch

    from cmat_lib.training.devices import make_fabric

    make_fabric(config.training)  # says what is wrong if a GPU is asked for that is not there
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    yield Finding("", "ok", f"{cores} CPU cores, {', '.join(names) or 'no GPU: training runs on the CPU'}")


def check_memory_for(config: Config | None) -> Iterator[Finding]:
    """Free memory, and whether a training batch of the parameters fits."""
    free = psutil.virtual_memory().available
    if config is not None:
        from cmat_lib.training.devices import pick_device, processes
        from cmat_lib.training.memory import check_memory, memory_need

        training = config.training
        check_memory(config, pick_device(training), training.batch_size, processes(training))
        need = memory_need(config).total(training.batch_size // processes(training))
        yield Finding("", "ok", f"a batch of {training.batch_size} needs about {need / 1e9:.2g} GB")
    state, mend = (
        ("ok", "") if free > LITTLE_MEMORY else ("warning", "close other programs, or use a larger data.stride")
    )
    yield Finding("", state, f"{free / 1e9:.1f} GB free", mend)


def check_folders(config: Config) -> Iterator[Finding]:
    """Room and write rights where runs and the feature cache go."""
    for key, folder in {"run_dir": Path(config.run_dir).parent, "cache.dir": Path(config.cache.dir)}.items():
        path = resolve_path(folder)
        there = next(place for place in (path, *path.parents) if place.exists())
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            yield Finding("", "problem", f"{there}: cannot be written to ({error.strerror})", f"choose another {key}")
            continue
        free = shutil.disk_usage(there).free
        state, mend = ("ok", "") if free > LITTLE_DISK else ("warning", f"make room, or choose another {key}")
        yield Finding("", state, f"{path} can be written to, {free / 1e9:.0f} GB free", mend)


def check_data(config: Config) -> Iterator[Finding]:
    """The candles as page 01 would find them."""
    from cmat_lib.views.samples import check_length
    from cmat_lib.workflow.stages.data import audit_candles, load_candles, read_candles

    raw = read_candles(config)
    for symbol, candles in load_candles(config, raw).items():
        check_length(symbol, candles, config)
    table = audit_candles(config, raw)
    span = f"{table['from'].min():%Y-%m-%d} to {table['to'].max():%Y-%m-%d}"
    source = config.data.data_dir or "synthetic market"
    yield Finding(
        "", "ok", f"{source}: {len(table)} symbols, {table['rows'].sum():,} candles of {config.data.timeframe}, {span}"
    )
    for column, what in {"missing_candles": "candles are missing", "extreme_candles": "candles are extreme"}.items():
        if found := {symbol: int(count) for symbol, count in table[column].items() if count}:
            named = ", ".join(f"{symbol} {count:,}" for symbol, count in list(found.items())[:4])
            more = f" and {len(found) - 4} more symbols" if len(found) > 4 else ""
            yield Finding("", "warning", f"{what}: {named}{more}", "page 01 shows them; no window crosses a gap")


def worst(findings: list[Finding]) -> str:
    """Worst state of all."""
    states = [finding.state for finding in findings]
    return next((state for state in ("problem", "warning") if state in states), "ok")


def one_line(text: str) -> str:
    """Text without line breaks and repeated spaces."""
    return re.sub(r"\s+", " ", text).strip()
