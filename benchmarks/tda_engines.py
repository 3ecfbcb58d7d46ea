"""Engines of persistence, each in a process of its own: another interpreter, another version, or one that crashes.

This file is both sides. ``Engine`` starts ``python tda_engines.py WHERE:NAME`` and sends it tasks; the child answers
with CPU seconds of its own process and with diagrams. So it imports nothing but the standard library and numpy, and the
engine's package only in the child.
"""

from __future__ import annotations

import collections
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

TURN = 0.02  # CPU seconds after which a turn asks for no further call of a task
CALLS = 5  # calls in a turn, at most

Diagrams = list[np.ndarray]
Compute = Callable[[np.ndarray], Diagrams]


class Failed(Exception):
    """What became of a task that has no result, as the cell of a table: "crash", "> 60 s", an exception's name."""


# -- the parent's side -------------------------------------------------------------------------------------------------


class Engine:
    """A process that computes diagrams with one engine; it starts with the first task, and anew after a failure.

    Parameters
    ----------
    name : str
        Function of this module that makes the engine, or ``module:function``.
    python : str
        Interpreter.
    library : Path, optional
        Folder that comes first where the child looks for packages: a checkout of an earlier version, for example.
    """

    def __init__(self, name: str, python: str = sys.executable, library: Path | None = None) -> None:
        self.command = [python, __file__, name if ":" in name else f"tda_engines:{name}"]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        path = [str(Path(library).resolve())] if library else [p for p in sys.path if p]
        self.environment = (
            os.environ | threads | {"PYTHONPATH": os.pathsep.join(path if python == sys.executable else [])}
        )
        self._child: subprocess.Popen | None = None

    def ask(self, task: str, *arguments, limit: float = 600.0):
        """Result of a task.

        Raises
        ------
        Failed
            If it takes longer than `limit` seconds of wall clock, raises, or ends the process.
        """
        if self._child is None:
            self._start()
        try:
            self._tasks.send((task, [_packed(argument) for argument in arguments]))
            if not self._results.poll(limit):
                raise Failed(f"> {limit:.0f} s")
            result, error = self._results.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.close()
            raise Failed("crash") from None
        except Failed:
            self.close()
            raise
        if error:
            raise Failed(error)
        return _unpacked(result)

    def _start(self) -> None:
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(
            self.command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=self.environment
        )
        self._tasks = Connection(os.dup(self._child.stdin.fileno()), readable=False)
        self._results = Connection(os.dup(self._child.stdout.fileno()), writable=False)
        self.ask("diagrams", np.random.default_rng(0).normal(size=(100, 2)))  # load and compile

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for end in (self._tasks, self._results, self._child.stdin, self._child.stdout):
                end.close()
            self._child = None


def _packed(value):
    """Arrays as bytes: versions of numpy do not read each other's pickles."""
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.str, value.shape, value.tobytes())
    return [_packed(v) for v in value] if isinstance(value, (list, tuple)) else value


def _unpacked(value):
    if isinstance(value, tuple):
        return np.frombuffer(value[3], value[1]).reshape(value[2]).copy()  # geoph refuses what cannot be written
    return [_unpacked(v) for v in value] if isinstance(value, list) else value


# -- engines (in the child) --------------------------------------------------------------------------------------------


def planar() -> Compute:
    """This project's engine, or that of the checkout which comes first on the path."""
    from cmat_lib.tda import rips_diagrams

    return lambda cloud: rips_diagrams(cloud, "planar")


def weak_alpha() -> Compute:
    """Rips filtration on the Delaunay triangulation, by giotto-tda."""
    from cmat_lib.tda import rips_diagrams

    return lambda cloud: rips_diagrams(cloud, "weak_alpha")


def giotto_tda() -> Compute:
    """`VietorisRipsPersistence` as its users call it; one diagram (n, 3) becomes H0 and H1."""
    from gtda.homology import VietorisRipsPersistence

    rips = VietorisRipsPersistence(homology_dimensions=(0, 1), n_jobs=1)

    def compute(cloud: np.ndarray) -> Diagrams:
        diagram = rips.fit_transform(cloud[None])[0]
        return [diagram[diagram[:, 2] == dimension, :2] for dimension in (0, 1)]

    return compute


def giotto_ph() -> Compute:
    """`ripser_parallel` on one thread."""
    from gph import ripser_parallel

    return lambda cloud: ripser_parallel(cloud, maxdim=1, n_threads=1)["dgms"]


