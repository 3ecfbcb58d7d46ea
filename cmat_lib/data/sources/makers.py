"""Who writes candle files, and how: the one table that the reader, ``cmat candles`` and the documentation share."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cmat_lib.base.errors import CmatError, nearest
from cmat_lib.config.inputs import OHLC

REQUIRED = ("timestamp", *OHLC)

# Our name -> accepted spellings, as `plain` writes them; the first one that a file has counts. The columns of the second
# part are as old as the files that have them: another spelling there would be other candles from the same file.
# fmt: off
SPELLINGS = {
    "timestamp": "timestamp opentime date datetime time unix unixtimestamp unixtime gmttime localtime timeutc timegmt timeeet dateutc datetimeutc dategmt timeopen windowstart tsevent startat starttime begin tradedate dtyyyymmdd tradetime tradingday tradingdate pricedate candlebegintime eventtime bartime barstart ts t dt datum tag zeit fecha data tarih дата 日期 交易日期 交易时间 时间 日付 日付け 日時 날짜 일자",
    "clock": "time timeofday uhrzeit zeit hora ora heure czas время 时间 時刻 시간",
    "open": "open openprice priceopen openingprice bidopen midopen mido firstprice o eroffnung eroffnungskurs eroffn erster apertura abertura ouverture ouv aper otwarcie acılıs открытие откр цоткр 开盘 开盘价 開盤 開盤價 始値 시가",
    "high": "high highprice pricehigh bidhigh midhigh midh maxprice h hoch hochst hochstkurs tageshoch maximo max maxima massimo alto plushaut haut najwyzszy yuksek максимум макс 最高 最高价 最高價 高 高値 고가",
    "low": "low lowprice pricelow bidlow midlow midl minprice l tief tiefst tiefstkurs tagestief minimo min minima minimo baixa bajo plusbas bas najnizszy dusuk минимум мин 最低 最低价 最低價 低 安値 저가",
    "close": "close closeprice priceclose closingprice tradeprice closelast last lastprice ltp bidclose midclose midc price settle c schluss schlusskurs letzter zuletzt cierre ultimo fechamento chiusura cloture clot dernier zamkniecie kapanıs simdi закрытие цена 收盘 收盘价 收盤 收盤價 終値 종가",
    "volume": "volume vol tickvolume tickvol basevolume volumefrom candleacctradevolume totalvolume tradedvolume shares noofshares numberofshares tottrdqty totaltradedquantity quantity qty v volumen volumes umsatz stuck stuecke wolumen hacim hac объем объём 成交量 成交量手 交易量 出来高 거래량",
    "symbol": "symbol ticker tscode rawsymbol contract instrument instrumentname instid orderbookid secid seccode pair market asset coin tic code stockcode productid instrumentid 股票代码 证券代码 代码 合约 合约代码",
    "quote_volume": "quotevolume quoteassetvolume",
    "trades": "trades numberoftrades count",
    "taker_buy_volume": "takerbuyvolume takerbuybaseassetvolume takerbuybasevolume",
    "taker_buy_quote_volume": "takerbuyquotevolume takerbuyquoteassetvolume",
    "trigger": "trigger",
    "max_pct": "maxpct",
}
# fmt: on
OF_CURRENCY = re.compile(r"(?i:volume)[ _]*\(?(?!S?MA\b|EMA\b)([A-Z0-9]{2,10}|Currency)\)?")  # Volume ETH, Volume_(BTC)
QUOTES = ("USD", "USDT", "USDC", "BUSD", "FDUSD", "TUSD", "DAI", "EUR", "GBP", "JPY", "KRW", "TRY", "CURRENCY")
LIKE_SYMBOL = re.compile(r"symbol|ticker|contract|instrument|expir")  # a column that may tell instruments apart

ARCHIVE = r"(?P<symbol>.+)-(?P<timeframe>\d{1,9}[mhdw])-(?P<part>(19|20)\d{2}-(0[1-9]|1[0-2])(-\d{2})?)"
PLAIN = r"(?P<symbol>.+)[-_](?P<timeframe>\d{1,9}[mhdw])(-futures)?"
MINUTES_NAME = r"(?P<symbol>[A-Z0-9.]{5,})_(?P<timeframe>1|5|15|30|60|240|720|1440)"


@dataclass(frozen=True)
class Maker:
    """One maker of candle files."""

    name: str
    columns: str  # as its files have them, or mean if there is no header line
    tells: str = ""  # names, as `plain` writes them, that together are nobody else's
    file: str = ""  # pattern of its file names, with the groups ``symbol``, ``timeframe``, ``part`` (of an archive)
    means: dict[str, str] = field(default_factory=dict)  # our name -> its name where spellings would miss it
    header: bool = True
    advice: dict[str, str] = field(default_factory=dict)  # parameters that its files need
    note: str = ""

    @property
    def order(self) -> list[str]:
        """Columns behind the time, if there is no header line."""
        return self.columns.split()[1:]


EST, END = {"file_zone": "Etc/GMT+5"}, {"stamp": "close"}
OHLCV = "open high low close volume"
# fmt: off
MAKERS = (
    Maker("Binance archive", f"timestamp {OHLCV} close_time quote_volume trades taker_buy_volume taker_buy_quote_volume ignore", file=ARCHIVE, header=False, note="zip per month or day"),
    Maker("no header line", f"timestamp {OHLCV}", file=r"(?P<symbol>.+?)(_full)?_(?P<timeframe>\d{1,4}(min|hour|day))(_.+)?", header=False, note="FirstRate, Kibot, MetaTrader 4 and many others"),
    Maker("no header line, no volume", "timestamp open high low close", header=False),
    Maker("freqtrade", f"date {OHLCV}", file=PLAIN, note="feather, parquet, json, json.gz"),
    Maker("yfinance", "Date Close High Low Open Volume", note="tickers in a second header line become symbols"),
    Maker("MetaTrader 5", "<DATE> <TIME> <OPEN> <HIGH> <LOW> <CLOSE> <TICKVOL> <VOL> <SPREAD>", "tickvol", r"(?P<symbol>.+)_(?P<timeframe>[MH]\d{1,9}|D1|Daily)_\d{8,14}_\d{8,14}", {"volume": "tickvol", "real_volume": "vol"}, note="traded volume if there is any, else ticks; set `file_zone`"),
    Maker("MetaTrader 5, Python", "time open high low close tick_volume spread real_volume", "tickvolume", r"(?P<symbol>.+)_(?P<timeframe>[MH][1-9]\d{0,2}|D1|Daily)", {"volume": "tickvolume", "real_volume": "realvolume"}, note="as above"),
    Maker("HistData", f"timestamp {OHLCV}", file=r"DAT_(ASCII|NT|MT|XLSX)_(?P<symbol>\w+?)_(?P<timeframe>M1)_(?P<part>(19|20)\d{2}((0[1-9]|1[0-2]))?)", header=False, advice=EST, note="New York without summer time"),
    Maker("NinjaTrader", f"timestamp {OHLCV}", file=r"(?P<symbol>.+)\.Last", header=False, advice=END, note="bars are stamped at their end"),
    Maker("CryptoDataDownload", "Unix Date Symbol Open High Low Close Volume_ETH Volume_USDC tradecount", "unix date symbol", r"(?P<symbol>[A-Za-z]+_[A-Z0-9]+)(_(?P<part>20\d\d))?_(?P<timeframe>d|1h|minute)", {"trades": "tradecount"}, note="first line is an address; newest first"),
    Maker("Kraken archive", f"timestamp {OHLCV} trades", file=MINUTES_NAME, header=False, note="minutes in the file's name"),
    Maker("Kraken API", "timestamp open high low close vwap volume trades", header=False),
    Maker("TradingView", "time open high low close Volume", file=r"(?P<symbol>.+), (?P<timeframe>\d{1,6}[SHDW]?)(_\w+)?( \(\d+\))?", note="minutes in the file's name"),
    Maker("Coinbase API", "timestamp low high open close volume", header=False, note="told from other orders by the values"),
    Maker("Bitfinex, Bithumb", "timestamp open close high low volume", header=False),
    Maker("KuCoin", "timestamp open close high low volume quote_volume", header=False),
    Maker("Bybit", f"timestamp {OHLCV} quote_volume", file=r"(?P<symbol>[A-Z0-9]+)_(?P<timeframe>\d{1,4})_(?P<part>20\d\d-\d\d-\d\d)_20\d\d-\d\d-\d\d", header=False),
    Maker("Gate.io", "timestamp volume close high low open", file=r"(?P<symbol>[A-Z0-9]+_[A-Z]+)-(?P<part>20\d{4})", header=False),
    Maker("Bitstamp (Kaggle)", "Timestamp Open High Low Close Volume_(BTC) Volume_(Currency) Weighted_Price", "weightedprice", note="rows without a trade are gaps"),
    Maker("BitMEX", "timestamp symbol open high low close trades volume vwap homeNotional foreignNotional", "foreignnotional", advice=END, note="bars are stamped at their end"),
    Maker("OKX", "ts open high low close vol volCcy volCcyQuote confirm", "volccyquote"),
    Maker("HTX (Huobi)", "id open close low high amount vol count", "id amount vol count", means={"timestamp": "id", "volume": "amount", "quote_volume": "vol"}),
    Maker("Upbit", "market candle_date_time_utc opening_price high_price low_price trade_price timestamp candle_acc_trade_volume", "candledatetimeutc", means={"timestamp": "candledatetimeutc"}),
    Maker("CryptoCompare", "time high low open volumefrom volumeto close", "volumefrom"),
    Maker("CoinMarketCap", "timeOpen timeClose timeHigh timeLow name open high low close volume marketCap timestamp", "timeopen", means={"timestamp": "timeopen"}, note="semicolons"),
    Maker("Investing.com", "Date Price Open High Low Vol. Change_%", "price vol open", note="also in other languages; `52.59K`"),
    Maker("Yahoo's page", "Date Open High Low Close Adj_Close Volume", "adjclose", note="rows of `null` are gaps"),
    Maker("Nasdaq.com", "Date Close/Last Volume Open High Low", "closelast", note="`$` before prices"),
    Maker("NSE India", "Date series OPEN HIGH LOW PREV._CLOSE ltp close vwap VOLUME VALUE", "series prevclose", note="`3,533.40`, `18-Jan-23`"),
    Maker("Stooq, Finam", "<TICKER> <PER> <DATE> <TIME> <OPEN> <HIGH> <LOW> <CLOSE> <VOL>", "per vol", note="`20240102`, `93000`; Finam's clock is Moscow's"),
    Maker("Alpha Vantage", "timestamp 1._open 2._high 3._low 4._close 5._volume"),
    Maker("Polygon flat file", "ticker volume open close high low window_start transactions", "windowstart", r"(?P<part>(19|20)\d{2}-\d\d-\d\d)", {"trades": "transactions"}, note="one file a day, all tickers in it"),
    Maker("Alpaca", "symbol timestamp open high low close volume trade_count vwap", "tradecount vwap"),
    Maker("Databento", "ts_event rtype publisher_id instrument_id open high low close volume symbol", "tsevent"),
    Maker("Interactive Brokers", "date open high low close volume average barCount", "average barcount", note="`20240102 09:30:00 US/Eastern`"),
    Maker("Dukascopy", "Gmt_time Open High Low Close Volume", "gmttime", r"(?P<symbol>.+?)_Candlestick_(?P<timeframe>\d{1,4}_[MHD])_(BID|ASK)_.+"),
    Maker("Tiingo", "date close high low open volume adjClose adjHigh adjLow adjOpen adjVolume", "adjclose adjopen"),
    Maker("tushare", "ts_code trade_date open high low close pre_close change pct_chg vol amount", "tscode tradedate"),
    Maker("akshare", "日期 股票代码 开盘 收盘 最高 最低 成交量 成交额", "日期 开盘 收盘"),
    Maker("baostock", "date time code open high low close volume amount adjustflag", "adjustflag time", means={"timestamp": "time"}, advice=END, note="minutes are stamped at their end"),
    Maker("Sierra Chart", "Date Time Open High Low Last Volume NumberOfTrades BidVolume AskVolume", "bidvolume askvolume"),
    Maker("TradeStation", "Date Time Open High Low Close Up Down", "up down", means={"volume": "up", "volume_down": "down"}, advice=END, note="volume is up plus down"),
)
# fmt: on
YFINANCE = next(maker for maker in MAKERS if maker.name == "yfinance")


def plain(name: object) -> str:
    """Column name without case, accents, punctuation, number (``1. open``) and unit (``Open (USD)``).

    >>> [plain(name) for name in ("<OPEN>", "1. open", "Open (USD)", "Eröffn.", "开盘价")]
    ['open', 'open', 'open', 'eroffn', '开盘价']
    """
    text = re.sub(r"\(.*?\)|\[.*?\]|^\d+[a-z]?\.[ _]", "", str(name).strip().lower())
    marks = unicodedata.normalize("NFKD", text)
    bare = "".join(letter for letter in marks if not unicodedata.combining(letter))
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFC", bare))


ACCEPTED = {ours: [plain(spelling) for spelling in spellings.split()] for ours, spellings in SPELLINGS.items()}


def maker_of(names: Sequence[object]) -> Maker | None:
    """Maker whose names are all among those of a header line; of several, the one that is told by most."""
    have = {plain(name) for name in names}
    found = [maker for maker in MAKERS if maker.tells and have.issuperset(maker.tells.split())]
    return max(found, key=lambda maker: len(maker.tells.split()), default=None)


def maker_by_file(path: Path) -> Maker | None:
    """Maker that a file's name tells, if it tells what the file itself does not."""
    return next((m for m in MAKERS if m.advice and m.file and re.fullmatch(m.file, bare_name(path))), None)


