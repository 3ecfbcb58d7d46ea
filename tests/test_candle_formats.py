"""Candle files as other tools write them: Binance archives, freqtrade's folder, yfinance frames, MetaTrader exports."""

import gzip
import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from test_candles import BAR, PLAIN, START, binance, epoch, make_candles, with_taker, write

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.candles import audit, load_market, read_market
from cmat_lib.workflow.fingerprints import input_identity


def folder(path, **data) -> DataConfig:
    return DataConfig(data_dir=str(path), **data)


def sources(market) -> list[str]:
    return audit(market, BAR)["source"].tolist()


# --- Binance archives


def archive(path, table: pd.DataFrame, header: bool) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{path.stem}.csv", table.to_csv(index=False, header=header))


@pytest.fixture
def archives(tmp_path):
    """November 2024 to February 2025: header only in one month, microseconds from 2025 on, as Binance has it."""
    candles = with_taker(make_candles(rows=96 * 120, start=pd.Timestamp("2024-11-01", tz="UTC")))
    for month, own in candles.groupby(candles.index.strftime("%Y-%m")):
        table = binance(own, "us" if month >= "2025" else "ms")
        archive(tmp_path / f"BTCUSDT-15m-{month}.zip", table, header=month == "2024-12")
    (tmp_path / "BTCUSDT-15m-2024-11.zip.CHECKSUM").write_text("0  x")
    return candles


def test_archives_of_many_months_are_one_symbol(archives, tmp_path):
    market = load_market(folder(tmp_path))
    pd.testing.assert_frame_equal(market["BTCUSDT"], archives, check_freq=False)
    assert sources(read_market(folder(tmp_path))) == ["4 archives, 2024-11 to 2025-02"]


def test_a_missing_month_is_named(archives, tmp_path):
    (tmp_path / "BTCUSDT-15m-2024-12.zip").unlink()
    with pytest.warns(UserWarning, match=r"BTCUSDT-15m-2024-11\.zip …\): no archive for 2024-12; get it"):
        market = read_market(folder(tmp_path))
    assert sources(market) == ["3 archives, 2024-11 to 2025-02 without 2024-12"]
    assert audit(market, BAR)["missing_candles"].tolist() == [31 * 96]


def test_the_days_of_a_month_may_be_there_too(archives, tmp_path):
    days = archives[(archives.index >= "2025-02-27") & (archives.index < "2025-03-01")]
    for day, own in days.groupby(days.index.strftime("%Y-%m-%d")):
        archive(tmp_path / f"BTCUSDT-15m-{day}.zip", binance(own, "us"), header=False)
    pd.testing.assert_frame_equal(load_market(folder(tmp_path))["BTCUSDT"], archives, check_freq=False)


def test_archives_that_contradict_each_other(archives, tmp_path):
    day = archives[archives.index.strftime("%Y-%m-%d") == "2025-02-27"].copy()
    day.loc[day.index[5], "volume"] += 1
    archive(tmp_path / "BTCUSDT-15m-2025-02-27.zip", binance(day, "us"), header=False)
    with pytest.raises(CmatError, match=r"2025-02-27 01:15:00 UTC .*the time is there twice"):
        load_market(folder(tmp_path))


def test_every_archive_counts_for_the_fingerprint(archives, tmp_path):
    config = load_config(changes={"data": {"data_dir": str(tmp_path)}})
    assert len(input_identity(config)) == 4
    before = input_identity(config)
    (tmp_path / "BTCUSDT-15m-2025-01.zip").unlink()
    assert input_identity(config) != before


def test_unpacked_archives(archives, tmp_path):
    for path in list(tmp_path.glob("*.zip")):
        with zipfile.ZipFile(path) as file:
            file.extractall(tmp_path)
        path.unlink()
    pd.testing.assert_frame_equal(load_market(folder(tmp_path))["BTCUSDT"], archives, check_freq=False)


@pytest.mark.parametrize(("names", "message"), [(["a.csv", "b.csv"], "2 CSV files inside"), (["a.txt"], "0 CSV files")])
def test_other_zips(tmp_path, names, message):
    with zipfile.ZipFile(tmp_path / "A.zip", "w") as file:
        for name in names:
            file.writestr(name, "x")
    with pytest.raises(CmatError, match=rf"A\.zip: {message}"):
        load_market(folder(tmp_path))


def test_a_truncated_archive(archives, tmp_path):
    path = tmp_path / "BTCUSDT-15m-2025-01.zip"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CmatError, match=r"BTCUSDT-15m-2025-01\.zip: cannot be read \(File is not a zip file\)"):
        load_market(folder(tmp_path))


