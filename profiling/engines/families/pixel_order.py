"""All pixels of a picture by rising intensity: one radix sort a channel, from which quartiles and ranks are read.

A float32 that is not negative sorts as its bits do, so three counting passes of 11 bits order a picture: 12 reads and
writes a pixel, no comparison. Walking that order once puts the pixels of every object into rising order too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int32, UInt32
from numba import njit

Orders = Mapping[str, Int32[np.ndarray, " p"]]


def rising(picture: Float32[np.ndarray, "h w"]) -> Int32[np.ndarray, " p"]:
    """Places in the raveled picture by rising value, equal values in raster order; values must not be negative."""
    flat = np.ascontiguousarray(picture).ravel() + np.float32(0.0)  # -0 becomes 0
    return _radix(flat.view(np.uint32))


def by_bits(keys: UInt32[np.ndarray, " p"]) -> Int32[np.ndarray, " p"]:
    """Places by rising key, equal keys in order."""
    out: Int32[np.ndarray, " p"] = _radix(keys)
    return out


def of_channels(
    pictures: Mapping[str, Float32[np.ndarray, "h w"]], names: Iterable[str], known: Orders | None
) -> dict[str, Int32[np.ndarray, " p"]]:
    """The orders of the named channels; those already in `known` are taken from there."""
    given = known or {}
    return {name: given[name] if name in given else rising(pictures[name]) for name in names}


@njit(cache=True, nogil=True)
@no_type_check
def _radix(keys):
    n = keys.size
    counts = np.zeros((3, 2048), np.int32)
    for i in range(n):
        key = keys[i]
        counts[0, key & 2047] += 1
        counts[1, (key >> 11) & 2047] += 1
        counts[2, key >> 22] += 1
    order = np.arange(n, dtype=np.int32)
    other = np.empty(n, np.int32)
    for step in range(3):
        shift = 11 * step
        total = 0
        most = 0
        for b in range(2048):
            c = counts[step, b]
            counts[step, b] = total
            total += c
            most = max(most, c)
        if most == n:  # all keys share these bits
            continue
        for t in range(n):
            b = (keys[order[t]] >> shift) & 2047
            other[counts[step, b]] = order[t]
            counts[step, b] += 1
        order, other = other, order
    return order


def median(order: Int32[np.ndarray, " p"], flat: Float32[np.ndarray, " p"]) -> np.float32:
    """`numpy.median` of a float32 picture, read off its order."""
    half = order.size // 2
    if order.size % 2:
        return flat[order[half]]
    return (flat[order[half - 1]] + flat[order[half]]) / np.float32(2)


@njit(cache=True, nogil=True)
@no_type_check
def extremes(order, flat):
    """How many values equal the largest, and how many the smallest."""
    n = order.size
    high = low = 0
    while high < n and flat[order[n - 1 - high]] == flat[order[n - 1]]:
        high += 1
    while low < n and flat[order[low]] == flat[order[0]]:
        low += 1
    return high, low


@njit(cache=True, nogil=True)
@no_type_check
def median_distance(order, flat, centre):
    """Median of |x − centre| in float32: distances rise away from the centre on both sides, so two runs are merged."""
    n = order.size
    low, high = 0, n
    while low < high:  # the first value that is not below the centre
        middle = (low + high) // 2
        if flat[order[middle]] < centre:
            low = middle + 1
        else:
            high = middle
    right = low
    left = low - 1
    before = here = np.float32(0.0)
    for _ in range(n // 2 + 1):
        before = here
        near = abs(flat[order[left]] - centre) if left >= 0 else np.float32(np.inf)
        far = abs(flat[order[right]] - centre) if right < n else np.float32(np.inf)
        if near <= far:
            here = near
            left -= 1
        else:
            here = far
            right += 1
    return here if n % 2 == 1 else (before + here) / np.float32(2.0)


@njit(cache=True, nogil=True)
@no_type_check
def spread(order, flat, labels, start, values):
    """Walks `order` and writes the values of each object, rising, to its run of `values`."""
    place = start[:-1].copy()
    for t in range(order.size):
        i = order[t]
        k = labels[i] - 1
        if k >= 0:
            values[place[k]] = flat[i]
            place[k] += 1


@njit(cache=True, nogil=True)
@no_type_check
def dense_ranks(order, flat, labels, ranks):
    """Dense rank (equal values share one, from 0) among all labelled pixels, at each labelled place of the picture."""
    rank = -1
    last = np.float32(0.0)
    for t in range(order.size):
        i = order[t]
        if labels[i] > 0:
            if rank < 0 or flat[i] != last:
                rank += 1
                last = flat[i]
            ranks[i] = rank
    return rank


@njit(cache=True, nogil=True)
@no_type_check
def ranks_of_objects(order, flat, labels, n, ranks):
    """The same within each object 1 to n; returns how many ranks each object has (at least 1)."""
    rank = np.full(n, -1, np.int32)
    last = np.zeros(n, np.float32)
    for t in range(order.size):
        i = order[t]
        k = labels[i] - 1
        if k >= 0:
            if rank[k] < 0 or flat[i] != last[k]:
                rank[k] += 1
                last[k] = flat[i]
            ranks[i] = rank[k]
    return np.maximum(rank + 1, 1)
