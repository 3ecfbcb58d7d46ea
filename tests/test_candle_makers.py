"""Candle files as people have them: every maker of the table, and every case that was once refused or read wrongly."""

import gzip
import json
import lzma
import zipfile

import numpy as np
import pandas as pd
import pytest
from test_candles import PLAIN, epoch, make_candles

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config, project_root
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.candles import audit, load_market, read_market
from cmat_lib.data.sources.makers import MAKERS, maker_of
from cmat_lib.views import VIEWS, Asked
from cmat_lib.views.compute import computed

pytestmark = pytest.mark.filterwarnings("error")  # no warning of pandas reaches a user, whatever the file

MINUTE, HOUR, DAY = (pd.Timedelta(text) for text in ("1min", "1h", "1D"))
OHLC = PLAIN[:4]
NO_VOLUME = {"channels": ["log_open", "log_high", "log_low", "log_close", "rsi"]}


def folder(path, **data) -> DataConfig:
    return DataConfig(data_dir=str(path), **data)


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found[list(expected)], expected, check_freq=False, rtol=1e-12)


def lines(*columns, sep=",", header=None) -> str:
    """Text of columns that are sequences of values, or one value for all rows."""
    rows = next(len(column) for column in columns if not isinstance(column, str))
    table = [[str(column if isinstance(column, str) else column[row]) for column in columns] for row in range(rows)]
    return "\n".join([*([header] if header else []), *(sep.join(row) for row in table)]) + "\n"


def at(candles: pd.DataFrame, form: str) -> list[str]:
    return candles.index.strftime(form).tolist()


def values(candles: pd.DataFrame, names=PLAIN) -> list[list[str]]:
    return [[repr(float(value)) for value in candles[name]] for name in names]


def written(maker: str, c: pd.DataFrame) -> str:
    """Text of candles as a maker writes it."""
    o, h, low, close, v = values(c)
    s, ms, ns = (epoch(c, unit) for unit in ("s", "ms", "ns"))
    iso, day = at(c, "%Y-%m-%d %H:%M:%S"), at(c, "%Y-%m-%d")
    money = [f'"${float(x):,.2f}"' for x in close]
    grouped = {name: [f'"{x:,.2f}"' for x in c[name]] for name in OHLC}
    thousand = [f"{x / 1000:.3f}K" for x in c["volume"]]
    return {
        "Binance archive": lambda: lines(ms, o, h, low, close, v, ms + 1, v, v, v, v, "0"),
        "no header line": lambda: lines(at(c, "%m/%d/%Y"), at(c, "%H:%M"), o, h, low, close, v),
        "no header line, no volume": lambda: lines(iso, o, h, low, close),
        "freqtrade": lambda: json.dumps([[int(t), *row] for t, row in zip(ms, c[PLAIN].to_numpy().tolist(), strict=True)]),
        "yfinance": lambda: "Price,Close,High,Low,Open,Volume\nTicker,A,A,A,A,A\nDatetime,,,,,\n" + lines(iso, close, h, low, o, v),
        "MetaTrader 5": lambda: lines(at(c, "%Y.%m.%d"), at(c, "%H:%M:%S"), o, h, low, close, v, "0", "3", sep="\t", header="<DATE> <TIME> <OPEN> <HIGH> <LOW> <CLOSE> <TICKVOL> <VOL> <SPREAD>".replace(" ", "\t")),
        "MetaTrader 5, Python": lambda: lines(iso, o, h, low, close, v, "3", "0", header="time,open,high,low,close,tick_volume,spread,real_volume"),
        "HistData": lambda: lines(at(c, "%Y%m%d %H%M%S"), o, h, low, close, v, sep=";"),
        "NinjaTrader": lambda: lines(at(c, "%Y%m%d %H%M%S"), o, h, low, close, v, sep=";"),
        "CryptoDataDownload": lambda: "https://www.CryptoDataDownload.com\n" + lines(ms, iso, "ETH/USDC", o, h, low, close, v, h, "7", header="Unix,Date,Symbol,Open,High,Low,Close,Volume ETH,Volume USDC,tradecount"),
        "Kraken archive": lambda: lines(s, o, h, low, close, v, "3"),
        "Kraken API": lambda: lines(s, o, h, low, close, close, v, "3"),
        "TradingView": lambda: lines(s, o, h, low, close, v, h, header="time,open,high,low,close,Volume,Volume MA"),
        "Coinbase API": lambda: lines(s, low, h, o, close, v),
        "Bitfinex, Bithumb": lambda: lines(ms, o, close, h, low, v),
        "KuCoin": lambda: lines(s, o, close, h, low, v, [repr(float(x) + 0.5) for x in v]),
        "Bybit": lambda: lines(ms, o, h, low, close, v, [repr(float(x) + 0.5) for x in v]),
        "Gate.io": lambda: lines(s, v, close, h, low, o),
        "Bitstamp (Kaggle)": lambda: lines(s, o, h, low, close, v, h, h, header="Timestamp,Open,High,Low,Close,Volume_(BTC),Volume_(Currency),Weighted_Price"),
        "BitMEX": lambda: lines(at(c, "%Y-%m-%dT%H:%M:%S.000Z"), "XBTUSD", o, h, low, close, "5", v, h, h, h, header="timestamp,symbol,open,high,low,close,trades,volume,vwap,homeNotional,foreignNotional"),
        "OKX": lambda: lines(ms, o, h, low, close, v, h, h, "1", header="ts,open,high,low,close,vol,volCcy,volCcyQuote,confirm"),
        "HTX (Huobi)": lambda: lines(s, o, close, low, h, v, h, "3", header="id,open,close,low,high,amount,vol,count"),
        "Upbit": lambda: lines("KRW-BTC", at(c, "%Y-%m-%dT%H:%M:%S"), at(c, "%Y-%m-%dT%H:%M:%S"), o, h, low, close, ms + 5000, v, header="market,candle_date_time_utc,candle_date_time_kst,opening_price,high_price,low_price,trade_price,timestamp,candle_acc_trade_volume"),
        "CryptoCompare": lambda: lines(s, h, low, o, v, h, close, header="time,high,low,open,volumefrom,volumeto,close"),
        "CoinMarketCap": lambda: lines(at(c, '"%Y-%m-%dT%H:%M:%S.000Z"'), at(c, '"%Y-%m-%dT23:59:59.999Z"'), '"x"', '"x"', '"2781"', o, h, low, close, v, h, at(c, '"%Y-%m-%dT23:59:59.999Z"'), sep=";", header="timeOpen;timeClose;timeHigh;timeLow;name;open;high;low;close;volume;marketCap;timestamp"),
        "Investing.com": lambda: lines(at(c, '"%m/%d/%Y"'), grouped["close"], grouped["open"], grouped["high"], grouped["low"], thousand, "1.5%", header='"Date","Price","Open","High","Low","Vol.","Change %"'),
        "Yahoo's page": lambda: lines(at(c, '"%b %d, %Y"'), o, h, low, close, close, v, header="Date,Open,High,Low,Close*,Adj Close**,Volume"),
        "Nasdaq.com": lambda: lines(at(c, "%m/%d/%Y"), money, [str(int(float(x))) for x in v], *([f"${x}" for x in column] for column in (o, h, low)), header="Date,Close/Last,Volume,Open,High,Low"),
        "NSE India": lambda: lines(at(c, "%d-%b-%y"), "EQ", grouped["open"], grouped["high"], grouped["low"], "1", close, grouped["close"], h, "2", "1", v, h, header="Date ,series ,OPEN ,HIGH ,LOW ,PREV. CLOSE ,ltp ,close ,vwap ,52W H ,52W L ,VOLUME ,VALUE "),
        "Stooq, Finam": lambda: lines("AAPL.US", "60", at(c, "%Y%m%d"), [str(int(x)) for x in at(c, "%H%M%S")], o, h, low, close, v, "0", header="<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>"),
        "Alpha Vantage": lambda: lines(iso, o, h, low, close, v, header="date,1. open,2. high,3. low,4. close,5. volume"),
        "Polygon flat file": lambda: lines("AAPL", v, o, close, h, low, ns, "9", header="ticker,volume,open,close,high,low,window_start,transactions"),
        "Alpaca": lambda: lines("AAPL", at(c, "%Y-%m-%d %H:%M:%S+00:00"), o, h, low, close, v, "9", h, header="symbol,timestamp,open,high,low,close,volume,trade_count,vwap"),
        "Databento": lambda: lines(at(c, "%Y-%m-%dT%H:%M:%S.000000000Z"), "33", "1", "12345", o, h, low, close, v, "ESH4", header="ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol"),
        "Interactive Brokers": lambda: lines(at(c.tz_convert("US/Eastern"), "%Y%m%d %H:%M:%S US/Eastern"), o, h, low, close, v, h, "3", header="date,open,high,low,close,volume,average,barCount"),
        "Dukascopy": lambda: lines(at(c, "%d.%m.%Y %H:%M:%S.000"), o, h, low, close, v, header="Gmt time,Open,High,Low,Close,Volume"),
        "Tiingo": lambda: lines(at(c, "%Y-%m-%dT%H:%M:%S+00:00"), close, h, low, o, v, close, h, low, o, v, header="date,close,high,low,open,volume,adjClose,adjHigh,adjLow,adjOpen,adjVolume"),
        "tushare": lambda: lines("000001.SZ", at(c, "%Y%m%d"), o, h, low, close, close, "0", "0", v, h, header="ts_code,trade_date,open,high,low,close,pre_close,change,pct_chg,vol,amount"),
        "akshare": lambda: lines(day, "000001", o, close, h, low, v, h, header="日期,股票代码,开盘,收盘,最高,最低,成交量,成交额"),
        "baostock": lambda: lines(day, at(c, "%Y%m%d%H%M%S000"), "sh.600000", o, h, low, close, v, h, "3", header="date,time,code,open,high,low,close,volume,amount,adjustflag"),
        "Sierra Chart": lambda: lines(at(c, "%Y/%-m/%-d"), at(c, "%H:%M:%S.0"), o, h, low, close, v, "3", "1", "2", header="Date, Time, Open, High, Low, Last, Volume, NumberOfTrades, BidVolume, AskVolume"),
        "TradeStation": lambda: lines(at(c, "%m/%d/%Y"), at(c, "%H:%M"), o, h, low, close, [repr(float(x) - 4) for x in v], "4", header='"Date","Time","Open","High","Low","Close","Up","Down"'),
    }[maker]()  # fmt: skip


