"""Whatever a file holds, the outcome is a result or a CmatError: no other error, no hang, nothing half written.

Each strategy damages something valid or makes up something that looks like it. 300 cases are tried on every commit
(the same ones), 10,000 others in the long run.
"""

import io
import json
import logging
import tempfile
import warnings
import zipfile
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slim import model_content, slim

from cmat_lib.base.errors import CmatError
from cmat_lib.commands.sweep.file import read_sweep
from cmat_lib.config import Config, load_config, project_root
from cmat_lib.config.inputs import TableConfig
from cmat_lib.config.load import ALIASES
from cmat_lib.config.schema import SECTIONS
from cmat_lib.data.cache import Sliding, cache_info, cached_features, clean, verify
from cmat_lib.data.candles import audit, load_market, read_market
from cmat_lib.data.sources.exchange import DownloadFile
from cmat_lib.models import build_model
from cmat_lib.training.checkpoint import FORMAT_VERSION, load_model, save_checkpoint
from cmat_lib.workflow.follow import CsvOutput

LIMIT = timedelta(seconds=60)  # of one case, far above what any needs on a busy machine
CASES = pytest.mark.parametrize("cases", [50, pytest.param(1700, marks=pytest.mark.long)], ids=["quick", "long"])


def fuzz(cases, strategy, check):
    """Try `check(folder, case)` on so many cases; a CmatError is a good answer, any other error is not."""

    @settings(
        max_examples=cases,
        deadline=LIMIT,
        derandomize=cases < 100,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(case):
        logging.disable()  # what is damaged is named a thousand times
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd but usable is told by warnings
            try:
                check(Path(folder), case)
            except CmatError as error:
                assert str(error)
            assert not [p for p in Path(folder).rglob(".*") if p.suffix != ".lock"], "a temporary file was left behind"

    one()


# -- strategies --------------------------------------------------------------------------------------------------------


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """The content cut, with bytes changed, put in, or a part twice."""
    place = st.integers(0, len(content))

    def change(start, length, new, how):
        stop = min(start + length, len(content))
        middle = {"replace": new, "cut": b"", "twice": content[start:stop] * 2, "end": b""}[how]
        return content[:start] + middle + (b"" if how == "end" else content[stop:])

    how = st.sampled_from(["replace", "replace", "cut", "twice", "end"])
    return st.builds(change, place, st.integers(0, 40), st.binary(max_size=12), how)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=8),
    st.dates(),
    st.sampled_from(["", "nan", "1e999", "../../x", "2025-13-45", "0x10", "\x00", "1,5", "yes", "~"]),
)
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@lru_cache
def candles() -> pd.DataFrame:
    times = pd.date_range("2024-01-01", periods=60, freq="15min", tz="UTC")
    close = 100 + np.arange(60) % 7 / 4
    return pd.DataFrame(
        {"timestamp": times, "open": close, "high": close + 1, "low": close - 1, "close": close, "volume": 5.0}
    )


@lru_cache
def candle_files() -> dict[str, bytes]:
    frame, stem = candles(), "AAA-15m"
    csv = frame.to_csv(index=False).encode()
    files = {"AAA.csv": csv, "AAA.parquet": frame.to_parquet(), "AAA.feather": b"", f"{stem}.json": b"", "AAA.zip": b""}
    buffer = io.BytesIO()
    frame.to_feather(buffer)
    files["AAA.feather"] = buffer.getvalue()
    rows = frame.assign(timestamp=frame["timestamp"].dt.as_unit("ms").astype("int64")).to_numpy(dtype=float).tolist()
    files[f"{stem}.json"] = json.dumps(rows).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("AAA.csv", csv)
    files["AAA.zip"] = buffer.getvalue()
    wide = frame.set_index("timestamp").rename(columns=str.title)
    wide.columns = pd.MultiIndex.from_product([wide.columns, ["AAA"]], names=["Price", "Ticker"])
    files["yf.csv"] = wide.rename_axis("Date").to_csv().encode()
    trader = frame.assign(date=frame["timestamp"].dt.strftime("%Y.%m.%d"), time=frame["timestamp"].dt.strftime("%H:%M"))
    trader = trader[["date", "time", "open", "high", "low", "close", "volume"]]
    files["AAA_M15.csv"] = trader.to_csv(index=False, header=False).encode()
    odd = trader.assign(date=frame["timestamp"].dt.strftime("%d/%m/%Y"), volume="1.234,5K", symbol="000001")
    files["AAA.txt"] = odd.to_csv(index=False, sep=";", decimal=",").encode("utf-16")
    files["AAA.jsonl"] = frame.assign(symbol=["A", "B"] * 30).to_json(orient="records", lines=True).encode()
    return files


