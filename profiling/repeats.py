"""How often the values of a feature repeat: distinct values, and the counts of the two most common, without sorting.

A hash table with open addressing, one column at a time: linear in the rows, where a sort is not.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int
from numba import njit

SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: neighbouring numbers fall far apart (Knuth 6.4)


def repeats(columns: Float[np.ndarray, "k n"]) -> Int[np.ndarray, "k 3"]:
    """Rows of `columns` are features: for each the number of distinct values, and how often the most and the second
    most common one occur (0 where there is none). NaN is no value; 0 and -0 are one."""
    bits = max(4, int(np.ceil(np.log2(max(2 * columns.shape[1], 2)))))
    values = np.ascontiguousarray(columns, dtype=np.float64)
    out = np.zeros((len(values), 3), dtype=np.int64)
    keys, counts = np.zeros(1 << bits, dtype=np.uint64), np.zeros(1 << bits, dtype=np.int32)
    _count(values, np.uint64(64 - bits), keys, counts, out)
    return out


@njit(cache=True, nogil=True)
@no_type_check
def _count(values, shift, keys, counts, out):
    last = len(keys) - 1
    for j in range(values.shape[0]):
        counts[:] = 0
        column = values[j]
        bits = column.view(np.uint64)
        for i in range(len(column)):
            if np.isnan(column[i]):
                continue
            key = np.uint64(0) if column[i] == 0.0 else bits[i]
            at = np.int64((key * SPREAD) >> shift)
            while counts[at] > 0 and keys[at] != key:
                at = (at + 1) & last
            keys[at] = key
            counts[at] += 1
        first, second, distinct = 0, 0, 0
        for at in range(len(counts)):
            count = counts[at]
            if count > 0:
                distinct += 1
                if count > first:
                    first, second = count, first
                elif count > second:
                    second = count
        out[j, 0], out[j, 1], out[j, 2] = distinct, first, second
