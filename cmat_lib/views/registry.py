"""What a view of the market is: one record. Everything else asks these records, and names none of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.config import Config
from cmat_lib.config.inputs import TableConfig
from cmat_lib.data.cache import Sliding
from cmat_lib.data.splits import Market

if TYPE_CHECKING:
    from torch import Tensor, nn

Scaler = dict[str, list[float]]  # "center" and "scale", one number per feature each
Group = slice | int  # columns of a view


class Asked(NamedTuple):
    """For which samples a view is to be computed, and what it may use."""

    symbol: str
    market: Market  # candles of all symbols; those of `symbol` may be cut to what the samples read
    rows: np.ndarray  # (n,) rows of the symbol's candles at which samples end
    config: Config
    windows: Callable[[Sliding], np.ndarray]  # features (n, width) at `rows`: from the cache, or computed
    exact: bool = False  # in double precision where a window's numbers hang on rounding
    table: Callable[[str, TableConfig], Any] | None = None  # gives the table of a view instead of its files

    @property
    def candles(self) -> pd.DataFrame:
        """Those of the symbol."""
        return self.market[self.symbol]


class Values(NamedTuple):
    """What a view shows."""

    values: np.ndarray  # (R, F)
    rows: np.ndarray | None = None  # (n,) row of `values` at which each sample ends; None: values has a row per sample


@dataclass(frozen=True)
class View:
    """One view of the market: what it is called, how it is computed, and who encodes it.

    A view computes numbers that are known at the close of a sample's candle. A row with NaN means that the view has
    nothing to show there; with `may_be_absent` the model then sees a learned mask token in place of its encoding.
    """

    name: str  # in the parameters, in files and in tables
    title: str  # for people
    names: Callable[[Config], list[str]]  # F names of its numbers
    compute: Callable[[Asked], Values]
    # (B, F), or (B, L, F) with windows -> (B, output_dim); by default an mlp of its numbers
    encoder: Callable[[Config], nn.Module] | None = None
    look_back: Callable[[Config], int] = lambda config: 1  # candles without a gap that a sample reads, its own included
    window: Callable[[Config], int] = lambda config: 0  # L rows of its values that a sample shows; 0: one row
    groups: Callable[[Config], Mapping[str, Group]] | None = None  # columns that belong together; each by itself
    tokens: Callable[[Config], tuple[str, ...]] | None = None  # with fusion.tokens: fine, several instead of one
    scale: Callable[[np.ndarray, np.ndarray, Config], Scaler] | None = None  # values, training rows; robust by default
    rebase: Callable[[Config], Callable[[Tensor], Tensor] | None] = lambda config: None  # of windows (B, F, L), scaled
    summaries: Callable[[Tensor, Config], Tensor] | None = None  # (B, ...) -> (B, S), for trees; the last row
    summary_names: Callable[[Config], list[str]] | None = None
    width: Callable[[Config], int] | None = None  # F, where the parameters can ask for more names than memory holds
    longer: Callable[[Config, int], Config] | None = None  # the same parameters with windows k candles longer
    prepare: Callable[[Config], Any] | None = None  # what takes a while once, such as compiling, on a thread
    check: Callable[[Config], Any] = lambda config: None  # raises a CmatError for parameters that cannot be
    admit: Callable[[Market, Config], Any] = lambda market, config: None  # … for candles that cannot be used
    identity: Callable[[Config], Any] = lambda config: None  # beside its sections: what else changes its numbers
    sections: tuple[str, ...] = ()  # of the parameters, that change its numbers
    standard: bool = False  # computed for every run, seen or not: pages and baselines read it
    by_candle: bool = False  # its values have a row for each candle
    context: bool = False  # says nothing of the market by itself
    may_be_absent: bool = False
    reads_others: bool = False  # the candles of the other symbols too
    files: Callable[[Config], list[Path]] = lambda config: []  # what it reads beside candles
    problem: Callable[[Asked], str | None] = lambda asked: None  # why the newest sample cannot be scored

    def parts(self, config: Config) -> dict[str, Group]:
        """Columns of each group of features, for permutation."""
        return dict(self.groups(config)) if self.groups else {n: i for i, n in enumerate(self.names(config))}

    def shape(self, config: Config) -> tuple[int, ...]:
        """Of one sample: (F,), or (L, F)."""
        rows = self.window(config)
        return (*([rows] if rows else []), len(self.names(config)))


# Rows of tables beside those of views: baselines, fusions, whole models.
TAKEN = {"full", "modality", "self", "ohlcv", "base_rate", "volatility", "trees", "logistic", "har", "oracle"}
TAKEN |= {"cross_modal_attention", "bottleneck", "gated", "concat", *dir(dict)}


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in TAKEN:
        advice = "write small letters, digits and _, and no word of this library"
        raise CmatError(f"a view cannot be named '{name}'; {advice}")


@dataclass
class Registry:
    """Views by name. Tables of the parameters are views too, of a run."""

    views: dict[str, View] = field(default_factory=dict)
    of_table: Callable[[str, TableConfig], View] | None = None

    def add(self, view: View) -> None:
        """Make a view known; a CmatError if its name is taken."""
        _check_name(view.name)
        if self.views.setdefault(view.name, view) != view:
            raise CmatError(f"there is a view '{view.name}' already; give yours another name")

    def known(self, config: Config) -> dict[str, View]:
        """All views that a run could see, in order."""
        tables = config.views.tables
        for name in tables:
            _check_name(name)
        if taken := [name for name in tables if name in self.views]:
            raise CmatError(f"views.{taken[0]}: '{taken[0]}' is the name of another view; give the table another one")
        return self.views | {name: self.of_table(name, table) for name, table in tables.items()}

    def active(self, config: Config) -> list[View]:
        """Views that are computed: the standard ones, and those that the model sees."""
        return [v for v in self.known(config).values() if v.standard or v.name in config.model.modalities]

    def seen(self, config: Config) -> list[View]:
        """Views that the model sees, in order; a CmatError for an unknown name, or if nothing of the market is seen."""
        known = self.known(config)
        for name in config.model.modalities:
            if name not in known:
                own = "; a view of your own needs its file: --parts FILE.py"
                raise CmatError(f"model.modalities: there is no view '{name}'{nearest(name, known)}{own}")
        seen = [view for name, view in known.items() if name in config.model.modalities]
        if all(view.context for view in seen):
            alone = f"model.modalities lists {seen[0].name} alone"
            raise CmatError(f"{alone}, which says nothing of the market; add another view")
        return seen

    def check(self, config: Config) -> None:
        """Raise a CmatError for views that cannot be computed as the parameters ask for them."""
        from torch import nn

        for view in self.seen(config):
            if hasattr(nn.ModuleDict(), view.name):
                raise CmatError(f"a view cannot be named '{view.name}', which torch has taken; choose another name")
        for view in self.active(config):
            view.check(config)

    def look_back(self, config: Config) -> int:
        """Candles that one sample reads, the newest included."""
        return max(view.look_back(config) for view in self.active(config))
