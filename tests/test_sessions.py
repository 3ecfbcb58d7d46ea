"""Markets that close: what is a closure, what stays a gap, and that nothing runs over one unless it is declared."""

import numpy as np
import pandas as pd
import pytest

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.candles import audit, load_market, window_ends
from cmat_lib.data.channels import CHANNELS, compute_channels
from cmat_lib.data.labels import compute_labels
from cmat_lib.data.sessions import CLOSED, find_closures, join_sessions, stretch_ids
from cmat_lib.views import VIEWS
from cmat_lib.views.samples import build_samples, check_length

NEW_YORK = "America/New_York"
EARLY = ("2024-07-03", "2024-11-29", "2024-12-24")


def candles_at(index: pd.DatetimeIndex, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, len(index))))
    columns = {"open": close, "high": close * 1.001, "low": close * 0.999, "close": close, "volume": 1.0}
    return pd.DataFrame(columns, index=index.as_unit("ns").rename("timestamp"))


def stock_index(bar="15min", days=260, start="2024-01-02", early=()):
    """New York, 09:30 to 16:00, with four holidays and `early` closes at 13:00; daylight saving included."""
    holidays = ["2024-01-15", "2024-05-27", "2024-07-04", "2024-11-28"]
    times = []
    for day in pd.bdate_range(start, periods=days):
        if f"{day:%Y-%m-%d}" not in holidays:
            close = "13:00" if f"{day:%Y-%m-%d}" in early else "16:00"
            clock = [pd.Timestamp(f"{day:%Y-%m-%d} {hour}") for hour in ("09:30", close)]
            times.append(pd.date_range(*clock, freq=bar, inclusive="left", tz=NEW_YORK))
    return times[0].append(times[1:]).tz_convert("UTC")


def forex_index(bar="15min", weeks=30):
    """Sunday 17:00 to Friday 17:00 in New York."""
    sundays = pd.date_range("2024-01-07 17:00", periods=weeks, freq="W-SUN", tz=NEW_YORK)
    weeks_of = [pd.date_range(s, s + pd.DateOffset(days=5), freq=bar, inclusive="left") for s in sundays]
    return weeks_of[0].append(weeks_of[1:]).tz_convert("UTC")


def joined(index, bar="15min", zone=NEW_YORK):
    return join_sessions(candles_at(index), pd.Timedelta(bar), zone, "A")


def runs(index, bar="15min", zone=NEW_YORK) -> int:
    return stretch_ids(joined(index, bar, zone), pd.Timedelta(bar)).max() + 1


def at(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz=NEW_YORK).tz_convert("UTC")


# --- what is a closure


@pytest.mark.parametrize("bar", ["1min", "15min", "30min", "1h"])
def test_a_year_of_a_stock_is_one_run(bar):
    index = stock_index(bar)
    assert runs(index, bar) == 1
    assert stretch_ids(candles_at(index), pd.Timedelta(bar)).max() + 1 == 256  # days with candles


@pytest.mark.parametrize("bar", ["1min", "15min", "1h", "4h"])
def test_thirty_weeks_of_a_currency_are_one_run(bar):
    index = forex_index(bar) if bar != "4h" else forex_index("1h", weeks=8)[::4]  # before the clocks change
    assert runs(index, bar) == 1


def test_daily_candles_of_a_stock():
    days = pd.bdate_range("2022-01-03", periods=500, tz="UTC").delete([30, 77, 200])
    assert runs(days, "1D", "UTC") == 1


@pytest.mark.parametrize(
    "missing",
    ["2024-03-05 09:30", "2024-03-05 11:15", "2024-03-05 15:45", "2024-03-11 09:30"],  # first, inner, last, a Monday
)
def test_a_missing_candle_of_a_session_stays_a_gap(missing):
    index = stock_index()
    found = joined(index.drop(at(missing)))
    ids = stretch_ids(found, pd.Timedelta("15min"))
    after = found.index.searchsorted(at(missing))
    assert ids.max() == 1 and ids[after] == 1 and ids[after - 1] == 0
    closures = find_closures(found.index, pd.Timedelta("15min"), NEW_YORK)
    assert closures.absent.tolist() == [at(missing)]


def test_a_lost_stretch_across_nights_stays_a_gap():
    index = stock_index()
    assert runs(index[(index < at("2024-03-05 11:00")) | (index > at("2024-03-07 14:00"))]) == 2
    currency = forex_index()
    assert runs(currency[(currency < at("2024-03-05 22:00")) | (currency > at("2024-03-06 03:00"))]) == 2


def test_the_first_early_close_is_a_gap_and_later_ones_at_the_same_hour_are_none():
    for count in (1, 2, 3):
        index = stock_index(early=EARLY[:count])
        ids = stretch_ids(joined(index), pd.Timedelta("15min"))
        assert (np.flatnonzero(np.diff(ids)) == index.searchsorted(at("2024-07-05 09:30")) - 1).all() and ids[-1] == 1


