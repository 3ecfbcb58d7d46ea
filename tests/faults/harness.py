"""Processes that are killed, and what they leave: the machinery of the fault tests."""

from __future__ import annotations

import multiprocessing
import signal
import time
from pathlib import Path

import torch

# Children start from a process that has imported everything and done nothing: quickly, and without our threads.
CONTEXT = multiprocessing.get_context("forkserver")
# (Python 3.11 does not tell it where the tests' own modules are; those are small.)
CONTEXT.set_forkserver_preload(
    [f"cmat_lib.workflow.{name}" for name in ("stages.training", "notebooks", "ledger", "follow")]
    + ["cmat_lib.data.sources.exchange"]
)


def _child(scenario, folder: Path, begun) -> None:
    torch.set_num_threads(1)
    begun.set()
    scenario.work(folder)


def start(scenario, folder: Path):
    """The work of a scenario in a process of its own, which has just begun."""
    folder.mkdir(exist_ok=True)
    begun = CONTEXT.Event()
    process = CONTEXT.Process(target=_child, args=(scenario, folder, begun))
    process.start()
    if not begun.wait(120):
        raise TimeoutError("the process of the work has not started")
    return process


def undisturbed(scenario, folder: Path) -> tuple[float, object]:
    """Seconds that the work takes, and its result."""
    process = start(scenario, folder)
    began = time.monotonic()
    process.join()
    assert process.exitcode == 0, f"{scenario.name} failed; its traceback is above"
    scenario.check(folder)
    return time.monotonic() - began, scenario.result(folder)


def kill(scenario, folder: Path, seconds: float) -> bool:
    """Start the work, kill it after `seconds` and check what is there; whether it was still at work."""
    process = start(scenario, folder)
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), f"{scenario.name} failed; its traceback is above"
    scenario.check(folder)
    return process.exitcode == -signal.SIGKILL
