"""What a random ranking scores: the null distribution of average precision, exact where there are few rankings.

A query with M positives among L candidates has C(L, M) equally likely rankings. Where these are few they are all
counted; otherwise a seeded sample is drawn, and p = (1 + hits) / (1 + sample).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float, Int

EXACT_LIMIT = 20_000  # rankings counted one by one


@dataclass(frozen=True)
class NullPrecision:
    """Sorted average precisions of random rankings; `exact` when every ranking is there once."""

    values: Float[np.ndarray, " s"]
    exact: bool

    def p(self, observed: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Chance of a value at least as high as each observed one."""
        higher = len(self.values) - np.searchsorted(self.values, observed - 1e-12, side="left")
        return higher / len(self.values) if self.exact else (1.0 + higher) / (1.0 + len(self.values))


def random_ranks(positives: int, total: int, size: int, rng: np.random.Generator) -> Int[np.ndarray, "s m"]:
    """`size` random sets of `positives` different ranks (1 = first) out of `total`, each row sorted."""
    ranks = np.sort(rng.integers(1, total + 1, (size, positives)), axis=1)
    if positives**2 > total:  # many collisions: shuffle instead of drawing again
        order = np.argsort(rng.random((size, total)), axis=1)[:, :positives]
        return np.sort(order + 1, axis=1)
    while (again := (np.diff(ranks, axis=1) == 0).any(axis=1)).any():
        ranks[again] = np.sort(rng.integers(1, total + 1, (int(again.sum()), positives)), axis=1)
    return ranks


def random_precision(positives: int, total: int, size: int, rng: np.random.Generator) -> Float[np.ndarray, " s"]:
    """Average precisions of `size` random rankings, in the order drawn."""
    step = max(1, 20_000_000 // total) if positives**2 > total else size
    parts = []
    for start in range(0, size, step):
        ranks = random_ranks(positives, total, min(step, size - start), rng)
        parts.append((np.arange(1, positives + 1) / ranks).mean(axis=1))
    return np.concatenate(parts)


def null_precision(positives: int, total: int, size: int, rng: np.random.Generator) -> NullPrecision:
    """The null of one query with `positives` of `total` candidates: exact up to `EXACT_LIMIT` rankings, else `size`
    draws."""
    if comb(total, positives) <= EXACT_LIMIT:
        weights = np.arange(1, positives + 1)
        every = [float((weights / np.array(at)).mean()) for at in combinations(range(1, total + 1), positives)]
        return NullPrecision(np.sort(np.array(every)), True)
    return NullPrecision(np.sort(random_precision(positives, total, size, rng)), False)


def null_mean_precision(
    shapes: Sequence[tuple[int, int]], size: int, rng: np.random.Generator, shared: bool = True
) -> NullPrecision:
    """The null of a mean over queries, each with its (positives, total).

    `shared`: queries of one shape share their random ranking, as in copairs; members of a group see each other, so
    their average precisions are far from independent, and this errs on the safe side. Otherwise every query has its
    own.
    """
    total = np.zeros(size)
    drawn: dict[tuple[int, int], Float[np.ndarray, " s"]] = {}
    for shape in shapes:
        if not shared or shape not in drawn:
            drawn[shape] = random_precision(*shape, size, rng)
        total += drawn[shape]
    return NullPrecision(np.sort(total / len(shapes)), False)