DAILY = ("CoinMarketCap", "Investing.com", "Yahoo's page", "Nasdaq.com", "NSE India", "tushare", "akshare")
FILES = {  # maker -> its own kind of file name, and the symbol that it is; "A.csv" and A otherwise
    "Binance archive": ("A-1h-2025-03.csv", "A"),
    "no header line": ("A_full_1hour_adjsplit.txt", "A"),
    "freqtrade": ("A-1h.json", "A"),
    "MetaTrader 5": ("A_H1_202503010000_202503021545.csv", "A"),
    "MetaTrader 5, Python": ("EURUSD_H1.csv", "EURUSD"),
    "HistData": ("DAT_ASCII_EURUSD_M1_202503.csv", "EURUSD"),
    "NinjaTrader": ("ES 03-25.Last.txt", "ES_03-25"),
    "CryptoDataDownload": ("Binance_ETHUSDC_1h.csv", "Binance_ETHUSDC"),
    "Kraken archive": ("XBTUSD_60.csv", "XBTUSD"),
    "TradingView": ("BINANCE_BTCUSDT, 60.csv", "BINANCE_BTCUSDT"),
    "Gate.io": ("BTC_USDT-202503.csv.gz", "BTC_USDT"),
    "Stooq, Finam": ("aapl.us.txt", "aapl.us"),
    "Polygon flat file": ("2025-03-01.csv.gz", "2025-03-01"),
    "Dukascopy": ("EURUSD_Candlestick_1_h_BID_01.03.2025-02.03.2025.csv".replace("1_h", "1_H"), "EURUSD"),
    "Bybit": ("BTCUSD_60_2025-03-01_2025-03-02.csv.gz", "BTCUSD"),
}


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("maker", [maker.name for maker in MAKERS])
def test_every_maker_of_the_table(tmp_path, maker, newest_first):
    timeframe = "1d" if maker in DAILY else "1m" if maker == "HistData" else "1h"
    candles = make_candles(24 * 20, {"1d": DAY, "1h": HOUR, "1m": MINUTE}[timeframe])  # enough to tell days from months
    text = written(maker, candles[::-1] if newest_first else candles)
    name, symbol = FILES.get(maker, ("A.csv", "A"))
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    parameters = NO_VOLUME if maker == "no header line, no volume" else {}
    market = load_market(folder(tmp_path, timeframe=timeframe, **parameters))
    assert list(market) == [symbol]
    same(market[symbol], candles[OHLC if maker == "no header line, no volume" else PLAIN])


def test_every_maker_is_told_from_the_others():
    for maker in MAKERS:
        if maker.tells:
            names = [name.replace("_", " ") for name in maker.columns.split()]
            assert maker_of(names) is maker, maker.name


def formats_table() -> str:
    """The table of ``docs/howto/own-data.md``."""
    lines = ["| maker | columns | to know |", "|---|---|---|"]
    for maker in MAKERS:
        columns = f"`{maker.columns}`" + ("" if maker.header else ", no header line")
        advice = [f"set `{key}: {value}`" for key, value in maker.advice.items()]
        lines.append(f"| {maker.name} | {columns} | {'; '.join(filter(None, [maker.note, *advice]))} |")
    return "\n".join(lines)


def test_the_table_of_the_documentation_is_that_of_the_reader():
    page = (project_root() / "docs/howto/own-data.md").read_text(encoding="utf-8")
    assert formats_table() in page
    assert all(maker.name in formats_table() for maker in MAKERS)


# --- files of makers that the general door reads without a line in the table


