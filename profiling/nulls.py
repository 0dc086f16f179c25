"""Permutation nulls of the ranking metrics without ranking again: the scores stay, the samples' label sets move.

A metric needs the ranks of the true entries only. These are looked up for every permutation at a cost that grows with
the number of true entries, not with the table. Each function equals its metric in `metrics.py` on `truth[permutation]`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

Permutations = Sequence[Int[np.ndarray, " n"]]


def _moved(truth: Bool[np.ndarray, "n m"], order: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the true entries of `truth[order]`."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    rows, columns = np.nonzero(truth)
    return place[rows], columns


def _mean_precision(rank: Int[np.ndarray, " z"], owner: np.ndarray) -> float:
    """Mean over owners of the AP of their true entries, given the rank at which the block of equal scores of each
    ends."""
    at = np.lexsort((rank, owner))
    rank, owner = rank[at], owner[at]
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    inside = np.arange(len(owner)) - np.repeat(first, np.diff(first, append=len(owner)))
    # entries of one owner with equal rank share the count of the last of them
    last = np.ones(len(owner), dtype=bool)
    last[:-1] = (rank[1:] != rank[:-1]) | (owner[1:] != owner[:-1])
    end = np.minimum.accumulate(np.where(last, np.arange(len(owner)), len(owner))[::-1])[::-1]
    precision = (inside[end] + 1) / rank
    sums = np.add.reduceat(precision, first)
    return float((sums / np.diff(first, append=len(owner))).mean())


def map_per_sample(
    scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"], permutations: Permutations
) -> Float[np.ndarray, " b"]:
    """Null of `metrics.map_per_sample`."""
    ends = rankdata(-scores, axis=1, method="max")
    entries = (_moved(truth, order) for order in permutations)
    return np.array([_mean_precision(ends[rows, columns], rows) for rows, columns in entries])


def map_per_label(
    scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"], permutations: Permutations
) -> Float[np.ndarray, " b"]:
    """Null of `metrics.map_per_label`."""
    ends = rankdata(-scores, axis=0, method="max")
    entries = (_moved(truth, order) for order in permutations)
    return np.array([_mean_precision(ends[rows, columns], columns) for rows, columns in entries])


def mean_roc_auc(
    scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"], permutations: Permutations
) -> Float[np.ndarray, " b"]:
    """Null of `metrics.mean_roc_auc`."""
    ranks = rankdata(scores, axis=0)
    p = truth.sum(axis=0).astype(np.float64)
    q = len(truth) - p
    both = (p > 0) & (q > 0)
    out = []
    for order in permutations:
        rows, columns = _moved(truth, order)
        total = np.bincount(columns, ranks[rows, columns], minlength=truth.shape[1])
        out.append(float(((total - p * (p + 1) / 2)[both] / (p * q)[both]).mean()) if both.any() else np.nan)
    return np.array(out)


def mean_rank(
    scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"], permutations: Permutations
) -> Float[np.ndarray, " b"]:
    """Null of `metrics.mean_rank`; every sample has a true label."""
    n, m = truth.shape
    most = int(truth.sum(axis=1).max(initial=0))
    padded = np.column_stack([rankdata(-scores, axis=1), np.full(n, np.inf)])
    own = np.argsort(~truth, axis=1, kind="stable")[:, :most]  # places of the true labels, then
    own = np.where(np.arange(most) < truth.sum(axis=1)[:, None], own, m)  # the padding
    rows = np.arange(n)[:, None]
    return np.array([padded[rows, own[order]].min(axis=1).mean() for order in permutations])
