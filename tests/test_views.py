"""A view is one record: whoever adds one adds nothing else, and nothing outside the views names one."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock
from slim import model_content, slim

from cmat_lib.base import parts
from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config, project_root
from cmat_lib.data.complexity import INDICATORS
from cmat_lib.data.synthetic import synthetic_market
from cmat_lib.encoders.plain import MaskedEncoder, MLPEncoder
from cmat_lib.evaluation.classic import CLASSIC
from cmat_lib.explain.permutation import Piece, encode_mixed
from cmat_lib.explain.shapley import ALL_ASKED, coalitions, game_of, shapley_matrix
from cmat_lib.models import build_model
from cmat_lib.models.fusion import FUSIONS
from cmat_lib.training.checkpoint import save_checkpoint
from cmat_lib.views import VIEWS, Values
from cmat_lib.views.compute import compute_views
from cmat_lib.views.registry import TAKEN, Asked, Registry
from cmat_lib.workflow.predictor import Predictor
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.stages.features import cached

PART = Path(__file__).parent / "parts/momentum.py"
SMOKE = project_root() / "params/smoke.yaml"
SEEN = ["nbeats", "tda", "complexity", "clock", "momentum", "weather"]

# Where a name stands that is not (only) that of a view, and why.
ALLOWED = {
    # the source's own three
    ("config/schema.py", "nbeats"), ("config/schema.py", "tda"), ("config/schema.py", "complexity"),
    ("config/load.py", "tda"),  # the section of old names
    ("encoders/plain.py", "nbeats"),  # an encoder
    ("workflow/stages/data.py", "market"), ("data/sources/files.py", "clock"), ("data/sources/makers.py", "clock"),
    ("data/sources/tables.py", "clock"), ("data/sources/text.py", "clock"), ("data/sources/times.py", "clock"),
}  # fmt: skip


def test_nothing_outside_the_views_names_one():
    library, found = project_root() / "cmat_lib", set()
    for path in library.rglob("*.py"):
        place = path.relative_to(library).as_posix()
        if place.startswith("views/"):
            continue
        texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        found |= {(place, name) for name in VIEWS.views if name in texts}
    assert found == ALLOWED


def weather(folder):
    """A table of one number a day; the last weeks are missing for one symbol."""
    folder.mkdir(exist_ok=True)
    days = pd.date_range("2023-12-20", "2024-03-31", freq="D")
    rng = np.random.default_rng(0)
    frames = [pd.DataFrame({"day": days, "symbol": s, "rain": rng.gamma(2, size=len(days))}) for s in ("SYNA", "SYNB")]
    pd.concat([frames[0], frames[1][:-20]]).to_csv(folder / "weather.csv", index=False)
    table = {"file": str(folder / "weather.csv"), "columns": ["rain"], "zone": "UTC", "lag": "1d", "stale": "3d"}
    return {"views": {"weather": table}}


def command(*arguments, code=0, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "cmat_lib", *map(str, arguments)],
        capture_output=True, text=True, cwd=project_root(), env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def own_run(tmp_path_factory):
    """Six pages with a view of one file and a view of one table; the first test process makes them."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "own_views"
    folder.mkdir(exist_ok=True)
    params = folder / "params.yaml"
    with FileLock(folder / "lock"):
        if not (folder / "run/report/index.html").is_file():
            content = yaml.safe_load(SMOKE.read_text()) | weather(folder)
            content["model"]["modalities"] = SEEN
            content |= {"cache": {"dir": str(folder / "cache"), "jobs": 1}}
            params.write_text(yaml.safe_dump(content | {"run_dir": str(folder / "run")}))
            command("run", params, "--parts", PART)
    return folder


