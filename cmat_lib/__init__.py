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
"""

__version__ = "0.1.0"
