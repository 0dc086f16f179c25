"""Harmony: fuzzy clusters that are made diverse in batch, then a linear correction within each (Korsunsky et al. 2019).

Own implementation from the paper's equations (doi 10.1038/s41592-019-0619-0), for any set of batch columns, in float64.
It is transductive: it moves every row by what all rows are, so a new profile means a new run, and scores on its
output must say so.

Alternates
1. clustering: R[i, k] proportional to exp(-2 (1 - z_i . y_k) / sigma) * prod over batch variables of ((E + 1) / (O +
1))^theta,
   where O counts a batch in a cluster and E what independence would give; blocks of rows are updated in random order;
2. correction: in each cluster a ridge regression of the original rows on the batches, weighted by R, whose batch terms
   are subtracted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.cluster import KMeans

from profiling.profiles import META, InvalidProfiles, Profiles


@dataclass(frozen=True)
class HarmonyConfig:
    """The published defaults; the JUMP recipe uses 300 clusters and 20 rounds."""

    clusters: int = 0  # 0: rows / 30, at most 100
    rounds: int = 10
    cluster_rounds: int = 200
    theta: float = 2.0  # strength of the diversity penalty
    sigma: float = 0.1  # softness of the clusters
    ridge: float = 1.0
    block: float = 0.05  # share of rows updated at once
    tolerance: float = 1e-4  # relative gain of the objective, over rounds
    cluster_tolerance: float = 1e-5


@dataclass(frozen=True)
class Harmonised:
    """Corrected rows [n, d], soft clusters [n, k], and the objective after each round."""

    values: Float[np.ndarray, "n d"]
    clusters: Float[np.ndarray, "n k"]
    objective: tuple[float, ...]


def _unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def start_centroids(values: Float[np.ndarray, "n d"], clusters: int, seed: int) -> Float[np.ndarray, "k d"]:
    """k-means of the rows scaled to length 1; centroids of length 1."""
    found = KMeans(clusters, n_init=10, max_iter=25, random_state=seed).fit(_unit(values))
    return _unit(np.asarray(found.cluster_centers_, dtype=np.float64))


def harmonise(
    values: Float[np.ndarray, "n d"],
    batches: pd.DataFrame,
    seed: int = 0,
    config: HarmonyConfig | None = None,
    centroids: Float[np.ndarray, "k d"] | None = None,
) -> Harmonised:
    """Rows [n, d] (principal components, or features) and their batch columns -> corrected rows.

    `seed` fixes the starting clusters and the order of updates; `centroids` replaces the former. Raises
    `InvalidProfiles` for NaN, no batch column, or a column with one value only.
    """
    config = config or HarmonyConfig()
    if np.isnan(values).any():
        raise InvalidProfiles(f"values contain {int(np.isnan(values).sum())} NaN: select features or rows first")
    if len(batches) != len(values) or batches.shape[1] == 0:
        raise InvalidProfiles(
            f"batches have shape {batches.shape}: expected {len(values)} rows and at least one column"
        )
    if single := [c for c in batches.columns if batches[c].nunique() < 2]:
        raise InvalidProfiles(f"batches: columns {single} have one value only: there is nothing to correct")
    parts = [pd.get_dummies(batches[c].astype(str)).to_numpy(dtype=np.float64) for c in batches.columns]
    phi = np.hstack(parts)
    edges = np.cumsum([0, *(part.shape[1] for part in parts)])
    share = phi.mean(axis=0)
    count = config.clusters or max(2, min(100, len(values) // 30))
    rng = np.random.default_rng(seed)
    y = start_centroids(values, count, seed) if centroids is None else _unit(centroids)
    z = _unit(values)
    r = np.exp(-2 / config.sigma * (1 - z @ y.T))
    r /= r.sum(axis=1, keepdims=True)
    objective: list[float] = [_objective(z, y, r, phi, share, config)]
    corrected = values
    for _ in range(config.rounds):
        r, last = _cluster(z, r, phi, share, edges, rng, config)
        corrected = _correct(values, r, phi, config.ridge)
        z = _unit(corrected)
        objective.append(last)
        if objective[-2] - objective[-1] < config.tolerance * abs(objective[-2]):
            break
    return Harmonised(corrected, r, tuple(objective))


def _cluster(
    z: Float[np.ndarray, "n d"],
    r: Float[np.ndarray, "n k"],
    phi: Float[np.ndarray, "n b"],
    share: Float[np.ndarray, " b"],
    edges: np.ndarray,
    rng: np.random.Generator,
    config: HarmonyConfig,
) -> tuple[Float[np.ndarray, "n k"], float]:
    r = r.copy()
    seen = phi.T @ r  # O [batches, clusters]
    size = max(1, int(len(z) * config.block))
    trace: list[float] = []
    for _ in range(config.cluster_rounds):
        y = _unit(r.T @ z)
        affinity = np.exp(-2 / config.sigma * (1 - z @ y.T))
        order = rng.permutation(len(z))
        total = r.sum(axis=0)
        for start in range(0, len(z), size):
            rows = order[start : start + size]
            seen -= phi[rows].T @ r[rows]
            total -= r[rows].sum(axis=0)
            penalty = ((np.outer(share, total) + 1) / (seen + 1)) ** config.theta
            block = affinity[rows]
            for low, high in pairwise(edges):
                block = block * (phi[rows, low:high] @ penalty[low:high])
            block /= np.maximum(block.sum(axis=1, keepdims=True), 1e-300)
            r[rows] = block
            seen += phi[rows].T @ block
            total += block.sum(axis=0)
        trace.append(_objective(z, y, r, phi, share, config))
        if len(trace) > 3 and sum(trace[-4:-1]) - sum(trace[-3:]) < config.cluster_tolerance * abs(sum(trace[-4:-1])):
            break
    return r, trace[-1]


def _objective(
    z: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "k d"],
    r: Float[np.ndarray, "n k"],
    phi: Float[np.ndarray, "n b"],
    share: Float[np.ndarray, " b"],
    config: HarmonyConfig,
) -> float:
    seen, expected = phi.T @ r, np.outer(share, r.sum(axis=0))
    distance = float((r * 2 * (1 - z @ y.T)).sum())
    entropy = float((r * np.log(np.maximum(r, 1e-300))).sum())
    diversity = float((seen * np.log((seen + 1) / (expected + 1))).sum())
    return distance + config.sigma * (entropy + config.theta * diversity)


def _correct(
    values: Float[np.ndarray, "n d"], r: Float[np.ndarray, "n k"], phi: Float[np.ndarray, "n b"], ridge: float
) -> Float[np.ndarray, "n d"]:
    design = np.hstack([np.ones((len(values), 1)), phi])
    penalty = ridge * np.eye(design.shape[1])
    penalty[0, 0] = 0.0
    out = values.copy()
    for k in range(r.shape[1]):
        weighted = design * r[:, k : k + 1]
        coefficients = np.linalg.solve(weighted.T @ design + penalty, weighted.T @ values)
        coefficients[0] = 0.0
        out -= weighted @ coefficients
    return out


def harmonise_profiles(
    profiles: Profiles, by: Sequence[str], seed: int = 0, config: HarmonyConfig | None = None
) -> Profiles:
    """Profiles corrected over the metadata columns `by` together. Transductive.

    The brightfield paper's "MAD + Harmony per field of view": rows are fields, MAD-robustised by plate and time point,
    then this over experimental replicate and field of view, then aggregated (`configs/profiling/brightfield.toml`).
    """
    columns = [c if c.startswith(META) else META + c for c in by]
    if missing := [c for c in columns if c not in profiles.meta.columns]:
        raise InvalidProfiles(f"by: meta has no columns {missing}: it has {list(profiles.meta.columns)}")
    return profiles.with_values(harmonise(profiles.values, profiles.meta[columns], seed, config).values)