def unlisted(name: str) -> tuple[str, bytes]:
    """Timeframe and content of a file as a maker writes it."""
    c, h = make_candles(60, DAY), make_candles(24 * 20, HOUR)
    (o, hi, lo, cl, v), (O, H, L, C, V) = values(c), values(h)

    def comma(column: list[str]) -> list[str]:
        return [value.replace(".", ",") for value in column]

    return {
        "tdx.txt": lambda: ("1d", ("600000 浦发银行 日线 前复权\n      日期\t    开盘\t    最高\t    最低\t    收盘\t    成交量\t    成交额\n"+lines(at(c,"%Y/%m/%d"),o,hi,lo,cl,v,v,sep="\t")+"数据来源:通达信\n").encode("gb18030")),
        "moex.csv": lambda: ("1h", ("candles\n\n"+lines(O,C,H,L,V,V,at(h,"%Y-%m-%d %H:%M:%S"),at(h,"%Y-%m-%d %H:59:59"),sep=";",header="open;close;high;low;value;volume;begin;end")).encode("cp1251")),
        "euronext.csv": lambda: ("1d", ('"Historical Data"\n"From 2025"\nFR0000120271\n'+lines(at(c,"%d/%m/%Y"),o,hi,lo,cl,cl,v,"3",v,cl,sep=";",header="Date;Open;High;Low;Last;Close;Number of Shares;Number of Trades;Turnover;vwap")).encode()),
        "ariva.csv": lambda: ("1d", lines(at(c,"%Y-%m-%d"),comma(o),comma(hi),comma(lo),comma(cl),comma(v),sep=";",header="Datum;Erster;Hoch;Tief;Schlusskurs;Stuecke").encode()),
        "quantmod.csv": lambda: ("1d", lines(at(c,'"%Y-%m-%d"'),o,hi,lo,cl,v,cl,header='"","AAPL.Open","AAPL.High","AAPL.Low","AAPL.Close","AAPL.Volume","AAPL.Adjusted"').encode()),
        "bse.csv": lambda: ("1d", lines(at(c,"%d-%B-%Y"),o,hi,lo,cl,cl,v,"9",v,header="Date,Open Price,High Price,Low Price,Close Price,WAP,No.of Shares,No. of Trades,Total Turnover (Rs.)").encode()),
        "pl.csv": lambda: ("1d", lines(at(c,"%Y-%m-%d"),o,hi,lo,cl,v,header="Data,Otwarcie,Najwyzszy,Najnizszy,Zamkniecie,Wolumen").encode()),
        "metastock.txt": lambda: ("1d", lines("AAPL",at(c,"%Y%m%d"),o,hi,lo,cl,v).encode()),
        "oanda.csv": lambda: ("1h", lines(at(h,"%Y-%m-%dT%H:%M:%S.000000000Z"),"True",V,O,H,L,C,header="time,complete,volume,mid.o,mid.h,mid.l,mid.c").encode()),
        "fxcm.csv": lambda: ("1h", lines(at(h,"%m/%d/%Y %H:%M:%S.000"),O,H,L,C,O,H,L,C,V,header="DateTime,BidOpen,BidHigh,BidLow,BidClose,AskOpen,AskHigh,AskLow,AskClose,Volume").encode()),
        "wsj.csv": lambda: ("1d", lines(at(c,"%m/%d/%y"),o,hi,lo,cl,v,header="Date, Open, High, Low, Close, Volume").encode()),
        "cdd_old.csv": lambda: ("1h", ("https://www.CryptoDataDownload.com\n"+lines(at(h[::-1],"%Y-%m-%d %I-%p"),"BTCUSD",*[k[::-1] for k in (O,H,L,C,V,V)],header="Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USD")).encode()),
        "dukalocal.csv": lambda: ("1h", lines(at(h,"%d.%m.%Y %H:%M:%S.000 GMT+0000"),O,H,L,C,V,header="Local time,Open,High,Low,Close,Volume").encode()),
        "cmc_page.csv": lambda: ("1d", lines(at(c[::-1],'"%b %d, %Y"'),*[[f'"{x}"' for x in k[::-1]] for k in (o,hi,lo,cl,v,v)],header="Date,Open*,High,Low,Close**,Volume,Market Cap").encode()),
        "bybitmt.csv": lambda: ("1h", lines(at(h,"%Y.%m.%d %H:%M"),O,H,L,C,V).encode()),
        "kline_cn.csv": lambda: ("1h", lines(at(h,"%Y-%m-%d %H:%M:%S"),O,H,L,C,V,V,header="candle_begin_time,open,high,low,close,volume,quote_volume").encode()),
        "excel.csv": lambda: ("1d", ("sep=;\n"+lines(at(c,"%d.%m.%Y"),comma(o),comma(hi),comma(lo),comma(cl),comma(v),sep=";",header="Datum;Eröffnung;Hoch;Tief;Schluss;Volumen")).encode("cp1252")),
        "yfold.csv": lambda: ("1d", ("Price,Adj Close,Close,High,Low,Open,Volume\nTicker,AAPL,AAPL,AAPL,AAPL,AAPL,AAPL\nDate,,,,,,\n"+lines(at(c,"%Y-%m-%d"),cl,cl,hi,lo,o,v)).encode()),
        "stooqu.txt": lambda: ("1d", lines("AAPL.US","D",at(c,"%Y%m%d"),"000000",o,hi,lo,cl,v,"0",header="<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>").encode()),
        "amibroker.csv": lambda: ("1h", lines("ES",at(h,"%m/%d/%Y %I:%M:%S %p"),O,H,L,C,V,header="Ticker,Date/Time,Open,High,Low,Close,Volume").encode()),
        "krx.csv": lambda: ("1d", lines(at(c,"%Y/%m/%d"),cl,"1","1",o,hi,lo,v,header="일자,종가,대비,등락률,시가,고가,저가,거래량").encode("euc_kr")),
        "vnd.csv": lambda: ("1d", lines("VNM",at(c,"%Y%m%d"),o,hi,lo,cl,v,header="<Ticker>,<DTYYYYMMDD>,<Open>,<High>,<Low>,<Close>,<Volume>").encode()),
    }[name]()  # fmt: skip


UNLISTED = """tdx.txt moex.csv euronext.csv ariva.csv quantmod.csv bse.csv pl.csv metastock.txt oanda.csv fxcm.csv wsj.csv cdd_old.csv dukalocal.csv cmc_page.csv bybitmt.csv kline_cn.csv excel.csv yfold.csv stooqu.txt amibroker.csv krx.csv vnd.csv"""


@pytest.mark.parametrize("name", UNLISTED.split())
def test_files_of_makers_that_are_not_in_the_table(tmp_path, name):
    timeframe, content = unlisted(name)
    (tmp_path / name).write_bytes(content)
    (found,) = load_market(folder(tmp_path, timeframe=timeframe)).values()
    same(found, make_candles(60, DAY) if timeframe == "1d" else make_candles(24 * 20, HOUR))


# --- the cases, in their order


def days(text: str, path, **data) -> pd.DataFrame:
    (path / "A.csv").write_text(text)
    (candles,) = load_market(folder(path, timeframe="1d", **data)).values()
    return candles


def test_1_rounding_of_adjusted_prices_is_no_defect(tmp_path):
    text = "Date,Open,High,Low,Close,Volume\n2024-01-01,10.0,12.28733921051025,9.9,{},100\n2024-01-02,10,11,9,10,100\n"
    assert len(days(text.format("12.287339210510254"), tmp_path)) == 2
    with pytest.raises(CmatError, match="high is not the highest price"):
        days(text.format("12.2873393"), tmp_path)


