"""The simulated library as one table, and the world built on it: chemistry's names meet the simulator's truth."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from causal.allocation import AllocationConfig
from causal.laboratory import Laboratory, LaboratoryConfig
from causal.phenotype import PhenotypeConfig, compound_effects
from causal.simulator import World
from chem.fingerprint import morgan_counts
from service import resources

DMSO_SMILES = "CS(C)=O"
T = TypeVar("T")


@dataclass(frozen=True)
class SimulationConfig:
    """What a simulated experiment is: how many fields, which world, which allocation (configs/simulation)."""

    seed: int = 20261120
    drug_wells: int = 26
    recombined_wells: int = 8
    val_share: float = 0.03
    phenotype: PhenotypeConfig = field(default_factory=PhenotypeConfig)
    laboratory: LaboratoryConfig = field(default_factory=LaboratoryConfig)
    allocation: AllocationConfig = field(default_factory=AllocationConfig)


def _build(kind: type[T], table: dict[str, Any], where: str) -> T:
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(table) - known):
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})


def read_config(path: Path | None = None) -> SimulationConfig:
    """Read a TOML of configs/simulation. Raises ValueError on an unknown key."""
    path = path or resources.path("configs") / "simulation" / "train.toml"
    table = tomllib.loads(path.read_text())
    for name, kind in (
        ("phenotype", PhenotypeConfig),
        ("laboratory", LaboratoryConfig),
        ("allocation", AllocationConfig),
    ):
        table[name] = _build(kind, table.get(name, {}), f"{path.name} [{name}]")
    return _build(SimulationConfig, table, path.name)


@cache
def library() -> pd.DataFrame:
    """All simulated compounds but DMSO: compound, name, smiles, moa, second_moa, targets, kind, split."""
    folder = resources.path("configs") / "library"
    drugs = pd.read_csv(folder / "drugs.csv", keep_default_na=False).assign(kind="drug")
    drugs = drugs.rename(columns={"simulated_second_moa": "second_moa"})
    made = pd.read_csv(folder / "recombined.csv", keep_default_na=False).assign(
        kind="recombined", second_moa="", targets=""
    )
    made["name"] = [f"recombined {i + 1}" for i in range(len(made))]
    table = pd.concat([drugs, made], ignore_index=True).rename(columns={"inchikey": "compound"})
    return table[["compound", "name", "smiles", "moa", "second_moa", "targets", "kind", "split"]]


@cache
def world(path: Path | None = None) -> World:
    """The world of a simulation config, with the whole library in it, unseen drugs included."""
    config = read_config(path)
    table = library()
    truth = compound_effects(table, morgan_counts(list(table["smiles"])), config.phenotype)
    return World(Laboratory(config.laboratory), truth)
