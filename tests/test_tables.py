"""Tables of the user's own: what is read, what a candle gets of it and when, and rows that come too early."""

import os
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.audit.table_leaks import late_publication, moves_early
from cmat_lib.config.inputs import TableConfig, as_span
from cmat_lib.views.table import as_of, as_sequence, check_overlap, cut, has_row, newest_problem
from cmat_lib.views.table_files import read_table

HOURS = "time,rate\n2024-01-01T00:00Z,1\n2024-01-01T02:00Z,3\n2024-01-01T03:00Z,\n2024-01-01T07:00Z,2\n"
real = pytest.mark.skipif("CMAT_TEST_DATA" not in os.environ, reason="CMAT_TEST_DATA names no folder of real candles")


@pytest.fixture
def write(tmp_path):
    """Write a file, and return parameters that read it."""

    def write(text, name="t.csv", **parameters):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return TableConfig(**{"file": str(tmp_path / name), "columns": ["rate"], "lag": "1h"} | parameters)

    return write


def at(*hours):
    return pd.DatetimeIndex([pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(hour, unit="h") for hour in hours])


# Parameters


def test_lengths_of_time():
    assert as_span("16h15m") == pd.Timedelta(hours=16, minutes=15)
    assert as_span("1d") == as_span("1 D") == as_span("24h") == pd.Timedelta(hours=24)
    assert as_span("0h") == pd.Timedelta(0)
    config = TableConfig(file="f.csv", columns=["a"], lag="1d12h", stale="3d")
    assert config.lag_span == pd.Timedelta(hours=36)
    assert (config.look_back_span, config.stale_span) == (pd.Timedelta(hours=720), pd.Timedelta(hours=72))


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"lag": "5"}, "'5' is no length of time; write it with its units"),
        ({"lag": "-1h"}, "'-1h' is no length of time"),
        ({"lag": "1y"}, "'1y' is no length of time"),
        ({"lag": "99999999999d"}, "is no length of time"),
        ({"lag": "40000d"}, "longer than a century"),
        ({"look_back": "0h"}, "'0h' must be longer than 0"),
        ({"stale": "0d"}, "'0d' must be longer than 0"),
        ({"zone": "New York"}, "no time zone 'New York'"),
        ({"columns": []}, "at least 1 item"),
        ({"columns": ["a", "a"]}, "a column is listed twice"),
        ({"columns": ["time"]}, "cannot be named 'time'"),
        ({"columns": ["a", "a_change"]}, "two inputs would be named 'a_change'"),
        ({"columns": ["gap"], "encoder": "gru", "rows": 1}, "greater than or equal to 2"),
        ({"columns": ["gap"], "encoder": "gru"}, "two inputs would be named 'gap'"),
        ({"time": "a"}, "'a' is the column of times, and listed in columns"),
        ({"time": "t", "symbol": "t"}, "the same column 't'"),
    ],
)
def test_bad_parameters_are_named(parameters, says):
    with pytest.raises(ValidationError, match=says):
        TableConfig(**{"file": "f.csv", "columns": ["a"], "lag": "0h"} | parameters)


def test_the_lag_has_no_default():
    with pytest.raises(ValidationError, match=r"lag\s+Field required"):
        TableConfig(file="f.csv", columns=["a"])


def test_names():
    config = TableConfig(file="f.csv", columns=["a", "b"], lag="0h")
    assert config.feature_names == ["a", "a_change", "a_zscore", "a_age", "b", "b_change", "b_zscore", "b_age"]
    names = ["a", "a_change", "a_zscore", "b", "b_change", "b_zscore", "gap"]
    assert config.model_copy(update={"encoder": "gru"}).feature_names == names


# Reading


