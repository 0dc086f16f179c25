"""Harmony against harmonypy, whose numbers tests/golden/harmonypy/regenerate.py made in an environment of its own."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiling.harmony import HarmonyConfig, harmonise
from profiling.mixing import lisi, neighbours

GOLDEN = Path(__file__).resolve().parent / "golden" / "harmonypy" / "harmonypy-0.0.10.npz"
CONFIG = HarmonyConfig(clusters=6)
WORLDS = ("confounded", "two_columns", "apart")


@cache
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def ours(world, start):
    data = golden()
    batches = pd.DataFrame(data[f"{world}_batches"].astype(str)).add_prefix("Metadata_")
    return harmonise(data[f"{world}_values"], batches, 0, CONFIG, data[f"{world}_start"] if start else None).values


def least_correlation(got, want):
    return min(float(np.corrcoef(got[:, j], want[:, j])[0, 1]) for j in range(got.shape[1]))


def mixing(values, batch):
    """Median effective number of batches around a row."""
    near, distance = neighbours(values.astype(np.float64), 30)
    return float(np.median(lisi(near, distance, batch.astype(np.int64))))


@pytest.mark.parametrize("world", WORLDS)
def test_same_start_gives_harmonypys_rows(world):
    """0.999 in each component: the order in which blocks are updated is random in both, the fixed point is not."""
    want = golden()[f"{world}_same_start"]
    assert least_correlation(ours(world, True), want) >= 0.999
    assert least_correlation(golden()[f"{world}_values"], want) < 0.99  # not by leaving the rows alone


@pytest.mark.parametrize("world", WORLDS)
def test_own_start_gives_the_same_correction_and_mixing(world):
    """0.95: k-means starts elsewhere, so soft clusters may be cut differently; the batches must be as well mixed."""
    data = golden()
    got, want = ours(world, False), data[f"{world}_own_start"]
    assert least_correlation(got, want) >= 0.95
    for batch in data[f"{world}_batches"].T:
        assert abs(mixing(got, batch) - mixing(want, batch)) <= 0.02 * mixing(want, batch)
