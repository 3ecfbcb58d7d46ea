"""Downloads, through ccxt itself, from a local server that speaks Binance's API: whole, resumable, and honest."""

import os
import signal
import subprocess
import sys
import time

import ccxt
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from exchange_server import MINUTES, Binance, kline, serving

from cmat_lib.base.errors import CmatError
from cmat_lib.commands import cli
from cmat_lib.commands.download import summary
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.candles import load_market
from cmat_lib.data.sources import exchange as module
from cmat_lib.data.sources.exchange import Downloader, DownloadFile, file_name, open_exchange

BAR = 15 * MINUTES
START = pd.Timestamp("2024-01-01", tz="UTC")
T0 = int(START.timestamp() * 1000)
FAST = (0.0, 0.0, 0.0)


def at(candle: int) -> pd.Timestamp:
    return START + candle * pd.Timedelta("15min")


@pytest.fixture
def server():
    """Candles 0 to 2499 are finished, number 2500 is half over."""
    with serving(Binance(now=T0 + 2500 * BAR + BAR // 2, listed=T0)) as state:
        yield state


def downloader(server, folder, waits=FAST, timeframe="15m") -> Downloader:
    return Downloader(server.exchange(), timeframe, folder, waits, progress=False)


def opens(folder, name="BTCUSDT_15m.parquet") -> list[int]:
    """Numbers of the candles in a file, after a check of their values."""
    table = pd.read_parquet(folder / name)
    number = (table["timestamp"].dt.as_unit("ms").astype("int64") - T0) // BAR
    expected = np.array([[float(x) for x in kline(T0 + n * BAR, BAR)[1:6]] for n in number])
    np.testing.assert_array_equal(table[["open", "high", "low", "close", "volume"]], expected)
    return number.tolist()


def requests(server) -> list[int]:
    return [(start - T0) // BAR for start in server.starts]


# --- pages


def test_pages_and_the_unfinished_candle(server, tmp_path):
    file = downloader(server, tmp_path).download("BTC/USDT", START)
    assert opens(tmp_path) == list(range(2500)) and file.new == 2500
    assert requests(server) == [0, 1000, 2000]
    assert os.listdir(tmp_path) == ["BTCUSDT_15m.parquet"]


def test_the_candle_counts_from_the_moment_it_is_over(server, tmp_path):
    server.now = T0 + 11 * BAR - 1
    downloader(server, tmp_path).download("BTC/USDT", START)
    assert opens(tmp_path)[-1] == 9
    server.now += 1
    downloader(server, tmp_path).download("BTC/USDT", START)
    assert opens(tmp_path) == list(range(11))


def test_until_is_exclusive_and_since_inclusive(server, tmp_path):
    downloader(server, tmp_path).download("BTC/USDT", at(10), at(20))
    assert opens(tmp_path) == list(range(10, 20))


def test_what_was_downloaded_is_read_as_candles(server, tmp_path):
    server.absent = range(T0 + 100 * BAR, T0 + 103 * BAR, BAR)
    downloader(server, tmp_path).download("BTC/USDT", START)
    (candles,) = load_market(DataConfig(data_dir=str(tmp_path))).values()
    assert len(candles) == 2497 and candles.index[0] == START


# --- resume and append


def test_append_asks_for_new_candles_only(server, tmp_path):
    downloader(server, tmp_path).download("BTC/USDT", START)
    server.now += 30 * BAR
    server.starts.clear()
    file = downloader(server, tmp_path).download("BTC/USDT", START)
    assert opens(tmp_path) == list(range(2530)) and file.new == 30
    assert requests(server) == [2500]


def test_nothing_new_asks_nothing_and_leaves_the_file_alone(server, tmp_path):
    downloader(server, tmp_path).download("BTC/USDT", START, at(50))
    before = (tmp_path / "BTCUSDT_15m.parquet").stat().st_mtime_ns
    server.starts.clear()
    assert downloader(server, tmp_path).download("BTC/USDT", START, at(50)).new == 0
    assert not server.starts and (tmp_path / "BTCUSDT_15m.parquet").stat().st_mtime_ns == before


def test_an_earlier_since_is_fetched_in_front(server, tmp_path):
    downloader(server, tmp_path).download("BTC/USDT", at(1500), at(1600))
    server.starts.clear()
    downloader(server, tmp_path).download("BTC/USDT", at(200))
    assert opens(tmp_path) == list(range(200, 2500))
    assert requests(server) == [200, 1200, 1600]


def test_a_halt_is_not_asked_for_again(server, tmp_path):
    server.absent = range(T0 + 500 * BAR, T0 + 520 * BAR, BAR)
    downloader(server, tmp_path).download("BTC/USDT", START)
    server.starts.clear()
    downloader(server, tmp_path).download("BTC/USDT", START)
    assert len(opens(tmp_path)) == 2480 and not server.starts


def test_a_candle_that_the_exchange_has_late_is_not_lost(server, tmp_path):
    server.absent = range(T0 + 2499 * BAR, T0 + 2500 * BAR, BAR)
    downloader(server, tmp_path).download("BTC/USDT", START)
    assert opens(tmp_path) == list(range(2499))
    server.absent = range(0)
    downloader(server, tmp_path).download("BTC/USDT", START)
    assert opens(tmp_path) == list(range(2500))


@pytest.mark.parametrize("empty", [range(3, 5), range(1000, 2000)])  # some, and a whole page
def test_empty_candles_are_gaps_and_told(server, tmp_path, monkeypatch, caplog, empty):
    """Some exchanges send the time of a candle without a trade, and nothing else."""
    whole = server.klines
    times = {T0 + number * BAR for number in empty}
    blank = lambda start, limit: [[r[0], *[None] * 5, *r[6:]] if r[0] in times else r for r in whole(start, limit)]  # noqa: E731
    monkeypatch.setattr(server, "klines", blank)
    file = downloader(server, tmp_path).download("BTC/USDT", START)
    assert opens(tmp_path) == [number for number in range(2500) if number not in empty]
    assert f"{len(empty)} of 1000 candles from" in caplog.text
    assert f"{len(empty):,} missing at the exchange" in summary(file, START, "15m")
    server.starts.clear()
    downloader(server, tmp_path).download("BTC/USDT", START)
    assert not server.starts


def test_a_later_listing_is_no_endless_loop(server, tmp_path):
    server.listed = T0 + 2400 * BAR
    downloader(server, tmp_path).download("BTC/USDT", START)
    assert opens(tmp_path) == list(range(2400, 2500)) and len(server.starts) == 1
    downloader(server, tmp_path).download("BTC/USDT", START)
    assert len(server.starts) == 1


def test_an_exchange_that_answers_empty_before_the_listing(server, tmp_path, monkeypatch):
    """Others than Binance do not jump to the first candle, and send none beyond the page that was asked for."""
    server.listed = T0 + 2400 * BAR
    whole = server.klines

    def page(start: int, limit: int) -> list[list]:
        return [row for row in whole(start, limit) if row[0] < start + limit * BAR]

    monkeypatch.setattr(server, "klines", page)
    downloader(server, tmp_path).download("BTC/USDT", START)
    assert opens(tmp_path) == list(range(2400, 2500)) and requests(server) == [0, 0, 1000, 1000, 2000]


def test_nothing_at_all(server, tmp_path):
    server.listed = server.now + BAR
    assert downloader(server, tmp_path).download("BTC/USDT", START).candles.empty
    assert not list(tmp_path.iterdir()) and requests(server) == [0, 0, 1000, 1000, 2000, 2000]


# --- failures half-way


@pytest.mark.parametrize("request_number", [1, 2, 3])  # at the start, in the middle, at the end
def test_a_page_that_is_empty_by_mistake(server, tmp_path, request_number, monkeypatch):
    slept = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    server.fail = {request_number: "empty"}
    downloader(server, tmp_path, waits=(1.0, 2.0)).download("BTC/USDT", START)
    assert opens(tmp_path) == list(range(2500)) and slept == [1.0]


def test_a_halt_of_whole_pages_is_settled(server, tmp_path, monkeypatch):
    server.absent = range(T0 + 500 * BAR, T0 + 2100 * BAR, BAR)
    whole = server.klines
    pages = lambda start, limit: [row for row in whole(start, limit) if row[0] < start + limit * BAR]  # noqa: E731
    monkeypatch.setattr(server, "klines", pages)
    downloader(server, tmp_path).download("BTC/USDT", START)
    assert opens(tmp_path) == [*range(500), *range(2100, 2500)] and requests(server) == [0, 500, 500, 1500]
    server.starts.clear()
    downloader(server, tmp_path).download("BTC/USDT", START)
    assert not server.starts


@pytest.mark.parametrize("failure", [500, 503, "reset", "cut", "garbage", 429, 418])
def test_a_failure_that_passes(server, tmp_path, failure, monkeypatch):
    slept = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    server.fail = {2: failure, 3: failure}
    downloader(server, tmp_path, waits=(1.0, 2.0)).download("BTC/USDT", START)
    assert opens(tmp_path) == list(range(2500))
    assert requests(server) == [0, 1000, 1000, 1000, 2000]
    assert slept == ([7.0, 7.0] if failure == 429 else [1.0, 2.0])  # 429 comes with Retry-After: 7


@pytest.mark.parametrize("failure", [500, "reset", "cut", "garbage", 429])
def test_a_failure_that_stays_keeps_what_has_come(server, tmp_path, failure, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    server.fail = dict.fromkeys(range(3, 100), failure)
    with pytest.raises(CmatError, match=r"binance did not answer 4 times \(\w+: .*same command goes on from there"):
        downloader(server, tmp_path).download("BTC/USDT", START)
    assert opens(tmp_path) == list(range(2000)) and len(server.starts) == 6
    server.fail, server.starts = {}, []
    assert downloader(server, tmp_path).download("BTC/USDT", START).new == 500
    assert opens(tmp_path) == list(range(2500)) and requests(server) == [2000]


@pytest.mark.parametrize("status", [451, 403])
def test_a_blocked_region_is_not_asked_twice(server, tmp_path, status):
    server.everything = status
    with pytest.raises(CmatError, match=rf"binance refuses requests from here \(HTTP {status}\).*choose another"):
        downloader(server, tmp_path, waits=(60.0,)).find_symbols(["BTC/USDT"])


def test_no_network(tmp_path):
    exchange = open_exchange("binance")
    exchange.urls["api"]["public"] = "http://127.0.0.1:9"  # the discard port: nobody listens
    with pytest.raises(CmatError, match=r"did not answer 2 times \(.*is there a network"):
        Downloader(exchange, "15m", tmp_path, (0.0,)).find_symbols(["BTC/USDT"])


def test_a_kill_costs_at_most_the_pages_since_the_last_save(server, tmp_path):
    """A process of its own is killed in the middle; the next one goes on and ends as an undisturbed one would."""
    server.now = T0 + 60_000 * BAR
    server.fail = {25: "reset"}  # after which the child waits for a minute: the moment of the kill
    child = (
        "import sys; from pathlib import Path; from cmat_lib.data.sources.exchange import *; import pandas as pd\n"
        "exchange = open_exchange('binance'); exchange.enableRateLimit = False\n"
        f"for name in ('public', 'fapiPublic', 'dapiPublic'): exchange.urls['api'][name] = '{server.url}/' + name\n"
        f"Downloader(exchange, '15m', Path({str(tmp_path)!r}), (60.0,)).download('BTC/USDT', pd.Timestamp('{START}'))"
    )
    process = subprocess.Popen([sys.executable, "-c", child])
    try:
        deadline = time.monotonic() + 30
        while len(server.starts) < 25 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert opens(tmp_path) == list(range(20_000))
    assert os.listdir(tmp_path) == ["BTCUSDT_15m.parquet"]
    server.fail, server.starts = {}, []
    downloader(server, tmp_path).download("BTC/USDT", START)
    assert opens(tmp_path) == list(range(60_000)) and requests(server)[0] == 20_000


def test_an_interrupt_saves_what_has_come(server, tmp_path, monkeypatch):
    whole = Downloader.fetch_page

    def page(self, symbol, since, limit):
        if since > T0:
            raise KeyboardInterrupt
        return whole(self, symbol, since, limit)

    monkeypatch.setattr(Downloader, "fetch_page", page)
    with pytest.raises(KeyboardInterrupt):
        downloader(server, tmp_path).download("BTC/USDT", START)
    assert opens(tmp_path) == list(range(1000))


# --- what cannot be asked for


def test_symbols(server, tmp_path):
    find = downloader(server, tmp_path).find_symbols
    assert find(["BTC/USDT", "eth/usdt", "BTCUSDT"]) == ["BTC/USDT", "ETH/USDT"]
    with pytest.raises(CmatError, match=r"binance has no symbol 'BTC/USD'; did you mean BTC/USDT"):
        find(["ETH/USDT", "BTC/USD"])
    with pytest.raises(CmatError, match=r"no symbol '../../etc'$"):
        find(["../../etc"])


def test_exchange_and_timeframe(server, tmp_path):
    with pytest.raises(CmatError, match=r"ccxt knows no exchange 'binanse'; did you mean binance"):
        open_exchange("binanse")
    with pytest.raises(CmatError, match=r"bitflyer offers no candles"):
        open_exchange("bitflyer")
    for timeframe in ("10m", "1w", "1M", "1s"):
        with pytest.raises(CmatError, match=rf"binance has no candles of '{timeframe}'; it has 1m, .*, 3d$"):
            downloader(server, tmp_path, timeframe=timeframe).find_symbols(["BTC/USDT"])


@pytest.mark.parametrize("symbol", ["../../x", "/etc/x", "a/../../b", "..", "A\\..\\B", "C:x", "x\0y"])
def test_no_symbol_leaves_the_folder(symbol, tmp_path):
    assert (tmp_path / file_name(symbol, "15m")).resolve().parent == tmp_path.resolve()


# --- files that are already there


def test_a_file_of_something_else_is_left_alone(server, tmp_path):
    path = tmp_path / "BTCUSDT_15m.parquet"
    downloader(server, tmp_path).download("BTC/USDT", START, at(50))
    content = path.read_bytes()
    for change in ({"exchange": "kraken"}, {"symbol": "BT/CUSDT"}, {"timeframe": "1h"}):
        source = {"exchange": "binance", "symbol": "BTC/USDT", "timeframe": "15m"} | change
        with pytest.raises(CmatError, match=r"candles of binance BTC/USDT 15m, not of .*choose another --data-dir"):
            DownloadFile.open(path, source)
    (tmp_path / "BTCUSDT_1h.parquet").write_bytes(content)
    with pytest.raises(CmatError, match=r"candles of binance BTC/USDT 15m, not of binance BTC/USDT 1h"):
        downloader(server, tmp_path, timeframe="1h").download("BTC/USDT", START)
    path.write_bytes(content[:-100])
    with pytest.raises(CmatError, match=r"cannot be read .*remove it and download again"):
        downloader(server, tmp_path).download("BTC/USDT", START)
    pd.DataFrame({"timestamp": [1]}).to_parquet(path)
    with pytest.raises(CmatError, match=r"is not from cmat download"):
        downloader(server, tmp_path).download("BTC/USDT", START)


def test_what_was_asked_for(tmp_path):
    file = DownloadFile(tmp_path / "x.parquet", {}, [(10, 20), (30, 40)])
    assert file.missing(0, 50) == [(0, 10), (20, 30), (40, 50)]
    assert file.missing(12, 18) == [] and file.missing(15, 35) == [(20, 30)] and file.missing(0, 5) == [(0, 5)]
    file.add([], 18, 32)
    assert file.asked == [(10, 40)]
    file.add([], 50, 60)
    assert file.asked == [(10, 40), (50, 60)]


# --- the command


def test_command(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "open_exchange", lambda name: server.exchange())
    command = ["cmat", "download", "BTC/USDT", "ETH/USDT", "--since", "2023-12-31", "--data-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    out, err = capsys.readouterr()
    assert err == ""  # no bar: nobody watches
    first, second = out.splitlines()
    assert first == (
        f"{tmp_path}/BTCUSDT_15m.parquet: 2,500 candles, 2024-01-01 00:00 to 2024-01-27 00:45 UTC, 2,500 new; "
        "the exchange has none before 2024-01-01 00:00"
    )
    assert second.startswith(f"{tmp_path}/ETHUSDT_15m.parquet: 2,500 candles")
    assert b"cmat_download" in pq.read_schema(tmp_path / "ETHUSDT_15m.parquet").metadata


def test_the_summary_tells_missing_candles_from_those_that_nobody_asked_for(server, tmp_path):
    server.absent = range(T0 + 20 * BAR, T0 + 25 * BAR, BAR)
    downloader(server, tmp_path).download("BTC/USDT", START + pd.Timedelta("1min"), at(50))  # the first is 00:15
    file = downloader(server, tmp_path).download("BTC/USDT", at(80) + pd.Timedelta("1min"), at(100))
    line = summary(file, START, "15m")
    ending = " UTC, 19 new, 5 missing at the exchange, 31 in between not asked for: --since 2024-01-01T00:15 does"
    assert f": {44 + 19} candles, 2024-01-01 00:15" in line and ending in line
    file = downloader(server, tmp_path).download("BTC/USDT", file.candles["timestamp"].iloc[0])
    assert file.holes(BAR) == (5, 0) and "not asked" not in summary(file, START, "15m")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--since", "yesterdayish"], "--since: 'yesterdayish' is no time"),
        (["--since", "2024-02-01", "--until", "2024-01-01"], "--until must be later than --since"),
        (["--since", "2024-01-01", "--exchange", "krakn"], "did you mean kraken"),
    ],
)
def test_command_errors(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cmat", "download", "BTC/USDT", *options, "--data-dir", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1 and message in capsys.readouterr().err


def test_requests_are_limited_by_default():
    assert open_exchange("binance").enableRateLimit and isinstance(open_exchange("kraken"), ccxt.kraken)
