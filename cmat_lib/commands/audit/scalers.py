"""Scalers against medians and interquartile ranges of the training rows, taken anew."""

from collections.abc import Iterator

import numpy as np

from cmat_lib.commands.audit.subject import SHARE_OF_SPREAD, Finding, Report, Subject
from cmat_lib.config.inputs import PRICE_CHANNELS
from cmat_lib.data.splits import PARTS
from cmat_lib.training.checkpoint import load_checkpoint
from cmat_lib.views import View
from cmat_lib.views.scaling import sample_rows_of

Statistics = dict[str, np.ndarray]  # "center" and "scale", shape (features,) each

# Rows that scalers are fitted on by mistake, to name them: what is said -> parts, None for every sample.
OTHER_ROWS = {"all samples": None, "all four parts": PARTS, "train and stop": PARTS[:2]}
OTHER_ROWS |= {"train, stop and calibrate": PARTS[:3], "test": PARTS[3:]}


def check_scalers(subject: Subject) -> Report:
    """``data/scalers.json`` and the scalers in ``best_model.pt``."""
    scalers = {"scalers.json": subject.run.read_json("data/scalers.json")}
    if subject.has("04_training"):
        path = subject.run.model_path()
        scalers[path.name] = load_checkpoint(path)["scalers"]
    checked = [view for view in subject.views if not view.context]  # a clock stays as it is
    findings = [f for file, own in scalers.items() for v in checked for f in _check(subject, file, v, own[v.name])]
    count = sum(len(view.names(subject.config)) for view in subject.views)
    return Report(f"{count} inputs in {' and '.join(scalers)}", findings)


def _check(subject: Subject, file: str, view: View, scaler: dict[str, list]) -> Iterator[Finding]:
    """One finding for a view: the feature that is furthest off, and whose statistics these are."""
    stored = {key: np.asarray(numbers, np.float64) for key, numbers in scaler.items()}
    right = _statistics(subject, view, PARTS[:1])
    wrong = _wrong(stored, right)
    if not wrong.any():
        return
    away = np.abs(stored["center"] - right["center"]) + np.abs(stored["scale"] - right["scale"])
    worst = int(np.argmax(np.where(wrong, away / right["scale"], -1)))
    texts = [f"center {s['center'][worst]:.6g}, scale {s['scale'][worst]:.6g}" for s in (stored, right)]
    whose = [what for what, parts in OTHER_ROWS.items() if not _wrong(stored, _statistics(subject, view, parts)).any()]
    detail = f"{file}: {wrong.sum()} of {len(wrong)} {view.name} inputs differ; "
    detail += f"these are the statistics of {whose[0]}" if whose else "they are not those of other parts either"
    yield Finding("scaler", view.names(subject.config)[worst], "", None, *texts, detail)


def _wrong(stored: Statistics, right: Statistics) -> np.ndarray:
    """Features whose centre or scale is off, in units of the right scale, (features,) bool."""
    allowed = SHARE_OF_SPREAD * (right["scale"] + np.abs(right["center"]))
    return ~np.all([np.abs(stored[key] - right[key]) <= allowed for key in ("center", "scale")], axis=0)  # nor is NaN


def _statistics(subject: Subject, view: View, parts: tuple[str, ...] | None) -> Statistics:
    """Median and interquartile range of the inputs at the samples of some parts; a range of 0 counts as 1."""
    chosen = np.ones(len(subject.samples), bool) if parts is None else subject.samples["part"].isin(parts).to_numpy()
    if view.scale and not view.standard:  # one of somebody's own, that its record tells
        rows = sample_rows_of(view, subject.samples)[chosen]
        told = view.scale(subject.numbers[view.name], rows, subject.config)
        return {key: np.asarray(values, np.float64) for key, values in told.items()}
    found, names = _robust(subject.at_samples(view)[chosen]), view.names(subject.config)
    prices = [column for column, name in enumerate(names) if name in PRICE_CHANNELS]
    if prices and view.by_candle and view.standard:
        rows, length = subject.samples["row"].to_numpy()[chosen], view.window(subject.config)
        close = subject.channels[:, names.index("log_close")]
        change = close[rows] - close[rows - length + 1]
        found["center"][prices], found["scale"][prices] = 0.0, _robust(change[:, None])["scale"]
    return found


def _robust(values: np.ndarray) -> Statistics:
    known = np.isfinite(values).any(axis=0)
    low, center, high = np.nanpercentile(np.where(known, values, 0.0).astype(np.float64), [25, 50, 75], axis=0)
    scale = high - low
    return {"center": center, "scale": np.where(scale < 10 * np.finfo(np.float64).eps, 1.0, scale)}
