"""The costly comparison: every part of the model and every baseline, on the same folds, with the same budget.

A *row* is one way to make scores, a *cell* is one row trained on one fold with one seed. Cells are files; a command
that was killed goes on with those that are missing.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import chain, combinations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.base.files import atomic_path
from cmat_lib.config import Config, merge, validate
from cmat_lib.data.candles import unstack
from cmat_lib.data.splits import split_spans
from cmat_lib.evaluation.breakdown import ORACLE, oracle_share
from cmat_lib.evaluation.calibration import apply_calibration, fit_calibration
from cmat_lib.evaluation.classic import CLASSIC, classic_rows, classic_scores
from cmat_lib.evaluation.uncertainty import Resampling, ScoreDraws, draw_scores
from cmat_lib.models.fusion import FUSIONS
from cmat_lib.training.devices import pick_device
from cmat_lib.training.objective import predict
from cmat_lib.training.trainer import train
from cmat_lib.views import VIEWS
from cmat_lib.views.panel import Panel
from cmat_lib.views.samples import with_parts
from cmat_lib.views.scaling import fit_scalers
from cmat_lib.workflow.fingerprints import hash_text
from cmat_lib.workflow.ledger import append_trial, ledger_path, tried_row
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.common import read_views
from cmat_lib.workflow.stages.training import Say

MOST = 4  # views of which all subsets are trained if nobody chooses
SCORED = ("train", "calibrate", "test")
POWER = 1.96 + 0.84  # standard errors that a difference must have to be seen at 5 % with a power of 80 %
SMALLEST = 1e-7  # scores of exactly 0 or 1 have no logit


class Cell(NamedTuple):
    """One row on one fold with one seed."""

    row: str
    fold: int
    seed: int


def network_rows(config: Config) -> dict[str, dict]:
    """Changes to the parameters (row -> section -> key -> value) that make each network of the ablation.

    ``full`` is the model as configured; then every other fusion of the registry, and every subset of its views (those
    that say nothing of the market by themselves, as a clock, stay).
    """
    seen = VIEWS.seen(config)
    chosen, kept = ([view.name for view in seen if view.context is context] for context in (False, True))
    rows: dict[str, dict] = {"full": {}}
    rows |= {name: {"fusion": {"fusion_type": name}} for name in FUSIONS if name != config.fusion.fusion_type}
    subsets = chain.from_iterable(combinations(chosen, size) for size in range(1, len(chosen)))
    return rows | {"+".join(subset): {"model": {"modalities": [*subset, *kept]}} for subset in subsets}


def choose_rows(config: Config, names: Sequence[str] | None) -> list[str]:
    """Rows of the ablation in order, baselines first; a CmatError tells an unknown name.

    Without `names` all of them; of more than `MOST` views only those of single ones, and of all but one.
    """
    networks = network_rows(config)
    rows = [*classic_rows(config), *networks]
    for name in names or []:
        if name not in rows:
            raise CmatError(f"--rows: unknown row '{name}'{nearest(name, rows)}")
    if names:
        return [row for row in rows if row in names]
    sizes = {row: row.count("+") + 1 for row, changes in networks.items() if "model" in changes}
    largest = max(sizes.values(), default=0)
    return [row for row in rows if largest < MOST or sizes.get(row, 1) in (1, largest)]


def fold_panels(config: Config, run: Run, folds: Sequence[int]) -> Iterator[tuple[int, Panel]]:
    """Panel of every fold: the samples in its parts, scaled by its own training part."""
    every, market = run.read_frame("data/samples.parquet"), unstack(run.read_frame("data/candles.parquet"))
    views, arrays = VIEWS.active(config), read_views(config, run)
    for fold in folds:
        of_fold = config.model_copy(update={"data": config.data.model_copy(update={"fold": fold})})
        samples = with_parts(every, split_spans(market, of_fold.data), of_fold)
        scalers = fit_scalers(views, arrays, samples, of_fold)
        yield fold, Panel(arrays, samples, scalers, of_fold, pick_device(config.training))


def run_ablation(config: Config, run: Run, rows: Sequence[str], seeds: int, folds: Sequence[int], say: Say) -> Path:
    """Make every cell that is missing, then the tables.

    Returns the run's folder ``ablation``: the tables of `write_tables`, and the ROC-AUC of single trainings in
    ``seeds.parquet``. The run has finished stages 01 and 02; every network is trained `seeds` times on every fold, and
    the answers are averaged. A CmatError for combinatorial folds, whose test parts overlap.
    """
    if config.data.split == "combinatorial":
        raise CmatError("ablation: every test row counts once; set data.split to walk_forward or holdout")
    folder, frames, single = run.path("ablation"), [], {}
    for fold, panel in fold_panels(config, run, folds):
        trigger = panel.targets(panel.index("test"))[0].cpu().numpy()
        scores: dict[str, list] = {row: [] for row in rows}
        for cell in (Cell(row, fold, s) for row in rows for s in range(1 if row in CLASSIC else seeds)):
            scores[cell.row].append(cell_scores(cell, panel, config, run, folder, say))
            single[cell] = roc_auc_score(trigger, scores[cell.row][-1]["test"])
            say(f"fold {fold}  {cell.row:<26} seed {cell.seed}  test AUC {single[cell]:.4f}")
        frames.append(_fold_frame(fold, panel, scores, say))
    _write(folder / "seeds.parquet", pd.DataFrame([{**c._asdict(), "roc_auc": auc} for c, auc in single.items()]))
    return write_tables(pd.concat(frames, ignore_index=True), config, folder, say)


def cell_scores(cell: Cell, panel: Panel, config: Config, run: Run, folder: Path, say: Say) -> dict[str, np.ndarray]:
    """Scores of a cell by part, from its file or made now."""
    # All that a cell depends on: what the stages up to training depend on, the row, the fold and the seed.
    identity = [run.fingerprint("04_training"), config.data.split, *cell, network_rows(config).get(cell.row)]
    path = folder / f"cells/{cell.row}-{cell.fold}-{cell.seed}-{hash_text(json.dumps(identity))[:16]}.npz"
    if path.is_file():
        if stored := _stored_scores(path, {part: len(panel.index(part)) for part in SCORED}):
            return stored
        say(f"{path.name} is damaged; it is made again")
    made = make_scores(cell, panel, config)
    if cell.row not in CLASSIC:
        append_trial(ledger_path(run), tried_row(Run(_cell_config(cell, config), "04_training")))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **made)
    return made


def _stored_scores(path: Path, sizes: dict[str, int]) -> dict[str, np.ndarray] | None:
    """Scores in a cell's file; None if that does not hold one finite number per sample."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            scores = {part: stored[part] for part in SCORED}
            fits = [scores[part].shape == (size,) and np.isfinite(scores[part]).all() for part, size in sizes.items()]
    except Exception:  # bytes may ask of the readers of zip and npy whatever they like
        return None
    return scores if all(fits) else None


