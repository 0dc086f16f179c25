"""Our compiled kernels against plain definitions written out here."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from skimage.morphology import disk, opening

from profiling.engines.cellprofiler_worker import frames


def load(name: str) -> ModuleType:
    """A module of the worker as it runs there: compiled, and not wrapped by the test-time type checker."""
    path = Path(__file__).resolve().parents[1] / f"profiling/engines/cellprofiler_worker/{name}.py"
    spec = importlib.util.spec_from_file_location(f"worker_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # numba's cache names a kernel's module and looks it up when it loads the kernel
    spec.loader.exec_module(module)
    return module


haralick, morphology = load("haralick"), load("morphology")


def naive_haralick(picture: np.ndarray, dy: int, dx: int, ignore_zeros: bool) -> np.ndarray:
    """Haralick's features from the full co-occurrence matrix, term by term."""
    levels = int(picture.max()) + 1
    p = np.zeros((levels, levels))
    h, w = picture.shape
    for y in range(h):
        for x in range(w):
            if 0 <= y + dy < h and 0 <= x + dx < w:
                i, j = picture[y, x], picture[y + dy, x + dx]
                if not (ignore_zeros and (i == 0 or j == 0)):
                    p[i, j] += 1
                    p[j, i] += 1
    p /= p.sum()
    i, j = np.indices(p.shape)
    px = p.sum(1)
    k = np.arange(levels)
    mu, var = (k * px).sum(), (k * k * px).sum() - (k * px).sum() ** 2
    plus = np.array([p[i + j == s].sum() for s in range(2 * levels)])
    minus = np.array([p[np.abs(i - j) == s].sum() for s in range(levels)])

    def entropy(q: np.ndarray) -> float:
        q = q[q > 0]
        return float(-(q * np.log2(q)).sum())

    s = np.arange(2 * levels)
    hxy, hx = entropy(p.ravel()), entropy(px)
    outer = np.outer(px, px)
    hxy1 = -(p[outer > 0] * np.log2(outer[outer > 0])).sum()
    hxy2 = entropy(outer.ravel())
    return np.array([
        (p**2).sum(), (k * k * minus).sum(), ((i * j * p).sum() - mu**2) / var, var, (p / (1 + (i - j) ** 2)).sum(),
        (s * plus).sum(), (s * s * plus).sum() - (s * plus).sum() ** 2, entropy(plus), hxy, minus.var(), entropy(minus),
        (hxy - hxy1) / hx, np.sqrt(max(0.0, 1 - np.exp(-2 * (hxy2 - hxy)))),
    ])  # fmt: skip


@pytest.mark.parametrize("distance", [1, 3])
@pytest.mark.parametrize("ignore_zeros", [False, True])
def test_haralick_is_its_definition(distance: int, ignore_zeros: bool) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 12, (14, 17)).astype(np.uint8)
    picture[:, :4] = 0
    found = haralick.haralick(picture, ignore_zeros=ignore_zeros, distance=distance)
    for row, (dy, dx) in zip(found, ((0, 1), (1, 1), (1, 0), (1, -1)), strict=True):
        expected = naive_haralick(picture, dy * distance, dx * distance, ignore_zeros)
        assert row == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_haralick_refuses_what_it_cannot_do() -> None:
    with pytest.raises(haralick.NoPixelPairs):
        haralick.haralick(np.ones((3, 3), np.uint8), distance=5)
    with pytest.raises(TypeError, match="2-D"):
        haralick.haralick(np.ones((3, 3, 3), np.uint8))


def naive_reconstruct(seed: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Dilate by a cross and cut at the mask until nothing changes."""
    while True:
        padded = np.pad(seed, 1, constant_values=-np.inf)
        grown = np.max(
            [padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]], 0
        )
        grown = np.minimum(grown, mask)
        if np.array_equal(grown, seed):
            return seed
        seed = grown


@pytest.mark.parametrize("seed", range(5))
def test_reconstruction_is_its_definition_to_the_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((23, 31))
    start = np.where(rng.random(mask.shape) < 0.02, mask, mask * 0.1)
    assert np.array_equal(morphology.reconstruct(start.copy(), mask), naive_reconstruct(start, mask))


def test_reconstruction_finds_its_way_through_a_spiral() -> None:
    mask = np.zeros((41, 41))
    y = x = 20
    for k, (dy, dx) in zip(range(38), [(0, 1), (1, 0), (0, -1), (-1, 0)] * 10, strict=False):
        for _ in range(2 * (k // 2 + 1)):
            y, x = y + dy, x + dx
            if 0 <= y < 41 and 0 <= x < 41:
                mask[y, x] = 1.0
    start = np.zeros_like(mask)
    start[20, 21] = 1.0
    assert np.array_equal(morphology.reconstruct(start.copy(), mask), naive_reconstruct(start, mask))


def test_erosion_is_the_minimum_over_a_cross() -> None:
    picture = np.random.default_rng(2).random((9, 11)).astype(np.float32)
    padded = np.pad(picture, 1, constant_values=np.inf)
    expected = np.min([padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]], 0)
    assert np.array_equal(morphology.erode_cross(picture, np.empty_like(picture)), expected)


@pytest.mark.parametrize("radius", [1, 4, 10])
def test_opening_by_a_disk_is_scikit_images_to_the_bit(radius: int) -> None:
    picture = np.random.default_rng(3).random((25, 19)).astype(np.float32)
    assert np.array_equal(morphology.open_disk(picture, radius), opening(picture, disk(radius)))


def test_frames_keep_names_types_and_values() -> None:
    arrays = {"values/Cells": np.arange(6.0).reshape(2, 3), "picture": np.zeros((1, 2), np.float32)}
    body = frames.encode({"error": "µm", "n": 3}, arrays)
    (length,) = frames.PREFIX.unpack(body[: frames.PREFIX.size])
    assert length == len(body) - frames.PREFIX.size
    header, back = frames.decode(body[frames.PREFIX.size :])
    assert header == {"error": "µm", "n": 3}
    assert sorted(back) == sorted(arrays)
    assert all(np.array_equal(back[k], arrays[k]) and back[k].dtype == arrays[k].dtype for k in arrays)
