"""The engine `fast` under settings that no shipped pipeline has: odd sides, few levels, rings in pixels."""

import numpy as np
from fast_golden import CHANNELS, FOLDER, OBJECTS

from profiling.engines import FastEngine

GOLDEN = FOLDER.parent / "other_settings.npz"
# Zero in exact arithmetic: CellProfiler's value is rounding noise.
NOISE = {"AreaShape_CentralMoment_0_1", "AreaShape_CentralMoment_1_0"}


def test_other_settings_from_end_to_end() -> None:
    """Every column of every object and of the picture within 1e-6 relative, and the label images to the pixel."""
    with np.load(GOLDEN) as archive:
        arrays = {name: archive[name] for name in archive.files}
    picture = (arrays["picture"] / 65535.0).astype(np.float32)
    with FastEngine(GOLDEN.with_suffix(".cppipe"), workers=1, masks=True) as engine:
        [field] = engine.measure(picture[None], CHANNELS)
    assert field.outcome == "ok", field.reason
    tables = {owner: (field.objects[owner].names, field.objects[owner].values) for owner in OBJECTS}
    tables["Image"] = tuple(field.image), np.array([list(field.image.values())])
    for owner, (names, values) in tables.items():
        assert "\n".join(names) == arrays[f"names/{owner}"].tobytes().decode()
        theirs = np.atleast_2d(arrays[f"values/{owner}"].astype(float))
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.abs(values - theirs) / np.abs(theirs)
        error[(values == theirs) | (np.isnan(values) & np.isnan(theirs))] = 0.0
        off = {name for name, worst in zip(names, error.max(axis=0), strict=True) if not worst <= 1e-6}
        assert off <= NOISE, (owner, off - NOISE)
    for owner in OBJECTS:
        np.testing.assert_array_equal(field.masks[owner], arrays[f"labels/{owner}"])
    assert sum("_Costes_" in name or "_Slope_" in name for name in field.image) == 3 * 3
