"""Candle files in, candles or a clear error out; audit, repair, gap-free stretches, windows, hash."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmat_lib.base.errors import CmatError
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.candles import (
    audit,
    checked_market,
    data_hash,
    load_market,
    read_market,
    repair,
    window_ends,
)
from cmat_lib.data.sessions import stretch_ids
from cmat_lib.data.synthetic import synthetic_market

BAR = pd.Timedelta("15min")
START = pd.Timestamp("2025-03-01", tz="UTC")
PLAIN = ["open", "high", "low", "close", "volume"]


def make_candles(rows: int = 40, bar: pd.Timedelta = BAR, start: pd.Timestamp = START) -> pd.DataFrame:
    """Consistent candles whose every value is another number."""
    step = np.arange(rows, dtype=float)
    close = 100 + step
    table = {"open": close - 0.25, "high": close + 0.5, "low": close - 0.5, "close": close, "volume": 10 + step}
    index = pd.date_range(start, periods=rows, freq=bar, unit="ns", name="timestamp")
    return pd.DataFrame(table, index=index)


def with_taker(candles: pd.DataFrame) -> pd.DataFrame:
    volume = candles["volume"]
    return candles.assign(
        quote_volume=volume * 100, trades=volume + 1, taker_buy_volume=volume / 4, taker_buy_quote_volume=volume * 25
    )


def epoch(candles: pd.DataFrame, unit: str) -> np.ndarray:
    return candles.index.as_unit(unit).asi8


def write(folder, name: str, table: pd.DataFrame, **options) -> DataConfig:
    """Store `table` without its index and return parameters that read the folder."""
    path = folder / name
    if path.suffix == ".csv":
        table.to_csv(path, index=False, **options)
    elif path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.reset_index(drop=True).to_feather(path)
    return DataConfig(data_dir=str(folder))


def read_one(data: DataConfig) -> pd.DataFrame:
    (candles,) = read_market(data).values()
    return candles


# --- formats


def test_own_format(tmp_path):
    candles = with_taker(make_candles())
    data = write(tmp_path, "BTC.parquet", candles.reset_index())
    pd.testing.assert_frame_equal(read_one(data), candles, check_freq=False)


def binance(candles: pd.DataFrame, unit: str = "ms") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Open time": epoch(candles, unit),
            **{name.title(): candles[name].to_numpy() for name in PLAIN},
            "Close time": epoch(candles, unit) + 899_999,
            "Quote asset volume": candles["quote_volume"].to_numpy(),
            "Number of trades": candles["trades"].to_numpy().astype(int),
            "Taker buy base asset volume": candles["taker_buy_volume"].to_numpy(),
            "Taker buy quote asset volume": candles["taker_buy_quote_volume"].to_numpy(),
            "Ignore": 0,
        }
    )


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("unit", ["ms", "us"])
def test_binance_klines(tmp_path, header, unit):
    candles = with_taker(make_candles())
    data = write(tmp_path, "BTCUSDT-15m.csv", binance(candles, unit), header=header)
    pd.testing.assert_frame_equal(read_one(data), candles, check_freq=False)


def test_freqtrade_feather(tmp_path):
    candles = make_candles()
    table = candles.reset_index().rename(columns={"timestamp": "date"})
    assert list(read_market(write(tmp_path, "BTC_USDT-15m.feather", table))) == ["BTC_USDT"]
    pd.testing.assert_frame_equal(read_one(DataConfig(data_dir=str(tmp_path))), candles, check_freq=False)


def test_yfinance_index_in_parquet_with_another_zone(tmp_path):
    candles = make_candles()
    table = candles.rename(columns=str.title).assign(**{"Adj Close": 1.0})
    table.index = table.index.tz_convert("America/New_York").rename("Datetime")
    table.to_parquet(tmp_path / "BTC-USD.parquet")
    market = read_market(DataConfig(data_dir=str(tmp_path)))
    pd.testing.assert_frame_equal(market["BTC-USD"], candles, check_freq=False)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("kind", [int, float])
def test_epoch_units(tmp_path, unit, kind):
    candles = make_candles()
    data = write(tmp_path, "A.parquet", candles.assign(time=epoch(candles, unit).astype(kind)))
    assert read_one(data).index.equals(candles.index)


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S+00:00"])
def test_iso_times(tmp_path, form):
    candles = make_candles()
    data = write(tmp_path, "A.csv", candles.assign(DateTime=candles.index.strftime(form)))
    index = read_one(data).index
    assert index.equals(candles.index) and str(index.dtype) == "datetime64[ns, UTC]"


def test_daily_dates_without_a_clock(tmp_path):
    candles = make_candles(bar=pd.Timedelta("1D"))
    write(tmp_path, "A.parquet", candles.assign(date=candles.index.date))
    assert read_one(DataConfig(data_dir=str(tmp_path), timeframe="1d")).index.equals(candles.index)


def test_float32_and_integers_become_float64(tmp_path):
    candles = make_candles()
    stored = candles.astype("float32").assign(volume=candles["volume"].astype(int)).reset_index()
    assert set(read_one(write(tmp_path, "A.parquet", stored)).dtypes) == {np.dtype("float64")}


@pytest.mark.parametrize("header", [True, False])
def test_csv_with_byte_order_mark_and_trailing_delimiter(tmp_path, header):
    candles = with_taker(make_candles())
    data = write(tmp_path, "A.csv", binance(candles), header=header, encoding="utf-8-sig")
    if header:
        first, *rows = (tmp_path / "A.csv").read_text(encoding="utf-8").splitlines()
        (tmp_path / "A.csv").write_text("\n".join([first, *(row + "," for row in rows)]), encoding="utf-8")
    pd.testing.assert_frame_equal(read_one(data), candles, check_freq=False)


def test_file_names_sub_folders_and_choice(tmp_path):
    candles = make_candles().reset_index()
    for name in ("XRPUSDT_15m.csv", "BTC_USDT-15m.parquet", "SOL.feather", ".hidden.csv"):
        write(tmp_path, name, candles)
    (tmp_path / "notes.txt").write_text("no candles")
    (tmp_path / "older").mkdir()
    write(tmp_path / "older", "ADA.csv", candles)
    assert list(read_market(DataConfig(data_dir=str(tmp_path)))) == ["BTC_USDT", "SOL", "XRPUSDT"]
    assert list(read_market(DataConfig(data_dir=str(tmp_path), symbols=["XRPUSDT", "SOL"]))) == ["SOL", "XRPUSDT"]


def test_since_is_inclusive_and_until_exclusive(tmp_path):
    candles = make_candles()
    write(tmp_path, "A.csv", candles.reset_index())
    data = DataConfig(data_dir=str(tmp_path), since="2025-03-01T01:00:00", until="2025-03-01T02:00:00")
    assert read_one(data).index.tolist() == candles.index[4:8].tolist()


# --- errors: each names the file and the place, and says what to do


def spoil(column: str, row: int, value: object):
    """Change of one value, as a function of the table to store."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = table.astype({column: object}) if isinstance(value, str) else table.copy()
        table.loc[row, column] = value
        return table

    return change


