"""Biosimilarity of a few profiles to many labels in microseconds: only the features that each label keeps are read.

For many profiles matrix products are faster (`subprofile.py`); for one they read every feature of every label.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int
from numba import njit


@dataclass(frozen=True)
class Kept:
    """What each label keeps, one after another: label j has the entries `starts[j]` to `starts[j + 1]` of `places`
    (features) and `centred` (values minus their mean); `spread` is the sum of their squares, 0 where they do not vary.
    """

    starts: Int[np.ndarray, " l1"]
    places: Int[np.ndarray, " z"]
    centred: Float[np.ndarray, " z"]
    spread: Float[np.ndarray, " l"]


def kept(mask: Bool[np.ndarray, "l k"], centred: Float[np.ndarray, "k l"], spread: Float[np.ndarray, "1 l"]) -> Kept:
    """From the matrices of `subprofile.Factors`."""
    labels, places = np.nonzero(mask)
    starts = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int64)
    return Kept(starts, places.astype(np.int64), np.ascontiguousarray(centred.T[labels, places]), spread[0].copy())


def correlations_of_few(u: Float[np.ndarray, "n k"], of: Kept) -> Float[np.ndarray, "n l"]:
    """Pearson correlation of each profile (without NaN) with each label on its features; NaN where one is constant."""
    out = np.empty((len(u), len(of.spread)))
    largest = np.abs(u).max(axis=1, initial=0.0)
    shifted = np.ascontiguousarray(u - u.mean(axis=1, keepdims=True))
    _correlate(shifted, largest, of.starts, of.places, of.centred, of.spread, out)
    return out


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
@no_type_check
def _correlate(u, largest, starts, places, centred, spread, out):
    for i in range(u.shape[0]):
        x = u[i]
        for j in range(len(spread)):
            n = starts[j + 1] - starts[j]
            top, total, square = 0.0, 0.0, 0.0
            for z in range(starts[j], starts[j + 1]):
                value = x[places[z]]
                top += value * centred[z]
                total += value
                square += value * value
            varies = False
            own = 0.0
            if n > 0:
                # the same limit of rounding as for matrices
                own = square - total * total / n
                varies = own > 1e-13 * square + n * (1e-13 * largest[i]) ** 2
            if varies and spread[j] > 0.0:
                out[i, j] = min(1.0, max(-1.0, top / np.sqrt(own * spread[j])))
            else:
                out[i, j] = np.nan
