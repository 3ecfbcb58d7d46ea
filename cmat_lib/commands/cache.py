"""``cmat cache``: build, look at, check and empty the feature cache."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.help import examples
from cmat_lib.commands.options import Assignments, assign
from cmat_lib.config import load_config, merge, resolve_path
from cmat_lib.config.schema import CacheConfig

cache_app = typer.Typer(no_args_is_help=True, help="Build, look at, check or empty the feature cache.")

CacheDir = Annotated[str | None, typer.Option("--cache-dir", help="cache.dir; that of the defaults without it.")]


@cache_app.command(epilog=examples("cache build"))
def build(
    params: Annotated[Path | None, typer.Option("--params", help="Parameter file; the defaults without it.")] = None,
    assignments: Assignments = None,
    cache_dir: CacheDir = None,
) -> None:
    """Compute the features of every window that the cache does not have yet; no run is needed or made."""
    changes = assign(assignments)
    if cache_dir is not None:
        changes = merge(changes, {"cache": {"dir": cache_dir}})
    config = load_config(params, changes)
    logging.basicConfig(level=config.logging.level, format="%(message)s")
    from cmat_lib.workflow.stages.features import build_cache

    build_cache(config)
    info(config.cache.dir)


@cache_app.command(epilog=examples("cache info"))
def info(cache_dir: CacheDir = None) -> None:
    """Show what the cache holds."""
    from cmat_lib.data.cache import cache_info

    table = cache_info(_folder(cache_dir))
    print(f"{_folder(cache_dir)}: {len(table)} folders, {table['megabytes'].sum():.1f} MB")
    if len(table):
        print(table.to_string(index=False, float_format="{:.1f}".format))


@cache_app.command(epilog=examples("cache verify"))
def verify(cache_dir: CacheDir = None) -> None:
    """Check every chunk against its checksum; exit code 1 if one is damaged. The next build repairs it."""
    from cmat_lib.data.cache import cache_info
    from cmat_lib.data.cache import verify as damaged_chunks

    lines = damaged_chunks(_folder(cache_dir))
    for line in lines:
        print(line)
    if lines:
        raise typer.Exit(1)
    table = cache_info(_folder(cache_dir))
    print(f"{_folder(cache_dir)}: {len(table)} folders, {table['windows'].sum()} windows, all as they were written")


@cache_app.command(epilog=examples("cache clean"))
def clean(cache_dir: CacheDir = None) -> None:
    """Delete all cached features, without asking; finished runs have their own copy."""
    from cmat_lib.data.cache import cache_info
    from cmat_lib.data.cache import clean as delete_features

    folder = _folder(cache_dir)
    names = cache_info(folder)["folder"]
    freed = delete_features(folder)
    for name in names:
        print(f"deleted {name}")
    print(f"{folder}: {freed / 1e6:.1f} MB freed")


def _folder(cache_dir: str | None) -> Path:
    folder = resolve_path(cache_dir or CacheConfig().dir)
    if not folder.is_dir():
        raise CmatError(f"{folder}: no such cache folder; 'cmat cache build' makes one")
    return folder
