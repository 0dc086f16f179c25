"""Distances between sets of pictures against closed forms, naive loops and MONAI; axioms and copies whose truth is
known.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.counterfactual import CounterfactualError, along_across, axioms, composition
from ldm.features import FeatureError, rings, textures
from ldm.fidelity import FidelityError, Moments, density_coverage, fid, kid, standardised
from ldm.grid import GridError, grid, save_grid
from ldm.memorise import MemorisationError, memory, nearest

RNG = np.random.default_rng(0)
A = RNG.standard_normal((120, 6)) @ RNG.standard_normal((6, 6))
B = RNG.standard_normal((90, 6)) @ RNG.standard_normal((6, 6)) + 0.4


def moments(rows: np.ndarray, batch: int = 1000) -> Moments:
    found = Moments()
    for start in range(0, len(rows), batch):
        found.add(rows[start : start + batch])
    return found


def test_streamed_moments_are_those_of_all_rows() -> None:
    found = moments(A + 1e4, 7)
    np.testing.assert_allclose(found.mean, A.mean(0) + 1e4, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(A.T), rtol=1e-8)
    with pytest.raises(FidelityError, match="got 5, expected 6 as before"):
        found.add(np.zeros((2, 5)))


def test_fid_of_two_gaussians_is_the_closed_form() -> None:
    one, other = (
        Moments(2, np.array([0.0, 1.0]), np.diag([4.0, 1.0])),
        Moments(2, np.array([3.0, 1.0]), np.diag([1.0, 9.0])),
    )
    # diagonal: sum (m1 - m2)^2 + (sd1 - sd2)^2
    assert fid(one, other) == pytest.approx(9.0 + (2.0 - 1.0) ** 2 + (1.0 - 3.0) ** 2)
    assert fid(moments(A), moments(A)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MONAI's matrix square root asks SciPy in the old way
def test_fid_is_monais() -> None:
    from monai.metrics import FIDMetric

    oracle = float(FIDMetric()(torch.from_numpy(A), torch.from_numpy(B)))
    # MONAI takes a matrix square root numerically
    assert fid(moments(A, 11), moments(B, 13)) == pytest.approx(oracle, rel=1e-6)


def test_kid_is_the_unbiased_mean_over_all_pairs() -> None:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1.0) ** 3)

    a, b = A[:9], B[:7]
    rr = np.mean([kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    gg = np.mean([kernel(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    rg = np.mean([kernel(x, y) for x in a for y in b])
    assert kid(a, b) == pytest.approx(rr + gg - 2.0 * rg)
    assert kid(a, b, block=2) == pytest.approx(kid(a, b))
    # unbiased: the mean over draws from one law is 0 within three standard errors
    draws = [kid(*np.split(np.random.default_rng(i).standard_normal((40, 3)), 2)) for i in range(200)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(200)


def test_density_and_coverage_are_those_of_the_naive_loops() -> None:
    k = 3
    radius = [sorted(np.linalg.norm(A - x, axis=1))[k] for x in A]
    inside = np.array([[np.linalg.norm(g - x) <= r for g in B] for x, r in zip(A, radius, strict=True)])
    density, coverage = density_coverage(A, B, k)
    assert density == pytest.approx(inside.sum() / (k * len(B)))
    assert coverage == pytest.approx(inside.any(1).mean())
    assert density_coverage(A, A, k)[1] == 1.0
    assert density_coverage(A, A + 1e3, k) == (0.0, 0.0)
    with pytest.raises(FidelityError, match="expected more than 5"):
        density_coverage(A[:5], B)


def test_features_see_what_they_name() -> None:
    pictures = RNG.random((4, 3, 32, 32))
    names = textures(pictures).shape[1]
    assert names == 3 * (3 + 5 + len(rings(32, 32)) + 1) + 3
    assert sum(int(ring.sum()) for ring in rings(32, 32)) == 32 * 17 - 1  # every frequency but the mean, once
    rolled = np.roll(pictures, 5, axis=-1)
    # a shift around the border changes gradients across it and nothing else
    assert np.isclose(textures(pictures), textures(rolled), rtol=1e-3).mean() > 0.9
    blurred = (pictures + np.roll(pictures, 1, -1) + np.roll(pictures, 1, -2)) / 3
    assert (textures(blurred)[:, 3:6] < textures(pictures)[:, 3:6]).all()  # sd
    grey = np.repeat(pictures[:, :1], 3, axis=1)
    np.testing.assert_allclose(textures(grey)[:, -3:], 1.0)
    with pytest.raises(FeatureError, match="8 pixels or more"):
        textures(pictures[..., :4])


def test_sets_are_put_on_the_scale_of_the_real_one() -> None:
    real = np.column_stack([A, np.ones(len(A))])
    one, other = standardised(real, real + 1.0)
    assert one.shape[1] == 6
    np.testing.assert_allclose(one.std(0), 1.0)
    np.testing.assert_allclose(other.mean(0), 1.0 / A.std(0))


def test_axioms_of_known_models() -> None:
    factual, truth = RNG.standard_normal((200, 12)), RNG.standard_normal((200, 12))
    perfect = axioms(factual, factual + truth, factual, factual + truth, factual)
    assert perfect == {
        "composition": 0.0,
        "effectiveness": 1.0,
        "reach": pytest.approx(1.0),
        "minimality": pytest.approx(0.0, abs=1e-9),
        "target": 1.0,
    }
    deaf = axioms(factual, factual + truth, factual, factual, factual)
    assert deaf["effectiveness"] == pytest.approx(0.0)
    assert deaf["reach"] == pytest.approx(0.0)
    assert deaf["target"] == 0.0
    half = axioms(factual, factual + truth, factual, factual + 0.5 * truth, factual + 0.1)
    assert half["effectiveness"] == pytest.approx(0.75)
    assert half["reach"] == pytest.approx(0.5)
    assert half["composition"] == pytest.approx(0.1, rel=0.15)
    noisy = axioms(factual, factual + truth, factual, factual + truth + RNG.standard_normal(truth.shape), factual)
    assert noisy["minimality"] == pytest.approx(1.0, abs=0.1)


def test_a_change_is_split_along_and_across_the_truth() -> None:
    along, across = along_across(np.array([[3.0, 4.0], [1.0, 1.0]]), np.array([[2.0, 0.0], [0.0, 0.0]]))
    assert (along[0], across[0]) == (1.5, 2.0)
    assert np.isnan(along[1])
    with pytest.raises(CounterfactualError, match="measure the same rows"):
        composition(np.zeros((3, 2)), np.zeros((2, 2)))


def test_copies_are_found_and_new_pictures_are_not() -> None:
    training, fresh, other = (RNG.standard_normal((n, 5)) for n in (300, 200, 200))
    naive = np.linalg.norm(fresh[:, None] - training[None], axis=2)
    distance, where = nearest(fresh, np.array_split(training, 7))
    np.testing.assert_allclose(distance, naive.min(1))
    assert where.tolist() == naive.argmin(1).tolist()
    held = nearest(other, [training])[0]
    assert memory(distance, held)["ratio"] == pytest.approx(1.0, abs=0.15)
    assert memory(distance, held)["copies"] < 0.05
    copied, at = nearest(training[:50] + 1e-6, [training])
    assert at.tolist() == list(range(50))
    assert memory(copied, held)["copies"] == 1.0
    assert memory(copied, held)["ratio"] < 0.01
    with pytest.raises(MemorisationError, match="got none"):
        nearest(fresh, [])


def test_the_grid_keeps_real_left_and_one_scale(tmp_path: Path) -> None:
    real = np.zeros((2, 3, 10, 8))
    real[..., 5:, :] = 1.0
    canvas = grid(real, real * 0.5, share=0.0)
    assert canvas.shape == (2 * 14 - 4, 2 * 3 * 12 + 12)
    assert canvas[9, 0] == 255  # real, bright half
    assert canvas[9, 3 * 12 + 16] == 128  # generated, on the real scale
    save_grid(real, real, ("DNA", "ER", "RNA"), tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (canvas.shape[1], canvas.shape[0] + 14)
    with pytest.raises(GridError, match="expected one shape"):
        grid(real, real[:1])
