"""Predictions of the run against the stored model on candles cut at the row."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from cmat_lib.commands.audit.subject import Finding, Report, Subject, differing, odd_rows
from cmat_lib.data.splits import PARTS
from cmat_lib.evaluation.calibration import apply_calibration
from cmat_lib.training.checkpoint import load_checkpoint
from cmat_lib.views.samples import sample_rows
from cmat_lib.workflow.predictor import Predictor

SHARE_OF_ROWS = 10  # a score costs ten times what a feature does
# The run keeps channels in float32 and computes in it, the predictor in float64. Measured: 1e-6 in the raw probability
# on a CPU. A GPU's TF32 products have 10 bits, 1e-3.
TOLERANCE = {"cpu": 1e-4, "cuda": 2e-3}  # of a score, by the device of the training
KEYS = ["symbol", "timestamp"]
COPIED = ["part", "trigger", "max_pct"]  # from the samples
AGAIN = ("", "_again")  # endings of columns, as the run has them and as they should be


def check_predictions(subject: Subject) -> Report:
    """Scores of chosen rows by ``best_model.pt`` from their history alone; labels and calibration of all rows."""
    if not subject.has("05_evaluation"):
        missing = "04_training" if not subject.has("04_training") else "05_evaluation"
        return Report(f"stage {missing} is not finished", skipped=True)
    stored = subject.run.read_frame("predictions.parquet")
    path = subject.run.model_path()
    tolerance = TOLERANCE[subject.run.training_results()["device"].partition(":")[0]]
    predictor = Predictor(path, "cpu")
    samples = subject.samples[subject.samples["part"].isin(PARTS)]
    rows = _choose(subject, stored.merge(samples[KEYS].drop_duplicates(), on=KEYS))
    scored = [frame for place in rows.itertuples() if (frame := _score(subject, predictor, place)) is not None]
    again = pd.concat(scored, ignore_index=True) if scored else rows.iloc[:0]
    findings = [
        *_against_samples(samples, stored),
        *_unlike(rows, again, "raw_probability", tolerance),
        *_unlike(rows, again, "predicted_max_pct", tolerance * max(1.0, samples["max_pct"].std())),
        *_calibrated(stored, load_checkpoint(path)["calibration"]),
    ]
    looked_at = f"{len(rows):,} of {len(stored):,} rows, from candles cut at the row; tolerance {tolerance:g}"
    return Report(looked_at, findings)


def _choose(subject: Subject, stored: pd.DataFrame) -> pd.DataFrame:
    """Rows of each symbol, the last one in time among them."""
    rng = np.random.default_rng(subject.seed)
    chosen = []
    for _, frame in stored.groupby("symbol", sort=False):
        count = min(len(frame), -(-subject.rows // SHARE_OF_ROWS))
        numbers = rng.choice(len(frame) - 1, count - 1, replace=False) if count > 1 else []
        chosen.append(frame.sort_values("timestamp").iloc[[*sorted(numbers), -1]])
    return pd.concat(chosen, ignore_index=True)


def _score(subject: Subject, predictor: Predictor, place) -> pd.DataFrame | None:
    """Score of one row from its declared history, label columns changed; None if its history has a gap."""
    end = subject.end(place.symbol, place.timestamp)
    window = subject.hidden[place.symbol].iloc[end - predictor.history : end]
    if not len(sample_rows(window, subject.config)):
        return None
    others = {symbol: candles.loc[: place.timestamp] for symbol, candles in subject.hidden.items()}
    return predictor.scores(others | {place.symbol: window}, symbols=[place.symbol])


def _against_samples(samples: pd.DataFrame, stored: pd.DataFrame) -> Iterator[Finding]:
    """Rows, parts and labels must be those of the samples, each once: scores of chosen rows or labels mean nothing."""
    yield from odd_rows("rows", stored, samples, "rows; the predictions are of the samples of the four parts, one each")
    both = stored[[*KEYS, *COPIED]].drop_duplicates(KEYS).merge(samples[[*KEYS, *COPIED]], on=KEYS, suffixes=AGAIN)
    for name in COPIED:
        here, right = both[name], both[f"{name}_again"]
        wrong = ((here != right) & ~(here.isna() & right.isna())).to_numpy()
        yield from differing("stored", name, both, wrong, "are not those of data/samples.parquet")


def _unlike(rows: pd.DataFrame, again: pd.DataFrame, column: str, tolerance: float) -> Iterator[Finding]:
    both = rows[[*KEYS, column]].merge(again[[*KEYS, column]], on=KEYS, how="left", suffixes=AGAIN)
    away = (both[column] - both[f"{column}_again"]).abs()
    what = f"differ, by up to {away.max():.2g}"
    yield from differing("prediction", column, both, ~(away <= tolerance).to_numpy(), what)


def _calibrated(stored: pd.DataFrame, calibration: dict) -> Iterator[Finding]:
    """Probabilities must be the stored calibration of the raw ones, in every row."""
    both = stored.assign(probability_again=apply_calibration(stored["raw_probability"], calibration))
    wrong = ~((both["probability"] - both["probability_again"]).abs() <= 1e-9).to_numpy()
    what = "are not the model's calibration of their raw probability"
    yield from differing("stored", "probability", both, wrong, what)
