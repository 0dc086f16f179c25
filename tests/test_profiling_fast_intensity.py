"""MeasureObjectIntensity: CellProfiler's numbers, a square by hand, ties, and what a permutation of labels does."""

import numpy as np
import pytest
from fast_golden import CHANNELS, FIELDS, OBJECTS, far, load

from profiling.engines.families import intensity, pixel_order, tie_order
from profiling.engines.families.regions import regions
from profiling.engines.pipeline_settings import Intensity

ALL = Intensity(CHANNELS, OBJECTS)
ONE = Intensity(("DNA",), ("Cells",))
NAMES = intensity.names(ONE)


def column(values: np.ndarray, name: str) -> np.ndarray:
    return values[:, NAMES.index(name)]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("owner", OBJECTS)
def test_values_are_those_of_cellprofiler(field: str, owner: str) -> None:
    """All of them, tied places included; 1.2e-7 is twice what the goldens' float32 keeps."""
    golden = load(field)
    values = intensity.measure(regions(golden.labels[owner]), golden.pictures, ALL)
    assert far(golden, owner, intensity.names(ALL), values, 1.2e-7) == {}


def test_an_object_by_hand() -> None:
    labels, picture = np.zeros((5, 8), np.int32), np.zeros((5, 8), np.float32)
    labels[1:4, 2:6] = 1
    picture[1:4, 2:6] = np.arange(1, 13, dtype=np.float32).reshape(3, 4) / 16
    values = intensity.measure(regions(labels), {"DNA": picture}, ONE)
    x = np.arange(1, 13) / 16
    edge = np.delete(x, [5, 6])
    by_hand = {
        "Intensity_IntegratedIntensity_DNA": x.sum(), "Intensity_StdIntensity_DNA": x.std(),
        "Intensity_MinIntensity_DNA": 1 / 16, "Intensity_MaxIntensity_DNA": 12 / 16,
        "Intensity_IntegratedIntensityEdge_DNA": edge.sum(), "Intensity_StdIntensityEdge_DNA": edge.std(),
        # CellProfiler's quantiles: element 12 q of the sorted pixels, which is one further than the usual one.
        "Intensity_LowerQuartileIntensity_DNA": 4 / 16, "Intensity_MedianIntensity_DNA": 7 / 16,
        "Intensity_UpperQuartileIntensity_DNA": 10 / 16, "Intensity_MADIntensity_DNA": 3 / 16,
        "Location_MaxIntensity_X_DNA": 5, "Location_MaxIntensity_Y_DNA": 3,
        "Location_CenterMassIntensity_X_DNA": (x * np.tile([2, 3, 4, 5], 3)).sum() / x.sum(),
        "Location_CenterMassIntensity_Z_DNA": 0,
    }  # fmt: skip
    for name, expected in by_hand.items():
        assert column(values, name)[0] == pytest.approx(expected, rel=1e-12), name


def test_edges_are_towards_other_labels_and_not_towards_the_frame() -> None:
    labels = np.ones((4, 6), np.int32)
    labels[:, 3:] = 2
    values = intensity.measure(regions(labels), {"DNA": np.ones((4, 6), np.float32)}, ONE)
    assert column(values, "Intensity_IntegratedIntensityEdge_DNA").tolist() == [4, 4]
    whole = intensity.measure(regions(np.ones((4, 6), np.int32)), {"DNA": np.ones((4, 6), np.float32)}, ONE)
    assert column(whole, "Intensity_IntegratedIntensityEdge_DNA").tolist() == [0]


def test_stable_takes_the_first_maximum() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(1, 5, dtype=np.int32), 256).reshape(32, 32)
    picture = rng.integers(0, 4, (32, 32)).astype(np.float32) / 4
    values = intensity.measure(regions(labels), {"DNA": picture}, ONE, stable=True)
    for k in range(4):
        y, x = np.argwhere((picture == 0.75) & (labels == k + 1))[0]
        assert column(values, "Location_MaxIntensity_X_DNA")[k] == x
        assert column(values, "Location_MaxIntensity_Y_DNA")[k] == y


def test_permuted_labels_permute_the_rows() -> None:
    golden = load("sim128_crowded")
    labels = golden.labels["Cells"]
    n = int(labels.max())
    order = np.random.default_rng(1).permutation(n)
    renamed = np.concatenate([[0], order + 1]).astype(np.int32)[labels]
    first = intensity.measure(regions(labels), golden.pictures, ALL)
    np.testing.assert_array_equal(intensity.measure(regions(renamed), golden.pictures, ALL)[order], first)


def test_an_empty_label_is_a_row_of_nan() -> None:
    labels = np.zeros((4, 4), np.int32)
    labels[1:3, 1:3] = 2
    values = intensity.measure(regions(labels), {"DNA": np.ones((4, 4), np.float32)}, ONE)
    assert np.isnan(values[0]).all()
    assert not np.isnan(values[1]).any()


@pytest.mark.parametrize(
    ("values", "last", "checksum"),
    [
        ((np.arange(200) * 37) % 5, [172, 47, 112, 147, 62], 974932),
        (np.r_[np.arange(400), np.arange(399, -1, -1)] // 8, [392, 407, 399], 641362),
        # This one goes too deep and is left to the heap sort.
        (np.r_[np.arange(6000), np.arange(5999, -1, -1)] // 30, [6001, 6013, 5999], 624663),
    ],
)
def test_the_sort_is_numpys(values: np.ndarray, last: list[int], checksum: int) -> None:
    """What numpy 1.24.4's `argsort` of these arrays ends with, and sum of order × place modulo 1,000,003."""
    floats = values.astype(np.float64)
    order = np.arange(values.size, dtype=np.int32)
    tie_order._sort_around(floats, order, np.unique(floats))
    assert order[-len(last) :].tolist() == last
    assert int((order.astype(int) * np.arange(values.size)).sum() % 1000003) == checksum


@pytest.mark.parametrize("seed", range(4))
def test_ties_follow_the_whole_sort(seed: int) -> None:
    """The pruned sort leaves tied maxima as the sort of everything does."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 60, 5000).astype(np.float32)
    owner = rng.integers(0, 9, 5000).astype(np.int32)
    order = np.arange(5000, dtype=np.int32)
    tie_order._sort_around(values, order, np.unique(values))
    assert (np.diff(values[order]) >= 0).all()
    expected = np.empty(9, int)
    last = {int(k): int(i) for k, i in zip(owner[order], order, strict=True)}
    expected = np.array([last[k] for k in range(1, 9)])
    np.testing.assert_array_equal(tie_order.maximum_places(values, owner, 8), expected)


def test_the_order_of_pixels_is_numpys_stable_one() -> None:
    rng = np.random.default_rng(2)
    picture = rng.integers(0, 300, (40, 50)).astype(np.float32) / 299
    picture[0, 0] = -0.0
    flat = picture.ravel()
    order = pixel_order.rising(picture)
    np.testing.assert_array_equal(order, np.argsort(flat + np.float32(0), kind="stable"))
    assert pixel_order.median(order, flat) == np.median(flat)
    for centre in (np.float32(0.3), flat.max(), flat.min()):
        assert pixel_order.median_distance(order, flat, centre) == np.median(np.abs(flat - centre))
    assert pixel_order.extremes(order, flat) == ((flat == flat.max()).sum(), (flat == flat.min()).sum())
