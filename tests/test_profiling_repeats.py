"""Counting repeats against a dictionary, whatever the numbers look like."""

from collections import Counter

import numpy as np
import pytest

from profiling.repeats import repeats


def naive(column):
    counts = sorted(Counter(column[~np.isnan(column)].tolist()).values(), reverse=True)
    return [len(counts), *([*counts, 0, 0][:2])]


@pytest.mark.parametrize("n", [1, 2, 37, 2000])
def test_repeats_equal_a_dictionary(n):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(9, n))
    x[0] = np.round(x[0], 1)
    x[1] = 3.0
    x[2] = rng.integers(0, 3, n) * -0.0
    x[3, ::2] = np.nan
    x[4] = np.nan
    x[5] = np.arange(n)  # numbers that differ in few bits
    x[6] = rng.integers(0, 2, n) * 1e-300
    x[7] = np.where(rng.random(n) < 0.5, np.inf, -np.inf)
    assert repeats(x).tolist() == [naive(row) for row in x]
