"""Rows of a table that candles get before they were published: by the table's own word, and by what candles did."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from cmat_lib.commands.audit.subject import Finding, Report, Subject
from cmat_lib.config.inputs import TableConfig
from cmat_lib.views.table import known_at, read
from cmat_lib.views.table_files import Table

# Times that lie ahead of a row by their meaning say nothing of when it was published.
AHEAD = re.compile(r"next|expir|matur|deliver|due|until", re.IGNORECASE)
LONGEST_DELAY = pd.Timedelta("366D")  # numbers that only happen to read as times lie decades away

# Products of the centred rank of a change and the signed rank of a return (the rank of its size, with its sign): if
# the signs are a fair coin to whoever knows the table's rows so far, their sum over the root of the sum of squares
# is beyond t with a chance below 2·exp(-t²/2), whatever the sizes do (Hoeffding 1963): 8.0e-5 for 4.5. A table that
# knows how large a return will be is no exception; with ranks about the median, as Spearman's, it would be one.
LARGEST_T = 4.5
# What is honest may know a little of the sign. A rank correlation of 0.2 explains 4 % of a return; over a day or longer
# no honest input is known to, but for fast tables (order books) the chance alone would be a weak reason.
LARGEST_RHO = 0.2
# Correlation times the root of the rows a year: the Sharpe ratio of betting on the sign (Grinold 1989), before costs.
LARGEST_RATIO = 4.0
YEAR = 365.25 * 24 * 3_600 * 1e9  # nanoseconds


class Early(NamedTuple):
    """A column that candles are shown too early."""

    column: str
    time: pd.Timestamp  # of its first row that was published later, or from which its first change is said to be known
    rows: int  # that were published later, or that were compared
    sentence: str
    rho: float = np.nan  # rank correlation with what candles do afterwards
    t: float = np.nan  # of it, whatever the sizes do


def check_tables(subject: Subject) -> Report:
    """Tables of the run against their own times of publication, and against what candles did."""
    config, seen = subject.config, {view.name for view in subject.views}
    tables = {name: about for name, about in config.views.tables.items() if name in seen}
    closes = {s: candles["close"].set_axis(candles.index + config.data.bar) for s, candles in subject.market.items()}
    findings, rows = [], 0
    for name, about in tables.items():
        table = read(name, about)
        rows += len(table.frame)
        late = late_publication(name, table, about)
        named = {found.column for found in late}
        early = [found for found in moves_early(name, table, closes, about) if found.column not in named]
        for cause, columns in (("published", late), ("early", early)):
            findings += [Finding(cause, f"{name}.{f.column}", "", f.time, detail=f.sentence) for f in columns]
    return Report(f"{rows:,} rows of {', '.join(tables)}", findings)


def late_publication(name: str, table: Table, config: TableConfig) -> list[Early]:
    """Rows that are joined before another column of times says that they were published.

    Such a column lies at or after the time that is used in at least half of the rows, by no more than a year (median),
    and its name is not one of `AHEAD`. Its times, where they bring no zone, are of `config.zone`, else UTC. It finds
    times that are shifted to an earlier row, a lag below the true one, and values that were filled back into earlier
    rows, if the time of publication came along or stayed empty; not values that were filled back beside another
    column's time of publication, nor times of publication that are wrong themselves.
    """
    found = []
    for other, published in table.others.items():
        delays = (published - table.frame["time"]).dropna()
        behind = len(delays) > 0 and (delays >= pd.Timedelta(0)).mean() >= 0.5 and delays.median() <= LONGEST_DELAY
        if not behind or AHEAD.search(other):
            continue
        for column in config.columns:
            late = _late_rows(table, column, published, config)
            if late.any():
                found.append(_late(name, table, column, published.rename(other), late, config))
    return found


def _late_rows(table: Table, column: str, published: pd.Series, config: TableConfig) -> np.ndarray:
    """Rows of a value that are joined before it was published.

    A row whose time of publication is empty is late if its value is that of the next row that has one, not that of the
    row before that has one, and is joined before the next was published.
    """
    joined, values = known_at(table, config), table.frame[column]
    groups = table.frame["symbol"] if "symbol" in table.frame else np.zeros(len(values))
    told = values.where(published.notna()).groupby(groups)  # of the rows that say when they were published
    filled = published.isna() & (values == told.bfill()) & (values != told.ffill())
    filled &= published.groupby(groups).bfill() > joined
    return ((filled | (published > joined)) & values.notna()).to_numpy()


def _late(name: str, table: Table, column: str, published: pd.Series, late: np.ndarray, config: TableConfig) -> Early:
    first, other = int(late.argmax()), published.name
    joined, when = known_at(table, config).iloc[first], published.iloc[first]
    what = f"was published at {when} ('{other}')" if pd.notna(when) else f"has the next row's value, and no '{other}'"
    lag = (published - table.frame["time"])[late].max()
    needed = f"the longest delay is {lag}; " if pd.notna(lag) else ""
    mend = f"use '{other}' as views.{name}.time with lag 0h, or correct views.{name}.lag or the file"
    sentence = f"{table.place(first)}: column '{column}' is joined from {joined} on and {what}; {needed}{mend}"
    time, rows = table.frame["time"].iloc[first], int(late.sum())
    return Early(column, time, rows, f"{sentence} (rows affected: {rows})")


def moves_early(name: str, table: Table, prices: Mapping[str, pd.Series], config: TableConfig) -> list[Early]:
    """Columns whose change goes with the candles' return after it, more than what is known by then can.

    Of each row, the change of the column from the row before; and the log return from the first close at or after the
    row is known (time plus lag) to the first one at or after the next row is: the mean over symbols, or of its own
    symbol in a table of symbols. Of rows within one candle the last one counts. A column is named if t, Spearman's rank
    correlation and the Sharpe ratio are all beyond the limits above.

    It cannot tell a late join from a column that honestly knows as much of the sign, and it is blind to columns that do
    not move with the candles: those of a day's funding, or of the dollar index, which correlate below 0.13 with the
    candles of their own day, look the same whether they are joined in time or a day early; so does any table of fewer
    than 21 rows, or one that is early by a small part of its own interval. Where returns are skewed strongly, a column
    that knows their size knows something of their sign, too, and the chance for t does not hold.

    `prices` are closing prices of each symbol by the time of the close (not the open), in UTC.
    """
    parts = {c: [part for part in _pairs(table, c, prices, config) if len(part) > 2] for c in config.columns}
    return [early for column, own in parts.items() if own for early in _judge(name, table, column, own)]


def _pairs(table: Table, column: str, prices: Mapping[str, pd.Series], config: TableConfig) -> list[pd.DataFrame]:
    """Columns known (nanoseconds), change and return of what the column's rows say: once, or for each symbol."""
    rows = pd.DataFrame({"known": known_at(table, config), "value": table.frame[column]}).dropna()
    if "symbol" not in table.frame:
        return [_changes(rows, list(prices.values()))]
    own = table.frame["symbol"][rows.index]
    return [_changes(rows[own == symbol], [series]) for symbol, series in prices.items()]