def test_later_candles_change_no_earlier_decision():
    """The second early close comes after the file's end, or before it: what was before stays as it was."""
    index, bar = stock_index(early=EARLY), pd.Timedelta("15min")
    whole = find_closures(index, bar, NEW_YORK).before
    for end in ("2024-07-10", "2024-11-29 12:00", "2024-12-10"):
        count = index.searchsorted(at(end))
        np.testing.assert_array_equal(find_closures(index[:count], bar, NEW_YORK).before, whole[:count])


def test_last_candles_that_are_missing_are_no_early_closes():
    index = stock_index()
    days = ["2024-03-05", "2024-04-09", "2024-05-14"]
    assert runs(index.drop([at(f"{day} 15:45") for day in days])) == 4
    assert runs(index.drop([at(f"{day} 15:{minute}") for day in days for minute in (15, 30, 45)])) == 4
    assert runs(stock_index("1h").drop([at(f"{day} 15:30") for day in days]), "1h") == 4


def test_a_thin_market_gets_no_early_closes():
    """2 % of the candles are missing at random."""
    index = stock_index()
    kept = index[np.random.default_rng(1).random(len(index)) > 0.02]
    assert set(find_closures(kept, pd.Timedelta("15min"), NEW_YORK).absent) == set(index) - set(kept)


def test_a_fortnight_without_candles_is_no_holiday():
    index = stock_index()
    lost = (index > at("2024-03-01")) & (index < at("2024-03-16"))
    assert runs(index[~lost]) == 2
    week = (index > at("2024-03-04")) & (index < at("2024-03-09"))
    assert runs(index[~week]) == 1


def test_a_market_that_never_closes_has_no_closures():
    index = pd.date_range("2024-01-01", periods=96 * 90, freq="15min", tz="UTC")
    halted = index.delete(slice(3000, 3300))  # three days, of which two are whole
    assert (find_closures(halted, pd.Timedelta("15min"), "UTC").before == 0).all()
    assert runs(halted, zone="UTC") == 2


def test_an_illiquid_stock_keeps_its_gaps():
    index = stock_index()
    kept = index[np.random.default_rng(0).random(len(index)) > 0.1]
    closures = find_closures(kept, pd.Timedelta("15min"), NEW_YORK)
    assert set(closures.absent) <= set(index)
    assert set(index) - set(kept) == set(closures.absent)


def test_lunch():
    days = pd.bdate_range("2024-01-02", periods=80, tz="Asia/Tokyo")
    morning, afternoon = (
        [pd.date_range(d + pd.Timedelta(a), d + pd.Timedelta(b), freq="15min", inclusive="left") for d in days]
        for a, b in (("9h", "11h30min"), ("12h30min", "15h"))
    )
    index = morning[0].append([*morning[1:], *afternoon]).sort_values().tz_convert("UTC")
    assert runs(index, zone="Asia/Tokyo") == 1
    assert runs(index.delete(100), zone="Asia/Tokyo") == 2
    local = index.tz_convert("Asia/Tokyo")
    mornings_only = local.normalize().isin([days[20], days[50], days[60]]) & (local.hour >= 12)
    assert runs(index[~mornings_only], zone="Asia/Tokyo") == 2  # the first is a gap


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_the_wrong_zone_is_told(zone):
    """By a clock without summer time the winter's hours are not the summer's, and every winter night is a gap."""
    config = load_config(changes={"data": {"sessions": "join", "clock_zone": zone}})
    candles = joined(stock_index(), zone=zone)
    message = rf"candles of its sessions are missing; if data\.clock_zone \({zone}\) is not the market's, set it"
    with pytest.warns(UserWarning, match=message):
        check_length("A", candles, config)


def test_too_few_weeks_for_a_calendar():
    with pytest.raises(CmatError, match=r"A: data\.sessions: join reads .* 4 weeks .* these are 10 days"):
        joined(stock_index(days=10))
    assert runs(pd.date_range("2024-01-01", periods=96, freq="15min", tz="UTC")) == 1  # no gaps, nothing to tell


# --- what follows from it


CONFIG = {
    "data": {"sequence_length": 8, "channels": ["log_close", "roc"], "clock_zone": NEW_YORK},
    "labels": {"horizon": 10, "threshold_pct": 1.0},
    "tda": {"window_size": 60},
    "complexity": {"window_size": 60},
}


def write(folder, index, name="AAPL"):
    candles_at(index).reset_index().to_parquet(folder / f"{name}.parquet")


def config_for(folder, **data):
    return load_config(changes={"data": {**data, "data_dir": str(folder)}}, base=CONFIG)


def test_windows_do_not_jump_a_night_unless_told(tmp_path):
    index = stock_index()
    write(tmp_path, index)
    for sessions, expected in (("continuous", 0), ("join", len(index) - 59)):
        config = config_for(tmp_path, sessions=sessions)
        candles = load_market(config.data)["AAPL"]
        assert len(window_ends(candles, config.data.bar, 60)) == expected
        assert (CLOSED in candles) == (sessions == "join")
    with pytest.raises(CmatError, match=r"AAPL: .*closes \(255 nights.*data\.sessions: join says so"):
        check_length("AAPL", candles_at(index), config_for(tmp_path))


