"""Sizes, shapes and Zernikes of objects: CellProfiler's numbers, known shapes, and what must not change them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from profiling.engines.families import areashape, zernike
from profiling.engines.families.hull import enclosing_circles, feret, hulls
from profiling.engines.families.regions import InvalidLabels, regions
from profiling.engines.pipeline_settings import SizeShape

GOLDEN = Path(__file__).resolve().parent / "golden/profiling/fast"
FIELDS = sorted(path.stem for path in GOLDEN.glob("*.npz"))
ALL = SizeShape(("Cells",), zernikes=True, advanced=True)
NAMES = areashape.names(ALL)
# Zero in exact arithmetic: CellProfiler's value is rounding noise.
NOISE = ("AreaShape_CentralMoment_0_1", "AreaShape_CentralMoment_1_0")


def one(values: np.ndarray, name: str) -> np.ndarray:
    return values[:, NAMES.index(f"AreaShape_{name}")]


def measure(labels: np.ndarray, *, stable: bool = True) -> np.ndarray:
    return areashape.measure(regions(labels), ALL, stable=stable)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("owner", ["Nuclei", "Cells", "Cytoplasm"])
def test_values_are_those_of_cellprofiler(field: str, owner: str) -> None:
    """1e-6 relative (float32 storage of the goldens: 6e-8), or 1e-9 of the column's largest value where a value is the
    difference of large ones. The sign of a tied orientation is CellProfiler's rounding: it may differ."""
    with np.load(GOLDEN / f"{field}.npz") as archive:
        labels, expected = archive[f"labels/{owner}"], archive[f"values/{owner}"].astype(float)
        names = archive[f"names/{owner}"].tobytes().decode().split("\n")
    got = measure(labels, stable=False)
    shared = [name for name in names if name.startswith("AreaShape") and name not in NOISE]
    assert len(shared) == (103 - 2 + 5 if field.startswith("full") else 55)
    for name in shared:
        a, b = expected[:, names.index(name)], got[:, NAMES.index(name)]
        if name == "AreaShape_Orientation":
            tied = np.isclose(np.abs(a), 45) & np.isclose(np.abs(b), 45)
            assert tied.sum() <= 1
            a, b = a[~tied], b[~tied]
        assert np.array_equal(np.isnan(a), np.isnan(b)), name
        scale = np.nanmax(np.abs(a), initial=0.0)
        worst = np.abs(a - b) - 1e-6 * np.maximum(np.abs(a), np.abs(b)) - 1e-9 * scale
        assert not (worst > 0).any(), (name, a[worst > 0], b[worst > 0])


def test_a_square_by_hand() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[4:10, 7:17] = 1  # 6 rows, 10 columns
    values = measure(labels)
    by_hand = {
        "Area": 60, "BoundingBoxArea": 60, "Extent": 1, "EulerNumber": 1, "ConvexArea": 60, "Solidity": 1,
        "Center_X": 11.5, "Center_Y": 6.5, "BoundingBoxMinimum_X": 7, "BoundingBoxMaximum_X": 17,
        "BoundingBoxMinimum_Y": 4, "BoundingBoxMaximum_Y": 10, "EquivalentDiameter": np.sqrt(240 / np.pi),
        "Perimeter": 28, "MaximumRadius": 3, "MinFeretDiameter": 5, "MaxFeretDiameter": np.hypot(5, 9),
        "MajorAxisLength": 4 * np.sqrt((10**2 - 1) / 12), "MinorAxisLength": 4 * np.sqrt((6**2 - 1) / 12),
        "Orientation": 90, "FormFactor": 4 * np.pi * 60 / 28**2, "Compactness": 28**2 / (4 * np.pi * 60),
        "SpatialMoment_0_0": 60, "SpatialMoment_0_1": 60 * 4.5, "SpatialMoment_1_0": 60 * 2.5,
        "CentralMoment_0_1": 0, "CentralMoment_0_2": 60 * 99 / 12, "InertiaTensor_0_0": 99 / 12,
        "InertiaTensorEigenvalues_1": 35 / 12, "NormalizedMoment_2_0": 35 / 12 / 60,
        "HuMoment_0": (99 / 12 + 35 / 12) / 60,
    }  # fmt: skip
    # The weights of corners: scikit-image counts every border pixel of a rectangle as 1.
    for name, expected in by_hand.items():
        assert one(values, name)[0] == pytest.approx(expected, rel=1e-12, abs=1e-12), name
    assert np.isnan(one(values, "NormalizedMoment_0_1")[0])


