"""Grey-scale morphology of MeasureGranularity on whole numbers: erosion by a cross, opening by a disk.

A float32 that is not negative orders as its bits do, and morphology only compares and copies; so pictures come and go
as int32 views, whose minimum and maximum take one step. The results are those of scikit-image to the last bit.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Int32
from numba import njit


@njit(cache=True, nogil=True)
@no_type_check
def erode_cross(picture, out):
    """Minimum over a pixel and its 4 neighbours inside the picture; int32 [h, w]."""
    height, width = picture.shape
    for y in range(height):
        up, here, down, row = picture[max(y - 1, 0)], picture[y], picture[min(y + 1, height - 1)], out[y]
        for x in range(width):
            row[x] = min(here[x], min(up[x], down[x]))
        for x in range(width - 1):
            row[x] = min(row[x], here[x + 1])
        for x in range(1, width):
            row[x] = min(row[x], here[x - 1])


def open_disk(picture: Int32[np.ndarray, "h w"], radius: int) -> Int32[np.ndarray, "h w"]:
    """Opening by skimage's disk: erosion, then dilation (the erosion of the negative); beyond the frame is nothing."""
    rows = np.arange(-radius, radius + 1)
    reach = np.floor(np.sqrt(radius**2 - rows**2)).astype(np.int64)
    eroded = _erode_disk(picture, reach)
    return -_erode_disk(-eroded, reach)


@njit(cache=True, nogil=True)
@no_type_check
def _erode_disk(picture, reach):
    """Minimum over a disk, row by row of the disk: windows of half width r grow by one pixel at a time."""
    height, width = picture.shape
    radius = reach.size // 2
    out = picture.copy()
    window, wider = picture.copy(), np.empty_like(picture)
    for r in range(radius + 1):
        if r > 0:  # minimum over x - r to x + r, from the windows here and one step to the left and to the right
            for y in range(height):
                row, target = window[y], wider[y]
                for x in range(width - 1):
                    target[x] = min(row[x], row[x + 1])
                target[width - 1] = row[width - 1]
                for x in range(1, width):
                    target[x] = min(target[x], row[x - 1])
            window, wider = wider, window
        for d in range(radius + 1):
            if reach[radius + d] != r:
                continue
            for y in range(height):
                for near in (y - d, y + d):
                    if 0 <= near < height:
                        source, target = window[near], out[y]
                        for x in range(width):
                            target[x] = min(target[x], source[x])
    return out
