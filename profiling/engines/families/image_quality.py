"""MeasureImageQuality: is a picture sharp, saturated, dark? Thresholds are not among its columns here.

For a picture of n pixels x with mean m (CellProfiler 4.2.8, `measureimagequality.py`; Bray et al. 2012):

* FocusScore: Σ(x − m)² / (n m). LocalFocusScore_s: the same for each tile of an even grid of ⌈h/s⌉ × ⌈w/s⌉ tiles,
  then variance over median of the tiles' scores;
* Correlation_s: Haralick's correlation of horizontal pairs s pixels apart, on 8 levels between the picture's extremes;
* PowerLogLogSlope: slope of log power against log radius; power is the spectrum of the picture (over the median of
  |x − m|) summed over rings, radius 2 up to an eighth of the shorter side. The radius of a frequency counts from the
  nearest corner of the array, so a negative frequency −f stands at radius f − 1: CellProfiler's, kept;
* total, mean, median, standard deviation, median absolute deviation and extremes of x; the percentage of pixels that
  equal the largest and the smallest.

CellProfiler sums in float32 here; `float32_sums` repeats its rounding. Only low frequencies are transformed: rows by a
real transform, then the few columns that a ring reaches. Cost: a few passes over the picture and an eighth of a
transform; floor: 4 bytes a pixel and pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import no_type_check

import numpy as np
import scipy.fft
from jaxtyping import Float, Float32, Float64, Int32, UInt8
from numba import njit

from profiling.engines.families import float32_sums, pixel_order
from profiling.engines.pipeline_settings import ImageQuality, QualityGroup

INTENSITY = (
    "TotalArea", "TotalIntensity", "MeanIntensity", "MedianIntensity", "StdIntensity", "MADIntensity", "MaxIntensity",
    "MinIntensity",
)  # fmt: skip
SATURATION = ("PercentMaximal", "PercentMinimal")
_CAMERA_MAXIMUM = 65535.0  # what CellProfiler is told that 1 stands for


def image_names(settings: ImageQuality) -> tuple[str, ...]:
    """Features of the table Image."""
    found: list[str] = []
    for group in settings.groups:
        found += [f"ImageQuality_{feature}" for feature in _of_group(group)]
    return tuple(found)


def _of_group(group: QualityGroup) -> list[str]:
    found = []
    if group.scaling:
        found += [f"Scaling_{image}" for image in group.images]
    if group.blur:
        for image in group.images:
            found += [f"FocusScore_{image}", f"PowerLogLogSlope_{image}"]
            for scale in group.scales:
                found += [f"LocalFocusScore_{image}_{scale}", f"Correlation_{image}_{scale}"]
    if group.intensity:
        found += [f"{feature}_{image}" for image in group.images for feature in INTENSITY]
    if group.saturation:
        found += [f"{feature}_{image}" for image in group.images for feature in SATURATION]
    return found


def measure_image(
    pictures: Mapping[str, Float32[np.ndarray, "h w"]],
    settings: ImageQuality,
    *,
    orders: pixel_order.Orders | None = None,
) -> Float[np.ndarray, " k"]:
    """Values of `image_names(settings)`; pictures in [0, 1]. `orders`: `pixel_order.rising`, where already known."""
    found: list[float] = []
    for group in settings.groups:
        planes = [np.ascontiguousarray(pictures[image]) for image in group.images]
        sorts = pixel_order.of_channels(pictures, group.images, orders)
        found += [_CAMERA_MAXIMUM] * (len(planes) if group.scaling else 0)
        if group.blur:
            for plane, order in zip(planes, sorts.values(), strict=True):
                found += [focus_score(plane), power_slope(plane, order)]
                levels = quantise(plane)
                for scale in group.scales:
                    found += [local_focus_score(plane, scale), correlation(levels, scale)]
        if group.intensity:
            for plane, order in zip(planes, sorts.values(), strict=True):
                found += _intensity(plane, order)
        if group.saturation:
            for plane, order in zip(planes, sorts.values(), strict=True):
                found += [100.0 * n / plane.size for n in pixel_order.extremes(order, plane.ravel())]
    return np.array(found)


def _intensity(plane: Float32[np.ndarray, "h w"], order: Int32[np.ndarray, " p"]) -> list[float]:
    """In the order of `INTENSITY`."""
    flat = plane.ravel()
    total, median = float(float32_sums.pairwise(flat)), pixel_order.median(order, flat)
    spread = pixel_order.median_distance(order, flat, median)
    deviation, low, high = float32_sums.deviation(plane), flat[order[0]], flat[order[-1]]
    return [float(v) for v in (plane.size, total, total / plane.size, median, deviation, spread, high, low)]


def focus_score(plane: Float32[np.ndarray, "h w"]) -> float:
    """Normalised variance of a picture; 0 for a black one."""
    mean = float32_sums.mean(plane)
    if mean <= 0:
        return 0.0
    spread = (plane - mean) ** 2
    return float(float32_sums.pairwise(spread.ravel())) / (plane.size * float(mean))


def local_focus_score(plane: Float32[np.ndarray, "h w"], scale: int) -> float:
    """Variance over median of the tiles' normalised variances; 0 where there is none."""
    height, width = plane.shape
    tiles = (height + scale - 1) // scale, (width + scale - 1) // scale
    rows = (np.arange(height, dtype=float) * float(tiles[0]) / float(height)).astype(np.int64)
    columns = (np.arange(width, dtype=float) * float(tiles[1]) / float(width)).astype(np.int64)
    scores = _tile_scores(plane, rows, np.searchsorted(columns, np.arange(tiles[1] + 1)), *tiles)
    scores = scores[~np.isnan(scores)]
    if not scores.size:
        return 0.0
    middle = float(np.median(scores))
    return float(np.var(scores)) / middle if np.isfinite(middle) and middle > 0 else 0.0


@njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"})
@no_type_check
def _tile_scores(plane, rows, starts, m, n):
    """Normalised variance of each tile; NaN where its mean is 0. rows: tile of each row; starts: of tile columns."""
    means, squares, counts = np.zeros((m, n)), np.zeros((m, n)), np.zeros((m, n))
    for y in range(rows.size):
        for j in range(n):
            total = 0.0
            for x in range(starts[j], starts[j + 1]):
                total += plane[y, x]
            means[rows[y], j] += total
            counts[rows[y], j] += starts[j + 1] - starts[j]
    means /= counts
    for y in range(rows.size):
        for j in range(n):
            mean = means[rows[y], j]
            total = 0.0
            for x in range(starts[j], starts[j + 1]):
                total += (plane[y, x] - mean) ** 2
            squares[rows[y], j] += total
    out = np.full(m * n, np.nan)
    for i in range(m):
        for j in range(n):
            if means[i, j] != 0.0:
                out[i * n + j] = squares[i, j] / (counts[i, j] * means[i, j])
    return out


def quantise(plane: Float32[np.ndarray, "h w"], levels: int = 8) -> UInt8[np.ndarray, "h w"]:
    """Levels 0 to levels − 1, even steps between the extremes; all 0 for an even picture."""
    low, high = plane.min(), plane.max()
    if high <= low:
        return np.zeros(plane.shape, np.uint8)
    # float32 differences over a float64 range, as CellProfiler's arrays have them
    share = (plane - low).astype(np.float64) / float(high - low)
    return np.minimum(share * levels, levels - 1).astype(np.uint8)


def correlation(quantised: UInt8[np.ndarray, "h w"], scale: int, levels: int = 8) -> float:
    """Haralick's correlation of pixels `scale` apart in a row; 0 for an even or a too narrow picture.

    `centrosome.haralick.Haralick(…).H3()`: the co-occurrence matrix is not symmetric.
    """
    if scale >= quantised.shape[1]:
        return 0.0
    p = _pairs(quantised, scale, levels)
    p = p / p.sum()
    k = np.arange(1, levels + 1)
    px, py = p.sum(axis=1), p.sum(axis=0)
    mean_x, mean_y = (k * px).sum(), (k * py).sum()
    deviation = np.sqrt(((k - mean_x) ** 2 * px).sum()) * np.sqrt(((k - mean_y) ** 2 * py).sum())
    if deviation == 0:
        return 0.0
    return float(((np.outer(k, k) * p).sum() - mean_x * mean_y) / deviation)


@njit(cache=True, nogil=True)
@no_type_check
def _pairs(quantised, scale, levels):
    counts = np.zeros((4, levels, levels), np.int64)  # four, so that neighbours do not wait for each other
    for y in range(quantised.shape[0]):
        for x in range(quantised.shape[1] - scale):
            counts[x & 3, quantised[y, x], quantised[y, x + scale]] += 1
    return counts.sum(axis=0)


def power_slope(plane: Float32[np.ndarray, "h w"], order: Int32[np.ndarray, " p"]) -> float:
    """Slope of the log-log power spectrum; 0 for an even picture or one below 32 pixels a side."""
    height, width = plane.shape
    rings = np.arange(2, int(np.floor(min(height, width) / 8.0)))
    if rings.size < 2 or plane.max() == plane.min():
        return 0.0
    magnitude, power = _rings(plane, order, int(rings[-1]))
    valid = magnitude[rings] > 0
    with np.errstate(divide="ignore"):
        log_power = np.log(power[rings][valid])
    radii, log_power = np.log(rings[valid])[np.isfinite(log_power)], log_power[np.isfinite(log_power)]
    if radii.size < 2:
        return 0.0
    design = np.stack([radii, np.ones(radii.size)], axis=1)
    return float(np.linalg.lstsq(design, log_power, rcond=None)[0][0])


def _rings(
    plane: Float32[np.ndarray, "h w"], order: Int32[np.ndarray, " p"], most: int
) -> tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, " r"]]:
    """Sums of magnitude and of power over the frequencies of each ring 0 to `most`.

    `centrosome.radial_power_spectrum.rps`: row i and column j stand at radius ⌊√(i'² + j'²)⌋ + 1 with
    i' = min(i, h − 1 − i), and j' alike.
    """
    middle = pixel_order.median_distance(order, plane.ravel(), float32_sums.mean(plane))
    scaled = plane / middle
    scaled = scaled - float32_sums.mean(scaled)
    # Frequencies 0 to `most` of the rows; those below 0 are the conjugates of their mirror images.
    columns = scipy.fft.rfft(scaled, axis=1)[:, : most + 1]
    spectrum = np.abs(scipy.fft.fft(columns, axis=0))
    height = plane.shape[0]
    near = np.arange(most)
    rows = np.concatenate([near, height - 1 - near])  # 0 to most − 1, and −1 to −most
    mirrored = (height - rows) % height
    right, left = spectrum[np.ix_(rows, near)], spectrum[np.ix_(mirrored, near + 1)]
    at = np.concatenate([near, near])
    radius = (np.floor(np.sqrt(at[:, None] ** 2 + near[None, :] ** 2)).astype(np.int64) + 1).ravel()
    inside = radius <= most
    sums = np.zeros((2, most + 1))
    for part in (right, left):
        values = part.ravel()[inside].astype(np.float32)
        sums[0] += np.bincount(radius[inside], weights=values, minlength=most + 1)
        sums[1] += np.bincount(radius[inside], weights=values**2, minlength=most + 1)
    return sums[0], sums[1]