@st.composite
def files_of_candles(draw) -> tuple[str, bytes, dict]:
    """A file that is damaged or made up, and what is told about it."""
    whole = candle_files()
    name = draw(st.sampled_from(sorted(whole)))
    content = draw(damaged(whole[name])) if draw(st.integers(0, 2)) else draw(st.binary(max_size=200))
    return name, content, told(draw)


@st.composite
def frames_of_candles(draw) -> tuple[str, pd.DataFrame, dict]:
    """Candles with odd values, columns of odd types and names, and rows in odd order."""
    frame = candles().astype(object)
    for _ in range(draw(st.integers(1, 3))):
        column = draw(st.sampled_from([name for name in frame if list(frame.columns).count(name) == 1]))
        kind = draw(st.sampled_from(["value", "column", "name", "twice", "drop", "order", "rows"]))
        if kind == "value":
            values = list(frame[column])
            values[draw(st.integers(0, len(values) - 1))] = draw(ODD)
            frame[column] = pd.Series(values, index=frame.index, dtype=object)
        elif kind == "column":
            frame[column] = pd.Series([draw(ODD)] * len(frame), index=frame.index, dtype=object)
        elif kind == "name":
            frame = frame.rename(
                columns={column: draw(st.text(max_size=6) | st.sampled_from(["Date", "OPEN", "time"]))}
            )
        elif kind == "twice":
            frame[str(column).title()] = frame[column]
        elif kind == "drop":
            frame = frame.drop(columns=column)
        elif kind == "order":
            frame = frame[::-1]
        else:
            frame = frame.iloc[: draw(st.integers(0, 10))]
        if not len(frame) or len(set(frame.columns)) < len(frame.columns) or not len(frame.columns):
            break
    return draw(st.sampled_from(["AAA.csv", "AAA.parquet", "AAA-15m.json"])), frame, told(draw)


@st.composite
def parameter_texts(draw) -> str:
    """A parameter file with damaged text, or with odd values under known and unknown keys."""
    path = draw(st.sampled_from(sorted((project_root() / "params").glob("*.yaml"))))
    if draw(st.booleans()):
        return draw(damaged(path.read_bytes())).decode("latin-1")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for _ in range(draw(st.integers(1, 3))):
        section = draw(st.sampled_from([*SECTIONS, "run_dir", "seed", "search", "base"]) | st.text(max_size=5))
        keys = [*getattr(getattr(Config.model_fields.get(section), "annotation", None), "model_fields", [])]
        keys += [old for place, old in ALIASES if place == section]
        if draw(st.booleans()) and isinstance(content.get(section, {}), dict):
            value = draw(PLAIN | ODD)
            if section == "views" and draw(st.booleans()):
                key = draw(st.sampled_from(sorted(TableConfig.model_fields)))
                value = {"file": "x.csv", "columns": ["a"], "lag": "1h", key: value}
            content[section] = {**content.get(section, {}), draw(st.sampled_from(sorted(keys) or ["x"])): value}
        else:
            content[section] = draw(PLAIN)
    return yaml.safe_dump(content)