@pytest.mark.parametrize("ending", ["csv", "parquet", "epoch"])
@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Australia/Sydney"])
@pytest.mark.parametrize("clock", ["0h", "9h30min"])
def test_2_days_that_begin_at_midnight_or_the_opening_of_another_zone(tmp_path, ending, zone, clock):
    dates = pd.bdate_range("2020-10-20", periods=200)
    times = (dates.tz_localize(zone) + pd.Timedelta(0)).tz_localize(None) + pd.Timedelta(clock)
    table = make_candles(200).set_axis(times.tz_localize(zone).tz_convert("UTC").rename("Date"))
    if ending == "parquet":
        table.to_parquet(tmp_path / "A.parquet")
    else:
        index = table.index if ending == "csv" else table.index.as_unit("s").asi8
        table.set_axis(pd.Index(index, name="Date")).to_csv(tmp_path / "A.csv")
    index = load_market(folder(tmp_path, timeframe="1d"))["A"].index
    assert index.equals(dates.tz_localize("UTC").as_unit("ns"))


def test_3_years_before_1990(tmp_path):
    text = "Date,Open,High,Low,Close,Volume\n1962-01-02,1,2,1,2,5\n1962-01-03,x,2,1,2,5\n1990-01-02,1,2,1,2,5\n1990-01-03,1,2,1,2,5\n"
    assert (
        days(text, tmp_path, since="1990-01-01").index.tolist()
        == pd.to_datetime(["1990-01-02", "1990-01-03"], utc=True).tolist()
    )
    assert days(text.replace("x", "1"), tmp_path).index[0] == pd.Timestamp("1962-01-02", tz="UTC")
    with pytest.raises(CmatError, match=r"column 'Open', row 2: x is not a number"):
        days(text, tmp_path)


def test_3_epoch_seconds_before_1990(tmp_path):
    times = pd.date_range("1985-01-01", "1995-01-01", freq="D", tz="UTC")
    for unit in ("s", "ms"):
        table = make_candles(len(times)).set_axis(pd.Index(times.as_unit(unit).asi8, name="t"))
        if unit == "ms":  # 1970 to 1990 could be seconds of later years
            table = table.set_axis(pd.Index((times - pd.Timedelta(days=365 * 30)).as_unit(unit).asi8, name="t"))
            table = pd.concat([table, table.set_axis(table.index + 365 * 60 * 86_400_000)])
        table.to_csv(tmp_path / "A.csv")
        first = load_market(folder(tmp_path, timeframe="1d"))["A"].index[0]
        assert first.year == (1985 if unit == "s" else 1955)


def lunch_index(weeks=8, start="2024-01-08"):
    hours = [pd.Timedelta(text) for text in ("9h30min", "10h30min", "13h", "14h")]
    return (
        pd.DatetimeIndex([d + h for d in pd.bdate_range(start, periods=5 * weeks) for h in hours])
        .tz_localize("Asia/Shanghai")
        .tz_convert("UTC")
    )


def test_4_a_lunch_that_is_no_whole_number_of_candles(tmp_path):
    index = lunch_index()
    join = {"timeframe": "1h", "sessions": "join", "clock_zone": "Asia/Shanghai"}
    table = make_candles(len(index)).set_axis(index.rename("timestamp"))
    from cmat_lib.data.sessions import stretch_ids

    table.to_csv(tmp_path / "A.csv")
    candles = load_market(folder(tmp_path, **join))["A"]
    assert len(candles) == len(index) and stretch_ids(candles, HOUR).max() == 0
    for lost in (1, 2, 6):  # 10:30, 13:00, 13:00 of the next day: each is a gap, and known to be missing
        table.drop(index[lost + 20]).to_csv(tmp_path / "A.csv")
        candles = load_market(folder(tmp_path, **join))["A"]
        assert stretch_ids(candles, HOUR).max() == 1, lost
        filled = load_market(folder(tmp_path, gaps="fill_flat", **join))["A"]
        assert filled.index.equals(index.as_unit("ns")) and stretch_ids(filled, HOUR).max() == 0
    table.set_axis(index.delete(41).insert(41, index[41] + MINUTE).rename("timestamp")).to_csv(tmp_path / "A.csv")
    with pytest.raises(CmatError, match="no whole number of candles"):
        load_market(folder(tmp_path, **join))
    table.to_csv(tmp_path / "A.csv")
    with pytest.raises(
        CmatError, match=r"no whole number of candles .*if the market has breaks, set data\.sessions: join"
    ):
        load_market(folder(tmp_path, timeframe="1h"))


def test_5_files_of_freqtrade_that_are_no_candles(tmp_path):
    for name in ("ADA_BTC-5m", "ADA_BTC-1Mo"):
        make_candles(40, 5 * MINUTE).reset_index(names="date").to_feather(tmp_path / f"{name}.feather")
    pd.DataFrame({"timestamp": [1], "price": [2.0]}).to_feather(tmp_path / "XRP_ETH-trades.feather")
    with pytest.warns(UserWarning, match=r"left out: ADA_BTC-1Mo\.feather .*XRP_ETH-trades\.feather"):
        assert list(load_market(folder(tmp_path, timeframe="5m"))) == ["ADA_BTC"]


@pytest.mark.parametrize(
    ("volumes", "base"),
    [
        ("Volume ETH,Volume USDC", 0),
        ("Volume USD,Volume BTC", 1),
        ("Volume_(BTC),Volume_(Currency)", 0),
        ("Volume ETH,Volume BTC", 0),
    ],
)
def test_6_cryptodatadownload(tmp_path, volumes, base, recwarn):
    candles = make_candles(30, HOUR)
    pair = [candles["volume"] * 0.5, candles["volume"] * 0.5]
    pair[base] = candles["volume"]
    table = candles[OHLC].assign(Symbol="ETH/USDC", a=pair[0], b=pair[1], tradecount=3).reset_index()
    table = table[["timestamp", "Symbol", *OHLC, "a", "b", "tradecount"]]
    text = table.iloc[::-1].to_csv(index=False, header=False, date_format="%Y-%m-%d %H:%M:%S")
    header = f"Date,Symbol,Open,High,Low,Close,{volumes},tradecount"
    (tmp_path / "Binance_ETHUSDC_1h.csv").write_text(f"https://www.CryptoDataDownload.com\n{header}\n{text}")
    same(load_market(folder(tmp_path, timeframe="1h"))["Binance_ETHUSDC"], candles)
    assert not [str(w.message) for w in recwarn]


@pytest.mark.parametrize("row", [0, 7])
def test_6_a_row_that_is_longer_than_the_header(tmp_path, row, recwarn):
    text = make_candles().to_csv().splitlines()
    long = [line + ",9" if number == row + 1 or (row == 0 and number) else line for number, line in enumerate(text)]
    (tmp_path / "A.csv").write_text("\n".join(long))
    with pytest.raises(
        CmatError, match=r"A\.csv: (rows have more fields than the header|cannot be read .*Expected 6 fields in line 9)"
    ):
        load_market(folder(tmp_path))
    assert not [str(w.message) for w in recwarn]