def _changes(rows: pd.DataFrame, prices: list[pd.Series]) -> pd.DataFrame:
    known = pd.DatetimeIndex(rows["known"]).as_unit("ns").asi8
    closes = [pd.DatetimeIndex(series.index).as_unit("ns").asi8 for series in prices]
    candle = np.searchsorted(np.unique(np.concatenate(closes)), known)
    last = np.append(candle[1:] != candle[:-1], True)[: len(known)]
    known, values = known[last], rows["value"].to_numpy()[last]
    if len(known) < 3:
        return pd.DataFrame(columns=["known", "change", "return"])
    levels = np.column_stack([_level(c, series, known) for c, series in zip(closes, prices, strict=True)])
    steps = np.diff(levels, axis=0)[1:]
    counts = np.isfinite(steps).sum(axis=1)
    mean = np.divide(np.nansum(steps, axis=1), counts, out=np.full(len(steps), np.nan), where=counts > 0)
    return pd.DataFrame({"known": known[1:-1], "change": np.diff(values)[:-1], "return": mean}).dropna()


def _level(closes: np.ndarray, series: pd.Series, known: np.ndarray) -> np.ndarray:
    """Log price at the first close at or after each time; NaN before the first candle and after the last."""
    level = np.append(np.log(series.to_numpy(np.float64)), np.nan)[np.searchsorted(closes, known)]
    return np.where(known < closes[0], np.nan, level)


def _judge(name: str, table: Table, column: str, parts: list[pd.DataFrame]) -> Iterator[Early]:
    known = np.concatenate([part["known"].to_numpy(np.int64) for part in parts])
    products = pd.Series(np.concatenate([_products(part) for part in parts]))
    # Symbols of one day share its returns: their products count as one.
    interval = max(1, int(np.median([np.median(np.diff(part["known"])) for part in parts])))
    sums = products.groupby((known - known.min()) // interval).sum().to_numpy()
    size, years = np.sqrt((sums**2).sum()), (known.max() - known.min()) / YEAR
    if size == 0 or years == 0:
        return
    t = float(sums.sum() / size)
    rho = float(np.average([_correlation(part) for part in parts], weights=[len(part) for part in parts]))
    ratio = abs(rho) * np.sqrt(len(sums) / years)
    if abs(t) <= LARGEST_T or abs(rho) <= LARGEST_RHO or ratio <= LARGEST_RATIO:
        return
    sentence = (
        f"{table.source}: changes of column '{column}' go with the returns of the candles after they are said to be "
        f"known: rank correlation {rho:.2f} over {len(products)} rows (t {t:.1f}, the limit is {LARGEST_T}); whoever "
        f"bet on it would have a Sharpe ratio of {ratio:.0f}: they are joined too early; correct views.{name}.lag and "
        f"views.{name}.zone"
    )
    yield Early(column, pd.Timestamp(known.min(), tz="UTC"), len(products), sentence, rho, t)


def _products(part: pd.DataFrame) -> np.ndarray:
    """Centred ranks of changes times signed ranks of returns, by the number of rows, so that symbols weigh alike."""
    returns = part["return"].to_numpy()
    return _centred_ranks(part["change"]) * np.sign(returns) * rankdata(np.abs(returns)) / len(part) ** 2


def _correlation(part: pd.DataFrame) -> float:
    """Spearman's rank correlation; 0 where one of the two never differs."""
    change, gain = _centred_ranks(part["change"]), _centred_ranks(part["return"])
    size = np.sqrt((change**2).sum() * (gain**2).sum())
    return float((change * gain).sum() / size) if size > 0 else 0.0


def _centred_ranks(values: pd.Series) -> np.ndarray:
    return rankdata(values) - (len(values) + 1) / 2
