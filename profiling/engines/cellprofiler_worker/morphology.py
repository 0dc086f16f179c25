# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Grey-scale morphology of MeasureGranularity: erosion by a cross, opening by a disk, reconstruction by dilation.

Only comparisons and copies of pixel values: the results are those of scikit-image to the last bit. Annotations stay
away from the compiled functions on purpose: numba compiles them.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def _sweep(seed, mask, step):
    """One raster (step 1) or anti-raster (step -1) pass; whether anything changed."""
    height, width = seed.shape
    changed = False
    for a in range(height):
        y = a if step > 0 else height - 1 - a
        before_y = y - step
        for b in range(width):
            x = b if step > 0 else width - 1 - b
            before_x = x - step
            v = seed[y, x]
            if 0 <= before_y < height:
                v = max(v, seed[before_y, x])
            if 0 <= before_x < width:
                v = max(v, seed[y, before_x])
            v = min(v, mask[y, x])
            if v != seed[y, x]:
                seed[y, x] = v
                changed = True
    return changed


@njit(cache=True)
def reconstruct(seed, mask):
    """Reconstruction by dilation, 4-connected (Vincent 1993, the hybrid algorithm).

    `seed` float64 [h, w] is changed in place and returned; `mask` float64 [h, w]; where seed > mask it counts as mask.
    One raster and one anti-raster pass, then a queue of the pixels that can still pass something on.
    """
    height, width = seed.shape
    _sweep(seed, mask, 1)
    _sweep(seed, mask, -1)
    queue = np.empty(4 * height * width + 1, np.int64)
    head = tail = 0
    for y in range(height):
        for x in range(width):
            v = seed[y, x]
            for k in range(4):
                yy = y + (k == 0) - (k == 1)
                xx = x + (k == 2) - (k == 3)
                if 0 <= yy < height and 0 <= xx < width and seed[yy, xx] < v and seed[yy, xx] < mask[yy, xx]:
                    queue[tail] = y * width + x
                    tail += 1
                    break
    while head != tail:
        y, x = queue[head] // width, queue[head] % width
        head = (head + 1) % queue.size
        v = seed[y, x]
        for k in range(4):
            yy = y + (k == 0) - (k == 1)
            xx = x + (k == 2) - (k == 3)
            if 0 <= yy < height and 0 <= xx < width and seed[yy, xx] < v and seed[yy, xx] < mask[yy, xx]:
                seed[yy, xx] = min(v, mask[yy, xx])
                queue[tail] = yy * width + xx
                tail = (tail + 1) % queue.size
                if tail == head:  # full: passes until nothing changes give the same result, slower
                    while _sweep(seed, mask, 1) or _sweep(seed, mask, -1):
                        continue
                    return seed
    return seed


@njit(cache=True)
def erode_cross(picture, out):
    """Minimum over a pixel and its 4 neighbours inside the picture; float [h, w]."""
    height, width = picture.shape
    for y in range(height):
        for x in range(width):
            v = picture[y, x]
            if y > 0:
                v = min(v, picture[y - 1, x])
            if y + 1 < height:
                v = min(v, picture[y + 1, x])
            if x > 0:
                v = min(v, picture[y, x - 1])
            if x + 1 < width:
                v = min(v, picture[y, x + 1])
            out[y, x] = v
    return out


def half_widths(radius: int) -> np.ndarray:
    """Of the disk of `skimage.morphology.disk`: how far it reaches left and right, in rows -radius to radius."""
    rows = np.arange(-radius, radius + 1)
    return np.floor(np.sqrt(radius**2 - rows**2)).astype(np.int64)


@njit(cache=True)
def erode_disk(picture, widths, out):
    """Minimum over a disk inside the picture; float [h, w]. The mirrored borders of scipy add nothing smaller."""
    height, width = picture.shape
    radius = widths.size // 2
    for y in range(height):
        for x in range(width):
            v = picture[y, x]
            for k in range(max(0, y - radius), min(height, y + radius + 1)):
                reach = widths[k - y + radius]
                for j in range(max(0, x - reach), min(width, x + reach + 1)):
                    v = min(v, picture[k, j])
            out[y, x] = v
    return out


def open_disk(picture: np.ndarray, radius: int) -> np.ndarray:
    """Opening by a disk: erosion, then dilation (the erosion of the negative)."""
    widths = half_widths(radius)
    eroded = erode_disk(picture, widths, np.empty_like(picture))
    return np.asarray(-erode_disk(-eroded, widths, np.empty_like(picture)))
