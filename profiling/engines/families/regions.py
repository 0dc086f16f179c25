"""The pixels of all objects of a label image, sorted by object: the one data structure that the families share.

Compressed rows, as of a sparse matrix: the pixels of object i (label i + 1) are places start[i] to start[i + 1] of the
flat lists, in raster order. Building it is one counting sort, O(h w); each family is then a pass over its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int32, Int64, Integer, Num
from numba import njit


class InvalidLabels(ValueError):
    """Not a label image: 0 for background, 1 to n for objects."""


@dataclass(frozen=True)
class Regions:
    """Objects of one label image.

    labels: [h, w], 0 is background. n: objects; a label of 1 to n may be absent (its list is empty). start: see above.
    index: place of each pixel in the raveled picture. y, x: its row and column. box: first row, first column, one
    behind the last row and column of each object; zeros where it is empty.
    """

    labels: Int32[np.ndarray, "h w"]
    n: int
    start: Int64[np.ndarray, " m"]
    index: Int64[np.ndarray, " p"]
    y: Int32[np.ndarray, " p"]
    x: Int32[np.ndarray, " p"]
    box: Int32[np.ndarray, "n 4"]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def area(self) -> Int64[np.ndarray, " n"]:
        """Pixels of each object."""
        return np.diff(self.start)

    @property
    def owner(self) -> Int64[np.ndarray, " p"]:
        """Object (0 to n - 1) of each pixel of the lists."""
        return np.repeat(np.arange(self.n), self.area)

    def gather(self, picture: Num[np.ndarray, "h w"]) -> Num[np.ndarray, " p"]:
        """The values of a picture at the pixels of the lists, in the picture's dtype."""
        return np.ascontiguousarray(picture).ravel()[self.index]

    def sums(self, values: Float[np.ndarray, " p"]) -> Float[np.ndarray, " n"]:
        """Sum of `values` over the pixels of each object, in raster order in float64, as `scipy.ndimage.sum` does."""
        return segment_sums(self.start, values)


def regions(labels: Integer[np.ndarray, "h w"], n: int | None = None) -> Regions:
    """The objects of a label image; `n` defaults to its largest label.

    Raises:
        InvalidLabels: a negative label, or one above `n`.
    """
    labels = np.ascontiguousarray(labels, np.int32)
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    n = high if n is None else n
    if low < 0 or high > n:
        raise InvalidLabels(f"labels: got values from {low} to {high}, expected 0 to {n}: relabel the objects 1 to n")
    start, index, y, x, box = _sort(labels, n)
    return Regions(labels, n, start, index, y, x, box)


@njit(cache=True, nogil=True)
@no_type_check
def _sort(labels, n):
    height, width = labels.shape
    start = np.zeros(n + 1, np.int64)
    for i in range(height):
        for j in range(width):
            if labels[i, j] > 0:
                start[labels[i, j]] += 1
    for k in range(n):
        start[k + 1] += start[k]
    total = start[n]
    index = np.empty(total, np.int64)
    y = np.empty(total, np.int32)
    x = np.empty(total, np.int32)
    box = np.zeros((n, 4), np.int32)
    place = start[:n].copy()
    for i in range(height):
        for j in range(width):
            k = labels[i, j] - 1
            if k < 0:
                continue
            p = place[k]
            if p == start[k]:
                box[k, 0], box[k, 1], box[k, 2], box[k, 3] = i, j, i + 1, j + 1
            index[p] = i * width + j
            y[p] = i
            x[p] = j
            box[k, 1] = min(box[k, 1], j)
            box[k, 2] = i + 1
            box[k, 3] = max(box[k, 3], j + 1)
            place[k] = p + 1
    return start, index, y, x, box


@njit(cache=True, nogil=True)
@no_type_check
def segment_sums(start, values):
    """Sum of each run of `values`, one addition after the other."""
    out = np.zeros(start.size - 1)
    for k in range(start.size - 1):
        total = 0.0
        for p in range(start[k], start[k + 1]):
            total += values[p]
        out[k] = total
    return out