MINUTES = (START + pd.timedelta_range(0, periods=40, freq=BAR)).as_unit("s").asi8 // 60

BAD_TABLES = {
    "text": (spoil("close", 7, "n/a!"), r"A\.csv: column 'close', row 8: n/a! is not a number"),
    "missing value": (
        spoil("volume", 5, np.nan),
        r"A\.csv: 2025-03-01 01:15:00 UTC .*volume nan\): a value is missing",
    ),
    "infinite": (spoil("high", 5, np.inf), r"A\.csv: 2025-03-01 01:15:00 UTC .*missing or infinite"),
    "negative price": (spoil("low", 5, -1.0), r"A\.csv: 2025-03-01 01:15:00 UTC .*price is not positive"),
    "zero price": (spoil("low", 5, 0.0), r"A\.csv: .*price is not positive"),
    "negative volume": (spoil("volume", 5, -1.0), r"A\.csv: .*volume or count is negative"),
    "high below close": (spoil("high", 5, 104.9), r"A\.csv: 2025-03-01 01:15:00 UTC .*high is not the highest"),
    "low above open": (spoil("low", 5, 104.9), r"A\.csv: .*low not the lowest"),
    "duplicate": (lambda t: t.iloc[[0, 1, 2, 2, *range(3, 40)]], r"A\.csv: 2025-03-01 00:30:00 UTC .*there twice"),
    "unsorted": (lambda t: t.iloc[[0, 2, 1, *range(3, 40)]], r"A\.csv: 2025-03-01 00:15:00 UTC .*older than the row"),
    "off grid": (
        lambda t: t.assign(timestamp=t["timestamp"].where(t.index != 3, t["timestamp"] + pd.Timedelta("1min"))),
        r"A\.csv: 2025-03-01 00:46:00 UTC .*no whole number of candles",
    ),
    "no volume": (lambda t: t.rename(columns={"volume": "volum"}), r"A\.csv: no column volume; is 'volum' meant"),
    "no time": (lambda t: t.drop(columns="timestamp"), r"A\.csv: no column timestamp or opentime or date"),
    "two columns": (lambda t: t.assign(Close=1.0), r"A\.csv: columns 'close' and 'Close' both mean 'close'"),
    "one name twice": (
        lambda t: t.set_axis([*t.columns[:-1], "close"], axis=1),
        r"A\.csv: columns 'close' and 'close' both mean 'close'; remove one",
    ),
    "header only": (lambda t: t.iloc[:0], r"A\.csv: the file has no rows"),
    "epoch minutes": (
        lambda t: t.assign(timestamp=MINUTES),
        r"A\.csv: column 'timestamp', row 1: 29013120 is no epoch time of the years 1990 to 2100.*write all rows",
    ),
    "mixed units": (
        lambda t: t.assign(timestamp=MINUTES * 60 * np.where(t.index == 6, 1000, 1)),
        r"A\.csv: column 'timestamp', row 7: 1740792600000 .* in s as in most rows",
    ),
    "milliseconds written as seconds": (
        lambda t: t.assign(timestamp=pd.to_datetime(MINUTES * 60_000, unit="s").astype(str)),
        r"A\.csv: column 'timestamp', row 1: 57133-05-09 00:00:00 is not a time; .*epoch unit.* \(rows affected: 40\)",
    ),
    "seconds too dense": (
        lambda t: t.assign(timestamp=MINUTES[0] * 60 + t.index),
        r"A\.csv: column 'timestamp': candles are 0 days 00:00:01 apart, .*check the time unit",
    ),
    "local time": (
        lambda t: t.assign(timestamp=t["timestamp"].dt.strftime("%d/%m/%Y %H:%M")),
        r"A\.csv: column 'timestamp': 01/03/2025 00:00 may have its day or its month first; set",
    ),
}


