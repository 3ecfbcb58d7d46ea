"""Files of predictions, and candles that are scored as their files grow."""

import os

import numpy as np
import pandas as pd
import pytest
import torch
from slim import model_content, slim

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config
from cmat_lib.data.synthetic import synthetic_market
from cmat_lib.models import build_model
from cmat_lib.training.checkpoint import save_checkpoint
from cmat_lib.workflow.follow import CsvOutput, Follower, write_predictions
from cmat_lib.workflow.predictor import Predictor

ROWS = pd.DataFrame(
    {
        "symbol": ["A", "A", "B"],
        "timestamp": pd.to_datetime(["2025-01-01 00:00", "2025-01-01 01:00", "2025-01-01 00:00"], utc=True),
        "probability": [0.1, 0.2, 0.3],
        "model": "m1",
    }
)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_holds_what_was_predicted(tmp_path, ending):
    path = tmp_path / f"new/p.{ending}"
    write_predictions(ROWS, path)
    back = pd.read_csv(path, parse_dates=["timestamp"]) if ending == "csv" else pd.read_parquet(path)
    pd.testing.assert_frame_equal(back, ROWS, check_dtype=False)


def test_without_a_file_it_is_printed(capsys):
    write_predictions(ROWS, None)
    assert capsys.readouterr().out == ROWS.to_csv(index=False)


def test_another_ending(tmp_path):
    with pytest.raises(CmatError, match=r"p\.xlsx: write predictions to a \.parquet or a \.csv file"):
        write_predictions(ROWS, tmp_path / "p.xlsx")


def test_lines_are_appended_under_one_header(tmp_path):
    path = tmp_path / "p.csv"
    CsvOutput(path, "m1").append(ROWS[:2])
    output = CsvOutput(path, "m1")
    assert output.last == {"A": pd.Timestamp("2025-01-01 01:00", tz="UTC")}
    output.append(ROWS[2:])
    assert path.read_text() == ROWS.to_csv(index=False)


def test_half_a_line_of_a_killed_process_is_dropped(tmp_path):
    path = tmp_path / "p.csv"
    text = ROWS.to_csv(index=False)
    path.write_text(text[:-7])
    output = CsvOutput(path, "m1")
    assert "B" not in output.last
    output.append(ROWS[2:])
    assert path.read_text() == text


@pytest.mark.parametrize("content", ["", "symbol,times"])
def test_a_file_that_never_got_its_header(tmp_path, content):
    path = tmp_path / "p.csv"
    path.write_text(content)
    CsvOutput(path, "m1").append(ROWS)
    assert path.read_text() == ROWS.to_csv(index=False)


def test_scores_of_two_models_are_not_mixed(tmp_path):
    CsvOutput(tmp_path / "p.csv", "m1").append(ROWS)
    with pytest.raises(CmatError, match="holds scores of another model"):
        CsvOutput(tmp_path / "p.csv", "m2")


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n", "a,b\n1,2\n3,4", "one line, no break", "symbol,timestamp,model\nA,,m1\nA,2025-01"]
)
def test_a_file_of_something_else_is_not_touched(tmp_path, content):
    path = tmp_path / "p.csv"
    path.write_text(content)
    with pytest.raises(CmatError, match=r"p\.csv: .*; choose another --output"):
        CsvOutput(path, "m1")
    assert path.read_text() == content


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "p.csv").mkdir()
    with pytest.raises(CmatError, match=r"p\.csv: cannot be read \(Is a directory\)"):
        CsvOutput(tmp_path / "p.csv", "m1")


def test_only_csv_can_grow(tmp_path):
    with pytest.raises(CmatError, match=r"needs a \.csv file"):
        CsvOutput(tmp_path / "p.parquet", "m1")


# -- following ---------------------------------------------------------------------------------------------------------


class Feed:
    """A folder of candle files, written by somebody else."""

    def __init__(self, folder, market):
        self.folder, self.market, self.clock = folder, market, pd.Timestamp("2024-06-01").timestamp()

    def write(self, symbol, rows, tail=""):
        text = self.market[symbol].iloc[:rows].to_csv()
        path = self.folder / f"{symbol}.csv"
        path.write_text(text + tail)
        self.clock += 1
        os.utime(path, (self.clock, self.clock))


@pytest.fixture
def feed(tmp_path, market):
    return Feed(tmp_path, market)


def follower(predictor, feed, first=None, last=()):
    return Follower(predictor, predictor.data(str(feed.folder)), first, dict(last))


def looks(follower, times):
    """Scores of so many looks."""
    return [scores for _ in range(times) for scores in follower.look()]


def test_each_new_candle_is_scored_once(predictor, feed, market):
    symbol = next(iter(market))
    following, found = follower(predictor, feed), []
    for rows in range(500, 504):
        feed.write(symbol, rows)
        found += looks(following, 3)
    scored = pd.concat(found)
    assert scored["timestamp"].tolist() == market[symbol].index[499:503].tolist()
    expected = predictor.scores({symbol: market[symbol].iloc[:503]}, market[symbol].index[499])
    np.testing.assert_allclose(scored["raw_probability"], expected["raw_probability"], atol=1e-6)


def test_several_candles_at_once_and_several_symbols(predictor, feed, market):
    following = follower(predictor, feed)
    for rows in (500, 505):
        for symbol in market:
            feed.write(symbol, rows)
        found = looks(following, 2)
    assert [len(scores) for scores in found] == [5] * len(market)


