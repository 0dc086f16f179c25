# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Haralick's 13 texture features in 4 directions, over the occupied cells of the co-occurrence matrix only.

What MeasureTexture takes from `mahotas.features.haralick` for a 2-D uint8 picture (Haralick, Shanmugam and Dinstein
1973; mahotas's definitions, quirks included: DifferenceVariance is the variance of the difference histogram itself).
mahotas walks all 256 x 256 cells and multiplies small matrices for each object; here the cost follows the number of
pixel pairs.
Annotations stay away from the compiled functions on purpose: numba compiles them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

#: Pixel offsets of the four directions, in mahotas's order.
ROWS = np.array([0, 1, 1, 1])
COLUMNS = np.array([1, 1, 0, -1])


class NoPixelPairs(ValueError):
    """No two pixels of the object lie at the wanted distance; MeasureTexture then stores NaN."""


@njit(cache=True)
def _entropy(p):
    total = 0.0
    for k in range(p.size):
        if p[k] > 0.0:
            total -= p[k] * np.log2(p[k])
    return total


@njit(cache=True)
def _features(picture, distance, ignore_zeros, rows, columns, out):
    height, width = picture.shape
    levels = int(picture.max()) + 1
    counts = np.zeros((levels, levels), np.int32)  # symmetric co-occurrence, emptied again after each direction
    occupied = np.empty(2 * height * width, np.int64)
    marginal = np.empty(levels)
    sums = np.empty(2 * levels)
    differences = np.empty(levels)
    for direction in range(4):
        n, total = 0, 0
        dy, dx = rows[direction] * distance, columns[direction] * distance
        for y in range(height - dy):
            for x in range(max(0, -dx), min(width, width - dx)):
                i, j = int(picture[y, x]), int(picture[y + dy, x + dx])
                if ignore_zeros and (i == 0 or j == 0):
                    continue
                if counts[i, j] == 0:
                    occupied[n] = i * levels + j
                    n += 1
                counts[i, j] += 1
                if counts[j, i] == 0:
                    occupied[n] = j * levels + i
                    n += 1
                counts[j, i] += 1
                total += 2
        if total == 0:
            return False
        marginal[:] = 0.0
        sums[:] = 0.0
        differences[:] = 0.0
        moment = homogeneity = product = entropy = 0.0
        for t in range(n):
            i, j = occupied[t] // levels, occupied[t] % levels
            p = counts[i, j] / total
            counts[i, j] = 0
            marginal[i] += p
            sums[i + j] += p
            differences[abs(i - j)] += p
            moment += p * p
            homogeneity += p / (1.0 + (i - j) * (i - j))
            product += i * j * p
            entropy -= p * np.log2(p)
        mean = square = contrast = spread = 0.0
        for k in range(levels):
            mean += k * marginal[k]
            square += k * k * marginal[k]
            contrast += k * k * differences[k]
            spread += (differences[k] - 1.0 / levels) ** 2
        sum_mean = sum_square = 0.0
        for k in range(2 * levels):
            sum_mean += k * sums[k]
            sum_square += k * k * sums[k]
        variance = square - mean * mean
        of_marginal = _entropy(marginal)
        row = out[direction]
        row[0] = moment
        row[1] = contrast
        row[2] = (product - mean * mean) / variance if variance > 0.0 else 1.0
        row[3] = variance
        row[4] = homogeneity
        row[5] = sum_mean
        row[6] = sum_square - sum_mean * sum_mean
        row[7] = _entropy(sums)
        row[8] = entropy
        row[9] = spread / levels
        row[10] = _entropy(differences)
        # The cross entropy of a symmetric matrix with its marginals is twice the entropy of one marginal.
        row[11] = (entropy - 2.0 * of_marginal) / of_marginal if of_marginal > 0.0 else entropy - 2.0 * of_marginal
        row[12] = np.sqrt(max(0.0, 1.0 - np.exp(-2.0 * (2.0 * of_marginal - entropy))))
    return True


def haralick(picture: np.ndarray, ignore_zeros: bool = False, distance: int = 1, **other: Any) -> np.ndarray:
    """Drop-in for `mahotas.features.haralick`: uint8 [h, w] → float64 [4 directions, 13 features].

    Raises:
        NoPixelPairs: in some direction no pair of pixels remains.
        TypeError: an option or a number of dimensions that this kernel does not cover.
    """
    if picture.ndim != 2 or other:
        raise TypeError(
            f"haralick: a 2-D picture and no other options expected, got {picture.ndim}-D and {sorted(other)}"
        )
    out = np.empty((4, 13))
    if not _features(np.ascontiguousarray(picture), distance, ignore_zeros, ROWS, COLUMNS, out):
        raise NoPixelPairs(f"haralick: no two pixels of the object at distance {distance} in every direction")
    return out