def test_7_kraken(tmp_path):
    (tmp_path / "XBTUSD_60.csv").write_text("1704067200,1,2,1,2,5,3\n1704070800,2,3,2,3,6,4\n")
    (tmp_path / "XBTUSD_15.csv").write_text("1704067200,1,2,1,2,5,3\n1704068100,2,3,2,3,6,4\n")
    candles = load_market(folder(tmp_path, timeframe="1h"))["XBTUSD"]
    assert candles.iloc[0].to_dict() == {"open": 1, "high": 2, "low": 1, "close": 2, "volume": 5, "trades": 3}
    make_candles().reset_index().to_csv(tmp_path / "SYMBOL_60.csv", index=False)  # with a header: a name like any other
    (tmp_path / "XBTUSD_60.csv").unlink(), (tmp_path / "XBTUSD_15.csv").unlink()
    assert list(load_market(folder(tmp_path))) == ["SYMBOL_60"]


def test_8_metatrader_from_python(tmp_path):
    for name, bar in (("H1", HOUR), ("H4", 4 * HOUR)):
        (tmp_path / f"EURUSD_{name}.csv").write_text(written("MetaTrader 5, Python", make_candles(40, bar)))
    market = load_market(folder(tmp_path, timeframe="1h"))
    assert list(market) == ["EURUSD"]
    same(market["EURUSD"], make_candles(40, HOUR))


def test_9_the_index_without_a_name(tmp_path):
    make_candles().rename(columns=str.title).rename_axis(None).to_csv(tmp_path / "A.csv")
    same(load_market(folder(tmp_path))["A"], make_candles())
    make_candles().reset_index().to_csv(tmp_path / "A.csv")  # a column of row numbers beside the time
    same(load_market(folder(tmp_path))["A"], make_candles())


@pytest.mark.parametrize("ending", ["csv", "parquet", "index", "feather", "interleaved", "jsonl"])
def test_10_several_symbols_in_a_file(tmp_path, ending):
    apple, other = make_candles(), make_candles(30) * 2
    table = pd.concat({"AAPL": apple, "000001": other}, names=["symbol", "timestamp"])
    if ending == "interleaved":
        table = table.sort_index(level="timestamp", kind="stable")
    rows = table.reset_index()
    if ending in ("csv", "interleaved"):
        rows.to_csv(tmp_path / "all.csv", index=False)
    elif ending == "index":
        table.to_parquet(tmp_path / "all.parquet")
    elif ending == "jsonl":
        rows.to_json(tmp_path / "all.jsonl", orient="records", lines=True, date_format="iso")
    else:
        getattr(rows, f"to_{ending}")(tmp_path / f"all.{ending}")
    market = load_market(folder(tmp_path))
    assert list(market) == ["000001", "AAPL"]
    same(market["AAPL"], apple), same(market["000001"], other)
    assert list(load_market(folder(tmp_path, symbols=["000001"]))) == ["000001"]


def test_10_one_symbol_in_a_column_leaves_the_name_to_the_file(tmp_path):
    make_candles().assign(symbol="ETH/USDC").to_csv(tmp_path / "ETH.csv")
    assert list(load_market(folder(tmp_path))) == ["ETH"]


@pytest.mark.parametrize("column", ["symbol", "contract", "合约", "expiry", "contract_month"])
def test_11_contracts_one_after_the_other(tmp_path, column):
    first, second = make_candles(), make_candles(start=make_candles().index[-1] + 15 * MINUTE) * 250
    pd.concat([first.assign(**{column: "H4"}), second.assign(**{column: "M4"})]).to_csv(tmp_path / "A.csv")
    if column in ("expiry", "contract_month"):
        with pytest.raises(
            CmatError, match=rf"A\.csv: column '{column}' has 2 values; .*data\.columns: {{symbol: {column}}}"
        ):
            load_market(folder(tmp_path))
    market = load_market(folder(tmp_path, columns={"symbol": column}))
    assert list(market) == ["H4", "M4"]
    same(market["M4"], second)


def test_11_another_column_that_may_tell_instruments_apart_is_named_in_the_audit(tmp_path):
    pd.concat(
        [make_candles().assign(leg="a"), make_candles(start=make_candles().index[-1] + 15 * MINUTE).assign(leg="b")]
    ).to_csv(tmp_path / "A.csv")
    row = audit(read_market(folder(tmp_path)), 15 * MINUTE).loc["A"]
    assert row["doubts"].startswith("column leg has few values, each in one stretch") and row["unread"] == "leg"


def test_14_symbols_that_yaml_reads_as_something_else():
    for value, shown in ((1, "1"), (True, "True")):
        with pytest.raises(CmatError, match=rf"data\.symbols\.0: .*got {shown} \(put it in quotes, as \"000001\""):
            load_config(changes={"data": {"symbols": [value]}})


@pytest.mark.parametrize("kind", ["none", "minus one", "empty"])
def test_15_no_volume(tmp_path, kind):
    table = make_candles()[OHLC]
    table = table if kind == "none" else table.assign(volume=np.nan if kind == "empty" else -1.0)
    table.to_csv(tmp_path / "A.csv")
    candles = load_market(folder(tmp_path, **NO_VOLUME))["A"]
    same(candles, make_candles()[OHLC])
    assert "volume" not in candles
    with pytest.raises(
        CmatError,
        match=r"no column volume; .*data\.channels \(volume_zscore, .*mfi read it\)|a value is missing|is negative",
    ):
        load_market(folder(tmp_path))


def test_15_no_volume_and_a_topology_that_reads_it():
    candles, config = make_candles()[OHLC], load_config(changes={"tda": {"series": ["log_volume"]}})
    rows = np.array([len(candles) - 1])
    asked = Asked("A", {"A": candles}, rows, config, computed("A", candles, rows))
    with pytest.raises(CmatError, match=r"tda\.series has log_volume, and the candles have no volume"):
        VIEWS.views["tda"].compute(asked)


def test_16_times_of_the_close(tmp_path):
    candles = make_candles()
    candles.set_axis(candles.index + 15 * MINUTE).to_csv(tmp_path / "A.csv", index_label="time")
    same(load_market(folder(tmp_path, stamp="close"))["A"], candles)
    assert load_market(folder(tmp_path))["A"].index[0] == candles.index[1]
    candles.set_axis(candles.index + 15 * MINUTE - pd.Timedelta("1ms")).to_csv(tmp_path / "A.csv", index_label="time")
    same(load_market(folder(tmp_path, stamp="close"))["A"], candles)


def test_16_the_hour_that_trades_most(tmp_path):
    candles = make_candles(96 * 3)
    candles["volume"] = np.where(candles.index.hour == 14, 99.0, 1.0)
    candles.to_csv(tmp_path / "A.csv")
    market = read_market(folder(tmp_path))
    assert audit(market, 15 * MINUTE)["volume_hour"].tolist() == ["14:00"]
    assert audit(market, 15 * MINUTE, "America/New_York")["volume_hour"].tolist() == ["09:00"]


def test_17_further_columns(tmp_path, monkeypatch):
    from cmat_lib.data import channels

    table = make_candles().assign(funding=np.arange(40.0), obv=1.0)
    table.to_csv(tmp_path / "A.csv")
    market = read_market(folder(tmp_path))
    assert list(market["A"]) == PLAIN and audit(market, 15 * MINUTE)["unread"].tolist() == ["funding, obv"]
    monkeypatch.setitem(
        channels.CHANNELS, "funding", channels.Channel(lambda run: run["funding"].to_numpy(), 1, "own", ("funding",))
    )
    market = read_market(folder(tmp_path, channels=["log_close", "funding"]))
    assert market["A"]["funding"].tolist() == table["funding"].tolist()
    assert audit(market, 15 * MINUTE)["unread"].tolist() == ["obv"]


