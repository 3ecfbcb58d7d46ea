"""An hour of work without a pause: does anything grow, and is anything left behind?

    python benchmarks/soak.py [--minutes 60] [--out benchmarks/results]

Two commands work side by side, each one process that lives for the whole time:

* ``cmat predict --follow`` scores a market whose CSV files get a new candle every few seconds;
* ``cmat run --grid data.data_dir=...`` executes run after run of all notebooks, each on the market of one more day.

Their own memory, open files and threads are sampled every five seconds, and so are their children: kernels at work,
and zombies. Memory is what the process itself has written (resident, not backed by a file): pages of libraries are
shared with whoever else runs Python, and come and go with them. At the end both get the Ctrl-C of a user; then no
process may be left, and the followed scores must be those that ``cmat predict --since`` gives in one go. The exit
status says so.

A trend is the Theil-Sen slope (the median of all slopes between two points: Sen 1968, JASA 63) after the first fifth,
which is the start. Points are medians of some minutes: within a run memory goes up and down, and single samples would
feign certainty.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import psutil
from reporting import machine, markdown, say
from scipy.stats import theilslopes

from cmat_lib.config import project_root
from cmat_lib.data.synthetic import synthetic_market

PARAMS = project_root() / "params/smoke.yaml"
START_DAYS = 90
CANDLE_SECONDS = 5.0  # between two candles of the growing market
SAMPLE_SECONDS = 5.0
POLL_SECONDS = 2.0
WINDOW_MINUTES = 3.0
SECONDS_PER_RUN = 45.0  # no run is faster, so that there are enough of them
STOP_SECONDS = 60.0
TOKEN = "CMAT_SOAK"  # in the environment of everything that is started here
COMMANDS = ("predict --follow", "run --grid")
MUST_BE_NONE = ("candles passed over", "scores that differ", "runs failed", "processes left")
MEASURES = {"memory_mib": "own memory (MiB)", "open_files": "open files", "threads": "threads"}


def main(arguments: list[str] | None = None) -> int:
    """Soak, write ``soak.md`` and ``soak.png``; 0 if nothing was left behind and the scores are equal."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long both commands work")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder for the report")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="cmat-soak-") as folder:
        soak = Soak(Path(folder), options.minutes)
        samples = soak.run()
        verdicts = soak.verdicts()
    options.out.mkdir(parents=True, exist_ok=True)
    trends = trends_of(samples)
    (options.out / "soak.md").write_text(page(samples, trends, verdicts), encoding="utf-8")
    draw(samples, options.out / "soak.png")
    say(trends.to_string())
    say("\n".join(f"{name}: {value}" for name, value in verdicts.items()))
    must_be_none = [value for name, value in verdicts.items() if name.startswith(MUST_BE_NONE)]
    return int(any(must_be_none) or lasting_zombies(samples) > 0)


