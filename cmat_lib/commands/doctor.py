"""``cmat doctor``: what has to be right before work starts: environment, machine, folders, data, and three self-tests.

The self-tests, ten seconds of work, touch what most often breaks: compiled topology, torch, the notebook kernel.
"""

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import numpy as np
import psutil
import typer
from packaging.requirements import Requirement
from packaging.version import Version

import cmat_lib
from cmat_lib.base.errors import CmatError
from cmat_lib.commands.options import Assignments, examples, run_config
from cmat_lib.config import Config, project_root, resolve_path

PYTHONS = ("3.11", "3.12")  # giotto-tda has no wheels for others
INSTALL = 'pip install -c constraints.txt -e ".[dev]"'
LITTLE_DISK, LITTLE_MEMORY = 5e9, 4e9  # bytes; below, work may end in the middle
FLOAT32 = 1e-6  # giotto-tda computes in single precision: 6e-8 of the largest distance, here below 10
KERNEL = "python3"


@examples("cmat doctor", "cmat doctor --params params/crypto_15m.yaml --set data.data_dir=/path/to/candles")
def doctor(
    params: Annotated[
        Path | None, typer.Option("--params", help="Parameter file of a planned run: look at its data and memory too.")
    ] = None,
    assignments: Assignments = None,
) -> None:
    """Check Python, packages, machine, folders, data, topology, model and notebook kernel; say how to mend each.

    Exit code 1 if there is a problem; a warning is none. Takes half a minute.
    """
    config = run_config(params, assignments, None) if params or assignments else None
    states = set()
    for found in examine(config):
        states.add(found.state)
        print(f"{found.state:<8} {found.check:<16} {' '.join(found.text.split())}", flush=True)
        if found.mend:
            print(f"{'':<25} mend: {found.mend}", flush=True)
    if "problem" in states:
        print("\nThere are problems; the lines above say how to mend them.")
        raise typer.Exit(1)
    print("\nThis works; look at the warnings." if "warning" in states else "\nAll is well.")


class Diagnosis(NamedTuple):
    """One line of the report."""

    state: str  # ok, warning or problem
    text: str
    mend: str = ""
    check: str = ""

    @classmethod
    def of(cls, is_well: bool, text: str, mend: str, otherwise: str = "warning") -> Self:
        """That something is well, or how to mend it."""
        return cls("ok", text) if is_well else cls(otherwise, text, mend)


def examine(config: Config | None) -> Iterator[Diagnosis]:
    """All diagnoses, one by one as they are made.

    Of the run that is planned, folders, data and model are looked at; without one, the defaults' folders and nothing
    of data.
    """
    chosen = config or Config()
    checks: dict[str, Callable[[], Iterator[Diagnosis]]] = {"python": check_python, "packages": check_packages}
    checks |= {"machine": partial(check_machine, chosen), "memory": partial(check_memory_for, config)}
    checks |= {"disk": partial(check_folders, chosen)} | ({"data": partial(check_data, config)} if config else {})
    checks |= {"topology": check_topology, "model": partial(check_model, chosen), "notebook kernel": check_kernel}
    for name, check in checks.items():
        try:
            for found in check():
                yield found._replace(check=name)
        except CmatError as error:
            yield Diagnosis("problem", str(error), check=name)
        except Exception as error:  # whatever is broken here, the other checks can still say something
            yield Diagnosis("problem", f"{type(error).__name__}: {error}", INSTALL, name)


def check_python() -> Iterator[Diagnosis]:
    """Whether this Python can hold the packages."""
    known = ".".join(platform.python_version_tuple()[:2]) in PYTHONS
    text = f"{platform.python_version()} on {platform.platform(terse=True)}"
    yield Diagnosis.of(known, text, f"use Python {' or '.join(PYTHONS)}", "problem")


