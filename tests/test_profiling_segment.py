"""Segmentation: CellProfiler's labels pixel by pixel, its thresholds, and the kernels against slow or known answers."""

import heapq
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
from skimage.filters import threshold_li

from profiling import segment_kernels as kernels
from profiling.engines.pipeline_steps import read_plan
from profiling.segment import (
    InvalidSegmentation,
    Objects,
    Primary,
    Secondary,
    Tertiary,
    identify_primary,
    identify_secondary,
    identify_tertiary,
    outline,
)
from profiling.threshold import InvalidThreshold, Threshold, foreground, otsu, sum_of_entropies, weighted_variance

GOLDEN = Path(__file__).resolve().parent / "golden/profiling/fast"
FIELDS = sorted(path.stem for path in GOLDEN.glob("*.npz"))
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")


def golden(field: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Pictures by channel, and the arrays of the file."""
    with np.load(GOLDEN / f"{field}.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    return dict(zip(CHANNELS, (arrays["picture"] / 65535.0).astype(np.float32), strict=True)), arrays


@pytest.mark.parametrize("field", FIELDS)
def test_labels_are_those_of_cellprofiler(field: str) -> None:
    pictures, arrays = golden(field)
    found: dict[str, Objects] = {}
    thresholds = {}
    for step in read_plan(field.split("_")[0]).steps:
        if isinstance(step, Primary):
            found[step.objects], fore = identify_primary(pictures[step.image], step)
            thresholds[step.objects] = fore, pictures[step.image]
        elif isinstance(step, Secondary):
            found[step.objects], left, fore = identify_secondary(pictures[step.image], found[step.primary], step)
            thresholds[step.objects] = fore, pictures[step.image]
            if left is not None:
                found[step.new_primary] = left
        elif isinstance(step, Tertiary):
            found[step.objects] = identify_tertiary(found[step.larger], found[step.smaller], step)
    for name in ("Nuclei", "Cells", "Cytoplasm"):
        np.testing.assert_array_equal(found[name].labels, arrays[f"labels/{name}"], err_msg=name)
    told = dict(zip(arrays["names/Image"].tobytes().decode().split("\n"), arrays["values/Image"], strict=True))
    for name, (fore, picture) in thresholds.items():
        # The module sums variances in single precision, as here, but in another order.
        got = (fore.final, fore.found, weighted_variance(picture, fore.mask), sum_of_entropies(picture, fore.mask))
        kinds = ("FinalThreshold", "OrigThreshold", "WeightedVariance", "SumOfEntropies")
        np.testing.assert_allclose(got, [told[f"Threshold_{kind}_{name}"] for kind in kinds], rtol=1e-6)


def test_otsu_parts_two_levels() -> None:
    pixels = np.repeat(np.array([0.1, 0.5], np.float32), [300, 100])
    assert 0.1 < otsu(pixels) < 0.5
    mask = foreground(pixels.reshape(20, 20), Threshold()).mask
    assert mask.sum() == 100


def test_threshold_bounds_and_manual() -> None:
    picture = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    assert foreground(picture, Threshold(low=0.9)).final == 0.9
    assert foreground(picture, Threshold(method="Manual", manual=0.25)).mask.sum() == 75
    assert foreground(picture, Threshold(correction=0.5)).final == pytest.approx(0.5 * otsu(picture.ravel()), rel=1e-6)
    li = foreground(picture, Threshold(method="Minimum Cross-Entropy")).found
    assert li == pytest.approx(threshold_li(picture, tolerance=0.5 / 65536), abs=2e-4)
    with pytest.raises(InvalidThreshold, match="Adaptive"):
        Threshold(strategy="Adaptive")


def flood(picture: np.ndarray, markers: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The rule in a few slow lines: the lowest pixel spreads first, of equal ones the one that waited longest."""
    out, waiting, age = markers.copy(), [(picture[p], 0, p) for p in zip(*np.nonzero(markers), strict=True)], 0
    heapq.heapify(waiting)
    straight_first = sorted(itertools.product((-1, 0, 1), repeat=2), key=lambda d: d[0] ** 2 + d[1] ** 2)
    while waiting:
        _, _, (y, x) = heapq.heappop(waiting)
        for dy, dx in straight_first:
            p = y + dy, x + dx
            if 0 <= p[0] < len(out) and 0 <= p[1] < len(out[0]) and mask[p] and not out[p]:
                age += 1
                out[p] = out[y, x]
                heapq.heappush(waiting, (picture[p], age, p))
    return out


@pytest.mark.parametrize("levels", [4, 40, 1_000_000])
def test_watershed_floods_by_height_then_age(levels: int) -> None:
    """scikit-image 0.20's rule, which CellProfiler has; later releases raise pixels below their neighbour."""
    rng = np.random.default_rng(levels)
    picture = rng.integers(8, 8 + levels, (40, 50)).astype(float)
    markers = np.zeros((40, 50), np.int32)
    for k in range(1, 8):
        y, x = rng.integers(0, 40), rng.integers(0, 50)
        markers[y, x], picture[y, x] = k, k
    mask = (rng.random((40, 50)) < 0.9) | (markers > 0)
    np.testing.assert_array_equal(kernels.watershed(picture, markers, mask), flood(picture, markers, mask))


def test_propagation_on_a_flat_picture_counts_steps() -> None:
    seeds = np.zeros((7, 9), np.int32)
    seeds[3, 1], seeds[3, 7] = 1, 2
    labels, distance = kernels.propagate(np.zeros((7, 9)), seeds, np.ones((7, 9), bool), 1.0)
    assert (labels[:, :4] == 1).all()
    assert (labels[:, 5:] == 2).all()
    assert (labels[:, 4] == 1).all()  # a tie goes to the lower number
    assert distance[3, 4] == 3.0
    assert distance[0, 1] == 3.0
    assert distance[4, 2] == pytest.approx(np.sqrt(2))
    walled = np.ones((7, 9), bool)
    walled[:, 4] = False
    assert (kernels.propagate(np.zeros((7, 9)), seeds, walled, 1.0)[0][:, 4] == 0).all()


def test_propagation_stops_at_an_edge_in_the_picture() -> None:
    picture = np.zeros((5, 12))
    picture[:, 8:] = 1.0
    seeds = np.zeros((5, 12), np.int32)
    seeds[2, 1], seeds[2, 11] = 1, 2
    labels = kernels.propagate(picture, seeds, np.ones((5, 12), bool), 0.01)[0]
    assert (labels[:, :7] == 1).all()
    assert (labels[:, 9:] == 2).all()


def test_fill_holes_of_one_owner_only() -> None:
    labels = np.zeros((9, 12), np.int32)
    labels[1:6, 1:6], labels[1:6, 6:11] = 1, 2
    labels[3, 3] = 0  # a hole of object 1
    labels[3, 5:7] = 0  # between both
    labels[2, 8] = 3  # an object inside object 2
    filled = kernels.fill_holes(labels)
    assert filled[3, 3] == 1
    assert (filled[3, 5:7] == 0).all()
    assert filled[2, 8] == 2
    assert kernels.fill_holes(labels, objects=False)[2, 8] == 3
    assert kernels.fill_holes((labels == 1).astype(np.int32), 1.0)[3, 3] == 0  # a pixel is not below one pixel


def test_shrink_keeps_one_point_a_blob() -> None:
    rng = np.random.default_rng(3)
    blobs = scipy.ndimage.binary_dilation(rng.random((40, 40)) < 0.01, iterations=3)
    count = scipy.ndimage.label(blobs, np.ones((3, 3)))[1]
    points = kernels.shrink(scipy.ndimage.binary_fill_holes(blobs))
    assert scipy.ndimage.label(points, np.ones((3, 3)))[1] == count
    assert points.sum() == count
    assert (points <= scipy.ndimage.binary_fill_holes(blobs)).all()


def test_outline_is_eight_connected_and_takes_the_frame() -> None:
    labels = np.zeros((7, 7), np.int32)
    labels[0:5, 1:6] = 1
    inside = ~outline(labels) & (labels > 0)
    assert inside.sum() == 3 * 3  # rows 1 to 3, columns 2 to 4


def settings(plan: str = "sim128") -> tuple[Primary, Secondary]:
    steps = read_plan(plan).steps
    assert isinstance(steps[0], Primary)
    assert isinstance(steps[1], Secondary)
    return steps[0], steps[1]


def test_other_ways_to_declump_and_grow() -> None:
    pictures, _ = golden("sim128_touching")
    primary, secondary = settings()
    by_shape = identify_primary(pictures["DNA"], primary)[0]
    for changed in (
        replace(primary, maxima="Intensity", watershed="Propagate"),
        replace(primary, maxima="Intensity", watershed="Intensity", smoothing=None, suppression=None),
        replace(primary, watershed="Shape", fill_holes="Never", diameter=(12.0, 40.0), low_resolution=True),
        replace(primary, advanced=False),
    ):
        found = identify_primary(pictures["DNA"], changed)[0]
        assert 0.5 * by_shape.count <= found.count <= 1.5 * by_shape.count
    clumps = identify_primary(pictures["DNA"], replace(primary, maxima="None"))[0]
    assert clumps.count < by_shape.count
    for method in ("Watershed - Image", "Watershed - Gradient", "Distance - B", "Distance - N"):
        cells, left, _ = identify_secondary(pictures["RNA"], by_shape, replace(secondary, method=method))
        assert left is not None
        assert left.count == cells.count > 0
        kept = left.labels > 0
        assert (cells.labels[kept] == left.labels[kept]).mean() > 0.99
    with pytest.raises(InvalidSegmentation, match="method"):
        identify_secondary(pictures["RNA"], by_shape, replace(secondary, method="Magic"))
    with pytest.raises(InvalidSegmentation, match="maxima"):
        identify_primary(pictures["DNA"], replace(primary, maxima="Magic"))


def test_distance_n_is_a_dilation() -> None:
    seeds = np.zeros((21, 21), np.int32)
    seeds[10, 10] = 1
    _, secondary = settings()
    chosen = replace(secondary, method="Distance - N", distance=4.0)
    cells, _, fore = identify_secondary(np.zeros((21, 21), np.float32), Objects.of(seeds), chosen)
    y, x = np.mgrid[-10:11, -10:11]
    np.testing.assert_array_equal(cells.labels, (y * y + x * x <= 16).astype(np.int32))
    assert fore is None
