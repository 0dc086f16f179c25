"""How well scores rank the true labels: samples x labels in, numbers with their chance levels out.

`scores` [n, m] are similarities of n samples to m labels, `truth` [n, m] says which labels are true. A NaN score (a
label that gives no call) ranks below every number. Equal scores count as one threshold, as in scikit-learn.

The paper's Equation 5 averages AP over samples ("per sample"); its reported numbers fit an average over labels ("per
label"), where each label ranks the samples. Both are here, by name. Retrieval among profiles is in `retrieval.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from profiling import nulls

TINY = 1e-12  # sums in another order differ by rounding; a tie with the null counts against us
Statistic = Callable[[np.ndarray, np.ndarray], float]


class InvalidScores(ValueError):
    """Scores and truth that do not fit together, or in which nothing can be ranked."""


def _check(scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    if scores.shape != truth.shape:
        raise InvalidScores(f"scores {scores.shape} and truth {truth.shape} must have the same shape")
    return np.where(np.isnan(scores), -np.inf, scores)


def _ranked(
    scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"]
) -> tuple[Bool[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
    """Truth in the order of falling score, and the precision at the end of the block of equal scores each entry is
    in."""
    order = np.argsort(-scores, axis=1, kind="stable")
    s, t = np.take_along_axis(scores, order, axis=1), np.take_along_axis(truth, order, axis=1)
    m = scores.shape[1]
    at_end = np.ones(s.shape, dtype=bool)
    at_end[:, :-1] = s[:, :-1] != s[:, 1:]
    end = np.where(at_end, np.arange(m), m)
    end = np.minimum.accumulate(end[:, ::-1], axis=1)[:, ::-1]
    hits = np.take_along_axis(np.cumsum(t, axis=1), end, axis=1)
    return t, hits / (end + 1.0)


def average_precision(scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """AP of each row, sum over thresholds of (R_n - R_(n-1)) P_n (Equation 4); NaN for a row without a true entry."""
    t, precision = _ranked(_check(scores, truth), truth)
    positives = t.sum(axis=1)
    total = np.where(t, precision, 0.0).sum(axis=1)
    return np.divide(total, positives, out=np.full(len(t), np.nan), where=positives > 0)


def interpolated_average_precision(
    scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"], points: int | None = None
) -> Float[np.ndarray, " n"]:
    """AP of each row from interpolated precision, P(r) = max over r' >= r of P(r') (PhenoProfiler, Equation 20).

    The mean over `points` recalls 1/points ... 1; by default as many as the largest number of true entries of any
    row, as their text says ("to cover the maximum number of recall points"). Never below `average_precision` at equal
    points.
    """
    t, precision = _ranked(_check(scores, truth), truth)
    positives = t.sum(axis=1)
    points = points or max(int(positives.max(initial=0)), 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # the rank of the j-th hit of each row; recall r is reached at hit number ceil(r * positives)
    at = np.argsort(~t, axis=1, kind="stable")
    needed = np.ceil(np.arange(1, points + 1)[None, :] * positives[:, None] / points - 1e-9).astype(int)
    place = np.take_along_axis(at, np.maximum(needed - 1, 0), axis=1)
    return np.where(positives > 0, np.take_along_axis(best, place, axis=1).mean(axis=1), np.nan)


def expected_average_precision(
    positives: Int[np.ndarray, " n"], total: Int[np.ndarray, " n"] | int
) -> Float[np.ndarray, " n"]:
    """Mean AP of a random ranking of `total` entries with `positives` true ones, without ties: exact.

    E[AP] = (H_L + (M - 1) / (L - 1) (L - H_L)) / L, H_L the harmonic number; NaN where M = 0.
    """
    m, size = np.broadcast_arrays(np.asarray(positives, dtype=np.float64), np.asarray(total))
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, size.max(initial=0) + 1))])[size]
    rest = np.divide(m - 1, size - 1.0, out=np.zeros(m.shape), where=size > 1)
    return np.where(m > 0, (harmonic + rest * (size - harmonic)) / np.maximum(size, 1), np.nan)


def map_per_sample(scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"]) -> float:
    """Mean over samples of the AP with which each ranks the labels (Equation 5)."""
    return _mean(average_precision(scores, truth))


def map_per_label(scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"]) -> float:
    """Mean over labels of the AP with which each ranks the samples; labels without a true sample do not count."""
    return _mean(average_precision(scores.T, truth.T))


def map_interpolated(scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"]) -> float:
    """Mean over samples of the interpolated AP."""
    return _mean(interpolated_average_precision(scores, truth))


def roc_auc(scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"]) -> Float[np.ndarray, " m"]:
    """Area under the ROC curve of each label (Equation 6), ties by half; NaN where all or no samples are true."""
    ranks = rankdata(_check(scores, truth), axis=0)
    p = truth.sum(axis=0).astype(np.float64)
    q = len(truth) - p
    u = np.where(truth, ranks, 0.0).sum(axis=0) - p * (p + 1) / 2
    return np.divide(u, p * q, out=np.full(len(p), np.nan), where=(p > 0) & (q > 0))


def mean_roc_auc(scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"]) -> float:
    """Mean over labels of the area under the ROC curve (Equation 7)."""
    return _mean(roc_auc(scores, truth))


def rank_of_truth(scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """Rank (1 = first, ties share their mean) of the best placed true label of each sample; NaN without one."""
    ranks = rankdata(-_check(scores, truth), axis=1)
    best = np.where(truth, ranks, np.inf).min(axis=1, initial=np.inf)
    return np.where(np.isfinite(best), best, np.nan)


def mean_rank(scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"]) -> float:
    """Mean over samples of the rank of the true label: smaller is better; (m + 1) / 2 by chance with one true label."""
    return _mean(rank_of_truth(scores, truth))


def recall_at(k: int) -> Statistic:
    """The share of samples with a true label among the k best scores; a tie at the border counts by its probability."""
    if k < 1:
        raise InvalidScores(f"k must be at least 1, got {k}")

    def recall(scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"]) -> float:
        s = _check(scores, truth)[truth.any(axis=1)]
        t = truth[truth.any(axis=1)]
        if len(s) == 0:
            return float("nan")
        border = np.sort(s, axis=1)[:, -min(k, s.shape[1])][:, None]
        above, level = s > border, s == border
        certain = (above & t).any(axis=1)
        places, size, hits = k - above.sum(axis=1), level.sum(axis=1), (level & t).sum(axis=1)
        miss = np.ones(len(s))  # chance that none of `places` draws without replacement is one of the hits
        for draw in range(int(places.max(initial=0))):
            going = draw < np.minimum(places, size)
            left = np.maximum(size - draw, 1)
            miss = np.where(going, miss * np.clip(size - hits - draw, 0, None) / left, miss)
        return _mean(np.where(certain, 1.0, 1.0 - miss))

    return recall


METRICS: dict[str, Statistic] = {
    "map_per_sample": map_per_sample,
    "map_per_label": map_per_label,
    "map_interpolated": map_interpolated,
    "roc_auc": mean_roc_auc,
    "mean_rank": mean_rank,
    "recall@1": recall_at(1),
    "recall@3": recall_at(3),
    "recall@5": recall_at(5),
    "recall@10": recall_at(10),
}
# metrics whose null need not rank again
NULLS = {
    "map_per_sample": nulls.map_per_sample,
    "map_per_label": nulls.map_per_label,
    "roc_auc": nulls.mean_roc_auc,
    "mean_rank": nulls.mean_rank,
}
SMALLER_IS_BETTER = frozenset({"mean_rank"})


@dataclass(frozen=True)
class Estimate:
    """A metric with what it would be by chance: `chance` and `p` from permuted labels, `low`..`high` over samples."""

    metric: str
    value: float
    chance: float
    chance_sd: float
    p: float
    low: float
    high: float
    n_samples: int
    n_labels: int


def permuted(
    statistic: Statistic,
    scores: Float[np.ndarray, "n m"],
    truth: Bool[np.ndarray, "n m"],
    permutations: nulls.Permutations,
) -> Float[np.ndarray, " b"]:
    """The statistic with the samples' label sets shuffled among the samples: its null, label frequencies kept."""
    return np.array([statistic(scores, truth[order]) for order in permutations])


