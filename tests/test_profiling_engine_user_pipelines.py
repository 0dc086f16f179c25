"""Any user's .cppipe: other images, other objects, derived images, file modules; and those that cannot be run here."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from profiling.engines import CellProfilerEngine, FieldMeasurement, InvalidPictures, InvalidSettings

CHANNELS = ("DAPI", "GFP", "RFP")
CENTRES = ((20, 20, 7), (20, 60, 9), (58, 40, 11))  # row, column, radius


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "tests/golden/user"


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """One picture: three disks on DAPI, GFP a ramp to the right, RFP flat; in [0, 1]."""
    y, x = np.mgrid[:80, :80]
    nuclei = np.zeros((80, 80))
    for row, column, radius in CENTRES:
        nuclei[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = 0.6
    planes = [nuclei + 0.02, 0.1 + 0.4 * x / 80, np.full((80, 80), 0.25)]
    return np.stack(planes)[None].astype(np.float32)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[CellProfilerEngine]:
    with CellProfilerEngine(folder / "three_channels.cppipe", workers=1, objects=None, masks=True) as running:
        yield running


@pytest.fixture(scope="module")
def field(engine: CellProfilerEngine, pictures: np.ndarray) -> FieldMeasurement:
    (one,) = engine.measure(pictures, CHANNELS)
    return one


def column(field: FieldMeasurement, name: str, feature: str) -> np.ndarray:
    table = field.objects[name]
    return table.values[:, table.names.index(feature)]


def test_objects_go_by_the_users_names_and_have_the_sizes_of_the_picture(field: FieldMeasurement) -> None:
    assert field.outcome == "ok", field.reason
    assert set(field.objects) == {"Kerne", "Zellen", "GrosseZellen"}
    order = [int(field.masks["Kerne"][row, col]) - 1 for row, col, _ in CENTRES]
    areas = column(field, "Kerne", "AreaShape_Area")[order]
    # The pipeline's blur and its low threshold move a disk's rim outwards, by less than two pixels.
    for area, (_, _, radius) in zip(areas, CENTRES, strict=True):
        assert np.pi * radius**2 < area < np.pi * (radius + 2) ** 2
    assert field.image["Count_Kerne"] == 3


def test_derived_images_and_measurements_of_the_picture_are_there(
    field: FieldMeasurement, pictures: np.ndarray
) -> None:
    both = pictures[0, 1] + pictures[0, 2]
    expected = [both[field.masks["Kerne"] == k].mean() for k in (1, 2, 3)]
    assert column(field, "Kerne", "Intensity_MeanIntensity_Both") == pytest.approx(expected, rel=1e-6)  # float32 sums
    assert field.image["Intensity_MeanIntensity_RFP"] == pytest.approx(0.25, rel=1e-6)


def test_filters_and_relations_work(field: FieldMeasurement) -> None:
    areas = column(field, "Zellen", "AreaShape_Area")
    assert len(field.objects["GrosseZellen"].values) == (areas >= 120).sum() > 0
    assert set(column(field, "Kerne", "Parent_GrosseZellen")) <= {0.0, 1.0, 2.0, 3.0}


def test_only_images_that_no_module_makes_are_asked_for(engine: CellProfilerEngine, pictures: np.ndarray) -> None:
    with pytest.raises(InvalidPictures, match="the pipeline needs RFP too, got DAPI, GFP"):
        engine.measure(pictures[:, :2], CHANNELS[:2])


def test_unknown_object_is_named_with_those_that_exist(folder: Path, pictures: np.ndarray) -> None:
    with (
        CellProfilerEngine(folder / "three_channels.cppipe", workers=1, objects=("Cells",)) as engine,
        pytest.raises(InvalidSettings, match="makes no Cells; it makes GrosseZellen, Kerne, Zellen"),
    ):
        engine.measure(pictures, CHANNELS)


REFUSALS = {
    "by_hand": (
        "by_hand.cppipe cannot be run here: its module 13, EditObjectsManually, waits for a person at a window, and "
        "this engine has none; disable it in the file"
    ),
    "series": (
        "series.cppipe cannot be run here: its module 13, MakeProjection, works on a series of pictures together, and "
        "this engine measures each picture by itself; disable it in the file"
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_pipelines_that_need_more_than_pictures_are_refused_in_one_sentence(
    folder: Path, pictures: np.ndarray, name: str
) -> None:
    with (
        CellProfilerEngine(folder / f"{name}.cppipe", workers=1, objects=None) as engine,
        pytest.raises(InvalidSettings) as refusal,
    ):
        engine.measure(pictures, CHANNELS)
    assert str(refusal.value) == f"settings: {REFUSALS[name]}"


def test_module_that_this_cellprofiler_lacks_is_named(folder: Path, pictures: np.ndarray, tmp_path: Path) -> None:
    text = (folder / "by_hand.cppipe").read_text().replace("EditObjectsManually:[", "RunCellpose:[")
    (tmp_path / "plugin.cppipe").write_text(text)
    with (
        CellProfilerEngine(tmp_path / "plugin.cppipe", workers=1, objects=None) as engine,
        pytest.raises(
            InvalidSettings,
            match=r"plugin\.cppipe cannot be run here: .* cannot open it: Could not find the RunCellpose module$",
        ),
    ):
        engine.measure(pictures, CHANNELS)


def test_disabled_module_is_no_obstacle(folder: Path, pictures: np.ndarray, tmp_path: Path) -> None:
    head, tail = (folder / "by_hand.cppipe").read_text().split("EditObjectsManually:[")
    (tmp_path / "disabled.cppipe").write_text(
        head + "EditObjectsManually:[" + tail.replace("enabled:True", "enabled:False")
    )
    with CellProfilerEngine(tmp_path / "disabled.cppipe", workers=1, objects=("Kerne",)) as engine:
        (one,) = engine.measure(pictures, CHANNELS)
    assert one.outcome == "ok"
