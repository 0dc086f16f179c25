"""MeasureObjectIntensityDistribution: how light is spread over rings from an object's centre to its edge.

The centre of an object is a pixel farthest from its edge; d is the path length from there, e the distance to the edge
(`edge_distance`), and the ring of a pixel is ⌊b·d/(d + e + 0.001)⌋ of b rings (not scaled: ⌊b·d/radius⌋, with all
beyond in an overflow ring). Pixels that no path inside the object reaches belong to no ring. With x the intensities
(CellProfiler 4.2.8, `measureobjectintensitydistribution.py`):

* FracAtD: Σx in the ring / Σx of the object;
* MeanFrac: FracAtD / (share of the object's pixels in the ring + 2⁻⁵²);
* RadialCV: standard deviation / mean of the mean intensities of the ring's eight wedges, as far as they have pixels
  (wedges by the signs of y − y_c > 0 and x − x_c > 0 and by |y − y_c| > |x − x_c|); 0 for an empty ring.

Artefacts: an object nearly always has several pixels farthest from its edge, and stock CellProfiler takes the one that
an unstable sort of the whole picture leaves last (`tie_order`). It also sums float32 pixels in float32, which costs up
to 1e-6 relative; both are repeated here. `stable` takes the first centre in raster order and sums in float64.

Zernike moments of intensity, where asked for, stand after the rings of each channel (`zernike_intensity`).
Cost: distances once a label image, then one pass over the pixels a channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from numba import njit

from profiling.engines.families import edge_distance, tie_order, zernike_intensity
from profiling.engines.families.regions import Regions
from profiling.engines.pipeline_settings import Bins, Distribution
from profiling.engines.settings import InvalidSettings

MEASURES = ("FracAtD", "MeanFrac", "RadialCV")
_OWN_CENTRE = "These objects"
_LEFT_OUT = 255  # code of a pixel in no ring


@dataclass(frozen=True)
class Rings:
    """Of each pixel of a label image's lists: 8 × ring + wedge, or 255; and how many pixels of each object have it."""

    code: UInt8[np.ndarray, " p"]
    counts: Float64[np.ndarray, "n c"]


def names(settings: Distribution) -> tuple[str, ...]:
    """Features of each object table.

    Raises:
        InvalidSettings: centres of other objects, which this engine does not know; more than 30 rings.
    """
    _check(settings)
    found: list[str] = []
    for image in settings.images:
        for bins in settings.bins:
            for measure_name in MEASURES:
                stem = f"RadialDistribution_{measure_name}_{image}"
                found += [f"{stem}_{ring}of{bins.count}" for ring in range(1, bins.count + 1)]
                found += [] if bins.scaled else [f"{stem}_Overflow"]
        found += zernike_intensity.names(image, settings.degree, settings.zernikes)
    return tuple(found)


def _check(settings: Distribution) -> None:
    other = [choice for _, choice, _ in settings.centres if choice != _OWN_CENTRE]
    if other:
        raise InvalidSettings(
            f"MeasureObjectIntensityDistribution: centre {other[0]!r}, but the engine fast knows {_OWN_CENTRE!r} only: "
            "use the engine cellprofiler"
        )
    most = max((bins.count for bins in settings.bins), default=0)
    if most > 30:
        raise InvalidSettings(f"MeasureObjectIntensityDistribution: {most} rings, expected at most 30")


def measure(
    regions: Regions,
    pictures: Mapping[str, Float32[np.ndarray, "h w"]],
    settings: Distribution,
    *,
    stable: bool = False,
) -> Float[np.ndarray, "n k"]:
    """Values of `names(settings)`; NaN for an object without light, as CellProfiler's 0/0."""
    _check(settings)
    squared = edge_distance.squared_to_edge(regions)
    centres = tie_order.maximum_places(squared.ravel(), regions.labels.ravel(), regions.n, stable)
    from_centre = edge_distance.path_from(regions, centres)
    to_edge = np.sqrt(regions.gather(squared).astype(np.float64))
    rings = [_rings(regions, bins, centres, from_centre, to_edge) for bins in settings.bins]
    moments = (
        zernike_intensity.measure(regions, pictures, settings.images, settings.degree, settings.zernikes)
        if settings.zernikes != "None"
        else None
    )
    blocks = []
    for image in settings.images:
        pixels = regions.gather(pictures[image])
        blocks += [
            _of_channel(regions, pixels, bins, of, stable) for bins, of in zip(settings.bins, rings, strict=True)
        ]
        if moments is not None:
            blocks.append(moments[image])
    return np.concatenate([np.zeros((regions.n, 0)), *blocks], axis=1)


