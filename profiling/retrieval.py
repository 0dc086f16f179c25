"""Do profiles find their own kind? Average precision of each profile as a query, for pairs declared by columns.

What counts as the same and as different is columns, in the words of copairs: a positive of a query shares its
`pos_sameby` columns and differs in each of `pos_diffby`; likewise for negatives. So replicates across plates,
compounds of one MoA that are not the same compound, or leave-batch-out are one function. A column whose cells list
several labels ("EGFR|ERBB2") is the same where one label is shared. Missing values are the same as nothing and
different from nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from profiling.chance import NullPrecision, null_mean_precision, null_precision
from profiling.metrics import expected_average_precision
from profiling.precision import row_precision
from profiling.profiles import META, InvalidProfiles, Profiles
from profiling.statistics import false_discovery_rate

CHUNK_ELEMENTS = 8_000_000  # similarities held at once
SEPARATOR = "|"


@dataclass(frozen=True)
class Pairing:
    """Columns (with or without the prefix `Metadata_`) that make two profiles a positive or a negative pair.

    `several` names columns whose cells are lists joined with "|".
    """

    pos_sameby: tuple[str, ...]
    pos_diffby: tuple[str, ...] = ()
    neg_sameby: tuple[str, ...] = ()
    neg_diffby: tuple[str, ...] = ()
    several: tuple[str, ...] = ()


REPLICATES = Pairing(("compound",), ("Plate",), (), ("compound",))


def unit_rows(values: Float[np.ndarray, "n k"], similarity: str = "cosine") -> Float[np.ndarray, "n k"]:
    """Rows scaled so that their products are the "cosine" or "correlation". Raises `InvalidProfiles` for NaN."""
    if similarity not in ("cosine", "correlation"):
        raise InvalidProfiles(f"similarity must be 'cosine' or 'correlation', got {similarity!r}")
    if np.isnan(values).any():
        raise InvalidProfiles(f"values contain {int(np.isnan(values).sum())} NaN: select features or rows first")
    rows = values - values.mean(axis=1, keepdims=True) if similarity == "correlation" else values
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    if (size == 0).any():
        raise InvalidProfiles(
            f"{int((size == 0).sum())} rows have no direction (all zero, or constant): leave them out"
        )
    return rows / size


class _Relation:
    """Answers, for chosen rows against all rows: do they share every column of `same` and differ in every of `diff`?"""

    def __init__(self, meta: pd.DataFrame, same: Sequence[str], diff: Sequence[str], several: Sequence[str]) -> None:
        lists = {_full(c) for c in several}
        self.same = [_column(meta, _full(c), _full(c) in lists) for c in same]
        self.diff = [_column(meta, _full(c), _full(c) in lists) for c in diff]

    def rows(self, at: Int[np.ndarray, " q"], n: int) -> Bool[np.ndarray, "q n"]:
        out = np.ones((len(at), n), dtype=bool)
        for column in self.same:
            out &= _shares(column, at)
        for column in self.diff:
            out &= ~_shares(column, at) & _known(column)[None, :] & _known(column)[at][:, None]
        return out


def _full(name: str) -> str:
    return name if name.startswith(META) else META + name


def _column(meta: pd.DataFrame, name: str, several: bool) -> np.ndarray:
    if name not in meta.columns:
        raise InvalidProfiles(f"meta has no column {name!r}: it has {list(meta.columns)}")
    if several:
        return meta[name].fillna("").astype(str).str.get_dummies(SEPARATOR).to_numpy(dtype=np.float32)
    return pd.factorize(meta[name])[0]


def _shares(column: np.ndarray, at: Int[np.ndarray, " q"]) -> Bool[np.ndarray, "q n"]:
    if column.ndim == 2:
        return np.asarray(column[at] @ column.T > 0)
    return np.asarray((column[at][:, None] == column[None, :]) & (column[at] >= 0)[:, None])


def _known(column: np.ndarray) -> Bool[np.ndarray, " n"]:
    return np.asarray(column.any(axis=1) if column.ndim == 2 else column >= 0)


def average_precisions(
    profiles: Profiles,
    pairing: Pairing,
    similarity: str = "cosine",
    queries: Bool[np.ndarray, " n"] | None = None,
    negatives: Bool[np.ndarray, " n"] | None = None,
    matrix: Float[np.ndarray, "n n"] | None = None,
) -> pd.DataFrame:
    """One row a query that has a positive and a negative: its metadata and

    `average_precision`, `chance` (expected AP), `normalised` ((AP - chance) / (1 - chance)), `n_positives`,
    `n_total`, and `Metadata_Query`, its row in `profiles`. `queries` limits who asks; `negatives` limits who may be a
    negative (the DMSO wells, say). `matrix` takes the place of the similarities of the values (Tanimoto, say). Raises
    `InvalidProfiles` when no query is left.
    """
    n = len(profiles)
    unit = unit_rows(profiles.values, similarity) if matrix is None else np.empty((n, 0))
    alike = _Relation(profiles.meta, pairing.pos_sameby, pairing.pos_diffby, pairing.several)
    unlike = _Relation(profiles.meta, pairing.neg_sameby, pairing.neg_diffby, pairing.several)
    asked = np.arange(n) if queries is None else np.flatnonzero(queries)
    precision, hits, total = np.full(len(asked), np.nan), np.zeros(len(asked), int), np.zeros(len(asked), int)
    step = max(1, CHUNK_ELEMENTS // max(n, 1))
    for start in range(0, len(asked), step):
        at = asked[start : start + step]
        part = slice(start, start + len(at))
        positive, negative = alike.rows(at, n), unlike.rows(at, n)
        positive[np.arange(len(at)), at] = False
        negative[np.arange(len(at)), at] = False
        negative &= ~positive
        if negatives is not None:
            negative &= negatives[None, :]
        hits[part] = positive.sum(axis=1)
        total[part] = hits[part] + negative.sum(axis=1)
        similar = unit[at] @ unit.T if matrix is None else matrix[at]
        precision[part] = row_precision(similar, positive, negative)
    ok = (hits > 0) & (total > hits)
    if not ok.any():
        raise InvalidProfiles("no query has both a positive and a negative under this pairing: check the columns")
    chance = expected_average_precision(hits[ok], total[ok])
    table = profiles.meta.iloc[asked[ok]].reset_index(drop=True)
    return table.assign(
        Metadata_Query=asked[ok],
        average_precision=precision[ok],
        chance=chance,
        normalised=(precision[ok] - chance) / (1 - chance),
        n_positives=hits[ok],
        n_total=total[ok],
    )


def query_p(table: pd.DataFrame, rng: np.random.Generator, size: int = 10_000) -> Float[np.ndarray, " n"]:
    """p of each query's average precision under a random ranking: exact where it can be, else from `size` draws."""
    shapes = list(zip(table["n_positives"].tolist(), table["n_total"].tolist(), strict=True))
    nulls = {shape: null_precision(*shape, size, rng) for shape in sorted(set(shapes))}
    observed = table["average_precision"].to_numpy(dtype=np.float64)
    out = np.empty(len(table))
    for shape, null in nulls.items():
        rows = np.array([s == shape for s in shapes])
        out[rows] = null.p(observed[rows])
    return out