def test_six_pages_show_the_new_views(own_run):
    assert (own_run / "run/report/index.html").is_file()
    evidence = json.loads((own_run / "run/attribution.json").read_text())
    assert {row["modality"] for row in evidence["shapley"]} == set(SEEN)
    assert {row["name"] for row in evidence["importance"] if row["kind"] == "momentum"} == {
        "return_of_1", "return_of_3", "return_of_12",
    }  # fmt: skip
    assert abs(evidence["efficiency"][0]["largest_gap"]) < 1e-4
    assert set(json.loads((own_run / "run/model_spec.json").read_text())["tokens"]) == set(SEEN)
    assert [file for file, _ in json.loads((own_run / "run/environment.json").read_text())["parts"]] == ["momentum.py"]


def test_ablation_with_and_without_them(own_run):
    rows = "full,nbeats+tda+complexity,nbeats+tda+complexity+momentum,trees"
    said = command("--parts", PART, "ablate", own_run / "params.yaml", "--rows", rows, "--seeds", 1)
    table = pd.read_parquet(own_run / "run/ablation/table.parquet")
    assert set(rows.split(",")) <= set(table.index.get_level_values("row")), said


def test_audit_has_nothing_to_say_of_them(own_run):
    said = command("audit", own_run / "run", "--rows", 10, "--parts", PART)
    for check in ("momentum", "weather", "tables", "predictions"):
        assert any(line.split()[:2] == [check, "ok"] for line in said.splitlines()), said


def test_audit_sees_a_view_that_knows_the_future(own_run, tmp_path):
    text = PART.read_text().replace(
        "close[asked.rows] - close", "close[np.minimum(asked.rows + 1, len(close) - 1)] - close"
    )
    changed = tmp_path / "momentum.py"
    changed.write_text(text)
    run = tmp_path / "run"
    changes = ["--set", f"run_dir={run}", "--set", "training.epochs=1", "--set", "training.early_stopping_patience=1"]
    command("train", "--params", own_run / "params.yaml", *changes, "--run-dir", run, "--parts", changed)
    said = command("audit", run, "--rows", 10, "--parts", changed, code=1)
    assert "momentum: return_of_1 (future)" in said, said


def test_predict_needs_the_part_and_fresh_rows(own_run, tmp_path):
    scored = tmp_path / "scores.csv"
    assert "no view 'momentum'" in command("predict", "--run", own_run / "run", code=1)
    said = command("predict", "--run", own_run / "run", "--output", scored, "--parts", PART, code=1)
    assert "views.weather" in said and "more than stale 3d" in said and "SYNB" in said
    command("predict", "--run", own_run / "run", "--symbols", "SYNA", "--output", scored, "--parts", PART)
    assert pd.read_csv(scored)["symbol"].unique() == ["SYNA"]


def test_export_takes_every_view(own_run, tmp_path):
    command("export", "--run", own_run / "run", "--output", tmp_path / "model.pt2", "--parts", PART)
    program = torch.export.load(tmp_path / "model.pt2", extra_files=(about := {"cmat.json": ""}))
    shapes = json.loads(about["cmat.json"])["inputs"]
    inputs = {name: torch.rand(5, *shape) for name, shape in shapes.items()}
    inputs["weather"][1] = torch.nan  # nothing to show: a mask token
    logits, rise = program.module()(inputs)
    assert logits.shape == rise.shape == (5, 1) and torch.isfinite(logits).all()


