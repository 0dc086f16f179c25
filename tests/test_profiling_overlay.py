"""Overlays: outlines lie on the objects' own rims and nowhere else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from quarters import ALL, Quarters, folder

from profiling.engines import FieldMeasurement
from profiling.images import InvalidImage
from profiling.overlay import OUTLINES, composite_overlay, outlines, overlay
from profiling.overlay_files import Overlays
from profiling.run import run


def test_outline_is_the_rim_of_the_object_and_separates_neighbours() -> None:
    labels = np.zeros((9, 9), np.uint16)
    labels[2:7, 1:4], labels[2:7, 4:8] = 1, 2
    rim = outlines(labels)
    assert not rim[labels == 0].any()
    assert rim[2:7, 3].all()
    assert rim[2:7, 4].all()
    assert not rim[4, 2]
    assert not rim[3:6, 5:7].any()


def test_overlay_colours_outlines_and_keeps_the_rest_grey() -> None:
    cells, nuclei = np.zeros((2, 12, 12), np.uint16)
    cells[2:10, 2:10], nuclei[4:8, 4:8] = 1, 1
    plane = np.full((12, 12), 0.25, np.float32)
    shown = overlay(plane, {"Cells": cells, "Nuclei": nuclei}, (0.0, 0.5), magnify=2)
    assert shown.shape == (24, 24, 3)
    assert tuple(shown[4, 10]) == OUTLINES["Cells"]
    assert tuple(shown[8, 10]) == OUTLINES["Nuclei"]
    assert shown[0, 0].tolist() == shown[6, 6].tolist() == [128, 128, 128]
    with pytest.raises(InvalidImage, match="Cells, Nuclei"):
        overlay(plane, {"Cytoplasm": cells}, (0.0, 0.5))


def test_composite_keeps_its_colours_under_the_outlines() -> None:
    cells = np.zeros((10, 10), np.uint16)
    cells[2:8, 2:8] = 1
    pixels = np.zeros((2, 10, 10), np.float32)
    pixels[0, 4, 4], pixels[1] = 0.5, 0.25
    ranges = {"DNA": (0.0, 0.5), "ER": (0.0, 0.5)}
    shown = composite_overlay(pixels, ("DNA", "ER"), {"Cells": cells}, ranges, magnify=3)
    assert shown.shape == (30, 30, 3)
    assert tuple(shown[6, 12]) == OUTLINES["Cells"]
    assert shown[0, 0].tolist() == [0, 102, 26]  # half of ER's (0, 0.8, 0.2)
    assert shown[13, 13].tolist() == [0, 153, 255]  # and all of DNA's (0, 0.2, 1), cut at white
    with pytest.raises(InvalidImage, match="Cells, Nuclei"):
        composite_overlay(pixels, ("DNA", "ER"), {}, ranges)


def test_fields_are_spread_over_a_run(tmp_path: Path) -> None:
    assert Overlays.spread(tmp_path, 3, 11).chosen == {0, 5, 10}
    assert Overlays.spread(tmp_path, 9, 4).chosen == {0, 1, 2, 3}
    assert Overlays.spread(tmp_path, 0, 4).chosen == Overlays.spread(tmp_path, 2, 0).chosen == frozenset()


def test_chosen_fields_are_drawn_and_named(tmp_path: Path) -> None:
    labels = np.zeros((60, 40), np.uint16)
    labels[10:30, 10:30] = 1
    pixels = np.stack([np.linspace(0, 0.5, 2400, dtype=np.float32).reshape(60, 40)] * 2)
    overlays = Overlays(tmp_path / "o", frozenset({1}))
    meta = {"Metadata_Plate": "P 1/2", "Metadata_Well": "A01", "Metadata_Site": ""}
    assert overlays.draw(0, meta, pixels, ("DNA", "ER"), {"Cells": labels}) is None
    assert overlays.draw(1, meta, pixels, ("DNA", "ER"), {"Cytoplasm": labels}) is None
    assert not (tmp_path / "o").exists()
    path = overlays.draw(1, meta, pixels, ("DNA", "ER"), {"Cells": labels})
    assert path == tmp_path / "o" / "P-1-2_A01.png"
    with Image.open(path) as opened:
        assert opened.text["Description"].startswith("DNA from 0.005")
        shown = np.asarray(opened)
    assert shown.shape == (60 * 13, 40 * 13, 3)
    assert tuple(shown[10 * 13, 20 * 13]) == OUTLINES["Cells"]
    assert np.ptp(shown[0, 0]) == 0  # grey elsewhere


def test_a_run_draws_what_it_measures(tmp_path: Path) -> None:
    class Masked(Quarters):
        def measure(self, pictures: np.ndarray, *rest: Any) -> list[FieldMeasurement]:
            masks = {"Cells": (pictures[0, 0] > 0).astype(np.uint16)}
            return [replace(one, masks=masks) for one in super().measure(pictures, *rest)]

    out = tmp_path / "p.parquet"
    run(folder(tmp_path / "in"), Masked(), out, replace(ALL, overlays=2))
    assert len(list((tmp_path / "p.overlays").glob("*.png"))) == 2