def test_holes_radii_and_hulls_of_a_ring() -> None:
    y, x = np.mgrid[-20:21, -20:21]
    square = y * y + x * x
    labels = ((square <= 256) & (square > 64)).astype(np.int32)
    values = measure(labels)
    assert one(values, "EulerNumber")[0] == 0
    assert one(values, "MaximumRadius")[0] == pytest.approx(4, abs=1)
    # The hull of the disk's edge midpoints: the disk, and what its digital outline leaves open.
    assert (square <= 256).sum() <= one(values, "ConvexArea")[0] <= 1.03 * np.pi * 16.5**2
    assert one(values, "Solidity")[0] < 0.8
    centre, radius = enclosing_circles(regions(labels))
    np.testing.assert_allclose(centre[0], [20, 20], atol=1e-9)
    assert radius[0] == pytest.approx(16, abs=0.2)


def test_one_pixel_and_an_absent_object() -> None:
    labels = np.zeros((5, 5), np.int32)
    labels[0, 4] = 2  # in the corner of the picture; there is no object 1
    values = measure(labels)
    assert np.isnan(values[0]).all()
    assert (one(values, "Area")[1], one(values, "ConvexArea")[1], one(values, "MaximumRadius")[1]) == (1, 1, 1)
    assert one(values, "MaxFeretDiameter")[1] == 0
    assert np.isnan(one(values, "Zernike_0_0")[1])  # as CellProfiler: the circle has no area
    assert np.isposinf(one(values, "FormFactor")[1])  # a pixel has no perimeter
    with pytest.raises(InvalidLabels, match="0 to 1"):
        regions(labels, 1)


def test_feret_of_a_triangle() -> None:
    labels = np.zeros((12, 12), np.int32)
    for i in range(10):
        labels[i, : i + 1] = 1
    h = hulls(regions(labels))
    assert len(h.y) == 3
    np.testing.assert_allclose(feret(h.start, h.y, h.x)[0], [9 / np.sqrt(2), 9 * np.sqrt(2)])


@st.composite
def label_images(draw: st.DrawFn) -> np.ndarray:
    """A few overlapping rectangles and disks, later ones on top, numbered without gaps, away from the frame."""
    labels = np.zeros((36, 40), np.int32)
    y, x = np.mgrid[:36, :40]
    for k in range(1, draw(st.integers(1, 5)) + 1):
        cy, cx, r, q = (draw(st.integers(a, b)) for a, b in ((8, 27), (8, 31), (2, 7), (1, 7)))
        inside = (
            (y - cy) ** 2 + (x - cx) ** 2 <= r * r if draw(st.booleans()) else (abs(y - cy) <= r) & (abs(x - cx) <= q)
        )
        labels[inside] = k
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


@settings(max_examples=25, deadline=None)
@given(label_images(), st.randoms(use_true_random=False))
def test_permuted_labels_permute_rows(labels: np.ndarray, random) -> None:
    n = int(labels.max())
    order = list(range(1, n + 1))
    random.shuffle(order)
    renamed = np.array([0, *order])[labels]
    np.testing.assert_array_equal(measure(renamed)[np.array(order) - 1], measure(labels))


PLACED = tuple(
    f"AreaShape_{kind}_{axis}" for kind in ("Center", "BoundingBoxMinimum", "BoundingBoxMaximum") for axis in "XY"
)