def mutated(value, draw):
    """The value with one thing in it replaced by an odd one, dropped, or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(value, key=str)))
        if draw(st.integers(0, 3)) == 0:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mutated(value[key], draw)}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], mutated(value[place], draw), *value[place + 1 :]]
    if isinstance(value, torch.Tensor) and draw(st.booleans()):
        return draw(
            st.sampled_from([value.flatten()[:0], value.to(torch.float64), value * float("nan"), value.flatten()])
        )
    return draw(PLAIN)


# -- what must hold ----------------------------------------------------------------------------------------------------


def told(draw) -> dict:
    """What a user may say about candle files, right or wrong."""
    names = st.sampled_from(["timestamp", "open", "close", "volume", "symbol", "clock", "obv"])
    theirs = st.sampled_from(["timestamp", "Open", "close", "3", "volume", "x"]) | st.text(max_size=5)
    forms = st.sampled_from(["%Y-%m-%d", "%d/%m/%Y %H:%M", "%", "%Q", "%Y-%m-%d %H:%M:%S%z"])
    options = {
        "columns": st.dictionaries(names, theirs, max_size=3),
        "time_format": forms | st.text(min_size=1, max_size=6),
        "encoding": st.sampled_from(["utf-8", "latin-1", "gb18030", "utf-16", "cp1251", "idna", "rot13", "hex"]),
        "decimal": st.sampled_from([",", "."]),
        "thousands": st.sampled_from([",", ".", " ", "'"]),
        "stamp": st.sampled_from(["open", "close"]),
        "timeframe": st.sampled_from(["15m", "1h", "1d"]),
        "sessions": st.sampled_from(["join", "continuous"]),
        "file_zone": st.sampled_from(["UTC", "Asia/Tokyo", "America/New_York"]),
    }
    keys = draw(st.lists(st.sampled_from(sorted(options)), max_size=3, unique=True))
    return {key: draw(options[key]) for key in keys}


def check_candles(folder: Path, keys: dict) -> None:
    data = load_config(changes={"data": {"data_dir": str(folder), **keys}}).data
    before = {path: path.read_bytes() for path in folder.iterdir()}
    try:
        audit(read_market(data), data.bar)
        for frame in load_market(data).values():
            assert len(frame) and frame.index.is_monotonic_increasing and frame.index.is_unique
            prices = frame[["open", "high", "low", "close", "volume"]].to_numpy()
            assert np.isfinite(prices).all() and (prices[:, :4] > 0).all()
    finally:
        assert {path: path.read_bytes() for path in folder.iterdir()} == before


def check_candle_file(folder: Path, case: tuple[str, bytes, dict]) -> None:
    (folder / case[0]).write_bytes(case[1])
    check_candles(folder, case[2])


def check_candle_frame(folder: Path, case: tuple[str, pd.DataFrame, dict]) -> None:
    name, frame, keys = case
    try:
        if name.endswith("parquet"):
            frame.to_parquet(folder / name)
        elif name.endswith("csv"):
            frame.to_csv(folder / name, index=False)
        else:
            (folder / name).write_text(json.dumps(frame.to_numpy().tolist(), default=str))
    except Exception:  # nobody can have such a file
        (folder / name).unlink(missing_ok=True)
        return
    check_candles(folder, keys)


def check_parameters(folder: Path, text: str) -> None:
    path = folder / "p.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        config = load_config(path)
        assert load_config(changes=config.model_dump(mode="json")) == config
    except CmatError:
        pass
    read_sweep(path)


def _means(series: np.ndarray, ends: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(series, 10)[ends - 9]
    return np.stack([windows.mean(axis=1), windows[:, -1]], axis=1).astype(np.float32)


def _cache(folder: Path) -> np.ndarray:
    times = pd.date_range("2024-01-01", periods=5000, freq="1h", tz="UTC")
    close, ends = np.sin(np.arange(5000.0)), np.arange(9, 5000)
    sliding = Sliding("tda", close, 10, _means, 2, {})
    return cached_features(sliding, "AAA", times, ends, ends, folder, jobs=1, progress=False)


@lru_cache
def cache_files() -> tuple[dict[str, bytes], np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        made = _cache(Path(folder))
        return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).glob("*/*")}, made


@st.composite
def cache_folders(draw) -> dict[str, bytes]:
    files = dict(cache_files()[0])
    name = draw(st.sampled_from(sorted(files)))
    kind = draw(st.sampled_from(["content", "description", "name", "place"]))
    if kind == "content":
        files[name] = draw(damaged(files[name]))
    elif kind == "description":
        (about,) = (name for name in files if name.endswith(".json"))
        files[about] = json.dumps(mutated(json.loads(files[about]), draw)).encode()
    else:
        head, _, last = name.rpartition("/")
        place, byte = draw(st.integers(0, len(last) - 1)), draw(st.sampled_from("0_59aT-x."))
        other = f"{head}/{last[:place]}{byte}{last[place + 1 :]}"
        files[other] = files.pop(name) if kind == "name" else files[draw(st.sampled_from(sorted(files)))]
    return files


def check_cache(folder: Path, files: dict[str, bytes]) -> None:
    """What is damaged is found, and the next build mends it to the same rows."""
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    verify(folder), cache_info(folder)
    np.testing.assert_array_equal(_cache(folder), cache_files()[1])
    assert verify(folder) == []
    clean(folder)


@lru_cache
def checkpoint() -> tuple[dict, bytes]:
    config = slim()
    content = model_content(config, build_model(config))
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder) / "m.pt", content)
        return content, (Path(folder) / "m.pt").read_bytes()


@st.composite
def checkpoints(draw) -> bytes | dict:
    content, raw = checkpoint()
    return draw(damaged(raw)) if draw(st.booleans()) else mutated(content, draw)


def check_checkpoint(folder: Path, case: bytes | dict) -> None:
    path = folder / "m.pt"
    if isinstance(case, bytes):
        path.write_bytes(case)
    else:
        torch.save(case if not isinstance(case, dict) else {"format_version": FORMAT_VERSION, **case}, path)
    load_model(path)


def check_outputs(folder: Path, case: tuple[bytes, bytes]) -> None:
    """Files that a command goes on with: lines of predictions, and downloads."""
    (folder / "p.csv").write_bytes(case[0])
    rows = pd.DataFrame({"symbol": ["A"], "timestamp": ["2025-01-01"], "probability": [0.5], "model": ["m"]})
    try:
        CsvOutput(folder / "p.csv", "m").append(rows)
        assert (folder / "p.csv").read_bytes().endswith(b"m\n")
    except CmatError:
        pass
    (folder / "AAA.parquet").write_bytes(case[1])
    DownloadFile.open(folder / "AAA.parquet", {"exchange": "binance", "symbol": "A/B", "timeframe": "15m"})


def kept_files() -> st.SearchStrategy[tuple[bytes, bytes]]:
    csv = b"symbol,timestamp,probability,model\nA,2025-01-01 00:00:00+00:00,0.25,m\nB,2025-01-01,0.5,m\n"
    with tempfile.TemporaryDirectory() as folder:
        file = DownloadFile(Path(folder) / "a.parquet", {"exchange": "binance", "symbol": "A/B", "timeframe": "15m"})
        file.add([[1_704_067_200_000, 1, 2, 1, 2, 3]], 1_704_067_200_000, 1_704_067_200_001)
        file.save()
        content = file.path.read_bytes()
    return st.tuples(damaged(csv), damaged(content))


FUZZED = {
    "candle bytes": (files_of_candles, check_candle_file),
    "candle frames": (frames_of_candles, check_candle_frame),
    "parameters": (parameter_texts, check_parameters),
    "cache files": (cache_folders, check_cache),
    "checkpoints": (checkpoints, check_checkpoint),
    "files that are gone on with": (kept_files, check_outputs),
}


@CASES
@pytest.mark.parametrize("what", FUZZED)
def test_a_result_or_a_documented_error(what, cases):
    strategy, check = FUZZED[what]
    fuzz(cases, strategy(), check)


def test_the_fuzzer_would_notice_another_error():
    with pytest.raises(KeyError):
        fuzz(50, st.integers(), lambda folder, case: {}[case])
    with pytest.raises(AssertionError, match="left behind"):
        fuzz(50, st.integers(), lambda folder, case: (folder / ".draft").write_text(""))
