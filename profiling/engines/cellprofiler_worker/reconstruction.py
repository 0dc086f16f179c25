# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Grey-scale morphology of MeasureGranularity: erosion by a cross, and reconstruction by dilation with a cross.

Only comparisons and copies of pixel values: the results are those of scikit-image to the last bit. Annotations stay
away from the compiled functions on purpose: numba compiles them.
"""

from __future__ import annotations

from numba import njit


@njit(cache=True)
def reconstruct(seed, mask):
    """Reconstruction by dilation, 4-connected: raster and anti-raster sweeps until nothing changes (Vincent 1993).

    `seed` float64 [h, w] is changed in place and returned; `mask` float64 [h, w] with seed <= mask.
    """
    height, width = seed.shape
    changed = True
    while changed:
        changed = False
        for y in range(height):
            for x in range(width):
                v = seed[y, x]
                if y > 0:
                    v = max(v, seed[y - 1, x])
                if x > 0:
                    v = max(v, seed[y, x - 1])
                v = min(v, mask[y, x])
                if v != seed[y, x]:
                    seed[y, x] = v
                    changed = True
        for y in range(height - 1, -1, -1):
            for x in range(width - 1, -1, -1):
                v = seed[y, x]
                if y + 1 < height:
                    v = max(v, seed[y + 1, x])
                if x + 1 < width:
                    v = max(v, seed[y, x + 1])
                v = min(v, mask[y, x])
                if v != seed[y, x]:
                    seed[y, x] = v
                    changed = True
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
