"""Bias, RMSE and coverage by hand."""

import numpy as np
import pytest

from causal.evaluate import score


def test_four_worlds_by_hand():
    value = np.array([1.0, 2.0, 3.0, np.nan])
    answer = score(value, value - 0.5, value + 0.5, np.array([1.0, 1.0, 3.5, 0.0]))
    assert answer.n == 4
    assert answer.bias == pytest.approx(0.5 / 3)
    assert answer.rmse == pytest.approx(np.sqrt((1 + 0.25) / 3))
    assert answer.coverage == 0.5  # worlds 1 and 3; an estimate that is missing does not cover
    assert answer.width == 1.0
    # exact binomial limits of 2 in 4 (Clopper and Pearson 1934)
    assert (answer.coverage_low, answer.coverage_high) == pytest.approx((0.0676, 0.9324), abs=1e-4)


def test_no_world_no_score():
    with pytest.raises(ValueError, match="expected one length >= 1"):
        score(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0))
