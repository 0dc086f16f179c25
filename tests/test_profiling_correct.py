"""Corrections: parity with pycytominer and scikit-learn, covariance I, known shifts recovered, frozen on chosen
rows."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import QuantileTransformer

from profiling.correct import (
    SPHERING,
    fit_cell_count,
    fit_pca,
    fit_phenotype_correction,
    fit_rank_normal,
    fit_sphering,
    fit_well_position,
    rank_normal,
)
from profiling.normalise import UnknownGroup
from profiling.profiles import InvalidProfiles, Profiles


def wells(seed=0, n=120, k=6):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, k)) @ rng.normal(size=(k, k)) + 10 * rng.normal(size=k)
    meta = pd.DataFrame(
        {"Metadata_Plate": [f"p{i % 3}" for i in range(n)], "Metadata_Well": [f"A{i % 8}" for i in range(n)]}
    )
    meta["Metadata_Count_Cells"] = rng.poisson(80, n)
    return Profiles(meta, values, tuple(f"f{i}" for i in range(k))), rng.random(n) < 0.5


def spherize(method):
    pytest.importorskip("pycytominer", reason="the oracle pycytominer is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pycytominer.operations.transform import Spherize
    return Spherize(method=method)


@pytest.mark.parametrize(("n", "k"), [(120, 6), (12, 20)])
@pytest.mark.parametrize("method", SPHERING)
def test_sphering_equals_pycytominer_and_whitens(method, n, k):
    p, rows = wells(1, n, k)
    rows = np.ones(n, dtype=bool) if n < k else rows
    got = fit_sphering(p, rows, method).transform(p)
    oracle = spherize(method).fit(pd.DataFrame(p.values[rows], columns=p.names))
    want = oracle.transform(pd.DataFrame(p.values, columns=p.names)).to_numpy()
    if n > k:
        np.testing.assert_allclose(np.cov(got.values[rows], rowvar=False), np.eye(k), atol=1e-4)
        np.testing.assert_allclose(got.values, want, rtol=1e-9, atol=1e-9)
    else:  # the directions without data are arbitrary: compare where there are data
        np.testing.assert_allclose(np.abs(np.corrcoef(got.values[rows])), np.abs(np.corrcoef(want[rows])), atol=1e-6)


def test_sphering_refuses_what_it_cannot_whiten():
    p, rows = wells(2)
    p.values[:, 3] = p.values[:, 1] + p.values[:, 2]
    with pytest.raises(InvalidProfiles, match="rank 5 of 6"):
        fit_sphering(p, rows)
    p, rows = wells(3)
    with pytest.raises(InvalidProfiles, match="epsilon is too large"):
        fit_sphering(p, rows, epsilon=5.0)
    with pytest.raises(InvalidProfiles, match="method must be one of"):
        fit_sphering(p, rows, "zca")
    p.values[0, 0] = np.nan
    with pytest.raises(InvalidProfiles, match="1 NaN"):
        fit_sphering(p, np.ones(len(p), dtype=bool))


def test_pca_equals_scikit_learn_up_to_sign():
    p, rows = wells(4)
    got = fit_pca(p, rows, 3).transform(p).values
    want = PCA(3).fit(p.values[rows]).transform(p.values)
    np.testing.assert_allclose(np.abs(got), np.abs(want), rtol=1e-9, atol=1e-9)
    share = PCA().fit(p.values[rows]).explained_variance_ratio_.cumsum()
    assert len(fit_pca(p, rows, 0.9).out) == np.searchsorted(share, 0.9) + 1


@pytest.mark.parametrize("ties", [False, True])
def test_rank_normal_equals_scikit_learn(ties):
    p, rows = wells(5)
    if ties:
        p = p.with_values(np.round(p.values, 0))
    oracle = QuantileTransformer(n_quantiles=int(rows.sum()), output_distribution="normal", subsample=None)
    want = oracle.fit(p.values[rows]).transform(p.values)
    np.testing.assert_allclose(fit_rank_normal(p, rows).transform(p).values, want, rtol=1e-9, atol=1e-9)


def test_transductive_rank_normal_is_blom_and_normal():
    p, _ = wells(6, n=400)
    z = rank_normal(p).values
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.02)
    assert (np.argsort(z[:, 2]) == np.argsort(p.values[:, 2])).all()


def test_well_position_effect_is_removed():
    p, _ = wells(7, n=960)
    effect = {f"A{i}": i * np.ones(6) for i in range(8)}
    shifted = p.with_values(p.values + np.stack([effect[w] for w in p.column("Well")]))
    every = np.ones(len(p), dtype=bool)
    done = fit_well_position(shifted, every).transform(shifted)
    means = pd.DataFrame(done.values).groupby(p.column("Well")).mean()
    np.testing.assert_allclose(means, 0, atol=1e-9)
    with pytest.raises(UnknownGroup, match="A7"):
        fit_well_position(p, p.column("Well") != "A7").transform(p)


def test_phenotype_correction_is_equation_17():
    p, control = wells(8)
    done = fit_phenotype_correction(p, control, alpha=0.7).transform(p).values
    plate = p.column("Plate")
    for name in ("p0", "p1", "p2"):
        w = p.values[control & (plate == name)].mean(axis=0)
        np.testing.assert_allclose(done[plate == name], p.values[plate == name] - 0.7 * w, atol=1e-12)


def test_cell_count_regression_equals_scikit_learn():
    p, rows = wells(9)
    count = p.column("Count_Cells")[:, None].astype(float)
    oracle = LinearRegression().fit(count[rows], p.values[rows])
    want = p.values - oracle.predict(count)
    np.testing.assert_allclose(fit_cell_count(p, rows).transform(p).values, want, rtol=1e-9, atol=1e-9)
    flat = Profiles(p.meta.assign(Metadata_Count_Cells=5), p.values, p.names)
    with pytest.raises(InvalidProfiles, match="does not vary"):
        fit_cell_count(flat, rows)


def test_cell_count_may_be_a_feature_which_stays():
    rng = np.random.default_rng(8)
    count = rng.poisson(60, 50).astype(np.float64)
    rest = rng.normal(size=(50, 3)) + np.outer(count, [0.1, -0.2, 0.0])
    names = ("Image_Count_Cells", "a", "b", "c")
    meta = pd.DataFrame({"Metadata_Well": np.arange(50)})
    by_feature = Profiles(meta, np.column_stack([count, rest]), names)
    by_column = Profiles(meta.assign(Metadata_Count_Cells=count), rest, names[1:])
    every = np.ones(50, dtype=bool)
    got = fit_cell_count(by_feature, every).transform(by_feature).values
    np.testing.assert_array_equal(got[:, 0], count)
    np.testing.assert_allclose(got[:, 1:], fit_cell_count(by_column, every).transform(by_column).values, atol=1e-12)
    assert np.abs(np.corrcoef(got, rowvar=False)[0, 1:]).max() < 1e-10


def test_only_the_chosen_rows_are_fitted_on():
    p, rows = wells(10)
    changed = p.with_values(np.where(rows[:, None], p.values, -50.0))
    for fit in (fit_sphering, fit_pca, fit_rank_normal, fit_cell_count):
        np.testing.assert_array_equal(fit(p, rows).transform(p).values, fit(changed, rows).transform(p).values)
