"""Distances inside objects: to the object's edge, and from its centre along paths that stay inside.

Edge: Euclidean distance of a pixel to the nearest pixel of the picture with another label (the frame of the picture is
no edge). CellProfiler colours touching objects apart and transforms each colour; the nearest foreign pixel of an object
always touches it, so one transform of the label image gives the same numbers. Two passes down the columns, then a
search along the row that ends as soon as no nearer pixel can come: O(p) times the typical distance. Felzenszwalb and
Huttenlocher, Distance transforms of sampled functions (2012), with the inner parabola replaced by that bounded search.

Path: the shortest 8-connected path inside the object with steps 1 and √2, what `centrosome.propagate` computes on a
flat picture with weight 1 by a priority queue. Here sweeps in both directions are repeated until nothing changes; the
smallest sum over paths is the same in floating point, whatever the order of the search.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int32, Int64
from numba import njit

from profiling.engines.families.regions import Regions

_FAR = 1 << 14  # rows beyond any picture; its square fits 32 bits
_DIAGONAL = np.sqrt(2.0)


def squared_to_edge(regions: Regions) -> Int32[np.ndarray, "h w"]:
    """Squared distance of every labelled pixel to the nearest pixel with another label, pixels²; 0 in the background.

    Where one object covers the whole picture there is no such pixel, and the value is at least 2^28.
    """
    return _transform(regions.labels)


def path_from(regions: Regions, centres: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " p"]:
    """Length of the shortest path inside the object from its centre to each pixel of the lists; inf where none leads.

    centres: place of each object's centre in the raveled picture, -1 for an empty object.
    """
    height, width = regions.shape
    distance = np.full((height + 2) * (width + 2), np.inf)
    key = np.zeros((height + 2) * (width + 2), np.int32)
    places = (regions.y.astype(np.int64) + 1) * (width + 2) + regions.x + 1
    key[places] = regions.labels.ravel()[regions.index]
    real = centres[centres >= 0]
    distance[(real // width + 1) * (width + 2) + real % width + 1] = 0.0
    _sweep(regions.start, places, key, distance, width + 2)
    return distance[places]


@njit(cache=True, nogil=True)
@no_type_check
def _transform(labels):
    height, width = labels.shape
    column = np.zeros((height, width), np.int32)  # rows to the nearest foreign pixel of the column
    for y in range(height):
        for x in range(width):
            own = labels[y, x]
            if own == 0:
                column[y, x] = 0
            elif y == 0:
                column[y, x] = _FAR
            elif labels[y - 1, x] != own:
                column[y, x] = 1
            else:
                column[y, x] = min(column[y - 1, x] + 1, _FAR)
    for y in range(height - 2, -1, -1):
        for x in range(width):
            own = labels[y, x]
            if own > 0:
                below = 1 if labels[y + 1, x] != own else column[y + 1, x] + 1
                column[y, x] = min(column[y, x], below)
    out = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            own = labels[y, x]
            if own == 0:
                continue
            best = column[y, x] * column[y, x]
            for step in (-1, 1):
                d = 1
                at = x + step
                while 0 <= at < width and d * d < best:
                    if labels[y, at] != own:
                        best = d * d
                        break
                    best = min(best, d * d + column[y, at] * column[y, at])
                    d += 1
                    at += step
            out[y, x] = best
    return out


@njit(cache=True, nogil=True)
@no_type_check
def _sweep(start, places, key, distance, stride):
    diagonal = _DIAGONAL
    for k in range(start.size - 1):
        changed = True
        while changed:
            changed = False
            for forward in (True, False):
                s = -1 if forward else 1
                for t in range(start[k + 1] - start[k]):
                    q = places[start[k] + t] if forward else places[start[k + 1] - 1 - t]
                    d = distance[q]
                    if d == 0.0:
                        continue
                    best = d
                    if key[q + s] == k + 1:
                        best = min(best, distance[q + s] + 1.0)
                    above = q + s * stride
                    if key[above - 1] == k + 1:
                        best = min(best, distance[above - 1] + diagonal)
                    if key[above] == k + 1:
                        best = min(best, distance[above] + 1.0)
                    if key[above + 1] == k + 1:
                        best = min(best, distance[above + 1] + diagonal)
                    if best < d:
                        distance[q] = best
                        changed = True
