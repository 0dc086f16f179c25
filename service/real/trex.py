"""TRex on published profiles of real pictures: CPJUMP1 (plates held out, compounds held out) and cpg0016 (laboratories
held out). Scores are of rows that no fit saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from profiling.embedders.trex import TrexConfig, fit
from profiling.profiles import META, Profiles, aggregate
from profiling.retrieval import Pairing
from profiling.shuffle import found
from profiling.steps import run_steps
from service.real import cpg0016, cpjump1
from service.real.chart import CAPTION, score_chart
from service.real.study import Study, row

RAW, BY_COMPOUND, BY_MOA = "as published", "TRex, compound objective", "TRex, mechanism objective"
POST = ({"name": "pca", "keep": 0.95, "fit_on": "all"}, {"name": "mad_robustise"})
FOLDS = 3


def config_of(objective: str, label: str, **more: Any) -> TrexConfig:
    """The paper's network and schedule; rows are few, so batches are small."""
    return replace(TrexConfig(), objective=objective, label=label, batch=64, **more)


def adapted(train: Profiles, test: Profiles, config: TrexConfig) -> Profiles:
    """The test rows through a network fitted on the training rows."""
    return fit(train, config).transform(test)


def plates(wells: Profiles, permutations: int) -> list[dict[str, Any]]:
    """CPJUMP1: fitted on two plates, scored on the other two; all compounds were seen, their wells there were not."""
    names = sorted(wells.meta[META + "Plate"].unique())
    early = np.isin(wells.column("Plate"), names[:2])
    train, test = wells.rows(early), wells.rows(~early)
    treated = train.rows(train.column("pert_type") == "trt")
    made = []
    held: dict[str, Any] = {"validate_by": "Plate", "validation": 0.5}
    by_compound, by_moa = config_of("compound", "broad_sample", **held), config_of("moa", "moa", **held)
    for method, config in ((RAW, None), (BY_COMPOUND, by_compound), (BY_MOA, by_moa)):
        shown = test if config is None else adapted(treated, test, config)
        made += _scored("CPJUMP1, other plates", method, shown, permutations)
    return made


def _scored(where: str, method: str, test: Profiles, permutations: int) -> list[dict[str, Any]]:
    controls = (test.column("control_type") == "negcon").astype(bool)
    done = run_steps(test, list(POST), controls).profiles
    treated = done.rows(done.column("pert_type") == "trt")
    rng = np.random.default_rng(1)
    one = found(treated, cpjump1.WELLS, ["broad_sample"], rng, "broad_sample", ["Plate"], permutations)
    made = [row(method, f"{where}: replicates", one, features=len(done.names))]
    among = cpjump1.of_compounds(method, cpjump1.consensus(done), permutations, "", len(done.names))
    return made + [score | {"metric": f"{where}: {score['metric']}"} for score in among]


def unseen_compounds(wells: Profiles, permutations: int) -> list[dict[str, Any]]:
    """CPJUMP1: folds over compounds; those of a fold are adapted by a network that saw none of them, and the folds'
    scores are averaged query by query."""
    treated = wells.rows(wells.column("pert_type") == "trt")
    names = np.sort(treated.meta[META + "broad_sample"].unique())
    fold = pd.Series(np.random.default_rng(0).permutation(len(names)) % FOLDS, index=names)
    own = treated.meta[META + "broad_sample"].map(fold).to_numpy()
    made = []
    for method, config in ((RAW, None), (BY_MOA, config_of("moa", "moa"))):
        values = []
        for f in range(FOLDS):
            test = treated.rows(own == f)
            shown = test if config is None else adapted(treated.rows(own != f), test, config)
            one = found(shown, cpjump1.WELLS, ["broad_sample"], np.random.default_rng(1), "broad_sample", ["Plate"],
                        permutations)  # fmt: skip
            values.append(row(method, "CPJUMP1, compounds never seen: replicates", one, features=len(shown.names)))
        made.append(_mean(values))
    return made


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean over folds; the largest p; the interval's ends averaged, which is wider than that of the mean."""
    table = pd.DataFrame(rows)
    numbers = table[["value", "chance", "null", "low", "high"]].mean().to_dict()
    counts = {c: int(table[c].sum()) for c in ("n_groups", "n_queries")}
    return {**rows[0], **numbers, **counts, "p": float(table["p"].max())}


def laboratories(profiles: Profiles, permutations: int) -> list[dict[str, Any]]:
    """cpg0016: fitted on every second laboratory, scored on the others: a compound elsewhere, mechanisms."""
    names = sorted(profiles.meta[META + "Source"].unique())
    early = np.isin(profiles.column("Source"), names[::2])
    train = profiles.rows(early & (profiles.column("JCP2022") != cpg0016.DMSO))
    test = profiles.rows(~early & (profiles.column("JCP2022") != cpg0016.DMSO))
    made = []
    for method, config in (
        (RAW, None),
        (BY_COMPOUND, config_of("compound", "JCP2022")),
        (BY_MOA, config_of("moa", "moa")),
    ):
        shown = test if config is None else adapted(train, test, config)
        many = shown.meta.groupby(META + "JCP2022")[META + "Source"].transform("nunique").to_numpy() > 1
        rng = np.random.default_rng(1)
        one = found(shown, cpg0016.ACROSS, ["JCP2022"], rng, "JCP2022", ["Source"], permutations, queries=many)
        made.append(row(method, "cpg0016, other laboratories: same compound", one, features=len(shown.names)))
        known = shown.rows(shown.meta[META + "moa"].notna().to_numpy())
        pairing = Pairing(("moa",), ("JCP2022",), (), ("moa",), several=("moa",))
        two = found(aggregate(known, ["JCP2022", "moa"]), pairing, ["moa"], rng, permutations=permutations)
        made.append(row(method, "cpg0016, other laboratories: mechanism", two, features=len(shown.names)))
    return made


def study(data: Path, permutations: int = 99) -> Study:
    """All of it, as one page."""
    wells, production = cpjump1.read(data), cpg0016.read(data)
    complete = wells.features(
        [n for n, bad in zip(wells.names, np.isnan(wells.values).any(axis=0), strict=True) if not bad]
    )
    table = pd.DataFrame(
        plates(complete, permutations)
        + unseen_compounds(complete, permutations)
        + laboratories(production, permutations)
    )
    text = (
        "TRex refines frozen features for a task: a small network names compounds (one label a profile) or mechanisms "
        "(several), and its third layer is the new profile. Here the features are CellProfiler's, of whole wells; the "
        "paper used millions of single cells. Every score is of rows that no fit saw.",
        "Compounds of the first two tables were seen on other plates or in other laboratories; their mechanism labels "
        "were part of the fit, so mechanisms among them are no discovery. The third table holds compounds out.",
    )
    figures = {f"mAP {CAPTION}": score_chart(table, "mAP")}
    return Study("trex", "TRex on published profiles", text, table, {}, figures)
