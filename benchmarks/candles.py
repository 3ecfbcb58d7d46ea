"""Reading candles beside what pandas alone takes for a file: CPU seconds and memory, each in a process of its own.

``python benchmarks/candles.py`` writes ``results/candles.md`` beside this file. The readers take turns on one file of
5 million one-minute candles; of the rounds the smallest CPU time counts. Memory is the peak of the process less what it
had once all was imported. ``read_market`` does more than pandas: it understands the file, makes times of texts, and
checks the spacing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from reporting import machine, markdown, say

ROWS = 5_000_000
TIME_GOAL, MEMORY_GOAL = 1.5, 3.0
CHILD = """
import json, sys, time
import pandas as pd
from cmat_lib.data.sources.files import read_market
from cmat_lib.data.channels import CHANNELS
from cmat_lib.config.schema import DataConfig
small = sys.argv[2] + "/../small"
pd.read_csv(small + "/A.csv"), read_market(DataConfig(data_dir=small, timeframe="1m"))
def memory(what):  # a process inherits getrusage's peak from its parent, but not this one
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(what))
before, began = memory("VmRSS"), time.process_time()
if sys.argv[1] == "pandas.read_csv":
    frame = pd.read_csv(sys.argv[2] + "/A.csv")
else:
    frame = read_market(DataConfig(data_dir=sys.argv[2], timeframe="1m"))["A"]
print(json.dumps([time.process_time() - began, memory("VmHWM") - before, len(frame)]))
"""


def candles(rows: int) -> pd.DataFrame:
    """A walk of one-minute candles with two decimals, times as ISO 8601."""
    rng = np.random.default_rng(0)
    close = 20_000 * np.exp(np.cumsum(rng.normal(0, 2e-4, rows)))
    opened = np.append(close[0], close[:-1])
    high, low = np.maximum(opened, close) * 1.0002, np.minimum(opened, close) * 0.9998
    prices = {"open": opened, "high": high, "low": low, "close": close, "volume": rng.lognormal(2, 1, rows)}
    times = pd.date_range("2015-01-01", periods=rows, freq="1min").strftime("%Y-%m-%d %H:%M:%S")
    return pd.DataFrame(prices, index=pd.Index(times, name="timestamp")).round(2)


def measure(folder: Path, rounds: int) -> pd.DataFrame:
    """One row per reader and round: seconds of CPU, bytes at the peak, rows."""
    found = []
    for number in range(rounds):
        for reader in ("pandas.read_csv", "read_market"):
            command = [sys.executable, "-c", CHILD, reader, str(folder)]
            answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            found.append([reader, *answer])
            say(f"round {number + 1}, {reader}: {answer[0]:.1f} s, {answer[1] / 1e6:.0f} MB")
    return pd.DataFrame(found, columns=["reader", "seconds", "bytes", "rows"])


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("small", 1000), ("large", options.rows)):
            (Path(folder) / name).mkdir()
            candles(rows).to_csv(Path(folder) / name / "A.csv")
        size = (Path(folder) / "large/A.csv").stat().st_size
        table = measure(Path(folder) / "large", options.rounds).groupby("reader").min()
    ratio = table.loc["read_market", "seconds"] / table.loc["pandas.read_csv", "seconds"]
    share = table["bytes"] / size
    table = table.assign(**{"times the file": share, "MB": table.pop("bytes") / 1e6})
    formats = {"seconds": "{:.2f}", "rows": "{:,}", "times the file": "{:.2f}", "MB": "{:,.0f}"}
    memory = share["read_market"]
    goals = {
        f"time: {ratio:.2f} times that of `pandas.read_csv`, at most {TIME_GOAL}": ratio <= TIME_GOAL,
        f"memory: {memory:.2f} times the file, at most {MEMORY_GOAL:g}": memory <= MEMORY_GOAL,
    }
    text = "\n".join(
        [
            "# Reading candles",
            "",
            f"{machine(('cmat', 'pandas', 'pyarrow', 'numpy'))}",
            "",
            f"A CSV file of {options.rows:,} candles, {size / 1e6:,.0f} MB; least of {options.rounds} rounds in turns.",
            "",
            markdown(table, formats),
            "",
            *(f"- {goal}: {'met' if met else '**missed**'}." for goal, met in goals.items()),
        ]
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "candles.md").write_text(text + "\n", encoding="utf-8")
    say(text)


if __name__ == "__main__":
    main()
