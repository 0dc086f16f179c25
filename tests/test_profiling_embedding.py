"""UMAP: clusters stay apart, the same seed gives the same points, and what cannot be laid out is refused."""

import numpy as np
import pytest

from profiling.embedding import coordinates
from profiling.profiles import InvalidProfiles


@pytest.mark.slow
def test_clusters_stay_apart_and_the_seed_repeats():
    rng = np.random.default_rng(0)
    label = np.arange(60) % 3
    values = 9.0 * np.eye(3, 10)[label] + rng.normal(size=(60, 10))
    points = coordinates(values, seed=1)
    centre = np.stack([points[label == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(points[:, None] - centre[None], axis=2).argmin(axis=1)
    assert (nearest == label).all()
    np.testing.assert_array_equal(points, coordinates(values, seed=1))


def test_refusals():
    with pytest.raises(InvalidProfiles, match="NaN"):
        coordinates(np.full((9, 2), np.nan))
    with pytest.raises(InvalidProfiles, match="at least four"):
        coordinates(np.zeros((3, 2)))
