"""Channel combinations that a model was not trained on: fewer channels, and more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np


def combinations_of(
    channels: Sequence[str], always: Sequence[str] = (), most: int = 0, rng: np.random.Generator | None = None
) -> tuple[tuple[str, ...], ...]:
    """All true subsets of `channels` that hold `always` and at least one more, from large to small; at most `most` of
    them (0: all), drawn by `rng`, in the same order."""
    free = [name for name in channels if name not in always]
    subsets = [
        tuple(name for name in channels if name in always or name in chosen)
        for size in range(len(free) - 1, 0, -1)
        for chosen in combinations(free, size)
    ]
    if not most or most >= len(subsets):
        return tuple(subsets)
    kept = np.sort((rng or np.random.default_rng(0)).permutation(len(subsets))[:most])
    return tuple(subsets[i] for i in kept)
