"""The split of the variance of a draw, against known parts and a hand-computed table."""

import numpy as np
import pandas as pd
import pytest

from causal.contexts import Contexts
from causal.design import InvalidDesign, draw_contexts
from causal.variance import split_variance, variance_of_median


@pytest.fixture(scope="module")
def contexts():
    rows = [(f"S{s}", f"S{s}B{b}", f"S{s}B{b}P0", 384) for s in (1, 2) for b in range(50)]
    return Contexts(pd.DataFrame(rows, columns=["source", "batch", "plate", "plate_format"]))


def test_two_contexts_two_seeds_by_hand():
    draws = pd.DataFrame({"plate": ["a", "a", "b", "b"], "row": 0, "column": 0})
    parts = split_variance(np.array([[1.0], [3.0], [7.0], [9.0]]), draws)
    # means 2 and 8: MS between = 2 * 18 = 36; within = (1 + 1 + 1 + 1) / 2 = 2; context = (36 - 2) / 2
    assert (parts.context[0], parts.noise[0], parts.cells[0]) == (17.0, 2.0, 0.0)
    assert parts.context_share[0] == 17 / 19
    assert parts.ceiling[0] == pytest.approx(9.5)


def test_known_parts_are_recovered(contexts):
    rng = np.random.default_rng(0)
    draws = draw_contexts(contexts, 6000, seed=1, seeds_per_context=2)
    batch = rng.normal(0, 2.0, 100)[draws["batch"].astype("category").cat.codes]
    cells = np.full((6000, 1), 0.5)
    values = (batch + rng.normal(0, 1.0, 6000) + rng.normal(0, np.sqrt(0.5), 6000))[:, None]
    parts = split_variance(values, draws, cells)
    assert parts.context[0] == pytest.approx(4.0, rel=0.25)
    assert parts.noise[0] == pytest.approx(1.0, abs=0.12)
    assert parts.cells[0] == 0.5
    assert parts.total[0] == pytest.approx(values.var(), rel=0.02)


def test_variance_of_the_median_matches_resampling():
    rng = np.random.default_rng(3)
    estimated = np.array([variance_of_median(rng.exponential(size=(60, 1)))[0] for _ in range(400)])
    medians = np.median(rng.exponential(size=(60, 20_000)), axis=0)
    assert np.median(estimated) == pytest.approx(medians.var(), rel=0.2)
    assert np.isnan(variance_of_median(np.ones((4, 2)))).all()


def test_single_seeds_cannot_be_split(contexts):
    with pytest.raises(InvalidDesign, match="several seeds of a context"):
        split_variance(np.zeros((4, 1)), draw_contexts(contexts, 4, seed=0))