# --- freqtrade


def freqtrade(candles: pd.DataFrame) -> pd.DataFrame:
    return candles[PLAIN].reset_index(names="date")


def test_freqtrade_folder(tmp_path):
    candles, hours = make_candles(), make_candles(bar=pd.Timedelta("1h"))
    freqtrade(candles).to_feather(tmp_path / "BTC_USDT-15m.feather")
    freqtrade(hours).to_feather(tmp_path / "BTC_USDT-1h.feather")
    freqtrade(candles).to_feather(tmp_path / "ETH_USDT_USDT-15m-futures.feather")
    freqtrade(hours).to_feather(tmp_path / "ETH_USDT_USDT-8h-mark.feather")
    freqtrade(hours).to_feather(tmp_path / "ETH_USDT_USDT-1h-funding_rate.feather")
    market = load_market(folder(tmp_path))
    assert list(market) == ["BTC_USDT", "ETH_USDT_USDT"]
    pd.testing.assert_frame_equal(market["ETH_USDT_USDT"], candles, check_freq=False)
    assert list(load_market(folder(tmp_path, timeframe="1h"))) == ["BTC_USDT"]
    with pytest.raises(CmatError, match=r"no candles of 5m, by the file names 15m, 1h only; set data\.timeframe"):
        load_market(folder(tmp_path, timeframe="5m"))


@pytest.mark.parametrize("ending", [".json", ".json.gz", "-futures.json"])
def test_freqtrade_json(tmp_path, ending):
    candles = make_candles()
    rows = np.column_stack([epoch(candles, "ms"), candles[PLAIN]]).tolist()
    content = json.dumps([[int(row[0]), *row[1:]] for row in rows]).encode()
    (tmp_path / f"BTC_USDT-15m{ending}").write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    (tmp_path / "notes.json").write_text("{}")
    market = load_market(folder(tmp_path))
    assert list(market) == ["BTC_USDT"]
    pd.testing.assert_frame_equal(market["BTC_USDT"], candles, check_freq=False)


def test_json_that_is_no_list_of_candles(tmp_path):
    for content, message in (('{"a": 1}', "no list of candles"), ("[[1, 2]]", "no list of candles"), ("[", "be read")):
        (tmp_path / "BTC_USDT-15m.json").write_text(content)
        with pytest.raises(CmatError, match=rf"BTC_USDT-15m\.json: .*{message}"):
            load_market(folder(tmp_path))


# --- yfinance


def yfinance(frames: dict[str, pd.DataFrame], by_ticker: bool = False, names=("Price", "Ticker")) -> pd.DataFrame:
    """As `yfinance.download` returns it."""
    wide = pd.concat({t: f[PLAIN].rename(columns=str.title) for t, f in frames.items()}, axis=1)
    wide = wide if by_ticker else wide.swaplevel(axis=1).sort_index(axis=1)
    wide.columns.names = names[::-1] if by_ticker else names
    return wide.rename_axis("Datetime")


@pytest.mark.parametrize("by_ticker", [False, True])
@pytest.mark.parametrize("names", [("Price", "Ticker"), (None, None)])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_yfinance_frame_of_several_tickers(tmp_path, by_ticker, names, ending):
    apple, euro = make_candles(), make_candles(30, start=START + 4 * BAR) * 2  # each has times the other has not
    wide = yfinance({"AAPL": apple, "EURUSD=X": euro}, by_ticker, names)
    wide.index = wide.index.tz_convert("America/New_York")
    wide.to_csv(tmp_path / "prices.csv") if ending == "csv" else wide.to_parquet(tmp_path / "prices.parquet")
    market = load_market(folder(tmp_path))
    assert list(market) == ["AAPL", "EURUSD_X"]
    pd.testing.assert_frame_equal(market["AAPL"], apple, check_freq=False)
    pd.testing.assert_frame_equal(market["EURUSD_X"], euro, check_freq=False)
    assert sources(read_market(folder(tmp_path)))[1] == f"prices.{ending} (yfinance, EURUSD=X)"
    assert list(load_market(folder(tmp_path, symbols=["EURUSD_X"]))) == ["EURUSD_X"]


