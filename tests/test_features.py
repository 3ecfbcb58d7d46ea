"""The 214 features: against giotto-tda, against numerical integration, against numbers worked out by hand."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gtda.diagrams import BettiCurve, PersistenceEntropy
from scipy.integrate import trapezoid

from cmat_lib.base.numba_cache import ensure_numba_cache
from cmat_lib.config import load_config
from cmat_lib.config.schema import TdaConfig
from cmat_lib.tda import feature_names, features, rips_diagrams, takens_embedding, tda_features
from cmat_lib.tda.features import betti_grid, diagram_features, feature_groups, feature_params, path_features
from cmat_lib.tda.persistence import Bars
from cmat_lib.views import VIEWS, Asked

SMALL = TdaConfig(window_size=60, time_delay=4, betti_bins=20, engine="giotto")


def walk(count, length, seed=0):
    return 11 + np.cumsum(np.random.default_rng(seed).normal(scale=0.01, size=(count, length)), axis=1)


def features_of(diagrams, config, sigma=1.0):
    """Features of diagrams of the one dimension that `config` has, of windows of two values with this deviation."""
    diagrams = [np.array(d, dtype=float).reshape(-1, 2) for d in diagrams]
    ordered = np.concatenate([d[np.lexsort(d.T[::-1])] for d in diagrams])
    bars = Bars(ordered, np.concatenate([[0], np.cumsum([len(d) for d in diagrams])]))
    series = np.ravel(np.multiply.outer(np.broadcast_to(sigma, len(diagrams)), [0.0, 2.0]))
    rows = np.empty((len(diagrams), config.feature_dim), np.float32)
    diagram_features([bars, bars], series, 2 * np.arange(len(diagrams)), 2, config, rows)
    return rows


def only(dimension, bins=20, top=1.3, layers=5):
    return TdaConfig(homology_dimensions=[dimension], betti_max=[top], betti_bins=bins, landscape_layers=layers)


def random_bars(count, seed, ties=False):
    rng = np.random.default_rng(seed)
    births, lengths = rng.uniform(0, 3, count), rng.exponential(0.5, count)
    if ties:
        births, lengths = np.round(births), np.round(lengths * 2) / 2 + 0.5
    return np.column_stack([births, births + lengths])


def column(config, name):
    return feature_names(config).index(name)


def test_there_are_214_distinct_names_in_order():
    names = feature_names(TdaConfig())
    assert len(names) == len(set(names)) == TdaConfig().feature_dim == 214
    assert names[:2] + names[99:107] + names[107:109] + names[-1:] == [
        *["h0_betti_000", "h0_betti_001", "h0_betti_099", "h0_entropy", "h0_landscape_1", "h0_landscape_2"],
        *["h0_landscape_3", "h0_landscape_4", "h0_landscape_5", "h0_total", "h1_betti_000", "h1_betti_001", "h1_total"],
    ]


def test_grid_is_fixed_and_even_in_the_square_root():
    grid = betti_grid(TdaConfig(), 1)
    assert (grid[0], grid[-1]) == (0, 1.3)
    np.testing.assert_allclose(np.diff(np.sqrt(grid)), np.sqrt(1.3) / 99)
    with pytest.raises(ValueError, match="dimension 0 is not in"):
        betti_grid(TdaConfig(homology_dimensions=[1], betti_max=[1.0]), 0)


def test_features_of_a_diagram_worked_out_by_hand():
    config = only(1, bins=3, top=4.0, layers=3)  # grid 0, 1, 4
    got = features_of([[[0, 4], [2, 6], [2, 8]]], config, sigma=2.0)[0]
    # In sigma: [0, 2), [1, 3), [1, 4); a bar counts at its birth and no longer at its death.
    # Lengths 4, 4, 6 of 14. Layers, from [0, 4), [2, 6), [2, 8): peaks 2, 3 with the valley 1 between them; then
    # [2, 6) with what lies under the valley, [2, 4), inside it: peak 2; then [2, 4): peak 1.
    entropy = -2 * (4 / 14) * np.log2(4 / 14) - (6 / 14) * np.log2(6 / 14)
    layers = np.sqrt(2 / 3 * np.array([8 + 27 - 1, 8, 1]))
    np.testing.assert_allclose(got, [1, 3, 0, entropy, *layers, 14], rtol=1e-6)  # float32


def test_empty_diagrams_and_flat_windows_are_zero():
    got = features_of([[], [[0, 1]], [[0, 1]]], only(0), sigma=[1.0, 0.0, 1.0])
    assert not got[:2].any()
    assert got[2, column(only(0), "h0_total")] == 1
    prices = np.stack([np.full(60, np.log(0.1)), walk(1, 60)[0]])
    rows = tda_features(prices, SMALL)
    assert not rows[0].any()
    assert rows[1].any()


def test_betti_curves_equal_giotto_tda(monkeypatch):
    diagrams = [random_bars(40, seed, ties=seed == 2) for seed in range(3)]
    padded = np.stack([np.column_stack([d, np.ones(40)]) for d in diagrams])
    reference = BettiCurve(n_bins=50).fit(padded)
    grid = reference.samplings_[1]
    monkeypatch.setattr(features, "betti_grid", lambda config, dimension: grid)
    got = features_of(diagrams, only(1, bins=50))[:, :50]
    np.testing.assert_array_equal(got, reference.transform(padded)[:, 0])


def test_entropy_equals_giotto_tda():
    diagrams = [random_bars(n, seed=n) for n in (1, 5, 40)]
    got = features_of(diagrams, only(1))[:, only(1).betti_bins]
    for value, bars in zip(got, diagrams, strict=True):
        reference = PersistenceEntropy().fit_transform(np.column_stack([bars, np.ones(len(bars))])[None])
        np.testing.assert_allclose(value, reference[0, 0], rtol=1e-6, atol=1e-12)
    assert abs(got[0]) < 1e-12  # one bar: no uncertainty


@pytest.mark.parametrize("ties", [False, True])
def test_landscape_norms_equal_numerical_integration(ties):
    diagrams = [random_bars(n, seed=n, ties=ties) for n in (1, 2, 7, 60)]
    got = features_of(diagrams, only(1))[:, 21:26]
    t = np.linspace(0, 9, 200_001)
    for row, bars in zip(got, diagrams, strict=True):
        tents = np.maximum(np.minimum(t - bars[:, :1], bars[:, 1:] - t), 0)  # (n, samples)
        layers = np.pad(-np.sort(-tents, axis=0), ((0, 5), (0, 0)))[:5]
        np.testing.assert_allclose(row, np.sqrt(trapezoid(layers**2, t, axis=1)), rtol=1e-6, atol=1e-6)


def test_h0_layers_are_the_longest_bars():
    deaths = np.array([0.3, 2.0, 0.1, 1.0])
    got = features_of([np.column_stack([np.zeros(4), deaths])], only(0))[0, 21:26]
    np.testing.assert_allclose(got, np.sqrt(np.array([2.0, 1.0, 0.3, 0.1, 0.0]) ** 3 / 12), rtol=1e-6)


def test_shape_features_are_those_of_the_z_scored_window():
    window = walk(1, 60, seed=8)[0]
    standard = (window - window.mean()) / window.std()
    row = tda_features(window[None], SMALL)[0]
    for dimension, diagram in enumerate(rips_diagrams(takens_embedding(standard, 2, 4), "giotto")):
        start = dimension * SMALL.features_per_dimension
        grid = betti_grid(SMALL, dimension)[:, None]
        curve = ((diagram[:, 0] <= grid) & (grid < diagram[:, 1])).sum(axis=1)
        np.testing.assert_array_equal(row[start : start + SMALL.betti_bins], curve)
        total = window.std() * (diagram[:, 1] - diagram[:, 0]).sum()
        np.testing.assert_allclose(row[start + SMALL.features_per_dimension - 1], total, rtol=1e-5)


def test_scaling_prices_scales_norms_and_total_only():
    window = walk(1, 60, seed=9)
    names = feature_names(SMALL)
    power = np.array([1.5 if "landscape" in name else 1.0 if "total" in name else 0.0 for name in names])
    rows = tda_features(np.concatenate([window, 3 * window]), SMALL)
    np.testing.assert_allclose(rows[1], rows[0] * 3**power, rtol=1e-5)


def test_a_row_depends_on_its_own_window_only(monkeypatch):
    windows = walk(7, 60, seed=10)
    together = tda_features(windows, SMALL)
    monkeypatch.setattr(features, "WINDOWS_AT_ONCE", 3)
    np.testing.assert_array_equal(tda_features(windows, SMALL), together)
    np.testing.assert_array_equal(np.concatenate([tda_features(w[None], SMALL) for w in windows]), together)
    assert (together.dtype, together.shape) == (np.float32, (7, SMALL.feature_dim))


def test_one_dimension_alone_is_the_same_half():
    windows = walk(2, 60, seed=11)
    config = SMALL.model_copy(update={"homology_dimensions": [1], "betti_max": [1.3]})
    np.testing.assert_array_equal(tda_features(windows, config), tda_features(windows, SMALL)[:, 27:])
    assert feature_names(config) == feature_names(SMALL)[27:]


def test_bad_windows_are_refused():
    with pytest.raises(ValueError, match=r"shape \(N, 60\), got \(1, 59\)"):
        tda_features(np.zeros((1, 59)), SMALL)
    windows = walk(3, 60)
    windows[1, 5] = np.nan
    with pytest.raises(ValueError, match="window 1 holds a log price that is not finite"):
        tda_features(windows, SMALL)


WORKERS_AND_PLACE = {
    "jobs": 3,
    "backend": "dask",
    "dask_scheduler": "tcp://10.0.0.5:8786",
    "dir": "elsewhere",
    "trust": True,
}


def parameters_of_windows(**sections):
    """Parameters, in the key of the cache, of all sliding windows that the views ask for."""
    config, asked = load_config(base={"tda": SMALL.model_dump()}, changes=sections), []
    candles = pd.DataFrame({name: np.ones(70) for name in ("open", "high", "low", "close", "volume")})

    def windows(sliding):
        asked.append((sliding.kind, sliding.parameters))
        return np.zeros((1, sliding.width), np.float32)

    for name in ("tda", "complexity"):
        VIEWS.views[name].compute(Asked("A", {"A": candles}, np.array([69]), config, windows))
    return asked


def test_key_of_the_cache_ignores_workers_and_place_only():
    base = parameters_of_windows()
    assert [kind for kind, _ in base] == ["tda", "complexity"]
    assert parameters_of_windows(cache=WORKERS_AND_PLACE) == base
    assert parameters_of_windows(data={"stride": 3}) != base
    for change in ({"embedding_dim": 3}, {"engine": "planar"}, {"betti_bins": 4}, {"betti_max": [0.6, 1.2]}):
        assert parameters_of_windows(tda=change) != base
        assert feature_params(SMALL.model_copy(update=change)) != feature_params(SMALL)


def test_numba_gets_a_folder_only_when_it_has_none(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert ensure_numba_cache([tmp_path]) is None
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    folder = ensure_numba_cache([tmp_path / "missing"])
    assert os.environ["NUMBA_CACHE_DIR"] == numba.config.CACHE_DIR == folder
    assert Path(folder).stat().st_mode & 0o077 == 0


@pytest.mark.skipif("CMAT_TEST_DATA" not in os.environ, reason="CMAT_TEST_DATA does not name a folder with candles")
@pytest.mark.parametrize("symbol", ["BTCUSDT", "XRPUSDT"])
def test_planar_engine_gives_the_same_features_on_real_windows(symbol):
    close = pd.read_parquet(Path(os.environ["CMAT_TEST_DATA"]) / f"{symbol}_15m.parquet")["close"].to_numpy(float)
    windows = np.log(np.stack([close[i : i + 672] for i in (100, 9_000, 27_200)]))
    planar = tda_features(windows, TdaConfig())
    giotto = tda_features(windows, TdaConfig(engine="giotto"))
    betti = np.array(["betti" in name for name in feature_names(TdaConfig())])
    # giotto-tda's single precision moves a bar across a grid point now and then, never by more than one bar.
    assert np.abs(planar - giotto)[:, betti].max() <= 1
    assert (planar != giotto)[:, betti].mean() < 0.01
    np.testing.assert_allclose(planar[:, ~betti], giotto[:, ~betti], rtol=1e-5)


def test_several_scales_are_the_single_ones_side_by_side():
    several = TdaConfig(windows=[60, 40, 90], delays=[4], betti_bins=20)
    windows = walk(5, 90, seed=12)
    rows = tda_features(windows, several)
    assert rows.shape == (5, several.feature_dim) == (5, 3 * SMALL.feature_dim) and several.longest_window == 90
    for place, window in enumerate([60, 40, 90]):
        own = TdaConfig(window_size=window, time_delay=4, betti_bins=20)
        columns = slice(place * own.feature_dim, (place + 1) * own.feature_dim)
        np.testing.assert_array_equal(rows[:, columns], tda_features(windows[:, -window:], own))
        assert feature_names(several)[columns] == [f"w{window}d4_{name}" for name in feature_names(own)]
    assert TdaConfig(windows=[60, 40], delays=[4, 3]).scales == [(60, 4), (40, 3)]
    assert TdaConfig(window_size=60, delays=[4, 3]).scales == [(60, 4), (60, 3)]
    for wrong in (
        {"windows": [60, 40], "delays": [1, 2, 3]},
        {"windows": [60, 60]},
        {"windows": [8], "delays": [5]},
        {"windows": []},
        {"series": ["log_close", "log_close"]},
    ):
        with pytest.raises(ValueError, match=r"windows|twice"):
            TdaConfig(**wrong)


@pytest.mark.parametrize("engine", ["planar", "giotto"])
def test_a_path_gives_each_window_as_if_it_were_alone(engine):
    config = SMALL.model_copy(update={"engine": engine})
    series = walk(1, 130, seed=13)[0]
    ends = np.array([59, 60, 61, 64, 90, 129])
    alone = tda_features(np.stack([series[end - 59 : end + 1] for end in ends]), config)
    np.testing.assert_array_equal(path_features(series, ends, 60, 4, config), alone)
    with pytest.raises(ValueError, match=r"not finite|finite and below"):
        path_features(np.where(np.arange(130) == 70, np.nan, series), ends, 60, 4, config)


SCALES = TdaConfig(windows=[60, 40], series=["log_close", "log_volume"], betti_bins=20)


def test_groups_are_all_columns_by_their_names():
    groups, names = feature_groups(SCALES), feature_names(SCALES)
    assert len(groups) == 16
    assert sorted(name for own in groups.values() for name in names[own]) == sorted(set(names))
    assert {name[:22] for name in names[groups["log_volume w40d12 H1 curve"]]} == {"log_volume_w40d12_h1_b"}
    for config in (TdaConfig(), TdaConfig(homology_dimensions=[1], betti_max=[1.3], betti_bins=7, landscape_layers=2)):
        names = np.array(feature_names(config))
        groups = feature_groups(config)
        assert sorted(np.concatenate([names[columns] for columns in groups.values()])) == sorted(names)
        for group, columns in groups.items():
            own = [f"h{group[1]}" == n[:2] and ("betti" in n) == group.endswith("curve") for n in names[columns]]
            assert len(own) > 1 and all(own), group
