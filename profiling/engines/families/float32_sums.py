"""Sums, means and deviations of float32 pictures as numpy 1.24 rounds them.

Some of CellProfiler's numbers are float32 sums over a whole picture: the focus score, means and deviations of
MeasureImageQuality, the first mean of MeasureGranularity. Their rounding, some 1e-7 relative, is that of numpy's
pairwise summation (blocks of 128 with eight partial sums, halved above) inside buffers of 8,192 values; later releases
of numpy sum without the buffers.
Repeating it costs nothing and makes those columns equal on every numpy.

Reference: numpy 1.24, `loops_utils.h.src` (`pairwise_sum`), `_methods.py` (`_mean`, `_var`); Higham, The accuracy of
floating point summation (1993).
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float32
from numba import njit


def mean(values: Float32[np.ndarray, "..."]) -> np.float32:
    """`numpy.mean` of float32 values."""
    return np.float32(float(pairwise(np.ascontiguousarray(values).ravel())) / values.size)


def deviation(values: Float32[np.ndarray, "..."]) -> np.float32:
    """`numpy.std` of float32 values."""
    flat = np.ascontiguousarray(values).ravel()
    centre = pairwise(flat) / np.float32(flat.size)
    spread = flat - centre
    return np.sqrt(np.float32(float(pairwise(spread * spread)) / flat.size))


def variance(values: Float32[np.ndarray, "..."], ddof: int) -> np.float32:
    """`numpy.var` of float32 values with `ddof` degrees of freedom taken off."""
    flat = np.ascontiguousarray(values).ravel()
    spread = flat - pairwise(flat) / np.float32(flat.size)
    return np.float32(float(pairwise(spread * spread)) / max(flat.size - ddof, 0))


@njit(cache=True, nogil=True)
@no_type_check
def _block(values, first, n):
    if n < 8:
        total = np.float32(0.0)
        for i in range(n):
            total += values[first + i]
        return total
    r0, r1, r2, r3 = values[first], values[first + 1], values[first + 2], values[first + 3]
    r4, r5, r6, r7 = values[first + 4], values[first + 5], values[first + 6], values[first + 7]
    whole = n - n % 8
    for i in range(first + 8, first + whole, 8):
        r0 += values[i]
        r1 += values[i + 1]
        r2 += values[i + 2]
        r3 += values[i + 3]
        r4 += values[i + 4]
        r5 += values[i + 5]
        r6 += values[i + 6]
        r7 += values[i + 7]
    total = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    for i in range(first + whole, first + n):
        total += values[i]
    return total


@njit(cache=True, nogil=True)
@no_type_check
def _tree(values, first, n):
    if n <= 128:
        return _block(values, first, n)
    half = n // 2
    half -= half % 8
    return _tree(values, first, half) + _tree(values, first + half, n - half)


@njit(cache=True, nogil=True)
@no_type_check
def pairwise(values):
    """Sum of a flat float32 array: of the pairwise sums of numpy's buffers of 8,192 values, one after the other."""
    total = np.float32(0.0)
    for first in range(0, values.size, 8192):
        total += _tree(values, first, min(8192, values.size - first))
    return total
