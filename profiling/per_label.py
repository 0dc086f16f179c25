"""Every label by itself: how well it ranks the samples, with chance, permuted-label null, interval and FDR; and who is
taken for whom.

For a label the order of the samples is fixed, so its null (its true samples at random places) and its bootstrap
(weights on the samples) need no new ranking: both are cumulative sums along that order.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from profiling.metrics import InvalidScores, average_precision, expected_average_precision, roc_auc
from profiling.statistics import false_discovery_rate

NO_CALL = "no call"
TINY = 1e-12


def _blocks(scores: Float[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Order of falling score (NaN last), and for each place the last place of its block of equal scores."""
    level = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-level, kind="stable")
    sorted_level = level[order]
    last = np.append(sorted_level[1:] != sorted_level[:-1], True)
    end = np.minimum.accumulate(np.where(last, np.arange(len(scores)), len(scores))[::-1])[::-1]
    return order, end


def _start(end: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    first = np.flatnonzero(np.append(True, np.diff(end) != 0))
    return np.repeat(first, np.diff(np.append(first, len(end))))


def _weighted(
    hit: Float[np.ndarray, "b n"], weight: Float[np.ndarray, "b n"], end: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """AP and ROC-AUC for each row of weights; `hit` are the weights of the true samples, in falling order of score."""
    start = _start(end)
    hits, every = np.cumsum(hit, axis=1), np.cumsum(weight, axis=1)
    total = hits[:, -1]
    below = every[:, end]
    precision = np.divide(hits[:, end], below, out=np.zeros_like(hit), where=below > 0)
    ap = np.divide((hit * precision).sum(axis=1), total, out=np.full(len(hit), np.nan), where=total > 0)
    # the wrong samples ranked below each true one, those of its block by half
    wrong = every - hits
    before = np.where(start > 0, wrong[:, np.maximum(start - 1, 0)], 0.0)
    outranked = wrong[:, -1:] - 0.5 * (before + wrong[:, end])
    pairs = total * wrong[:, -1]
    auc = np.divide((hit * outranked).sum(axis=1), pairs, out=np.full(len(hit), np.nan), where=pairs > 0)
    return ap, auc


def label_table(
    scores: Float[np.ndarray, "n m"],
    truth: Bool[np.ndarray, "n m"],
    labels: Sequence[str],
    rng: np.random.Generator,
    permutations: int = 1000,
    resamples: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """One row a label that has a true sample and a wrong one.

    Columns: `label`, `n_positives`, `n_samples`; `ap`, `ap_chance` (exact, random ranking), `ap_low`..`ap_high`
    (bootstrap over samples, `level`), `ap_p` (its true samples put at random places, so that ties of the scores stay),
    `ap_q` (Benjamini-Hochberg over the labels); the same for `auc`, whose chance is 0.5. A label without scores (no
    sub-profile) ranks nobody: its AP is the share of true samples, its AUC 0.5.
    """
    if scores.shape != truth.shape or scores.shape[1] != len(labels):
        raise InvalidScores(f"scores {scores.shape}, truth {truth.shape} and {len(labels)} labels do not fit together")
    n = len(scores)
    tail = 50 * (1 - level)
    values = average_precision(scores.T, truth.T), roc_auc(scores, truth)
    rows = []
    for j in np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0)).tolist():
        order, end = _blocks(scores[:, j])
        own = truth[order, j].astype(np.float64)
        m = int(own.sum())
        moved = np.zeros((permutations, n))
        np.put_along_axis(moved, np.argsort(rng.random((permutations, n)), axis=1)[:, :m], 1.0, axis=1)
        null = _weighted(moved, np.ones_like(moved), end)
        weight = rng.multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64)
        spread = _weighted(weight * own, weight, end)
        row: dict[str, float | int | str] = {"label": labels[j], "n_positives": m, "n_samples": n}
        for name, value, chance, by_chance, drawn in zip(
            ("ap", "auc"), values, (float(expected_average_precision(np.array([m]), n)[0]), 0.5), null, spread,
            strict=True,
        ):  # fmt: skip
            low, high = np.nanpercentile(drawn, [tail, 100 - tail])
            p = (1 + int((by_chance >= value[j] - TINY).sum())) / (1 + permutations)
            row |= {name: float(value[j]), f"{name}_chance": chance, f"{name}_low": float(low)}
            row |= {f"{name}_high": float(high), f"{name}_p": p}
        rows.append(row)
    if not rows:
        raise InvalidScores("truth: no label has both a true and a wrong sample: nothing can be ranked")
    table = pd.DataFrame(rows)
    for name in ("ap", "auc"):
        table[f"{name}_q"] = false_discovery_rate(table[f"{name}_p"].to_numpy(dtype=np.float64))
    return table


def confusion(scores: Float[np.ndarray, "n m"], truth: Bool[np.ndarray, "n m"]) -> Int[np.ndarray, "m c"]:
    """Counts [m labels, m labels + 1]: samples of each true label by the label that scores highest; last: no call.

    A sample with several labels counts once for each. A sample whose scores are all NaN, or whose highest score is
    shared by several labels, has no call.
    """
    if scores.shape != truth.shape:
        raise InvalidScores(f"scores {scores.shape} and truth {truth.shape} must have the same shape")
    level = np.where(np.isnan(scores), -np.inf, scores)
    best = level.max(axis=1)
    alone = (level == best[:, None]).sum(axis=1) == 1
    called = np.where(np.isfinite(best) & alone, level.argmax(axis=1), scores.shape[1])
    out = np.zeros((scores.shape[1], scores.shape[1] + 1), dtype=np.int64)
    rows, columns = np.nonzero(truth)
    np.add.at(out, (columns, called[rows]), 1)
    return out
