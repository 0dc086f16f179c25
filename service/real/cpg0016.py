"""JUMP-CP production profiles (cpg0016) of ten laboratories: does a compound find itself in another laboratory?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from profiling.mixing import kbet_acceptance, lisi, neighbours
from profiling.profiles import Profiles, aggregate
from profiling.retrieval import Pairing
from profiling.shuffle import found
from profiling.tables import split_table
from service.real.chart import CAPTION, Cloud, clouds, score_chart
from service.real.study import Steps, Study, corrected, row

DMSO = "JCP2022_033924"
PCA = {"name": "pca", "fit_on": "all", "keep": 0.95}
CORRECTIONS: dict[str, Steps] = {
    "as published (already through Harmony)": [],
    "minus DMSO of the laboratory": [{"name": "phenotype", "by": ["Source"], "alpha": 1.0}],
    "phenotype correction 0.7": [{"name": "phenotype", "by": ["Source"], "alpha": 0.7}],
    "centred by laboratory": [{"name": "well_position", "by": ["Source"], "fit_on": "all"}],
    "z-score by laboratory": [{"name": "standardise", "by": ["Source"], "fit_on": "all"}],
    "rank to normal": [{"name": "rank_normal_all"}],
    "PCA 95 %": [PCA],
    "PCA 95 %, whitened": [PCA, {"name": "sphering", "method": "PCA", "fit_on": "all"}],
    "ComBat by laboratory": [{"name": "combat", "batch": "Source"}],
    "fastMNN by laboratory": [{"name": "mnn", "batch": "Source"}],
    "Scanorama by laboratory": [{"name": "scanorama", "batch": "Source"}],
    "PCA 95 % + Harmony by laboratory": [PCA, {"name": "harmony", "by": ["Source"], "cluster_rounds": 20}],
}
ANYWHERE, WITHIN, MOA = "same compound, other laboratory", "the same, against the query's own laboratory", "mechanism"
ACROSS = Pairing(("JCP2022",), ("Source",), (), ("JCP2022",))
AGAINST_OWN = Pairing(("JCP2022",), ("Source",), ("Source",), ("JCP2022",))
SAME_MOA = Pairing(("moa",), ("JCP2022",), (), ("moa",), several=("moa",))


def read(data: Path) -> Profiles:
    """One row a compound and laboratory, with the Repurposing Hub's mechanisms."""
    table = pd.read_csv(data / "cpg0016_by_source" / "cpg0016_compound_profiles_by_source.csv.gz")
    features = [c for c in table.columns if c not in ("Metadata_JCP2022", "Metadata_Source", "list")]
    profiles = split_table(table, features)
    hub = pd.read_csv(data / "repurposing_hub" / "jump_x_repurposing_hub.csv.gz").dropna(subset=["moa"])
    words = hub.groupby("Metadata_JCP2022")["moa"].agg(lambda moas: "|".join(sorted(set("|".join(moas).split("|")))))
    meta = profiles.meta.assign(Metadata_moa=profiles.meta["Metadata_JCP2022"].map(words))
    return Profiles(meta, profiles.values, profiles.names)


def score(method: str, profiles: Profiles, permutations: int, fitted: str) -> list[dict]:
    """Compounds across laboratories, in two settings, and mechanisms among compounds."""
    treated = profiles.rows(profiles.column("JCP2022") != DMSO)
    many = treated.meta.groupby("Metadata_JCP2022")["Metadata_Source"].transform("nunique").to_numpy() > 1
    made = []
    for metric, pairing in ((ANYWHERE, ACROSS), (WITHIN, AGAINST_OWN)):
        rng = np.random.default_rng(1)
        one = found(treated, pairing, ["JCP2022"], rng, "JCP2022", ["Source"], permutations, queries=many)
        made.append(row(method, metric, one, fitted, len(profiles.names)))
    known = treated.rows(treated.meta["Metadata_moa"].notna().to_numpy())
    compounds = aggregate(known, ["JCP2022", "moa"])
    one = found(compounds, SAME_MOA, ["moa"], np.random.default_rng(2), permutations=permutations)
    return [*made, row(method, MOA, one, fitted, len(profiles.names))]


def mixing(method: str, profiles: Profiles, k: int = 30) -> dict[str, float | str]:
    """How well laboratories are mixed among the compounds that more than one of them measured."""
    shared = profiles.meta.groupby("Metadata_JCP2022")["Metadata_Source"].transform("nunique").to_numpy() > 1
    own = profiles.rows(shared & (profiles.column("JCP2022") != DMSO))
    code = np.unique(own.column("Source").astype(str), return_inverse=True)[1].astype(np.int64)
    near, distance = neighbours(own.values, k)
    shuffled = np.random.default_rng(3).permutation(code)
    return {
        "method": method,
        "laboratories around a profile (LISI, median)": float(np.median(lisi(near, distance, code))),
        "the same, laboratories shuffled": float(np.median(lisi(near, distance, shuffled))),
        "neighbourhoods that pass kBET": kbet_acceptance(near, code),
    }


def study(data: Path, permutations: int = 99) -> Study:
    """Before and after every correction."""
    profiles = read(data)
    controls = profiles.column("JCP2022") == DMSO
    scores, mixed, refused, panels = [], [], [], {}
    for name, steps in CORRECTIONS.items():
        done, how = corrected(profiles, steps, controls)
        if done is None:
            refused.append({"method": name, "reason": how})
            continue
        scores += score(name, done, permutations, how)
        mixed.append(mixing(name, done))
        if name in (next(iter(CORRECTIONS)), "centred by laboratory", "PCA 95 % + Harmony by laboratory"):
            panels[name] = Cloud(_plane(done.values), [s.replace("source_", "lab ") for s in done.column("Source")])
    table = pd.DataFrame(scores)
    counts = profiles.meta[~controls].groupby("Metadata_JCP2022")["Metadata_Source"].nunique()
    many, measured = int((counts > 1).sum()), profiles.meta.loc[~controls, "Metadata_moa"].notna()
    with_moa = profiles.meta.loc[~controls][measured]["Metadata_JCP2022"].nunique()
    sources = profiles.meta["Metadata_Source"].value_counts()
    text = (
        f"{int((~controls).sum())} profiles of {len(counts)} compounds from {len(sources)} laboratories; {many} "
        f"compounds were measured in two or more. {with_moa} have a mechanism in the Repurposing Hub. Laboratories "
        f"contribute unequally, from {int(sources.min())} to {int(sources.max())} profiles.",
        "The published values have already gone through well-position and cell-count correction, MAD, rank to normal, "
        "feature selection and Harmony; what is corrected here is what that left. A profile is a median over wells, so "
        "no correction here can see plates or wells. Fitted on all rows means that the scored rows took part.",
        "Two settings: against all other compounds, and only against compounds of the query's own laboratory, which "
        "look alike for reasons of the laboratory. Labels are shuffled within laboratories. Mechanisms: one profile a "
        "compound, positives share a mechanism and are another compound.",
    )
    tables = {f"Mixing of laboratories among {many} shared compounds": pd.DataFrame(mixed)}
    if refused:
        tables["Corrections that cannot be made on this table"] = pd.DataFrame(refused)
    figures = {
        f"mAP {CAPTION}": score_chart(table, "mAP"),
        "First two principal components, coloured by laboratory.": clouds(panels),
    }
    return Study("cpg0016", "cpg0016: one compound in ten laboratories", text, table, tables, figures)


def _plane(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(u[:, :2] * s[:2])
