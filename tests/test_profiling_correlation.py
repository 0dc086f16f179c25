"""Correlation in two precisions: equal to numpy and pandas, and the screened choice equal to the exact one."""

import numpy as np
import pandas as pd
import pytest

from profiling import correlation
from profiling.correlation import correlations, too_correlated


def table(seed, n=700, k=60, holes=0):
    """Correlated features: copies, anticopies, pairs within 1e-8 of a correlation of 0.9, one that does not vary."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 12)) @ rng.normal(size=(12, k)) + 0.8 * rng.normal(size=(n, k)) + 50 * rng.normal(size=k)
    x[:, 1] = 3 * x[:, 0] - 2
    x[:, 2] = -x[:, 0]
    for j, off in enumerate((-1e-8, 1e-8, -3e-6, 3e-6)):
        a, b = x[:, 10 + 2 * j] - x[:, 10 + 2 * j].mean(), rng.normal(size=n)
        b -= b.mean()
        b -= a * (a @ b) / (a @ a)
        r = 0.9 + off
        x[:, 11 + 2 * j] = r * a / np.linalg.norm(a) + np.sqrt(1 - r**2) * b / np.linalg.norm(b)
    x[:, 5] = 7.7
    x[rng.integers(0, n, 40 * holes), rng.integers(30, 30 + max(holes, 1), 40 * holes)] = np.nan
    return x


@pytest.mark.parametrize("holes", [0, 4, 30])
def test_correlations_equal_pandas_in_blocks_of_any_size(holes, monkeypatch):
    x = table(1, holes=holes)
    want = pd.DataFrame(x).corr().to_numpy(copy=True)
    want[5], want[:, 5] = np.nan, np.nan
    for rows, cells in ((4096, 65_536), (64, 999), (700, 60)):
        monkeypatch.setattr(correlation, "ROWS", rows)
        monkeypatch.setattr(correlation, "CELLS", cells)
        np.testing.assert_allclose(correlations(x), want, atol=1e-9)
    some = np.array([3, 31, 11, 10])
    np.testing.assert_allclose(correlations(x, some), want[np.ix_(some, some)], atol=1e-9)


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("holes", [0, 4])
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_screened_choice_is_the_exact_one(seed, holes, absolute, monkeypatch):
    x = table(seed, holes=holes)
    exact = too_correlated(x, 0.9, absolute)
    c = np.abs(correlations(x))
    assert exact[10:12].sum() == 0  # 0.9 - 1e-8
    assert exact[12:14].sum() == 1  # 0.9 + 1e-8, which float32 cannot tell
    calls = []
    screened = correlation._screened
    monkeypatch.setattr(correlation, "SCREEN_FROM", 0)
    monkeypatch.setattr(correlation, "PROBES", 8)
    monkeypatch.setattr(correlation, "ROWS", 256)
    monkeypatch.setattr(correlation, "_screened", lambda *a: calls.append(screened(*a)) or calls[-1])
    got = too_correlated(x, 0.9, absolute)
    assert calls[0] is not None, "everything was in doubt: the screen did no work"
    np.testing.assert_array_equal(got, exact)
    first, second, sums = calls[0]
    assert (np.where(absolute, c, correlations(x))[first, second] > 0.9).all()
    np.testing.assert_allclose(sums, np.nansum(c, axis=0), atol=1e-3)


def test_where_too_much_is_in_doubt_all_is_exact(monkeypatch):
    rng = np.random.default_rng(5)
    x = np.repeat(rng.normal(size=(300, 5)), 8, axis=1)  # copies: every sum ties with seven others
    exact = too_correlated(x, 0.9)
    monkeypatch.setattr(correlation, "SCREEN_FROM", 0)
    np.testing.assert_array_equal(too_correlated(x, 0.9), exact)
    assert exact.sum() == 35


def test_features_of_which_no_pair_is_correlated_all_stay(monkeypatch):
    x = np.random.default_rng(6).normal(size=(300, 20))
    monkeypatch.setattr(correlation, "SCREEN_FROM", 0)
    found = correlation._screened(correlation._table(x, None), 0.9, True)
    assert found is not None
    assert not too_correlated(x, 0.9).any()


def test_which_of_two_near_copies_goes_is_decided_in_float64(monkeypatch):
    """Their sums differ by about 1e-7 of themselves: float32 orders them by its rounding."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(900, 8)) @ rng.normal(size=(8, 100)) + rng.normal(size=(900, 100))
    x[:, 50:60] = x[:, 40:50] + 1e-6 * rng.normal(size=(900, 10))
    exact = too_correlated(x, 0.9)
    assert exact.sum() == 10
    assert 0 < exact[40:50].sum() < 10
    monkeypatch.setattr(correlation, "SCREEN_FROM", 0)
    got = too_correlated(x, 0.9)
    assert correlation._screened(correlation._table(x, None), 0.9, True) is not None
    np.testing.assert_array_equal(got, exact)
