"""MeasureGranularity: how much light disappears when bright spots smaller than i pixels are removed, i = 1, 2, ….

A picture is subsampled, freed of its background (its opening by a disk, at a second subsampling), and eroded by a cross
i times; the rest is reconstructed by dilation under the picture: R_i. With M_i the mean of R_i (M_0: the picture's),
Granularity_i = 100 (M_{i−1} − M_i) / max(M_0, 2⁻⁵²). For objects the mean runs over R_i resampled to the full size by
bilinear interpolation; M_0 is there the mean of the untouched picture, so the first value also holds the background.
CellProfiler 4.2.8, `measuregranularity.py`; Ravkin and Temov (1988); Vincent, Granulometries and opening trees (2000).

Two identities save most of the work. R_i under the picture equals R_i under R_{i−1}, so one tree of bright regions,
built once a picture and cut at each step, gives all of them (`component_tree`). And the mean over an object of a
resampled picture is a weighted sum over the small picture, with weights that do not change: one sparse row an object
replaces 16 resamplings a channel.

Cost, s subsampled pixels, g steps: a sort and the tree, then each step reads and writes s pixels about four times
(erosion, tree, mean) and reads each weight once. Floor: 8 bytes and three comparisons a pixel and step, 0.6 MB for 192²
pixels. Measured numbers: docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Int64
from numba import njit

from profiling.engines.families import component_tree, float32_sums, grey_morphology
from profiling.engines.families.regions import Regions
from profiling.engines.pipeline_settings import Granularity
from profiling.engines.settings import InvalidSettings

_EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Operator:
    """Means over objects of a small picture resampled to full size: row k holds places and weights, summing to 1.

    Places are those of the raveled small picture.
    """

    start: Int64[np.ndarray, " m"]
    place: Int32[np.ndarray, " z"]
    weight: Float64[np.ndarray, " z"]

    def means(self, pictures: Float32[np.ndarray, "g a b"]) -> Float64[np.ndarray, "n g"]:
        """One mean an object and picture, NaN for an object without pixels."""
        return _apply(self.start, self.place, self.weight, pictures.reshape(len(pictures), -1))


def names(settings: Granularity) -> tuple[str, ...]:
    """Features of each object table, one a channel and step; none where only pictures are measured."""
    return image_names(settings) if settings.objects else ()


def image_names(settings: Granularity) -> tuple[str, ...]:
    """Features of the table Image."""
    return tuple(f"Granularity_{i}_{image}" for image in settings.images for i in range(1, settings.spectrum + 1))


def measure(
    regions: Regions,
    pictures: Mapping[str, Float32[np.ndarray, "h w"]],
    settings: Granularity,
) -> Float[np.ndarray, "n k"]:
    """Values of `names(settings)` for one kind of object; `measure_all` shares the spectra between several."""
    return measure_all({"": regions}, pictures, settings)[0][""]


def measure_all(
    found: Mapping[str, Regions],
    pictures: Mapping[str, Float32[np.ndarray, "h w"]],
    settings: Granularity,
) -> tuple[dict[str, Float[np.ndarray, "n k"]], Float[np.ndarray, " k"]]:
    """Values of `names` for each kind of object in `found`, and of `image_names`.

    Raises:
        InvalidSettings: a subsampling whose grid leaves the picture, which CellProfiler fills with a masked border.
    """
    shape = next(iter(pictures.values())).shape
    small = shrunk_shape(shape, settings.subsample)
    operators = {name: operator(regions, small, settings.subsample) for name, regions in found.items()}
    spectra = np.empty((len(settings.images), settings.spectrum))
    out = {name: np.empty((r.n, len(settings.images), settings.spectrum)) for name, r in found.items()}
    for c, image in enumerate(settings.images):
        steps = reconstructions(_prepared(pictures[image], settings), settings.spectrum)
        first = float(float32_sums.mean(steps[0]))  # CellProfiler takes this one in float32
        levels = np.array([first, *(np.mean(step.astype(np.float64)) for step in steps[1:])])
        spectra[c] = (levels[:-1] - levels[1:]) * 100 / max(first, _EPSILON)
        for name, r in found.items():
            with np.errstate(invalid="ignore", divide="ignore"):
                start = r.sums(r.gather(pictures[image]).astype(np.float64)) / r.area
            means = np.concatenate([start[:, None], operators[name].means(steps[1:])], axis=1)
            out[name][:, c] = (means[:, :-1] - means[:, 1:]) * 100 / np.maximum(start, _EPSILON)[:, None]
    width = len(settings.images) * settings.spectrum
    return {name: values.reshape(found[name].n, width) for name, values in out.items()}, spectra.ravel()


def measure_image(pictures: Mapping[str, Float32[np.ndarray, "h w"]], settings: Granularity) -> Float[np.ndarray, " k"]:
    """Values of `image_names(settings)`."""
    return measure_all({}, pictures, settings)[1]


def reconstructions(picture: Float32[np.ndarray, "a b"], steps: int) -> Float32[np.ndarray, "g a b"]:
    """R_0 (the picture, not negative) to R_steps."""
    found = np.empty((steps + 1, *picture.shape), np.int32)
    found[0] = picture.view(np.int32)
    tree, eroded, other = component_tree.Tree(found[0]), found[0].copy(), np.empty_like(found[0])
    for one in found[1:]:
        grey_morphology.erode_cross(eroded, other)
        eroded, other = other, eroded
        tree.reconstruct(eroded, one)
    return found.view(np.float32)


def shrunk_shape(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """Pixels of a subsampled picture: numpy's grid from 0 below shape × factor."""
    if factor >= 1:
        return shape
    small = tuple(int(np.ceil(side * factor)) for side in shape)
    check_grid(small, shape, factor)
    return small[0], small[1]