def test_few_windows_are_a_warning(tmp_path):
    config = config_for(tmp_path)
    currency = candles_at(forex_index("1h"))  # weeks of 120 candles, of which 69 give none
    with pytest.warns(UserWarning, match=r"EUR: only 1530 of 3600 candles end a window\. The market closes \(29"):
        check_length("EUR", currency, load_config(changes={"data": {"timeframe": "1h"}}, base=CONFIG))
    check_length("AAPL", joined(stock_index()), config)


def test_labels_and_channels_run_over_a_night_by_rows(tmp_path):
    """The same numbers as for candles without closures, but for the times."""
    index, config = stock_index(), config_for(tmp_path)
    candles = joined(index)
    gapless = candles_at(pd.date_range("2024-01-01", periods=len(index), freq="15min", tz="UTC"))
    bar, names = config.data.bar, list(CHANNELS)[:9]
    np.testing.assert_array_equal(compute_channels(candles, names, bar), compute_channels(gapless, names, bar))
    found, expected = (compute_labels(c, config.labels, bar) for c in (candles, gapless))
    for column in ("trigger", "max_pct", "log_range"):
        np.testing.assert_array_equal(found[column], expected[column])
    last_of_day = candles.index.get_loc(at("2024-03-08 15:45"))  # Friday; the tenth candle on is Monday's
    assert found["label_end"].iloc[last_of_day] == at("2024-03-11 12:00")


def test_purge_and_embargo_follow_the_clock(tmp_path):
    write(tmp_path, stock_index())
    changes = {"sessions": "join", "split": "combinatorial", "folds": 4, "test_groups": 1, "fold": 1}
    config = config_for(tmp_path, **changes)
    market = load_market(config.data)
    labels = {symbol: compute_labels(c, config.labels, config.data.bar) for symbol, c in market.items()}
    samples = build_samples(market, labels, config)
    opens, longest = market["AAPL"].index, VIEWS.look_back(config)
    row = samples["local_row"].to_numpy()
    assert (samples["input_start"] == opens[row - longest + 1]).all()
    known = samples["label_end"].notna()
    assert (samples["label_end"][known] == opens[row[known] + 10] + config.data.bar).all()
    test = samples[samples["part"] == "test"]
    train = samples[samples["part"] == "train"]
    after = train[train["close_time"] > test["close_time"].max()]
    assert len(after) and (after["input_start"] >= test["close_time"].max()).all()
    assert (after["close_time"].min() - test["close_time"].max()) > 2 * longest * config.data.bar  # nights count
    before = train[train["close_time"] < test["close_time"].min()]
    assert (before["label_end"] <= test["close_time"].min()).all()


def test_fill_flat_fills_sessions_only(tmp_path):
    index = stock_index()
    lost = [at("2024-03-05 11:15"), at("2024-03-05 15:45"), at("2024-03-06 09:30")]
    write(tmp_path, index.drop(lost))
    filled = load_market(config_for(tmp_path, sessions="join", gaps="fill_flat").data)["AAPL"]
    assert filled.index.equals(index) and (filled.loc[lost, "volume"] == 0).all()
    assert stretch_ids(filled, pd.Timedelta("15min")).max() == 0


def test_fill_flat_leaves_no_gap_at_early_closes(tmp_path):
    """The first is filled as any gap is, and still tells that the later ones are early closes."""
    index = stock_index(early=EARLY)
    write(tmp_path, index)
    filled = load_market(config_for(tmp_path, sessions="join", gaps="fill_flat").data)["AAPL"]
    added = filled.index.difference(index)
    assert added[0] == at("2024-07-03 13:00") and added[-1] == at("2024-07-03 15:45") and len(added) == 12
    assert stretch_ids(filled, pd.Timedelta("15min")).max() == 0


def test_audit_counts_closures(tmp_path):
    index = stock_index().drop(at("2024-03-05 11:15"))
    bitcoin = pd.date_range("2024-01-01", periods=96 * 60, freq="15min", tz="UTC").delete([500, 900])
    report = audit({"AAPL": candles_at(index), "BTC": candles_at(bitcoin)}, pd.Timedelta("15min"), NEW_YORK)
    assert report["gaps"].tolist() == [256, 2] and report["regular_closures"].tolist() == [255, 0]


def test_a_part_of_joined_candles_has_the_same_runs():
    """Cutting candles off, as an audit or a prediction does, changes no decision about those that are left."""
    candles, bar = joined(stock_index()), pd.Timedelta("15min")
    holed = candles.drop(candles.index[1000])
    for start in (0, 13, 500):
        part = holed.iloc[start:]
        assert np.array_equal(stretch_ids(part, bar), stretch_ids(holed, bar)[start:])


def test_a_row_that_is_taken_out_of_joined_candles_is_a_gap():
    candles, bar = joined(stock_index()), pd.Timedelta("15min")
    for text in ("2024-03-05 09:30", "2024-03-05 12:00", "2024-03-05 15:45"):
        assert stretch_ids(candles.drop(at(text)), bar).max() == 1, text


def test_sessions_is_a_known_word():
    with pytest.raises(Exception, match="sessions"):
        DataConfig(sessions="yes")