class Soak:
    """A growing market in a folder, and the two commands that work on it."""

    def __init__(self, folder: Path, minutes: float):
        self.folder, self.minutes = folder, minutes
        self.live, self.scores = folder / "live", folder / "scores.csv"
        self.token = f"{os.getpid()}-{time.time_ns()}"
        self.runs = int(minutes * 60 / SECONDS_PER_RUN) + 1
        candles = int(minutes * 60 / CANDLE_SECONDS) + 1
        days = START_DAYS + max(self.runs, candles // 24 + 1)
        market = synthetic_market(symbols=2, days=days, timeframe="1h", horizon=4, seed=0)
        self.market = {s: c[["open", "high", "low", "close", "volume"]] for s, c in market.items()}
        self.rows = START_DAYS * 24

    # -- the market ------------------------------------------------------------------------------------------------

    def _write_markets(self) -> list[Path]:
        """The growing files, and a folder for each run: the market after one more day."""
        folders = [self.live, *(self.folder / f"day{n:04d}" for n in range(self.runs))]
        for number, folder in enumerate(folders):
            folder.mkdir()
            for symbol, candles in self.market.items():
                candles.iloc[: self.rows + 24 * max(number - 1, 0)].to_csv(folder / f"{symbol}.csv")
        return folders[1:]

    def _grow(self) -> None:
        for symbol, candles in self.market.items():
            line = candles.iloc[self.rows : self.rows + 1].to_csv(header=False)
            with open(self.live / f"{symbol}.csv", "a", encoding="utf-8") as file:
                file.write(line)
        self.rows += 1

    # -- the commands ----------------------------------------------------------------------------------------------

    def _start(self, *command: str, log: str) -> subprocess.Popen:
        with open(self.folder / log, "w", encoding="utf-8") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "cmat_lib", *command],
                cwd=project_root(),
                env=os.environ | {TOKEN: self.token},
                stdout=file,
                stderr=subprocess.STDOUT,
                preexec_fn=_hear_ctrl_c,
            )

    def _finish(self, *command: str, log: str) -> None:
        if self._start(*command, log=log).wait() != 0:
            raise SystemExit((self.folder / log).read_text())

    def run(self) -> pd.DataFrame:
        """Samples of both commands, one row per command and time."""
        days = self._write_markets()
        model = self.folder / "model"
        say("a model to follow with")
        data = f"data.data_dir={self.live}"
        self._finish("run", str(PARAMS), "--run-dir", str(model), "--set", data, log="model.log")
        self.model, self.first = model, str(self.market["SYNA"].index[self.rows])
        predict = ("predict", "--run", str(model), "--data-dir", str(self.live))
        follow = self._start(
            *(*predict, "--follow", "--since", self.first, "--output", str(self.scores), "--poll", str(POLL_SECONDS)),
            log="follow.log",
        )
        grid = "data.data_dir=" + ",".join(map(str, days))
        runs = self._start(
            *("run", str(PARAMS), "--run-dir", str(self.folder / "runs"), "--grid", grid), log="runs.log"
        )
        say(f"both commands, for {self.minutes:g} minutes")
        try:
            return self._sample(dict(zip(COMMANDS, (follow, runs), strict=True)))
        finally:
            for process in (follow, runs):
                process.send_signal(signal.SIGINT)
            for process in (follow, runs):
                process.wait(STOP_SECONDS)

    def _sample(self, commands: dict[str, subprocess.Popen]) -> pd.DataFrame:
        rows, began = [], time.monotonic()
        watched = {name: psutil.Process(process.pid) for name, process in commands.items()}
        next_sample = next_candle = began
        while (now := time.monotonic()) < began + 60 * self.minutes:
            if now >= next_candle:
                self._grow()
                next_candle += CANDLE_SECONDS
            if now >= next_sample:
                rows += [{"minute": (now - began) / 60, "command": n, **state(p)} for n, p in watched.items()]
                next_sample += SAMPLE_SECONDS
                if len(rows) % 120 == 0:
                    say(pd.DataFrame(rows[-2:]).round(1).to_string(index=False, header=len(rows) == 120))
            if ended := [name for name, process in commands.items() if process.poll() is not None]:
                logs = "\n".join((self.folder / log).read_text()[-2000:] for log in ("follow.log", "runs.log"))
                raise SystemExit(f"ended by itself: cmat {ended[0]}\n{logs}")
            time.sleep(0.1)
        return pd.DataFrame(rows)

    # -- what is left ----------------------------------------------------------------------------------------------

    def verdicts(self) -> dict[str, int]:
        """What was done, and what must be none."""
        deadline = time.monotonic() + STOP_SECONDS  # kernels look for their parent once a second
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.5)
        once = self.folder / "once.csv"
        predict = ("predict", "--run", str(self.model), "--data-dir", str(self.live), "--since", self.first)
        self._finish(*predict, "--output", str(once), log="once.log")
        followed, once = (pd.read_csv(path, index_col=["symbol", "timestamp"]) for path in (self.scores, once))
        return {
            "candles that came": 2 * (self.rows - START_DAYS * 24),
            "candles scored by --follow": len(followed),
            "candles passed over by --follow": passed_over(followed, once),
            "scores that differ from `cmat predict` in one go": differing(followed, once),
            "runs finished": len(list(self.folder.glob("runs__*/stages/06_*.json"))),
            "runs failed": (self.folder / "runs.log").read_text().count("failed"),
            "processes left": len(left),
        }

    def _left(self) -> list[int]:
        return [p.pid for p in psutil.process_iter() if p.pid != os.getpid() and self._is_ours(p)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(TOKEN) == self.token
        except psutil.Error:
            return False


def _hear_ctrl_c() -> None:
    """A shell's background jobs are deaf to Ctrl-C, and so is what they start; the commands of a user are not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def state(process: psutil.Process) -> dict[str, float]:
    """Memory of a process in MiB, its open files and threads; kernels and zombies among all its descendants."""
    with process.oneshot():
        memory = process.memory_info()
        own = {
            "memory_mib": (memory.rss - memory.shared) / 2**20,
            "open_files": process.num_fds(),
            "threads": process.num_threads(),
        }
    kernels = zombies = 0
    for child in process.children(recursive=True):
        try:
            zombies += child.status() == psutil.STATUS_ZOMBIE
            kernels += "ipykernel_launcher" in " ".join(child.cmdline())
        except psutil.NoSuchProcess:  # it ended while we looked
            continue
    return own | {"kernels": kernels, "zombies": zombies}


def passed_over(followed: pd.DataFrame, once: pd.DataFrame) -> int:
    """Rows of `once` that `followed` lacks although it has later ones of that symbol."""
    missing = once.index.difference(followed.index).to_frame(index=False)
    newest = followed.reset_index().groupby("symbol")["timestamp"].max()
    return int((missing["timestamp"] < missing["symbol"].map(newest)).sum())


def differing(followed: pd.DataFrame, once: pd.DataFrame) -> int:
    """Rows of `followed` that are not the same in `once`, or are there twice.

    Numbers may differ by 1e-4 of their value: float32 sums of a batch of one and of hundreds differ in order.
    """
    other = once.reindex(followed.index)
    numbers = followed.select_dtypes("number").columns
    same = np.isclose(followed[numbers], other[numbers], rtol=1e-4, atol=1e-6).all(axis=1)
    texts = followed.columns.difference(numbers)
    same &= (followed[texts] == other[texts]).all(axis=1).to_numpy()
    return int((~same).sum() + followed.index.duplicated().sum())


def lasting_zombies(samples: pd.DataFrame) -> int:
    """Samples with as many zombies in the one before: a child that has just ended is one until its parent looks."""
    return int(samples.groupby("command")["zombies"].rolling(2).min().sum())


def trends_of(samples: pd.DataFrame) -> pd.DataFrame:
    """Medians of the second and the last fifth, and the slope per hour with its 95 % interval, of every measure."""
    fifth = samples["minute"].max() / 5
    settled = samples[samples["minute"] > fifth]
    rows = []
    for command, own in settled.groupby("command", sort=False):
        first, last = own[own["minute"] <= 2 * fifth], own[own["minute"] > 4 * fifth]
        for measure, title in MEASURES.items():
            calm = own.groupby(own["minute"] // WINDOW_MINUTES)[["minute", measure]].median()
            slope, _, low, high = theilslopes(calm[measure], calm["minute"] / 60)
            medians = [first[measure].median(), last[measure].median()]
            rows.append([f"cmat {command}", title, *medians, slope, low, high])
    columns = ["command", "", "second fifth", "last fifth", "per hour", "from", "to"]
    return pd.DataFrame(rows, columns=columns)


def page(samples: pd.DataFrame, trends: pd.DataFrame, verdicts: dict[str, int]) -> str:
    """The report as Markdown."""
    formats = dict.fromkeys(["second fifth", "last fifth"], "{:.1f}") | dict.fromkeys(
        ["per hour", "from", "to"], "{:+.2f}"
    )
    lines = [f"| {name} | {value:,} |" for name, value in verdicts.items()]
    lines += [f"| most kernels at a time | {samples['kernels'].max()} |"]
    lines += [f"| zombies that lasted from one sample to the next | {lasting_zombies(samples)} |"]
    minutes = samples["minute"].max()
    return f"""# Soak: {minutes:.0f} minutes

{machine(("torch", "papermill", "ipykernel", "pandas"))}

`python benchmarks/soak.py --minutes {minutes:.0f}`: `cmat predict --follow` on files that get a candle every
{CANDLE_SECONDS:g} s, beside one `cmat run --grid` that executes run after run, each on the market of one more day.
Theil-Sen slopes with 95 % intervals, of medians of three minutes after the first fifth.

{markdown(trends, formats)}

| what | count |
| --- | ---: |
{chr(10).join(lines)}

![](soak.png)
"""


def draw(samples: pd.DataFrame, path: Path) -> None:
    """Memory, open files and threads of both commands over time, and the kernels at work."""
    titles = MEASURES | {"kernels": "kernels at work"}
    figure, axes = plt.subplots(len(titles), 1, figsize=(9, 8), sharex=True, layout="constrained")
    for axis, (measure, title) in zip(axes, titles.items(), strict=True):
        for command, own in samples.groupby("command", sort=False):
            axis.plot(own["minute"], own[measure], label=f"cmat {command}", linewidth=1.2)
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].set_title("Two commands that never stop: what their processes hold")
    axes[0].legend(loc="lower right")
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
