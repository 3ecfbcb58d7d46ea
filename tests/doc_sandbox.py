"""A copy of the project in which the commands of the documentation run.

Parameter files are small ones under the same names, the reader's candles and tables are synthetic, and an exchange, pip
and servers that never end have stand-ins.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from cmat_lib.config import merge, project_root
from cmat_lib.data.synthetic import synthetic_market

BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)
COPIED = ("cmat_lib", "notebooks", "params", "constraints.txt", "pyproject.toml", "README.md", "LICENSE", "Makefile")
# What would change the environment, or never end; each is tried by hand or in a test of its own.
STUBS = ("pip", "jupyter", "tensorboard", "docker")
SYMBOLS = ("BTCUSDT", "ETHUSDT")
SMALL = {"cache": {"jobs": 1}, "training": {"epochs": 2}, "evaluation": {"bootstrap_samples": 50}}
# Parameter file of the pages -> what its small stand-in adds to params/smoke.yaml.
STAND_INS = {
    "demo": {},
    "crypto_15m": {"data": {"data_dir": "data"}},
    "stocks_1h": {"data": {"data_dir": "stocks", "sessions": "join", "clock_zone": "America/New_York"}},
}

LOCAL_EXCHANGE = """
_open_exchange = open_exchange


def open_exchange(name):
    exchange = _open_exchange(name)
    exchange.enableRateLimit = False
    for part in ("public", "fapiPublic", "dapiPublic"):
        exchange.urls["api"][part] = "{url}/" + part
    return exchange
"""

MLFLOW = {
    "mlflow/__init__.py": """
from unittest.mock import MagicMock


class MlflowClient:
    def __init__(self, tracking_uri):
        pass

    def search_runs(self, experiments, filter_string):
        return []

    def __getattr__(self, name):
        return MagicMock()
""",
    "mlflow/entities.py": "Metric = Param = lambda *values: values",
    "mlflow/exceptions.py": "class MlflowException(Exception):\n    pass",
}


def blocks(page: Path) -> list[tuple[str, str | None, str]]:
    """Fenced blocks of a page: language, title, text."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


class Sandbox:
    """The copied project in `folder`; its downloads come from the local server at the address `exchange`."""

    def __init__(self, folder: Path, exchange: str):
        self.folder = folder
        for name in COPIED:
            source = project_root() / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder / name, **({"ignore": _NO_CACHE} if source.is_dir() else {}))
        self._parameters()
        self._programs()
        self._data()
        self.append("cmat_lib/data/sources/exchange.py", LOCAL_EXCHANGE.format(url=exchange))

    def run(self, script: str) -> subprocess.CompletedProcess:
        """A block of commands, as a reader would paste it, with this project's programs first on the PATH."""
        text = re.sub(r"/path/to/(hourly/)?candles", "data", script)
        environment = {
            **os.environ,
            "PATH": f"{self.folder}/.venv/bin{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),
            "OMP_NUM_THREADS": "1",
        }
        command = ["bash", "-euo", "pipefail", "-c", text]
        options = {"capture_output": True, "text": True, "timeout": 900}
        return subprocess.run(command, cwd=self.folder, env=environment, **options)

    def append(self, name: str, text: str) -> None:
        """Add what a page says to write into a file of the library, or make a file of its own."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text((path.read_text() + "\n\n" if path.exists() else "") + text)

    def parameters(self, name: str, text: str) -> None:
        """Make a parameter file: small ones for the reader's candles, and what a page says."""
        path = self.folder / name
        own = {"run_dir": f"outputs/{path.stem}"} | STAND_INS["crypto_15m"]
        content = merge(merge(merge(self._smoke(), SMALL), own), yaml.safe_load(text))
        path.write_text(yaml.safe_dump(content, sort_keys=False))  # tables are views in this order

    def _smoke(self) -> dict:
        return yaml.safe_load((self.folder / "params/smoke.yaml").read_text())

    def _parameters(self) -> None:
        for name, changes in STAND_INS.items():
            content = merge(merge({**self._smoke(), "run_dir": f"outputs/{name}"}, SMALL), changes)
            (self.folder / f"params/{name}.yaml").write_text(yaml.safe_dump(content))

    def _programs(self) -> None:
        programs = self.folder / ".venv/bin"
        programs.mkdir(parents=True)
        for name in STUBS:
            self._program(name, "exit 0")
        self._program("make", '[ "$1" != demo ] || exec cmat run params/demo.yaml')
        for name, text in MLFLOW.items():
            self.append(name, text)
        self._program("cmat", f'exec "{sys.executable}" -m cmat_lib "$@"')
        for name in ("python", "papermill"):
            self._program(name, f'exec "{Path(sys.executable).parent / name}" "$@"')

    def _program(self, name: str, line: str) -> None:
        path = self.folder / ".venv/bin" / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    def _data(self) -> None:
        market = synthetic_market(symbols=2, days=90, timeframe="1h", horizon=4, seed=0, plant=True)
        market = {s: c.drop(columns="oracle_probability").rename_axis("timestamp") for s, c in market.items()}
        btc, eth = market.values()
        for folder in ("data", "archives", "metatrader", "stocks", "user_data/data/binance/futures"):
            (self.folder / folder).mkdir(parents=True)
        btc.to_csv(self.folder / "data/BTCUSDT.csv")
        eth.to_parquet(self.folder / "data/ETHUSDT.parquet")
        freqtrade = btc.reset_index().rename(columns={"timestamp": "date"})
        binance = self.folder / "user_data/data/binance"
        freqtrade.to_feather(binance / "BTC_USDT-1h.feather")
        freqtrade.to_feather(binance / "futures/BTC_USDT_USDT-1h-futures.feather")
        _archives(btc, self.folder / "archives")
        _metatrader(btc, self.folder / "metatrader/EURUSD_H1_202401010000_202403310000.csv")
        _yfinance({"AAPL": btc, "MSFT": eth}, self.folder / "stocks/prices.parquet")
        _tables(btc.index, self.folder)


