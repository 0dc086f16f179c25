"""CPJUMP1 (JUMP pilot, U2OS, 48 h): replicates, mechanisms and targets on four plates, with every correction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from chem.fingerprint import morgan_bits, tanimoto
from profiling.profiles import Profiles, aggregate, concatenate
from profiling.retrieval import Pairing, average_precisions, mean_average_precision
from profiling.shuffle import angle_of, found
from profiling.tables import read_profiles
from service.real.chart import CAPTION, score_chart
from service.real.study import Steps, Study, corrected, row

SELECT = {"name": "select", "fit_on": "all", "missing": 0.0}
PCA = {"name": "pca", "fit_on": "all", "keep": 100}
HARMONY = {"name": "harmony", "by": ["Plate"], "cluster_rounds": 20}
CORRECTIONS: dict[str, Steps] = {
    "as published (z-score to DMSO, selected)": [],
    "MAD to DMSO of the plate": [{"name": "mad_robustise", "by": ["Plate"]}, SELECT],
    "selected at |r| 0.9": [SELECT],
    "rank to normal": [{"name": "rank_normal", "fit_on": "all"}],
    "phenotype correction 0.7": [{"name": "phenotype", "by": ["Plate"], "alpha": 0.7}],
    "density regressed out (direct effect)": [{"name": "cell_count", "column": "Density", "fit_on": "all"}],
    "PCA, 100 components": [PCA],
    "sphering to DMSO (ZCA)": [{"name": "sphering"}],
    "PCA + sphering to DMSO": [PCA, {"name": "sphering"}],
    "ComBat by plate": [{"name": "combat", "batch": "Plate"}],
    "fastMNN by plate": [{"name": "mnn", "batch": "Plate"}],
    "Scanorama by plate": [{"name": "scanorama", "batch": "Plate"}],
    "PCA + Harmony by plate": [PCA, HARMONY],
    "PCA + sphering + Harmony": [PCA, {"name": "sphering"}, HARMONY],
}
ACTIVE, REPLICATE = "replicates against DMSO", "replicates against other compounds"
MOA, TARGET = "mechanism", "target"
WELLS = Pairing(("broad_sample",), ("Plate",), (), ("broad_sample",))
#: A stand-in for the number of cells, which these files do not hold: the distance to the closest neighbour.
DENSITY = "Cells_Neighbors_FirstClosestDistance_Adjacent"


def read(data: Path) -> Profiles:
    """Wells of four plates with `Metadata_moa` and `Metadata_target` (lists joined with "|") and the density."""
    files = sorted((data / "cpjump1_profiles").glob("BR*.csv.gz"))
    tables = [read_profiles(f) for f in files]
    wells = concatenate([t.features(tables[0].names) for t in tables])
    path = data / "jump_target" / "JUMP-Target-1_compound_metadata_additional_annotations.tsv"
    known = pd.read_csv(path, sep="\t").dropna(subset=["broad_sample"]).drop_duplicates("broad_sample")
    known = known.set_index("broad_sample")
    sample = wells.meta["Metadata_broad_sample"]
    meta = wells.meta.assign(
        Metadata_moa=sample.map(known["moa_list"]),
        Metadata_target=sample.map(known["target_list"]),
        Metadata_Density=wells.values[:, wells.names.index(DENSITY)],
    )
    return Profiles(meta, wells.values, wells.names)


def of_wells(method: str, wells: Profiles, permutations: int, fitted: str, features: int) -> list[dict]:
    """Replicates of the treated wells: against DMSO wells, and against wells of other compounds."""
    treated, dmso = wells.column("pert_type") == "trt", wells.column("control_type") == "negcon"
    used = wells.rows(treated | dmso)
    role = used.column("pert_type") == "trt"
    filled = used.meta.assign(Metadata_broad_sample=used.meta["Metadata_broad_sample"].fillna("DMSO"))
    used = Profiles(filled.assign(Metadata_role=role), used.values, used.names)
    within = ["Plate", "role"]
    made = []
    for metric, others in ((ACTIVE, ~role), (REPLICATE, role)):
        # against DMSO a shuffle among treated wells would keep the answer: it breaks who is the replicate of whom
        one = found(
            used, WELLS, ["broad_sample"], np.random.default_rng(1), "broad_sample", within, permutations,
            queries=role, negatives=others,
        )  # fmt: skip
        made.append(row(method, metric, one, fitted, features))
    return made


def of_compounds(
    method: str, compounds: Profiles, permutations: int, fitted: str, features: int,
    matrix: Float[np.ndarray, "n n"] | None = None,
) -> list[dict]:  # fmt: skip
    """Mechanisms and targets among compounds; several a compound."""
    made = []
    for metric in (MOA, TARGET):
        rows = compounds.meta[f"Metadata_{metric_column(metric)}"].notna().to_numpy()
        column = metric_column(metric)
        pairing = Pairing((column,), ("broad_sample",), (), (column,), several=(column,))
        own = None if matrix is None else matrix[np.ix_(rows, rows)]
        rng = np.random.default_rng(2)
        one = found(compounds.rows(rows), pairing, [column], rng, permutations=permutations, matrix=own)
        made.append(row(method, metric, one, fitted, features))
    return made


def metric_column(metric: str) -> str:
    """The metadata column of a metric."""
    return {MOA: "moa", TARGET: "target"}[metric]


def consensus(wells: Profiles) -> Profiles:
    """Mean over the plates of each treated compound."""
    treated = wells.rows(wells.column("pert_type") == "trt")
    columns = ["Metadata_broad_sample", "Metadata_moa", "Metadata_target", "Metadata_smiles"]
    return aggregate(Profiles(treated.meta[columns], treated.values, treated.names), ["broad_sample"])


def retrieved(wells: Profiles) -> float:
    """Share of compounds whose replicates are retrieved at q < 0.05 (random rankings), against other compounds."""
    treated = wells.rows(wells.column("pert_type") == "trt")
    table = average_precisions(treated, WELLS)
    scores = mean_average_precision(table, ["broad_sample"], np.random.default_rng(0), 2000)
    return float((scores["q"] < 0.05).mean())


def study(data: Path, permutations: int = 99) -> Study:
    """Every correction, and what density and structure alone give."""
    wells = read(data)
    controls = (wells.column("control_type") == "negcon").astype(bool)
    scores, shares, refused = [], [], []
    for name, steps in CORRECTIONS.items():
        done, how = corrected(wells, steps, controls)
        if done is None:
            refused.append({"method": name, "reason": how})
            continue
        k = len(done.names)
        scores += of_wells(name, done, permutations, how, k)
        scores += of_compounds(name, consensus(done), permutations, how, k)
        shares.append({"method": name, "compounds whose replicates are retrieved (q < 0.05)": retrieved(done)})
    scores += baselines(wells, permutations)
    table = pd.DataFrame(scores)
    compounds = consensus(wells)
    n_moa = int(compounds.meta["Metadata_moa"].notna().sum())
    text = (
        f"{wells.meta['Metadata_Plate'].nunique()} replicate plates; {len(compounds)} compounds and "
        f"{int(controls.sum())} DMSO wells; {n_moa} compounds have a mechanism. All plates have one layout: a compound "
        "sits at the same well everywhere, so replicates also share their position, which no correction can take out "
        "here without taking the compound with it.",
        "Replicates: positives are the same compound on another plate; labels are shuffled within plates. Mechanism "
        "and target: one profile a compound (mean over plates), positives share one and are another compound.",
        "Against DMSO, shuffled labels do better than a random ranking: any two treated wells are more alike than a "
        "treated and a DMSO well. Sphering to DMSO makes that difference, not the compounds, the largest one.",
        f"The files hold no number of cells. Its stand-in is {DENSITY}. Regressing it out changes the question to the "
        "direct effect, because density lies on the way from compound to picture. Structure: Tanimoto similarity.",
    )
    tables: dict[str, pd.DataFrame] = {"Share of compounds whose replicates find each other": pd.DataFrame(shares)}
    if refused:
        tables["Corrections that cannot be made on this table"] = pd.DataFrame(refused)
    figures = {f"mAP {CAPTION}": score_chart(table, "mAP")}
    return Study("cpjump1", "CPJUMP1: replicates, mechanisms, targets", text, table, tables, figures)


def baselines(wells: Profiles, permutations: int) -> list[dict]:
    """Density alone (wells and compounds) and structure alone (compounds)."""
    density = wells.column("Density").astype(np.float64)
    line = Profiles(wells.meta, angle_of(density), ("cos", "sin"))
    made = of_wells("density alone", line, permutations, "", 1)
    compounds = consensus(Profiles(wells.meta, density[:, None], ("density",)))
    one = Profiles(compounds.meta, angle_of(compounds.values[:, 0]), ("cos", "sin"))
    made += of_compounds("density alone", one, permutations, "", 1)
    drawn = compounds.rows(compounds.meta["Metadata_smiles"].notna().to_numpy())
    bits = morgan_bits([str(s) for s in drawn.column("smiles")])
    alike = tanimoto(bits, bits).astype(np.float64)
    return made + of_compounds("structure alone (Tanimoto)", drawn, permutations, "", 0, alike)
