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
from profiling.harmony import HarmonyConfig, harmonise_profiles
from profiling.normalise import KINDS, Normalisation, fit, transform
from profiling.profiles import InvalidProfiles, Profiles
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
}


@dataclass(frozen=True)
class Fitted:
    """What a pipeline did: `profiles` out, `log` (step, rows and features after it, fitted on how many rows,
    transductive)."""

    profiles: Profiles
    transforms: tuple[Transform, ...]
    log: pd.DataFrame

    @property
    def transductive(self) -> bool:
        """Whether any step used rows that later count as new."""
        return bool(self.log["transductive"].any())

    def transform(self, profiles: Profiles) -> Profiles:
        """The frozen steps on other rows. Raises `InvalidProfiles` when a step is transductive."""
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
    log = []
    every = np.ones(len(profiles), dtype=bool)
    for number, step in enumerate(steps, start=1):
        options = dict(step)
        name, where = options.pop("name", None), options.pop("fit_on", "controls")
        if where not in ("controls", "all"):
            raise InvalidProfiles(f"step {number}: fit_on must be 'controls' or 'all', got {where!r}")
        rows = controls if where == "controls" else every
        try:
            if name in FITTED:
                made = FITTED[name](profiles, rows, **options)
                transforms.append(made)
                profiles = made.transform(profiles)
            elif name in TRANSDUCTIVE:
                profiles = TRANSDUCTIVE[name](profiles, **options)
            else:
                raise InvalidProfiles(f"name must be one of {sorted(FITTED) + sorted(TRANSDUCTIVE)}, got {name!r}")
        except (TypeError, InvalidProfiles) as error:
            raise InvalidProfiles(f"step {number} ({name}): {error}") from error
        used = len(profiles) if name in TRANSDUCTIVE else int(rows.sum())
        log.append((name, len(profiles), len(profiles.names), used, name in TRANSDUCTIVE))
    table = pd.DataFrame(log, columns=["step", "rows", "features", "fitted_on", "transductive"])
    return Fitted(profiles, tuple(transforms), table)
