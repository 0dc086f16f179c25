"""Are batches mixed and labels kept? The scorecard of batch correction, each number from 0 (bad) to 1 (good), with
chance, permutation p, interval and FDR.

After Arevalo et al. 2024 (doi 10.1038/s41467-024-50613-5) and scIB (doi 10.1038/s41592-021-01336-8). Clusters for ARI
and NMI are those of Leiden (Traag, Waltman and van Eck 2019) on the graph of nearest neighbours, and k-means with as
many clusters as labels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, pairwise_distances, silhouette_samples
from sklearn.neighbors import NearestNeighbors

from profiling.profiles import InvalidProfiles, Words
from profiling.statistics import false_discovery_rate

MOST_SILHOUETTES = 5000  # rows drawn for the silhouettes, which need all distances
TINY = 1e-12
Codes = Int[np.ndarray, " n"]
Estimator = Callable[[np.ndarray], float]  # of the units drawn: rows, or labels


def neighbours(values: Float[np.ndarray, "n d"], k: int) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """The k nearest other rows of each row and their Euclidean distances."""
    if not 1 <= k < len(values):
        raise InvalidProfiles(f"k must lie between 1 and {len(values) - 1} (rows - 1), got {k}")
    distance, near = NearestNeighbors(n_neighbors=k + 1).fit(values).kneighbors(values)
    own = near == np.arange(len(values))[:, None]
    own[~own.any(axis=1), -1] = True  # among many copies the row itself may be missing: drop the last instead
    shape = (len(values), k)
    return near[~own].reshape(shape).astype(np.int64), distance[~own].reshape(shape)


def leiden_clusters(near: Int[np.ndarray, "n k"], seed: int, resolution: float = 1.0) -> Codes:
    """Communities of greatest modularity in the graph that joins each row to its neighbours; an edge that both ends
    name weighs twice. The same for the same seed."""
    from graspologic_native import leiden_csr  # compiled; not needed by the other metrics

    n, k = near.shape
    one_way = csr_matrix((np.ones(n * k), (np.repeat(np.arange(n), k), near.ravel())), shape=(n, n))
    graph = (one_way + one_way.T).tocsr()
    graph.sort_indices()
    parts = graph.indptr.astype(np.int64), graph.indices.astype(np.int32), graph.data.astype(np.float64)
    _, community = leiden_csr(*parts, n, resolution=resolution, iterations=10, seed=seed)
    return np.array([community[i] for i in range(n)], dtype=np.int64)


def _connected_shares(near: Int[np.ndarray, "n k"], label: Codes) -> Float[np.ndarray, " l"]:
    n, k = near.shape
    graph = csr_matrix((np.ones(n * k), (np.repeat(np.arange(n), k), near.ravel())), shape=(n, n))
    shares = []
    for value in np.unique(label):
        rows = np.flatnonzero(label == value)
        component = connected_components(graph[rows][:, rows], directed=False)[1]
        shares.append(np.bincount(component).max() / len(rows))
    return np.array(shares)


def graph_connectivity(near: Int[np.ndarray, "n k"], label: Codes) -> float:
    """Mean over labels of the share of its rows in the largest component of the neighbour graph among them."""
    return float(_connected_shares(near, label).mean())


def _accepted(near: Int[np.ndarray, "n k"], batch: Codes, alpha: float = 0.05) -> Bool[np.ndarray, " n"]:
    k = near.shape[1]
    expected = k * np.bincount(batch) / len(batch)
    counts = np.stack([(batch[near] == b).sum(axis=1) for b in range(len(expected))], axis=1)
    statistic = ((counts - expected) ** 2 / expected).sum(axis=1)
    return np.asarray(chi2.sf(statistic, len(expected) - 1) > alpha)


def kbet_acceptance(near: Int[np.ndarray, "n k"], batch: Codes, alpha: float = 0.05) -> float:
    """Share of rows whose neighbourhood's batch counts pass the chi-square test against the batch sizes (Büttner
    2019)."""
    return float(_accepted(near, batch, alpha).mean())


def lisi_weights(distance: Float[np.ndarray, "n k"], perplexity: float = 30.0) -> Float[np.ndarray, "n k"]:
    """Gaussian weights of the neighbours, adding up to 1, with the given perplexity (at most a third of the
    neighbours)."""
    perplexity = min(perplexity, distance.shape[1] / 3)
    low, high = np.zeros(len(distance)), np.full(len(distance), np.inf)
    beta = np.ones(len(distance))
    shifted = distance - distance.min(axis=1, keepdims=True)
    weight = np.empty_like(distance)
    for _ in range(60):  # bisection: entropy falls as beta grows
        weight = np.exp(-shifted * beta[:, None])
        weight /= weight.sum(axis=1, keepdims=True)
        entropy = -(weight * np.log(np.maximum(weight, 1e-300))).sum(axis=1)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
        beta = np.where(np.isinf(high), beta * 2, (low + high) / 2)
    return weight


def _effective_words(
    near: Int[np.ndarray, "n k"], weight: Float[np.ndarray, "n k"], word: Codes
) -> Float[np.ndarray, " n"]:
    share = np.stack([(weight * (word[near] == w)).sum(axis=1) for w in range(int(word.max()) + 1)], axis=1)
    return 1 / (share**2).sum(axis=1)


def lisi(
    near: Int[np.ndarray, "n k"],
    distance: Float[np.ndarray, "n k"],
    word: Codes,
    perplexity: float = 30.0,
) -> Float[np.ndarray, " n"]:
    """Effective number of words around each row: inverse Simpson index with Gaussian weights of the given
    perplexity."""
    return _effective_words(near, lisi_weights(distance, perplexity), word)


def _batch_silhouettes(apart: Float[np.ndarray, "n n"], batch: Codes, label: Codes) -> Float[np.ndarray, " n"]:
    """1 - |silhouette of the row's batch among the rows of its label|; NaN for a label in one batch only."""
    out = np.full(len(batch), np.nan)
    for value in np.unique(label):
        rows = np.flatnonzero(label == value)
        if 1 < len(np.unique(batch[rows])) < len(rows):
            between = apart[np.ix_(rows, rows)]
            out[rows] = 1 - np.abs(silhouette_samples(between, batch[rows], metric="precomputed"))
    return out


