"""fastMNN: batches are joined by the rows that are each other's nearest neighbours (mutual nearest neighbours).

Haghverdi et al. 2018 (doi 10.1038/nbt.4091); the fast variant is described with Bioconductor's batchelor, which is
under the GPL: this is our own implementation from that description. Transductive: every row is moved by what all rows
are. The batches are merged one after another into the first:

1. rows are scaled to length 1 and reduced to principal components;
2. row i of the new batch and row j of the merged ones are a pair when each is among the other's k nearest;
3. both sides lose what varies along the mean difference of the pairs, so that only differences across it are learned;
4. each row of the new batch moves by the mean difference of the pairs near it, weighted by the tricube of distance.

It assumes that some kind of profile is shared by the batches (DMSO is), and that batch effects are smaller than, and
orthogonal to, biology.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.neighbors import NearestNeighbors

from profiling.profiles import InvalidProfiles, Profiles, Words


@dataclass(frozen=True)
class MnnConfig:
    """batchelor's defaults."""

    neighbours: int = 20  # k of "each other's k nearest"
    components: int = 50  # at most the number of features
    width: float = 3.0  # of the tricube, in units of the distance of the middle neighbour
    unit_length: bool = True  # scale rows to length 1 first ("cosine normalisation")


@dataclass(frozen=True)
class Merged:
    """Rows in principal components [n, d]; `pairs`: number of mutual pairs of each merge, in order."""

    values: Float[np.ndarray, "n d"]
    pairs: tuple[int, ...]


def mutual_pairs(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], neighbours: int
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Rows of `a` and `b` that are among each other's `neighbours` nearest (Euclidean)."""
    from_a = NearestNeighbors(n_neighbors=min(neighbours, len(b))).fit(b).kneighbors(a, return_distance=False)
    from_b = NearestNeighbors(n_neighbors=min(neighbours, len(a))).fit(a).kneighbors(b, return_distance=False)
    seen = np.zeros((len(a), len(b)), dtype=bool) if len(a) * len(b) <= 50_000_000 else None
    rows = np.repeat(np.arange(len(a)), from_a.shape[1])
    columns = from_a.ravel()
    if seen is not None:
        seen[from_b.ravel(), np.repeat(np.arange(len(b)), from_b.shape[1])] = True
        keep = seen[rows, columns]
    else:
        back = from_b.ravel().astype(np.int64) * len(b) + np.repeat(np.arange(len(b)), from_b.shape[1])
        keep = np.isin(rows.astype(np.int64) * len(b) + columns, back)
    return rows[keep].astype(np.int64), columns[keep].astype(np.int64)


def mnn(
    values: Float[np.ndarray, "n k"], batch: Words, order: Sequence[str] = (), config: MnnConfig | None = None
) -> Merged:
    """Rows [n, k] of several batches -> corrected principal components.

    `order` names the batches from first to last; by default the largest comes first. Raises `InvalidProfiles` for NaN,
    a single batch, an order that does not name every batch once, or batches without a mutual pair.
    """
    config = config or MnnConfig()
    if np.isnan(values).any():
        raise InvalidProfiles(f"values contain {int(np.isnan(values).sum())} NaN: select features or rows first")
    words = np.asarray(batch).astype(str)
    names, size = np.unique(words, return_counts=True)
    if len(names) < 2:
        raise InvalidProfiles(f"batch has one value only, {names.tolist()}: there is nothing to correct")
    sequence = list(order) or [str(n) for n in names[np.argsort(-size, kind="stable")]]
    if sorted(sequence) != sorted(names.tolist()):
        raise InvalidProfiles(f"order is {sequence}: expected every batch once, {names.tolist()}")
    z = _components(values, words, names, config)
    done = np.flatnonzero(words == sequence[0])
    pairs = []
    for name in sequence[1:]:
        rows = np.flatnonzero(words == name)
        first, second = mutual_pairs(z[done], z[rows], config.neighbours)
        if len(first) == 0:
            raise InvalidProfiles(f"batch {name!r} has no mutual nearest neighbour: raise neighbours or leave it out")
        pairs.append(len(first))
        along = _per_row(z[done][first] - z[rows][second], second)[1].mean(axis=0)
        reference, moving = _without(z[done], along), _without(z[rows], along)
        at, difference = _per_row(reference[first] - moving[second], second)
        z[done] = reference
        z[rows] = moving + _smoothed(moving, moving[at], difference, config)
        done = np.concatenate([done, rows])
    return Merged(z, tuple(pairs))


def _components(
    values: Float[np.ndarray, "n k"], words: np.ndarray, names: np.ndarray, config: MnnConfig
) -> Float[np.ndarray, "n d"]:
    x = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12) if config.unit_length else values
    # every batch counts alike, whatever its size
    x = x - np.mean([x[words == name].mean(axis=0) for name in names], axis=0)
    weight = np.sqrt(1.0 / np.unique(words, return_counts=True)[1])[np.searchsorted(names, words)]
    _, _, vt = np.linalg.svd(x * weight[:, None], full_matrices=False)
    return np.asarray(x @ vt[: config.components].T)


def _per_row(
    difference: Float[np.ndarray, "p d"], row: Int[np.ndarray, " p"]
) -> tuple[Int[np.ndarray, " q"], Float[np.ndarray, "q d"]]:
    """The rows that are in a pair, and the mean of each one's differences."""
    at, code, count = np.unique(row, return_inverse=True, return_counts=True)
    total = np.zeros((len(at), difference.shape[1]))
    np.add.at(total, code, difference)
    return at.astype(np.int64), total / count[:, None]


def _without(x: Float[np.ndarray, "n d"], along: Float[np.ndarray, " d"]) -> Float[np.ndarray, "n d"]:
    """Every row at the mean place along the direction."""
    direction = along / max(float(np.linalg.norm(along)), 1e-12)
    place = x @ direction
    return x + np.outer(place.mean() - place, direction)


def _smoothed(
    x: Float[np.ndarray, "n d"],
    anchors: Float[np.ndarray, "q d"],
    difference: Float[np.ndarray, "q d"],
    config: MnnConfig,
) -> Float[np.ndarray, "n d"]:
    """For each row the tricube-weighted mean of the differences at the nearest rows that are in a pair."""
    k = min(config.neighbours, len(anchors))
    distance, near = NearestNeighbors(n_neighbors=k).fit(anchors).kneighbors(x)
    bandwidth = np.maximum(distance[:, [(k + 1) // 2 - 1]] * config.width, 1e-8)
    weight = (1 - np.minimum(distance / bandwidth, 1.0) ** 3) ** 3
    weight /= weight.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("nk,nkd->nd", weight, difference[near]))


def mnn_profiles(
    profiles: Profiles, batch: str, order: Sequence[str] = (), config: MnnConfig | None = None
) -> Profiles:
    """Profiles corrected over the metadata column `batch`; features become `MNN1` ... Transductive."""
    made = mnn(profiles.values, profiles.column(batch), order, config).values
    return Profiles(profiles.meta, made, tuple(f"MNN{i + 1}" for i in range(made.shape[1])))
