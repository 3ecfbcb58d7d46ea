"""What stands at the end of every ``--help``: examples, each tested to be a command that is understood; exit codes."""

from __future__ import annotations

EXAMPLES = {
    "run": (
        "cmat run params/demo.yaml",
        "cmat run params/demo.yaml --set fusion.fusion_type=concat --run-dir outputs/concat",
        "cmat run params/demo.yaml --grid fusion.fusion_type=concat,gated --grid seed=1,2,3 --jobs 2",
        "cmat run params/demo.yaml --from 04 --until 05",
    ),
    "train": (
        "cmat train --params params/demo.yaml --epochs 3",
        "cmat train --params params/demo.yaml --resume",
    ),
    "sweep": (
        "cmat sweep params/sweep.yaml --trials 40 --jobs 2",
        "cmat run outputs/sweep/best.yaml",
    ),
    "runs": ("cmat runs", "cmat runs outputs --csv runs.csv"),
    "compare": ("cmat compare outputs/demo outputs/concat",),
    "ablate": (
        "cmat ablate params/demo.yaml",
        "cmat ablate params/demo.yaml --rows trees+clock,full,concat --seeds 1",
    ),
    "candles": (
        "cmat candles /path/to/candles",
        'cmat candles EURUSD.csv --set "data.columns={close: Last}" --write params/mine.yaml',
    ),
    "download": (
        "cmat download BTC/USDT ETH/USDT --exchange binance --timeframe 15m --since 2023-01-01",
        "cmat download BTC/USDT --since 2024-01-01 --until 2024-07-01 --data-dir candles",
    ),
    "predict": (
        "cmat predict --run outputs/demo",
        "cmat predict --run outputs/demo --since 2024-12-01 --output predictions.parquet",
        "cmat predict --run outputs/demo --data-dir /path/to/candles --output predictions.csv --follow",
    ),
    "export": ("cmat export --run outputs/demo --output model.pt2",),
    "audit": ("cmat audit outputs/demo", "cmat audit outputs/demo --rows 1000 --seed 1"),
    "doctor": ("cmat doctor", "cmat doctor --params params/crypto_15m.yaml --set data.data_dir=/path/to/candles"),
    "schema": ("cmat schema", "cmat schema --defaults"),
    "cache build": ("cmat cache build --params params/demo.yaml",),
    "cache info": ("cmat cache info",),
    "cache verify": ("cmat cache verify",),
    "cache clean": ("cmat cache clean",),
}
MAIN_EPILOG = (
    "First steps: cmat doctor, cmat run params/demo.yaml, cmat runs. Every command has examples in its --help.\n\n"
    "Exit codes: 0 all went well · 1 a mistake in the input or a run that failed, with a message that says what to do"
    " · 2 the command line was not understood · 130 interrupted (Ctrl-C)\n\n"
    "Completion with the Tab key: cmat --install-completion"
)


def examples(command: str) -> str:
    """Epilog of a command, one example per line (typer keeps a line break where a blank line stands)."""
    return "\n\n".join(("Examples:", *EXAMPLES[command]))
