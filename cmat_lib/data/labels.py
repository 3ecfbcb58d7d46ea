"""Labels: what the next H candles do, seen from the close of candle t.

``max_pct_t = 100 * (max(high_{t+1..t+H}) / close_t - 1)`` in percent; ``trigger_t`` says in one of three ways whether
that is a rise worth naming. A row whose next H candles are not all there, without a gap, has no label.
"""

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from cmat_lib.base.errors import CmatError
from cmat_lib.config.schema import AUXILIARY_TARGETS, LabelsConfig
from cmat_lib.data.sessions import stretch_ids


def compute_labels(candles: pd.DataFrame, labels: LabelsConfig, bar: pd.Timedelta) -> pd.DataFrame:
    """Trigger, largest rise and end of the label for every candle of a symbol, then its `auxiliary_targets`, (T, 7).

    trigger (0.0 or 1.0), max_pct (percent) and label_end (close of candle t+H, UTC) are NaN, NaN and NaT where there is
    no label, which includes the last H rows, also when the label comes from the file.
    ``percent``: ``max_pct >= threshold_pct``.
    ``sigma``: ``max_pct >= 100 * threshold_sigma * trailing_volatility * sqrt(H)``; rows that are not the last of
    ``volatility_window + 1`` gap-free candles, or whose volatility is 0, have no label.
    ``triple_barrier``: the high reaches ``+upper_pct`` in an earlier candle than the low reaches ``-lower_pct``, within
    H candles; a candle that touches both counts as the lower, because its path inside is unknown (Lopez de Prado,
    *Advances in Financial Machine Learning*, 2018, section 3.4, with two outcomes). `max_pct` stays the largest rise.
    Raises a CmatError if labels come from the file and `trigger` or `max_pct` is missing or has impossible values.
    """
    trigger, max_pct = _file_labels(candles) if labels.source == "file" else _rise_labels(candles, labels, bar)
    known = _horizon_is_complete(candles, bar, labels.horizon) & np.isfinite(trigger) & np.isfinite(max_pct)
    # The market may close in between: the end is that of the candle H rows on, not H bars later.
    ends = np.minimum(np.arange(len(candles)) + labels.horizon, len(candles) - 1)
    label_end = (candles.index[ends] + bar).as_unit("ns")
    found = pd.DataFrame({"trigger": trigger, "max_pct": max_pct, "label_end": label_end}, index=candles.index)
    return found.join(auxiliary_targets(candles, labels.horizon, bar)).where(pd.Series(known, index=candles.index))


def auxiliary_targets(candles: pd.DataFrame, horizon: int, bar: pd.Timedelta) -> pd.DataFrame:
    """What else the next H candles do: `AUXILIARY_TARGETS`, float32 (T, 4), NaN where they are not all there.

    Logarithms of the realised volatility (root mean square of the H one-candle log returns), the range (largest rise
    plus largest fall), the largest rise and the largest fall, in percent of the close; a little is added first, so that
    a flat market has a logarithm too.
    """
    close = candles["close"].to_numpy()
    returns = 100 * np.log(candles["close"]).diff()
    rise = _percent(candles_ahead(candles["high"], horizon).max(axis=1), close).clip(min=0)
    fall = -_percent(candles_ahead(candles["low"], horizon).min(axis=1), close).clip(max=0)
    volatility = np.sqrt(np.square(candles_ahead(returns, horizon)).mean(axis=1))
    values = np.log([volatility + 0.01, rise + fall + 0.05, rise + 0.1, fall + 0.1]).T  # (T, 4)
    values[~_horizon_is_complete(candles, bar, horizon)] = np.nan
    return pd.DataFrame(values.astype(np.float32), columns=list(AUXILIARY_TARGETS), index=candles.index)


