"""Corrections by plate: applied, kept, and no reason to stop where a plate has not one good picture."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from painted_screen import BATCH, CHANNELS, PLATES, SOURCE
from quarters import ALL, Quarters, folder

from profiling import look
from profiling.illumination import IlluminationConfig, InvalidIllumination
from profiling.inputs import Field
from profiling.outcomes import Limits
from profiling.quality import InvalidQuality, QualityLimits
from profiling.run import Correction, run
from profiling.tables import read_profiles


def test_a_correction_is_applied_and_starts_anew(tmp_path: Path) -> None:
    def halve(field: Field, pixels: np.ndarray) -> np.ndarray:
        return pixels * np.float32(0.5) if field.meta["Site"] == "1" else pixels

    fields, engine = folder(tmp_path / "in"), Quarters()
    run(fields, engine, tmp_path / "plain.parquet", ALL)
    run(fields, engine, tmp_path / "p.parquet", ALL, Correction("halve", halve))
    plain, corrected = (read_profiles(tmp_path / f"{name}.field.parquet") for name in ("plain", "p"))
    k = plain.names.index("Cells_Mean_2")
    np.testing.assert_allclose(corrected.values[::2, k], plain.values[::2, k] / 2, rtol=1e-6)
    np.testing.assert_array_equal(corrected.values[1::2, k], plain.values[1::2, k])
    assert run(fields, engine, tmp_path / "p.parquet", ALL, Correction("other", halve)).kept == 0


def test_a_plate_without_a_good_picture_stops_no_look(tmp_path: Path) -> None:
    """Illumination and quality look at plates first: one plate is unreadable, the other goes on."""
    fields = folder(tmp_path / "in")
    for field in fields.fields[:4]:
        field.planes["DNA"].path.write_bytes(b"")
    few = IlluminationConfig(size=20.0, min_pictures=4)
    asked = look.Asked(few, metrics=True)
    limits = Limits(size=(128, 128))
    told: list[tuple[int, int, str]] = []
    found = look.look(fields, "16", limits, asked, tmp_path / "looks", lambda *t: told.append(t))
    assert told[-1] == (8, 8, "looking at plates")
    bad, good = (found[SOURCE, BATCH, plate] for plate in PLATES)
    assert bad.illumination is None
    assert not bad.metrics
    assert good.illumination is not None
    assert (good.illumination.n, len(good.metrics)) == (4, 4)
    judge = look.judge(found, CHANNELS, QualityLimits(min_pictures=4))
    corrected = Correction(*look.correction(found, CHANNELS))
    summary = run(fields, Quarters(), tmp_path / "p.parquet", replace(ALL, limits=limits), corrected, judge)
    assert summary.counts == {"truncated": 4, "ok": 4}

    told.clear()  # kept: nobody looks again, and a damaged file is looked at anew
    again = look.look(fields, "16", limits, asked, tmp_path / "looks", lambda *t: told.append(t))
    assert not told
    np.testing.assert_array_equal(again[SOURCE, BATCH, PLATES[1]].illumination.planes, good.illumination.planes)
    for path in (tmp_path / "looks").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    look.look(fields, "16", limits, asked, tmp_path / "looks", lambda *t: told.append(t))
    assert told
    with pytest.raises(InvalidIllumination, match=f"{PLATES[1]}.*got 4 pictures, expected at least 5"):
        look.look(fields, "16", limits, look.Asked(replace(few, min_pictures=5)), tmp_path / "looks")
    with pytest.raises(InvalidQuality, match="got 4 pictures"):
        look.judge(found, CHANNELS, QualityLimits(min_pictures=5))
