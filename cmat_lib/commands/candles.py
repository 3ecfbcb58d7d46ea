"""``cmat candles``: how a file or folder of candles is understood."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from cmat_lib.base.errors import CmatError
from cmat_lib.base.files import write_text
from cmat_lib.commands.options import Assignments, assign, examples
from cmat_lib.config import load_config

ABOUT = "# yaml-language-server: $schema=schema.json\n# How these candles are read; other keys are the defaults.\n"


@examples(
    "cmat candles /path/to/candles",
    'cmat candles EURUSD.csv --set "data.columns={close: Last}" --write params/mine.yaml',
)
def candles(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or a folder of candles.")],
    assignments: Assignments = None,
    write: Annotated[Path | None, typer.Option(help="Parameter file to write, such as params/mine.yaml.")] = None,
) -> None:
    """Show how candle files are understood, before anything runs: maker, columns, times, gaps, parameters to write.

    What is not as it should be is told with --set, such as --set "data.columns={close: Last}", and shown again.
    """
    from cmat_lib.data.sources.choice import left_out
    from cmat_lib.data.sources.report import proposed, understood

    told = assign(assignments).get("data", {}) | {"data_dir": path}
    keys = proposed(load_config(changes={"data": told}).data) | told
    data = load_config(changes={"data": keys}).data
    table = understood(data)
    for symbol, row in table.iterrows():
        print(f"{symbol}\n" + "\n".join(f"  {name:<14} {value}" for name, value in row.items() if value))
    for other, why in left_out(data).items():
        print(f"left out: {other.name} ({why})")
    text = yaml.safe_dump({"data": keys}, sort_keys=False, allow_unicode=True)
    print(f"\nParameters:\n\n{text}")
    if write is not None:
        if write.exists():
            raise CmatError(f"--write {write}: there is such a file; choose another name, or remove it")
        write_text(write, ABOUT + text)
        print(f"written: {write}")
    if (problems := table["problem"] != "").any():
        raise CmatError(f"{problems.sum()} of {len(table)} symbols cannot be read as they are; the table says why")
