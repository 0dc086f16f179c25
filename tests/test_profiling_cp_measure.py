"""The engine cp_measure: CellProfiler's numbers under CellProfiler's names, its own under its own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from profiling.engines import ENGINES, InvalidPictures
from profiling.engines.cp_measure import CpMeasureEngine
from profiling.engines.cp_measure_names import OWN, colocalization, radial, texture
from profiling.engines.cp_measure_packages import CpMeasureMissing, default_folder, install, installed
from profiling.levels import cell_rows
from profiling.shards import Finished

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
OBJECTS = ("Nuclei", "Cells", "Cytoplasm")
GOLDEN = Path(__file__).resolve().parent / "golden/profiling/fast"

#: Family → largest relative difference to CellProfiler on identical masks, and the share of values that may exceed it.
#: The bounds are those measured by others on real and painted fields (float32 in the golden files: 6e-8), with room.
PARITY = {
    "AreaShape": (1e-6, 0.0),
    "Granularity": (1e-6, 0.0),
    "Intensity": (1e-6, 0.02),  # MassDisplacement: a difference of two nearly equal centres
    "Texture": (1e-6, 0.0),
    "Correlation": (1e-6, 0.01),  # pixels that stand on a threshold
    "RadialDistribution": (1e-6, 0.35),  # another centre where the farthest pixels tie: in small objects often
    "Location": (1e-6, 0.05),  # the first of several brightest pixels
}


def missing() -> bool:
    try:
        installed(default_folder())
    except CpMeasureMissing:
        return True
    return False


needs_cp_measure = pytest.mark.skipif(missing(), reason="needs `dopaint setup cpmeasure`")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "sim128_crowded.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def engine() -> Iterator[CpMeasureEngine]:
    with CpMeasureEngine("sim128", workers=1, masks=True, folder=default_folder()) as running:
        yield running


@needs_cp_measure
def test_on_identical_masks_the_shared_names_mean_the_same_numbers(
    engine: CpMeasureEngine, golden: dict[str, np.ndarray]
) -> None:
    picture = (golden["picture"] / 65535).astype(np.float32)[None]
    labels = {name: golden[f"labels/{name}"][None].astype(np.int32) for name in OBJECTS}
    (measured,) = engine.measure_masks(picture, CHANNELS, labels)
    assert measured.outcome == "ok", measured.reason
    worst: dict[str, list[np.ndarray]] = {family: [] for family in PARITY}
    for name in OBJECTS:
        reference = golden[f"names/{name}"].tobytes().decode().splitlines()
        expected = dict(zip(reference, golden[f"values/{name}"].T.astype(float), strict=True))
        for column, values in zip(measured.objects[name].names, measured.objects[name].values.T, strict=True):
            if column.startswith((OWN, "Parent_")):
                assert column.startswith("Parent_") or column not in expected
                continue
            assert column in expected, f"{name}: {column} is no column of CellProfiler's"
            if "CentralMoment_0_1" in column or "CentralMoment_1_0" in column:
                continue  # zero in theory, rounding noise in both
            x, y = expected[column], values
            # CellProfiler writes 0 where cp_measure gives NaN (objects smaller than the scale)
            both = np.isfinite(x) & np.isfinite(y)
            assert np.all(both | np.isnan(x) | (x == 0)), column
            floor = 1e-6 * np.abs(x[both]).max(initial=1e-6)
            worst[column.split("_")[0]].append(np.abs(x - y)[both] / np.maximum(np.abs(x[both]), floor))
    for family, (limit, share) in PARITY.items():
        apart = np.concatenate(worst[family]) > limit
        assert len(apart) > 50
        assert apart.mean() <= share, f"{family}: {apart.mean():.4f} of {len(apart)} values differ by more than {limit}"


@needs_cp_measure
def test_it_finds_the_objects_of_the_pipeline_itself(engine: CpMeasureEngine, golden: dict[str, np.ndarray]) -> None:
    picture = (golden["picture"] / 65535).astype(np.float32)
    pictures = np.stack([picture, np.full_like(picture, 0.1)])
    field, empty = engine.measure(pictures, CHANNELS)
    for name in OBJECTS:
        np.testing.assert_array_equal(field.masks[name], golden[f"labels/{name}"])
        assert field.objects[name].names == empty.objects[name].names
        assert empty.objects[name].values.shape == (0, len(field.objects[name].names))
    assert (field.outcome, empty.outcome) == ("ok", "no_cells")
    numbers, rows = cell_rows(Finished("ok", objects=field.objects))  # Parent_ columns tie the objects together
    assert len(numbers) == len(field.objects["Cells"].values) == len(rows)


@needs_cp_measure
def test_a_worker_that_dies_is_replaced_and_bad_pictures_are_outcomes(
    engine: CpMeasureEngine, golden: dict[str, np.ndarray]
) -> None:
    picture = (golden["picture"] / 65535).astype(np.float32)
    worker = engine._slots[0].worker
    if worker is not None:
        worker._process.kill()
    good, bad = engine.measure(np.stack([picture, picture * np.float32(np.nan)]), CHANNELS)
    assert good.outcome == "ok"
    assert (bad.outcome, bad.reason) == ("failed", "picture has values that are not finite")
    with pytest.raises(InvalidPictures, match="needs Mito too"):
        engine.measure(picture[None, :4], CHANNELS[:4])


def test_names() -> None:
    assert "cp_measure" in ENGINES
    assert radial("RadialDistribution_FracAtD_1of4", "ER") == "RadialDistribution_FracAtD_ER_1of4"
    assert texture("Contrast_3_00_256", "DNA") == "Texture_Contrast_DNA_3_00_256"
    assert colocalization("Correlation_Pearson", "DNA", "ER") == "Correlation_Correlation_DNA_ER"
    assert colocalization("Correlation_Manders_1", "DNA", "ER") == "Correlation_Manders_DNA_ER"
    assert colocalization("Correlation_Manders_2", "DNA", "ER") == "Correlation_Manders_ER_DNA"
    assert colocalization("Correlation_RWC_2", "DNA", "ER") == "cp_measure_Correlation_RWC_ER_DNA"


def test_not_installed_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CpMeasureMissing, match="dopaint setup cpmeasure"):
        CpMeasureEngine("sim128", folder=tmp_path)
    (tmp_path / "somebody's").mkdir()
    with pytest.raises(CpMeasureMissing, match="none of ours"):
        install(tmp_path)
