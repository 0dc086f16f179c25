"""MeasureObjectIntensity: sums, spreads, quantiles and places of intensity inside each object and on its edge.

For an object with pixels x_1 … x_n at (i, j), m = Σx/n (CellProfiler 4.2.8, `measureobjectintensity.py`):

* IntegratedIntensity Σx, MeanIntensity m, StdIntensity √(Σ(x−m)²/n), Min, Max; the same on the inner edge: pixels with
  a 4-neighbour inside the picture that bears another label;
* quantile at share q of the sorted x: x_⌊qn⌋ and its successor, weighted by the fraction of qn (no successor: x_⌊qn⌋);
  MADIntensity is the same at q = 1/2 of |x − median|;
* MassDisplacement: distance between the mean place and the intensity-weighted mean place CenterMassIntensity_X, _Y;
* Location_MaxIntensity_X, _Y: place of the maximum; the Z columns are 0 (NaN for an object without any light).

Artefact: among several equal maxima stock CellProfiler takes the one that an unstable sort leaves last (`tie_order`);
`stable` takes the first in raster order. MassDisplacement of an evenly lit object is the rounding noise of two equal
numbers.

Sums run in raster order in float64, as `scipy.ndimage.sum` does, so most columns are equal to the last bit. Cost: one
radix sort a channel, and then passes over the pixels: O(h w + p).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Float32
from numba import njit

from profiling.engines.families import pixel_order, tie_order
from profiling.engines.families.regions import Regions
from profiling.engines.pipeline_settings import Intensity

MEASURES = (
    "IntegratedIntensity", "MeanIntensity", "StdIntensity", "MinIntensity", "MaxIntensity",
    "IntegratedIntensityEdge", "MeanIntensityEdge", "StdIntensityEdge", "MinIntensityEdge", "MaxIntensityEdge",
    "MassDisplacement", "LowerQuartileIntensity", "MedianIntensity", "MADIntensity", "UpperQuartileIntensity",
)  # fmt: skip
PLACES = (
    "CenterMassIntensity_X", "CenterMassIntensity_Y", "CenterMassIntensity_Z",
    "MaxIntensity_X", "MaxIntensity_Y", "MaxIntensity_Z",
)  # fmt: skip
_WIDTH = len(MEASURES) + len(PLACES)


def names(settings: Intensity) -> tuple[str, ...]:
    """Features of each object table, 21 a channel."""
    found = []
    for image in settings.images:
        found += [f"Intensity_{name}_{image}" for name in MEASURES]
        found += [f"Location_{name}_{image}" for name in PLACES]
    return tuple(found)


def measure(
    regions: Regions,
    pictures: Mapping[str, Float32[np.ndarray, "h w"]],
    settings: Intensity,
    *,
    orders: pixel_order.Orders | None = None,
    stable: bool = False,
) -> Float[np.ndarray, "n k"]:
    """Values of `names(settings)`; `pictures` in [0, 1]. `orders`: `pixel_order.rising` of channels, where known."""
    out = np.empty((regions.n, len(settings.images), _WIDTH))
    edge = edge_pixels(regions)
    sorts = pixel_order.of_channels(pictures, settings.images, orders)
    labels = regions.labels.ravel()
    inside = np.flatnonzero(labels)
    owner = labels[inside]
    x = np.empty(regions.index.size, np.float32)
    for c, name in enumerate(settings.images):
        flat = np.ascontiguousarray(pictures[name]).ravel()
        table = out[:, c]
        _sums(regions.start, regions.index, regions.y, regions.x, edge, flat, table)
        pixel_order.spread(sorts[name], flat, labels, regions.start, x)
        _quantiles(regions.start, x, table)
        place = tie_order.maximum_places(flat[inside], owner, regions.n, stable)
        at = inside[place] if inside.size else place
        table[:, 18] = np.where(place < 0, np.nan, at % regions.shape[1])
        table[:, 19] = np.where(place < 0, np.nan, at // regions.shape[1])
        table[:, 20] = np.where(place < 0, np.nan, 0.0)
    return out.reshape(regions.n, len(settings.images) * _WIDTH)


def edge_pixels(regions: Regions) -> Bool[np.ndarray, " p"]:
    """Pixels of the lists on the inner edge of their object: some 4-neighbour in the picture bears another label."""
    return _edge(regions.labels, regions.y, regions.x)


@njit(cache=True, nogil=True)
@no_type_check
def _edge(labels, ys, xs):
    height, width = labels.shape
    out = np.zeros(ys.size, np.bool_)
    for p in range(ys.size):
        y, x = ys[p], xs[p]
        own = labels[y, x]
        out[p] = (
            (y > 0 and labels[y - 1, x] != own)
            or (y + 1 < height and labels[y + 1, x] != own)
            or (x > 0 and labels[y, x - 1] != own)
            or (x + 1 < width and labels[y, x + 1] != own)
        )
    return out


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _sums(start, index, ys, xs, edge, flat, out):
    """Columns 0 to 10 (all but the quantiles) and the centre of mass, 15 to 17."""
    for k in range(start.size - 1):
        first, last = start[k], start[k + 1]
        n = float(last - first)
        total = by_y = by_x = sum_y = sum_x = 0.0
        low, high = np.float32(np.inf), np.float32(-np.inf)
        edges = edge_total = 0.0
        edge_low, edge_high = np.float32(np.inf), np.float32(-np.inf)
        for p in range(first, last):
            v = flat[index[p]]
            w = float(v)
            total += w
            by_y += ys[p] * w
            by_x += xs[p] * w
            sum_y += ys[p]
            sum_x += xs[p]
            low, high = min(low, v), max(high, v)
            if edge[p]:
                edges += 1.0
                edge_total += w
                edge_low, edge_high = min(edge_low, v), max(edge_high, v)
        mean, edge_mean = total / n, edge_total / edges
        square = edge_square = 0.0
        for p in range(first, last):
            d = float(flat[index[p]])
            square += (d - mean) ** 2
            if edge[p]:
                edge_square += (d - edge_mean) ** 2
        row = out[k]
        row[0], row[1], row[2] = total, mean, np.sqrt(square / n)
        row[3], row[4] = low, high
        row[5], row[6], row[7] = edge_total, edge_mean, np.sqrt(edge_square / edges)
        row[8], row[9] = edge_low, edge_high
        centre_x, centre_y = by_x / total, by_y / total
        # scipy's mean divides the sum of the places by their number.
        dx, dy = sum_x / n - centre_x, sum_y / n - centre_y
        row[15], row[16], row[17] = centre_x, centre_y, 0.0 / total
        dz = 0.0 - row[17]
        row[10] = np.sqrt(dx * dx + dy * dy + dz * dz)
        if edges == 0.0 and n > 0.0:  # one object covers the picture
            row[5:10] = 0.0
        if n == 0.0:
            row[:18] = np.nan


@njit(cache=True, nogil=True)
@no_type_check
def _quantiles(start, x, out):
    """Columns 11 to 14, from the rising values of each object."""
    for k in range(start.size - 1):
        first = start[k]
        n = start[k + 1] - first
        if n == 0:
            out[k, 11:15] = np.nan
            continue
        for column, quarters in ((11, 1), (12, 2), (14, 3)):
            place = n * quarters / 4.0
            i = int(place)
            share = place - i
            if i < n - 1:
                out[k, column] = x[first + i] * (1.0 - share) + x[first + i + 1] * share
            else:
                out[k, column] = x[first + i]
        # |x - median| rises away from the median on both sides: merge the two runs up to the middle.
        median = out[k, 12]
        right = 0
        while right < n and x[first + right] < median:
            right += 1
        left = right - 1
        place = n / 2.0
        i = int(place)
        share = place - i
        here = ahead = 0.0
        for t in range(min(i + 2, n)):
            a = abs(x[first + left] - median) if left >= 0 else np.inf
            b = abs(x[first + right] - median) if right < n else np.inf
            if a <= b:
                left -= 1
            else:
                right += 1
            d = min(a, b)
            if t == i:
                here = d
            elif t == i + 1:
                ahead = d
        out[k, 13] = here * (1.0 - share) + ahead * share if i < n - 1 else here
