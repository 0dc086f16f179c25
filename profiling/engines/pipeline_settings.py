"""What a .cppipe file asks for, as data: the engine `fast` reads the same files as CellProfiler, module by module.

A pipeline file is text: a line `Name:[module_num:…]` for each module, then its settings as indented `text:value` lines,
in a fixed order, some of them repeated. Nothing in it is evaluated here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from profiling.engines.settings import InvalidSettings
from profiling.segment import Primary, Secondary, Tertiary

#: Modules that read or write files: the pictures come from memory and the measurements stay there.
FILE_MODULES = (
    "Images", "Metadata", "NamesAndTypes", "Groups", "LoadData",
    "SaveImages", "ExportToSpreadsheet", "ExportToDatabase", "CreateBatchFiles",
)  # fmt: skip


@dataclass(frozen=True)
class Module:
    """One module of a pipeline file: its name, number, and settings as (text, value) pairs in the file's order."""

    name: str
    number: int
    pairs: tuple[tuple[str, str], ...]

    def all(self, text: str) -> tuple[str, ...]:
        """Every value of the settings called `text`."""
        return tuple(value for name, value in self.pairs if name == text)

    def one(self, text: str, default: str | None = None) -> str:
        """The first value of the setting called `text`. Raises InvalidSettings where there is none."""
        found = self.all(text)
        if not found and default is None:
            raise InvalidSettings(f"{self.name} (module {self.number}): no setting {text!r}; save the file with 4.2.8")
        return found[0] if found else str(default)

    def flag(self, text: str, default: str | None = None) -> bool:
        """A Yes or No setting."""
        return self.one(text, default) == "Yes"

    def number_of(self, text: str, default: str | None = None) -> float:
        """A numeric setting."""
        return float(self.one(text, default))

    def names(self, text: str) -> tuple[str, ...]:
        """A comma-separated list of names."""
        return tuple(part.strip() for part in self.one(text).split(",") if part.strip())

    def range_of(self, text: str) -> tuple[float, float]:
        """Two numbers with a comma between."""
        low, high = self.one(text).split(",")
        return float(low), float(high)


@dataclass(frozen=True)
class QualityGroup:
    """One group of pictures of MeasureImageQuality; `scales`: of the blur measurements, pixels."""

    images: tuple[str, ...]
    scaling: bool
    blur: bool
    scales: tuple[int, ...]
    saturation: bool
    intensity: bool


@dataclass(frozen=True)
class ImageQuality:
    """MeasureImageQuality without its thresholds."""

    groups: tuple[QualityGroup, ...]


@dataclass(frozen=True)
class Colocalization:
    """MeasureColocalization; `share`: threshold as a share of the maximum; `where`: "Within objects" or ..."""

    images: tuple[str, ...]
    share: float
    where: str
    objects: tuple[str, ...]
    correlation: bool
    manders: bool
    rwc: bool
    overlap: bool
    costes: bool
    costes_method: str


@dataclass(frozen=True)
class Granularity:
    """MeasureGranularity; `objects` is empty where only pictures are measured."""

    images: tuple[str, ...]
    objects: tuple[str, ...]
    subsample: float
    background: float
    radius: int
    spectrum: int


@dataclass(frozen=True)
class Intensity:
    """MeasureObjectIntensity."""

    images: tuple[str, ...]
    objects: tuple[str, ...]


@dataclass(frozen=True)
class Neighbours:
    """MeasureObjectNeighbors; method "Adjacent", "Expand until adjacent" or "Within a specified distance"."""

    objects: str
    neighbours: str
    method: str
    distance: int
    count_discarded: bool


@dataclass(frozen=True)
class Bins:
    """Rings of MeasureObjectIntensityDistribution; `radius`: pixels, of the last ring where they are not scaled."""

    scaled: bool
    count: int
    radius: int


@dataclass(frozen=True)
class Distribution:
    """MeasureObjectIntensityDistribution; centres: (objects, "These objects" or another choice, object at the centre).

    zernikes: "None", "Magnitudes only" or "Magnitudes and phase".
    """

    images: tuple[str, ...]
    centres: tuple[tuple[str, str, str], ...]
    bins: tuple[Bins, ...]
    zernikes: str
    degree: int


@dataclass(frozen=True)
class SizeShape:
    """MeasureObjectSizeShape."""

    objects: tuple[str, ...]
    zernikes: bool
    advanced: bool


@dataclass(frozen=True)
class Texture:
    """MeasureTexture; where: "Images", "Objects" or "Both"."""

    images: tuple[str, ...]
    objects: tuple[str, ...]
    levels: int
    where: str
    scales: tuple[int, ...]


Step = (
    Primary | Secondary | Tertiary | ImageQuality | Colocalization | Granularity
    | Intensity | Neighbours | Distribution | SizeShape | Texture
)  # fmt: skip


def read_modules(path: Path) -> tuple[Module, ...]:
    """All enabled modules of a pipeline file."""
    found: list[tuple[str, int, list[tuple[str, str]]]] = []
    skip = True
    for line in path.read_text(encoding="utf-8").splitlines():
        head = re.match(r"^([A-Za-z]\w*):\[module_num:(\d+)\|", line)
        if head:
            skip = "|enabled:False|" in line
            if not skip:
                found.append((head[1], int(head[2]), []))
        elif found and not skip and line.startswith("    "):
            text, _, value = line.strip().partition(":")
            found[-1][2].append((text, value))
    return tuple(Module(name, number, tuple(pairs)) for name, number, pairs in found)
