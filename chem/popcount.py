"""The loop under Tanimoto similarity: shared bits of packed fingerprints, counted 64 at a time by the processor."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit, types
from numba.extending import intrinsic


@intrinsic
@no_type_check
def _ones(context: Any, word: Any) -> Any:
    """Number of ones in an unsigned 64-bit word: LLVM's ctpop, one instruction on today's processors."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@njit(cache=True, nogil=True)
@no_type_check
def sizes(words: np.ndarray) -> np.ndarray:
    """Ones in each row: uint64 [n w] -> int32 [n]."""
    found = np.zeros(len(words), np.int32)
    for row in range(len(words)):
        total = np.uint64(0)
        for place in range(words.shape[1]):
            total += _ones(words[row, place])
        found[row] = total
    return found


@njit(cache=True, nogil=True)
@no_type_check
def similarities(query: np.ndarray, size: int, words: np.ndarray, ones: np.ndarray, out: np.ndarray) -> None:
    """Tanimoto similarity of one row [w] with `size` ones to all rows [n w] with `ones` ones, into float32 [n]."""
    for row in range(len(words)):
        both = np.uint64(0)
        for place in range(words.shape[1]):
            both += _ones(query[place] & words[row, place])
        shared = np.int64(both)
        either = size + ones[row] - shared
        out[row] = np.float32(shared) / np.float32(either) if either > 0 else np.float32(0.0)