# --- files that are no makers': what people have, and what is wrong with it


ODD = {  # a way to write the candles -> content
    "byte order mark": lambda c: b"\xef\xbb\xbf" + c.to_csv().encode(),
    "utf-16": lambda c: c.to_csv(sep="\t").encode("utf-16"),
    "line ends of old": lambda c: c.to_csv().replace("\n", "\r").encode(),
    "blank lines": lambda c: c.to_csv().replace("\n", "\n\n").encode(),
    "mark at the end": lambda c: c.to_csv().replace("\n", ",\n").encode(),
    "quoted names with blanks": lambda c: c.reset_index().set_axis(["Date Time", "Open Price", "High Price", "Low Price", "Close Price", "Total Volume"], axis=1).to_csv(index=False, quoting=1).encode(),
    "offsets that change": lambda c: pd.concat([c[:20], c[20:]]).set_axis([*c.index[:20].astype(str), *c.index[20:].tz_convert("Etc/GMT-1").astype(str)]).to_csv(index_label="time").encode(),
    "totals": lambda c: (c.to_csv() + "Total,,,,,123456\n").encode(),
    "null first": lambda c: ("Date,Open,High,Low,Close,Volume\n2025-02-28 23:45:00,null,null,null,null,null\n" + c.to_csv(header=False)).encode(),
    "euro": lambda c: c.map(lambda value: f"€{value!r}").to_csv().encode(),
    "exponents": lambda c: c.map(lambda value: f"{value:.12E}").to_csv().encode(),
    "exponents and commas": lambda c: c.map(lambda value: f"{value:.12E}".replace(".", ",")).to_csv(sep=";").encode(),
    "comment": lambda c: b"# made by hand\n" + c.to_csv().encode(),
    **{f"epoch {unit}": lambda c, unit=unit: c.set_axis(pd.Index(epoch(c, unit), name="t")).to_csv().encode() for unit in ("s", "ms", "us", "ns")},
    "epoch of decimals": lambda c: c.set_axis(pd.Index(epoch(c, "s") + 0.0, name="t")).to_csv().encode(),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_files_that_people_have(tmp_path, kind):
    (tmp_path / "A.csv").write_bytes(ODD[kind](make_candles()))
    same(load_market(folder(tmp_path))["A"], make_candles())


def test_nulls_in_the_first_row_are_no_tickers(tmp_path):
    rows = "".join(f'"Feb {day}, 2025",{row}\n' for day, row in ((26, "null,null,null,null,null"), (27, "1,2,1,2,5"), (28, "1,2,1,2,5")))  # fmt: skip
    (tmp_path / "A.csv").write_text("Date,Open,High,Low,Close,Volume\n" + rows)
    assert list(load_market(folder(tmp_path, timeframe="1d"))) == ["A"]


WRONG = {
    "two files in one": (lambda c: c[:9].to_csv() + c[9:].to_csv(), r"row 10: timestamp is not a time"),
    "average": (lambda c: c.to_csv() + "Average,1,2,3,4,5\n", r"row 41: Average is not a time"),
    "zones in a part": (lambda c: c[:20].to_csv() + c[20:].tz_localize(None).to_csv(header=False), r"row 21: .* has a zone, or none, unlike other rows"),
    "negative volume": (lambda c: c.assign(volume=-5).to_csv(), "a volume or count is negative"),
    "short row": (lambda c: c.to_csv().strip().rsplit(",", 2)[0], "a value is missing"),
    "one price lost": (lambda c: c.assign(close=c["close"].where(np.arange(len(c)) != 3)).to_csv(), "a value is missing"),
    "header only": (lambda c: c[:0].to_csv(), "the file has no rows"),
    "empty": (lambda c: "", "the file is empty"),
    "2101": (lambda c: c.set_axis(c.index + pd.Timedelta(days=28_000)).to_csv(index_label="t"), "is not before the year 2100"),
    "days of a spreadsheet": (lambda c: c.set_axis(pd.Index(range(45_352, 45_392), name="Date")).to_csv(), "is no epoch time"),
    "two tickers side by side": (lambda c: pd.concat([c.add_prefix("AAPL_"), c.add_prefix("MSFT_")], axis=1).to_csv(), "'AAPL_open' and 'MSFT_open' both mean 'open'"),
    "symbols in a part": (lambda c: pd.concat([c.assign(symbol="A"), c.assign(symbol="B"), c.assign(symbol=None)]).to_csv(), r"row 81: .* is no symbol"),
    "a page of a website": (lambda c: "<!DOCTYPE html><html><body>403, Forbidden</body></html>", "no column timestamp"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_files_that_are_wrong_are_refused_by_name(tmp_path, kind):
    write, message = WRONG[kind]
    (tmp_path / "A.csv").write_text(write(make_candles()))
    with pytest.raises(CmatError, match=rf"A\.csv.*({message})"):
        load_market(folder(tmp_path))


# --- the general door


def test_told_columns(tmp_path):
    names = {"timestamp": "when", "open": "a", "high": "b", "low": "c", "close": "d", "volume": "Vol. (lots)"}
    make_candles().reset_index().rename(columns=names).assign(open=7).to_csv(tmp_path / "A.csv", index=False)
    same(load_market(folder(tmp_path, columns=names))["A"], make_candles())
    with pytest.raises(CmatError, match=r"A\.csv: data\.columns: close: no column 'dd'; did you mean 'd'"):
        load_market(folder(tmp_path, columns={**names, "close": "dd"}))
    with pytest.raises(CmatError, match=r"data\.columns: 'Close!' is no name of a column here"):
        load_config(changes={"data": {"columns": {"Close!": "x"}}})


def test_told_columns_of_a_file_without_header(tmp_path):
    c = make_candles()
    (tmp_path / "A.csv").write_text(
        lines(*values(c, ["volume", "close", "low", "high", "open"]), "9", "9", "9", at(c, "%Y-%m-%d %H:%M"))
    )
    with pytest.raises(CmatError, match=r"9 columns without a header line, .*data\.columns: {timestamp: 1, open: 2"):
        load_market(folder(tmp_path))
    told = {"timestamp": "9", "open": "5", "high": "4", "low": "3", "close": "2", "volume": "1"}
    same(load_market(folder(tmp_path, columns=told))["A"], c)


FORMS = [
    "%Y%m%d",
    "%d-%b-%y",
    "%d-%b-%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%d.%m.%Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%-m/%-d/%Y",
    "%Y-%-m-%-d",
    "%Y年%m月%d日",
    "%d %b %Y",
    "%m/%d/%y",
    "%Y.%m.%d",
    "%d-%m-%Y",
]


@pytest.mark.parametrize("form", FORMS)
def test_dates(tmp_path, form):
    candles = make_candles(60, DAY)
    text = lines([f'"{t}"' for t in at(candles, form)], *values(candles), header="Date,Open,High,Low,Close,Volume")
    same(days(text, tmp_path), candles)
    if "%-" not in form:
        same(days(text, tmp_path, time_format=form), candles)


CLOCKS = [
    "%d.%m.%Y %H:%M",
    "%m/%d/%Y %I:%M %p",
    "%Y%m%d %H%M%S",
    "%Y%m%d%H%M",
    "%Y%m%d%H%M%S",
    "%d.%m.%Y %H:%M:%S.000",
    "%Y.%m.%d %H:%M",
    "%d.%m.%Y %H:%M:%S.000 GMT+0000",
    "%Y-%m-%d %H:%M:%S UTC",
    "%Y-%-m-%-d %-H:%M",
    "%Y-%m-%d %I-%p",
]


@pytest.mark.parametrize("form", CLOCKS)
def test_dates_with_a_clock(tmp_path, form):
    candles = make_candles(24 * 20, HOUR)
    (tmp_path / "A.csv").write_text(
        lines([f'"{t}"' for t in at(candles, form)], *values(candles), header="Date,Open,High,Low,Close,Volume")
    )
    same(load_market(folder(tmp_path, timeframe="1h"))["A"], candles)


@pytest.mark.parametrize("form", ["%m/%d/%Y", "%d-%m-%Y", "%d/%m/%y"])
def test_a_day_that_may_be_a_month(tmp_path, form):
    candles = make_candles(9, DAY)
    text = lines(at(candles, form), *values(candles), header="Date,Open,High,Low,Close,Volume")
    with pytest.raises(
        CmatError, match=r"A\.csv: column 'Date': .* may have its day or its month first; set data\.time_format to '%"
    ):
        days(text, tmp_path)
    same(days(text, tmp_path, time_format=form), candles)


def test_a_time_format_that_does_not_fit(tmp_path):
    text = "Date,Open,High,Low,Close,Volume\n2024-01-02,1,2,1,2,3\n"
    with pytest.raises(CmatError, match=r"row 1: 2024-01-02 is not a time; .*data\.time_format"):
        days(text, tmp_path, time_format="%d/%m/%Y")
    with pytest.raises(CmatError, match=r"data\.time_format: .*write it as strptime"):
        days(text, tmp_path, time_format="%Q")


@pytest.mark.parametrize("clock", ["%H%M%S", "%H%M", "%H:%M", "%I:%M %p", "%H:%M:%S"])
def test_times_that_lost_their_zeros(tmp_path, clock):
    candles = make_candles(24 * 20, HOUR)
    hours = [t.lstrip("0") or "0" for t in at(candles, clock)] if ":" not in clock else at(candles, clock)
    (tmp_path / "A.csv").write_text(
        lines(at(candles, "%Y%m%d"), hours, *values(candles), header="Date,Time,Open,High,Low,Close,Volume")
    )
    same(load_market(folder(tmp_path, timeframe="1h"))["A"], candles)


NUMBERS = {  # decimal, thousands, delimiter, quote
    "3,533.40": (".", ",", ",", '"'), "3.533,40": (",", ".", ";", ""), "3533,40": (",", "", ";", ""), "3 533,40": (",", " ", ";", ""),
    "3'533.40": (".", "'", ",", ""), "$3,533.40": (".", ",", ",", '"'), "tab 3,533.40": (".", ",", "\t", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(tmp_path, name):
    decimal, thousands, delimiter, quote = NUMBERS[name]
    candles = make_candles() * 1001.25

    def write(value: float) -> str:
        text = f"{value:,.4f}".replace(",", "T").replace(".", decimal).replace("T", thousands)
        return f"{quote}{'$' if '$' in name else ''}{text}{quote}"

    columns = [[write(value) for value in candles[column]] for column in PLAIN]
    text = lines(at(candles, "%Y-%m-%d %H:%M"), *columns, sep=delimiter, header=delimiter.join(["Date", *PLAIN]))
    (tmp_path / "A.csv").write_text(text)
    pd.testing.assert_frame_equal(load_market(folder(tmp_path))["A"], candles, check_freq=False, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "value"),
    [("52.59K", 52590), ("1.2M", 1.2e6), ("3B", 3e9), ("1,234", 1234), ("12,34,567", 1234567), ("2万", 2e4)],
)
def test_numbers_with_a_unit(tmp_path, text, value):
    rows = "".join(f'2025-01-0{day},1,2,1,2,"{text}"\n' for day in (1, 2, 3))
    assert days(f"Date,Open,High,Low,Close,Volume\n{rows}", tmp_path)["volume"].tolist() == [value] * 3


def test_numbers_that_may_be_two_things(tmp_path):
    text = (
        "Date;Open;High;Low;Close;Volume\n2025-01-01;1,234;2,345;1,123;2,123;5\n2025-01-02;1,234;2,345;1,123;2,123;5\n"
    )
    with pytest.raises(CmatError, match=r"A\.csv: 1,234 may be a decimal or thousands; set data\.decimal"):
        days(text, tmp_path)
    assert days(text, tmp_path, decimal=",")["open"].tolist() == [1.234] * 2
    assert days(text, tmp_path, decimal=".")["open"].tolist() == [1234] * 2
    with pytest.raises(CmatError, match="decimal and thousands are the same mark"):
        load_config(changes={"data": {"decimal": ",", "thousands": ","}})


def test_a_number_of_another_form_further_down_is_named(tmp_path):
    rows = [
        f'"{day:%Y-%m-%d}","1,000.5","2,000.5","1,000.5","2,000.5",5'
        for day in pd.date_range("2020-01-01", periods=200)
    ]
    rows[150] = rows[150].replace('"1,000.5","2', '"99,75","2', 1)
    with pytest.raises(CmatError, match=r"column 'open', row 151: 99,75 is not a number; set data\.decimal"):
        days("date,open,high,low,close,volume\n" + "\n".join(rows), tmp_path)


def test_rows_without_a_price_are_gaps_and_told(tmp_path):
    text = make_candles().to_csv().splitlines()
    text[8] = text[8].split(",")[0] + ",null,null,null,null,null"
    (tmp_path / "A.csv").write_text("\n".join([*text, "数据来源:通达信"]))
    market = read_market(folder(tmp_path))
    assert len(market["A"]) == 39 and audit(market, 15 * MINUTE)["doubts"].tolist() == [
        "2 rows without any price, which are gaps"
    ]


def test_lines_before_the_header_and_other_marks(tmp_path):
    c = make_candles()
    body = lines(at(c, "%Y-%m-%d %H:%M"), *values(c), sep="|", header="Date|Open|High|Low|Close|Volume")
    (tmp_path / "A.csv").write_text("sep=|\n\nExport of today, made by hand\n" + body)
    same(load_market(folder(tmp_path))["A"], c)
    (tmp_path / "A.csv").write_text(lines(at(c, "%Y%m%d"), at(c, "%H:%M"), *values(c), sep="   "))
    same(load_market(folder(tmp_path))["A"], c)


@pytest.mark.parametrize("header", ["AAPL.{}", "{}_AAPL", "{} (USD)", "px_{}", "Adjusted {}"])
def test_names_with_something_before_or_after(tmp_path, header):
    table = make_candles().rename(columns=lambda name: header.format(name.title()))
    table.to_csv(tmp_path / "A.csv")
    same(load_market(folder(tmp_path))["A"], make_candles())


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_packed_text(tmp_path, pack):
    ending = {gzip.compress: "gz", lzma.compress: "xz"}[pack]
    (tmp_path / f"A_15m.csv.{ending}").write_bytes(pack(make_candles().to_csv().encode()))
    same(load_market(folder(tmp_path))["A"], make_candles())


JSON = {
    "list of rows": lambda c: [[int(t), *map(str, row)] for t, row in zip(epoch(c, "ms"), c[PLAIN].to_numpy(), strict=True)],
    "polygon": lambda c: {"ticker": "A", "results": [dict(zip("tohlcv", [int(t), *row], strict=True)) for t, row in zip(epoch(c, "ms"), c[PLAIN].to_numpy(), strict=True)]},
    "alpha vantage": lambda c: {"Meta Data": {"1. Information": "x"}, "Time Series (15min)": {t: {f"{n + 1}. {name}": str(row[n]) for n, name in enumerate(PLAIN)} for t, row in zip(at(c, "%Y-%m-%d %H:%M:%S"), c[PLAIN].to_numpy(), strict=True)}},
    "columns": lambda c: {"s": "ok", "t": epoch(c, "s").tolist(), **{name[0]: c[name].tolist() for name in PLAIN}},
}  # fmt: skip


@pytest.mark.parametrize("kind", JSON)
def test_json(tmp_path, kind):
    (tmp_path / "A.json").write_text(json.dumps(JSON[kind](make_candles())))
    (tmp_path / "notes.json").write_text('{"a": 1}')
    market = load_market(folder(tmp_path))
    assert list(market) == ["A"]
    same(market["A"], make_candles())


def test_one_file_as_the_folder(tmp_path):
    for name in "AB":
        make_candles().to_csv(tmp_path / f"{name}.csv")
    assert list(load_market(folder(tmp_path / "B.csv"))) == ["B"]


def test_a_zip_with_a_report_beside_the_candles(tmp_path):
    with zipfile.ZipFile(tmp_path / "HISTDATA_COM_ASCII_EURUSD_M1_2025.zip", "w") as file:
        file.writestr("DAT_ASCII_EURUSD_M1_2025.csv", written("HistData", make_candles(40, MINUTE)))
        file.writestr("DAT_ASCII_EURUSD_M1_2025.txt", "Status report")
    (candles,) = load_market(folder(tmp_path, timeframe="1m")).values()
    same(candles, make_candles(40, MINUTE))


# --- what may be wrong is told


def doubts_of(candles: pd.DataFrame) -> str:
    return audit({"A": candles}, 15 * MINUTE)["doubts"].iloc[0]


def walk(rows=2000, seed=0, bar=15 * MINUTE) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.standard_t(3, rows) * 0.003))
    table = make_candles(rows, bar)
    opened = np.append(close[0], close[:-1])
    return table.assign(open=opened, close=close, high=np.maximum(opened, close), low=np.minimum(opened, close))


@pytest.mark.parametrize("factor", [0.5, 0.25, 10, 1 / 3])
def test_a_split_is_told(factor):
    candles = walk()
    assert doubts_of(candles) == ""
    candles.iloc[1200:, :4] *= factor
    assert doubts_of(candles).startswith(
        f"the price jumps by {candles['open'].iloc[1200] / candles['close'].iloc[1199]:.3g} at 2025-03-13 12:00"
    )


def test_a_crash_is_no_split():
    candles = walk()
    candles.iloc[1200:, 3] *= 0.5  # within a candle
    candles["open"] = np.append(candles["close"].iloc[0], candles["close"].iloc[:-1])
    assert doubts_of(candles) == ""


def test_a_stretch_that_is_there_twice_is_told():
    candles = walk()
    candles.iloc[900:1000, :4] = candles.iloc[100:200, :4].to_numpy()
    assert "100 candles from 2025-03-10 09:00 repeat those from 2025-03-02 01:00" in doubts_of(candles)
    flat = walk().assign(open=1.0, high=1.0, low=1.0, close=1.0)
    assert doubts_of(flat) == ""


def test_a_change_of_the_bar_size_is_told():
    candles = walk(4000)
    mixed = pd.concat([candles.iloc[:2000:4], candles.iloc[2000:]])
    assert "candles about 2025-03-01 00:00 are 0 days 01:00:00 apart" in doubts_of(mixed)


def test_real_candles_have_no_doubts(real_candles):
    report = audit(load_market(folder(real_candles)), 15 * MINUTE)
    assert (report["doubts"] == "").all()


# --- cmat candles


def test_the_command_shows_and_writes_what_reads_the_files(cmat, tmp_path):
    candles = make_candles(24 * 60, HOUR)
    (tmp_path / "EURUSD_H1.csv").write_text(written("MetaTrader 5, Python", candles))
    (tmp_path / "EURUSD_H4.csv").write_text(written("MetaTrader 5, Python", make_candles(40, 4 * HOUR)))
    written_to = tmp_path / "mine.yaml"
    code, out, err = cmat("candles", tmp_path, "--write", written_to, "--set", "data.clock_zone=Asia/Tokyo")
    assert code == 0, err
    shown = (
        "MetaTrader 5, Python",
        "volume = tick_volume",
        "spread",
        "2025-03-01 09:00",
        "EURUSD_H4.csv (timeframe H4)",
    )
    assert all(text in out for text in shown)
    config = load_config(written_to)
    assert (config.data.timeframe, config.data.clock_zone) == ("1h", "Asia/Tokyo")
    same(load_market(config.data)["EURUSD"], candles)
    code, _, err = cmat("candles", tmp_path, "--write", written_to)
    assert code == 1 and "there is such a file" in err


def test_the_command_tells_what_cannot_be_read_and_shows_the_rest(cmat, tmp_path):
    make_candles(9, DAY).to_csv(tmp_path / "A.csv")
    american = lines(
        at(make_candles(9, DAY), "%m/%d/%Y"), *values(make_candles(9)), header="Date,Open,High,Low,Close,Volume"
    )
    (tmp_path / "B.csv").write_text(american)
    code, out, err = cmat("candles", tmp_path)
    assert code == 1 and "1 of 2 symbols cannot be read" in err and "timeframe: 1d" in out
    assert "may have its day or its month first" in out and "2025-03-09" in out
    assert cmat("candles", tmp_path, "--set", "data.time_format='%m/%d/%Y'")[0] == 1  # A is ISO 8601
    assert cmat("candles", tmp_path / "B.csv", "--set", "data.time_format='%m/%d/%Y'")[0] == 0


@pytest.mark.parametrize(("maker", "advice"), [("HistData", "file_zone: Etc/GMT+5"), ("BitMEX", "stamp: close")])
def test_the_command_knows_what_a_maker_does_not_write_down(cmat, tmp_path, maker, advice):
    candles = make_candles(600, MINUTE if maker == "HistData" else HOUR)
    (tmp_path / FILES.get(maker, ("A.csv", ""))[0]).write_text(written(maker, candles))
    code, out, _ = cmat("candles", tmp_path)
    assert code == 0 and advice in out


def test_the_command_leaves_out_channels_that_read_a_volume(cmat, tmp_path):
    make_candles()[OHLC].to_csv(tmp_path / "A.csv")
    code, out, _ = cmat("candles", tmp_path, "--write", tmp_path / "mine.yaml")
    assert code == 0 and "channels:" in out
    assert not {"mfi", "volume_ratio"} & set(load_config(tmp_path / "mine.yaml").data.channels)


def test_errors_of_a_run_point_to_the_command(tmp_path):
    (tmp_path / "A.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CmatError, match=r"cmat candles .* shows how these files are understood"):
        load_market(folder(tmp_path))