def _rings(
    regions: Regions,
    bins: Bins,
    centres: Int64[np.ndarray, " n"],
    from_centre: Float64[np.ndarray, " p"],
    to_edge: Float64[np.ndarray, " p"],
) -> Rings:
    code = np.empty(regions.index.size, np.uint8)
    counts = np.zeros((regions.n, 8 * (bins.count + 1)))
    width = regions.shape[1]
    radius = 0.0 if bins.scaled else float(bins.radius)
    _codes(regions.start, regions.y, regions.x, centres, width, from_centre, to_edge, bins.count, radius, code, counts)
    return Rings(code, counts)


def _of_channel(
    regions: Regions, pixels: Float32[np.ndarray, " p"], bins: Bins, rings: Rings, stable: bool
) -> Float[np.ndarray, "n k"]:
    """FracAtD, MeanFrac and RadialCV of all rings of one channel."""
    kind = np.float64 if stable else np.float32
    light = np.zeros((regions.n, bins.count + 1), kind)
    wedges = np.zeros((regions.n, 8 * (bins.count + 1)), kind)
    _light(regions.start, rings.code, pixels.astype(kind), light, wedges)
    used = bins.count + (0 if bins.scaled else 1)
    pixels_of_ring = rings.counts.reshape(regions.n, bins.count + 1, 8)
    with np.errstate(invalid="ignore", divide="ignore"):
        fraction = light / light.sum(axis=1, keepdims=True)
        area = pixels_of_ring.sum(axis=2)
        share = area / area.sum(axis=1, keepdims=True)
        mean_fraction = fraction / (share + np.finfo(float).eps)
    spread = _variation(wedges.reshape(pixels_of_ring.shape).astype(np.float64), pixels_of_ring)
    return np.concatenate([part[:, :used].astype(np.float64) for part in (fraction, mean_fraction, spread)], axis=1)


@njit(cache=True, nogil=True)
@no_type_check
def _codes(start, ys, xs, centres, width, from_centre, to_edge, count, radius, code, counts):
    for k in range(start.size - 1):
        cy, cx = centres[k] // width, centres[k] % width
        for p in range(start[k], start[k + 1]):
            d = from_centre[p]
            if d == np.inf:
                code[p] = 255
                continue
            share = d / (d + to_edge[p] + 0.001) if radius == 0.0 else d / radius
            ring = min(int(share * count), count)
            dy, dx = ys[p] - cy, xs[p] - cx
            wedge = (dy > 0) * 1 + (dx > 0) * 2 + (abs(dy) > abs(dx)) * 4
            code[p] = 8 * ring + wedge
            counts[k, 8 * ring + wedge] += 1.0


@njit(cache=True, nogil=True)
@no_type_check
def _light(start, code, pixels, light, wedges):
    """Sums in raster order, in the precision of `light` and `wedges`."""
    for k in range(start.size - 1):
        for p in range(start[k], start[k + 1]):
            c = code[p]
            if c != 255:
                light[k, c // 8] += pixels[p]
                wedges[k, c] += pixels[p]


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _variation(light, counts):
    """Standard deviation over mean of the wedges' mean intensities; 0 where the mean is 0 or there are no pixels."""
    n, rings, _ = light.shape
    out = np.zeros((n, rings))
    for k in range(n):
        for r in range(rings):
            used = 0.0
            total = 0.0
            for w in range(8):
                if counts[k, r, w] > 0.0:
                    used += 1.0
                    total += light[k, r, w] / counts[k, r, w]
            if used == 0.0 or total == 0.0:
                continue
            mean = total / used
            square = 0.0
            for w in range(8):
                if counts[k, r, w] > 0.0:
                    square += (light[k, r, w] / counts[k, r, w] - mean) ** 2
            out[k, r] = np.sqrt(square / used) / mean
    return out
