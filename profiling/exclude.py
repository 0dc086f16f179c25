"""Rules that exclude rows: failed or empty fields, too few cells, outliers. Counts in, counts out, a reason for each.

Nothing is dropped silently: the report has one row a rule, and the excluded rows come back with the rule that
excluded them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from profiling.profiles import COUNT_CELLS, META, OUTCOME, InvalidProfiles, Profiles

MEASURED = ("ok", "one_cell")  # outcomes of a field that has features


@dataclass(frozen=True)
class ExcludeConfig:
    """Rules in the order of application; None (in TOML: "off") switches one off."""

    measured: bool = True  # outcome "ok" (where there is such a column) and at least one feature
    cells: float | int | None = 1  # excluded with fewer cells
    relative_count: float | None = (
        None  # excluded below this share of the controls' median count (0.5: sub-profile code)
    )
    outlier: float | None = None  # a feature is extreme beyond this many robust standard deviations of all rows
    outlier_share: float = 0.5  # a row is an outlier when more than this share of its features is extreme
    by: tuple[str, ...] = ()  # controls and outliers are judged within these columns ("Plate")

    @staticmethod
    def from_mapping(table: Mapping[str, Any]) -> "ExcludeConfig":
        """From a TOML table; an unknown key is an error."""
        known = {f.name for f in fields(ExcludeConfig)}
        if unknown := sorted(set(table) - known):
            raise InvalidProfiles(f"exclusion has unknown keys {unknown}: known are {sorted(known)}")
        read: dict[str, Any] = {k: tuple(v) if k == "by" else None if v == "off" else v for k, v in table.items()}
        return ExcludeConfig(**read)


@dataclass(frozen=True)
class Excluded:
    """`kept` profiles; `removed` metadata with `Metadata_Excluded_By`; `report`: rule, rows in, rows out."""

    kept: Profiles
    removed: pd.DataFrame
    report: pd.DataFrame


def exclude(
    profiles: Profiles, config: ExcludeConfig | None = None, controls: Bool[np.ndarray, " n"] | None = None
) -> Excluded:
    """Apply the rules one after another. `relative_count` needs `controls` (the DMSO wells)."""
    config = config or ExcludeConfig()
    n = len(profiles)
    reason = np.full(n, "", dtype=object)
    steps: list[tuple[str, int, int]] = []
    group = _groups(profiles, config.by)

    def apply(rule: str, bad: Bool[np.ndarray, " n"]) -> None:
        before = int((reason == "").sum())
        reason[(reason == "") & bad] = rule
        steps.append((rule, before, int((reason == "").sum())))

    if config.measured:
        bad = np.isnan(profiles.values).all(axis=1)
        if OUTCOME in profiles.meta.columns:
            bad |= ~np.isin(profiles.column(OUTCOME), MEASURED)
        apply("not measured", bad)
    if config.cells is not None or config.relative_count is not None:
        count = _count(profiles)
        if config.cells is not None:
            apply("too few cells", ~(count >= config.cells))
        if config.relative_count is not None:
            if controls is None:
                raise InvalidProfiles("relative_count needs controls: give the mask of the DMSO rows")
            apply("low relative count", ~(count >= config.relative_count * _control_median(count, controls, group)))
    if config.outlier is not None:
        apply("outlier", _outliers(profiles.values, reason == "", group, config.outlier, config.outlier_share))
    kept = reason == ""
    removed = profiles.meta[~kept].assign(**{f"{META}Excluded_By": reason[~kept]}).reset_index(drop=True)
    return Excluded(profiles.rows(kept), removed, pd.DataFrame(steps, columns=["rule", "rows_in", "rows_out"]))


def _count(profiles: Profiles) -> Float[np.ndarray, " n"]:
    if COUNT_CELLS in profiles.names:
        return profiles.values[:, profiles.names.index(COUNT_CELLS)]
    if f"{META}Count_Cells" in profiles.meta.columns:
        return profiles.column("Count_Cells").astype(np.float64)
    raise InvalidProfiles(f"profiles have no cell count: expected the feature {COUNT_CELLS} or Metadata_Count_Cells")


def _groups(profiles: Profiles, by: Sequence[str]) -> np.ndarray:
    if not by:
        return np.zeros(len(profiles), dtype=int)
    columns = [c if c.startswith(META) else META + c for c in by]
    if missing := [c for c in columns if c not in profiles.meta.columns]:
        raise InvalidProfiles(f"by: meta has no columns {missing}: it has {list(profiles.meta.columns)}")
    return profiles.meta.groupby(columns, dropna=False, observed=True).ngroup().to_numpy()


def _control_median(
    count: Float[np.ndarray, " n"], controls: Bool[np.ndarray, " n"], group: np.ndarray
) -> Float[np.ndarray, " n"]:
    out = np.full(len(count), np.nan)
    for g in np.unique(group):
        own = count[controls & (group == g)]
        if len(own) == 0 or np.isnan(own).all():
            raise InvalidProfiles("controls: a group has no control with a cell count, so none is relative to it")
        out[group == g] = np.nanmedian(own)
    return out


def _outliers(
    values: Float[np.ndarray, "n k"], use: Bool[np.ndarray, " n"], group: np.ndarray, limit: float, share: float
) -> Bool[np.ndarray, " n"]:
    out = np.zeros(len(values), dtype=bool)
    for g in np.unique(group):
        rows = np.flatnonzero(use & (group == g))
        if len(rows) < 3:
            continue
        x = values[rows]
        measured = ~np.isnan(x).all(axis=0)
        x = x[:, measured]
        centre = np.nanmedian(x, axis=0)
        spread = 1.4826 * np.nanmedian(np.abs(x - centre), axis=0)
        extreme = np.abs(x - centre) > limit * np.where(spread == 0, np.inf, spread)
        out[rows] = extreme.mean(axis=1) > share
    return out
