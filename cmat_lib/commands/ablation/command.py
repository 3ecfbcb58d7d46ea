"""``cmat ablate``: every part of the model and every baseline, on the same folds."""

import logging
from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.options import Assignments, RunDir, examples, run_config
from cmat_lib.config import resolve_path


@examples("cmat ablate params/demo.yaml", "cmat ablate params/demo.yaml --rows trees+clock,full,concat --seeds 1")
def ablate(
    params: Annotated[Path, typer.Argument(help="Parameter file.")],
    assignments: Assignments = None,
    run_dir: RunDir = None,
    rows: Annotated[str | None, typer.Option(help="Rows, separated by commas; all by default.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of every network, whose answers are averaged.")] = 3,
    folds: Annotated[str, typer.Option(help="Folds of data.split, separated by commas, or all.")] = "all",
) -> None:
    """Train the model, every subset of its modalities, every other fusion and all baselines with the same budget.

    Prepares data and features as needed. Finished trainings are kept in RUN/ablation/cells, so that a command that
    was cut off goes on. The table says what each row reaches on the test parts of all folds, with intervals. Every
    network that is trained counts as a trial in the ledger.
    """
    from cmat_lib.commands.ablation.rows import choose_rows, reference_row, run_ablation
    from cmat_lib.workflow.lock import working_in
    from cmat_lib.workflow.stages.training import prepare_features

    config = run_config(params, assignments, run_dir)
    chosen = choose_rows(config, rows.split(",") if rows else None)
    numbers = read_folds(folds, config.data.fold_count)
    logging.basicConfig(level=config.logging.level, format="%(levelname)s %(name)s: %(message)s")
    say = partial(print, flush=True)
    with working_in(resolve_path(config.run_dir)):
        folder = run_ablation(config, prepare_features(config, say), chosen, seeds, numbers, say)
    print(_text(folder, reference_row(chosen)))
    print(f"tables and pictures: {folder}")


def read_folds(text: str, count: int) -> list[int]:
    if text == "all":
        return list(range(count))
    if not all(part.isdecimal() and int(part) < count for part in text.split(",")):
        raise CmatError(f"--folds {text}: write all, or numbers from 0 to {count - 1} separated by commas")
    return sorted({int(part) for part in text.split(",")})


def _text(folder: Path, reference: str) -> str:
    """ROC-AUC of every row and its distance from the row of reference, pooled and within symbols, with intervals."""
    from cmat_lib.evaluation.breakdown import with_intervals

    titles = {"table": "ROC-AUC", "differences": f"{reference} minus row"}
    titles |= {"oracle_share": "share of the oracle's lift over 0.5"}
    texts = []
    for name, title in titles.items():
        if (path := folder / f"{name}.parquet").is_file():
            table = pd.read_parquet(path)
            table = table.xs("roc_auc", level="metric") if "metric" in table.index.names else table
            text = with_intervals(table).unstack("scope", sort=False).rename_axis(columns=None)
            texts.append(f"\n{title}\n{text.to_string()}")
    seeds = pd.read_parquet(folder / "seeds.parquet")
    # Lowest and highest training of every row that has several: intervals know nothing of this scatter.
    by_seed = seeds.groupby(["row", "seed"], sort=False)["roc_auc"].mean().groupby("row", sort=False)
    found = by_seed.agg(["count", "min", "max"]).query("count > 1").drop(columns="count")
    single = "one seed only" if found.empty else found.round(3).rename_axis(None).to_string()
    return "\n".join([*texts, f"\nROC-AUC of single trainings, mean over folds\n{single}"])
