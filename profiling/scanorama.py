"""Scanorama: batches are stitched together like a panorama, along the pairs of rows that match best (Hie et al. 2019).

doi 10.1038/s41587-019-0113-3; our own implementation of `scanorama.integrate` with exact neighbours, held to the
numbers of the package (MIT), which needs a compiler and an approximate-neighbour library that is no longer kept.
Transductive. Rows become components, in no unit.

1. rows are scaled to length 1 and reduced to principal components;
2. two rows of different batches match when each is among the other's k nearest (city-block distance, length 1);
3. batches are taken pair by pair in falling order of the share of rows matched, while that is above `least`;
4. the batch that is not yet in the panorama moves by the mean difference of matches, weighted by a Gaussian of the
   distance to them; two panoramas are joined in the same way.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors

from profiling.profiles import InvalidProfiles, Profiles, Words

Pairs = Int[np.ndarray, "p 2"]
OFTEN = 3  # a batch takes part in so many alignments


@dataclass(frozen=True)
class ScanoramaConfig:
    """The published defaults."""

    neighbours: int = 20
    components: int = 100  # at most the number of features and of rows
    sharpness: float = 15.0  # "sigma": weights are exp(-sharpness / 2 * squared distance)
    least: float = 0.1  # "alpha": share of rows matched below which two batches are not aligned


def _unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _nearest(parts: list[Float[np.ndarray, "_ d"]], i: int, k: int) -> dict[int, set[tuple[int, int]]]:
    """(row of i, row of j) for the k nearest among the batches before i together, and among those after it together."""
    found: dict[int, set[tuple[int, int]]] = {j: set() for j in range(len(parts)) if j != i}
    for others in (range(i), range(i + 1, len(parts))):
        if len(others) == 0:
            continue
        pool = np.concatenate([parts[j] for j in others])
        start = np.cumsum([0, *(len(parts[j]) for j in others)])
        search = NearestNeighbors(n_neighbors=min(k, len(pool)), p=1).fit(pool)
        near = search.kneighbors(parts[i], return_distance=False)
        owner = np.searchsorted(start, near, side="right") - 1
        for row in range(len(near)):
            for which, place in zip(owner[row].tolist(), near[row].tolist(), strict=True):
                found[others[which]].add((row, place - int(start[which])))
    return found


def matches(parts: list[Float[np.ndarray, "_ d"]], neighbours: int = 20) -> dict[tuple[int, int], tuple[float, Pairs]]:
    """(i, j), i < j -> share of rows matched (the larger of both batches'), and the matching rows."""
    unit = [_unit(part) for part in parts]
    near = [_nearest(unit, i, neighbours) for i in range(len(parts))]
    out = {}
    for i in range(len(parts)):
        for j in range(i + 1, len(parts)):
            both = near[i][j] & {(a, b) for b, a in near[j][i]}
            pairs = np.array(sorted(both), dtype=np.int64).reshape(-1, 2)
            share = max(len(set(pairs[:, side].tolist())) / len(parts[at]) for side, at in ((0, i), (1, j)))
            out[i, j] = (share, pairs)
    return out


def _moved(
    x: Float[np.ndarray, "n d"],
    from_rows: Float[np.ndarray, "p d"],
    to_rows: Float[np.ndarray, "p d"],
    sharpness: float,
) -> Float[np.ndarray, "n d"]:
    weight = rbf_kernel(x, from_rows, gamma=0.5 * sharpness)
    total = weight.sum(axis=1, keepdims=True)
    shift = np.divide(weight @ (to_rows - from_rows), total, out=np.zeros_like(x), where=total > 0)
    return x + shift


def assemble(
    parts: list[Float[np.ndarray, "_ d"]], config: ScanoramaConfig | None = None
) -> list[Float[np.ndarray, "_ d"]]:
    """Batches in reduced space -> the same, stitched together; a batch without an alignment stays where it is."""
    config = config or ScanoramaConfig()
    parts = [part.copy() for part in parts]
    found = matches(parts, config.neighbours)
    # falling by share; equal shares in the reverse of their order, as in the package
    order = sorted(found, key=lambda pair: found[pair][0])[::-1]
    panoramas: list[list[int]] = []
    taken = np.zeros(len(parts), dtype=int)

    def panorama(i: int) -> list[int] | None:
        return next((one for one in panoramas if i in one), None)

    def between(i: int, j: int) -> Pairs:
        return found[i, j][1] if i < j else found[j, i][1][:, ::-1]

    for i, j in order:
        if found[i, j][0] <= config.least:
            break
        taken[[i, j]] += 1
        if (taken[[i, j]] > OFTEN).all():
            continue
        if panorama(i) is None and panorama(j) is None:
            if len(parts[i]) < len(parts[j]):
                i, j = j, i
            panoramas.append([i])
        left, right = panorama(i), panorama(j)
        if left is not None and right is not None:
            pairs = between(i, j)
            from_rows, to_rows = parts[i][pairs[:, 0]], parts[j][pairs[:, 1]]
            for p in left:
                parts[p] = _moved(parts[p], from_rows, to_rows, config.sharpness)
            if left is not right:
                left.extend(right)
                panoramas = [one for one in panoramas if one is not right]
            continue
        new, old = (i, right) if left is None else (j, left)
        assert old is not None
        each = {p: between(new, p) for p in old}
        from_rows = np.concatenate([parts[new][own[:, 0]] for own in each.values()])
        to_rows = np.concatenate([parts[p][own[:, 1]] for p, own in each.items()])
        parts[new] = _moved(parts[new], from_rows, to_rows, config.sharpness)
        old.append(new)
    return parts


def scanorama(
    values: Float[np.ndarray, "n k"], batch: Words, config: ScanoramaConfig | None = None
) -> Float[np.ndarray, "n d"]:
    """Rows [n, k] of several batches -> stitched components [n, d]. Raises `InvalidProfiles` for NaN or one batch."""
    config = config or ScanoramaConfig()
    if np.isnan(values).any():
        raise InvalidProfiles(f"values contain {int(np.isnan(values).sum())} NaN: select features or rows first")
    names, code = np.unique(np.asarray(batch).astype(str), return_inverse=True)
    if len(names) < 2:
        raise InvalidProfiles(f"batch has one value only, {names.tolist()}: there is nothing to correct")
    x = _unit(values)
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    reduced = (u * s)[:, : config.components]
    made = assemble([reduced[code == i] for i in range(len(names))], config)
    out = np.empty_like(reduced)
    for i, part in enumerate(made):
        out[code == i] = part
    return out


def scanorama_profiles(profiles: Profiles, batch: str, config: ScanoramaConfig | None = None) -> Profiles:
    """Profiles corrected over the metadata column `batch`; features become `Scanorama1` ... Transductive."""
    made = scanorama(profiles.values, profiles.column(batch), config)
    return Profiles(profiles.meta, made, tuple(f"Scanorama{i + 1}" for i in range(made.shape[1])))
