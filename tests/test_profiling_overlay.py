"""Overlays: outlines lie on the objects' own rims and nowhere else."""

import numpy as np
import pytest

from profiling.images import InvalidImage
from profiling.overlay import OUTLINES, composite_overlay, outlines, overlay


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