@pytest.mark.parametrize("defect", BAD_TABLES)
def test_bad_table(tmp_path, defect):
    change, message = BAD_TABLES[defect]
    data = write(tmp_path, "A.csv", change(make_candles().reset_index()))
    with pytest.raises(CmatError, match=message):
        load_market(data)


def test_far_future_in_parquet_is_a_wrong_unit(tmp_path):
    times = make_candles().index.asi8.astype("datetime64[us]")  # nanoseconds taken for microseconds: the year 57133
    data = write(tmp_path, "A.parquet", make_candles().assign(timestamp=times))
    with pytest.raises(CmatError, match=r"A\.parquet: column 'timestamp', row 1: 57133.* with a wrong time unit"):
        read_market(data)


def test_other_spacing_names_the_timeframe_to_set(tmp_path):
    data = write(tmp_path, "A.csv", make_candles(bar=pd.Timedelta("1h")).reset_index())
    with pytest.raises(
        CmatError,
        match=r"A\.csv: column 'timestamp'.*timeframe is 15m; set data\.timeframe: 1h; cmat candles .* shows how",
    ):
        read_market(data)


def test_missing_folder_and_folder_without_candles(tmp_path):
    with pytest.raises(CmatError, match=r"nowhere: no such folder; set data\.data_dir"):
        load_market(DataConfig(data_dir=str(tmp_path / "nowhere")))
    with pytest.raises(CmatError, match=r"no \.csv, \.parquet, \.feather or \.zip file"):
        load_market(DataConfig(data_dir=str(tmp_path)))
    with pytest.raises(CmatError, match=r"data\.data_dir is null"):
        load_market(DataConfig())


