"""A mean average precision with what shuffled labels give: value, chance, interval and permutation p.

The null of `retrieval.mean_average_precision` is a random ranking for each query; queries that see each other are not
independent, so its p is for one group at a time. Here the labels themselves are shuffled among the rows, which keeps
every similarity and so every dependence, and the whole mean is tested.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from profiling.profiles import META, InvalidProfiles, Profiles
from profiling.retrieval import Pairing, average_precisions, unit_rows


@dataclass(frozen=True)
class Found:
    """`value`: mean over groups of the mean average precision of their queries; `chance`: of a random ranking;
    `null`: mean with shuffled labels; `low`..`high`: bootstrap over groups; `p`: one-sided, from the shuffling."""

    value: float
    chance: float
    null: float
    low: float
    high: float
    p: float
    n_groups: int
    n_queries: int


def angle_of(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
    """One number a row as a direction, so that the cosine of two rows falls with the difference of their numbers.

    For baselines of one number (a cell count): the range becomes a quarter of a circle.
    """
    span = float(np.ptp(values)) or 1.0
    angle = (values - values.min()) / span * (np.pi / 2)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def found(
    profiles: Profiles,
    pairing: Pairing,
    shuffle: Sequence[str],
    rng: np.random.Generator,
    by: str = "",
    within: Sequence[str] = (),
    permutations: int = 199,
    resamples: int = 1000,
    level: float = 0.95,
    queries: Bool[np.ndarray, " n"] | None = None,
    negatives: Bool[np.ndarray, " n"] | None = None,
    matrix: Float[np.ndarray, "n n"] | None = None,
) -> Found:
    """How well profiles find their positives, and how well they would with their labels shuffled.

    Args:
        profiles: rows [n]; their similarity is the cosine, or `matrix` where that is given.
        pairing: who is a positive and who a negative, by columns of the metadata.
        shuffle: columns that hold the labels; they are shuffled together.
        rng: source of permutations and resamples.
        by: column whose values are the groups (a compound's queries are one group); "" makes every query a group.
        within: rows are shuffled only among those that share these columns (a plate, a source).
        permutations: p is (1 + as high) / (1 + permutations).
        resamples: of the bootstrap over groups.
        level: of the interval.
        queries: who asks.
        negatives: who may be a negative.
        matrix: similarities, any scale on which more is more similar.
    """
    if len(shuffle) == 0:
        raise InvalidProfiles("shuffle is empty: expected the columns that hold the labels")
    if matrix is None:
        unit = unit_rows(profiles.values)
        matrix = unit @ unit.T

    def groups(meta: pd.DataFrame) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, " g"], int]:
        seen = Profiles(meta, profiles.values, profiles.names)
        table = average_precisions(seen, pairing, queries=queries, negatives=negatives, matrix=matrix)
        if not by:
            return table["average_precision"].to_numpy(), table["chance"].to_numpy(), len(table)
        means = table.groupby(_full(by), sort=True)[["average_precision", "chance"]].mean()
        return means["average_precision"].to_numpy(), means["chance"].to_numpy(), len(table)

    values, chance, count = groups(profiles.meta)
    observed = float(values.mean())
    strata = _strata(profiles, within)
    null = np.array([groups(_shuffled(profiles.meta, shuffle, strata, rng))[0].mean() for _ in range(permutations)])
    drawn = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    p = (1 + int((null >= observed - 1e-12).sum())) / (1 + permutations)
    middle = float(null.mean()) if permutations else float("nan")
    return Found(observed, float(chance.mean()), middle, float(low), float(high), p, len(values), count)


def _full(name: str) -> str:
    return name if name.startswith(META) else META + name


def _strata(profiles: Profiles, within: Sequence[str]) -> np.ndarray:
    if not within:
        return np.zeros(len(profiles), dtype=np.int64)
    columns = [_full(c) for c in within]
    return profiles.meta.groupby(columns, dropna=False, observed=True).ngroup().to_numpy()


def _shuffled(meta: pd.DataFrame, shuffle: Sequence[str], strata: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    order = np.arange(len(meta))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        order[rows] = rng.permutation(rows)
    columns = {_full(c): meta[_full(c)].to_numpy()[order] for c in shuffle}
    return meta.assign(**columns)
