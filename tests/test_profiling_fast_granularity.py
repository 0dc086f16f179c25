"""Granularity: CellProfiler's numbers, morphology against scikit-image, resampling against scipy, known spots."""

import numpy as np
import pytest
import scipy.ndimage
import skimage.morphology
from fast_golden import CHANNELS, FIELDS, OBJECTS, far, load

from profiling.engines.families import component_tree, float32_sums, granularity, grey_morphology
from profiling.engines.families.regions import regions
from profiling.engines.pipeline_settings import Granularity
from profiling.engines.settings import InvalidSettings

JUMP = Granularity(CHANNELS, OBJECTS, 0.5, 0.5, 10, 16)
SMALL = Granularity(CHANNELS, OBJECTS, 1.0, 0.5, 10, 8)


@pytest.mark.parametrize("field", FIELDS)
def test_values_are_those_of_cellprofiler(field: str) -> None:
    """All of them. 1e-6 for objects: a step is a difference of two means, each right to 1e-15, and may be small."""
    golden = load(field)
    settings = SMALL if golden.settings == "sim128" else JUMP
    found = {owner: regions(golden.labels[owner]) for owner in OBJECTS}
    tables, whole = granularity.measure_all(found, golden.pictures, settings)
    for owner in OBJECTS:
        assert far(golden, owner, granularity.names(settings), tables[owner], 1e-6) == {}
    assert far(golden, "Image", granularity.image_names(settings), whole, 1e-9) == {}


@pytest.mark.parametrize("shape", [(17, 23), (40, 31), (1, 9)])
@pytest.mark.parametrize("radius", [1, 3, 7])
def test_morphology_is_scikit_images(shape: tuple[int, int], radius: int) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 60, shape).astype(np.int32)
    eroded = np.empty_like(picture)
    grey_morphology.erode_cross(picture, eroded)
    np.testing.assert_array_equal(eroded, skimage.morphology.erosion(picture, skimage.morphology.disk(1)))
    disk = skimage.morphology.disk(radius)
    expected = skimage.morphology.dilation(skimage.morphology.erosion(picture, disk), disk)
    np.testing.assert_array_equal(grey_morphology.open_disk(picture, radius), expected)


