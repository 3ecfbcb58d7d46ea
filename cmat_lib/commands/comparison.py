"""Finished runs side by side on the test rows that they share."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError
from cmat_lib.evaluation.metrics import MODEL
from cmat_lib.workflow.run import Run

ROW = ["symbol", "timestamp"]


def read_predictions(run: Run) -> pd.DataFrame:
    """Predictions of a run, checked.

    Raises
    ------
    CmatError
        If ``predictions.parquet`` has no test row, a row twice, or no finite score in one of the test part.
    """
    path, scores = run.path("predictions.parquet"), ["trigger", f"raw_{MODEL}", MODEL]
    kinds = {"symbol": "texts", "timestamp": "times in UTC", "part": "texts"} | dict.fromkeys(scores, "numbers")
    frame = run.read_frame("predictions.parquet", kinds)
    test = frame[frame["part"] == "test"]
    again = "run notebooks/05_evaluation.ipynb again"
    if test.empty:
        raise CmatError(f"{path} has no row of the test part; {again}")
    if (twice := frame.duplicated(ROW)).any():
        row = frame[twice].iloc[0]
        raise CmatError(f"{path} has the row of {row['symbol']} at {row['timestamp']} more than once; {again}")
    for name in scores:
        if not np.isfinite(test[name].to_numpy(np.float64)).all():
            raise CmatError(f"{path} has test rows without a finite number in column '{name}'; {again}")
    return frame


def read_threshold(run: Run) -> float:
    """Threshold of the model's probability in ``metrics.json``.

    Raises
    ------
    CmatError
        If there is none.
    """
    content = run.read_json("metrics.json")
    thresholds = content.get("thresholds") if isinstance(content, dict) else None
    threshold = thresholds.get(MODEL) if isinstance(thresholds, dict) else None
    if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
        place = f"{run.path('metrics.json')} has no probability at thresholds.{MODEL}"
        raise CmatError(f"{place}; run notebooks/05_evaluation.ipynb again")
    return float(threshold)