def test_a_changed_part_makes_the_stages_stale_that_use_it(own_run, tmp_path):
    other = tmp_path / "momentum.py"
    code = (
        "import sys; from cmat_lib.base.parts import use_parts; use_parts(sys.argv[1]);"
        "from cmat_lib.config import load_config; from cmat_lib.workflow.run import Run, STAGE_NAMES;"
        "run = Run(load_config(sys.argv[2]), STAGE_NAMES[0]);"
        "print(*[run.fingerprint(stage)[:12] for stage in STAGE_NAMES])"
    )

    def prints(part):
        done = subprocess.run(
            [sys.executable, "-c", code, part, own_run / "params.yaml"], capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    other.write_text(PART.read_text())
    before = prints(other)
    other.write_text(PART.read_text() + "\n# changed\n")
    assert [a == b for a, b in zip(before, prints(other), strict=True)] == [True] + [False] * 5


def test_a_table_by_parameters_alone(tmp_path, cmat):
    """One file of parameters: trained, scored, and named in the checkpoint."""
    content = weather(tmp_path)
    content["views"]["weather"] |= {"encoder": "gru", "rows": 5}
    content["model"] = {"modalities": ["complexity", "weather"]}
    content |= {"run_dir": str(tmp_path / "run"), "cache": {"dir": str(tmp_path / "cache"), "jobs": 1}}
    params = tmp_path / "params.yaml"
    merged = yaml.safe_load(SMOKE.read_text())
    merged["model"] |= content.pop("model")
    params.write_text(yaml.safe_dump(merged | content))
    code, out, err = cmat("train", "--params", params, "--run-dir", tmp_path / "run")
    assert code == 0, out + err
    stored = torch.load(tmp_path / "run/models/cross_modal_attention/best_model.pt", weights_only=True)
    assert stored["views"]["weather"] == ["weather.rain", "weather.rain_change", "weather.rain_zscore", "weather.gap"]
    samples = pd.read_parquet(tmp_path / "run/data/samples.parquet").groupby("symbol")["row_weather"].last()
    newest = np.load(tmp_path / "run/data/weather.npy")[samples[["SYNA", "SYNB"]]]
    assert np.isfinite(newest[0]).all() and np.isnan(newest[1]).all()  # SYNB's table ends too early


def test_where_a_view_shows_nothing_a_mask_token_stands():
    torch.manual_seed(0)
    encoder = MaskedEncoder(MLPEncoder(3, 4)).eval()
    numbers = torch.rand(4, 3)
    numbers[1, 2] = torch.nan
    encoded = encoder(numbers)
    torch.testing.assert_close(encoded[1], encoder.absent)
    torch.testing.assert_close(encoded[[0, 2, 3]], encoder.encoder(numbers[[0, 2, 3]]))
    encoded.sum().backward()
    assert encoder.absent.grad.eq(1).all() and all(torch.isfinite(p.grad).all() for p in encoder.parameters())


@pytest.mark.parametrize(
    ("modalities", "says"),
    [
        (["nbeats", "tdaa"], "there is no view 'tdaa'; did you mean 'tda'?"),
        (["clock"], "lists clock alone, which says nothing of the market"),
        (["nbeats", "market"], "complexity.ranges"),
    ],
)
def test_impossible_views_are_told(modalities, says):
    with pytest.raises(CmatError, match=says.replace("?", r"\?")):
        VIEWS.check(load_config(None, {"model": {"modalities": modalities}}))


def test_the_order_of_views_is_that_of_the_registry():
    given = [load_config(None, {"model": {"modalities": names}}) for names in (["tda", "nbeats"], ["nbeats", "tda"])]
    assert [[view.name for view in VIEWS.seen(config)] for config in given] == [["nbeats", "tda"]] * 2


def test_names_are_taken_once():
    registry = Registry(dict(VIEWS.views), VIEWS.of_table)
    with pytest.raises(CmatError, match="there is a view 'tda' already"):
        registry.add(VIEWS.views["tda"].__class__(**{**vars(VIEWS.views["clock"]), "name": "tda"}))
    table = {"file": "a.csv", "columns": ["a"], "lag": "0h"}
    with pytest.raises(CmatError, match=r"views\.market: 'market' is the name of another view"):
        registry.known(load_config(None, {"views": {"market": table}}))


@pytest.mark.parametrize("name", ["full", "gated", "volatility", "values", "half"])
def test_names_that_mean_something_else(tmp_path, name):
    table = weather(tmp_path)["views"]["weather"]
    config = load_config(None, {"views": {name: table}, "model": {"modalities": ["nbeats", name]}})
    with pytest.raises(CmatError, match=f"a view cannot be named '{name}'"):
        VIEWS.check(config)


def test_names_of_rows_are_taken():
    assert {*FUSIONS, *(name for name in CLASSIC if "+" not in name)} <= TAKEN


def untrained(folder, symbols):
    """A predictor of a model of the views complexity and market that nobody has trained, and its candles."""
    changes = {"complexity": {"ranges": [1, 4], "window_size": 48}, "tda": {"window_size": 48, "time_delay": 6}}
    changes |= {"model": {"modalities": ["complexity", "market"]}, "data": {"symbols": symbols}}
    config = load_config(base=slim().model_dump(mode="json"), changes=changes)
    torch.manual_seed(0)
    content = model_content(config, build_model(config)) | {"symbols": ["SYNA", "SYNB", "SYNC"]}
    save_checkpoint(folder / "best_model.pt", content)
    market = synthetic_market(symbols=3, days=30, timeframe="1h", horizon=4, seed=0)
    return Predictor(folder / "best_model.pt", "cpu"), market


def test_the_leader_is_that_of_the_training(tmp_path):
    assert untrained(tmp_path, ["SYNC", "SYNA", "SYNB"])[0].config.data.symbols[0] == "SYNC"
    assert untrained(tmp_path, None)[0].config.data.symbols[0] == "SYNA"


def test_others_are_read_whole_and_all(tmp_path):
    """A score does not depend on which symbols are scored with it, nor on how far each file reaches."""
    predictor, market = untrained(tmp_path, None)
    market["SYNB"] = market["SYNB"].iloc[:600]
    first = market["SYNA"].index[-200]
    alone = predictor.scores(market, first, symbols=["SYNA"])
    among = predictor.scores(market, {"SYNA": first, "SYNB": market["SYNB"].index[-1], "SYNC": first})
    among = among[among["symbol"] == "SYNA"].reset_index(drop=True)
    np.testing.assert_allclose(alone["raw_probability"], among["raw_probability"], atol=1e-12)
    assert predictor.data("folder", ["SYNA"]).symbols == ["SYNA", "SYNB", "SYNC"]
    with pytest.raises(CmatError, match="reads the candle of SYNB that opens at"):
        predictor.refuse_stale(market, ["SYNA"])


def test_a_permuted_part_masks_nothing():
    torch.manual_seed(0)
    encoder = MaskedEncoder(MLPEncoder(2, 3)).eval()
    model = SimpleNamespace(encoders={"weather": encoder})
    own, donor = torch.rand(1, 2), torch.full((1, 2), torch.nan)
    part, whole = Piece("weather", "a", "weather", 0), Piece("modality", "weather", "weather", slice(None))
    given = {"weather": own}, {"weather": donor}
    torch.testing.assert_close(encode_mixed(model, *given, part), encoder(own))
    torch.testing.assert_close(encode_mixed(model, *given, whole)[0], encoder.absent)


def test_a_view_must_give_what_its_record_says():
    view = VIEWS.views["clock"]
    wrong = replace(view, compute=lambda asked: Values(np.zeros((len(asked.rows), 3), np.float32)))
    market = synthetic_market(symbols=1, days=30, timeframe="1h", horizon=4, seed=0)
    with pytest.raises(CmatError, match=r"the view 'clock' gives values of shape \(5, 3\) for 5 samples"):
        compute_views([wrong], market, {"SYNA": np.arange(5)}, load_config(SMOKE), lambda symbol: None)


def test_market_and_flow_are_refused_with_a_word():
    ranges = {"complexity": {"ranges": [1, 4]}}
    market = {"SYNA": synthetic_market(symbols=1, days=30, timeframe="1h", horizon=4, seed=0)["SYNA"]}
    for name, says in (("market", "at least two symbols"), ("flow", "no trades and no taker_buy_volume")):
        config = load_config(None, {**ranges, "model": {"modalities": ["nbeats", name]}})
        (view,) = (view for view in VIEWS.active(config) if view.name == name)
        with pytest.raises(CmatError, match=says):
            view.admit(market, config)


@pytest.mark.parametrize("count", [ALL_ASKED, ALL_ASKED + 1, ALL_ASKED + 3])
def test_shapley_values_of_many_views(count):
    rng = np.random.default_rng(count)
    weights, game = rng.normal(size=count), game_of(count)

    def worth(members):
        return np.exp(0.2 * members @ weights)[None]

    values = (worth(game.members) @ game.values.T)[0]
    exact = shapley_matrix(count) @ worth(coalitions(count))[0]
    error = game.sampling_error(worth(game.members))
    assert values.sum() == pytest.approx(worth(game.members)[0, -1] - worth(game.members)[0, 0])
    assert (error == 0).all() == (count <= ALL_ASKED)
    np.testing.assert_allclose(values, exact, atol=1e-12 + 5 * error.max())


def test_every_fusion_takes_any_views(monkeypatch):
    monkeypatch.setattr(VIEWS, "views", dict(VIEWS.views))
    ranges = {"complexity": {"ranges": [1, 4]}}
    for fusion in ("cross_modal_attention", "bottleneck", "gated", "concat"):
        model = {"modalities": ["market", "complexity", "flow"], "auxiliary_head": True}
        config = load_config(None, {**ranges, "fusion": {"fusion_type": fusion}, "model": model})
        network = build_model(config).eval()
        inputs = {view.name: torch.rand(3, *view.shape(config)) for view in VIEWS.active(config)}
        inputs["market"][0] = torch.nan
        answers = network.answers(inputs)
        assert torch.isfinite(answers.trigger_logits).all()
        assert list(network.fusion.parts) == ["complexity", "market", "flow"]


def test_the_run_asks_the_registry(tmp_path):
    """What changes the numbers of a view changes the fingerprint of stage 02; page 01 shows which views there are."""
    content = weather(tmp_path)
    plain = load_config(SMOKE)
    seen = {"model": {"modalities": ["nbeats", "weather"]}}
    with_table = load_config(SMOKE, {**content, **seen})
    content["views"]["weather"]["lag"] = "2d"
    later = load_config(SMOKE, {**content, **seen})
    prints = [
        [Run(c, "01_data_prep").fingerprint(s) for s in ("01_data_prep", "02_tda_cache")]
        for c in (plain, with_table, later)
    ]
    assert prints[0][0] != prints[1][0] == prints[2][0] and len({second for _, second in prints}) == 3
    (tmp_path / "weather.csv").write_text((tmp_path / "weather.csv").read_text().replace("SYNB", "SYNC"))
    assert Run(later, "02_tda_cache").fingerprint() != prints[2][1]


def test_a_changed_indicator_is_not_read_from_the_cache(tmp_path, monkeypatch):
    """An indicator of one's own counts by its code, in the cache too."""
    monkeypatch.setattr(parts, "_loaded", {})
    monkeypatch.setenv(parts.VARIABLE, "")
    monkeypatch.setitem(INDICATORS, "share", None)
    found = []
    for value in (0.25, 0.75):
        path = tmp_path / f"{value}" / "mine.py"
        path.parent.mkdir()
        path.write_text(
            "import numpy as np\nfrom cmat_lib.data.complexity import INDICATORS, Indicator\n"
            f"def share(returns, config):\n    return np.full(len(returns), {value})\n"
            "INDICATORS['share'] = Indicator(share, 0.0, 1.0, regular=0.0)\n"
        )
        parts.use_parts(path)
        changes = {"complexity": {"indicators": ["share"], "ranges": []}, "cache": {"dir": str(tmp_path), "jobs": 1}}
        config = load_config(SMOKE, changes)
        candles = synthetic_market(symbols=1, days=30, timeframe="1h", horizon=4, seed=0)["SYNA"]
        rows = np.arange(100, 300, 4)
        windows = cached("SYNA", candles, rows, config, False)
        found.append(VIEWS.views["complexity"].compute(Asked("SYNA", {"SYNA": candles}, rows, config, windows)).values)
    assert (found[0] == 0.25).all() and (found[1] == 0.75).all()
