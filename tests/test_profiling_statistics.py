"""Statistics: parity with scipy and statsmodels, and by hand where a property is the definition."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f_oneway, false_discovery_control, permutation_test
from scipy.stats import tukey_hsd as scipy_tukey

from profiling.statistics import (
    InvalidComparison,
    anova,
    cohen_d,
    false_discovery_rate,
    hedges_g,
    letters,
    mixed_model,
    paired_permutation,
    tukey_hsd,
)


def folds(seed=0, sizes=(6, 6, 6, 6), shift=0.6):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(shift * i, 1.0, n) for i, n in enumerate(sizes)])
    groups = [f"method {'dcba'[i]}" for i, n in enumerate(sizes) for _ in range(n)]
    return values, groups


def split(values, groups):
    return [values[np.array(groups) == g] for g in sorted(set(groups))]


@pytest.mark.parametrize("sizes", [(6, 6, 6, 6), (3, 9, 5)])
def test_anova_equals_scipy(sizes):
    values, groups = folds(1, sizes)
    got, want = anova(values, groups), f_oneway(*split(values, groups))
    assert got.f == pytest.approx(want.statistic, rel=1e-10)
    assert got.p == pytest.approx(want.pvalue, rel=1e-8)
    assert got.eta_squared == pytest.approx(got.f * got.df_between / (got.f * got.df_between + got.df_within))


@pytest.mark.parametrize("sizes", [(6, 6, 6, 6), (3, 9, 5)])
def test_tukey_equals_statsmodels_and_scipy(sizes):
    values, groups = folds(2, sizes)
    got = tukey_hsd(values, groups)
    want = scipy_tukey(*split(values, groups))
    at = np.triu_indices(len(sizes), 1)
    np.testing.assert_allclose(got["p"], want.pvalue[at], atol=1e-8)
    np.testing.assert_allclose(got["low"], -want.confidence_interval().high[at], atol=1e-8)
    statsmodels = pytest.importorskip("statsmodels.stats.multicomp", reason="the oracle statsmodels is not installed")
    oracle = statsmodels.pairwise_tukeyhsd(values, groups)
    np.testing.assert_allclose(got["difference"], oracle.meandiffs, atol=1e-12)
    np.testing.assert_allclose(got["p"], oracle.pvalues, atol=1e-8)
    np.testing.assert_allclose(got[["low", "high"]], oracle.confint, atol=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_letters_are_shared_exactly_by_pairs_that_do_not_differ(seed):
    rng = np.random.default_rng(seed)
    names = [f"g{i}" for i in range(6)]
    pairs = pd.DataFrame([(a, b) for i, a in enumerate(names) for b in names[i + 1 :]], columns=["group1", "group2"])
    pairs["p"] = rng.choice([0.01, 0.5], len(pairs))
    made = letters(pairs)
    for a, b, p in pairs.itertuples(index=False):
        assert bool(set(made[a]) & set(made[b])) == (p >= 0.05)
    assert all(made.values())


def test_letters_of_a_chain():
    pairs = pd.DataFrame({"group1": ["x", "x", "y"], "group2": ["y", "z", "z"], "p": [0.3, 0.001, 0.3]})
    assert letters(pairs) == {"x": "a", "y": "ab", "z": "b"}


def test_false_discovery_rate_equals_scipy_and_skips_nan():
    p = np.random.default_rng(3).random(40) ** 3
    np.testing.assert_allclose(false_discovery_rate(p), false_discovery_control(p), atol=1e-12)
    with_gap = np.insert(p, 7, np.nan)
    q = false_discovery_rate(with_gap)
    assert np.isnan(q[7])
    np.testing.assert_allclose(np.delete(q, 7), false_discovery_control(p), atol=1e-12)


def test_effect_sizes_by_hand():
    x, y = np.array([3.0, 5.0]), np.array([0.0, 2.0, 4.0])
    assert cohen_d(x, y) == pytest.approx(2.0 / np.sqrt((2 + 8) / 3))
    assert hedges_g(x, y) == pytest.approx(cohen_d(x, y) * (1 - 3 / 11))
    assert np.isnan(cohen_d(np.ones(2), np.ones(2)))


def test_paired_permutation_is_exact_for_few_pairs_and_close_for_many():
    rng = np.random.default_rng(4)
    x, y = rng.normal(0.5, 1, 9), rng.normal(0, 1, 9)
    mean = lambda a, b, axis: (a - b).mean(axis=axis)  # noqa: E731
    want = permutation_test((x, y), mean, permutation_type="samples", vectorized=True, n_resamples=np.inf)
    difference, p = paired_permutation(x, y, rng)
    assert difference == pytest.approx((x - y).mean())
    assert p == pytest.approx(want.pvalue, abs=1e-12)
    sampled = paired_permutation(x, y, rng, permutations=400)[1]
    assert sampled != p
    assert abs(sampled - p) < 4 * np.sqrt(p * (1 - p) / 400)


def test_pairing_sees_what_the_anova_misses():
    rng = np.random.default_rng(5)
    fold = rng.normal(0, 1, 10)
    a, b = fold + rng.normal(0, 0.05, 10), fold + 0.2 + rng.normal(0, 0.05, 10)
    values, groups = np.concatenate([a, b]), ["a"] * 10 + ["b"] * 10
    blocks = [f"fold {i}" for i in range(10)] * 2
    assert anova(values, groups).p > 0.3
    assert paired_permutation(a, b, rng)[1] < 0.01
    row = mixed_model(values, groups, blocks).iloc[0]
    assert row["p"] < 0.001
    t = (b - a).mean() / ((b - a).std(ddof=1) / np.sqrt(10))
    assert row["t"] == pytest.approx(t, rel=1e-4)  # complete blocks: the paired t test


@pytest.mark.parametrize("complete", [True, False])
def test_mixed_model_equals_statsmodels(complete):
    api = pytest.importorskip("statsmodels.formula.api", reason="the oracle statsmodels is not installed")
    rng = np.random.default_rng(6)
    table = pd.DataFrame([(g, f"b{i}") for g in "xyz" for i in range(12)], columns=["g", "b"])
    block = dict(zip(sorted(set(table["b"])), rng.normal(0, 1, 12), strict=True))
    table["v"] = table["b"].map(block) + table["g"].map({"x": 0.0, "y": 0.5, "z": 0.2}) + rng.normal(0, 0.7, 36)
    table = table if complete else table.drop(index=[1, 5, 17, 30])
    got = mixed_model(table["v"].to_numpy(), table["g"].tolist(), table["b"].tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = api.mixedlm("v ~ C(g)", table, groups=table["b"]).fit(reml=True)
    np.testing.assert_allclose(got["difference"][:2], want.fe_params.iloc[1:], rtol=1e-4)
    # its standard errors come from a numerical Hessian (off by up to 0.6 % here): the generalised least squares ones at
    # its variance components are the oracle
    x = np.column_stack([np.ones(len(table)), table["g"] == "y", table["g"] == "z"]).astype(np.float64)
    z = pd.get_dummies(table["b"]).to_numpy(dtype=np.float64)
    v = want.scale * np.eye(len(x)) + float(want.cov_re.iloc[0, 0]) * z @ z.T
    error = np.sqrt(np.diag(np.linalg.inv(x.T @ np.linalg.solve(v, x))))[1:]
    np.testing.assert_allclose(got["error"][:2], error, rtol=1e-4)
    assert got["error_variance"][0] == pytest.approx(want.scale, rel=1e-3)
    assert got["block_variance"][0] == pytest.approx(float(want.cov_re.iloc[0, 0]), rel=1e-3)


def test_refusals():
    with pytest.raises(InvalidComparison, match="at least two groups"):
        anova(np.ones(3), ["a"] * 3)
    with pytest.raises(InvalidComparison, match="expected repeats"):
        anova(np.arange(2.0), ["a", "b"])
    with pytest.raises(InvalidComparison, match="do not vary"):
        anova(np.array([1.0, 1.0, 2.0, 2.0]), ["a", "a", "b", "b"])
    with pytest.raises(InvalidComparison, match="1 NaN"):
        tukey_hsd(np.array([1.0, np.nan, 2.0]), ["a", "a", "b"])
    with pytest.raises(InvalidComparison, match="use up all values"):
        mixed_model(np.arange(4.0), ["a", "a", "b", "b"], ["1", "2", "3", "4"])
    with pytest.raises(InvalidComparison, match="without NaN"):
        paired_permutation(np.array([np.nan]), np.array([1.0]), np.random.default_rng(0))
