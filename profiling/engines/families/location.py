"""Where objects are, their numbers, and who belongs to whom: what the Identify modules note about objects.

A child's parent is the object that shares most pixels with it, the lower number at a tie, 0 without any (CellProfiler
`relate_children`).
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int32, Int64
from numba import njit

from profiling.engines.families.regions import Regions


def centres(regions: Regions) -> Float[np.ndarray, "n 2"]:
    """Mean column and mean row of each object; NaN for an absent one."""
    area = regions.area.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = regions.sums(regions.x.astype(float)) / area, regions.sums(regions.y.astype(float)) / area
    return np.stack([x, y], axis=1)


def parents(
    parent: Int32[np.ndarray, "h w"], child: Int32[np.ndarray, "h w"], n_parents: int, n_children: int
) -> tuple[Int64[np.ndarray, " children"], Int64[np.ndarray, " parents"]]:
    """The parent of each child (0: none), and the number of children of each parent."""
    shared = _shared(parent, child, n_parents, n_children)
    of = shared.argmax(axis=0)[1:].astype(np.int64)
    return of, np.bincount(of, minlength=n_parents + 1)[1:].astype(np.int64)


@njit(cache=True, nogil=True)
@no_type_check
def _shared(parent, child, n_parents, n_children):
    out = np.zeros((n_parents + 1, n_children + 1), np.int64)
    for y in range(child.shape[0]):
        for x in range(child.shape[1]):
            if parent[y, x] > 0 and child[y, x] > 0:
                out[parent[y, x], child[y, x]] += 1
    return out