def mean_average_precision(
    table: pd.DataFrame, by: Sequence[str], rng: np.random.Generator, size: int = 10_000, shared: bool = True
) -> pd.DataFrame:
    """Queries -> one row for each combination of the columns `by`: mAP, its chance level, normalised mAP, p and q, and
    `low`..`high`, the 95 % percentile bootstrap over its queries (NaN for a single query).

    p is one-sided against random rankings (`shared` as in `null_mean_precision`); q is Benjamini-Hochberg over the
    rows. The share of rows with q below 0.05 is the field's "fraction retrieved" (of compounds: "percent active").
    """
    columns = [_full(c) for c in by]
    rows = []
    nulls: dict[tuple[tuple[int, int], ...], NullPrecision] = {}
    apart = rng.spawn(1)[0]  # the nulls stay the same, whatever the bootstrap draws
    for key, group in table.groupby(columns, sort=True, observed=True):
        value = float(group["average_precision"].mean())
        pairs = zip(group["n_positives"].tolist(), group["n_total"].tolist(), strict=True)
        shapes = tuple(sorted((int(m), int(total)) for m, total in pairs))
        if shapes not in nulls:
            nulls[shapes] = null_mean_precision(shapes, size, rng, shared)
        p = float(nulls[shapes].p(np.array([value]))[0])
        chance, normalised = float(group["chance"].mean()), float(group["normalised"].mean())
        low, high = _interval(group["average_precision"].to_numpy(dtype=np.float64), apart)
        rows.append((*key, value, chance, normalised, len(group), low, high, p))
    made = pd.DataFrame(rows, columns=[*columns, "map", "chance", "normalised", "n_queries", "low", "high", "p"])
    return made.assign(q=false_discovery_rate(made["p"].to_numpy(dtype=np.float64)))


def _interval(values: Float[np.ndarray, " m"], rng: np.random.Generator, resamples: int = 200) -> tuple[float, float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def nearest_matches(
    profiles: Profiles, label: str, differ: Sequence[str], similarity: str = "cosine"
) -> Bool[np.ndarray, " n"]:
    """Whether the nearest profile that differs in every column `differ` has the query's label (1-NN classification).

    "Not same compound" is `differ=["compound"]`; "not same compound or batch" adds the batch. A query without any
    candidate counts as False; ties go to the first row. Needs n x n similarities: for tables of treatments, not of
    wells by the million.
    """
    n = len(profiles)
    unit = unit_rows(profiles.values, similarity)
    allowed = _Relation(profiles.meta, (), tuple(differ), ()).rows(np.arange(n), n)
    np.fill_diagonal(allowed, False)
    nearest = np.where(allowed, unit @ unit.T, -np.inf).argmax(axis=1)
    words = profiles.column(label)
    return np.asarray((words[nearest] == words) & allowed.any(axis=1), dtype=bool)
