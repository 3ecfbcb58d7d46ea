"""``cmat compare``: finished runs side by side."""

from collections.abc import Mapping
from typing import Annotated

import pandas as pd
import typer

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.options import examples
from cmat_lib.evaluation.metrics import MODEL
from cmat_lib.workflow.run import Run, open_run

ROW = ["symbol", "timestamp"]


@examples("cmat compare outputs/demo outputs/concat")
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Run folders, the one in question first.")],
) -> None:
    """Scores of finished runs on the test rows they share, and the first run minus each other, with intervals."""
    from cmat_lib.evaluation.breakdown import with_intervals
    from cmat_lib.evaluation.names import metric_name
    from cmat_lib.evaluation.uncertainty import Resampling, draw_scores

    opened: dict[str, Run] = {}
    for name in runs:  # their candles need not be there any more, nor the code that made them
        opened[name] = run = open_run(name, "05_evaluation")
        if run.record(run.stage) is None:
            raise CmatError(f"{name} is not evaluated yet; run notebooks/05_evaluation.ipynb or `cmat run` first")
    if len(opened) < 2:
        raise CmatError("compare needs two different runs or more")
    frame = common_rows({name: run.read_frame("predictions.parquet") for name, run in opened.items()})
    thresholds = {name: run.read_json("metrics.json")["thresholds"][MODEL] for name, run in opened.items()}
    config = opened[runs[0]].config
    draws = draw_scores(frame, thresholds, Resampling.from_config(config), config.evaluation.top_shares)
    span = f"{frame['timestamp'].min():%Y-%m-%d} to {frame['timestamp'].max():%Y-%m-%d}"
    print(f"{len(frame):,} test rows in common, {frame['symbol'].nunique()} symbols, {span}")
    print(f"base rate {frame['trigger'].mean():.2%}; block-bootstrap intervals of {draws.confidence:.0%}")
    tables = {"score": ("scores", draws.table()), "baseline": (f"{runs[0]} minus", draws.differences(runs[0]))}
    for level, (title, table) in tables.items():
        text = with_intervals(table).unstack(level, sort=False).rename(index=metric_name, level="metric")
        print(f"\n{title}\n{text.rename_axis(columns=None).to_string()}")


def common_rows(predictions: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Test rows that all runs have, with one pair of score columns per run.

    ``symbol``, ``timestamp``, ``trigger``, and ``raw_<run>`` and ``<run>`` of every run. A CmatError if two runs share
    no test row, or call different rows triggers; if a run's name is that of another column.
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
