"""Timing that survives a machine which does other things too: rounds in which all variants take turns."""

from __future__ import annotations

import time
from collections.abc import Callable

import pandas as pd
import torch


def synchronise(device: torch.device) -> None:
    """Wait for what a GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(
    variants: dict[str, Callable[[], object]], device: torch.device, rounds: int, calls: int = 1, warm_up: int = 1
) -> pd.DataFrame:
    """Seconds per call, one row per round and one column per variant: A B C, A B C, ...

    Whatever slows the machine down for a while meets all variants alike. The smallest number of a column says what the
    machine can do, the median what it did.
    """
    for _ in range(warm_up):
        for function in variants.values():
            function()
    rows = []
    for _ in range(rounds):
        rows.append({name: seconds_per_call(function, device, calls) for name, function in variants.items()})
    return pd.DataFrame(rows)


def seconds_per_call(function: Callable[[], object], device: torch.device, calls: int) -> float:
    """Seconds of wall clock per call, the GPU's work included."""
    synchronise(device)
    began = time.perf_counter()
    for _ in range(calls):
        function()
    synchronise(device)
    return (time.perf_counter() - began) / calls


class Laps:
    """Time of the parts of something, summed by name; what `measured` gets back is what the part computed."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, {}

    def measured(self, name: str, function: Callable, *arguments):
        """Result of ``function(*arguments)``; its time is added to `name`."""
        synchronise(self.device)
        began = time.perf_counter()
        result = function(*arguments)
        synchronise(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
        return result