def make_scores(cell: Cell, panel: Panel, config: Config) -> dict[str, np.ndarray]:
    if cell.row in CLASSIC:
        return classic_scores(cell.row, panel, SCORED, config)
    model, size = train(_cell_config(cell, config), panel).model, config.evaluation.batch_size
    return {part: predict(model, panel, panel.index(part), size)[0] for part in SCORED}


def _cell_config(cell: Cell, config: Config) -> Config:
    """Parameters of a network's cell: with them `cmat run` would train the same."""
    own = merge(network_rows(config)[cell.row], {"seed": config.seed + cell.seed, "data": {"fold": cell.fold}})
    return validate(merge(config.model_dump(mode="json"), own), f"ablation row {cell.row}")


def _fold_frame(fold: int, panel: Panel, scores: dict[str, list[dict[str, np.ndarray]]], say: Say) -> pd.DataFrame:
    """Test rows of a fold with one probability and one ``train_auc_`` column per row of the ablation.

    Scores of different folds come from different models; each fold's are mapped to probabilities on its own calibrate
    part before they are pooled. The map is monotone and has no steps, so it changes no ranking within the fold,
    unless a row ranks backwards on the calibrate part: then it says the same of every sample.
    """
    index = {part: panel.index(part).cpu().numpy() for part in SCORED}
    keep = ["symbol", "timestamp", "trigger", *([ORACLE] if ORACLE in panel.samples else [])]
    frame = panel.samples.iloc[index["test"]][keep].assign(fold=fold, part="test").reset_index(drop=True)
    trigger = {part: panel.samples["trigger"].to_numpy()[rows] for part, rows in index.items()}
    for row, cells in scores.items():
        clipped = {part: np.clip([cell[part] for cell in cells], SMALLEST, 1 - SMALLEST) for part in SCORED}
        mean = {part: expit(logit(scores).mean(axis=0)) for part, scores in clipped.items()}
        fitted = fit_calibration(mean["calibrate"], trigger["calibrate"], "temperature")
        if not fitted["slope"] and row != "base_rate":
            say(f"fold {fold}  {row}: ranks the calibrate part backwards; its pooled scores are constant here")
        frame[row] = apply_calibration(mean["test"], fitted)
        frame[f"train_auc_{row}"] = roc_auc_score(trigger["train"], mean["train"])
    return frame


