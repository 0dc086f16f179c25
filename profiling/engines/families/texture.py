"""MeasureTexture: Haralick's 13 features at several pixel distances in four directions, per object and per picture.

Pixels are quantised once to 8 bits, round(255 x) (then to fewer levels, if asked); p(i, j) is the symmetric share of
pixel pairs at the distance with levels i and j, both inside the object and above level 0. Directions 00 to 03: right,
down right, down, down left. Features and quirks are mahotas's (`mahotas.features.haralick`, which CellProfiler 4.2.8
calls): DifferenceVariance is the variance of the histogram's values over all levels up to the object's largest; an
object without any pair in one direction has 0 everywhere at that distance. Haralick, Shanmugam and Dinstein, IEEE
Trans. SMC 3, 610 (1973).

Artefacts: Correlation and the information measures of an almost even object are differences of nearly equal numbers;
counts are summed exactly here, so the last digits of such values differ from CellProfiler's rounding.

Cost: every pixel pair is read once, by each channel, distance and direction: 12 p C pairs a label image (3 distances)
and as many for the picture. Floor: 5 bytes of key and level a pair if caches held nothing, and five counters raised
(cell, sum, difference, two single levels), one store a cycle: 1.7 ns a pair at 3 GHz; the
matrix of an object (span² counts, about 15 kB) stays in the first cache. mahotas walks all 65,536 cells of each matrix
and multiplies small matrices: 1 ms an object, channel and distance, whatever its size. Measured: docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, UInt8

from profiling.engines.families import texture_counts
from profiling.engines.families.regions import Regions
from profiling.engines.pipeline_settings import Texture

FEATURES = (
    "AngularSecondMoment", "Contrast", "Correlation", "Variance", "InverseDifferenceMoment", "SumAverage",
    "SumVariance", "SumEntropy", "Entropy", "DifferenceVariance", "DifferenceEntropy", "InfoMeas1", "InfoMeas2",
)  # fmt: skip
DIRECTIONS = 4


@lru_cache(maxsize=64)
def _names(settings: Texture) -> tuple[str, ...]:
    return tuple(
        f"Texture_{feature}_{image}_{scale}_{direction:02d}_{settings.levels}"
        for feature in FEATURES
        for image in settings.images
        for scale in settings.scales
        for direction in range(DIRECTIONS)
    )


def names(settings: Texture) -> tuple[str, ...]:
    """Features of each object table: 52 a channel and scale; none where only pictures are measured."""
    return () if settings.where == "Images" else _names(settings)


def image_names(settings: Texture) -> tuple[str, ...]:
    """Features of the table Image; none where only objects are measured."""
    return () if settings.where == "Objects" else _names(settings)


def quantise(picture: Float32[np.ndarray, "h w"], levels: int = 256) -> UInt8[np.ndarray, "h w"]:
    """Levels 0 to levels − 1 of a picture in [0, 1]: rounded to 8 bits as `skimage.img_as_ubyte` does, then cut."""
    eight_bits = texture_counts.eight_bits(np.ascontiguousarray(picture))
    if levels == 256:
        return eight_bits
    return (np.arange(256) / 255 * (levels - 1)).astype(np.uint8)[eight_bits]


def measure(
    regions: Regions, pictures: Mapping[str, Float32[np.ndarray, "h w"]], settings: Texture
) -> Float[np.ndarray, "n k"]:
    """Values of `names(settings)`."""
    if settings.where == "Images":
        return np.zeros((regions.n, 0))
    out = np.empty((len(settings.images), regions.n, len(settings.scales), DIRECTIONS, len(FEATURES)))
    table, distances = texture_counts.log_table(), np.array(settings.scales, np.int64)
    height, width = regions.shape
    for c, image in enumerate(settings.images):
        texture_counts.of_objects(
            regions.start, regions.y, regions.x, regions.index, quantise(pictures[image], settings.levels).ravel(),
            width, height, distances, texture_counts.ROWS, texture_counts.COLUMNS, table, out[c],
        )  # fmt: skip
    # [channel, object, scale, direction, feature] → features outermost, directions innermost
    return out.transpose(1, 4, 0, 2, 3).reshape(regions.n, len(_names(settings)))


def measure_image(pictures: Mapping[str, Float32[np.ndarray, "h w"]], settings: Texture) -> Float[np.ndarray, " k"]:
    """Values of `image_names(settings)`; 0 where a picture is smaller than the distance."""
    if settings.where == "Objects":
        return np.zeros(0)
    out = np.zeros((len(settings.images), len(settings.scales), DIRECTIONS, len(FEATURES)))
    table = texture_counts.log_table()
    for c, image in enumerate(settings.images):
        levels = np.ascontiguousarray(quantise(pictures[image], settings.levels))
        for s, distance in enumerate(settings.scales):
            alone = np.array([distance], np.int64)
            if not texture_counts.of_picture(
                levels, alone, texture_counts.ROWS, texture_counts.COLUMNS, table, out[c, s : s + 1]
            ):
                out[c, s] = 0.0
    return out.transpose(3, 0, 1, 2).ravel()
