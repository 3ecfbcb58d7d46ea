"""``cmat runs``: what runs there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from cmat_lib.base.files import write_text
from cmat_lib.commands.options import examples
from cmat_lib.config import resolve_path


@examples("cmat runs", "cmat runs outputs --csv runs.csv")
def runs(
    folder: Annotated[str, typer.Argument(help="Folder that holds run folders.")] = "outputs",
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write the table to this file.")] = None,
) -> None:
    """List the runs of a folder: how far they are, on what, and the ROC-AUC of the test part with its interval.

    A run is running, finished, unfinished, failed NN (page NN did not reach its end), damaged NN (what stage NN
    has written cannot be read: run it again), or stale NN (from stage NN on, its results were made with other
    parameters, input files or code than its params.yaml, or than are there now).
    """
    from cmat_lib.commands.run_list import list_runs

    table = list_runs(resolve_path(folder))
    if csv is not None:
        write_text(csv, table.to_csv(index=False))
    if table.empty:
        print(f"no runs in {folder}; `cmat run params/demo.yaml` makes one")
        return
    shown = table.drop(columns=[name for name in table if name.endswith(("_low", "_high"))])
    for name in ("auc", "auc_within"):
        values = table[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)
        shown[name] = ["" if pd.isna(v) else f"{v:.3f} ({low:.3f} to {high:.3f})" for v, low, high in values]
    shown["base_rate"] = [f"{rate:.1%}" if rate == rate else "" for rate in table["base_rate"].astype(float)]
    shown["finished"] = shown["finished"].fillna("").astype(str).str.slice(0, 16).str.replace("T", " ")
    print(shown.fillna("").to_string(index=False))
    print("\nauc: ROC-AUC of the test part, pooled and within symbols; times in UTC")
