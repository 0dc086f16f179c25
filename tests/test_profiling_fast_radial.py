"""Rings and intensity Zernikes: CellProfiler's numbers, distances against plain definitions, ties, refusals."""

import heapq

import numpy as np
import pytest
import scipy.ndimage
from fast_golden import CHANNELS, FIELDS, OBJECTS, far, load

from profiling.engines.families import edge_distance, radial, tie_order
from profiling.engines.families.regions import regions
from profiling.engines.pipeline_settings import Bins, Distribution
from profiling.engines.settings import InvalidSettings

OWN = tuple((name, "These objects", "None") for name in OBJECTS)
RINGS = Distribution(CHANNELS, OWN, (Bins(True, 4, 100),), "None", 9)
ZERNIKES = Distribution(CHANNELS, OWN, (Bins(True, 4, 100),), "Magnitudes and phase", 9)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("owner", OBJECTS)
def test_values_are_those_of_cellprofiler(field: str, owner: str) -> None:
    """All of them, although the centres are ties; 1.2e-7 is twice what the goldens' float32 keeps."""
    golden = load(field)
    settings = ZERNIKES if golden.settings == "full" else RINGS
    values = radial.measure(regions(golden.labels[owner]), golden.pictures, settings)
    assert far(golden, owner, radial.names(settings), values, 1.2e-7) == {}


def blobs(seed: int = 0) -> np.ndarray:
    """Labels that touch each other and the frame, one of them in two pieces, one hollow."""
    rng = np.random.default_rng(seed)
    field = scipy.ndimage.gaussian_filter(rng.standard_normal((48, 60)), 3)
    labels = (np.digitize(field, np.quantile(field, [0.3, 0.5, 0.7]))).astype(np.int32)
    labels[:, 30:][labels[:, 30:] > 0] += 3
    return labels


def test_the_distance_to_the_edge_is_that_of_each_object_alone() -> None:
    labels = blobs()
    found = edge_distance.squared_to_edge(regions(labels))
    expected = np.zeros(labels.shape)
    for k in range(1, labels.max() + 1):
        expected += scipy.ndimage.distance_transform_edt(labels == k) ** 2
    np.testing.assert_array_equal(found, np.rint(expected))


def shortest(mask: np.ndarray, source: tuple[int, int]) -> np.ndarray:
    """Dijkstra on the 8-connected pixels of a mask."""
    out = np.full(mask.shape, np.inf)
    out[source] = 0.0
    queue = [(0.0, *source)]
    while queue:
        d, y, x = heapq.heappop(queue)
        if d > out[y, x]:
            continue
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                yy, xx = y + dy, x + dx
                if (dy or dx) and 0 <= yy < mask.shape[0] and 0 <= xx < mask.shape[1] and mask[yy, xx]:
                    new = d + (np.sqrt(2) if dy and dx else 1.0)
                    if new < out[yy, xx]:
                        out[yy, xx] = new
                        heapq.heappush(queue, (new, yy, xx))
    return out


def test_paths_stay_inside_the_object() -> None:
    labels = blobs()
    of = regions(labels)
    centres = tie_order.maximum_places(edge_distance.squared_to_edge(of).ravel(), labels.ravel(), of.n)
    found = edge_distance.path_from(of, centres)
    for k in range(of.n):
        expected = shortest(labels == k + 1, divmod(int(centres[k]), labels.shape[1]))[labels == k + 1]
        np.testing.assert_array_equal(found[of.start[k] : of.start[k + 1]], expected)
    assert np.isinf(found).any()


def test_a_disk_with_light_in_its_middle_by_hand() -> None:
    y, x = np.mgrid[-15:16, -15:16]
    labels = (y * y + x * x <= 12**2).astype(np.int32)
    picture = (labels * (y * y + x * x <= 4)).astype(np.float32)
    settings = Distribution(("DNA",), OWN, (Bins(True, 3, 100), Bins(False, 2, 4)), "None", 9)
    names = radial.names(settings)
    values = dict(zip(names, radial.measure(regions(labels), {"DNA": picture}, settings, stable=True)[0], strict=True))
    assert values["RadialDistribution_FracAtD_DNA_1of3"] == 1.0
    assert values["RadialDistribution_FracAtD_DNA_3of3"] == values["RadialDistribution_RadialCV_DNA_3of3"] == 0.0
    # Rings of two pixels around the centre: 13 bright pixels, the innermost nine of them nearer than 2.
    assert values["RadialDistribution_FracAtD_DNA_1of2"] == pytest.approx(9 / 13)
    assert values["RadialDistribution_FracAtD_DNA_2of2"] == pytest.approx(4 / 13)
    assert values["RadialDistribution_FracAtD_DNA_Overflow"] == 0.0
    assert values["RadialDistribution_MeanFrac_DNA_1of2"] == pytest.approx(9 / 13 / (9 / labels.sum()))
    assert len(names) == 3 * 3 + 3 * 3


def test_stable_forgets_what_lies_elsewhere() -> None:
    """The stock centre of an object moves when another object is added; the stable one does not."""
    labels = np.zeros((60, 60), np.int32)
    labels[4:20, 4:40] = 1
    picture = np.random.default_rng(0).random((60, 60)).astype(np.float32)
    more = labels.copy()
    for k, (y, x) in enumerate(((30, 5), (30, 30), (45, 8))):
        more[y : y + 9, x : x + 17] = k + 2
    settings = Distribution(("DNA",), OWN, (Bins(True, 4, 100),), "None", 9)

    def first(image: np.ndarray, stable: bool) -> np.ndarray:
        return radial.measure(regions(image), {"DNA": picture}, settings, stable=stable)[0]

    np.testing.assert_array_equal(first(labels, True), first(more, True))
    assert not np.array_equal(first(labels, False), first(more, False))


def test_other_centres_are_refused() -> None:
    settings = Distribution(("DNA",), (("Cells", "Centers of other objects", "Nuclei"),), RINGS.bins, "None", 9)
    with pytest.raises(InvalidSettings, match="These objects"):
        radial.names(settings)
