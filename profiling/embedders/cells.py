"""Where to look: the centres of detected cells, and square crops around them at several scales.

Nuclei are found as CellProfiler's IdentifyPrimaryObjects finds them (`profiling.segment`). Pictures without a stain of
nuclei (brightfield) are cut into tiles instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage

from profiling.embedders.recipe import InvalidRecipe
from profiling.segment import Primary, identify_primary
from profiling.threshold import Threshold

SOURCES = ("cells", "tiles")


@dataclass(frozen=True)
class CropConfig:
    """`source`: "cells" or "tiles". `nuclei`: channel of the nuclei; `diameter`: their least and greatest, pixels.
    `scales`: sides of the crops in pixels of the picture: within a cell, a cell, a cell and its neighbours.
    `read`: the scale that a trained embedder reads, one of `scales`. `most`: crops read of one picture.
    """

    source: str = "cells"
    nuclei: str = "DNA"
    diameter: tuple[float, ...] = (7.0, 26.0)
    scales: tuple[int, ...] = (24, 40, 64)
    read: int = 40
    most: int = 40

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise InvalidRecipe(f"crops: source is {self.source!r}, expected one of {', '.join(SOURCES)}")
        if len(self.diameter) != 2 or not self.scales or self.read not in self.scales or min(self.scales) < 4:
            raise InvalidRecipe(
                f"crops: diameter {self.diameter}, scales {self.scales}, read {self.read}; expected two diameters, "
                "scales of at least 4 pixels, and read among them"
            )


def detect(
    picture: Float32[np.ndarray, "c h w"], channels: Sequence[str], config: CropConfig
) -> Float[np.ndarray, "n 2"]:
    """Centres (row, column) in pixels of the nuclei of one picture, or of its tiles, from top to bottom.

    Raises InvalidRecipe where the nuclei's channel is not there.
    """
    height, width = picture.shape[1:]
    if config.source == "tiles":
        return tile_centres(height, width, config.read)
    if config.nuclei not in channels:
        raise InvalidRecipe(
            f"crops: no channel {config.nuclei!r} among {', '.join(channels)}; name the nuclei's channel, or set "
            'source = "tiles"'
        )
    plane = picture[list(channels).index(config.nuclei)].astype(np.float32)
    found, _ = identify_primary(plane, _primary(config))
    n = found.count
    if not n:
        return np.empty((0, 2))
    return np.array(ndimage.center_of_mass(found.labels > 0, found.labels, np.arange(1, n + 1)), np.float64)


def tile_centres(height: int, width: int, side: int) -> Float[np.ndarray, "n 2"]:
    """Centres of as many tiles of this side as fit, spread evenly from edge to edge; one where none fits."""

    def along(length: int) -> np.ndarray:
        n = max(1, length // side)
        free = length - n * side
        return (np.arange(n) + 0.5) * side + free * (np.arange(n) + 0.5) / n - 0.5

    return np.array([(y, x) for y in along(height) for x in along(width)], np.float64)


def _primary(config: CropConfig) -> Primary:
    low, high = config.diameter
    return Primary(
        image=config.nuclei,
        objects="Nuclei",
        diameter=(low, high),
        exclude_size=True,
        exclude_border=True,
        maxima="Shape",
        watershed="Shape",
        smoothing=None,
        suppression=None,
        low_resolution=False,
        fill_holes="After both thresholding and declumping",
        most_objects=None,
        advanced=True,
        threshold=Threshold(smoothing=1.3488),
    )