def _NO_CACHE(folder, names):
    return [name for name in names if name == "__pycache__"]


def _archives(candles: pd.DataFrame, folder: Path) -> None:
    """Monthly klines as Binance publishes them: no header, milliseconds."""
    opens = candles.index.as_unit("ms").asi8
    klines = candles[["open", "high", "low", "close", "volume"]].assign(close_time=opens + 3_599_999)
    klines = klines.assign(quote=klines["volume"] * klines["close"], trades=10, taker=klines["volume"] / 2)
    klines = klines.assign(taker_quote=klines["quote"] / 2, ignore=0).set_index(opens)
    for month, rows in klines.groupby(candles.index.strftime("%Y-%m")):
        name = f"BTCUSDT-1h-{month}"
        compression = {"method": "zip", "archive_name": f"{name}.csv"}
        rows.to_csv(folder / f"{name}.zip", header=False, compression=compression)


def _tables(hours: pd.DatetimeIndex, folder: Path) -> None:
    """A row per day: of symbols in a file a month, of all, and of New York's weekdays."""
    (folder / "funding").mkdir()
    days = pd.date_range(hours[0].floor("D") - pd.Timedelta("60D"), hours[-1], freq="D").tz_localize(None)
    rng = np.random.default_rng(0)
    rates = [pd.DataFrame({"time": days, "symbol": s, "rate": rng.normal(size=len(days))}) for s in SYMBOLS]
    for month, rows in pd.concat(rates).groupby(lambda row: days[row].strftime("%Y-%m")):
        rows.assign(time=rows["time"].dt.strftime("%Y-%m-%dT00:00Z")).to_csv(
            folder / f"funding/{month}.csv", index=False
        )
    weekdays = days[days.dayofweek < 5]
    for name, column, dates in (("fear_greed", "fng", days), ("vix", "vix", weekdays), ("dxy", "dxy", weekdays)):
        table = pd.DataFrame({"date": dates.strftime("%Y-%m-%d"), column: rng.integers(1, 100, len(dates))})
        table.to_csv(folder / f"{name}.csv", index=False)


def _metatrader(candles: pd.DataFrame, path: Path) -> None:
    times = candles.index.tz_convert("Europe/Athens")
    table = candles[["open", "high", "low", "close"]].set_axis(["<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>"], axis=1)
    table.insert(0, "<DATE>", times.strftime("%Y.%m.%d"))
    table.insert(1, "<TIME>", times.strftime("%H:%M:%S"))
    ticks = candles["volume"].round().astype(int).to_numpy()
    table.assign(**{"<TICKVOL>": ticks, "<VOL>": 0, "<SPREAD>": 1}).to_csv(path, sep="\t", index=False)


def _yfinance(market: dict[str, pd.DataFrame], path: Path) -> None:
    """What ``yfinance.download`` returns for two tickers: hours of New York's sessions, columns (price, ticker)."""
    count = len(next(iter(market.values())))
    days = pd.bdate_range("2022-01-03", periods=count // 7 + 1, tz="America/New_York")
    hours = [day + pd.Timedelta(hours=9.5 + hour) for day in days for hour in range(7)][:count]
    index = pd.DatetimeIndex(hours, name="Datetime").tz_convert("UTC")
    columns = ["Close", "High", "Low", "Open", "Volume"]
    frames = {ticker: frame.rename(columns=str.capitalize)[columns].set_axis(index) for ticker, frame in market.items()}
    pd.concat(frames, axis=1, names=["Ticker", "Price"]).swaplevel(axis=1).sort_index(axis=1).to_parquet(path)