def reference_row(rows: Sequence[str]) -> str:
    """Row that all others are compared with: ``full``, or the first one where it is missing."""
    return "full" if "full" in rows else rows[0]


def write_tables(frame: pd.DataFrame, config: Config, folder: Path, say: Say) -> Path:
    """Scores with intervals, paired differences of ``full`` (or of the first row), and the pictures of both.

    `folder`, which is returned, gets ``predictions`` (`frame`: the test rows of all folds), ``table``, ``differences``,
    ``folds`` and, on the synthetic market, ``oracle_share``, each ``.parquet``.
    """
    from cmat_lib.plots.intervals import ablation_forest, difference_forest
    from cmat_lib.plots.style import use_style

    use_style()
    rows = [name.removeprefix("train_auc_") for name in frame if name.startswith("train_auc_")]
    reference = reference_row(rows)
    columns = dict.fromkeys([*rows, *([ORACLE] if ORACLE in frame else [])], np.nan)
    draws = draw_scores(frame, columns, Resampling.from_config(config), config.evaluation.top_shares)
    say(f"smallest difference of ROC-AUC that {len(frame):,} test rows can show: {_detectable(draws, reference)}")
    tables = {"predictions": frame, "table": draws.table().rename_axis(index={"score": "row"})}
    tables |= {"differences": draws.differences(reference), "folds": _by_fold(frame, rows)}
    tables |= {"oracle_share": oracle_share(draws)} if ORACLE in frame else {}
    for name, table in tables.items():
        _write(folder / f"{name}.parquet", table)
    forest = ablation_forest(tables["table"], "roc_auc", draws.confidence)
    differences = difference_forest(tables["differences"], ["roc_auc"], draws.confidence, reference)
    for name, figure in {"forest.png": forest, "differences.png": differences}.items():
        with atomic_path(folder / name) as temporary:
            figure.savefig(temporary, dpi=150, bbox_inches="tight")
    return folder


def _write(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_parquet(temporary)


def _detectable(draws: ScoreDraws, reference: str) -> str:
    """Smallest detectable difference to the row that is nearest and to the one that is farthest, pooled."""
    metric, place = draws.metrics.index("roc_auc"), draws.names.index(reference)
    auc = draws.samples[:, :, 0, metric]  # (S, K)
    errors = np.delete((auc[:, [place]] - auc).std(axis=0), place)
    if not len(errors) or np.isnan(errors).any():
        return "unknown"
    return f"{POWER * errors.min():.3f} to {POWER * errors.max():.3f}, by the row that {reference} is compared with"


def _by_fold(frame: pd.DataFrame, rows: Sequence[str]) -> pd.DataFrame:
    """ROC-AUC of every row on the train and the test part of every fold."""
    found = {}
    for row, (fold, part) in product(rows, frame.groupby("fold")):
        auc = {"train": part[f"train_auc_{row}"].iloc[0], "test": roc_auc_score(part["trigger"], part[row])}
        found[row, fold] = {**auc, "base_rate": part["trigger"].mean()}
    return pd.DataFrame.from_dict(found, orient="index").rename_axis(index=["row", "fold"])
