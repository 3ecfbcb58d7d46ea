"""``cmat predict`` and ``cmat export``: what a run says about new candles, and its model for other programs."""

import time
from pathlib import Path
from typing import Annotated

import typer

from cmat_lib.commands.options import examples, utc_time
from cmat_lib.config import resolve_path
from cmat_lib.workflow.run import open_run

RunOption = Annotated[
    str, typer.Option("--run", metavar="RUN", help="Run folder such as outputs/demo, or a best_model.pt.")
]


@examples(
    "cmat predict --run outputs/demo",
    "cmat predict --run outputs/demo --since 2024-12-01 --output predictions.parquet",
    "cmat predict --run outputs/demo --data-dir /path/to/candles --output predictions.csv --follow",
)
def predict(
    run: RunOption,
    data_dir: Annotated[
        str | None, typer.Option(help="Folder of candle files; without it the data that the run was made from.")
    ] = None,
    symbols: Annotated[str | None, typer.Option(help="Symbols, separated by commas; all by default.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="First candle open to score (UTC), for example 2025-06-01.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write, .parquet or .csv; without it CSV goes to the terminal.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on as the files grow, until Ctrl-C; needs .csv or the terminal.")
    ] = False,
    poll: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at the files with --follow.")] = 10.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    jobs: Annotated[int, typer.Option(help="Processes that compute features; -1 is one per core.")] = 1,
) -> None:
    """Score candles with the model of a run: probability of a trigger, alarm, and expected largest rise.

    With --output or --since every candle from there on is scored, otherwise only the newest of each symbol. A candle
    that is not over yet is never scored. With --follow and an --output that exists, scoring goes on where it ends.
    """
    from cmat_lib.workflow.follow import CsvOutput, Follower, check_ending, write_predictions
    from cmat_lib.workflow.predictor import Predictor

    if output is not None:
        check_ending(output)
    predictor = Predictor(model_file(run), device, jobs)
    chosen = symbols.split(",") if symbols else None
    data = predictor.data(data_dir, chosen)
    first = None if since is None else utc_time(since, "--since")
    if follow:
        lines = CsvOutput(output, predictor.name)
        follower = Follower(predictor, data, first, lines.last, chosen)
        while True:
            for scores in follower.look():
                lines.append(scores)
            time.sleep(poll)
    market = predictor.market(data)
    predictor.refuse_stale(market, chosen)
    if first is None and output is None:
        first = {symbol: candles.index.max() for symbol, candles in market.items()}
    write_predictions(predictor.scores(market, first, progress=None, symbols=chosen), output)


@examples("cmat export --run outputs/demo --output model.pt2")
def export(
    run: RunOption, output: Annotated[Path, typer.Option(help="File to write, .pt2.")] = Path("model.pt2")
) -> None:
    """Write the model of a run as a torch.export program, which runs without CMAT's code.

    It takes scaled inputs; the scalers, the calibration, the threshold and the names of all inputs are in the file too
    (torch.export.load with extra_files={"cmat.json": ""}).
    """
    from cmat_lib.workflow.export import export_model

    export_model(model_file(run), output)
    print(output)


def model_file(run: str) -> Path:
    """``best_model.pt`` of a run folder; the path itself if it is a file; a CmatError if there is no run."""
    path = resolve_path(run)
    return path if path.is_file() else open_run(run, "04_training").model_path()
