"""Does the model repeat its training pictures? The nearest training picture of every generated one, beside that of
held-out real pictures: a model that memorises is nearer to its training set than new pictures of the same world are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

import numpy as np
from jaxtyping import Float, Int


class Memory(TypedDict):
    """ratio: median distance of generated to their nearest training picture over that of held-out pictures (about 1 for
    a model that learned the distribution, towards 0 for one that copies). copies: share of generated pictures nearer
    than the nearest one per cent of held-out ones (0.01 by chance).
    """

    ratio: float
    copies: float


class MemorisationError(ValueError):
    """Raised when there is nothing to compare with."""


def nearest(
    queries: Float[np.ndarray, "n k"], batches: Iterable[Float[np.ndarray, "_ k"]]
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Distance to the nearest row among all batches, and its position counted over them; memory is one batch.

    Raises MemorisationError when the batches are empty.
    """
    x = np.asarray(queries, dtype=np.float64)
    best, where, start = np.full(len(x), np.inf), np.full(len(x), -1, dtype=np.int64), 0
    for batch in batches:
        y = np.asarray(batch, dtype=np.float64)
        squared = (x**2).sum(1)[:, None] - 2.0 * x @ y.T + (y**2).sum(1)[None]
        if len(y):
            at = squared.argmin(1)
            near = ((x - y[at]) ** 2).sum(1)  # exact: the expansion above cancels for copies
            better = near < best
            best[better], where[better] = near[better], start + at[better]
        start += len(y)
    if not start:
        raise MemorisationError(
            "training pictures: got none, expected at least one; give the rows of the training split"
        )
    return np.sqrt(best), where


def memory(generated: Float[np.ndarray, " n"], held_out: Float[np.ndarray, " m"], share: float = 0.01) -> Memory:
    """The verdict from nearest distances of both sets. Raises MemorisationError when one is empty."""
    if not len(generated) or not len(held_out):
        raise MemorisationError(f"distances: got {len(generated)} and {len(held_out)}, expected at least one of each")
    return {
        "ratio": float(np.median(generated) / max(float(np.median(held_out)), 1e-12)),
        "copies": float(np.mean(generated <= np.quantile(held_out, share, method="lower") * (1.0 - 1e-9))),
    }