@settings(max_examples=25, deadline=None)
@given(label_images(), st.integers(0, 5), st.integers(0, 5))
def test_a_shift_changes_places_only(labels: np.ndarray, down: int, right: int) -> None:
    """All but the Zernikes to rounding: those leave out pixels on the enclosing circle by rounding, too (one pixel)."""
    shifted = measure(np.pad(labels, ((down, 0), (right, 0))))
    still = measure(labels)
    area = one(still, "Area")
    for k, name in enumerate(NAMES):
        if name in PLACED:
            np.testing.assert_allclose(shifted[:, k] - still[:, k], right if name.endswith("X") else down, atol=1e-9)
        elif "Zernike" in name:
            # At most three pixels lie on the circle; each adds at most 1 / (pi radius^2) < 1 / area of its hull.
            assert (np.abs(shifted[:, k] - still[:, k])[area > 9] <= 3 / area[area > 9] + 1e-12).all(), name
        else:
            np.testing.assert_allclose(shifted[:, k], still[:, k], rtol=1e-9, atol=1e-9, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(label_images(), st.integers(1, 3))
def test_a_rotation_by_right_angles_keeps_zernikes_and_sizes(labels: np.ndarray, turns: int) -> None:
    rotated, still = measure(np.rot90(labels, turns)), measure(labels)
    area = one(still, "Area")
    for k, name in enumerate(NAMES):
        if "Zernike" in name:
            assert (np.abs(rotated[:, k] - still[:, k])[area > 9] <= 3 / area[area > 9] + 1e-12).all(), name
    for name in ("Area", "Perimeter", "EulerNumber", "ConvexArea", "MajorAxisLength", "MaxFeretDiameter",
                 "MinFeretDiameter", "MeanRadius", "MedianRadius", "HuMoment_1", "HuMoment_3"):  # fmt: skip
        np.testing.assert_allclose(one(rotated, name), one(still, name), rtol=1e-9, atol=1e-9, err_msg=name)


def test_zernikes_of_a_turned_ellipse_stay() -> None:
    """By 30 degrees: only resampling moves them, most by the circle's radius: 0.25 pixel of 36 moves A_00 by 1 %."""
    y, x = np.mgrid[-50:51, -50:51].astype(float)

    def ellipse(angle: float) -> np.ndarray:
        u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
        return ((u / 36) ** 2 + (v / 20) ** 2 <= 1).astype(np.int32)

    straight = zernike.measure(regions(ellipse(0.0)))
    turned = zernike.measure(regions(ellipse(np.pi / 6)))
    assert np.abs(straight - turned).max() < 1e-2
    assert straight.max() > 0.3


def test_zernikes_of_a_disk_are_those_of_the_unit_disk() -> None:
    """|A_00| = area / (pi r^2) = 1, and all others vanish by orthogonality; discretisation of radius 60: 2 %."""
    y, x = np.mgrid[-62:63, -62:63]
    values = zernike.measure(regions((y * y + x * x <= 3600).astype(np.int32)))[0]
    assert values[0] == pytest.approx(1.0, abs=0.02)
    assert values[1:].max() < 0.02


def test_published_areas_of_nf1_nuclei(real_data: Path) -> None:
    """CellProfiler's published values of three cells, on the published masks: 0.6 % at most."""
    root = real_data / "nf1_fields"
    table = pd.read_parquet(root / "Plate_2_with_image_data_shrunken.parquet")
    compared = 0
    for _, row in table.iterrows():
        file = root / "masks" / f"{Path(row['Image_FileName_DAPI']).stem}_MaskNuclei.tiff"
        if not file.is_file():
            continue
        with Image.open(file) as opened:
            labels = scipy.ndimage.label(np.squeeze(np.asarray(opened)) > 0)[0]
        values = measure(labels)
        x, y = one(values, "Center_X"), one(values, "Center_Y")
        nearest = np.hypot(x - row["Nuclei_AreaShape_Center_X"], y - row["Nuclei_AreaShape_Center_Y"]).argmin()
        assert one(values, "Area")[nearest] == pytest.approx(row["Nuclei_AreaShape_Area"], rel=0.01)
        compared += 1
    assert compared == 3