def check_packages() -> Iterator[Diagnosis]:
    """Installed packages against what is required, and against the tested set where constraints.txt is at hand."""
    required = [Requirement(text) for text in metadata.requires("cmat") or []]
    needed = [item for item in required if item.marker is None or item.marker.evaluate({"extra": ""})]
    if broken := [text for text in map(_shortfall, needed) if text]:
        yield Diagnosis("problem", "; ".join(broken), INSTALL)
    path = project_root() / "constraints.txt"
    if not path.is_file():
        yield Diagnosis("ok", "within the required ranges; no constraints.txt here to compare with the tested set")
        return
    tested = dict(line.split("==") for line in path.read_text(encoding="utf-8").split() if "==" in line)
    installed = {name: version for name in tested if (version := _installed(name)) is not None}
    # A build for another device (2.13.0+cpu) is the same version.
    other = [name for name in installed if Version(installed[name]).public != Version(tested[name]).public]
    listed = ", ".join(f"{name} {installed[name]} (tested: {tested[name]})" for name in other[:6])
    more = f" and {len(other) - 6} more" if len(other) > 6 else ""
    text = f"other versions than the tested ones: {listed}{more}"
    yield Diagnosis.of(not other, text if other else f"{len(installed)} packages, all in the tested versions", INSTALL)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _shortfall(item: Requirement) -> str | None:
    version = _installed(item.name)
    if version is None:
        return f"{item.name} is not installed"
    fits = item.specifier.contains(version, prereleases=True)
    return None if fits else f"{item.name} {version}, needed {item.specifier}"


def check_machine(config: Config) -> Iterator[Diagnosis]:
    """Cores and GPU."""
    import torch

    from cmat_lib.training.devices import make_fabric

    make_fabric(config.training)  # says what is wrong if a GPU is asked for that is not there
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    yield Diagnosis("ok", f"{cores} CPU cores, {', '.join(names) or 'no GPU: training runs on the CPU'}")


