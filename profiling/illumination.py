"""Illumination correction: what the microscope adds to every picture of a plate, found by a median filter, taken away.

The function of a channel is the mean over the plate's pictures (real data), or over a source's draws (generated),
smoothed by a median filter over a disk and scaled so that its second percentile is 1: CellProfiler's
CorrectIlluminationCalculate with "Regular", "All", "Median Filter" and "Rescale: Yes" (the paper: median filter, each
of the five channels by itself). Never from one picture: its cells would be taken for light. `divide` (default) is for
uneven lighting and vignetting, which multiply; `subtract` is for stray light and camera offset, which add; its
function is not scaled. Fit and apply are apart: `Mean` collects pictures one by one, `fit` makes the function,
`correct` uses it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, no_type_check

import numpy as np
import scipy.ndimage
from jaxtyping import Float, Float32
from numba import njit

HOW = ("divide", "subtract")
_PERCENTILE = 0.02  # CellProfiler's ROBUST_FACTOR
_FWHM = 2.35  # CellProfiler takes the filter size as a full width at half maximum: radius = size / 2.35


class InvalidIllumination(ValueError):
    """Too few pictures, pictures of another size or other channels, or settings that cannot be."""


@dataclass(frozen=True)
class IlluminationConfig:
    """`how`: "divide" or "subtract". `size`: of the median filter in pixels of the original, CellProfiler's "smoothing
    filter size"; the disk's radius is size / 2.35. `shrink`: the mean is made smaller by block means before the filter,
    which costs shrink⁴ times less and changes little, since light is smooth. `min_pictures`: fewer are refused.

    The defaults follow the Broad Institute's illumination pipelines: size 80 at full resolution, 4 times smaller.
    """

    how: str = "divide"
    size: float = 80.0
    shrink: int = 4
    min_pictures: int = 8

    def __post_init__(self) -> None:
        if self.how not in HOW:
            raise InvalidIllumination(f"how: got {self.how!r}, expected {' or '.join(HOW)}")
        if self.min_pictures < 2:
            raise InvalidIllumination(
                f"min_pictures: got {self.min_pictures}, expected at least 2: one picture cannot tell cells from light"
            )
        if self.shrink < 1 or self.size / self.shrink <= 0:
            raise InvalidIllumination(
                f"size, shrink: got {self.size} and {self.shrink}, expected size > 0 and shrink >= 1"
            )

    @staticmethod
    def from_mapping(table: Mapping[str, Any]) -> IlluminationConfig:
        """From a TOML table; an unknown key is an error."""
        known = {f.name for f in fields(IlluminationConfig)}
        if unknown := sorted(set(table) - known):
            raise InvalidIllumination(f"illumination has unknown keys {unknown}: known are {sorted(known)}")
        read: dict[str, Any] = {k: float(v) if k == "size" else v for k, v in table.items()}
        return IlluminationConfig(**read)


@dataclass(frozen=True)
class Illumination:
    """The function of one plate (or source): `planes` float32 [c, h, w], how it is used, from how many pictures."""

    planes: Float32[np.ndarray, "c h w"]
    channels: tuple[str, ...]
    how: str
    n: int

    @property
    def hash(self) -> str:
        """sha256 of all of it."""
        head = f"{self.how}|{','.join(self.channels)}|{self.n}|{self.planes.shape}|".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.planes).tobytes()).hexdigest()

    def save(self, path: Path) -> None:
        """Writes an .npz file; no pickle."""
        np.savez_compressed(
            path, planes=self.planes, channels=np.array(self.channels), how=np.array(self.how), n=np.array(self.n)
        )

    @staticmethod
    def load(path: Path) -> Illumination:
        """Reads what `save` wrote. Raises InvalidIllumination: not such a file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                names = tuple(str(name) for name in file["channels"])
                return Illumination(file["planes"], names, str(file["how"]), int(file["n"]))
        except (OSError, ValueError, KeyError) as error:
            raise InvalidIllumination(f"{path} is no illumination function: {error}; fit it anew") from error


class Mean:
    """Sum of the pictures of one plate; memory does not grow with their number."""

    def __init__(self, channels: Sequence[str]) -> None:
        self.channels = tuple(channels)
        self.total: Float[np.ndarray, "c h w"] | None = None
        self.n = 0

    def add(self, pixels: Float32[np.ndarray, "c h w"]) -> None:
        """One more picture. Raises InvalidIllumination: another shape, or values that are not finite."""
        if len(pixels) != len(self.channels):
            raise InvalidIllumination(f"pixels: got {len(pixels)} channels, expected {', '.join(self.channels)}")
        if self.total is not None and self.total.shape != pixels.shape:
            raise InvalidIllumination(
                f"pixels: got shape {pixels.shape} after {self.total.shape}: pictures of one plate have one size"
            )
        if not np.isfinite(pixels).all():
            raise InvalidIllumination("pixels: got values that are not finite; leave such pictures out")
        self.total = pixels.astype(np.float64) if self.total is None else self.total + pixels
        self.n += 1