@pytest.mark.parametrize("smooth", [0.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_reconstruction_is_scikit_images(smooth: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 5000, (37, 52)).astype(float)
    mask = (scipy.ndimage.gaussian_filter(mask, smooth) if smooth else mask).astype(np.int32)
    seeds = np.where(rng.random(mask.shape) < 0.03, mask, np.maximum(mask - 900, 0)).astype(np.int32)
    expected = skimage.morphology.reconstruction(seeds, mask, footprint=skimage.morphology.disk(1))
    tree, out = component_tree.Tree(mask), np.empty_like(mask)
    tree.reconstruct(seeds, out)
    np.testing.assert_array_equal(out, expected)
    # What is left is a picture again: a second, lower seed cuts it further.
    lower = np.maximum(seeds - rng.integers(0, 700, seeds.shape).astype(np.int32), mask.min())
    again = skimage.morphology.reconstruction(lower, out, footprint=skimage.morphology.disk(1))
    tree.reconstruct(lower, out)
    np.testing.assert_array_equal(out, again)


@pytest.mark.parametrize("levels", [2, 60, 1 << 20])
def test_spectra_of_reconstructions_are_scikit_images(levels: int) -> None:
    rng = np.random.default_rng(levels)
    smooth = scipy.ndimage.gaussian_filter(rng.random((45, 61)), 1.2)
    picture = (np.round((smooth - smooth.min()) * levels) / levels).astype(np.float32)
    eroded = picture
    for found in granularity.reconstructions(picture, 6)[1:]:
        eroded = skimage.morphology.erosion(eroded, skimage.morphology.disk(1))
        expected = skimage.morphology.reconstruction(eroded, picture, footprint=skimage.morphology.disk(1))
        np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_a_way_through_a_spiral_and_a_single_column() -> None:
    mask = np.zeros((21, 21), np.int32)
    y = x = 10
    length, path = 2, [(10, 10)]
    for turn in range(16):
        for _ in range(length):
            y, x = y + (0, 1, 0, -1)[turn % 4], x + (1, 0, -1, 0)[turn % 4]
            if 0 <= y < 21 and 0 <= x < 21:
                path.append((y, x))
        length += 2 * (turn % 2)
    for k, place in enumerate(path):
        mask[place] = 9 - k // 40
    seed = np.zeros_like(mask)
    seed[path[0]] = 9
    out = np.empty_like(mask)
    component_tree.Tree(mask).reconstruct(seed, out)
    expected = skimage.morphology.reconstruction(seed, mask, footprint=skimage.morphology.disk(1))
    np.testing.assert_array_equal(out, expected)
    column, out = np.array([[3], [1], [4]], np.int32), np.empty((3, 1), np.int32)
    component_tree.Tree(column).reconstruct(np.array([[2], [1], [1]], np.int32), out)
    assert out.ravel().tolist() == [2, 1, 1]


@pytest.mark.parametrize("shape", [(9, 12), (33, 17)])
@pytest.mark.parametrize("size", [(5, 40), (70, 16)])
def test_resampling_is_scipys(shape: tuple[int, int], size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).random(shape).astype(np.float32)
    rows, columns = (np.arange(n) * ((old - 1) / (n - 1)) for n, old in zip(size, shape, strict=True))
    expected = scipy.ndimage.map_coordinates(picture, np.meshgrid(rows, columns, indexing="ij"), order=1)
    np.testing.assert_array_equal(granularity._sample(picture, rows, columns), expected)


@pytest.mark.parametrize("subsample", [1.0, 0.5, 0.25])
def test_the_operator_is_resampling_and_then_means(subsample: float) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (41, 56)).astype(np.int32)
    of = regions(labels)
    small = tuple(int(np.ceil(side * subsample)) for side in labels.shape)
    picture = rng.random(small).astype(np.float32)
    scale = [(side * subsample - 1) / (side - 1) for side in labels.shape]
    grid = np.mgrid[: labels.shape[0], : labels.shape[1]] * np.array(scale)[:, None, None]
    large = scipy.ndimage.map_coordinates(picture.astype(float), grid, order=1)
    expected = scipy.ndimage.mean(large, labels, np.arange(1, 5))
    found = granularity.operator(of, (small[0], small[1]), subsample).means(picture[None])[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_spots_vanish_at_their_size() -> None:
    """Squares of 3 and 7 pixels: an erosion by a cross takes one pixel off each side, so they vanish at 2 and at 4."""
    picture = np.zeros((60, 60), np.float32)
    picture[5:8, 5:8], picture[30:37, 30:37] = 0.5, 0.25
    labels = np.zeros((60, 60), np.int32)
    labels[3:10, 3:10], labels[25:45, 25:45] = 1, 2
    settings = Granularity(("DNA",), ("Cells",), 1.0, 1.0, 20, 5)
    values = granularity.measure(regions(labels), {"DNA": picture}, settings)
    np.testing.assert_allclose(values, [[0, 100, 0, 0, 0], [0, 0, 0, 100, 0]], atol=1e-12)
    light = 9 * 0.5, 49 * 0.25
    expected = [0, 100 * light[0] / sum(light), 0, 100 * light[1] / sum(light), 0]
    # 1e-5 of 100: the first of the means is taken in float32
    np.testing.assert_allclose(granularity.measure_image({"DNA": picture}, settings), expected, rtol=1e-6, atol=1e-5)


def test_a_grid_that_leaves_the_picture_is_refused() -> None:
    settings = Granularity(("DNA",), (), 0.4, 0.5, 10, 4)
    with pytest.raises(InvalidSettings, match="leaves the picture"):
        granularity.measure_image({"DNA": np.zeros((383, 383), np.float32)}, settings)


def test_float32_sums_are_those_of_numpy_1_24() -> None:
    """`sum`, `mean`, `std` and `var(ddof=1)` there of 20,000 float32 values (numpy 2 gives others)."""
    values = ((np.arange(20000) * 7919 % 10007 / 10007) ** 3).astype(np.float32)
    assert float(float32_sums.pairwise(values)) == 4999.2041015625
    assert float(float32_sums.mean(values)) == 0.24996019899845123
    assert float(float32_sums.deviation(values)) == 0.28344500064849854
    assert float(float32_sums.variance(values, 1)) == 0.08034507930278778
    assert float(float32_sums.pairwise(values[:5])) == float(np.sum(values[:5]))