def check_memory_for(config: Config | None) -> Iterator[Diagnosis]:
    """Free memory, and whether a training batch of the parameters fits."""
    free = psutil.virtual_memory().available
    if config is not None:
        from cmat_lib.training.devices import pick_device, processes
        from cmat_lib.training.memory import check_memory, memory_need

        training = config.training
        check_memory(config, pick_device(training), training.batch_size, processes(training))
        need = memory_need(config).total(training.batch_size // processes(training))
        yield Diagnosis("ok", f"a batch of {training.batch_size} needs about {need / 1e9:.2g} GB")
    mend = "close other programs, or use a larger data.stride"
    yield Diagnosis.of(free > LITTLE_MEMORY, f"{free / 1e9:.1f} GB free", mend)


def check_folders(config: Config) -> Iterator[Diagnosis]:
    """Room and write rights where runs and the feature cache go."""
    for key, folder in {"run_dir": Path(config.run_dir).parent, "cache.dir": config.cache.dir}.items():
        path = resolve_path(folder)
        there = next(place for place in (path, *path.parents) if place.exists())
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            yield Diagnosis("problem", f"{there}: cannot be written to ({error.strerror})", f"choose another {key}")
            continue
        free = shutil.disk_usage(there).free
        text = f"{path} can be written to, {free / 1e9:.0f} GB free"
        yield Diagnosis.of(free > LITTLE_DISK, text, f"make room, or choose another {key}")


def check_data(config: Config) -> Iterator[Diagnosis]:
    """The candles as page 01 would find them."""
    from cmat_lib.views.samples import check_length
    from cmat_lib.workflow.stages.data import audit_candles, load_candles, read_candles

    raw = read_candles(config)
    for symbol, candles in load_candles(config, raw).items():
        check_length(symbol, candles, config)
    table = audit_candles(config, raw)
    source, count = config.data.data_dir or "synthetic market", f"{table['rows'].sum():,}"
    span = f"{table['from'].min():%Y-%m-%d} to {table['to'].max():%Y-%m-%d}"
    yield Diagnosis("ok", f"{source}: {len(table)} symbols, {count} candles of {config.data.timeframe}, {span}")
    for column, what in {"missing_candles": "candles are missing", "extreme_candles": "candles are extreme"}.items():
        if found := {symbol: int(count) for symbol, count in table[column].items() if count}:
            named = ", ".join(f"{symbol} {count:,}" for symbol, count in list(found.items())[:4])
            more = f" and {len(found) - 4} more symbols" if len(found) > 4 else ""
            yield Diagnosis("warning", f"{what}: {named}{more}", "page 01 shows them; no window crosses a gap")


def check_topology() -> Iterator[Diagnosis]:
    """Whether our exact engine and giotto-tda find the same diagrams."""
    from cmat_lib.tda import rips_diagrams, takens_embedding

    walk = np.random.default_rng(0).normal(size=200).cumsum()
    cloud = takens_embedding((walk - walk.mean()) / walk.std(), 2, 12)  # (P, 2)
    started = time.perf_counter()
    ours = rips_diagrams(cloud, "planar")
    seconds = time.perf_counter() - started
    for dimension, (found, right) in enumerate(zip(ours, rips_diagrams(cloud, "giotto"), strict=True)):
        ordered = np.sort(found, axis=0), np.sort(right, axis=0)
        if found.shape != right.shape or not np.allclose(*ordered, rtol=0, atol=FLOAT32):
            mend = "remove the folders __pycache__ in cmat_lib (compiled kernels), and try again"
            text = f"the engines planar and giotto disagree in H{dimension} of {len(cloud)} points"
            yield Diagnosis("problem", text, mend)
            return
    bars = " and ".join(f"{len(bars)} bars of H{n}" for n, bars in enumerate(ours))
    took = f"in {len(cloud)} points ({seconds:.1f} s, compilation included)"
    yield Diagnosis("ok", f"planar equals giotto: {bars} {took}")


def check_model(config: Config) -> Iterator[Diagnosis]:
    """Whether the model of the parameters is built, answers, and gets gradients, on the device of the training."""
    import torch

    from cmat_lib.models import build_model, input_shapes
    from cmat_lib.training.devices import pick_device

    device = pick_device(config.training)
    model = build_model(config).to(device).train()
    shapes, generator = input_shapes(config), torch.Generator().manual_seed(0)
    inputs = {name: torch.rand(8, *shape, generator=generator).to(device) for name, shape in shapes.items()}
    answers = model.answers(inputs)
    torch.cat([answer.flatten() for answer in answers if answer is not None]).square().mean().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if gradients and all(bool(gradient.isfinite().all()) for gradient in gradients):
        yield Diagnosis("ok", f"{model.get_num_parameters()[0]:,} parameters, forward and backward on {device}")
    else:
        text = f"gradients on {device} are missing or not finite"
        yield Diagnosis("problem", text, "reinstall torch for this machine")


def check_kernel() -> Iterator[Diagnosis]:
    """Whether the kernel that pages run in starts, and is this Python with this CMAT."""
    import nbformat
    from nbclient import NotebookClient

    cell = nbformat.v4.new_code_cell("import sys, cmat_lib\nprint(sys.executable, cmat_lib.__file__, sep='\\n')")
    page = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(page, kernel_name=KERNEL, timeout=60, extra_arguments=["--log-level=ERROR"]).execute()
    python, library = (Path(line).resolve() for line in page.cells[0].outputs[0].text.splitlines())
    own = Path(sys.executable).resolve(), Path(cmat_lib.__file__).resolve()
    text = f"the kernel '{KERNEL}' is {python} with {library}, not {own[0]} with {own[1]}"
    mend = f"{sys.executable} -m ipykernel install --sys-prefix --name {KERNEL}"
    good = f"'{KERNEL}' runs pages in {sys.executable}"
    yield Diagnosis("ok", good) if (python, library) == own else Diagnosis("problem", text, mend)
