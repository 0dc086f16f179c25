"""The interval over draws covers what it says, where the percentile bootstrap does not."""

import numpy as np
import pytest
from scipy.stats import t as student

from profiling.interval import biosimilarity_interval, correlation_interval
from profiling.profiles import InvalidProfiles
from profiling.subprofile import SubProfiles, biosimilarity

K = 80


def world(rng, n, noise):
    """A sub-profile, the true effect, and n draws of it with noise that is correlated over features."""
    reference = rng.normal(size=K)
    effect = reference + 0.8 * rng.normal(size=K)
    loadings = rng.normal(size=(6, K)) / np.sqrt(6)
    draws = effect + noise * (0.8 * rng.normal(size=(n, 6)) @ loadings + 0.6 * rng.normal(size=(n, K)))
    return reference, effect, draws


@pytest.mark.parametrize(("n", "noise"), [(4, 0.5), (8, 2.0), (16, 5.0), (100, 2.0)])
def test_coverage(n, noise):
    rng = np.random.default_rng(n)
    covered = 0
    for _ in range(400):
        reference, effect, draws = world(rng, n, noise)
        low, high = correlation_interval(draws, reference)
        covered += low <= np.corrcoef(effect, reference)[0, 1] <= high
    assert covered / 400 > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 400)


def test_products_of_different_draws_by_hand():
    """The estimate in the middle of the interval, and its jackknife, from plain loops over pairs."""
    reference, _, draws = world(np.random.default_rng(0), 6, 0.5)
    v = (reference - reference.mean()) / np.linalg.norm(reference - reference.mean())

    def theta(x):
        x = x - x.mean(axis=1, keepdims=True)
        pairs = [x[i] @ x[j] for i in range(len(x)) for j in range(len(x)) if i != j]
        return np.mean(x @ v) / np.sqrt(np.mean(pairs))

    without = np.array([theta(np.delete(draws, i, axis=0)) for i in range(6)])
    error = np.sqrt(5 / 6 * ((without - without.mean()) ** 2).sum())
    low, high = correlation_interval(draws, reference)
    half = student.ppf(0.975, 5) * error
    assert (low, high) == pytest.approx((theta(draws) - half, min(1.0, theta(draws) + half)), abs=1e-12)


def test_the_percentile_bootstrap_does_not_cover():
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(100):
        reference, effect, draws = world(rng, 8, 2.0)
        means = draws[rng.integers(0, 8, (200, 8))].mean(axis=1)
        centred, v = means - means.mean(axis=1, keepdims=True), reference - reference.mean()
        low, high = np.percentile(centred @ v / np.linalg.norm(centred, axis=1) / np.linalg.norm(v), [2.5, 97.5])
        covered += low <= np.corrcoef(effect, reference)[0, 1] <= high
    assert covered < 20


def test_no_effect_gives_the_whole_range_and_the_score_always_lies_inside():
    rng = np.random.default_rng(1)
    whole = 0
    for _ in range(100):
        draws, reference = rng.normal(size=(6, K)), rng.normal(size=K)
        low, high = correlation_interval(draws, reference)
        assert low <= np.corrcoef(draws.mean(axis=0), reference)[0, 1] <= high
        whole += (low, high) == (-1.0, 1.0)
    assert whole > 50


@pytest.mark.parametrize("convention", ["paper", "reference"])
def test_each_label_gets_its_own_in_the_units_of_the_convention(convention):
    rng = np.random.default_rng(2)
    reference, _, draws = world(rng, 10, 0.5)
    draws[:, 5] = np.nan
    draws[0, 6] = np.nan
    mask = np.stack([np.arange(K) < 50, np.arange(K) >= 30, np.zeros(K, dtype=bool)])
    values = np.stack([reference, -reference, reference]) * mask
    names = tuple(f"f{i}" for i in range(K))
    sub = SubProfiles(("a", "b", "none"), names, values, mask, np.array([5, 5, 1]), convention)
    low, high = biosimilarity_interval(draws, sub)
    used = mask[0] & ~np.isin(np.arange(K), [5, 6])
    want = np.array(correlation_interval(draws[:, used], reference[used]))
    scale = 100 if convention == "reference" else 1
    np.testing.assert_allclose([low[0], high[0]], scale * want)
    assert np.isnan([low[2], high[2]]).all()
    assert (low[1], high[1]) == (0.0, 0.0) if convention == "reference" else high[1] < 0
    mean = np.nanmean(draws[:, used], axis=0)
    assert low[0] <= scale * np.corrcoef(mean, reference[used])[0, 1] <= high[0]


def test_a_clipped_feature_counts_as_constant():
    rng = np.random.default_rng(3)
    reference, _, draws = world(rng, 10, 0.5)
    draws[:, 0] += 1000.0
    sub = SubProfiles(
        ("a",),
        tuple(f"f{i}" for i in range(K)),
        reference[None],
        np.ones((1, K), dtype=bool),
        np.array([5]),
        "reference",
    )
    low, high = biosimilarity_interval(draws, sub)
    assert low[0] <= biosimilarity(draws.mean(axis=0), sub)[0, 0] <= high[0]
    assert high[0] - low[0] < 15


def test_too_little_gives_no_interval():
    assert np.isnan(correlation_interval(np.ones((2, 5)), np.arange(5.0))).all()
    assert np.isnan(correlation_interval(np.random.default_rng(0).normal(size=(4, 5)), np.ones(5))).all()
    sub = SubProfiles(("a",), ("x", "y"), np.ones((1, 2)), np.ones((1, 2), dtype=bool), np.array([5]))
    assert np.isnan(biosimilarity_interval(np.empty((0, 2)), sub)[0]).all()
    with pytest.raises(InvalidProfiles, match="level must lie between"):
        biosimilarity_interval(np.ones((4, 2)), sub, level=95.0)
