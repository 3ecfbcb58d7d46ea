"""Single inputs that rank the triggers too well to be honest, or are a label themselves."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from cmat_lib.commands.audit.subject import Finding, Report, Subject, earliest
from cmat_lib.config.schema import AUXILIARY_TARGETS

# The true volatility of the hours to come, known in advance, ranks 3 % rises of real candles with an AUC of 0.92
# (docs/results.md); no input that is known at the close can do better than that by itself.
IMPLAUSIBLE_AUC = 0.95
# Rows beside each other share their trigger. An honest input of AUC 0.8 has a standard error of 0.055 with 20 separate
# events (Hanley and McNeil 1982), so that 0.95 is nearly three of them away; with fewer, chance alone gets there.
FEWEST_EVENTS = 20
SAME = 0.999  # absolute correlation with a label at which an input is that label


def check_single_inputs(subject: Subject) -> Report:
    """AUC of every input alone on the test part, and its correlation with each label on all labelled rows."""
    samples = subject.samples
    labelled = samples["trigger"].notna().to_numpy()
    test = labelled & (samples["part"] == "test").to_numpy()
    events = _events(subject, samples[test])
    names, values = _inputs(subject)
    findings = list(_copies(samples[labelled], names, values[labelled]))
    if events < FEWEST_EVENTS:
        few = f"{events} separate events in the test part are too few for an AUC"
        return Report(f"{len(names)} inputs; {few}", findings)
    known = {finding.feature for finding in findings}
    findings += [f for f in _implausible(samples[test], names, values[test], events) if f.feature not in known]
    return Report(f"{len(names)} inputs on {test.sum():,} test rows with {events} separate events", findings)


def _inputs(subject: Subject) -> tuple[list[str], np.ndarray]:
    """Names and newest values of all inputs at each sample, but for those that say nothing of the market."""
    views = [view for view in subject.views if not view.context]
    names = [name for view in views for name in view.names(subject.config)]
    values = np.concatenate([subject.at_samples(view) for view in views], axis=1).astype(np.float64)
    return names, np.where(np.isfinite(values), values, 0.0)  # the other checks name a value that is not finite


def _events(subject: Subject, samples: pd.DataFrame) -> int:
    """Triggers of each symbol that are at least a horizon apart from the one before."""
    apart = (subject.config.labels.horizon + subject.config.data.stride) * subject.config.data.bar
    hits = samples[samples["trigger"] == 1].sort_values("close_time").groupby("symbol")["close_time"]
    return sum(int((times.diff() > apart).sum()) + 1 for _, times in hits)


def _copies(samples: pd.DataFrame, names: list[str], values: np.ndarray) -> Iterator[Finding]:
    """Inputs that are a label, but for scale, shift and sign."""
    away = values - values.mean(axis=0)
    for label in ("trigger", "max_pct", *AUXILIARY_TARGETS):
        known = samples[label].to_numpy(np.float64)
        known = known - known.mean()
        size = np.sqrt((away**2).sum(axis=0) * (known**2).sum())
        correlation = np.divide(away.T @ known, size, out=np.zeros(len(size)), where=size > 0)  # Pearson's, (features,)
        for column in np.flatnonzero(np.abs(correlation) > SAME):
            detail = f"it is {label}: correlation {correlation[column]:.4f}"
            yield _finding(samples, names[column], values[:, column], detail)


def _implausible(samples: pd.DataFrame, names: list[str], values: np.ndarray, events: int) -> Iterator[Finding]:
    for column, name in enumerate(names):
        auc = roc_auc_score(samples["trigger"], values[:, column])
        if max(auc, 1 - auc) > IMPLAUSIBLE_AUC:
            detail = f"AUC alone {max(auc, 1 - auc):.3f}, more than {IMPLAUSIBLE_AUC}, with {events} separate events"
            yield _finding(samples, name, values[:, column], detail)


def _finding(samples: pd.DataFrame, name: str, values: np.ndarray, detail: str) -> Finding:
    """The first trigger, and the input there."""
    row = earliest(samples.assign(value=values)[samples["trigger"] == 1])
    return Finding("suspicious", name, row["symbol"], row["timestamp"], float(row["value"]), "unknown", detail)