def _mean_of_means(values: Float[np.ndarray, " n"], label: Codes) -> float:
    known = ~np.isnan(values)
    if not known.any():
        return float("nan")
    size = np.bincount(label[known])
    return float((np.bincount(label[known], values[known])[size > 0] / size[size > 0]).mean())


def silhouette_batch(values: Float[np.ndarray, "n d"], batch: Codes, label: Codes) -> float:
    """Mean over labels of the mean of 1 - |silhouette of batch| among its rows; labels in one batch do not count."""
    return _mean_of_means(_batch_silhouettes(pairwise_distances(values), batch, label), label)


def _codes(words: Words, name: str) -> Int[np.ndarray, " n"]:
    code = np.unique(np.asarray(words).astype(str), return_inverse=True)[1].astype(np.int64)
    if code.max(initial=0) < 1:
        raise InvalidProfiles(f"{name} has one value only: there is nothing to mix or to keep apart")
    return code


@dataclass(frozen=True)
class ScorecardConfig:
    """How the scorecard is made. `permutations` bound p from below by 1 / (1 + permutations)."""

    neighbours: int = 30
    resolution: float = 1.0  # of Leiden: higher, more clusters
    permutations: int = 99
    resamples: int = 200
    level: float = 0.95


def scorecard(
    values: Float[np.ndarray, "n d"],
    batch: Words,
    label: Words,
    rng: np.random.Generator,
    config: ScorecardConfig | None = None,
) -> pd.DataFrame:
    """One row a metric: `metric`, `kind`, `value`, `chance` and `chance_sd`, `low`..`high`, `p`, `q`.

    Chance is the mean with batches (kind "batch") or labels (kind "label") shuffled: what perfect mixing gives for the
    former, what no signal gives for the latter. p is one-sided, for batches "mixed worse than by chance", for labels
    "kept better than by chance"; q is Benjamini-Hochberg over the metrics. The interval is the percentile bootstrap
    over rows (over labels for graph connectivity), with neighbours and clusters as they are.
    """
    config = config or ScorecardConfig()
    b, c = _codes(batch, "batch"), _codes(label, "label")
    if len(values) != len(b) or len(values) != len(c):
        raise InvalidProfiles(f"values has {len(values)} rows, batch {len(b)}, label {len(c)}: expected as many")
    metrics = _metrics(values, c, config, rng)
    everyone = {"batch": b, "label": c}
    shuffled = {kind: [rng.permutation(words) for _ in range(config.permutations)] for kind, words in everyone.items()}
    tail = 50 * (1 - config.level)
    rows = []
    for name, (kind, prepare) in metrics.items():
        units, estimate = prepare(everyone[kind])
        value = estimate(np.arange(units))
        spread = [estimate(rng.integers(0, units, units)) for _ in range(config.resamples)]
        null = np.array([_whole(prepare(words)) for words in shuffled[kind]])
        beyond = null <= value + TINY if kind == "batch" else null >= value - TINY
        low, high = np.nanpercentile(spread, [tail, 100 - tail]) if spread and value == value else (np.nan, np.nan)
        p = (1 + int(beyond.sum())) / (1 + len(null)) if value == value else np.nan
        chance, sd = (float(null.mean()), float(null.std())) if len(null) else (np.nan, np.nan)
        rows.append((name, kind, value, chance, sd, float(low), float(high), p))
    head = ["metric", "kind", "value", "chance", "chance_sd", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=head)
    return table.assign(q=false_discovery_rate(table["p"].to_numpy(dtype=np.float64)))