def test_a_file_that_is_being_written_is_left_alone(predictor, feed, market):
    symbol = next(iter(market))
    following = follower(predictor, feed)
    for rows in range(500, 505):
        feed.write(symbol, rows)
        assert looks(following, 1) == []
    assert len(looks(following, 1)) == 1


def test_a_bad_line_is_told_once_and_the_candle_comes_when_it_is_mended(predictor, feed, market):
    symbol = next(iter(market))
    following = follower(predictor, feed)
    feed.write(symbol, 500)
    looks(following, 2)
    feed.write(symbol, 500, tail=f"{market[symbol].index[500]},1,2,3")
    with pytest.warns(UserWarning) as told:
        assert looks(following, 5) == []
    assert len(told) == 1 and f"{symbol}.csv" in str(told[0].message)
    feed.write(symbol, 501)
    assert looks(following, 2)[0]["timestamp"].tolist() == [market[symbol].index[500]]


def test_goes_on_where_the_output_ends(predictor, feed, market):
    symbol = next(iter(market))
    feed.write(symbol, 500)
    scored = pd.concat(looks(follower(predictor, feed, last={symbol: market[symbol].index[490]}), 2))
    assert scored["timestamp"].tolist() == market[symbol].index[491:500].tolist()


def test_from_a_moment_on(predictor, feed, market):
    symbol = next(iter(market))
    feed.write(symbol, 500)
    scored = pd.concat(looks(follower(predictor, feed, first=market[symbol].index[495]), 2))
    assert len(scored) == 5


def test_a_candle_that_was_saved_before_its_close_waits_for_the_whole_one(predictor, feed, market):
    symbol = next(iter(market))
    feed.clock = market[symbol].index[500].timestamp() + 600  # ten minutes into the hour
    following = follower(predictor, feed, first=market[symbol].index[499])
    feed.write(symbol, 501)
    assert pd.concat(looks(following, 4))["timestamp"].tolist() == [market[symbol].index[499]]
    feed.clock += 3600
    feed.write(symbol, 501)
    assert looks(following, 3)[0]["timestamp"].tolist() == [market[symbol].index[500]]


def test_a_candle_that_comes_late_is_scored_with_those_after_it(predictor, feed, market):
    symbol = next(iter(market))
    following = follower(predictor, feed)
    feed.write(symbol, 500)
    looks(following, 2)
    whole = feed.market[symbol]
    feed.market = {symbol: whole.drop(whole.index[500])}
    feed.write(symbol, 501)
    with pytest.warns(UserWarning, match="the newest candle has no score"):
        assert looks(following, 2) == []
    feed.market = {symbol: whole}
    feed.write(symbol, 503)
    assert looks(following, 2)[0]["timestamp"].tolist() == whole.index[500:503].tolist()


def test_a_stray_file_is_told_and_following_goes_on(predictor, feed, market):
    symbol = next(iter(market))
    following = follower(predictor, feed)
    feed.write(symbol, 500)
    stray = feed.folder / f"notes on {symbol}.csv"
    stray.write_text("a,b\n")
    with pytest.warns(UserWarning, match="no column timestamp"):
        assert len(looks(following, 2)) == 1  # the other symbols are scored nevertheless
    stray.unlink()
    assert looks(following, 2) == []


def test_nothing_to_follow(predictor):
    with pytest.raises(CmatError, match="name it with --data-dir"):
        Follower(predictor, predictor.data(), None, {})


def test_a_view_of_the_others_waits_for_them(tmp_path):
    """A candle is scored once all symbols have it, with the numbers of one go."""
    changes = {"complexity": {"ranges": [1, 4], "window_size": 48}, "tda": {"window_size": 48, "time_delay": 6}}
    changes["model"] = {"modalities": ["complexity", "market"]}
    config = load_config(base=slim().model_dump(mode="json"), changes=changes)
    torch.manual_seed(0)
    content = model_content(config, build_model(config)) | {"symbols": ["SYNA", "SYNB"]}
    save_checkpoint(tmp_path / "best_model.pt", content)
    predictor = Predictor(tmp_path / "best_model.pt", "cpu")
    market = synthetic_market(symbols=2, days=30, timeframe="1h", horizon=4, seed=0)
    market = {symbol: candles[["open", "high", "low", "close", "volume"]] for symbol, candles in market.items()}
    (tmp_path / "feed").mkdir()
    feed = Feed(tmp_path / "feed", market)
    for symbol in market:
        feed.write(symbol, 300)
    following = follower(predictor, feed)
    found = looks(following, 2)
    for rows in range(301, 304):
        feed.write("SYNA", rows)
        assert not looks(following, 3)
        feed.write("SYNB", rows)
        found += looks(following, 3)
    scored = pd.concat(found).sort_values(["symbol", "timestamp"]).reset_index(drop=True)
    whole = {symbol: candles.iloc[:303] for symbol, candles in market.items()}
    expected = predictor.scores(whole, market["SYNA"].index[299]).reset_index(drop=True)
    assert len(scored) == len(expected) == 8
    only = Follower(predictor, following.data, market["SYNA"].index[300], {}, ["SYNA"])
    assert {symbol for found in looks(only, 2) for symbol in found["symbol"]} == {"SYNA"}
    predictor.market = None  # files that are at rest are not read again for those that nobody wants scored
    assert not looks(only, 3)
    np.testing.assert_allclose(scored["raw_probability"], expected["raw_probability"], atol=1e-9)