def test_yfinance_frame_of_one_ticker(tmp_path):
    text = (
        "Price,Close,High,Low,Open,Volume\nTicker,AAPL,AAPL,AAPL,AAPL,AAPL\nDatetime,,,,,\n"
        "2025-01-02 14:30:00+00:00,2.0,2.5,1.0,1.5,100\n2025-01-02 14:45:00+00:00,2.1,2.6,1.1,1.6,101\n"
    )
    (tmp_path / "download.csv").write_text(text)
    candles = load_market(folder(tmp_path))["AAPL"]
    assert candles.iloc[0].to_dict() == {"open": 1.5, "high": 2.5, "low": 1.0, "close": 2.0, "volume": 100.0}
    assert candles.index[0] == pd.Timestamp("2025-01-02 14:30", tz="UTC")


def test_a_ticker_that_another_file_has_too(tmp_path):
    yfinance({"AAPL": make_candles()}).to_csv(tmp_path / "x.csv")
    write(tmp_path, "aapl.parquet", make_candles().reset_index())
    with pytest.raises(CmatError, match=r"x\.csv: symbol 'AAPL' already comes from aapl\.parquet"):
        load_market(folder(tmp_path))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_daily_candles_are_dates_whatever_the_offset(tmp_path, ending):
    """Midnight in New York is 05:00 or 04:00 UTC; one of the two would be off the grid."""
    days = pd.date_range("2025-02-20", periods=40, freq="D", tz="America/New_York", name="Date")
    table = make_candles().set_axis(days)
    table.to_csv(tmp_path / "AAPL.csv") if ending == "csv" else table.to_parquet(tmp_path / "AAPL.parquet")
    index = load_market(folder(tmp_path, timeframe="1d"))["AAPL"].index
    assert index.equals(pd.date_range("2025-02-20", periods=40, freq="D", tz="UTC", unit="ns"))


# --- MetaTrader


def metatrader5(candles: pd.DataFrame, real_volume: int = 0) -> str:
    table = pd.DataFrame({"<DATE>": candles.index.strftime("%Y.%m.%d"), "<TIME>": candles.index.strftime("%H:%M:%S")})
    for name in PLAIN[:-1]:
        table[f"<{name.upper()}>"] = candles[name].to_numpy()
    table = table.assign(**{"<TICKVOL>": candles["volume"].to_numpy(), "<VOL>": real_volume, "<SPREAD>": 3})
    return table.to_csv(sep="\t", index=False)


def test_metatrader_5(tmp_path):
    (tmp_path / "EURUSD_M15_202503010000_202503010945.csv").write_text(metatrader5(make_candles()))
    market = load_market(folder(tmp_path))
    pd.testing.assert_frame_equal(market["EURUSD"], make_candles(), check_freq=False)
    assert sources(read_market(folder(tmp_path))) == ["EURUSD_M15_202503010000_202503010945.csv (MetaTrader 5)"]


def test_metatrader_5_traded_volume_counts_where_there_is_any(tmp_path):
    (tmp_path / "SBER.csv").write_text(metatrader5(make_candles(), real_volume=700))
    assert (load_market(folder(tmp_path))["SBER"]["volume"] == 700).all()


def test_metatrader_5_days(tmp_path):
    candles = make_candles(bar=pd.Timedelta("1D"))
    text = pd.read_csv(io.StringIO(metatrader5(candles)), sep="\t").drop(columns="<TIME>").to_csv(sep="\t", index=False)
    (tmp_path / "EURUSD_Daily_202503010000_202504100000.csv").write_text(text)
    found = load_market(folder(tmp_path, timeframe="1d"))["EURUSD"]
    pd.testing.assert_frame_equal(found, candles, check_freq=False)


def test_metatrader_4(tmp_path):
    candles = make_candles()
    clock = candles.index.strftime("%Y.%m.%d,%H:%M")
    rows = [f"{t},{o},{h},{low},{c},{v}" for t, (o, h, low, c, v) in zip(clock, candles[PLAIN].to_numpy(), strict=True)]
    (tmp_path / "EURUSD.csv").write_text("\n".join(rows) + "\n")
    pd.testing.assert_frame_equal(load_market(folder(tmp_path))["EURUSD"], candles, check_freq=False)


def test_metatrader_without_volume(tmp_path):
    text = metatrader5(make_candles()).replace("<TICKVOL>", "<NOTE>").replace("<VOL>", "<OTHER>")
    (tmp_path / "EURUSD.csv").write_text(text)
    with pytest.raises(CmatError, match=r"EURUSD\.csv: no column volume"):
        load_market(folder(tmp_path))


# --- the time zone of files that tell none