def bootstrapped(
    statistic: Statistic,
    scores: Float[np.ndarray, "n m"],
    truth: Bool[np.ndarray, "n m"],
    rng: np.random.Generator,
    resamples: int = 1000,
) -> Float[np.ndarray, " b"]:
    """The statistic on samples drawn with replacement."""
    draws = (rng.integers(0, len(truth), len(truth)) for _ in range(resamples))
    return np.array([statistic(scores[rows], truth[rows]) for rows in draws])


def evaluate(
    scores: Float[np.ndarray, "n m"],
    truth: Bool[np.ndarray, "n m"],
    rng: np.random.Generator,
    metrics: dict[str, Statistic] | None = None,
    permutations: int = 1000,
    resamples: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Every metric as an `Estimate`, one row each.

    p = (1 + permutations at least as good) / (1 + permutations), one-sided. The interval is the percentile bootstrap
    over samples: it covers the choice of samples, not that of the reference compounds. Samples without a true label
    are left out first; `n_samples` counts the rest.
    """
    keep = truth.any(axis=1)
    if not keep.any():
        raise InvalidScores("truth has no true entry: no sample has one of these labels")
    scores, truth = _check(scores, truth)[keep], truth[keep]
    rows = []
    tail = 100 * (1 - level) / 2
    orders = [rng.permutation(len(truth)) for _ in range(permutations)]
    for name, statistic in (metrics or METRICS).items():
        value = statistic(scores, truth)
        fast = NULLS.get(name) if METRICS.get(name) is statistic else None
        null = fast(scores, truth, orders) if fast else permuted(statistic, scores, truth, orders)
        better = null <= value + TINY if name in SMALLER_IS_BETTER else null >= value - TINY
        spread = bootstrapped(statistic, scores, truth, rng, resamples)
        low, high = np.nanpercentile(spread, [tail, 100 - tail])
        rows.append(
            Estimate(
                metric=name,
                value=value,
                chance=float(null.mean()),
                chance_sd=float(null.std(ddof=1)),
                p=float((1 + better.sum()) / (1 + permutations)),
                low=float(low),
                high=float(high),
                n_samples=len(truth),
                n_labels=int(truth.any(axis=0).sum()),
            )
        )
    return pd.DataFrame([vars(row) for row in rows])


def rank_test(
    scores: Float[np.ndarray, "n m"],
    truth: Bool[np.ndarray, "n m"],
    rng: np.random.Generator,
    permutations: int = 9999,
    resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Mean rank of the true label against shuffled labels: `evaluate` for this one metric, ranking only once."""
    keep = truth.any(axis=1)
    if not keep.any():
        raise InvalidScores("truth has no true entry: no sample has one of these labels")
    scores, truth = _check(scores, truth)[keep], truth[keep]
    n = len(truth)
    ranks = rank_of_truth(scores, truth)
    null = nulls.mean_rank(scores, truth, [rng.permutation(n) for _ in range(permutations)])
    spread = ranks[rng.integers(0, n, (resamples, n))].mean(axis=1)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(spread, [tail, 100 - tail])
    return Estimate(
        metric="mean_rank",
        value=float(ranks.mean()),
        chance=float(null.mean()),
        chance_sd=float(null.std(ddof=1)),
        p=float((1 + (null <= ranks.mean() + TINY).sum()) / (1 + permutations)),
        low=float(low),
        high=float(high),
        n_samples=n,
        n_labels=int(truth.any(axis=0).sum()),
    )


def _mean(values: Float[np.ndarray, " n"]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")
