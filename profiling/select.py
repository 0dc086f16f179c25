"""Feature selection: which features to keep, and for each that goes, why.

Every rule answers with a mask of what it would exclude, so rules can be tested one by one against pycytominer, whose
semantics they follow. `select` applies them in a fixed order to what the earlier ones left, on reference rows only;
the result is frozen.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from profiling.correlation import too_correlated
from profiling.profiles import InvalidProfiles, Profiles
from profiling.repeats import repeats

Rule = Callable[[np.ndarray], np.ndarray]
BLOCK = 64  # features looked at at once

# Positions in the picture and running numbers of objects: they say where a cell lies, not how it looks.
BOOKKEEPING = (
    r"_Location_",
    r"_AreaShape_Center_[XYZ]$",
    r"_AreaShape_BoundingBox(Minimum|Maximum)_[XYZ]$",
    r"_Number_Object_Number$",
    r"_ObjectNumber$",
    r"_ImageNumber$",
    r"_Parent_",
    r"_Children_",
    r"ClosestObjectNumber",
)


@dataclass(frozen=True)
class SelectConfig:
    """What to exclude, in the order of application. A value of None (in TOML: leave the key away) switches a rule
    off."""

    blocklist: tuple[str, ...] = BOOKKEEPING  # regular expressions searched in the feature name
    missing: float | None = 0.05  # excluded when a larger share of rows has no value
    frequency: float | None = 0.05  # excluded when (second most common count) / (most common count) is smaller
    unique: float | None = 0.01  # excluded when (distinct values) / (rows) is smaller
    variance: float | None = 1e-6  # excluded when the variance (divisor n) is not larger
    outlier: float | None = 500.0  # excluded when any |value| is larger (in units of the normalisation)
    correlation: float | None = 0.9  # of two features correlated more strongly, one is excluded
    absolute: bool = True  # judge |correlation|; False judges the signed one, as pycytominer does

    @staticmethod
    def from_mapping(table: Mapping[str, Any]) -> "SelectConfig":
        """From a TOML table. An unknown key is an error; the word "off" switches a rule off."""
        known = {f.name for f in fields(SelectConfig)}
        if unknown := sorted(set(table) - known):
            raise InvalidProfiles(f"selection has unknown keys {unknown}: known are {sorted(known)}")
        read: dict[str, Any] = {
            k: tuple(v) if k == "blocklist" else None if v == "off" else v for k, v in table.items()
        }
        return SelectConfig(**read)


@dataclass(frozen=True)
class Selection:
    """`names` are the features kept, in the order of the profiles; `report` has `feature` and `reason` ("" = kept)."""

    names: tuple[str, ...]
    report: pd.DataFrame

    def write(self, path: str | Path) -> None:
        """The report to parquet; `read` gives the selection back."""
        self.report.to_parquet(path, index=False)

    @staticmethod
    def read(path: str | Path) -> "Selection":
        """From parquet."""
        report = pd.read_parquet(path)
        return Selection(tuple(report.loc[report["reason"] == "", "feature"]), report)


def blocklisted(names: Sequence[str], patterns: Sequence[str] = BOOKKEEPING) -> Bool[np.ndarray, " k"]:
    """Features whose name matches one of the regular expressions."""
    found = re.compile("|".join(f"(?:{p})" for p in patterns)) if patterns else None
    return np.array([bool(found and found.search(name)) for name in names], dtype=bool)


def too_often_missing(values: Float[np.ndarray, "n k"], cutoff: float = 0.05) -> Bool[np.ndarray, " k"]:
    """Features with a larger share of NaN than `cutoff`."""
    return np.asarray(np.isnan(values).mean(axis=0) > cutoff)


def too_repetitive(
    values: Float[np.ndarray, "n k"], frequency: float = 0.05, unique: float = 0.01
) -> Bool[np.ndarray, " k"]:
    """Features dominated by one value: count of the second most common / of the most common < `frequency`, or distinct
    values / rows < `unique`. A constant feature is excluded."""
    distinct, first, second = repeats(values.T).T
    ratio = second / np.maximum(first, 1)
    return np.asarray((ratio < frequency) | (distinct / len(values) < unique) | (distinct == 0))


def too_steady(values: Float[np.ndarray, "n k"], minimum: float = 1e-6) -> Bool[np.ndarray, " k"]:
    """Features whose variance (divisor n, over the values present) is not above `minimum`, or that are never
    measured."""
    present = ~np.isnan(values)
    if present.all():
        return np.asarray(values.var(axis=0) <= minimum)
    n = np.maximum(present.sum(axis=0), 1)
    centred = np.where(present, values - np.where(present, values, 0.0).sum(axis=0) / n, 0.0)
    return np.asarray((centred**2).sum(axis=0) / n <= minimum)


def too_extreme(values: Float[np.ndarray, "n k"], limit: float = 500.0) -> Bool[np.ndarray, " k"]:
    """Features with any |value| above `limit`."""
    return np.asarray((np.abs(values) > limit).any(axis=0))


def _rules(config: SelectConfig) -> dict[str, Rule]:
    """The rules that look at one feature at a time, in the order of their application."""
    missing, variance, outlier = config.missing, config.variance, config.outlier
    rules: dict[str, Rule] = {}
    if missing is not None:
        rules["missing"] = lambda x: too_often_missing(x, missing)
    if config.frequency is not None or config.unique is not None:
        rules["repetitive"] = lambda x: too_repetitive(x, config.frequency or 0.0, config.unique or 0.0)
    if variance is not None:
        rules["variance"] = lambda x: too_steady(x, variance)
    if outlier is not None:
        rules["outlier"] = lambda x: too_extreme(x, outlier)
    return rules


def select(profiles: Profiles, config: SelectConfig | None = None) -> Selection:
    """Profiles (reference rows, normalised) -> the features to keep. Rules are applied in the order of `SelectConfig`,
    each to the features that are left. Raises `InvalidProfiles` when nothing is left."""
    config = config or SelectConfig()
    reason = np.full(len(profiles.names), "", dtype=object)

    reason[blocklisted(profiles.names, config.blocklist)] = "blocklist"
    rules = _rules(config)
    left = np.flatnonzero(reason == "")
    for start in range(0, len(left), BLOCK):
        at = left[start : start + BLOCK]
        columns = np.ascontiguousarray(profiles.values[:, at].T).T  # each feature contiguous in memory
        why = np.full(len(at), "", dtype=object)
        for name, excluded in rules.items():
            why[(why == "") & excluded(columns)] = name
        reason[at] = why
    left = np.flatnonzero(reason == "")
    if config.correlation is not None and len(left):
        gone = too_correlated(profiles.values, config.correlation, config.absolute, left)
        reason[left[gone]] = "correlation"
    if not (reason == "").any():
        counts = pd.Series(reason).value_counts().to_dict()
        raise InvalidProfiles(f"no feature is left of {len(reason)}, excluded: {counts}: relax a rule")
    kept = tuple(n for n, r in zip(profiles.names, reason, strict=True) if r == "")
    return Selection(kept, pd.DataFrame({"feature": list(profiles.names), "reason": list(reason)}))
