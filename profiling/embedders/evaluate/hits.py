"""Hits among treatments: those whose pictures are far from the controls (CHAMMI-75's IDR-0017 task).

The effect of a treatment is the Wasserstein distance between two sets of Euclidean distances, treated against control
pictures and control against control pictures, after whitening; treatments are ranked by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.spatial.distance import cdist, pdist
from scipy.stats import rankdata, wasserstein_distance

from profiling.profiles import InvalidProfiles


@dataclass(frozen=True)
class HitRanking:
    """Recall of the true hits among the first 50 and 100, ROC-AUC, and what a random ranking gives."""

    recall_50: float
    recall_100: float
    auc: float
    chance_50: float
    chance_100: float
    treatments: int
    hits: int


def whitened(
    values: Float[np.ndarray, "n k"], fit: Bool[np.ndarray, " n"], share: float = 0.99
) -> Float[np.ndarray, "n d"]:
    """Principal components of the rows `fit` that hold `share` of their variance, each with variance 1 there."""
    centred = values[fit] - values[fit].mean(axis=0)
    _, sigma, vt = np.linalg.svd(centred, full_matrices=False)
    held = np.cumsum(sigma**2) / max(float((sigma**2).sum()), 1e-300)
    count = int(np.searchsorted(held, share - 1e-12) + 1)
    scale = sigma[:count] / np.sqrt(max(len(centred) - 1, 1))
    return (values - values[fit].mean(axis=0)) @ vt[:count].T / np.where(scale > 0, scale, 1.0)


def effect_sizes(
    values: Float[np.ndarray, "n k"],
    treatment: Shaped[np.ndarray, " n"],
    control: Bool[np.ndarray, " n"],
    replicate: Shaped[np.ndarray, " n"] | None = None,
) -> tuple[tuple[str, ...], Float[np.ndarray, " t"]]:
    """Treatments in sorted order and the effect of each; `values`: a vector a picture. Whitening is fitted on all
    pictures of a replicate (a batch) by itself, and the effect is the mean over replicates.

    Raises InvalidProfiles where a replicate has fewer than three controls.
    """
    repeat = np.zeros(len(values), dtype=int) if replicate is None else np.asarray(replicate)
    names = tuple(sorted({str(t) for t in treatment[~control]}))
    total, count = np.zeros(len(names)), np.zeros(len(names))
    words = treatment.astype(str)
    for one in np.unique(repeat):
        rows = repeat == one
        own = whitened(values[rows], np.ones(int(rows.sum()), dtype=bool))
        base = own[control[rows]]
        if len(base) < 3:
            raise InvalidProfiles(f"control: {len(base)} control pictures in replicate {one!r}, expected at least 3")
        within = pdist(base)
        for i, name in enumerate(names):
            treated = own[(words[rows] == name) & ~control[rows]]
            if len(treated):
                total[i] += wasserstein_distance(cdist(treated, base).ravel(), within)
                count[i] += 1
    return names, total / np.maximum(count, 1)


def rank_hits(effect: Float[np.ndarray, " t"], hit: Bool[np.ndarray, " t"]) -> HitRanking:
    """How high the true hits rank by effect; ties share their places evenly. Raises InvalidProfiles without hits or
    without others."""
    n, hits = len(effect), int(hit.sum())
    if not 0 < hits < n:
        raise InvalidProfiles(f"hit: {hits} of {n} treatments are hits, expected some and not all")
    rank = rankdata(-effect)
    auc = (hits * (n - hits) + hits * (hits + 1) / 2 - rank[hit].sum()) / (hits * (n - hits))
    recall = [float((rank[hit] <= k).sum()) / hits for k in (50, 100)]
    return HitRanking(recall[0], recall[1], float(auc), min(50 / n, 1.0), min(100 / n, 1.0), n, hits)
