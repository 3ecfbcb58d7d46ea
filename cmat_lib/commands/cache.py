"""``cmat cache``: build, look at, check and empty the feature cache."""

import logging
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.options import Assignments, Params, add_commands, assign, examples
from cmat_lib.config import load_config, merge, resolve_path
from cmat_lib.config.schema import CacheConfig

cache_app = typer.Typer(no_args_is_help=True, help="Build, look at, check or empty the feature cache.")

CacheDir = Annotated[str | None, typer.Option("--cache-dir", help="cache.dir; that of the defaults without it.")]


@examples("cmat cache build --params params/demo.yaml")
def build(params: Params = None, assignments: Assignments = None, cache_dir: CacheDir = None) -> None:
    """Compute the features of every window that the cache does not have yet; no run is needed or made."""
    own = {} if cache_dir is None else {"cache": {"dir": cache_dir}}
    config = load_config(params, merge(assign(assignments), own))
    logging.basicConfig(level=config.logging.level, format="%(message)s")
    from cmat_lib.workflow.stages.features import build_cache

    build_cache(config)
    info(config.cache.dir)


@examples("cmat cache info")
def info(cache_dir: CacheDir = None) -> None:
    """Show what the cache holds."""
    folder, table = _content(cache_dir)
    print(f"{folder}: {len(table)} folders, {table['megabytes'].sum():.1f} MB")
    if len(table):
        print(table.to_string(index=False, float_format="{:.1f}".format))


@examples("cmat cache verify")
def verify(cache_dir: CacheDir = None) -> None:
    """Check every chunk against its checksum; exit code 1 if one is damaged. The next build repairs it."""
    from cmat_lib.data import cache

    folder, table = _content(cache_dir)
    if lines := cache.verify(folder):
        print("\n".join(lines))
        raise typer.Exit(1)
    print(f"{folder}: {len(table)} folders, {table['windows'].sum()} windows, all as they were written")


@examples("cmat cache clean")
def clean(cache_dir: CacheDir = None) -> None:
    """Delete all cached features, without asking; finished runs have their own copy."""
    from cmat_lib.data import cache

    folder, table = _content(cache_dir)
    freed = cache.clean(folder)
    for name in table["folder"]:
        print(f"deleted {name}")
    print(f"{folder}: {freed / 1e6:.1f} MB freed")


def _content(cache_dir: str | None) -> tuple[Path, pd.DataFrame]:
    """Folder of the cache, and what is in it."""
    from cmat_lib.data.cache import cache_info

    folder = resolve_path(cache_dir or CacheConfig().dir)
    if not folder.is_dir():
        raise CmatError(f"{folder}: no such cache folder; 'cmat cache build' makes one")
    return folder, cache_info(folder)


add_commands(cache_app, build, info, verify, clean)
