"""Parity with the field's packages, where no other test file already holds it.

what                                            tolerance               where
average precision, copairs                      1e-9                    test_profiling_retrieval, _metrics
mean average precision, copairs                 1e-9                    test_profiling_retrieval
null of few rankings                            exact                   here
p of one query, p of a group, copairs           3 binomial errors       here, test_profiling_retrieval
normalisation by feature, pycytominer           1e-9                    test_profiling_normalise; whole function here
sphering, rank to normal, pycytominer, sklearn  1e-9                    test_profiling_correct
feature selection, pycytominer                  the same features       test_profiling_select; whole function here
Harmony, harmonypy                              0.999, 0.95, 2 %        test_profiling_harmony_parity
Harmony, harmony-pytorch                        0.999, 0.95, 2 %        test_profiling_harmony
Tukey's HSD, statsmodels and scipy              1e-8                    test_profiling_statistics
Biosimilarity, published tables                 0.0 at 0.1, 12 of 13    test_profiling_subprofile, _library
"""

import warnings
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import pytest
from copairs.compute import random_ap

from profiling.chance import null_precision
from profiling.metrics import average_precision
from profiling.normalise import fit, transform
from profiling.profiles import Profiles
from profiling.select import SelectConfig, select
from profiling.tables import read_profiles

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pycytominer


@pytest.mark.parametrize(("m", "total"), [(1, 7), (2, 9), (3, 8), (4, 6)])
def test_exact_null_holds_every_ranking_once(m, total):
    rankings = list(combinations(range(total), m))
    truth = np.zeros((len(rankings), total), dtype=bool)
    for row, at in enumerate(rankings):
        truth[row, list(at)] = True
    every = average_precision(np.tile(-np.arange(total, dtype=float), (len(rankings), 1)), truth)
    null = null_precision(m, total, 10, np.random.default_rng(0))
    assert null.exact
    np.testing.assert_allclose(null.values, np.sort(every), rtol=0, atol=1e-12)
    np.testing.assert_allclose(null.p(every), [(every >= x - 1e-12).mean() for x in every], rtol=0, atol=0)


@pytest.mark.parametrize(("m", "total"), [(2, 60), (3, 30), (4, 24)])
def test_p_of_a_query_is_within_three_binomial_errors_of_copairs(m, total):
    """copairs draws its null; ours is exact here, so the only error is its binomial one. The largest of a handful of
    quantiles of one draw lies within 3 errors with probability above 0.99; the seed is fixed."""
    size = 20_000
    exact = null_precision(m, total, size, np.random.default_rng(0))
    assert exact.exact
    assert len(exact.values) == comb(total, m)
    theirs = np.sort(random_ap(size, m, total, 1))
    observed = np.quantile(exact.values, [0.2, 0.5, 0.8, 0.95, 0.99, 0.999])
    p = exact.p(observed)
    drawn = (1 + len(theirs) - np.searchsorted(theirs, observed - 1e-6, side="left")) / (1 + size)  # they are float32
    assert (np.abs(drawn - p) <= 3 * np.sqrt(p * (1 - p) / size) + 1 / size).all()


def screen(seed=0, n=240, k=40):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 9)) @ rng.normal(size=(9, k)) + 0.5 * rng.normal(size=(n, k)) + 10 * rng.normal(size=k)
    values[:, 3] = np.round(values[:, 3])
    values[: n - 2, 4] = 1.0
    values[:, 10:16] = values[:, 20:26] + 0.3 * rng.normal(size=(n, 6))
    meta = pd.DataFrame({"Metadata_Plate": [f"p{i % 2}" for i in range(n)], "Metadata_DMSO": rng.random(n) < 0.3})
    return Profiles(meta, values, tuple(f"Cells_f{i}" for i in range(k)))


def flat(p):
    return pd.concat([p.meta, pd.DataFrame(p.values, columns=list(p.names))], axis=1)


@pytest.mark.parametrize(
    ("kind", "method"), [("standardise", "standardize"), ("robustise", "robustize"), ("mad_robustise", "mad_robustize")]
)
def test_normalise_equals_pycytominers_function(kind, method):
    p = screen().features([f"Cells_f{i}" for i in range(40) if i != 4])
    control = p.column("DMSO").astype(bool)
    got = transform(p, fit(p, control, kind))
    want = pycytominer.normalize(flat(p), features=list(p.names), samples="Metadata_DMSO == True", method=method)
    np.testing.assert_allclose(got.values, want[list(p.names)].to_numpy(), rtol=1e-9, atol=1e-9)


def test_select_equals_pycytominers_function():
    p = screen(1)
    operations = ["drop_na_columns", "frequency_threshold", "variance_threshold", "correlation_threshold"]
    want = pycytominer.feature_select(flat(p), features=list(p.names), operation=operations)
    config = SelectConfig(blocklist=(), outlier=None, absolute=False)
    kept = [c for c in want.columns if c.startswith("Cells_")]
    assert list(select(p, config).names) == kept
    assert 3 < len(kept) <= 34


def test_normalise_and_select_equal_pycytominer_on_a_real_plate(real_data):
    """One plate of CPJUMP1, 384 wells x 904 features: MAD to its DMSO wells, then selection at 0.8."""
    path = sorted((real_data / "cpjump1_profiles").glob("BR*.csv.gz"))[0]
    p = read_profiles(path)
    control = (p.column("control_type") == "negcon").astype(bool)
    got = transform(p, fit(p, control, epsilon=1e-18))
    table = flat(p).assign(Metadata_DMSO=control)
    want = pycytominer.normalize(table, features=list(p.names), samples="Metadata_DMSO == True", method="mad_robustize")
    np.testing.assert_allclose(got.values, want[list(p.names)].to_numpy(), rtol=1e-9, atol=1e-9)
    operations = ["drop_na_columns", "frequency_threshold", "correlation_threshold"]
    left = pycytominer.feature_select(want, features=list(p.names), operation=operations, corr_threshold=0.8)
    config = SelectConfig(blocklist=(), variance=None, outlier=None, correlation=0.8, absolute=False)
    kept = select(got, config).names
    assert set(kept) == {c for c in left.columns if not c.startswith("Metadata_")}
    assert 50 < len(kept) < 800
