"""A pipeline of normalisation, correction and selection as a list in a TOML file, fitted on chosen rows and frozen.

    [[step]]
    name = "mad_robustise"
    by = ["Plate"]

    [[step]]
    name = "harmony"
    by = ["Batch"]
    fit_on = "all"

Each step is fitted on the controls (default) or on all rows of what the step before it gave. A transductive step
moves every row by what all rows are: the pipeline says so, and refuses to transform rows that it was not fitted on.
The steps `exclude` and `aggregate` change the rows: every row left out is kept with its reason, and the log counts.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from profiling.combat import combat_profiles
from profiling.correct import (
    Transform,
    fit_cell_count,
    fit_pca,
    fit_phenotype_correction,
    fit_rank_normal,
    fit_sphering,
    fit_well_position,
    rank_normal,
)
from profiling.exclude import ExcludeConfig, exclude
from profiling.external import external
from profiling.harmony import HarmonyConfig, harmonise_profiles
from profiling.mnn import MnnConfig, mnn_profiles
from profiling.normalise import KINDS, Normalisation, fit, transform
from profiling.profiles import InvalidProfiles, Profiles, aggregate
from profiling.scanorama import ScanoramaConfig, scanorama_profiles
from profiling.select import SelectConfig, select

Options = dict[str, Any]


@dataclass(frozen=True)
class Normalised:
    """A frozen normalisation as a step."""

    normalisation: Normalisation

    def transform(self, profiles: Profiles) -> Profiles:
        """Centre and scale."""
        return transform(profiles, self.normalisation)


@dataclass(frozen=True)
class Chosen:
    """A frozen feature selection as a step."""

    names: tuple[str, ...]

    def transform(self, profiles: Profiles) -> Profiles:
        """Keep the features."""
        return profiles.features(self.names)


def _normalise(kind: str) -> Callable[..., Transform]:
    return lambda profiles, rows, **options: Normalised(fit(profiles, rows, kind, **options))


def _select(profiles: Profiles, rows: Bool[np.ndarray, " n"], **options: Any) -> Transform:
    return Chosen(select(profiles.rows(rows), SelectConfig.from_mapping(options)).names)


def _harmony(profiles: Profiles, by: Sequence[str], seed: int = 0, **options: Any) -> Profiles:
    return harmonise_profiles(profiles, by, seed, HarmonyConfig(**options))


def _mnn(profiles: Profiles, batch: str, order: Sequence[str] = (), **options: Any) -> Profiles:
    return mnn_profiles(profiles, batch, order, MnnConfig(**options))


def _scanorama(profiles: Profiles, batch: str, **options: Any) -> Profiles:
    return scanorama_profiles(profiles, batch, ScanoramaConfig(**options))


# name -> fit(profiles, rows, **options) -> Transform
FITTED: dict[str, Callable[..., Transform]] = {
    **{kind: _normalise(kind) for kind in KINDS},
    "sphering": fit_sphering,
    "pca": fit_pca,
    "rank_normal": fit_rank_normal,
    "well_position": fit_well_position,
    "cell_count": fit_cell_count,
    "phenotype": fit_phenotype_correction,
    "select": _select,
}
# name -> run(profiles, **options) -> Profiles, using every row
TRANSDUCTIVE: dict[str, Callable[..., Profiles]] = {
    "harmony": _harmony,
    "combat": combat_profiles,
    "rank_normal_all": rank_normal,
    "mnn": _mnn,
    "scanorama": _scanorama,
    "external": external,
}


@dataclass(frozen=True)
class Rows:
    """What a step that changes the rows gives: the profiles, which of them are controls, and the rows left out."""

    profiles: Profiles
    controls: Bool[np.ndarray, " m"]
    excluded: pd.DataFrame


def _exclude(profiles: Profiles, controls: Bool[np.ndarray, " n"], **options: Any) -> Rows:
    numbered = Profiles(profiles.meta.assign(**{_PLACE: np.arange(len(profiles))}), profiles.values, profiles.names)
    made = exclude(numbered, ExcludeConfig.from_mapping(options), controls)
    kept = made.kept.meta[_PLACE].to_numpy()
    return Rows(profiles.rows(kept), controls[kept], made.removed.drop(columns=_PLACE))


def _aggregate(profiles: Profiles, controls: Bool[np.ndarray, " n"], by: Sequence[str], how: str = "mean") -> Rows:
    """A group is a control where all of its rows are; a group of both is an error."""
    marked = Profiles(profiles.meta.assign(**{_PLACE: controls}), profiles.values, profiles.names)
    made = aggregate(marked, by, how)
    if _PLACE not in made.meta.columns:
        raise InvalidProfiles(f"by {list(by)} mixes controls with other rows: add the column that tells them apart")
    plain = Profiles(made.meta.drop(columns=_PLACE), made.values, made.names)
    return Rows(plain, made.meta[_PLACE].to_numpy(dtype=bool), pd.DataFrame())


_PLACE = "Metadata__Row"
# name -> run(profiles, controls, **options) -> Rows
ROWS: dict[str, Callable[..., Rows]] = {"exclude": _exclude, "aggregate": _aggregate}


@dataclass(frozen=True)
class Fitted:
    """What a pipeline did: `profiles` out; `controls` among them; `log` (step, rows and features before and after it,
    fitted on how many rows, transductive); `excluded`: metadata of the rows left out, with step and rule."""

    profiles: Profiles
    transforms: tuple[Transform, ...]
    log: pd.DataFrame
    controls: Bool[np.ndarray, " n"]
    excluded: pd.DataFrame

    @property
    def transductive(self) -> bool:
        """Whether any step used rows that later count as new."""
        return bool(self.log["transductive"].any())

    def transform(self, profiles: Profiles) -> Profiles:
        """The frozen steps on other rows, as they come: rows are neither excluded nor aggregated.

        Raises `InvalidProfiles` when a step is transductive.
        """
        if self.transductive:
            names = self.log.loc[self.log["transductive"], "step"].tolist()
            raise InvalidProfiles(
                f"steps {names} are transductive: run the pipeline again on old and new rows together"
            )
        for step in self.transforms:
            profiles = step.transform(profiles)
        return profiles


def read_steps(path: str | Path) -> list[Options]:
    """The `[[step]]` tables of a TOML file. Another key at the top is an error."""
    with Path(path).open("rb") as file:
        table = tomllib.load(file)
    if set(table) != {"step"}:
        raise InvalidProfiles(f"{Path(path).name} must hold [[step]] tables only, got keys {sorted(table)}")
    return list(table["step"])


def run_steps(profiles: Profiles, steps: Sequence[Mapping[str, Any]], controls: Bool[np.ndarray, " n"]) -> Fitted:
    """Fit and apply each step in order. `controls` marks the DMSO wells.

    Raises `InvalidProfiles` for an unknown step (the known are listed) or option.
    """
    transforms: list[Transform] = []
    log, excluded = [], []
    for number, step in enumerate(steps, start=1):
        options = dict(step)
        name, where = options.pop("name", None), options.pop("fit_on", "controls")
        if where not in ("controls", "all"):
            raise InvalidProfiles(f"step {number}: fit_on must be 'controls' or 'all', got {where!r}")
        rows = controls if where == "controls" else np.ones(len(profiles), dtype=bool)
        before = len(profiles), len(profiles.names)
        used = int(rows.sum()) if name in FITTED else len(profiles)
        try:
            if name in FITTED:
                made = FITTED[name](profiles, rows, **options)
                transforms.append(made)
                profiles = made.transform(profiles)
            elif name in TRANSDUCTIVE:
                profiles = TRANSDUCTIVE[name](profiles, **options)
            elif name in ROWS:
                left = ROWS[name](profiles, controls, **options)
                profiles, controls = left.profiles, left.controls
                excluded.append(left.excluded.assign(Metadata_Excluded_In=f"step {number}"))
            else:
                known = sorted(FITTED) + sorted(TRANSDUCTIVE) + sorted(ROWS)
                raise InvalidProfiles(f"name must be one of {known}, got {name!r}")
        except (TypeError, InvalidProfiles) as error:
            raise InvalidProfiles(f"step {number} ({name}): {error}") from error
        log.append((name, *before, len(profiles), len(profiles.names), used, name in TRANSDUCTIVE))
    columns = ["step", "rows_in", "features_in", "rows", "features", "fitted_on", "transductive"]
    some = [part for part in excluded if len(part)]
    gone = pd.concat(some, ignore_index=True) if some else pd.DataFrame()
    return Fitted(profiles, tuple(transforms), pd.DataFrame(log, columns=columns), controls, gone)
