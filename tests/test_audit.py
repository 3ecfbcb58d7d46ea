"""`cmat audit`: every planted leak is found, with its feature and row, and a clean run has no finding."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from smoke_run import signed

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.audit.checks import audit_run, checks
from cmat_lib.commands.audit.subject import CAUSES, open_subject
from cmat_lib.config import load_config, merge, project_root
from cmat_lib.data.channels import CHANNELS, Channel
from cmat_lib.data.complexity import INDICATORS, Indicator
from cmat_lib.data.labels import compute_labels
from cmat_lib.data.splits import split_spans
from cmat_lib.data.synthetic import synthetic_market
from cmat_lib.tda.features import tda_features
from cmat_lib.views import complexity as complexity_view
from cmat_lib.views import ohlcv, table
from cmat_lib.views import samples as samples_module
from cmat_lib.views.samples import sample_rows
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages import data, features

ROWS = 8
CHANGES = {
    "data": {"channels": ["log_open", "log_high", "log_low", "log_close", "volume_ratio", "roc"]},
    "labels": {"threshold_pct": 1.0},
    "cache": {"jobs": 1},
}
NAMES = [
    *("candles", "channels", "topology", "complexity", "clock", "labels"),
    *("samples", "split", "scalers", "single inputs", "predictions"),
]
GAP = slice(700, 703)


@pytest.fixture(scope="module")
def candle_folder(tmp_path_factory):
    """Two symbols with label columns in their files; the second has a gap."""
    folder = tmp_path_factory.mktemp("candles")
    labels = load_config(project_root() / "params/smoke.yaml", {"labels": CHANGES["labels"]}).labels
    market = synthetic_market(symbols=2, days=60, timeframe="1h", horizon=4, seed=1, plant=True)
    for symbol, candles in market.items():
        candles = candles[["open", "high", "low", "close", "volume"]]
        candles = candles.drop(candles.index[GAP]) if symbol == "SYNB" else candles
        known = compute_labels(candles, labels, pd.Timedelta("1h"))[["trigger", "max_pct"]]
        candles.join(known).to_parquet(folder / f"{symbol}.parquet")
    return folder


@pytest.fixture(scope="module")
def build(candle_folder, tmp_path_factory):
    """Stages 01 and 02 of a run with some changes; the cache is shared."""
    cache = str(tmp_path_factory.mktemp("cache"))

    def run(cache_dir=cache, **changes):
        folder = tmp_path_factory.mktemp("run")
        own = {"run_dir": str(folder), "data": {"data_dir": str(candle_folder)}, "cache": {"dir": str(cache_dir)}}
        config = load_config(project_root() / "params/smoke.yaml", merge(merge(CHANGES, own), changes))
        for stage, work in (("01_data_prep", data.prepare_data), ("02_tda_cache", features.build_features)):
            run = Run(config, stage).begin()
            work(config, run)
            run.finish()
        return open_subject(str(folder), ROWS)

    return run


@pytest.fixture(scope="module")
def clean(build):
    return build()


def checked(name, subject):
    """What one check says of a run."""
    return checks(subject)[name](subject)


def found(subject):
    """Findings by check."""
    return {name: list(report.findings) for name, report in audit_run(subject) if report.findings}


def only(findings, check):
    """The one finding of a check, of a report that says nothing else."""
    assert list(findings) == [check] and len(findings[check]) == 1, findings
    return findings[check][0]


def test_a_clean_run_has_no_finding(clean):
    reports = dict(audit_run(clean))
    assert list(reports) == list(checks(clean)) == NAMES
    assert not any(report.findings for report in reports.values()), reports
    assert [name for name, report in reports.items() if report.skipped] == ["predictions"]


def test_a_market_that_closes_is_clean(build, tmp_path):
    """Windows, labels and channels run over nights; the file has lost one session."""
    days = pd.bdate_range("2024-01-02", periods=160).delete(70)
    times = pd.DatetimeIndex([day + pd.Timedelta(hours=hour) for day in days for hour in range(9, 16)])
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.006, len(times))))
    prices = {"open": close, "high": close * 1.003, "low": close * 0.997, "close": close}
    candles = pd.DataFrame({"timestamp": times, **prices, "volume": rng.lognormal(size=len(times))})
    candles.drop(candles.index[3]).to_parquet(tmp_path / "AAPL.parquet")
    subject = build(data={"data_dir": str(tmp_path), "sessions": "join"})
    assert len(subject.samples) > 100 and not found(subject)


def test_the_rows_looked_at_have_those_around_the_gap(clean):
    clean = replace(clean, rows=20)
    candles = clean.candle_rows[clean.candle_rows["symbol"] == "SYNB"]["local_row"]
    assert {GAP.start - 1 + 25, GAP.start - 1 + 96, GAP.start + 95}.issubset(candles)
    samples = clean.sample_rows[clean.sample_rows["symbol"] == "SYNB"]["local_row"]
    complete = sample_rows(clean.market["SYNB"], clean.config)
    assert {complete[0], complete[complete > GAP.start][0]}.issubset(samples)


# -- tables -----------------------------------------------------------------------------------------------------------


def table_run(build, folder, leak=None, **keys):
    """A run with a table of one row a day, known six hours after its day began, and what went wrong with it."""
    folder.mkdir(exist_ok=True)
    days = pd.date_range("2023-12-01", "2024-03-10", freq="D", tz="UTC")
    frame = pd.DataFrame({"day": days, "rain": np.random.default_rng(0).normal(size=len(days))})
    frame["published"] = frame["day"] + pd.Timedelta("6h")
    if leak is not None:
        leak(frame)
    frame.to_csv(folder / "rain.csv", index=False)
    about = {"file": str(folder / "rain.csv"), "columns": ["rain"], "time": "day", "lag": "6h"} | keys
    return build(views={"weather": about}, model={"modalities": ["nbeats", "weather"]})


def shift(frame):
    frame["day"] = frame["day"].shift(1, fill_value=frame["day"].iloc[0] - pd.Timedelta("1D"))


def fill_back(frame):
    frame.loc[40:44, ["rain", "published"]] = frame.loc[45, ["rain", "published"]].to_numpy()


@pytest.mark.parametrize(
    ("leak", "keys", "first"),
    [
        (shift, {}, "2023-11-30"),  # times shifted by -1
        (None, {"lag": "5h"}, "2023-12-01"),  # a lag below the true one
        (fill_back, {}, "2024-01-10"),  # values that were filled back
    ],
    ids=["shifted", "lag", "filled back"],
)
def test_rows_of_a_table_that_come_before_their_publication(build, tmp_path, leak, keys, first):
    finding = only(found(table_run(build, tmp_path, leak, **keys)), "tables")
    assert (finding.cause, finding.feature) == ("published", "weather.rain")
    assert finding.time == pd.Timestamp(first, tz="UTC")


def test_an_honest_table(build, tmp_path):
    assert not found(table_run(build, tmp_path))


def test_a_table_that_is_joined_by_the_next_row(build, tmp_path, monkeypatch):
    """As a join that takes the nearest row would do it."""
    honest = table.as_of
    monkeypatch.setattr(table, "as_of", lambda t, s, closes, c: honest(t, s, closes + pd.Timedelta("1D"), c))
    subject = table_run(build, tmp_path)
    monkeypatch.setattr(table, "as_of", honest)
    findings = found(subject)["weather"]
    assert {f.feature for f in findings} >= {"weather.rain"} and {f.cause for f in findings} == {"stored"}
    assert all(f.time >= subject.samples["timestamp"].min() for f in findings)


# -- channels ----------------------------------------------------------------------------------------------------------


def returns(run):
    return np.log(run["close"].to_numpy() / run["open"].to_numpy())


def channel(monkeypatch, build, function, look_back, columns=("open", "close")):
    """Audit of a run with one more channel, registered as the how-to page says."""
    monkeypatch.setitem(CHANNELS, "mine", Channel(function, look_back, "technical", columns))
    return build(data={"channels": [*CHANGES["data"]["channels"], "mine"]})


def first_row(subject, symbol, look_back):
    return subject.market[symbol].index[look_back - 1]


def test_an_honest_channel_of_ones_own(monkeypatch, build):
    average = lambda run: pd.Series(returns(run)).rolling(5, min_periods=1).mean().to_numpy()  # noqa: E731
    assert not found(channel(monkeypatch, build, average, 5))


def test_a_channel_that_is_shifted_into_the_future(monkeypatch, build):
    early = lambda run: np.append(returns(run)[1:], 0.0)  # noqa: E731
    subject = channel(monkeypatch, build, early, 1)
    finding = only(found(subject), "channels")
    assert (finding.cause, finding.feature, finding.symbol) == ("future", "mine", "SYNA")
    assert finding.time == first_row(subject, "SYNA", 1)
    candles = subject.market["SYNA"]
    assert finding.stored == pytest.approx(np.log(candles["close"].iloc[1] / candles["open"].iloc[1]))
    assert finding.recomputed == 0.0


def test_a_channel_that_is_normed_by_all_candles(monkeypatch, build):
    normed = lambda run: returns(run) / returns(run).std() if len(run) > 1 else returns(run)  # noqa: E731
    assert only(found(channel(monkeypatch, build, normed, 1)), "channels").cause == "future"


def test_a_channel_that_reads_the_label_column_of_a_file(monkeypatch, build):
    tells = lambda run: returns(run) + 1e-3 * run["trigger"].fillna(0.0).to_numpy()  # noqa: E731
    subject = channel(monkeypatch, build, tells, 1)
    finding = only(found(subject), "channels")
    assert (finding.cause, finding.feature) == ("label", "mine")
    assert finding.time == first_row(subject, "SYNA", 1)
    assert abs(finding.stored - finding.recomputed) == pytest.approx(1e-3, rel=1e-3)


def test_a_channel_that_is_a_label_column(monkeypatch, build):
    findings = found(channel(monkeypatch, build, lambda run: run["max_pct"].fillna(0.0).to_numpy(), 1))
    assert set(findings) == {"channels", "single inputs"}
    assert [f.cause for f in findings["channels"]] == ["label"]
    assert [(f.feature, f.cause) for f in findings["single inputs"]] == [("mine", "suspicious")]
    assert "it is max_pct" in findings["single inputs"][0].detail


def test_a_channel_with_a_look_back_that_is_too_short(monkeypatch, build):
    average = lambda run: pd.Series(returns(run)).rolling(5, min_periods=1).mean().to_numpy()  # noqa: E731
    subject = channel(monkeypatch, build, average, 4)
    finding = only(found(subject), "channels")
    assert (finding.cause, finding.feature) == ("look_back", "mine")
    assert "more earlier candles than the 4 declared" in finding.detail
    assert finding.time > first_row(subject, "SYNA", 4)  # at the first complete row there are no more than four candles


def test_a_channel_that_depends_on_the_price_level(monkeypatch, build):
    finding = only(found(channel(monkeypatch, build, lambda run: run["close"].to_numpy(), 1)), "channels")
    assert (finding.cause, finding.feature) == ("look_back", "mine")


def test_an_array_that_other_code_made(monkeypatch, build):
    original = ohlcv.compute_channels
    monkeypatch.setattr(ohlcv, "compute_channels", lambda *args: np.roll(original(*args), -1, axis=0))
    findings = found(build())
    assert {f.cause for f in findings["channels"]} == {"stored"}
    assert [f.feature for f in findings["channels"]] == CHANGES["data"]["channels"]


def test_a_label_among_the_features(monkeypatch, build):
    original = ohlcv.compute_channels

    def leaky(candles, names, bar, dtype):
        known = compute_labels(candles, load_config(changes={"labels": {"horizon": 4}}).labels, bar)
        return np.column_stack([original(candles, names, bar)[:, :-1], known["max_pct"].fillna(0)]).astype(dtype)

    monkeypatch.setattr(ohlcv, "compute_channels", leaky)
    findings = found(build())
    assert {(f.feature, f.cause) for f in findings["channels"]} == {("roc", "stored")}
    assert [f.feature for f in findings["single inputs"]] == ["roc"]


# -- windows -----------------------------------------------------------------------------------------------------------


def topology(monkeypatch, build, ends, longer):
    """Audit of a run whose topology is of other windows."""
    original = features.cached

    def leaky(symbol, candles, rows, config, progress):
        section = config.tda.model_copy(update={"window_size": config.tda.window_size + longer})
        last = np.minimum(rows + 1 + ends, len(candles))

        def windows(sliding):
            if sliding.kind != "tda":
                return original(symbol, candles, rows, config, progress)(sliding)
            cut = np.array([sliding.series[end - section.window_size : end] for end in last])
            return tda_features(cut, section)

        return windows

    monkeypatch.setattr(features, "cached", leaky)
    return build()


@pytest.mark.parametrize(
    ("ends", "longer", "cause", "window"),
    [
        (0, 1, "window", "73 candles that ends at the row"),
        (1, 1, "future", "73 candles that ends 1 candle after the row"),
        (1, 0, "future", "72 candles that ends 1 candle after the row"),
        (-1, 0, "window", "72 candles that ends 1 candle before the row"),
    ],
)
def test_a_topology_window_too_long_or_shifted(monkeypatch, build, ends, longer, cause, window):
    subject = topology(monkeypatch, build, ends, longer)
    finding = only(found(subject), "topology")
    assert finding.cause == cause and window in finding.detail
    assert finding.feature.startswith("h0") and finding.symbol == "SYNA"
    assert finding.time == subject.samples["timestamp"].iloc[0]


def test_a_cache_that_is_trusted_and_wrong(build, tmp_path):
    """A file without a record holds the windows of the next candle."""
    clean = build(tmp_path)
    for folder in tmp_path.glob("tda_features_*"):
        rows = np.concatenate([np.fromfile(path, "<f4") for path in sorted(folder.glob("*.f32"))])
        rows = rows.reshape(-1, clean.config.tda.feature_dim)
        np.save(folder.with_name(f"{folder.name.rpartition('_')[0]}.npy"), np.roll(rows, -1, axis=0))
        shutil.rmtree(folder)
    findings = found(build(tmp_path, cache={"trust": True}))
    finding = only(findings, "topology")
    assert finding.cause == "future" and "1 candle after" in finding.detail


def test_an_indicator_that_reads_other_windows(monkeypatch, build, tmp_path):
    def spreads(returns, config):
        size = returns.std(axis=1)
        return size / size.mean() if len(size) > 1 else size / size

    monkeypatch.setitem(INDICATORS, "mine", Indicator(spreads, 0.0, 100.0, regular=0.0))
    findings = found(build(tmp_path, complexity={"indicators": ["lempel_ziv", "mine"]}))
    finding = only(findings, "complexity")
    assert (finding.cause, finding.feature) == ("batch", "mine")


def test_ranges_of_the_next_candle(monkeypatch, build):
    original = complexity_view.log_ranges
    with monkeypatch.context() as leak:
        leak.setattr(complexity_view, "log_ranges", lambda *args: np.roll(original(*args), -1, axis=0))
        subject = build()
    findings = found(subject)["complexity"]
    assert [(f.feature, f.cause) for f in findings] == [("log_range_1", "future"), ("log_range_24", "future")]


# -- labels, samples, split, scalers -----------------------------------------------------------------------------------


def test_labels_of_another_horizon(monkeypatch, build):
    original = data.compute_labels

    def longer(candles, labels, bar):
        return original(candles, labels.model_copy(update={"horizon": labels.horizon + 1}), bar)

    monkeypatch.setattr(data, "compute_labels", longer)
    findings = found(build())
    assert {"max_pct", "label_end"} <= {f.feature for f in findings["labels"]}
    end = next(f for f in findings["labels"] if f.feature == "label_end")
    assert end.stored - end.recomputed == pd.Timedelta("1h") and end.symbol == "SYNA"


def test_a_label_that_ends_later_than_it_says(monkeypatch, build):
    original = data.compute_labels

    def longer(candles, labels, bar):
        known = original(candles, labels, bar)
        return known.assign(max_pct=known["max_pct"].shift(-1).where(known["max_pct"].notna()).ffill())

    monkeypatch.setattr(data, "compute_labels", longer)
    assert [f.feature for f in found(build())["labels"]] == ["max_pct"]


def test_samples_that_stand_for_the_next_candle(clean):
    shifted = clean.samples.assign(row=clean.samples["row"] + 1)
    (finding,) = checked("samples", replace(clean, samples=shifted)).findings
    assert finding.feature == "row" and finding.time == clean.samples["timestamp"].min()


def test_samples_that_are_not_those_of_the_candles(clean):
    kept = np.flatnonzero(np.arange(len(clean.samples)) % 5 != 2)
    doubled = np.append(np.arange(len(clean.samples)), [3, 7])
    moved = clean.samples["timestamp"].where(clean.samples.index != 4, clean.market["SYNA"].index[0])
    for samples, row, words in (
        (clean.samples.iloc[kept], 2, ("not there", "there")),
        (clean.samples.iloc[doubled], 3, ("twice", "once")),
        (clean.samples.assign(timestamp=moved), 4, ("not there", "there")),
        (clean.samples[clean.samples["symbol"] == "SYNA"], None, ("not there", "there")),
    ):
        findings = checked("samples", replace(clean, samples=samples.reset_index(drop=True))).findings
        finding = next(f for f in findings if f.feature == "samples")
        row = (clean.samples["symbol"] == "SYNB").idxmax() if row is None else row
        assert (finding.stored, finding.recomputed) == words
        assert (finding.symbol, finding.time) == tuple(clean.samples.loc[row, ["symbol", "timestamp"]])


@pytest.mark.parametrize("rows", [slice(None), slice(None, None, 3)])  # a third makes the range of the channel infinite
def test_values_that_are_infinite(clean, rows):
    channels, tda = np.array(clean.channels), np.array(clean.numbers["tda"])
    channels[rows, 5] = np.inf
    tda[rows, 0] = -np.inf
    spoilt = replace(clean, numbers=clean.numbers | {"nbeats": channels, "tda": tda}, rows=50)
    assert [f.feature for f in checked("channels", spoilt).findings] == ["roc"]
    assert checked("topology", spoilt).findings
    checked("single inputs", spoilt)


def test_candles_that_were_altered(clean):
    market = {symbol: candles.copy() for symbol, candles in clean.market.items()}
    market["SYNA"].iloc[5, 0] += 0.01
    (finding,) = checked("candles", replace(clean, market=market)).findings
    assert finding.feature == "candles"


def without_purge(close, label_end, input_start, spans, assign=samples_module.assign_parts):
    return assign(close, close.where(label_end.notna()), input_start, spans)


@pytest.mark.parametrize("stride", [2, 3])  # 3: no label reaches past the first row of the next part
def test_a_split_without_purge(monkeypatch, build, stride):
    monkeypatch.setattr(samples_module, "assign_parts", without_purge)
    subject = build(data={"stride": stride})
    findings = found(subject)
    assert list(findings) == ["split"]
    assert [(f.feature, f.cause) for f in findings["split"]] == [
        ("part train", "border"),
        ("part stop", "border"),
        ("part calibrate", "border"),
    ]
    train = subject.samples[subject.samples["part"] == "train"]
    late = train[train["label_end"] > split_spans(subject.market, subject.config.data)[0].end]
    assert findings["split"][0].time == late["timestamp"].min()


COMBINATORIAL = {"split": "combinatorial", "folds": 4, "test_groups": 1, "fold": 1}


def test_a_fold_whose_training_follows_the_test(build):
    assert not found(build(data=COMBINATORIAL))


def test_a_split_without_embargo(monkeypatch, build):
    assign = samples_module.assign_parts
    monkeypatch.setattr(
        samples_module, "assign_parts", lambda close, label_end, _, spans: assign(close, label_end, close, spans)
    )
    findings = found(build(data=COMBINATORIAL))["split"]
    assert {f.cause for f in findings} == {"embargo"}


def test_a_split_by_lot(monkeypatch, build):
    assign = samples_module.assign_parts

    def by_lot(*args):
        parts = assign(*args)
        return np.random.default_rng(0).permutation(parts)

    monkeypatch.setattr(samples_module, "assign_parts", by_lot)
    assert "overlap" in {f.cause for f in found(build())["split"]}


@pytest.mark.parametrize("name", ["purged", "embargo", "outside", "unlabelled", "bad days"])
def test_test_rows_that_were_dropped_for_their_outcome(clean, name):
    samples = clean.samples.copy()
    lost = samples.index[(samples["part"] == "test") & (samples["trigger"] == 0)][3:40]
    samples.loc[lost, "part"] = name
    first = samples.loc[lost].sort_values("close_time", kind="stable").iloc[0]
    findings = checked("split", replace(clean, samples=samples)).findings
    assert [(f.feature, f.cause, f.time) for f in findings] == [(f"part {name}", "selection", first["timestamp"])]


@pytest.mark.parametrize(
    ("parts", "whose"),
    [
        (["train", "stop", "calibrate", "test", "purged", "unlabelled", "embargo", "outside"], "all samples"),
        (["train", "stop"], "train and stop"),
    ],
)
def test_a_scaler_that_knows_other_rows(monkeypatch, build, parts, whose):
    fit = features.fit_scalers

    def leaky(views, arrays, samples, config):
        samples = samples.assign(part=np.where(samples["part"].isin(parts), "train", "other"))
        return fit(views, arrays, samples, config)

    monkeypatch.setattr(features, "fit_scalers", leaky)
    findings = found(build())
    assert list(findings) == ["scalers"] and {f.cause for f in findings["scalers"]} == {"scaler"}
    assert all(f"statistics of {whose}" in f.detail for f in findings["scalers"])
    assert len(findings["scalers"]) == 3


def test_an_input_that_knows_too_much(clean):
    samples = clean.samples.assign(part="test")
    rng = np.random.default_rng(0)
    values = np.array(clean.numbers["complexity"])
    for noise, names in ((0.3, ["lempel_ziv"]), (1.0, [])):  # AUC 0.99 and 0.76
        values[:, 3] = samples["trigger"].fillna(0) + noise * rng.normal(size=len(samples))
        spoilt = replace(clean, numbers=clean.numbers | {"complexity": values}, samples=samples)
        looked_at, findings, _ = checked("single inputs", spoilt)
        assert "separate events" in looked_at and "too few" not in looked_at
        assert [finding.feature for finding in findings] == names


# -- predictions, and the command --------------------------------------------------------------------------------------


@pytest.fixture
def finished(smoke, tmp_path):
    """A copy of the smoke run that may be spoilt."""
    folder = tmp_path / "run"
    shutil.copytree(smoke[0] / "run", folder, ignore=shutil.ignore_patterns("*.html", "figures", "notebooks"))
    return folder


def test_a_finished_run_is_clean(cmat, smoke):
    code, out, err = cmat("audit", smoke[0] / "run", "--rows", ROWS)
    assert code == 0, out + err
    assert "nothing found" in out and "skipped" not in out
    assert [line[:14].strip() for line in out.splitlines()[: len(NAMES)]] == NAMES


def test_predictions_of_another_model(cmat, finished):
    path = finished / "models/cross_modal_attention/best_model.pt"
    content = torch.load(path, weights_only=True)
    content["weights"] = {n: 1.02 * w if w.is_floating_point() else w for n, w in content["weights"].items()}
    torch.save(content, path)
    signed(finished)
    code, out, _ = cmat("audit", finished, "--rows", ROWS)
    assert code == 1 and "predictions: raw_probability (prediction), first at SYN" in out
    assert CAUSES["prediction"][0] in out


def test_findings_are_told_although_a_later_check_cannot_go_on(cmat, finished):
    candles = pd.read_parquet(finished / "data/candles.parquet")
    candles.loc[7, "close"] *= 1.001
    candles.to_parquet(finished / "data/candles.parquet")
    signed(finished)
    (finished / "models/cross_modal_attention/best_model.pt").write_bytes(b"nothing")
    code, out, err = cmat("audit", finished, "--rows", 2)
    assert code == 1 and "candles: candles (stored)" in out and "best_model.pt" in err


@pytest.mark.parametrize("arguments", [["--seed", -1], ["--rows", 1]])
def test_numbers_out_of_range(cmat, arguments):
    code, _, err = cmat("audit", "nowhere", *arguments)
    assert code == 2 and "greater than or equal to" in err


def test_a_prediction_that_was_altered(finished):
    stored = pd.read_parquet(finished / "predictions.parquet")
    row = int(stored[stored["symbol"] == "SYNB"]["timestamp"].idxmax())
    stored.loc[row, "raw_probability"] += 0.01
    stored.to_parquet(finished / "predictions.parquet")
    signed(finished)
    findings = checked("predictions", open_subject(str(finished), ROWS)).findings
    assert [f.feature for f in findings] == ["raw_probability", "probability"]
    assert {(f.symbol, f.time) for f in findings} == {("SYNB", stored["timestamp"].iloc[row])}


def test_probabilities_that_are_none(finished):
    path = finished / "predictions.parquet"
    pd.read_parquet(path).assign(probability=np.nan).to_parquet(path)
    signed(finished)
    assert [f.feature for f in checked("predictions", open_subject(str(finished), ROWS)).findings] == ["probability"]


def test_predictions_of_other_rows_or_labels(finished):
    """What was predicted is what the samples of the four parts say, each once."""
    stored = pd.read_parquet(finished / "predictions.parquet")
    subject, place = open_subject(str(finished), 2), stored.index == 30
    where = tuple(stored.loc[30, ["symbol", "timestamp"]])
    foreign = pd.concat([stored, stored[place].assign(timestamp=subject.market["SYNA"].index[0])])
    for frame, feature, first in (
        (stored[~place], "rows", where),
        (pd.concat([stored, stored[place]]), "rows", where),
        (foreign, "rows", ("SYNA", subject.market["SYNA"].index[0])),
        (pd.concat([stored, stored[place].assign(symbol="X")]), "rows", ("X", where[1])),
        (stored.assign(trigger=stored["trigger"].where(~place, 1 - stored["trigger"])), "trigger", where),
        (stored.assign(max_pct=stored["max_pct"] + place), "max_pct", where),
        (stored.assign(part=stored["part"].where(~place, "test")), "part", where),
    ):
        frame.to_parquet(finished / "predictions.parquet")
        signed(finished)
        (finding,) = checked("predictions", subject).findings
        assert (finding.cause, finding.feature, (finding.symbol, finding.time)) == ("stored", feature, first)


@pytest.mark.parametrize("key", ["center", "scale"])
def test_scalers_that_are_none(clean, monkeypatch, key):
    stored = clean.run.read_json("data/scalers.json")
    empty = {group: values | {key: [None] * len(values[key])} for group, values in stored.items()}
    monkeypatch.setattr(Run, "read_json", lambda run, name: empty)
    assert len(checked("scalers", clean).findings) == 3


def test_the_scalers_of_the_model(finished):
    path = finished / "models/cross_modal_attention/best_model.pt"
    content = torch.load(path, weights_only=True)
    content["scalers"]["complexity"]["center"][1] += 0.5
    torch.save(content, path)
    signed(finished)
    (finding,) = checked("scalers", open_subject(str(finished), ROWS)).findings
    assert finding.feature == "sample_entropy" and "best_model.pt: 1 of 8" in finding.detail


def test_the_command_names_feature_row_meaning_and_mend(cmat, monkeypatch, build):
    early = lambda run: np.append(returns(run)[1:], 0.0)  # noqa: E731
    subject = channel(monkeypatch, build, early, 1)
    code, out, _ = cmat("audit", subject.run.folder, "--rows", ROWS)
    assert code == 1
    assert f"channels: mine (future), first at SYNA {subject.market['SYNA'].index[0]:%Y-%m-%d %H:%M}" in out
    assert "What to do: Make the function read its own row and earlier ones only" in out


@pytest.mark.parametrize(("stage", "message"), [(None, "no run here"), ("02_tda_cache", "stage 02_tda_cache is not")])
def test_runs_that_cannot_be_looked_at(cmat, build, tmp_path, stage, message):
    folder = tmp_path
    if stage is not None:
        folder = build().run.folder
        (folder / f"stages/{stage}.json").unlink()
    code, _, err = cmat("audit", folder)
    assert code == 1 and message in err


DAMAGES = {
    "data/candles.parquet": lambda path: pd.read_parquet(path).assign(close=1.0).to_parquet(path),
    "data/labels.parquet": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "data/samples.parquet": lambda path: path.unlink(),
    "data/tda.npy": lambda path: np.save(path, np.load(path)[:-3]),
    "data/data.json": lambda path: path.write_text("{}"),
    "data/scalers.json": lambda path: path.write_text(path.read_text().replace("1", "2")),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_files_that_the_run_has_not_written_are_named(clean, tmp_path, name):
    shutil.copytree(clean.run.folder, tmp_path / "run")
    DAMAGES[name](tmp_path / "run" / name)
    with pytest.raises(CmatError, match=rf"{name} is missing, damaged or edited; run notebooks/0[12]_"):
        audit_foreign(tmp_path / "run", "candles", "scalers")


@pytest.mark.parametrize("name", ["training_results.json", "best_model.pt", "predictions.parquet"])
def test_results_that_the_run_has_not_written_are_named(finished, name):
    (path,) = finished.rglob(name)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(CmatError, match=rf"{name} is missing, damaged or edited; run notebooks/0[45]_"):
        audit_foreign(finished, "predictions")


def audit_foreign(folder, *names):
    subject = open_subject(str(folder), 2)
    return [checked(name, subject) for name in names]
