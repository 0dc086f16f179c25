"""An engine for tests that is told from the pixels by hand, and how the tests of runs use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from painted_screen import FOLDER_PATTERN, write_folder

from profiling.engines.measurement import FieldMeasurement, ObjectTable
from profiling.inputs import FieldSet, open_input
from profiling.inputs.formats import Wanted
from profiling.run import RunConfig

ALL = RunConfig("16", ("cell", "field", "well"), batch=3, name="quarters")


class Quarters:
    """An engine whose cells are the quarters of a picture that are not black in DNA, in an order of their own: what it
    says is told from the pixels by hand. Nuclei stand in reverse order; the cytoplasm of the first cell is lacking."""

    hash = "quarters"

    def __init__(self) -> None:
        self.pictures = 0

    def measure(
        self, pictures: np.ndarray, channels: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> list[FieldMeasurement]:
        self.pictures += len(pictures)
        return [self._one(picture) for picture in pictures]

    @staticmethod
    def _one(picture: np.ndarray) -> FieldMeasurement:
        h, w = picture.shape[1] // 2, picture.shape[2] // 2
        quarters = [picture[:, y : y + h, x : x + w].astype(float) for y in (0, h) for x in (0, w)]
        found = [quarter for quarter in quarters if quarter[0].any()]
        n = len(found)
        means = np.array([quarter.mean(axis=(1, 2)) for quarter in found]).reshape(n, len(picture))
        number = np.arange(n, dtype=float)[:, None]
        cells = np.hstack([means, n - number])  # Parent_Nuclei: cell 1 belongs to the last nucleus
        names = tuple(f"Mean_{c}" for c in range(len(picture)))
        objects = {
            "Nuclei": ObjectTable(("Mean_0",), means[::-1, :1].copy()),
            "Cells": ObjectTable((*names, "Parent_Nuclei"), cells),
            "Cytoplasm": ObjectTable(("Parent_Cells", "Mean_4"), np.hstack([number + 1, means[:, 4:5]])[1:]),
        }
        return FieldMeasurement("ok" if n else "no_cells", "" if n else "no Cells found", objects)


def folder(root: Path) -> FieldSet:
    return open_input(write_folder(root), Wanted(FOLDER_PATTERN))


def folder_again(tmp_path: Path) -> FieldSet:
    return open_input(tmp_path / "in", Wanted(FOLDER_PATTERN))
