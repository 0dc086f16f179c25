"""Average precision of each row of similarities among its own positives and negatives, in one pass over the row.

Equal similarities are one threshold: at the level of a positive count the positives and the negatives that are at least
as similar, P = hits / (hits + others), and average P over the positives. In units of copairs and scikit-learn.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float
from numba import njit


def row_precision(
    similar: Float[np.ndarray, "q n"], positive: Bool[np.ndarray, "q n"], negative: Bool[np.ndarray, "q n"]
) -> Float[np.ndarray, " q"]:
    """AP of each row; NaN for a row without a positive. Columns that are neither positive nor negative do not count."""
    out = np.full(len(similar), np.nan)
    most = int(positive.sum(axis=1).max(initial=0))
    if most:
        _average(similar.astype(np.float64, copy=False), positive, negative, np.empty(most), out)
    return out


@njit(cache=True, nogil=True)
@no_type_check
def _average(similar, positive, negative, level, out):
    passed = np.zeros(len(level), dtype=np.int64)
    for i in range(similar.shape[0]):
        m = 0
        for j in range(similar.shape[1]):
            if positive[i, j]:
                level[m] = similar[i, j]
                m += 1
        if m == 0:
            continue
        own = np.sort(level[:m])  # rising
        passed[:m] = 0
        for j in range(similar.shape[1]):
            if negative[i, j] and similar[i, j] >= own[0]:
                low, high = 0, m  # levels at or below this similarity
                while low < high:
                    middle = (low + high) // 2
                    if own[middle] <= similar[i, j]:
                        low = middle + 1
                    else:
                        high = middle
                passed[low - 1] += 1
        total, others, hits, k = 0.0, 0, 0, m - 1
        while k >= 0:
            first = k  # positives of one level share their threshold
            while first > 0 and own[first - 1] == own[k]:
                first -= 1
            for at in range(first, k + 1):
                others += passed[at]
            hits += k - first + 1
            total += (k - first + 1) * hits / (hits + others)
            k = first - 1
        out[i] = total / m