def label_agreement(candles: pd.DataFrame, labels: LabelsConfig, bar: pd.Timedelta) -> dict[str, float]:
    """Rows with labels of the file and of the candles, share of other triggers, mean difference of max_pct."""
    sources = (labels.model_copy(update={"source": source}) for source in ("file", "computed"))
    given, computed = (compute_labels(candles, own, bar)[["trigger", "max_pct"]] for own in sources)
    both = given["trigger"].notna() & computed["trigger"].notna()
    given, computed = given[both], computed[both]
    differ = (given["trigger"] != computed["trigger"]).mean()
    difference = (given["max_pct"] - computed["max_pct"]).abs().mean()
    return {"rows": int(both.sum()), "trigger_disagreement": float(differ), "max_pct_difference": float(difference)}


def trailing_volatility(candles: pd.DataFrame, bar: pd.Timedelta, window: int) -> np.ndarray:
    """Standard deviation of the last `window` log returns, (T,), a fraction per candle; NaN until they are gap-free."""
    returns = np.log(candles["close"]).diff()
    # The return across a gap is unknown; a NaN makes every window that holds it NaN.
    returns[np.diff(stretch_ids(candles, bar), prepend=-1) != 0] = np.nan
    return returns.rolling(window).std().to_numpy()


def _rise_labels(candles: pd.DataFrame, labels: LabelsConfig, bar: pd.Timedelta) -> tuple[np.ndarray, np.ndarray]:
    """Trigger (0, 1 or NaN) and largest rise (percent), (T,) each; incomplete horizons are masked later."""
    close, highs = candles["close"].to_numpy(), candles_ahead(candles["high"], labels.horizon)  # (T,), (T, H)
    max_pct = _percent(highs.max(axis=1), close)
    if labels.mode == "triple_barrier":
        upper = _percent(highs, close[:, None]) >= labels.upper_pct  # (T, H)
        lower = _percent(candles_ahead(candles["low"], labels.horizon), close[:, None]) <= -labels.lower_pct
        first_lower = np.where(lower.any(axis=1), lower.argmax(axis=1), labels.horizon)  # (T,)
        return (upper.any(axis=1) & (upper.argmax(axis=1) < first_lower)).astype(float), max_pct
    threshold = np.full(len(candles), labels.threshold_pct)
    if labels.mode == "sigma":
        volatility = trailing_volatility(candles, bar, labels.volatility_window)
        threshold = 100 * labels.threshold_sigma * volatility * np.sqrt(labels.horizon)
        threshold[threshold == 0] = np.nan  # a flat past has no unit to measure a rise in
    return np.where(np.isnan(threshold), np.nan, max_pct >= threshold), max_pct


def _file_labels(candles: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Label columns of the file, (T,) each; a missing value means no label."""
    for name in ("trigger", "max_pct"):
        if name not in candles:
            raise CmatError(f"labels.source: file needs a column '{name}' in the candles; add it or choose computed")
    trigger, max_pct = candles["trigger"].to_numpy(dtype=float), candles["max_pct"].to_numpy(dtype=float)
    no_trigger, no_rise = ~np.isin(trigger, (0, 1)) & ~np.isnan(trigger), np.isinf(max_pct) | (max_pct <= -100)
    wrong = {"trigger": (no_trigger, "is neither 0 nor 1"), "max_pct": (no_rise, "is no rise in percent")}
    for name, (bad, problem) in wrong.items():
        if bad.any():
            value = candles[name].iloc[[bad.argmax()]]
            raise CmatError(f"column '{name}' at {value.index[0]:%Y-%m-%d %H:%M} UTC: {value.iloc[0]:g} {problem}")
    return trigger, max_pct


def _horizon_is_complete(candles: pd.DataFrame, bar: pd.Timedelta, horizon: int) -> np.ndarray:
    """Whether candle t+H exists in the gap-free stretch of candle t, (T,) bool."""
    stretch = stretch_ids(candles, bar)
    complete = np.zeros(len(candles), dtype=bool)
    complete[:-horizon] = stretch[horizon:] == stretch[:-horizon]
    return complete


def candles_ahead(prices: pd.Series, horizon: int) -> np.ndarray:
    """View of the prices of the H candles after each row, NaN past the end, (T, H)."""
    return sliding_window_view(np.concatenate([prices.to_numpy(np.float64)[1:], np.full(horizon, np.nan)]), horizon)


def _percent(price: np.ndarray, close: np.ndarray) -> np.ndarray:
    return 100 * (price / close - 1)
