"""``cmat download``: candles from an exchange."""

import logging
from typing import Annotated

import pandas as pd
import typer

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.options import examples, utc_time
from cmat_lib.config import resolve_path


@examples(
    "cmat download BTC/USDT ETH/USDT --exchange binance --timeframe 15m --since 2023-01-01",
    "cmat download BTC/USDT --since 2024-01-01 --until 2024-07-01 --data-dir candles",
)
def download(
    symbols: Annotated[list[str], typer.Argument(metavar="SYMBOL...", help="Such as BTC/USDT ETH/USDT.")],
    since: Annotated[str, typer.Option(help="First candle open (UTC), such as 2023-01-01.")],
    until: Annotated[str | None, typer.Option(help="Candles from this open (UTC) on are left out.")] = None,
    exchange: Annotated[str, typer.Option(help="Name of the exchange in ccxt.")] = "binance",
    timeframe: Annotated[str, typer.Option(help="Length of a candle: 1m to 1d.")] = "15m",
    data_dir: Annotated[str, typer.Option(help="Folder for the files, made if missing.")] = "data",
) -> None:
    """Download candles, one Parquet file per symbol; run it again to add what is new, or after a break to go on.

    The candle that is not finished yet is never stored. The files have no taker columns, which ccxt does not pass on;
    Binance's monthly archives have them.
    """
    from cmat_lib.data.sources.exchange import Downloader, open_exchange

    logging.basicConfig(level="WARNING", format="%(message)s")
    first, last = utc_time(since, "--since"), None if until is None else utc_time(until, "--until")
    if last is not None and last <= first:
        raise CmatError("--until must be later than --since")
    downloader = Downloader(open_exchange(exchange), timeframe, resolve_path(data_dir))
    for symbol in downloader.find_symbols(symbols):
        print(summary(downloader.download(symbol, first, last), first, timeframe), flush=True)


def summary(file, since: pd.Timestamp, timeframe: str) -> str:
    """What the file holds now, in one line."""
    if file.candles.empty:
        return f"{file.source['symbol']}: the exchange has no finished candles in that time; nothing was written"
    from cmat_lib.config.schema import DataConfig

    times, bar = file.candles["timestamp"], DataConfig(timeframe=timeframe).bar
    absent, skipped = file.holes(bar // pd.Timedelta("1ms"))
    late = times.iloc[0] - since >= bar
    return (
        f"{file.path}: {len(times):,} candles, {times.iloc[0]:%Y-%m-%d %H:%M} to {times.iloc[-1]:%Y-%m-%d %H:%M} UTC, "
        f"{file.new:,} new"
        + (f", {absent:,} missing at the exchange" if absent else "")
        + (f", {skipped:,} in between not asked for: --since {times.iloc[0]:%Y-%m-%dT%H:%M} does" if skipped else "")
        + (f"; the exchange has none before {times.iloc[0]:%Y-%m-%d %H:%M}" if late else "")
    )