def test_cells_are_read_as_they_are(write):
    config = write(
        "\ufeffSymbol ; Day;other;rate\nA;2024-01-01;x; 1.5\n\nB;2024-01-01;y;\nA;2024-01-02;z;-2e3\n", zone="UTC"
    )
    table = read_table("v", config)
    assert list(table.frame) == ["time", "symbol", "rate"]
    assert table.frame["time"].dtype == "datetime64[ns, UTC]"
    assert table.frame["symbol"].tolist() == ["A", "B", "A"]
    np.testing.assert_array_equal(table.frame["rate"], [1.5, np.nan, -2000])
    assert table.places["line"].tolist() == [2, 4, 5]  # the blank line is one


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
@pytest.mark.parametrize(
    "written", ["2024-07-01T12:00:00Z", "2024-07-01 08:00:00-04:00", "1719835200", "1719835200000"]
)
def test_times_that_bring_their_zone_keep_it(write, written, zone):
    config = write(f"when,rate\n{written},1\n", zone=zone, columns=["rate"])
    config_two = write(f"when,rate\n2024-06-01T00:00Z,2\n{pd.Timestamp('2024-07-01T12:00Z')},1\n", "two.csv", zone=zone)
    with pytest.raises(CmatError, match="is 1 in all 1 rows"):
        read_table("v", config)  # times are fine, the column says nothing
    assert read_table("v", config_two).frame["time"].iloc[1] == pd.Timestamp("2024-07-01T12:00Z")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_local_times_are_of_the_zone(tmp_path, suffix):
    frame = pd.DataFrame({"day": pd.to_datetime(["2024-01-02", "2024-07-02"]), "rate": [1, 2]})
    path = tmp_path / f"t.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.set_index("day").to_parquet(path)
    config = TableConfig(file=str(path), columns=["rate"], zone="America/New_York", lag="0h")
    times = read_table("v", config).frame["time"]
    assert times.tolist() == [pd.Timestamp("2024-01-02T05:00Z"), pd.Timestamp("2024-07-02T04:00Z")]
    with pytest.raises(CmatError, match=r"column 'day', row \d: 2024-01-02.* brings no time zone; set views.v.zone"):
        read_table("v", config.model_copy(update={"zone": None}))


def test_several_files_are_one_table(write, tmp_path):
    write("time,rate\n2024-02-01T00:00Z,3\n2024-02-02T00:00Z,4\n", "f/a.csv")
    config = write("time,rate\n2024-01-01T00:00Z,1\n", "f/b.csv", file=str(tmp_path / "f/*.csv"))
    table = read_table("v", config)
    assert table.frame["rate"].tolist() == [1, 3, 4]
    assert [table.place(row) for row in (0, 2)] == [f"{tmp_path}/f/b.csv, row 2", f"{tmp_path}/f/a.csv, row 3"]


def test_symbols_have_their_own_rows(write):
    text = (
        "symbol,time,rate\nA,2024-01-01T00:00Z,1\nA,2024-01-01T01:00Z,2\nB,2024-01-01T00:00Z,5\nB,2024-01-01T01:00Z,7\n"
    )
    config = write(text, lag="0h")
    table = read_table("v", config)
    assert as_of(table, "A", at(1), config)[0, :2].tolist() == [2, 1]
    assert as_of(table, "B", at(1), config)[0, :2].tolist() == [7, 2]
    assert np.isnan(as_of(table, "C", at(1), config)).all()
    sequence = config.model_copy(update={"encoder": "gru", "rows": 2})
    values, rows = as_sequence(table, "C", at(1), sequence)
    assert values.shape == (2, 4) and rows.tolist() == [1]