def geoph() -> Compute:
    """`ripsPersistenceDiagram2`, exact Rips in the plane (C++, CGAL); its lists are not made arrays in the time."""
    from geoph import ripsPersistenceDiagram2

    return ripsPersistenceDiagram2


# -- tasks (in the child) ----------------------------------------------------------------------------------------------


def timed(function: Callable, *arguments) -> tuple[float, object]:
    """CPU seconds of this process, and the result."""
    began = time.process_time()
    result = function(*arguments)
    return time.process_time() - began, result


def turn(function: Callable, *arguments) -> tuple[float, object]:
    """Median CPU seconds of as many calls as a turn holds, and the last result."""
    seconds = []
    while not seconds or (sum(seconds) < TURN and len(seconds) < CALLS):
        passed, result = timed(function, *arguments)
        seconds.append(passed)
    return float(np.median(seconds)), result


def diagrams(compute: Compute, cloud: np.ndarray) -> tuple[float, Diagrams]:
    """Seconds of one cloud, and its finite bars of H0 and H1."""
    seconds, found = turn(compute, cloud)
    found = [np.asarray(bars, dtype=np.float64).reshape(-1, 2) for bars in found]
    return seconds, [bars[np.isfinite(bars[:, 1])] for bars in found]


def slide(_: Compute, series: np.ndarray, window: int, delay: int, stride: int, kept: np.ndarray):
    """Seconds per window of a series, the first one's fresh start included, and the diagrams of some windows.

    Seconds are those of `path_diagrams`, whose flat bars the features are made from, and of `sliding_diagrams`, which
    makes a list of arrays of each window.
    """
    from cmat_lib.tda import sliding_diagrams
    from cmat_lib.tda.sliding import path_diagrams

    ends = np.arange(window - 1, len(series), stride)
    flat, _ = timed(collections.deque, path_diagrams(series, ends, window, delay), 0)
    lists, found = timed(list, sliding_diagrams(series, window, delay, stride))
    return flat / len(ends), lists / len(ends), [found[w] for w in kept]


def vectors(_: Compute, series: np.ndarray, ends: np.ndarray):
    """Seconds per whole feature vector of the windows of a series that slide, and of the features alone."""
    from cmat_lib.config.schema import TdaConfig
    from cmat_lib.tda.features import diagram_features, path_features
    from cmat_lib.tda.sliding import path_diagrams

    config = TdaConfig()
    scale = config.scales[0]
    whole, rows = timed(path_features, series, ends, *scale, config)
    block, found = next(iter(path_diagrams(series, ends, *scale)))
    begins, out = ends[block] - scale[0] + 1, np.empty_like(rows[block])
    alone, _ = turn(diagram_features, found, series, begins, scale[0], config, out)
    return whole / len(ends), alone / len(begins), rows


def scratch_vectors(_: Compute, windows: np.ndarray):
    """Seconds per whole feature vector of separate windows, and the vectors."""
    from cmat_lib.config.schema import TdaConfig
    from cmat_lib.tda import tda_features

    seconds, rows = timed(tda_features, windows, TdaConfig())
    return seconds / len(windows), rows


def loops(_: Compute, cloud: np.ndarray) -> list[float]:
    """Seconds of the compiled part without and with loops, and of `rips_diagrams` and `planar_loops`, in turns."""
    from cmat_lib.tda import rips_diagrams
    from cmat_lib.tda.planar import cloud_bars, planar_loops

    pairs = [(cloud_bars, cloud, False), (cloud_bars, cloud, True)], [(rips_diagrams, cloud), (planar_loops, cloud)]
    medians = []
    for calls in pairs:
        rounds = [[timed(*call)[0] for call in calls] for _ in range(4 * CALLS)]
        medians.extend(np.median(rounds[CALLS:], axis=0).tolist())  # the first rounds warm up
    return medians


def peak_memory(compute: Compute, cloud: np.ndarray) -> tuple[float, float]:
    """Peak memory of the process in MB before and after one cloud."""
    import resource

    peaks = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
    compute(cloud)
    return peaks[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def answer(spec: str) -> None:
    """Answer tasks until the parent closes the pipe; what the engine prints goes to the error stream."""
    tasks, results = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)
    where, _, name = spec.partition(":")
    sys.path.insert(0, str(Path(__file__).parent))
    compute = getattr(importlib.import_module(where), name)()
    while True:
        try:
            task, arguments = tasks.recv()
        except EOFError:
            return
        try:
            results.send((_packed(globals()[task](compute, *_unpacked(arguments))), ""))
        except Exception as error:
            results.send((None, type(error).__name__))


if __name__ == "__main__":
    answer(sys.argv[1])
