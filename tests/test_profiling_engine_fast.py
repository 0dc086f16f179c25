"""The engine `fast`: CellProfiler's columns in its order, the same values, bad pictures, given masks, more workers."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from profiling.engines import ENGINES, FastEngine, InvalidPictures, InvalidSettings
from profiling.engines.pipeline_settings import read_modules
from profiling.engines.pipeline_steps import read_plan
from profiling.engines.settings import pipeline

GOLDEN = Path(__file__).resolve().parent / "golden/profiling/fast"
FIELDS = sorted(path.stem for path in GOLDEN.glob("*.npz"))
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
OBJECTS = ("Nuclei", "Cells", "Cytoplasm")
# Rounding noise of CellProfiler, and the sign that its rounding gives to a tied orientation.
NOISE = ("AreaShape_CentralMoment_0_1", "AreaShape_CentralMoment_1_0")


def load(field: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    with np.load(GOLDEN / f"{field}.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    return (arrays["picture"] / 65535.0).astype(np.float32), arrays


def names_of(arrays: dict[str, np.ndarray], owner: str) -> tuple[str, ...]:
    return tuple(arrays[f"names/{owner}"].tobytes().decode().split("\n"))


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Within 1e-6 relative, or 1e-9 of the column's largest value; NaN equals NaN."""
    scale = np.nanmax(np.abs(a), axis=0, initial=0.0, keepdims=True)
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= np.maximum(1e-6 * np.maximum(np.abs(a), np.abs(b)), 1e-9 * scale)
    return near | (np.isnan(a) & np.isnan(b)) | (a == b)


@pytest.mark.parametrize("field", FIELDS)
def test_a_golden_field_from_end_to_end(field: str) -> None:
    picture, arrays = load(field)
    settings = field.split("_")[0]
    with FastEngine(settings, workers=1, masks=True) as engine:
        [found] = engine.measure(picture[None], CHANNELS)
    assert found.outcome == ("no_cells" if field.endswith("empty") else "ok"), found.reason
    assert tuple(found.image) == names_of(arrays, "Image")
    whole = np.array(list(found.image.values()))
    assert same(arrays["values/Image"][None], whole[None]).all()
    for owner in OBJECTS:
        table = found.objects[owner]
        assert table.names == names_of(arrays, owner)
        np.testing.assert_array_equal(found.masks[owner], arrays[f"labels/{owner}"])
        wrong = ~same(arrays[f"values/{owner}"].astype(float), table.values)
        bad = {name: int(n) for name, n in zip(table.names, wrong.sum(axis=0), strict=True) if n and name not in NOISE}
        assert bad.pop("AreaShape_Orientation", 0) <= 1
        assert sum(bad.values()) <= 1e-3 * table.values.size, bad  # ties that rounding decides


def test_given_masks_are_measured_as_found_ones() -> None:
    picture, arrays = load("jump_border")
    with FastEngine("jump", workers=1, masks=True) as engine:
        [found] = engine.measure(picture[None], CHANNELS)
        given = {name: arrays[f"labels/{name}"][None].astype(np.int32) for name in OBJECTS}
        [measured] = engine.measure_masks(picture[None], CHANNELS, given)
        [derived] = engine.measure_masks(picture[None], CHANNELS, {k: given[k] for k in ("Nuclei", "Cells")})
        with pytest.raises(InvalidPictures, match="number them anew"):
            engine.measure_masks(picture[None], CHANNELS, {"Nuclei": given["Nuclei"] * 2})
    for other in (measured, derived):
        for owner in OBJECTS:
            names = found.objects[owner].names
            # Neighbours differ: given masks say nothing of objects that were dropped.
            kept = [k for k, name in enumerate(names) if not name.startswith("Neighbors")]
            np.testing.assert_array_equal(other.objects[owner].values[:, kept], found.objects[owner].values[:, kept])
            np.testing.assert_array_equal(other.masks[owner], found.masks[owner])
    assert np.isnan(measured.image["Threshold_FinalThreshold_Nuclei"])


def test_bad_pictures_have_named_outcomes_and_stop_nobody() -> None:
    picture, _ = load("sim128_sparse")
    pictures = np.stack([picture, picture, picture * 0, np.ones_like(picture), picture])
    pictures[1, 0, 3, 3] = np.nan
    pictures[4, 2] *= 40
    seen: list[int] = []
    with FastEngine("sim128", workers=1) as engine:
        found = engine.measure(pictures, CHANNELS, seen.append)
        with pytest.raises(InvalidPictures, match="needs Mito"):
            engine.measure(pictures[:, :4], CHANNELS[:4])
        with pytest.raises(InvalidPictures, match="distinct"):
            engine.measure(pictures, (*CHANNELS[:4], "DNA"))
    assert [field.outcome for field in found] == ["ok", "failed", "no_cells", "no_cells", "failed"]
    assert "not finite" in found[1].reason
    assert "expected 0 to 1" in found[4].reason
    assert found[2].objects["Cells"].values.shape == (0, len(found[0].objects["Cells"].names))
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_workers_give_the_same_numbers_and_outlive_one_another() -> None:
    names = ("sim128_sparse", "sim128_tiny", "sim128_touching")
    pictures = np.stack([load(name)[0] for name in names])
    with FastEngine("sim128", workers=1) as engine:
        alone = engine.measure(pictures, CHANNELS)
    with FastEngine("sim128", workers=2) as engine:
        engine.start()
        together = engine.measure(pictures, CHANNELS)
        assert len(engine.worker_pids) == 2
        os.kill(engine.worker_pids[0], signal.SIGKILL)
        again = engine.measure(pictures, CHANNELS)
    for other in (together, again):
        for a, b in zip(alone, other, strict=True):
            assert a.outcome == b.outcome == "ok"
            for owner in OBJECTS:
                assert a.objects[owner].values.tobytes() == b.objects[owner].values.tobytes()


def test_hash_follows_what_moves_a_number(tmp_path: Path) -> None:
    file = tmp_path / "mine.cppipe"
    text = pipeline("sim128").read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    plain = FastEngine("sim128")
    assert plain.hash == FastEngine(file).hash == FastEngine("sim128", workers=1).hash
    assert plain.hash != FastEngine("sim128", stable=True).hash
    file.write_text(text.replace("Texture scale to measure:4", "Texture scale to measure:5"), encoding="utf-8")
    assert plain.hash != FastEngine(file).hash


def test_settings_are_those_of_the_file(tmp_path: Path) -> None:
    assert ENGINES["fast"] is FastEngine
    with pytest.raises(InvalidSettings, match="makes no Spots"):
        FastEngine("jump", objects=("Spots",))
    plan = read_plan("jump")
    assert plan.channels == ("DNA", "RNA", "ER", "AGP", "Mito")
    primary = plan.steps[0]
    assert replace(primary, diameter=(10.0, 60.0)) == primary
    file = tmp_path / "mine.cppipe"
    text = pipeline("jump").read_text(encoding="utf-8")
    file.write_text(text.replace("MeasureTexture:[", "MeasureColour:["), encoding="utf-8")
    with pytest.raises(InvalidSettings, match="MeasureColour"):
        FastEngine(file)
    off = text.replace("MeasureTexture:[module_num:17|", "MeasureTexture:[module_num:17|enabled:False|")
    file.write_text(off, encoding="utf-8")
    assert "MeasureTexture" not in [module.name for module in read_modules(file)]
