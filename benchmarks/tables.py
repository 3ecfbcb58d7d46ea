"""What a table adds: on the built-in market one that carries the hidden regime, and one of noise.

    python benchmarks/tables.py --seeds 3

Both are views by parameters alone. The table of results, the share of the true probability's lift that each model
reaches with an interval, goes to benchmarks/results/tables.md.
"""

from __future__ import annotations

import argparse
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cmat_lib.commands.ablation.rows import run_ablation
from cmat_lib.config import Config, load_config
from cmat_lib.evaluation.breakdown import with_intervals
from cmat_lib.workflow.stages.data import load_candles
from cmat_lib.workflow.stages.training import prepare_features

ROOT = Path(__file__).resolve().parents[1]
ROWS = ("nbeats+tda+complexity", "nbeats+tda+complexity+regime", "nbeats+tda+complexity+noise")
NAMES = ("regime", "noise")


def main() -> None:
    """Write the tables, train, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs/benchmarks/tables")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    write_tables(load_config(ROOT / "params/demo.yaml"), arguments.folder)
    config = with_tables(arguments.folder)
    run = prepare_features(config, partial(print, flush=True))
    made = run_ablation(config, run, ROWS, arguments.seeds, [0], partial(print, flush=True))
    report(made, arguments.seeds)


def write_tables(config: Config, folder: Path) -> None:
    """A row per day and symbol: the regime at the day's last close, or a number that knows nothing."""
    market, rng = load_candles(config), np.random.default_rng(0)
    for name in NAMES:
        days = {symbol: candles["regime"].resample("D").last() for symbol, candles in market.items()}
        frame = pd.concat(days, names=["symbol", "time"]).reset_index()
        frame["value"] = frame.pop("regime") if name == "regime" else rng.normal(size=len(frame))
        frame.to_csv(folder / f"{name}.csv", index=False)


def with_tables(folder: Path) -> Config:
    """The demo with both tables; a day's row is known when the day has ended."""
    tables = {n: {"file": str(folder / f"{n}.csv"), "columns": ["value"], "lag": "1d", "stale": "2d"} for n in NAMES}
    changes = {"run_dir": str(folder / "run"), "views": tables}
    changes["model"] = {"modalities": ["nbeats", "tda", "complexity", *NAMES]}
    return load_config(ROOT / "params/demo.yaml", changes)


def report(folder: Path, seeds: int) -> None:
    """Shares of the true probability's lift, and differences of ROC-AUC."""
    share = with_intervals(pd.read_parquet(folder / "oracle_share.parquet"), digits=3)
    tables = {"Share of the true probability's lift": share, "Score of single trainings": single(folder)}
    text = f"# What a table adds\n\n`python benchmarks/tables.py --seeds {seeds}`, {date.today()}\n"
    for title, table in tables.items():
        text += f"\n## {title}\n\n```text\n{table.to_string()}\n```\n"
    (ROOT / "benchmarks/results/tables.md").write_text(text, encoding="utf-8")
    print(text)


def single(folder: Path) -> pd.DataFrame:
    """ROC-AUC of each seed."""
    return pd.read_parquet(folder / "seeds.parquet").pivot_table(index="row", columns="seed", values="roc_auc").round(3)


if __name__ == "__main__":
    main()
