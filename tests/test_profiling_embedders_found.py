"""The bilateral solver against a dense solution, and nuclei without labels on pictures where they are known."""

import numpy as np
import pytest
import torch

from profiling.embedders.bilateral import BilateralConfig, make_grid, solve
from profiling.embedders.found import FoundConfig, agreement, foreground, objects, segment
from profiling.embedders.networks.vit import VisionTransformer, VitConfig


def test_the_solver_minimises_its_own_energy() -> None:
    """A dense solve of the pixels' problem, W = S^T D_m^-1 (D_n B D_n) D_m^-1 S written out, on a 6 x 7 picture."""
    rng = np.random.default_rng(0)
    picture = np.where(np.arange(7)[None] < 4, 0.2, 0.8) + 0.02 * rng.random((6, 7))
    target, confidence = rng.random((6, 7)), rng.random((6, 7)) + 0.1
    config = BilateralConfig(space=2.0, brightness=0.2, smooth=5.0, tolerance=1e-12)
    grid = make_grid(picture, config)
    v, p = len(grid.n), picture.size
    splat = np.zeros((v, p))
    splat[grid.vertex, np.arange(p)] = 1.0
    blur = grid.n[:, None] * grid.blur.toarray() * grid.n[None]
    np.testing.assert_allclose(blur.sum(axis=1), grid.mass)  # by definition of the scaled mass
    np.testing.assert_allclose(grid.mass, splat.sum(axis=1), rtol=1e-3)  # bistochastic: rows sum to the pixels in them
    a = config.smooth * (np.diag(grid.mass) - blur) + np.diag(splat @ confidence.ravel())
    y = np.linalg.solve(a, splat @ (confidence * target).ravel())
    np.testing.assert_allclose(solve(picture, target, confidence, config), y[grid.vertex].reshape(6, 7), atol=1e-8)


def test_the_solver_moves_a_coarse_edge_to_the_pictures_edge() -> None:
    picture = np.where(np.arange(32)[None] < 13, 0.1, 0.9) * np.ones((32, 1))
    target = np.where(np.arange(32)[None] < 16, 0.0, 1.0) * np.ones((32, 1))  # known to whole patches of 8 only
    smooth = solve(picture, target, np.full((32, 32), 0.5))
    assert (smooth[:, 14:] > 0.5).all()
    assert (smooth[:, :12] < 0.5).all()


def test_background_grows_from_the_least_looked_at() -> None:
    keys = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    attention = np.array([[0.05, 0.1, 0.4, 0.4], [0.1, 0.1, 0.3, 0.3]])
    # two heads of one key feature each, equally even: the seed is patch 0
    np.testing.assert_array_equal(foreground(attention, keys, 0.3), [False, False, True, True])


def test_objects_and_their_agreement() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:6, 2:6] = mask[10:15, 10:15] = True
    mask[18, 18] = True
    np.testing.assert_allclose(objects(mask, 4), [(3.5, 3.5), (12.0, 12.0)])
    assert objects(np.zeros((5, 5), dtype=bool), 1).shape == (0, 2)
    one = agreement(np.array([(3.0, 3.0), (4.0, 4.0), (12.0, 13.0)]), np.array([(3.5, 3.5), (12.0, 12.0)]))
    assert (one.found, one.true, one.matched) == (3, 2, 2)  # two found for one nucleus count once
    assert one.f1 == pytest.approx(2 * 2 / 5)
    assert agreement(np.empty((0, 2)), np.ones((3, 2))).f1 == 0.0


def test_a_segmentation_has_the_pictures_shape() -> None:
    torch.manual_seed(0)
    net = VisionTransformer(VitConfig(16, 4, 16, 2, 2)).eval()
    plane = np.random.default_rng(0).random((30, 26), dtype=np.float32)
    mask = segment(net, plane, FoundConfig(zoom=1.0))
    assert mask.shape == (30, 26)
    np.testing.assert_array_equal(mask, segment(net, plane, FoundConfig(zoom=1.0)))