def bare_name(path: Path) -> str:
    """File name without its endings."""
    return re.sub(r"(\.(json|jsonl|csv|txt|tsv))?\.(gz|bz2|xz)$|\.[^.]+$", "", path.name)


def match_columns(names: Sequence[object], told: dict[str, str], where: str = "") -> dict[str, int]:
    """Our name -> place of its column; `told` (``data.columns``) goes before all guesses.

    Raises a CmatError, unless `where` is empty, if a column of `told` is not there, or two columns have one meaning.
    """
    bare = {str(name).strip().lower(): place for place, name in reversed(list(enumerate(names)))}
    given = {ours: bare[t] for ours, theirs in told.items() if (t := theirs.strip().lower()) in bare}
    for ours in told if where else ():
        if ours not in given:
            hint = nearest(told[ours], [str(name) for name in names])
            raise CmatError(f"{where}: data.columns: {ours}: no column '{told[ours]}'{hint}")
    spelled: dict[str, list[int]] = {}
    for place, name in enumerate(_without_affix(names)):
        spelled.setdefault(plain(name), []).append(place)
    found, maker = {}, maker_of(names)
    meant = ACCEPTED | ({ours: [theirs] for ours, theirs in maker.means.items()} if maker else {})
    for ours, accepted in meant.items():
        if ours in given:
            continue
        hits = next((spelled[s] for s in accepted if s in spelled), [])
        exact = [hit for hit in hits if re.sub(r"[\W_]", "", str(names[hit]).lower()) in accepted] or hits
        if ours == "volume" and (not hits or len(exact) > 1):
            # Of ``Volume ETH`` and ``Volume USDC`` the one in the traded currency.
            units = {place: OF_CURRENCY.fullmatch(str(name).strip()) for place, name in enumerate(names)}
            units = {place: match[1].upper() for place, match in units.items() if match}
            exact = ([place for place, unit in units.items() if unit not in QUOTES] or list(units))[:1] or exact
        if len(exact) > 1 and where:
            both = " and ".join(repr(names[hit]) for hit in exact)
            raise CmatError(f"{where}: columns {both} both mean '{ours}'; remove one, or name one in data.columns")
        found |= {ours: exact[0]} if exact and exact[0] not in given.values() else {}
    if "timestamp" not in {**found, **given} and names and plain(names[0]) in ("", "unnamed0", "index"):
        found["timestamp"] = 0  # the index, written without a name
    if found.get("clock") == found.get("timestamp", given.get("timestamp")):
        found.pop("clock", None)
    return found | given


def _without_affix(names: Sequence[object]) -> list[str]:
    """Names without words that all prices share (``AAPL.Open``, ``Open_AAPL``), if only that makes them known."""
    words = [re.split(r"[._ ]", str(name)) for name in names]
    counts = Counter(word for own in words for word in set(own))
    shared = {word for word, count in counts.items() if count == max(counts.values()) >= len(OHLC)}
    bare = [" ".join(word for word in own if word not in shared) for own in words]
    return bare if known_prices(bare) > known_prices(names) else [str(name) for name in names]


def known_prices(names: Sequence[object]) -> int:
    """How many of the four prices a line names."""
    have = {plain(name) for name in names}
    return sum(not have.isdisjoint(ACCEPTED[ours]) for ours in OHLC)