def test_file_zone(tmp_path):
    """A broker in Athens: its clock is two hours ahead of UTC in winter and three in summer."""
    candles = make_candles(96 * 20, start=pd.Timestamp("2025-03-31", tz="UTC"))
    local = candles.set_axis(candles.index.tz_convert("Europe/Athens"))
    (tmp_path / "EURUSD.csv").write_text(metatrader5(local))
    assert load_market(folder(tmp_path, file_zone="Europe/Athens"))["EURUSD"].index.equals(candles.index)
    assert load_market(folder(tmp_path))["EURUSD"].index[0] == pd.Timestamp("2025-03-31 03:00", tz="UTC")


def test_file_zone_does_not_touch_times_that_have_one(tmp_path):
    candles = make_candles()
    write(tmp_path, "A.csv", candles.reset_index())
    write(tmp_path, "B.parquet", candles.reset_index())
    write(tmp_path, "C.csv", candles.assign(time=epoch(candles, "ms")))
    market = load_market(folder(tmp_path, file_zone="Asia/Tokyo"))
    assert all(market[symbol].index.equals(candles.index) for symbol in "ABC")


def test_file_zone_and_the_hour_that_comes_twice(tmp_path):
    candles = make_candles(96, start=pd.Timestamp("2025-10-26", tz="UTC"))
    (tmp_path / "EURUSD.csv").write_text(metatrader5(candles))  # wrong: UTC, read as Athens
    message = r"row 13: 2025.10.26 03:00:00 does not exist, or twice, in Europe/Athens.*rows affected: 4"
    with pytest.raises(CmatError, match=message):
        load_market(folder(tmp_path, file_zone="Europe/Athens"))


def test_unknown_file_zone():
    with pytest.raises(ValueError, match="no time zone 'EEST'"):
        DataConfig(file_zone="EEST")


def test_semicolons(tmp_path):
    make_candles().to_csv(tmp_path / "A.csv", sep=";")
    pd.testing.assert_frame_equal(load_market(folder(tmp_path))["A"], make_candles(), check_freq=False)


# --- CSV as spreadsheets write it


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1", "utf-8-sig"])
def test_text_in_other_encodings(tmp_path, encoding):
    table = make_candles().assign(note="größer").to_csv()
    (tmp_path / "A.csv").write_bytes(table.encode(encoding))
    pd.testing.assert_frame_equal(load_market(folder(tmp_path))["A"], make_candles(), check_freq=False)


@pytest.mark.parametrize("encoding", ["gb18030", "shift_jis", "euc_kr", "cp1251"])
def test_column_names_in_other_encodings(tmp_path, encoding):
    """The encoding is that in which the names mean something."""
    names = {
        "gb18030": "日期 开盘 最高 最低 收盘 成交量",
        "shift_jis": "日付け 始値 高値 安値 終値 出来高",
        "euc_kr": "날짜 시가 고가 저가 종가 거래량",
        "cp1251": "Дата Откр. Макс. Мин. Цена Объём",
    }[encoding].split()
    table = make_candles().reset_index().set_axis(names, axis=1).to_csv(index=False)
    (tmp_path / "A.csv").write_bytes(table.encode(encoding))
    pd.testing.assert_frame_equal(load_market(folder(tmp_path))["A"], make_candles(), check_freq=False)


def test_an_encoding_that_was_told_and_is_wrong(tmp_path):
    (tmp_path / "A.csv").write_bytes(make_candles().assign(note="größer").to_csv().encode("latin-1"))
    with pytest.raises(CmatError, match=r"A\.csv: no text in utf-8; set data\.encoding"):
        load_market(folder(tmp_path, encoding="utf-8"))
    assert "A" in load_market(folder(tmp_path, encoding="latin-1"))


def test_decimal_commas(tmp_path):
    make_candles().to_csv(tmp_path / "A.csv", sep=";", decimal=",")
    pd.testing.assert_frame_equal(load_market(folder(tmp_path))["A"], make_candles(), check_freq=False)


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M", "%Y.%m.%d %H:%M:%S", "%Y-%m-%d %-H:%M"])
def test_date_and_time_in_columns_of_their_own(tmp_path, form):
    candles = make_candles(96)
    days, clock = zip(*candles.index.strftime(form).str.split(" "), strict=True)
    table = candles.reset_index(drop=True)
    table.insert(0, "Date", days)
    table.insert(1, "Time", clock)
    write(tmp_path, "A.csv", table)
    pd.testing.assert_frame_equal(load_market(folder(tmp_path))["A"], candles, check_freq=False)


def test_a_date_that_is_complete_needs_no_time(tmp_path):
    candles = make_candles()
    write(tmp_path, "A.csv", candles.reset_index(names="date").assign(time="12:00"))
    pd.testing.assert_frame_equal(load_market(folder(tmp_path))["A"], candles, check_freq=False)
