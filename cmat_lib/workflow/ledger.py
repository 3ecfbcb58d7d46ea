"""The ledger of trials, ``ledger.parquet`` beside the run folders, so that a good number shows how many were tried.

A trial is a trained model, known by the fingerprint of its training: of an evaluation, a sweep or an ablation.
Evaluating it again replaces its row, deleting its run folder does not.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from filelock import FileLock, Timeout
from scipy.stats import kurtosis, skew

from cmat_lib.base.errors import CmatError, first_line
from cmat_lib.base.files import atomic_path, make_folder
from cmat_lib.data.candles import data_hash, unstack
from cmat_lib.evaluation.metrics import top_name
from cmat_lib.evaluation.overfitting import deflated_sharpe, overfitting_probability, sharpe_ratio
from cmat_lib.workflow.fingerprints import hash_text
from cmat_lib.workflow.run import Run

IDENTITY = ("fingerprint", "data_hash", "run")  # texts in every row
TRIED = frozenset((*IDENTITY, "config_hash", "finished"))  # what a row without scores has


def ledger_path(run: Run) -> Path:
    """Ledger that the run writes to."""
    return run.folder.parent / "ledger.parquet"


def trial_row(
    run: Run, scores: pd.DataFrame, decision: pd.DataFrame, daily: Mapping[float, pd.Series]
) -> dict[str, Any]:
    """One row of the ledger: `tried_row`, and what the model reached on the test part.

    One entry per score (``pooled_roc_auc``). Per share, for example ``top_2``: ``trades_``, ``net_pct_``, ``std_pct_``
    (per trade), ``sharpe_``, ``skew_``, ``kurtosis_`` (of days) and ``daily_`` (list). ``first_day``.

    `scores` has the index (scope, metric) and the column ``value``; `decision` is the model's part of
    `cmat_lib.evaluation.decision.decision_table`, index share; `daily` has the net return, percent, of each test day by
    share.
    """
    row = tried_row(run)
    row |= {f"{scope}_{metric}": float(value) for (scope, metric), value in scores["value"].items()}
    for share, returns in daily.items():
        values, name = returns.to_numpy(), f"top_{top_name(share)}"
        varies = values.std() > 0
        row |= {f"{key}_{name}": float(decision.loc[share, key]) for key in ("trades", "net_pct", "std_pct")}
        row |= {
            f"sharpe_{name}": sharpe_ratio(values),
            f"skew_{name}": float(skew(values)) if varies else np.nan,
            f"kurtosis_{name}": float(kurtosis(values, fisher=False)) if varies else np.nan,
            f"daily_{name}": values.tolist(),
        }
        row["first_day"] = returns.index[0].isoformat()
    return row


def tried_row(run: Run) -> dict[str, Any]:
    """Row of a trial that was trained, without scores; once it is evaluated, `append_trial` puts them in this place."""
    parameters = run.config.model_dump(mode="json", exclude={"run_dir"})
    # without the synthetic market's true probability, which labels change and no price
    prices = run.read_frame("data/candles.parquet").drop(columns="oracle_probability", errors="ignore")
    return {
        "fingerprint": run.fingerprint("04_training"),
        "config_hash": hash_text(json.dumps(parameters, sort_keys=True)),
        "data_hash": data_hash(unstack(prices)),
        "run": run.folder.name,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def append_trial(path: Path, row: Mapping[str, Any]) -> pd.DataFrame:
    """Add a row to the ledger, in place of an older one with the same fingerprint; one without scores replaces none.

    Returns the ledger with the new row last. Two processes may do so at once; a crash leaves the old ledger or the new
    one. A CmatError if the ledger cannot be read, or another process has held it for a minute.
    """
    make_folder(path.parent)
    try:
        with FileLock(f"{path}.lock", timeout=60.0):
            old = _read_ledger(path)
            is_known = old["fingerprint"] == row["fingerprint"]
            if is_known.any() and not row.keys() - TRIED:
                return old
            kept = [old[~is_known]] if len(old) else []
            new = pd.concat([*kept, pd.DataFrame([row])], ignore_index=True)
            with atomic_path(path) as temporary:
                new.to_parquet(temporary)
    except Timeout:
        raise CmatError(f"{path}.lock is held by another process; if none runs, delete that file") from None
    except pa.ArrowException as error:  # columns of the old rows that cannot hold the new one
        raise _no_ledger(path, error) from None
    except OSError as error:
        raise CmatError(f"{path}.lock: cannot be locked ({error.strerror or error}); move it away") from None
    return new


def _read_ledger(path: Path) -> pd.DataFrame:
    """The ledger, empty if there is none yet."""
    if not path.exists():
        return pd.DataFrame({"fingerprint": []})
    try:
        if not path.is_file():
            raise ValueError("not a file")
        ledger = pd.read_parquet(path)
        for name in IDENTITY if len(ledger) else ():
            if not ledger[name].map(lambda value: type(value) is str).all():
                raise ValueError(f"its column '{name}' is not text")
    except Exception as error:  # bytes may ask of the reader whatever they like
        raise _no_ledger(path, error) from None
    return ledger


def _no_ledger(path: Path, error: Exception) -> CmatError:
    reason = f"no column {error}" if isinstance(error, KeyError) else first_line(error)[:200]
    return CmatError(f"{path}: not a ledger ({reason}); move it away and evaluate again")


def trial_table(ledger: pd.DataFrame, fingerprint: str, shares: list[float]) -> pd.DataFrame:
    """What a trial's trading result is worth among all trials of the ledger on the same candles, by share.

    Columns: ``trials`` on the same candles; ``sharpe`` per day, not annualised; ``deflated_sharpe``, for which all of
    them count as tries, those over the same days with their ratio; ``overfitting``, the probability of backtest
    overfitting among those that traded over the same days.
    """
    own = ledger[ledger["fingerprint"] == fingerprint].iloc[0]
    trials = ledger[ledger["data_hash"] == own["data_hash"]]
    rows = {}
    for share in shares:
        name = f"top_{top_name(share)}"
        lengths = trials[f"daily_{name}"].map(lambda v: len(v) if isinstance(v, list | np.ndarray) else 0)
        same_days = (lengths == len(own[f"daily_{name}"])) & (trials["first_day"] == own["first_day"])
        sharpes = trials[f"sharpe_{name}"].astype(np.float64).where(same_days)
        daily = list(trials.loc[sharpes.notna(), f"daily_{name}"])
        rows[share] = {
            "trials": len(trials),
            "sharpe": own[f"sharpe_{name}"],
            "deflated_sharpe": deflated_sharpe(np.asarray(own[f"daily_{name}"]), sharpes.to_numpy()),
            "overfitting": overfitting_probability(pd.DataFrame(dict(enumerate(daily)))),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("share")