def fit(mean: Mean, config: IlluminationConfig | None = None) -> Illumination:
    """The illumination function of the pictures collected in `mean`.

    Raises:
        InvalidIllumination: fewer than `config.min_pictures`.
    """
    config = config or IlluminationConfig()
    if mean.total is None or mean.n < config.min_pictures:
        raise InvalidIllumination(
            f"mean: got {mean.n} pictures, expected at least {config.min_pictures}: of few pictures the cells would be "
            "taken for light; collect a whole plate, or all draws of a source"
        )
    planes = [_smooth(plane / mean.n, config) for plane in mean.total]
    if config.how == "divide":
        planes = [_scale(plane) for plane in planes]
    return Illumination(np.stack(planes).astype(np.float32), mean.channels, config.how, mean.n)


def correct(
    pixels: Float32[np.ndarray, "*n c h w"], channels: Sequence[str], illumination: Illumination
) -> Float32[np.ndarray, "*n c h w"]:
    """Pictures in [0, 1] without the illumination; values below 0 become 0. Division never brightens: function ≥ 1.

    Raises:
        InvalidIllumination: channels in another order, or another size.
    """
    if tuple(channels) != illumination.channels:
        got, expected = ", ".join(channels), ", ".join(illumination.channels)
        raise InvalidIllumination(f"channels: got {got}, but the function was fitted on {expected}")
    if pixels.shape[-3:] != illumination.planes.shape:
        raise InvalidIllumination(
            f"pixels: got shape {pixels.shape[-3:]}, but the function was fitted on {illumination.planes.shape}"
        )
    if illumination.how == "divide":
        return (pixels / illumination.planes).astype(np.float32)
    return np.maximum(pixels - illumination.planes, np.float32(0)).astype(np.float32)


def _smooth(plane: Float[np.ndarray, "h w"], config: IlluminationConfig) -> Float[np.ndarray, "h w"]:
    """Median over a disk of the (smaller) mean picture; at the frame, over the part of the disk inside."""
    small = _block_means(plane, config.shrink) if config.shrink > 1 else plane
    radius = max(1, int(config.size / config.shrink / _FWHM + 0.5))
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    inside = rows**2 + columns**2 <= radius**2
    smooth = _disk_median(np.ascontiguousarray(small, float), rows[inside], columns[inside])
    return smooth if config.shrink == 1 else _enlarge(smooth, plane.shape, config.shrink)


@njit(cache=True)
@no_type_check
def _disk_median(plane, rows, columns):
    """Median over the part of the disk that lies inside the picture; of an even number, the upper middle value."""
    height, width = plane.shape
    out = np.empty_like(plane)
    near = np.empty(rows.size)
    for y in range(height):
        for x in range(width):
            n = 0
            for k in range(rows.size):
                i, j = y + rows[k], x + columns[k]
                if 0 <= i < height and 0 <= j < width:
                    near[n] = plane[i, j]
                    n += 1
            out[y, x] = np.partition(near[:n], n // 2)[n // 2]
    return out


def _block_means(plane: Float[np.ndarray, "h w"], k: int) -> Float[np.ndarray, "a b"]:
    """Means of k × k blocks; the last blocks are filled up with the border's own values."""
    h, w = plane.shape
    padded = np.pad(plane, ((0, -h % k), (0, -w % k)), mode="edge")
    return np.asarray(padded.reshape(padded.shape[0] // k, k, padded.shape[1] // k, k).mean(axis=(1, 3)))


def _enlarge(small: Float[np.ndarray, "a b"], shape: tuple[int, ...], k: int) -> Float[np.ndarray, "h w"]:
    """Linear between block centres, level beyond the outermost ones."""
    rows, columns = ((np.arange(n) - (k - 1) / 2) / k for n in shape)
    grid = np.meshgrid(rows, columns, indexing="ij")
    return np.asarray(scipy.ndimage.map_coordinates(small, grid, order=1, mode="nearest"))


def _scale(plane: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Values below the second percentile of the positive ones are set to it, and it becomes 1."""
    positive = np.sort(plane[plane > 0])
    if not positive.size:
        return np.ones_like(plane)
    low = positive[int(positive.size * _PERCENTILE)]
    return np.maximum(plane, low) / low
