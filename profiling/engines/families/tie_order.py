"""Which of several equal maxima stock CellProfiler takes: the order in which numpy's argsort leaves ties.

`scipy.ndimage.maximum_position` sorts all pixels with `argsort()` and keeps, for each label, the last of the equal
ones. That sort is numpy's introsort, which is not stable, so the choice among equal maxima is an artefact of the whole
picture's order. Two families depend on it: RadialDistribution (the centre of an object is one of the pixels farthest
from its edge, and there are nearly always several) and Location_MaxIntensity.

Here the sort's own steps are repeated (median of three, partition, insertion up to 16, heap sort when too deep), but
only in the partitions that hold a wanted maximum: about two reads of each pixel instead of a full sort. The stock order
is that of numpy 1.24 without vector sorting, which CellProfiler pins; numpy 2 with AVX-512 sorts otherwise, and then
stock CellProfiler itself gives other numbers. With `stable` the first of the equal maxima in raster order is taken,
which depends on nothing else.

Reference: numpy 1.24, `npysort/quicksort.cpp` (`aquicksort_`) and `npysort/heapsort.cpp` (`aheapsort_`); Musser,
Introspective sorting and selection algorithms (1997).
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Int32, Int64, Num
from numba import njit

_SMALL = 15  # numpy's SMALL_QUICKSORT


def maximum_places(
    values: Num[np.ndarray, " p"], owner: Int32[np.ndarray, " p"], n: int, stable: bool = False
) -> Int64[np.ndarray, " n"]:
    """Place in `values` of the maximum of each object 1 to n; -1 for an object without pixels.

    values: of all pixels that stock CellProfiler hands to the sort, in its order. owner: label of each, 0 for none.
    Cost: two passes without ties; with ties the few partitions that hold them too.
    """
    places, tied, top = _maxima(values, owner, n)
    if stable or not tied.any():
        return places
    wanted = np.unique(top[tied])
    order = np.arange(values.size, dtype=np.int32)
    _sort_around(values, order, wanted)
    _last(values, owner, order, top, tied, places)
    return places


@njit(cache=True, nogil=True)
@no_type_check
def _maxima(values, owner, n):
    """First place of the maximum of each object, whether it has several, and the maximum."""
    places = np.full(n, -1, np.int64)
    tied = np.zeros(n, np.bool_)
    top = np.zeros(n, values.dtype)
    for i in range(values.size):
        k = owner[i] - 1
        if k < 0:
            continue
        if places[k] < 0 or values[i] > top[k]:
            places[k], top[k], tied[k] = i, values[i], False
        elif values[i] == top[k]:
            tied[k] = True
    return places, tied, top


@njit(cache=True, nogil=True)
@no_type_check
def _last(values, owner, order, top, tied, places):
    for t in range(order.size):
        k = owner[order[t]] - 1
        if k >= 0 and tied[k] and values[order[t]] == top[k]:
            places[k] = order[t]


@njit(cache=True, nogil=True)
@no_type_check
def _holds(wanted, low, high, bounded_low, bounded_high):
    """Whether a wanted value can lie in a partition; a bound counts only if it is set."""
    for w in wanted:  # noqa: SIM110 - numba compiles no generators
        if (not bounded_low or w >= low) and (not bounded_high or w <= high):
            return True
    return False


@njit(cache=True, nogil=True)
@no_type_check
def _sift(values, order, base, tmp, i, n):
    j = 2 * i
    while j <= n:
        if j < n and values[order[base + j]] < values[order[base + j + 1]]:
            j += 1
        if values[tmp] < values[order[base + j]]:
            order[base + i] = order[base + j]
            i = j
            j += j
        else:
            break
    order[base + i] = tmp


@njit(cache=True, nogil=True)
@no_type_check
def _heap_sort(values, order, left, n):
    base = left - 1
    for i in range(n >> 1, 0, -1):
        _sift(values, order, base, order[base + i], i, n)
    while n > 1:
        tmp = order[base + n]
        order[base + n] = order[base + 1]
        n -= 1
        _sift(values, order, base, tmp, 1, n)


@njit(cache=True, nogil=True)
@no_type_check
def _sort_around(values, order, wanted):
    """numpy's indirect introsort of `order`, left undone where no value of `wanted` can lie."""
    n = order.size
    depth_left = 0
    while (n >> (depth_left + 1)) > 0:
        depth_left += 1
    depth_left *= 2
    stack = np.empty((2 * 64 + 64, 5), np.int64)
    bounds = np.empty((2 * 64 + 64, 2), values.dtype)
    used = 0
    left, right = 0, n - 1
    low = high = values[0]
    has_low = has_high = False
    while True:
        alive = right > left and _holds(wanted, low, high, has_low, has_high)
        if alive and depth_left < 0:
            _heap_sort(values, order, left, right - left + 1)
            alive = False
        while alive and right - left > _SMALL:
            middle = left + ((right - left) >> 1)
            if values[order[middle]] < values[order[left]]:
                order[middle], order[left] = order[left], order[middle]
            if values[order[right]] < values[order[middle]]:
                order[right], order[middle] = order[middle], order[right]
            if values[order[middle]] < values[order[left]]:
                order[middle], order[left] = order[left], order[middle]
            pivot = values[order[middle]]
            i, j = left, right - 1
            order[middle], order[j] = order[j], order[middle]
            while True:
                i += 1
                while values[order[i]] < pivot:
                    i += 1
                j -= 1
                while pivot < values[order[j]]:
                    j -= 1
                if i >= j:
                    break
                order[i], order[j] = order[j], order[i]
            order[i], order[right - 1] = order[right - 1], order[i]
            depth_left -= 1
            # The larger part waits on the stack, the smaller one goes on; both are bounded by the pivot.
            stack[used, 2] = depth_left
            if i - left < right - i:
                stack[used, 0], stack[used, 1], stack[used, 3], stack[used, 4] = i + 1, right, True, has_high
                bounds[used, 0], bounds[used, 1] = pivot, high
                right, high, has_high = i - 1, pivot, True
            else:
                stack[used, 0], stack[used, 1], stack[used, 3], stack[used, 4] = left, i - 1, has_low, True
                bounds[used, 0], bounds[used, 1] = low, pivot
                left, low, has_low = i + 1, pivot, True
            used += 1
            alive = _holds(wanted, low, high, has_low, has_high)
        if alive:
            for i in range(left + 1, right + 1):
                moving = order[i]
                value = values[moving]
                j = i
                while j > left and value < values[order[j - 1]]:
                    order[j] = order[j - 1]
                    j -= 1
                order[j] = moving
        if used == 0:
            return
        used -= 1
        left, right, depth_left = stack[used, 0], stack[used, 1], stack[used, 2]
        has_low, has_high = stack[used, 3] != 0, stack[used, 4] != 0
        low, high = bounds[used, 0], bounds[used, 1]
