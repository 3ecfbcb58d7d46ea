"""``cmat compare``: finished runs side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.options import examples
from cmat_lib.workflow.run import Run, open_run


@examples("cmat compare outputs/demo outputs/concat")
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Run folders, the one in question first.")],
) -> None:
    """Scores of finished runs on the test rows they share, and the first run minus each other, with intervals."""
    from cmat_lib.commands.comparison import common_rows
    from cmat_lib.evaluation.breakdown import with_intervals
    from cmat_lib.evaluation.metrics import MODEL
    from cmat_lib.evaluation.names import metric_name
    from cmat_lib.evaluation.uncertainty import Resampling, draw_scores

    opened = {name: _evaluated(name) for name in runs}
    if len(opened) < 2:
        raise CmatError("compare needs two different runs or more")
    frame = common_rows({name: run.read_frame("predictions.parquet") for name, run in opened.items()})
    thresholds = {name: run.read_json("metrics.json")["thresholds"][MODEL] for name, run in opened.items()}
    config = opened[runs[0]].config
    draws = draw_scores(frame, thresholds, Resampling.from_config(config), config.evaluation.top_shares)
    first, last = frame["timestamp"].min(), frame["timestamp"].max()
    symbols = frame["symbol"].nunique()
    print(f"{len(frame):,} test rows in common, {symbols} symbols, {first:%Y-%m-%d} to {last:%Y-%m-%d}")
    print(f"base rate {frame['trigger'].mean():.2%}; block-bootstrap intervals of {draws.confidence:.0%}")
    for title, table, level in (
        ("scores", draws.table(), "score"),
        (f"{runs[0]} minus", draws.differences(runs[0]), "baseline"),
    ):
        text = with_intervals(table).unstack(level, sort=False).rename(index=metric_name, level="metric")
        print(f"\n{title}\n{text.rename_axis(columns=None).to_string()}")


def _evaluated(folder: str) -> Run:
    """Run whose stage 05 is finished; its candles need not be there any more, nor the code that made it."""
    run = open_run(folder, "05_evaluation")
    if run.record(run.stage) is None:
        raise CmatError(f"{folder} is not evaluated yet; run notebooks/05_evaluation.ipynb or `cmat run` first")
    return run
