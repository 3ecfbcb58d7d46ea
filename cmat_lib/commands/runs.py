"""``cmat runs``: what runs there are in a folder, by what their folders hold."""

import os
from itertools import dropwhile
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import write_text
from cmat_lib.commands.options import examples
from cmat_lib.config import load_config, resolve_path
from cmat_lib.evaluation.metrics import MODEL
from cmat_lib.workflow.lock import is_worked_on
from cmat_lib.workflow.run import STAGE_NAMES, Run

SCORES = ("base_rate", "auc", "auc_low", "auc_high", "auc_within", "auc_within_low", "auc_within_high")
COLUMNS = ("run", "status", "stages", "finished", "data", "fusion", "seed", *SCORES)


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


def list_runs(folder: Path) -> pd.DataFrame:
    """One row per run folder directly in `folder`, by name; a CmatError if there is no such folder.

    ``status`` is one that `cmat runs` names, ``no data`` (the candle files are gone, so nothing can be checked), or
    ``sweep`` (a folder of `cmat sweep`); ``stages`` are those with a record, as ``1-5``; ``finished`` is when the
    last of them ended (UTC); of the test part and empty before stage 05 are ``base_rate``, and ROC-AUC with its
    interval, pooled (``auc``, ``auc_low``, ``auc_high``) and within symbols (``auc_within`` and so on).
    """
    if not folder.is_dir():
        raise CmatError(f"{folder}: no such folder; name the one that holds run folders, such as outputs")
    folders = [path for path in sorted(folder.iterdir()) if (path / "stages").is_dir() or (path / "notebooks").is_dir()]
    return pd.DataFrame([_row(path) for path in folders], columns=COLUMNS)


def _row(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"run": path.name}
    try:
        run = Run(load_config(path / "params.yaml", {"run_dir": str(path)}), STAGE_NAMES[-1])
    except CmatError:  # no stage has ended yet, or another version wrote them
        return row | {"status": _first_status(path) or "unreadable"}
    there = {stage: record for stage in STAGE_NAMES if (record := run.record(stage))}
    row |= {"stages": _stages(list(there)), "finished": max((r.finished for r in there.values()), default=None)}
    row |= {"fusion": run.config.fusion.fusion_type, "seed": run.config.seed}
    row |= _data(run, run.config.data.symbols or [])
    damaged = [s for s in STAGE_NAMES if s not in there and os.path.lexists(path / f"stages/{s}.json")]  # unreadable
    for stage, read in (("01_data_prep", _read_data), ("05_evaluation", _headline)):
        try:
            row |= read(run) if stage in there else {}
        except CmatError:  # one damaged run must not cost the list
            damaged.append(stage)
    return row | {"status": _first_status(path) or (f"damaged {_number(min(damaged))}" if damaged else _status(run))}


def _status(run: Run) -> str:
    try:
        run.fingerprint()
    except CmatError:
        return "no data"
    unfinished = list(dropwhile(run.is_finished, STAGE_NAMES))
    if left := [stage for stage in unfinished if run.record(stage) is not None]:
        return f"stale {_number(left[0])}"
    return "finished" if not unfinished else "sweep" if run.path("journal.log").is_file() else "unfinished"


def _first_status(folder: Path) -> str | None:
    """What needs no parameters to be seen: somebody works here, or a page did not reach its end."""
    if is_worked_on(folder):
        return "running"
    pages = [stage for stage in STAGE_NAMES if (folder / f"notebooks/{stage}.ipynb").is_file()]
    # The runner removes both before a page starts and writes the second when the page has ended well.
    cut = next((stage for stage in pages if not (folder / f"report/{stage}.html").is_file()), None)
    return f"failed {_number(cut)}" if cut else None


def _number(stage: str) -> str:
    return stage.split("_")[0]


def _stages(names: list[str]) -> str:
    """``1-5``, ``1-4 6`` or ``none``."""
    spans: list[list[int]] = []
    for number in (int(_number(name)) for name in names):
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return " ".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans) or "none"


def _read_data(run: Run) -> dict[str, str]:
    """The column ``data``, with the symbols that stage 01 found."""
    return _data(run, run.read_json("data/data.json")["symbols"])


def _data(run: Run, symbols: list[str]) -> dict[str, str]:
    data = run.config.data
    named = ", ".join(symbols[:3]) + (f" and {len(symbols) - 3} more" if len(symbols) > 3 else "")
    return {"data": f"{'synthetic' if data.data_dir is None else named} {data.timeframe}"}


def _headline(run: Run) -> dict[str, float]:
    """The columns `SCORES`."""
    table = pd.DataFrame(run.read_json("metrics.json")["scores"]).set_index(["score", "scope", "metric"])
    table = table[["value", "low", "high"]].astype(float).loc[MODEL]
    pooled, within = (table.loc[(scope, "roc_auc")].tolist() for scope in ("pooled", "within"))
    return dict(zip(SCORES, [float(table.loc[("pooled", "base_rate"), "value"]), *pooled, *within], strict=True))
