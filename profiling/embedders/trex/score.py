"""TRex's evaluation: cells to fields to wells by means, PCA and MAD to the controls, cosine; replicates find each
other among wells, mechanisms among compounds' consensus profiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from profiling.profiles import META, InvalidProfiles, Profiles, aggregate
from profiling.retrieval import Pairing, average_precisions
from profiling.steps import run_steps


@dataclass(frozen=True)
class TrexScores:
    """Mean average precisions with their chance levels, and the average precision of each query for intervals."""

    compound: float
    compound_chance: float
    moa: float
    moa_chance: float
    compound_queries: tuple[float, ...] = ()
    moa_queries: tuple[float, ...] = ()


def to_wells(profiles: Profiles, by: Sequence[str] = ("plate", "well"), field: str = "field") -> Profiles:
    """Cells → fields → wells, by means; rows that are wells already stay as they are.

    `field` is the column that tells the fields of a well apart, if it is there."""
    if META + field in profiles.meta.columns:
        profiles = aggregate(profiles, [*by, field])
    return aggregate(profiles, list(by))


def post_processed(wells: Profiles, controls: Bool[np.ndarray, " n"], keep: float | int = 0.95) -> Profiles:
    """PCA over all wells, then each component by median and MAD of the controls."""
    steps: list[dict[str, Any]] = [{"name": "pca", "keep": keep, "fit_on": "all"}, {"name": "mad_robustise"}]
    return run_steps(wells, steps, controls).profiles


def score(
    wells: Profiles,
    controls: Bool[np.ndarray, " n"],
    compound: str = "compound",
    plate: str = "plate",
    moa: str = "moa",
    keep: float | int = 0.95,
) -> TrexScores:
    """Replicate mAP of the treated wells (the same compound on another plate, against other compounds), and mechanism
    mAP of the compounds (mean over their wells; another compound that shares a mechanism). NaN where no query has a
    positive. Raises InvalidProfiles for NaN in the values.
    """
    done = post_processed(wells, controls, keep) if keep else wells
    treated = done.rows(~controls)
    replicates = _queries(treated, Pairing((compound,), (plate,), (), (compound,)))
    known = treated.rows(treated.meta[META + moa].notna().to_numpy())
    groups = _queries(
        aggregate(known, [compound, moa]), Pairing((moa,), (compound,), (), (moa,), several=(moa,))
    )  # fmt: skip
    return TrexScores(*_mean(replicates), *_mean(groups), replicates[0], groups[0])


def _queries(profiles: Profiles, pairing: Pairing) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        table = average_precisions(profiles, pairing)
    except InvalidProfiles as error:
        if "no query" not in str(error):
            raise
        return (), ()
    return tuple(table["average_precision"]), tuple(table["chance"])


def _mean(found: tuple[tuple[float, ...], tuple[float, ...]]) -> tuple[float, float]:
    values, chances = found
    return (float(np.mean(values)), float(np.mean(chances))) if values else (float("nan"), float("nan"))