T = "2024-01-01T0"
BAD = {
    "text": (f"time,rate\n{T}0Z,1\n{T}1Z,n.n.\n", {}, r"t.csv: column 'rate', row 3: n.n. is no number"),
    "text after a blank line": (f"time,rate\n\n{T}0Z,x\n", {}, r"column 'rate', row 3: x is no number"),
    "infinite": (f"time,rate\n{T}0Z,1\n{T}1Z,-inf\n", {}, r"column 'rate', row 3: -inf is infinite"),
    "too large": (f"time,rate\n{T}0Z,1e38\n{T}1Z,1\n", {}, r"column 'rate', row 2: 1e38 is infinite, or too large"),
    "unsorted": (f"time,rate\n{T}0Z,1\n{T}2Z,1\n{T}1Z,2\n", {}, r"column 'time', row 4: \S+ lies before the row above"),
    "repeated": (
        f"time,rate\n{T}0Z,1\n{T}2Z,1\n{T}2Z,2\n",
        {},
        r"column 'time', row 4: .* is in .*t.csv, row 3 already",
    ),
    "repeated of a symbol": (
        f"symbol,time,rate\nA,{T}0Z,1\nB,{T}0Z,1\nB,{T}0Z,2\n",
        {},
        r"row 4: .* of B is in .*t.csv, row 3 already",
    ),
    "constant": (
        f"time,rate\n{T}0Z,1.5\n{T}1Z,\n{T}2Z,1.5\n",
        {},
        r"column 'rate' is 1.5 in all 2 rows that have a value",
    ),
    "empty column": (f"time,rate\n{T}0Z,\n{T}1Z,\n", {}, r"t.csv: column 'rate' is empty in all 2 rows"),
    "unknown column": (
        f"time,rates\n{T}0Z,1\n",
        {},
        r"t.csv: no column 'rate', which views.v names; did you mean 'rates'",
    ),
    "unknown time": (f"time,rate\n{T}0Z,1\n", {"time": "tme"}, r"no column 'tme'.*did you mean 'time'"),
    "unknown symbol": (f"time,rate\n{T}0Z,1\n", {"symbol": "coin"}, r"no column 'coin'.*valid names are time, rate"),
    "no symbol": (
        f"coin,time,rate\nA,{T}0Z,1\n,{T}1Z,1\n",
        {"symbol": "coin"},
        r"column 'coin', row 3: nan is no symbol",
    ),
    "no zone": (
        "day,rate\n2024-01-01,1\n",
        {},
        r"column 'day', row 2: 2024-01-01 brings no time zone; set views.v.zone",
    ),
    "compact dates": ("day,rate\n20240101,1\n", {}, r"column 'day', row 2: 20240101 brings no time zone"),
    "two columns of times": (f"a,b,rate\n{T}0Z,{T}1Z,1\n", {}, r"the columns a, b all read as times; set views.v.time"),
    "no column of times": ("a,rate\nx,1\n", {}, r"of the columns a none reads as times"),
    "numbers alone": ("rate\n1\n", {}, r"there is no column beside the numbers"),
    "no time": (f"time,rate\n{T}0Z,1\n,2\n", {"time": "time"}, r"column 'time', row 3: nan is no time"),
    "odd time": (
        f"time,rate\n{T}0Z,1\n{T}1Z,1\nsoon,2\n",
        {},
        r"column 'time', row 4: soon is not a time; write ISO",
    ),
    "clocks change": (
        "time,rate\n2024-03-10 01:00,1\n2024-03-10 02:30,2\n",
        {"zone": "America/New_York"},
        r"column 'time', row 3: 2024-03-10 02:30 does not exist, .* set views.v.zone right",
    ),
    "day or month": ("day,rate\n01/02/2024,1\n", {"zone": "UTC", "time": "day"}, r"its month first; write ISO 8601"),
    "long row": (f"time,rate\n{T}0Z,1\n{T}1Z,2,3\n", {}, r"t.csv: no table that can be read .*line 3"),
    "no rows": ("time,rate\n", {}, r"t.csv: no rows"),
    "empty file": ("", {}, r"t.csv: the file is empty"),
    "twice": ("time,rate,rate \n1,2,3\n", {}, r"two columns are named 'rate'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named_with_its_place(write, case):
    text, parameters, says = BAD[case]
    with pytest.raises(CmatError, match=says) as caught:
        read_table("v", write(text, **parameters))
    assert not re.search(r"data\.[a-z]", str(caught.value))  # parameters of candles are none of ours


def test_files_that_are_not_there(write, tmp_path):
    config = write(HOURS, "funding.csv")
    for file, says in {
        "fundng.csv": "fundng.csv does not exist; did you mean 'funding.csv'",
        "no/funding.csv": "does not exist; there is no folder",
        "*.parquet": r"views.v.file: no file fits .*\*.parquet",
        "": r"is a folder; name its files, as .*/\*.csv",
    }.items():
        with pytest.raises(CmatError, match=says):
            read_table("v", config.model_copy(update={"file": f"{tmp_path}/{file}"}))
    (tmp_path / "t.xlsx").write_text("x")
    with pytest.raises(CmatError, match="neither CSV nor Parquet"):
        read_table("v", config.model_copy(update={"file": f"{tmp_path}/t.xlsx"}))


def test_files_of_one_table_fit_together(write, tmp_path):
    write(f"symbol,time,rate\nA,{T}0Z,1\n", "a.csv")
    config = write(f"time,rate\n{T}1Z,2\n", "b.csv", file=f"{tmp_path}/*.csv")
    with pytest.raises(CmatError, match=r"b.csv: no column of symbols, which .*a.csv has"):
        read_table("v", config)
    write(f"time,rate\n{T}1Z,1\n", "a.csv")
    with pytest.raises(CmatError, match=r"b.csv: column 'time', row 2: .* is in .*a.csv, row 2 already"):
        read_table("v", config)


# Joining


def test_values_by_hand(write):
    config = write(HOURS, look_back="6h", stale="4h")
    found = as_of(read_table("v", config), "X", at(0.9, 1, 2.9, 3, 6, 7, 7.1, 8), config)
    three = [3, 2, 1]  # of 1 and 3: mean 2, deviation 1
    two = [2, -1, -1]  # of 3 and 2; 1 is older than 6 hours
    expected = [*[[np.nan] * 4] * 3, [*three, 0], [*three, np.log(4)], [*three, np.log(5)], [np.nan] * 4, [*two, 0]]
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-6)
    assert found.dtype == np.float32


def test_a_window_of_equal_values_has_no_zscore(write):
    config = write(
        "time,rate\n" + "".join(f"{T}{h}Z,{v}\n" for h, v in enumerate([0.1, 7.3, 7.3, 7.3])), look_back="2h"
    )
    assert as_of(read_table("v", config), "X", at(4), config)[0, 2] == 0


def random_table(folder, seed, symbols=("A", "B")):
    """Irregular rows with empty cells, and closes among them, some of which are publications."""
    rng = np.random.default_rng(seed)
    frames = []
    for symbol in symbols:
        count = int(rng.integers(1, 40))
        minutes = np.sort(rng.choice(5000, count, replace=False))
        frame = pd.DataFrame({"time": at(0)[0] + pd.to_timedelta(minutes, unit="min"), "symbol": symbol})
        for column in ("a", "b"):
            values = np.round(rng.normal(0, 10, count), 1)
            frame[column] = np.where(rng.random(count) < rng.choice([0, 0.3]), np.nan, values)
        frames.append(frame)
    frame = pd.concat(frames)
    frame.to_csv(folder / "t.csv", index=False)
    closes = at(0)[0] + pd.to_timedelta(np.unique(rng.integers(-100, 6000, 12)), unit="min")
    published = frame["time"] + pd.Timedelta("45min")
    return frame, pd.DatetimeIndex(closes).append(
        pd.DatetimeIndex(published.sample(min(5, len(frame)), random_state=seed))
    )


def slow_row(rows, column, close, config):
    """Features of the newest row of one column, and for how long it has been known; None if there are none."""
    known = [(t, v) for t, v in zip(rows["time"], rows[column], strict=True) if t + config.lag_span <= close]
    if len(known) < 2:
        return None
    (_, before), (newest, value) = known[-2:]
    age = close - (newest + config.lag_span)
    if config.stale_span is not None and age > config.stale_span:
        return None
    near = np.array([v for t, v in known if newest - config.look_back_span < t <= newest])
    zscore = (value - near.mean()) / near.std() if len(set(near)) > 1 else 0.0
    return [value, value - before, zscore], age / pd.Timedelta("1h")


def slow_as_of(frame, symbol, close, config):
    features = []
    for column in config.columns:
        row = slow_row(frame[frame["symbol"] == symbol].dropna(subset=[column]), column, close, config)
        if row is None:
            return [np.nan] * 4 * len(config.columns)
        features += [*row[0], np.log1p(row[1])]
    return features


def slow_window(frame, symbol, close, config):
    own = frame[frame["symbol"] == symbol].dropna(subset=config.columns)
    known = own[own["time"] + config.lag_span <= close]
    if len(known) <= config.rows or slow_row(known, config.columns[0], close, config) is None:
        return np.full((config.rows, 3 * len(config.columns) + 1), np.nan)
    window = []
    for place in range(len(known) - config.rows, len(known)):
        now, upto = known["time"].iloc[place] + config.lag_span, known.iloc[: place + 1]
        each = [slow_row(upto, column, now, config)[0] for column in config.columns]
        gap = (known["time"].iloc[place] - known["time"].iloc[place - 1]) / pd.Timedelta("1h")
        window.append([*np.concatenate(each), np.log1p(gap)])
    return np.array(window)


def random_config(folder, seed, **more):
    rng = np.random.default_rng(seed)
    stale, look_back = rng.choice([None, "3h", "20h"]), str(rng.choice(["4h", "30h"]))
    columns = [["a"], ["a", "b"]][seed % 2]
    return TableConfig(file=f"{folder}/t.csv", columns=columns, lag="45m", stale=stale, look_back=look_back, **more)


def windows(values, rows, length):
    return np.stack([values[row - length + 1 : row + 1] for row in rows])


def read_or_none(config):
    try:
        return read_table("v", config)
    except CmatError as error:
        assert "which says nothing" in str(error) or "is empty in all" in str(error)
        return None


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_same_as_a_slow_loop(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("tables")
    frame, closes = random_table(folder, seed)
    config = random_config(folder, seed)
    if (table := read_or_none(config)) is None:
        return
    expected = np.array([slow_as_of(frame, "B", close, config) for close in closes])
    found = as_of(table, "B", closes, config)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    sequence = config.model_copy(update={"encoder": "gru", "rows": 3})
    values, rows = as_sequence(table, "B", closes, sequence)
    assert values.dtype == np.float32 and rows.dtype == np.int64
    expected = np.stack([slow_window(frame, "B", close, sequence) for close in closes])
    np.testing.assert_allclose(windows(values, rows, 3), expected, rtol=1e-4, atol=1e-5)
    for parameters, missing in ((config, np.isnan(found[:, 0])), (sequence, np.isnan(expected[:, 0, 0]))):
        problems = [newest_problem("v", table, "B", close, parameters) for close in closes[::3]]
        assert [problem is not None for problem in problems] == missing[::3].tolist()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_rows_that_are_published_later_change_nothing(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("tables")
    _, closes = random_table(folder, seed)
    config = random_config(folder, seed)
    if (table := read_or_none(config)) is None:
        return
    sequence = config.model_copy(update={"encoder": "nbeats", "rows": 2})
    whole = as_of(table, "A", closes, config)
    values, rows = as_sequence(table, "A", closes, sequence)
    for number in range(0, len(closes), 7):
        known, one = cut(table, closes[number], config), closes[[number]]
        np.testing.assert_array_equal(as_of(known, "A", one, config), whole[[number]])
        again, row = as_sequence(known, "A", one, sequence)
        np.testing.assert_array_equal(windows(again, row, 2), windows(values, rows[[number]], 2))
        assert (known.frame["time"] + config.lag_span <= closes[number]).all()
        assert (
            len(known.frame) == len(known.places) == ((table.frame["time"] + config.lag_span) <= closes[number]).sum()
        )


def test_a_year_of_candles_is_fast(tmp_path):
    times = pd.date_range("2020-01-01", periods=50_000, freq="1h", tz="UTC")
    frame = pd.DataFrame({"time": times, "rate": np.random.default_rng(0).normal(size=len(times))})
    frame.to_parquet(tmp_path / "t.parquet")
    config = TableConfig(file=f"{tmp_path}/t.parquet", columns=["rate"], lag="1h")
    table = read_table("v", config)
    closes = pd.date_range("2020-02-01", periods=280_000, freq="5min", tz="UTC")
    start = time.perf_counter()
    as_of(table, "X", closes, config)
    as_sequence(table, "X", closes, config.model_copy(update={"encoder": "gru"}))
    assert time.perf_counter() - start < 2  # 0.1 s on an idle machine


# Overlap and newest row


def test_overlap(write):
    config = write(HOURS, stale="4h")
    table = read_table("v", config)
    shares = check_overlap("v", table, {"X": tuple(at(0, 12)), "Y": tuple(at(20, 30))}, config)
    assert shares["X"] == pytest.approx(8 / 12, abs=1e-3)  # from 3 to 7 and from 8 to 12
    assert shares["Y"] == 0
    says = "known from 2024-01-01 01:00.* to 2024-01-01 08:00.*close from 2024-01-01 20:00.*none has a value of views.v"
    with pytest.raises(CmatError, match=says):
        check_overlap("v", table, {"Y": tuple(at(20, 30))}, config)
    with pytest.raises(CmatError, match="it takes 17 rows by its close"):
        check_overlap("v", table, {"X": tuple(at(0, 12))}, config.model_copy(update={"encoder": "gru"}))
    config = write("symbol,time,rate\nXRP,2024-01-01T00:00Z,1\nXRP,2024-01-01T02:00Z,3\n")
    with pytest.raises(CmatError, match="the symbols are XRP, those of the candles XRPUSDT; write them as"):
        check_overlap("v", read_table("v", config), {"XRPUSDT": tuple(at(0, 12))}, config)


def test_the_newest_row_is_named(write, tmp_path):
    config = write(HOURS, stale="3d")
    table = read_table("v", config)
    assert newest_problem("v", table, "X", at(80)[0], config) is None
    says = newest_problem("v", table, "X", at(81)[0], config)
    assert says.startswith(
        f"views.v: the newest row, {tmp_path}/t.csv, row 5 (time 2024-01-01 07:00:00+00:00), has been "
    )
    assert "known for 3 days 01:00:00" in says and "more than stale 3d" in says
    assert "has 1 rows that were known" in newest_problem("v", table, "X", at(2)[0], config)
    sequence = config.model_copy(update={"encoder": "gru"})
    assert "has 3 rows that were known" in newest_problem("v", table, "X", at(9)[0], sequence)
    config = write(f"symbol,time,rate\nA,{T}0Z,1\nA,{T}1Z,2\n")
    assert "has no rows of B" in newest_problem("v", read_table("v", config), "B", at(5)[0], config)


# Rows that come too early


@pytest.fixture
def published(tmp_path):
    """A daily table that says when its rows were published, 14 to 20 hours after their time."""

    def published(change=lambda frame: frame, lag="20h", columns=("rate",), **parameters):
        rng = np.random.default_rng(3)
        days = pd.date_range("2024-01-01", periods=60, freq="1D", tz="UTC")
        frame = pd.DataFrame(
            {"day": days, "published": days + pd.to_timedelta(rng.integers(840, 1200, 60), unit="min")}
        )
        frame["rate"], frame["other"] = rng.normal(size=(2, 60))
        change(frame).to_csv(tmp_path / "p.csv", index=False)
        config = TableConfig(file=f"{tmp_path}/p.csv", columns=[*columns], time="day", lag=lag, **parameters)
        return late_publication("v", read_table("v", config), config)

    return published


def test_rows_in_time_are_not_late(published):
    assert published() == []
    assert published(lambda frame: frame.assign(published=frame["published"] - pd.Timedelta("3D"))) == []
    assert published(lambda frame: frame.rename(columns={"published": "next_update"}), lag="0h") == []
    assert (
        published(lambda frame: frame.assign(published=frame["day"] + 40_000 * pd.Timedelta("1D") // 2), lag="0h") == []
    )


def test_rows_of_the_very_time_are_not_late(published):
    assert published(lambda frame: frame.assign(published=frame["day"] + pd.Timedelta("20h"))) == []


def test_times_before_most_rows_are_not_those_of_publication(published):
    def mostly_before(frame):
        return frame.assign(published=frame["published"] - np.where(frame.index < 40, 3, 0) * pd.Timedelta("1D"))

    assert published(mostly_before, lag="0h") == []


def test_a_lag_below_the_true_one(published):
    (found,) = published(lag="15h")
    assert (found.column, found.time) == ("rate", pd.Timestamp("2024-01-01", tz="UTC"))
    assert 0 < found.rows < 60
    assert (
        "p.csv, row 2: column 'rate' is joined from 2024-01-01 15:00:00+00:00 on and was published at" in found.sentence
    )
    assert published(lag="0h", columns=["other"])[0].rows == 60


def test_times_that_are_shifted_by_a_row(published):
    (found,) = published(lambda frame: frame.assign(day=frame["day"].shift(1)).dropna())
    assert found.rows == 59


def test_values_that_are_filled_back(published):
    def fill_back(frame, columns):
        frame.loc[20:24, ["rate", "published"]] = np.nan
        frame[columns] = frame[columns].bfill()
        return frame

    for columns in (["rate", "published"], ["rate"]):
        (found,) = published(lambda frame, columns=columns: fill_back(frame, columns), columns=["rate", "other"][:1])
        assert (found.time, found.rows) == (pd.Timestamp("2024-01-21", tz="UTC"), 5)
    # Values that hold on, or are empty, are not late.
    assert published(lambda frame: fill_back(frame, ["other"])) == []

    def hold(frame):
        frame.loc[20:24, ["rate", "published"]] = np.nan
        return frame.assign(rate=frame["rate"].ffill())

    assert published(hold) == []

    def stay(frame):
        frame.loc[19:25, "rate"] = 0.5
        frame.loc[20:24, "published"] = np.nan
        return frame

    assert published(stay) == []


def market(count=365, seed=0):
    """Hourly closes of two symbols with heavy tails and volatility that comes in clusters; their daily returns."""
    rng = np.random.default_rng(seed)
    calm = np.exp(0.5 * rng.standard_normal(count + 2).repeat(24))
    common = 0.01 * calm * rng.standard_t(3, len(calm))
    index = pd.date_range("2023-12-31T01:00", periods=len(calm), freq="1h", tz="UTC")
    prices = {
        name: pd.Series(100 * np.exp(np.cumsum(common + 0.004 * rng.normal(size=len(calm)))), index) for name in "AB"
    }
    return prices, common[24:-24].reshape(count, 24).sum(axis=1), calm[24:-24:24]


def daily(folder, columns, lag="0h", symbols=None):
    days = pd.date_range("2024-01-01", periods=len(next(iter(columns.values()))), freq="1D", tz="UTC")
    frame = pd.DataFrame({"day": days, **columns})
    if symbols:
        frame = pd.concat([frame.assign(symbol=symbol) for symbol in symbols])
    frame.to_parquet(folder / "d.parquet", index=False)
    config = TableConfig(file=f"{folder}/d.parquet", columns=list(columns), lag=lag)
    return read_table("v", config), config


@pytest.mark.parametrize("symbols", [None, ["A", "B"]])
def test_a_column_that_moves_with_its_own_day(tmp_path, symbols):
    prices, returns, calm = market()
    noise = np.random.default_rng(1).normal(size=len(returns))
    level = np.cumsum(-returns + returns.std() * noise)  # like an index of fear, of this day's close
    columns = {"fear": level, "noise": noise, "storm": calm}
    (found,) = moves_early("v", *early(daily(tmp_path, columns, symbols=symbols), prices))
    assert found.column == "fear" and found.rho < -0.3 and found.t < -4.5
    assert found.time == pd.Timestamp("2024-01-02", tz="UTC")
    assert "correct views.v.lag" in found.sentence
    assert moves_early("v", *early(daily(tmp_path, columns, "1d", symbols), prices)) == []


def early(table_and_config, prices):
    table, config = table_and_config
    return table, prices, config


def test_chance_names_no_column(tmp_path):
    prices, returns, calm = market(120)
    rng = np.random.default_rng(2)
    size = np.abs(returns)
    noise = {f"noise{number}": np.cumsum(rng.standard_t(2, len(returns))) for number in range(100)}
    storms = {f"storm{number}": rng.normal(size=len(returns)) * size for number in range(100)}
    assert moves_early("v", *early(daily(tmp_path, noise | storms | {"calm": calm, "size": size}), prices)) == []


def test_tables_faster_than_candles(tmp_path):
    """Changes within a candle go with its return, and are known at its close."""
    rng = np.random.default_rng(0)
    minutes = pd.date_range("2024-01-01", periods=60 * 24 * 20, freq="1min", tz="UTC")
    path = pd.Series(np.cumsum(rng.normal(size=len(minutes))) * 1e-3, minutes)
    pd.DataFrame({"time": minutes, "rate": path.to_numpy()}).to_parquet(tmp_path / "m.parquet")
    hourly = np.exp(path[path.index.minute == 0])
    config = TableConfig(file=f"{tmp_path}/m.parquet", columns=["rate"], lag="0h")
    assert moves_early("v", read_table("v", config), {"A": hourly}, config) == []
    pd.DataFrame({"time": minutes - pd.Timedelta("1h"), "rate": path.to_numpy()}).to_parquet(tmp_path / "m.parquet")
    assert len(moves_early("v", read_table("v", config), {"A": hourly}, config)) == 1


def test_tables_between_candles(tmp_path):
    """The price before a row is known is none that it could be bought at."""
    rng = np.random.default_rng(0)
    minutes = pd.date_range("2024-01-01", periods=60 * 24 * 60, freq="1min", tz="UTC")
    path = pd.Series(np.cumsum(rng.normal(size=len(minutes))) * 1e-3, minutes)
    half = path[path.index.minute == 30]
    pd.DataFrame({"time": half.index, "rate": half.to_numpy()}).to_parquet(tmp_path / "m.parquet", index=False)
    config = TableConfig(file=f"{tmp_path}/m.parquet", columns=["rate"], lag="0h")
    assert moves_early("v", read_table("v", config), {"A": np.exp(path[path.index.minute == 0])}, config) == []


@pytest.mark.parametrize(("every", "share", "named"), [("1h", 0.15, 0), ("7D", 0.3, 0), ("1D", 0.3, 1)])
def test_a_little_may_be_known(tmp_path, every, share, named):
    """Weak knowledge of the sign is no proof, and strong knowledge of slow returns is not either."""
    rng = np.random.default_rng(5)
    times = pd.date_range("2010-01-01", periods=700, freq=every, tz="UTC")
    if every == "1h":
        times = pd.date_range("2010-01-01", periods=3000, freq=every, tz="UTC")
    returns = rng.normal(size=len(times))
    level = np.cumsum(share * returns + np.sqrt(1 - share**2) * rng.normal(size=len(times)))
    pd.DataFrame({"time": times, "rate": level}).to_parquet(tmp_path / "k.parquet", index=False)
    config = TableConfig(file=f"{tmp_path}/k.parquet", columns=["rate"], lag="0h")
    prices = pd.Series(np.exp(0.01 * np.cumsum(np.r_[0, returns[:-1]])), times)
    assert len(moves_early("v", read_table("v", config), {"A": prices}, config)) == named


def test_symbols_that_say_the_same_count_once(tmp_path):
    rng = np.random.default_rng(6)
    days = pd.date_range("2024-01-01", periods=60, freq="1D", tz="UTC")
    columns = {f"n{number}": rng.normal(size=60) for number in range(30)}
    names = [f"S{number}" for number in range(20)]
    parts = [
        pd.DataFrame({"time": days + number * pd.Timedelta("1min"), "symbol": name, **columns})
        for number, name in enumerate(names)
    ]
    pd.concat(parts).to_parquet(tmp_path / "s.parquet", index=False)
    index = pd.date_range("2024-01-01", periods=61 * 24, freq="1h", tz="UTC")
    prices = pd.Series(np.exp(0.01 * np.cumsum(rng.normal(size=len(index)))), index)
    config = TableConfig(file=f"{tmp_path}/s.parquet", columns=list(columns), lag="0h")
    assert moves_early("v", read_table("v", config), dict.fromkeys(names, prices), config) == []


# Real tables


HONEST = {
    "funding_rates": (["funding_mean", "funding_abs"], "UTC", "1d"),
    "fear_greed": (["fng"], "UTC", "1h"),
    "vix": (["vix"], "America/New_York", "16h15m"),
    "dxy": (["dxy"], "America/New_York", "17h"),
}


@pytest.fixture(scope="module")
def real_prices(real_candles):
    prices = {}
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"):
        candles = pd.read_parquet(real_candles / f"{symbol}_15m.parquet", columns=["timestamp", "close"])
        prices[symbol] = candles.set_index("timestamp")["close"].rename(index=lambda t: t + pd.Timedelta("15min"))
    return prices


@real
@pytest.mark.parametrize("name", HONEST)
def test_honest_tables_are_silent(real_candles, real_prices, name):
    columns, zone, lag = HONEST[name]
    config = TableConfig(file=f"{real_candles}/tables/{name}.csv", columns=columns, zone=zone, lag=lag, stale="5d")
    table = read_table(name, config)
    assert moves_early(name, table, real_prices, config) == []
    assert late_publication(name, table, config) == []
    closes = real_prices["BTCUSDT"].index
    assert has_row(table, "BTCUSDT", closes, config).mean() > 0.99
    assert set(check_overlap(name, table, {"BTCUSDT": (closes[0], closes[-1])}, config)) == {"BTCUSDT"}


@real
def test_the_vix_at_midnight_knows_the_future(real_candles, real_prices):
    config = TableConfig(file=str(Path(real_candles) / "tables/vix.csv"), columns=["vix"], zone="UTC", lag="0h")
    (found,) = moves_early("vix", read_table("vix", config), real_prices, config)
    assert found.column == "vix"
    assert found.rho == pytest.approx(-0.43, abs=0.01) and found.t == pytest.approx(-6.4, abs=0.1)
