"""CMAT: three views of a market, fused by attention.

Letters for shapes, everywhere in this library:

======  ==========================================================
``B``   batch
``T``   look-back of the OHLCV window, in candles
``H``   horizon of the label, in candles
``C``   channels
``M``   tokens (modalities)
``D``   token width
``h``   attention heads
``P``   points of one embedded window
``N``   windows
======  ==========================================================

Some arguments are the same everywhere: `candles` are the checked candles of one symbol, T rows by candle open; `market`
those of each symbol; `bar` the length of a candle; `horizon` H in candles; `samples` what
`cmat_lib.views.samples.build_samples` gives, N rows, and `spans` what `cmat_lib.data.splits.split_spans` gives; `frame`
the predictions of one part, N rows; `trigger` 0 or 1 and `timestamps` a moment for each row; `tokens` M names; `batch`
B samples; `confidence` the coverage of intervals, in (0, 1); `size` the samples per forward pass; `say` takes lines of
progress. A parameter that a docstring does not list is what its name and annotation say.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# What a program needs, by the module that has it; imported when it is asked for, because torch takes seconds.
_NAMES = {
    "Config": "config",
    "load_config": "config",
    "Fitted": "workflow.library",
    "fit": "workflow.library",
    "load": "workflow.library",
    "build_model": "models",
    "use_parts": "base.parts",
    "VIEWS": "views",
    "View": "views",
    "Values": "views",
}
__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'cmat_lib' has no attribute '{name}'")
    return getattr(import_module(f"cmat_lib.{_NAMES[name]}"), name)
