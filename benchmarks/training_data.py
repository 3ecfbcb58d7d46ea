"""Batches by index against a `Dataset` with a `DataLoader`, and the memory of a panel, for ``training.py``.

``python benchmarks/training_data.py 100000`` makes a panel of so many candles in a process of its own and prints what
it took, as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from reporting import say
from timing import seconds_per_call
from torch.utils.data import DataLoader, Dataset, default_collate

from cmat_lib.config import Config, load_config
from cmat_lib.config.inputs import PRICE_CHANNELS
from cmat_lib.config.schema import AUXILIARY_TARGETS
from cmat_lib.data.labels import compute_labels
from cmat_lib.views import VIEWS
from cmat_lib.views.clock import clock_fractions
from cmat_lib.views.panel import CLIP, Panel
from cmat_lib.views.samples import build_samples

CHUNK = 50_000  # rows that are made at a time, so that files larger than memory could be
INDEX, TIMES = "by index", "times as many by index"
PREPARED = 6  # batches taken before the clock starts: workers have up to four ready
Arrays = dict[str, np.ndarray]

# -- a panel of any size -----------------------------------------------------------------------------------------------


def random_samples(candles: int, config: Config, seed: int = 0) -> pd.DataFrame:
    """Samples of one symbol that walks at random, a sample at every candle with whole look-backs."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(0.004 * rng.standard_normal(candles).cumsum())
    index = pd.date_range("1990-01-01", periods=candles, freq=config.data.bar, tz="UTC")
    frame = pd.DataFrame({"open": close, "high": 1.002 * close, "low": close / 1.002, "close": close}, index)
    frame["volume"] = 1.0
    return build_samples({"WALK": frame}, {"WALK": compute_labels(frame, config.labels, config.data.bar)}, config)


def write_arrays(folder: Path, candles: int, samples: pd.DataFrame, config: Config) -> Arrays:
    """Random numbers of every view, as memory maps of files that were written piece by piece; the clock is right."""
    rng, views = np.random.default_rng(0), VIEWS.active(config)
    shapes = {v.name: (candles if v.by_candle else len(samples), len(v.names(config))) for v in views}
    np.save(folder / "clock.npy", clock_fractions(pd.DatetimeIndex(samples["close_time"]), config.data.clock_zone))
    for name, shape in shapes.items():
        if name == "clock":
            continue
        file = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape)
        for start in range(0, shape[0], CHUNK):
            part = file[start : start + CHUNK]
            part[:] = rng.standard_normal(part.shape, np.float32)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in shapes}


def unscaled(config: Config) -> dict[str, dict[str, list[float]]]:
    """Scalers that change nothing."""
    widths = {view.name: len(view.names(config)) for view in VIEWS.active(config)}
    return {name: {"center": [0.0] * width, "scale": [1.0] * width} for name, width in widths.items()}


def make_panel(folder: Path, candles: int, config: Config, device: torch.device) -> tuple[Panel, Arrays]:
    """Panel of random content, and the arrays it was made from."""
    samples = random_samples(candles, config)
    arrays = write_arrays(folder, candles, samples, config)
    return Panel(arrays, samples, unscaled(config), config, device), arrays


# -- batches per second ------------------------------------------------------------------------------------------------


class WindowDataset(Dataset):
    """What the panel holds, sample by sample: in memory, scaled beforehand, a window cut out when it is asked for."""

    def __init__(self, arrays: Arrays, samples: pd.DataFrame, config: Config) -> None:
        names = config.data.channel_names
        self.length, self.close = config.data.sequence_length, names.index("log_close")
        self.price = np.array([name in PRICE_CHANNELS for name in names], np.float32)  # (C,)
        self.channels = np.array(arrays["nbeats"])
        self.features = {name: np.clip(arrays[name], -CLIP, CLIP) for name in ("tda", "complexity", "clock")}
        self.end = samples["row"].to_numpy() + 1
        columns = ("trigger", "max_pct", list(AUXILIARY_TARGETS))
        self.targets = [samples[name].to_numpy(np.float32) for name in columns]
        self.targets.append(np.ones(len(samples), np.float32))  # weight

    def __len__(self) -> int:
        return len(self.end)

    def __getitem__(self, number: int) -> tuple:
        """Inputs (window (T, C), features (F,) and (K,), clock (2,)), targets and weight of one sample."""
        end = self.end[number]
        window = self.channels[end - self.length : end]
        window = window - window[-1, self.close] * self.price
        window = np.clip(window, -CLIP, CLIP, out=window)
        inputs = {"nbeats": window} | {name: x[number] for name, x in self.features.items()}
        return inputs, *(x[number] for x in self.targets)


def check_same(panel: Panel, dataset: WindowDataset) -> None:
    """Stop unless both give equal batches for equal indices."""
    numbers = np.random.default_rng(1).integers(0, len(dataset), 512)
    batch, other = panel.gather(torch.from_numpy(numbers).to(panel.device)), [dataset[n] for n in numbers]
    (inputs, *targets), names = default_collate(other), [*batch.inputs, *batch._fields[1:]]
    pairs = zip(
        names, [*batch.inputs.values(), *batch[1:]], [*(inputs[n] for n in batch.inputs), *targets], strict=True
    )
    for name, ours, theirs in pairs:
        if not torch.equal(ours.cpu().nan_to_num(-1), theirs.nan_to_num(-1)):
            raise AssertionError(f"{name} differs between Panel.gather and the Dataset")


