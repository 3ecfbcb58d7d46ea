"""Finished runs side by side on the test rows that they share."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.evaluation.metrics import MODEL

ROW = ["symbol", "timestamp"]


def common_rows(predictions: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Test rows that all runs have, with one pair of score columns per run.

    Parameters
    ----------
    predictions : mapping
        Name of a run -> its predictions frame.

    Returns
    -------
    DataFrame
        ``symbol``, ``timestamp``, ``trigger``, and ``raw_<run>`` and ``<run>`` of every run.

    Raises
    ------
    CmatError
        If two runs share no test row, or call different rows triggers; if a run's name is that of another column.
    """
    columns = [*ROW, "trigger", *(f"raw_{name}" for name in predictions)]
    if taken := [name for name in predictions if name in columns]:
        raise CmatError(f"'{taken[0]}' is the name of a column here; name that run by another path, ./{taken[0]}")
    merged, first = None, next(iter(predictions))
    for name, frame in predictions.items():
        test = frame.loc[frame["part"] == "test", [*ROW, "trigger", f"raw_{MODEL}", MODEL]]
        test = test.rename(columns={MODEL: name, f"raw_{MODEL}": f"raw_{name}"})
        if merged is None:
            merged = test
            continue
        both = merged.merge(test, on=ROW, suffixes=("", "_other"))
        if both.empty:
            raise CmatError(
                f"{first} and {name} have no test row (symbol and time) in common: {first} tests {_extent(merged)}, "
                f"{name} {_extent(test)}; compare runs over the same candles and split (data)"
            )
        if (differ := (both["trigger"] != both.pop("trigger_other")).mean()) > 0:
            raise CmatError(f"{first} and {name} have other triggers in {differ:.1%} of their common rows; see labels")
        merged = both
    return merged


def _extent(test: pd.DataFrame) -> str:
    symbols = sorted(test["symbol"].unique())
    listed = ", ".join(symbols[:4]) + (f" and {len(symbols) - 4} more" if len(symbols) > 4 else "")
    return f"{listed} from {test['timestamp'].min():%Y-%m-%d} to {test['timestamp'].max():%Y-%m-%d}"