Prepared = tuple[int, Estimator]


def _whole(prepared: Prepared) -> float:
    units, estimate = prepared
    return estimate(np.arange(units))


def _metrics(
    values: Float[np.ndarray, "n d"], label: Codes, config: ScorecardConfig, rng: np.random.Generator
) -> dict[str, tuple[str, Callable[[np.ndarray], Prepared]]]:
    """Metric -> its kind and a function that takes words and gives the number of units and the estimate from units."""
    near, distance = neighbours(values, config.neighbours)
    weight = lisi_weights(distance)
    seed = int(rng.integers(2**31))
    clusters = {
        "leiden": leiden_clusters(near, seed, config.resolution),
        "kmeans": KMeans(int(label.max()) + 1, n_init=3, random_state=seed).fit_predict(values),
    }
    n = len(values)
    drawn = np.arange(n) if n <= MOST_SILHOUETTES else np.sort(rng.choice(n, MOST_SILHOUETTES, replace=False))
    apart = pairwise_distances(values[drawn])
    np.fill_diagonal(apart, 0.0)

    def kbet(words: np.ndarray) -> Prepared:
        passed = _accepted(near, words)
        return n, lambda rows: float(passed[rows].mean())

    def mixed(words: np.ndarray) -> Prepared:
        effective, most = _effective_words(near, weight, words), int(words.max())
        return n, lambda rows: float((np.median(effective[rows]) - 1) / most)

    def kept(words: np.ndarray) -> Prepared:
        units, estimate = mixed(words)
        return units, lambda rows: 1 - estimate(rows)

    def silhouette_of_batch(words: np.ndarray) -> Prepared:
        found = _batch_silhouettes(apart, words[drawn], label[drawn])
        return len(drawn), lambda rows: _mean_of_means(found[rows], label[drawn][rows])

    def silhouette_of_label(words: np.ndarray) -> Prepared:
        found = silhouette_samples(apart, words[drawn], metric="precomputed")
        return len(drawn), lambda rows: float((found[rows].mean() + 1) / 2)

    def connectivity(words: np.ndarray) -> Prepared:
        shares = _connected_shares(near, words)
        return len(shares), lambda labels: float(shares[labels].mean())

    def agreement(score: Callable[..., float], found: np.ndarray) -> Callable[[np.ndarray], Prepared]:
        return lambda words: (n, lambda rows: float(score(words[rows], found[rows])))

    made: dict[str, tuple[str, Callable[[np.ndarray], Prepared]]] = {
        "kbet": ("batch", kbet),
        "lisi_batch": ("batch", mixed),
        "silhouette_batch": ("batch", silhouette_of_batch),
        "graph_connectivity": ("label", connectivity),
        "lisi_label": ("label", kept),
        "silhouette_label": ("label", silhouette_of_label),
    }
    for name, found in clusters.items():
        made[f"{name}_ari"] = ("label", agreement(adjusted_rand_score, found))
        made[f"{name}_nmi"] = ("label", agreement(normalized_mutual_info_score, found))
    return made
