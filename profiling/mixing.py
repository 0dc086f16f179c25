"""Are batches mixed and labels kept? The scorecard of batch correction, each number from 0 (bad) to 1 (good), with
chance.

After Arevalo et al. 2024 (doi 10.1038/s41467-024-50613-5) and scIB (doi 10.1038/s41592-021-01336-8). Clusters for ARI
and NMI are k-means with as many clusters as labels, which needs no graph package; the field also uses Leiden.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_samples
from sklearn.neighbors import NearestNeighbors

from profiling.profiles import InvalidProfiles, Words


def neighbours(values: Float[np.ndarray, "n d"], k: int) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """The k nearest other rows of each row and their Euclidean distances."""
    if not 1 <= k < len(values):
        raise InvalidProfiles(f"k must lie between 1 and {len(values) - 1} (rows - 1), got {k}")
    distance, near = NearestNeighbors(n_neighbors=k + 1).fit(values).kneighbors(values)
    own = near == np.arange(len(values))[:, None]
    own[~own.any(axis=1), -1] = True  # among many copies the row itself may be missing: drop the last instead
    shape = (len(values), k)
    return near[~own].reshape(shape).astype(np.int64), distance[~own].reshape(shape)


def graph_connectivity(near: Int[np.ndarray, "n k"], label: Int[np.ndarray, " n"]) -> float:
    """Mean over labels of the share of its rows in the largest component of the neighbour graph among them."""
    n, k = near.shape
    graph = csr_matrix((np.ones(n * k), (np.repeat(np.arange(n), k), near.ravel())), shape=(n, n))
    shares = []
    for value in np.unique(label):
        rows = np.flatnonzero(label == value)
        component = connected_components(graph[rows][:, rows], directed=False)[1]
        shares.append(np.bincount(component).max() / len(rows))
    return float(np.mean(shares))


def kbet_acceptance(near: Int[np.ndarray, "n k"], batch: Int[np.ndarray, " n"], alpha: float = 0.05) -> float:
    """Share of rows whose neighbourhood's batch counts pass the chi-square test against the batch sizes (Büttner
    2019)."""
    k = near.shape[1]
    expected = k * np.bincount(batch) / len(batch)
    counts = np.stack([(batch[near] == b).sum(axis=1) for b in range(len(expected))], axis=1)
    statistic = ((counts - expected) ** 2 / expected).sum(axis=1)
    return float((chi2.sf(statistic, len(expected) - 1) > alpha).mean())


def lisi(
    near: Int[np.ndarray, "n k"],
    distance: Float[np.ndarray, "n k"],
    word: Int[np.ndarray, " n"],
    perplexity: float = 30.0,
) -> Float[np.ndarray, " n"]:
    """Effective number of words around each row: inverse Simpson index with Gaussian weights of the given
    perplexity."""
    perplexity = min(perplexity, near.shape[1] / 3)
    low, high = np.zeros(len(near)), np.full(len(near), np.inf)
    beta = np.ones(len(near))
    shifted = distance - distance.min(axis=1, keepdims=True)
    weight = np.empty_like(distance)
    for _ in range(60):  # bisection: entropy falls as beta grows
        weight = np.exp(-shifted * beta[:, None])
        weight /= weight.sum(axis=1, keepdims=True)
        entropy = -(weight * np.log(np.maximum(weight, 1e-300))).sum(axis=1)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
        beta = np.where(np.isinf(high), beta * 2, (low + high) / 2)
    share = np.stack([(weight * (word[near] == w)).sum(axis=1) for w in range(int(word.max()) + 1)], axis=1)
    return 1 / (share**2).sum(axis=1)


def silhouette_batch(
    values: Float[np.ndarray, "n d"], batch: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"]
) -> float:
    """Mean over labels of the mean of 1 - |silhouette of batch| among its rows; labels in one batch do not count."""
    parts = []
    for value in np.unique(label):
        rows = label == value
        own = batch[rows]
        if 1 < len(np.unique(own)) < rows.sum():
            parts.append((1 - np.abs(silhouette_samples(values[rows], own))).mean())
    return float(np.mean(parts)) if parts else float("nan")


def _codes(words: Words, name: str) -> Int[np.ndarray, " n"]:
    code = np.unique(np.asarray(words).astype(str), return_inverse=True)[1].astype(np.int64)
    if code.max(initial=0) < 1:
        raise InvalidProfiles(f"{name} has one value only: there is nothing to mix or to keep apart")
    return code


def scorecard(
    values: Float[np.ndarray, "n d"],
    batch: Words,
    label: Words,
    rng: np.random.Generator,
    k: int = 30,
    permutations: int = 5,
) -> pd.DataFrame:
    """One row a metric: `kind` ("batch" or "label"), `value`, and `chance`: the mean with batches, or labels, shuffled.

    For a batch metric chance is what perfect mixing gives; for a label metric it is what no signal gives.
    """
    b, c = _codes(batch, "batch"), _codes(label, "label")
    if len(values) != len(b) or len(values) != len(c):
        raise InvalidProfiles(f"values has {len(values)} rows, batch {len(b)}, label {len(c)}: expected as many")
    near, distance = neighbours(values, k)
    clusters = KMeans(int(c.max()) + 1, n_init=3, random_state=int(rng.integers(2**31))).fit_predict(values)
    n_batch, n_label = int(b.max()) + 1, int(c.max()) + 1
    batch_metrics: dict[str, Callable[[np.ndarray], float]] = {
        "kbet": lambda x: kbet_acceptance(near, x),
        "lisi_batch": lambda x: float((np.median(lisi(near, distance, x)) - 1) / (n_batch - 1)),
        "silhouette_batch": lambda x: silhouette_batch(values, x, c),
    }
    label_metrics: dict[str, Callable[[np.ndarray], float]] = {
        "graph_connectivity": lambda x: graph_connectivity(near, x),
        "lisi_label": lambda x: float((n_label - np.median(lisi(near, distance, x))) / (n_label - 1)),
        "silhouette_label": lambda x: float((silhouette_samples(values, x).mean() + 1) / 2),
        "cluster_ari": lambda x: float(adjusted_rand_score(x, clusters)),
        "cluster_nmi": lambda x: float(normalized_mutual_info_score(x, clusters)),
    }
    rows = []
    for kind, words, metrics in (("batch", b, batch_metrics), ("label", c, label_metrics)):
        shuffled = [rng.permutation(words) for _ in range(permutations)]
        for name, metric in metrics.items():
            chance = float(np.mean([metric(s) for s in shuffled])) if shuffled else float("nan")
            rows.append((name, kind, metric(words), chance))
    return pd.DataFrame(rows, columns=["metric", "kind", "value", "chance"])
