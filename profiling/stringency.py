"""How hard a match is: the four stringencies of replicate matching, and groups left out, as columns.

NR   no restriction
NSB  the match is not of the same batch
NSS  not of the same source (laboratory)
NSL  not of the same well location: what a plate's layout does cannot help

A pairing (`retrieval.Pairing`) says what counts as the same; a stringency adds in what a match must differ. Leaving
perturbations, plates, sites or data sets out of what is fitted is `leave_out` with another column.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pandas as pd
from jaxtyping import Bool

from profiling.profiles import InvalidProfiles, Profiles
from profiling.retrieval import Pairing, average_precisions, mean_average_precision

STRINGENCIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"NR": (), "NSB": ("Batch",), "NSS": ("Source",), "NSL": ("Well",)}
)


def stringent(pairing: Pairing, stringency: str) -> Pairing:
    """The pairing whose positives must also differ in the columns of the stringency ("NSB": batch)."""
    if stringency not in STRINGENCIES:
        raise InvalidProfiles(f"stringency must be one of {sorted(STRINGENCIES)}, got {stringency!r}")
    more = tuple(c for c in STRINGENCIES[stringency] if c not in pairing.pos_diffby)
    return replace(pairing, pos_diffby=(*pairing.pos_diffby, *more))


def by_stringency(
    profiles: Profiles,
    pairing: Pairing,
    group: tuple[str, ...],
    rng: np.random.Generator,
    size: int = 10_000,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """One row a stringency: `n_queries`, `n_groups`, `map`, `chance`, `normalised`, `retrieved` (share of the groups
    `group` with q below `alpha`). A stringency without a column or without a positive has 0 queries and NaN.
    """
    rows = []
    for name in STRINGENCIES:
        try:
            queries = average_precisions(profiles, stringent(pairing, name))
        except InvalidProfiles as error:
            rows.append((name, 0, 0, np.nan, np.nan, np.nan, np.nan, str(error)))
            continue
        groups = mean_average_precision(queries, group, rng, size)
        means = groups[["map", "chance", "normalised"]].mean()
        rows.append((name, len(queries), len(groups), *means.tolist(), float((groups["q"] < alpha).mean()), ""))
    columns = ["stringency", "n_queries", "n_groups", "map", "chance", "normalised", "retrieved", "reason"]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class Split:
    """Rows to fit on and rows to evaluate; no group (a plate, say) is in both."""

    left_out: tuple[str, ...]
    fit: Bool[np.ndarray, " n"]
    evaluate: Bool[np.ndarray, " n"]


def leave_out(profiles: Profiles, column: str, folds: int, seed: int = 0) -> Iterator[Split]:
    """Splits in which whole groups are left out: perturbations, plates, sites, data sets, by the column naming them.

    Every group is evaluated in exactly one of `folds`; fewer groups than folds is refused. Rows without a group are
    fitted on never and evaluated never.
    """
    words = pd.Series(profiles.column(column))
    groups = sorted(words.dropna().astype(str).unique())
    if not 2 <= folds <= len(groups):
        raise InvalidProfiles(f"folds must lie between 2 and the {len(groups)} groups of {column!r}, got {folds}")
    known = words.notna().to_numpy()
    own = words.astype(str).to_numpy(dtype=object)
    order = np.random.default_rng(seed).permutation(groups)
    for i in range(folds):
        out = tuple(sorted(order[i::folds].tolist()))
        held = known & np.isin(own, out)
        yield Split(out, known & ~held, held)