def check_grid(grid: tuple[int, ...], shape: tuple[int, ...], factor: float) -> None:
    if any((n - 1) / factor > side - 1 for n, side in zip(grid, shape, strict=True)):
        raise InvalidSettings(
            f"MeasureGranularity: subsampling {factor:g} of {shape[0]} x {shape[1]} pixels leaves the picture; use 0.5 "
            "or 0.25, or the engine cellprofiler"
        )


def _prepared(picture: Float32[np.ndarray, "h w"], settings: Granularity) -> Float32[np.ndarray, "a b"]:
    """The subsampled picture minus its background, never negative."""
    size = np.array(picture.shape, float)
    pixels = np.ascontiguousarray(picture) + np.float32(0.0)
    if settings.subsample < 1:
        small = shrunk_shape(picture.shape, settings.subsample)
        size = size * settings.subsample
        pixels = _sample(pixels, *(np.arange(n) / settings.subsample for n in small))
    back = pixels
    if settings.background < 1:
        # The grid of the size as the module computes it, which may be a fraction.
        grid = tuple(int(np.ceil(side * settings.background)) for side in size.tolist())
        check_grid(grid, pixels.shape, settings.background)
        back = _sample(pixels, *(np.arange(n) / settings.background for n in grid))
    opened = grey_morphology.open_disk(back.view(np.int32), settings.radius).view(np.float32)
    if settings.background < 1:
        scale = [(side * settings.background - 1) / (side - 1) for side in size.tolist()]
        opened = _sample(opened, *(np.arange(n) * s for n, s in zip(pixels.shape, scale, strict=True)))
    return np.maximum(pixels - opened, np.float32(0.0))


def operator(regions: Regions, small: tuple[int, int], subsample: float) -> Operator:
    """The sparse rows of `Operator` for pictures of `small` pixels made with this subsampling."""
    height, width = regions.shape
    scale = [(side * subsample - 1) / (side - 1) if subsample < 1 else 1.0 for side in regions.shape]
    rows, columns = np.arange(height) * scale[0], np.arange(width) * scale[1]
    return Operator(*_rows(regions.start, regions.y, regions.x, regions.box, rows, columns, small[0], small[1]))


@njit(inline="always")
@no_type_check
def _corner(at, size):
    """Left neighbour of a coordinate and the weight of the right one; -1 where scipy calls it outside (value 0)."""
    if at < 0.0 or at > size - 1:
        return -1, 0.0
    i = int(np.floor(at))
    return (i, at - i) if i + 1 < size else (i - 1, 1.0) if size > 1 else (0, 0.0)


@njit(cache=True, nogil=True)
@no_type_check
def _sample(picture, rows, columns):
    """`scipy.ndimage.map_coordinates` of order 1 on a grid, float32, sums in its order."""
    height, width = picture.shape
    out = np.zeros((rows.size, columns.size), np.float32)
    for a in range(rows.size):
        y, v = _corner(rows[a], height)
        if y < 0:
            continue
        below = min(y + 1, height - 1)
        for b in range(columns.size):
            x, u = _corner(columns[b], width)
            if x < 0:
                continue
            right = min(x + 1, width - 1)
            total = picture[y, x] * (1.0 - v) * (1.0 - u)
            total += picture[y, right] * (1.0 - v) * u
            total += picture[below, x] * v * (1.0 - u)
            total += picture[below, right] * v * u
            out[a, b] = total
    return out


@njit(cache=True, nogil=True)
@no_type_check
def _rows(start, ys, xs, box, rows, columns, height, width):
    n = start.size - 1
    scratch = np.zeros((height, width))
    first = np.zeros(n + 1, np.int64)
    # At most four small pixels a pixel; compressed below.
    place = np.empty(4 * ys.size, np.int32)
    weight = np.empty(4 * ys.size)
    used = 0
    for k in range(n):
        area = float(start[k + 1] - start[k])
        top, bottom, left, right = height, -1, width, -1
        for p in range(start[k], start[k + 1]):
            y, v = _corner(rows[ys[p]], height)
            x, u = _corner(columns[xs[p]], width)
            if y < 0 or x < 0:
                continue
            yy, xx = min(y + 1, height - 1), min(x + 1, width - 1)
            scratch[y, x] += (1.0 - v) * (1.0 - u)
            scratch[y, xx] += (1.0 - v) * u
            scratch[yy, x] += v * (1.0 - u)
            scratch[yy, xx] += v * u
            top, bottom, left, right = min(top, y), max(bottom, yy), min(left, x), max(right, xx)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                if scratch[y, x] != 0.0:
                    place[used] = y * width + x
                    weight[used] = scratch[y, x] / area
                    scratch[y, x] = 0.0
                    used += 1
        first[k + 1] = used
    return first, place[:used].copy(), weight[:used].copy()


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
@no_type_check
def _apply(start, place, weight, flat):
    """Four pictures at a time share the reading of places and weights."""
    steps = flat.shape[0]
    out = np.empty((start.size - 1, steps))
    for k in range(start.size - 1):
        whole = steps - steps % 4
        for s in range(0, whole, 4):
            a = b = c = d = 0.0
            for z in range(start[k], start[k + 1]):
                w, p = weight[z], place[z]
                a += w * flat[s, p]
                b += w * flat[s + 1, p]
                c += w * flat[s + 2, p]
                d += w * flat[s + 3, p]
            out[k, s], out[k, s + 1], out[k, s + 2], out[k, s + 3] = a, b, c, d
        for s in range(whole, steps):
            total = 0.0
            for z in range(start[k], start[k + 1]):
                total += weight[z] * flat[s, place[z]]
            out[k, s] = total
        if start[k] == start[k + 1]:
            out[k] = np.nan
    return out