def index_batches(panel: Panel, size: int) -> Iterator:
    """Whole batches by index, shuffled, without end."""
    generator = torch.Generator(panel.device).manual_seed(0)
    index = torch.arange(len(panel) // size * size, device=panel.device)
    while True:
        order = torch.randperm(len(index), generator=generator, device=panel.device)
        yield from panel.batches(index[order], size)


def loader_batches(dataset: WindowDataset, size: int, workers: int, device: torch.device) -> Iterator:
    """Whole batches of a `DataLoader`, shuffled, without end, brought to the device as PyTorch recommends."""
    pinned = device.type == "cuda"
    options = {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": pinned, "drop_last": True}
    loader = DataLoader(dataset, size, shuffle=True, **options)
    while True:
        for inputs, *targets in loader:
            shown = {name: tensor.to(device, non_blocking=pinned) for name, tensor in inputs.items()}
            yield shown, *(tensor.to(device, non_blocking=pinned) for tensor in targets)


def batches_per_second(panel: Panel, dataset: WindowDataset, size: int, rounds: int, batches: int) -> pd.DataFrame:
    """Batches per second of one size by each way, in turns, and how many times as many come by index."""
    ways = {INDEX: partial(index_batches, panel, size)}
    ways |= {f"DataLoader, {n} workers": partial(loader_batches, dataset, size, n, panel.device) for n in (0, 2)}
    turns = [
        {way: _seconds_a_batch(start(), batches, panel.device) for way, start in ways.items()} for _ in range(rounds)
    ]
    best = pd.DataFrame(turns).min()
    rows = [(size, way, 1 / best[way], size / best[way], best[way] / best[INDEX]) for way in ways]
    say(f"batches of {size}: " + ", ".join(f"{way} {rate:.1f} a second" for _, way, rate, *_ in rows))
    return pd.DataFrame(rows, columns=["batch", "way", "batches a second", "samples a second", TIMES])


def _seconds_a_batch(stream: Iterator, batches: int, device: torch.device) -> float:
    """Seconds per batch of a stream that is under way; it then ends, or its workers would go on in the next turn."""
    _take(stream, PREPARED)
    seconds = seconds_per_call(lambda: _take(stream, batches), device, calls=1) / batches
    stream.close()
    return seconds


def _take(stream: Iterator, batches: int) -> None:
    """Take batches, and drop each before the next, as in training."""
    deque(islice(stream, batches), maxlen=0)


# -- memory ------------------------------------------------------------------------------------------------------------


def own_memory() -> int:
    """Bytes that the process holds itself; on Linux without the pages of mapped files, which the system may drop."""
    info = psutil.Process().memory_info()
    return info.rss - getattr(info, "shared", 0)


class Peak(threading.Thread):
    """Largest `own_memory` while a block runs, looked at every two milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.largest, self._done = 0, threading.Event()

    def run(self) -> None:
        """Look until the block ends."""
        while not self._done.wait(0.002):
            self.largest = max(self.largest, own_memory())

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self.join()


def panel_memory(candles: int) -> dict[str, float]:
    """Bytes of a panel's tensors and of its samples, and what the process grew by when the panel was made."""
    config = load_config()
    with tempfile.TemporaryDirectory() as folder:
        samples = random_samples(candles, config)
        arrays = write_arrays(Path(folder), candles, samples, config)
        gc.collect()
        before = own_memory()
        with Peak() as peak:
            panel = Panel(arrays, samples, unscaled(config), config)
        panel.gather(torch.arange(2048) % len(panel))
        after = own_memory()
    parts = [vars(panel), *map(vars, panel.shown.values())]
    tensors = [value for part in parts for value in part.values() if isinstance(value, torch.Tensor)]
    return {
        "candles": candles,
        "panel": sum(tensor.untyped_storage().nbytes() for tensor in tensors),
        "growth": after - before,
        "growth at most": max(peak.largest, after) - before,
        "samples frame": int(samples.memory_usage(deep=True).sum()),
    }


def memory_by_candles(sizes: tuple[int, ...]) -> pd.DataFrame:
    """`panel_memory` of each size, each in a fresh process, in MB and in bytes a candle."""
    # A fixed threshold makes glibc give freed arrays back, so that the panel cannot hide in what was freed before it.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    rows = []
    for size in sizes:
        command = [sys.executable, __file__, str(size)]
        answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(answer))
        say(f"{size} candles: panel {rows[-1]['panel'] / 1e6:.1f} MB, growth {rows[-1]['growth'] / 1e6:.1f} MB")
    return pd.DataFrame(rows).set_index("candles")


if __name__ == "__main__":
    print(json.dumps(panel_memory(int(sys.argv[1]))))
