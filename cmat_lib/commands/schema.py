"""``cmat schema``: the JSON schemas of parameter and sweep files, and the file of defaults."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cmat_lib.base.files import write_text
from cmat_lib.commands.options import examples
from cmat_lib.config import Config, project_root
from cmat_lib.config.load import commented_defaults


@examples("cmat schema", "cmat schema --defaults")
def schema(
    output: Annotated[
        Path | None, typer.Argument(help="File to write; by default params/schema.json and params/sweep.schema.json.")
    ] = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Also rewrite params/default.yaml from the schema.")
    ] = False,
) -> None:
    """Write the JSON schemas of the parameter and sweep files, so that editors complete and check them."""
    from cmat_lib.commands.sweep.file import Sweep

    folder = project_root() / "params"
    models = {output: Config} if output else {folder / "schema.json": Config, folder / "sweep.schema.json": Sweep}
    texts = {path: json.dumps(model.model_json_schema(), indent=2) + "\n" for path, model in models.items()}
    if defaults:
        texts[folder / "default.yaml"] = commented_defaults()
    for path, text in texts.items():
        write_text(path, text)
        print(path)