@pytest.mark.parametrize("name", ["A.csv", "A.parquet", "A.feather"])
def test_empty_and_truncated_files(tmp_path, name):
    data = write(tmp_path, name, make_candles(rows=200).reset_index())
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CmatError, match=rf"{name}: the file is empty"):
        load_market(data)
    (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
    # A cut CSV line lacks its last values; the binary formats lose their footer.
    with pytest.raises(CmatError, match=rf"{name}: (.*a value is missing|cannot be read)"):
        load_market(data)


def zipped(method: int = zipfile.ZIP_DEFLATED, change: Callable[[bytearray, int], None] | None = None) -> bytes:
    """Archive of a CSV file, changed; the function gets where its directory begins."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("A.csv", make_candles(200).to_csv())
    content = bytearray(buffer.getvalue())
    if change is not None:
        change(content, content.rfind(b"PK\1\2"))
    return bytes(content)


def set_bytes(content: bytearray, places: Iterable[int], value: int) -> None:
    for place in places:
        content[place] = value


def parquet(changes: dict[str, pa.Array] | None = None, pandas: str | None = None) -> bytes:
    """Parquet file with other columns, or with other metadata of pandas."""
    table, buffer = pa.Table.from_pandas(make_candles().reset_index()), io.BytesIO()
    for name, values in (changes or {}).items():
        table = table.set_column(table.column_names.index(name), name, values)
    pq.write_table(table if pandas is None else table.replace_schema_metadata({"pandas": pandas}), buffer)
    return buffer.getvalue()


def numbered_tickers() -> bytes:
    table = make_candles()
    return table.set_axis(pd.MultiIndex.from_product([table.columns, [7]]), axis=1).to_parquet()


def klines(opening: str) -> bytes:
    return f"[{', '.join(f'[{time}, {opening}, 2, 1, 1, 1]' for time in epoch(make_candles(), 'ms'))}]".encode()


INDEX = '{"index_columns": [%s], "columns": [], "column_indexes": []}'
HOSTILE = {  # the readers answer with errors of their own and of Python's types
    "deflate": ("A.zip", lambda: zipped(change=lambda c, _: set_bytes(c, range(60, 200), 255))),
    "lzma": ("A.zip", lambda: zipped(zipfile.ZIP_LZMA, lambda c, _: set_bytes(c, range(50, 150), 255))),
    "encrypted": ("A.zip", lambda: zipped(change=lambda c, at: set_bytes(c, (6, at + 8), 1))),
    "method": ("A.zip", lambda: zipped(change=lambda c, at: set_bytes(c, (8, at + 10), 98))),
    "gzip": ("A-15m.json.gz", lambda: gzip.compress(klines("1"))[:40] + b"\xff" * 60),
    "deep JSON": ("A-15m.json", lambda: b"[" * 100_000),
    "400 digits": ("A-15m.json", lambda: klines("1" + "0" * 400)),
    "pandas list": ("A.parquet", lambda: parquet(pandas="[]")),
    "pandas empty": ("A.parquet", lambda: parquet(pandas="{}")),
    "pandas index": ("A.parquet", lambda: parquet(pandas=INDEX % '"x"')),
    "pandas range": ("A.parquet", lambda: parquet(pandas=INDEX % '{"kind": "range", "start": "x"}')),
    "numbered tickers": ("A.parquet", numbered_tickers),
    "binary volume": ("A.parquet", lambda: parquet({"volume": pa.array([b"\xff1"] * 40)})),
    "binary time": ("A.parquet", lambda: parquet({"timestamp": pa.array([b"\xff1"] * 40)})),
}


@pytest.mark.parametrize("timeframe", ["15m", "1d"])
@pytest.mark.parametrize("file", HOSTILE)
def test_whatever_a_reader_raises_names_the_file(tmp_path, file, timeframe):
    name, content = HOSTILE[file]
    (tmp_path / name).write_bytes(content())
    with pytest.raises(CmatError, match=rf"{name}: \S|no candles of 1d"):
        load_market(DataConfig(data_dir=str(tmp_path), timeframe=timeframe, file_zone="Asia/Tokyo"))


@pytest.mark.parametrize("stem", ["A-15m-2024-13", "A-15m-0000-00", f"A-{'9' * 30}m", f"A-{'9' * 9}m"])
def test_a_name_that_is_no_month_and_no_timeframe_is_a_symbol(tmp_path, stem):
    write(tmp_path, f"{stem}.csv", make_candles().reset_index())
    write(tmp_path, "B.csv", make_candles().reset_index())
    assert set(load_market(DataConfig(data_dir=str(tmp_path)))) - {stem} == {"B"}


def test_csv_that_is_not_text(tmp_path):
    (tmp_path / "A.csv").write_bytes(b"\xff\xfe\x00\x80" * 100)
    with pytest.raises(CmatError, match=r"A\.csv: no column timestamp"):
        load_market(DataConfig(data_dir=str(tmp_path)))


def test_header_less_file_of_another_width(tmp_path):
    data = write(tmp_path, "A.csv", make_candles().assign(t=1).astype(float), header=False)
    with pytest.raises(CmatError, match=r"A\.csv: 6 columns without a header line"):
        load_market(data)


def test_symbols(tmp_path):
    candles = make_candles().reset_index()
    write(tmp_path, "BTCUSDT_15m.csv", candles)
    with pytest.raises(CmatError, match=r"data\.symbols: no file for 'BTCUSD' .*did you mean 'BTCUSDT'"):
        load_market(DataConfig(data_dir=str(tmp_path), symbols=["BTCUSD"]))
    with pytest.raises(CmatError, match=r"data\.symbols is an empty list"):
        load_market(DataConfig(data_dir=str(tmp_path), symbols=[]))
    write(tmp_path, "btcusdt.parquet", candles)
    with pytest.raises(CmatError, match=r"btcusdt\.parquet: symbol 'btcusdt' already comes from BTCUSDT_15m\.csv"):
        load_market(DataConfig(data_dir=str(tmp_path)))
    assert list(load_market(DataConfig(data_dir=str(tmp_path), symbols=["BTCUSDT"]))) == ["BTCUSDT"]


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("EUR USD=X", "EUR_USD_X"), ("BINANCE_BTCUSDT, 15", "BINANCE_BTCUSDT"), ("贵州茅台", "贵州茅台")],
)
def test_a_symbol_is_rewritten_so_that_it_can_name_files(tmp_path, name, symbol):
    data = write(tmp_path, f"{name}.csv", make_candles().reset_index())
    assert list(load_market(data)) == [symbol]


def test_nothing_in_the_chosen_time(tmp_path):
    write(tmp_path, "A.csv", make_candles().reset_index())
    with pytest.raises(
        CmatError, match=r"A\.csv: no candle between .*the file has 2025-03-01 00:00 to 2025-03-01 09:45"
    ):
        load_market(DataConfig(data_dir=str(tmp_path), since="2026-01-01"))


# --- gaps, audit, repair


def gappy() -> pd.DataFrame:
    """40 candles without numbers 5, 20, 21 and 22: runs of 5, 14 and 17."""
    return make_candles().drop(index=make_candles().index[[5, 20, 21, 22]])


def test_gaps_are_no_error_and_stay(tmp_path):
    data = write(tmp_path, "A.csv", gappy().reset_index())
    pd.testing.assert_frame_equal(load_market(data)["A"], gappy(), check_freq=False)


def test_audit_counts():
    candles = gappy()
    candles.loc[candles.index[[3, 9]], "volume"] = 0
    candles.iloc[12, candles.columns.get_loc("high")] *= 1.5
    candles.iloc[30, candles.columns.get_loc("close")] *= 0.5
    row = audit({"A": candles}, BAR).loc["A"]
    assert (row["rows"], row["from"], row["to"]) == (36, START, START + 39 * BAR)
    assert (row["missing_candles"], row["gaps"], row["longest_gap"]) == (4, 2, 3)
    assert (row["zero_volume"], row["extreme_candles"], row["inconsistent_candles"]) == (2, 1, 1)
    # Row 30 is candle 34: 67 after 133; the way back, 135 after 67, is the larger change.
    assert row["largest_move_pct"] == pytest.approx(100 * (135 / 67 - 1), rel=1e-12)
    assert row["duplicate_times"] == row["unsorted_times"] == row["missing_values"] == 0


def test_audit_counts_defects_that_loading_refuses(tmp_path):
    table = make_candles().reset_index().iloc[[0, 2, 1, 3, 3, 4, 5, 6]].reset_index(drop=True)
    table.loc[6, "open"] = np.nan
    table.loc[7, ["low", "volume"]] = [-1.0, -2.0]
    row = audit(read_market(write(tmp_path, "A.csv", table)), BAR).loc["A"]
    names = ["duplicate_times", "unsorted_times", "missing_values", "non_positive_prices", "negative_amounts"]
    assert row[names].tolist() == [1] * 5
    assert row["off_grid_times"] == row["missing_candles"] == 0


def test_fill_flat():
    candles = with_taker(gappy()).assign(trigger=1.0)
    filled = repair({"A": candles}, DataConfig(gaps="fill_flat"))["A"]
    assert filled.index.equals(make_candles().index)
    assert filled.iloc[21][PLAIN].tolist() == [119, 119, 119, 119, 0]  # candle 19 closed at 119
    assert filled.iloc[21][["quote_volume", "trades", "taker_buy_volume"]].tolist() == [0, 0, 0]
    assert np.flatnonzero(filled["trigger"].isna()).tolist() == [5, 20, 21, 22]
    pd.testing.assert_frame_equal(filled.loc[candles.index], candles, check_freq=False)


def test_drop_changes_nothing():
    market = {"A": gappy()}
    assert repair(market, DataConfig(gaps="drop"))["A"] is market["A"]


def test_stretch_ids():
    assert stretch_ids(gappy(), BAR).tolist() == [0] * 5 + [1] * 14 + [2] * 17
    assert stretch_ids(gappy().set_axis(gappy().index.as_unit("s")), BAR).tolist() == stretch_ids(gappy(), BAR).tolist()


def test_window_ends():
    ends = window_ends(gappy(), BAR, window=6)
    assert ends.tolist() == [*range(5 + 5, 19), *range(19 + 5, 36)]
    assert window_ends(gappy(), BAR, window=1).tolist() == list(range(36))
    assert window_ends(gappy(), BAR, window=18).tolist() == []
    with pytest.raises(ValueError, match="at least 1"):
        window_ends(gappy(), BAR, window=0)


def test_stride_keeps_the_same_moments_for_all_starts():
    one, two = make_candles(start=START), make_candles(start=START + 3 * BAR)
    times = [candles.index[window_ends(candles, BAR, 8, stride=4)] for candles in (one, two)]
    assert times[0].tolist() == [START + k * BAR for k in (8, 12, 16, 20, 24, 28, 32, 36)]
    assert times[1].tolist() == [START + k * BAR for k in (12, 16, 20, 24, 28, 32, 36, 40)]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 59), min_size=1), st.integers(1, 12), st.integers(1, 5))
def test_windows_never_cross_a_gap(kept, window, stride):
    rows = sorted(kept)
    candles = make_candles(60).iloc[rows]
    first = START.value // BAR.value
    expected = [
        i for i, row in enumerate(rows) if set(range(row - window + 1, row + 1)) <= kept and (first + row) % stride == 0
    ]
    assert window_ends(candles, BAR, window, stride).tolist() == expected


# --- hash


def test_hash_follows_content_only():
    market = {"A": make_candles(), "B": gappy()}
    same = {"B": gappy().set_axis(gappy().index.as_unit("us")), "A": make_candles()}
    assert data_hash(market) == data_hash(same) and len(data_hash(market)) == 64
    others = [
        {"A": make_candles()},
        {"A": gappy(), "B": make_candles()},
        {**market, "A": make_candles().rename(columns={"open": "high", "high": "open"})},
        {**market, "A": make_candles(start=START + BAR)},
        {**market, "A": make_candles().replace(100.0, np.nextafter(100.0, 101))},
    ]
    assert len({data_hash(other) for other in [market, *others]}) == 6


# --- real candles


@pytest.mark.skipif("CMAT_TEST_DATA" not in os.environ, reason="CMAT_TEST_DATA (folder of real candles) is not set")
def test_real_candles():
    data = DataConfig(data_dir=os.environ["CMAT_TEST_DATA"])
    report = audit(load_market(data), data.bar)
    assert list(report.index) == sorted(report.index) and "BTCUSDT" in report.index
    assert (report["rows"] > 10_000).all() and (report["extreme_candles"] < 0.001 * report["rows"]).all()
    defects = report.loc[:, "duplicate_times":"inconsistent_candles"]
    assert defects.shape[1] == 7 and (defects == 0).all(axis=None)


def test_candles_in_memory_are_made_what_files_give():
    """Sorted symbols, UTC, numbers only; what cannot be used is refused with its symbol."""
    market = synthetic_market(symbols=2, days=30, timeframe="1h", horizon=4, seed=0)
    given = {"SYNB": market["SYNB"].assign(note="x"), "SYNA": market["SYNA"].tz_convert("Asia/Tokyo")}
    found = checked_market(given, DataConfig(timeframe="1h"))
    assert list(found) == ["SYNA", "SYNB"] and "note" not in found["SYNB"]
    pd.testing.assert_frame_equal(found["SYNA"], market["SYNA"], check_freq=False)
    assert list(checked_market(given, DataConfig(timeframe="1h", symbols=["SYNB"]))) == ["SYNB"]
    for candles, says in (
        (market["SYNA"].iloc[:0], "one at least"),
        (market["SYNA"].tz_localize(None), "with a time zone"),
        (market["SYNA"].drop(columns="high"), "no column 'high'"),
        (market["SYNA"].iloc[[1, 0]], "older than the row before"),
    ):
        with pytest.raises(CmatError, match=f"^A: .*{says}"):
            checked_market({"A": candles}, DataConfig(timeframe="1h"))
