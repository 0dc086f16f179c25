"""BBBC021 (MCF-7, 12 mechanisms): does a treatment's nearest neighbour have its mechanism?

The field's oldest benchmark (Ljosa et al. 2013, doi 10.1177/1087057113503553). The published feature-selected table
gives 94 of 103 treatments, which is the oracle here; our own normalisations of the raw per-well means stand below it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from chem.fingerprint import morgan_bits, tanimoto
from profiling.profiles import Profiles, aggregate
from profiling.retrieval import Pairing, unit_rows
from profiling.shuffle import Found, angle_of, found
from profiling.tables import split_table
from service.real.chart import CAPTION, score_chart
from service.real.study import Steps, Study, corrected, row

SELECT = {"name": "select", "fit_on": "all", "missing": 0.0}
MAD = {"name": "mad_robustise", "by": ["Plate"]}
CORRECTIONS: dict[str, Steps] = {
    "z-score to DMSO of the plate": [{"name": "standardise", "by": ["Plate"]}, SELECT],
    "median and IQR of the plate's DMSO": [{"name": "robustise", "by": ["Plate"]}, SELECT],
    "MAD to DMSO of the plate": [MAD, SELECT],
    "MAD to DMSO of the batch": [{"name": "mad_robustise", "by": ["Batch"]}, SELECT],
    "MAD to all DMSO": [{"name": "mad_robustise"}, SELECT],
    "MAD + rank to normal": [MAD, SELECT, {"name": "rank_normal", "fit_on": "all"}],
    "MAD + phenotype correction 0.7": [MAD, SELECT, {"name": "phenotype", "by": ["Plate"], "alpha": 0.7}],
    "MAD + PCA 95 %": [MAD, SELECT, {"name": "pca", "fit_on": "all"}],
    "MAD + sphering to DMSO": [MAD, SELECT, {"name": "sphering"}],
    "MAD + PCA 95 % + sphering to DMSO": [MAD, SELECT, {"name": "pca", "fit_on": "all"}, {"name": "sphering"}],
    "MAD + ComBat by batch": [MAD, SELECT, {"name": "combat", "batch": "Batch"}],
    "MAD + fastMNN by batch": [MAD, SELECT, {"name": "mnn", "batch": "Batch"}],
    "MAD + Scanorama by batch": [MAD, SELECT, {"name": "scanorama", "batch": "Batch"}],
    "MAD + Harmony by batch": [
        MAD,
        SELECT,
        {"name": "pca", "fit_on": "all"},
        {"name": "harmony", "by": ["Batch"], "cluster_rounds": 20},
    ],
}
NSC, NSCB = "1-NN, not same compound", "1-NN, not same compound or batch"
MAP = "mAP of the mechanism, 38 compounds"
SAME_MOA = Pairing(("moa",), ("compound",), (), ("moa",))
#: Running numbers of objects: their mean over a field of n cells is (n + 1) / 2.
NUMBER = "Cells_Number_Object_Number"


def nearest(
    similar: Float[np.ndarray, "n n"], labels: np.ndarray, differ: list[np.ndarray], compound: np.ndarray, seed: int,
    permutations: int,
) -> tuple[Found, pd.Series]:  # fmt: skip
    """Share of treatments whose nearest neighbour that differs in every column of `differ` has their label.

    Treatments whose label no such neighbour has cannot be right and are left out. The bootstrap draws compounds, the
    permutation shuffles labels among compounds. Also whether each treatment that remains is right.
    """
    allowed = np.logical_and.reduce([words[:, None] != words[None, :] for words in differ])
    first = np.where(allowed, similar, -np.inf).argmax(axis=1)

    def right(words: np.ndarray) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        same = (words[:, None] == words[None, :]) & allowed
        return words[first] == words, same.any(axis=1), same.sum(axis=1) / np.maximum(allowed.sum(axis=1), 1)

    hit, can, chance = right(labels)
    rng = np.random.default_rng(seed)
    names, code = np.unique(compound, return_inverse=True)
    own = np.array([labels[code == i][0] for i in range(len(names))], dtype=object)
    null = []
    for _ in range(permutations):
        h, c, _chance = right(rng.permutation(own)[code])
        null.append(h[c].mean() if c.any() else 0.0)
    value = float(hit[can].mean())
    groups = [np.flatnonzero(can & (code == i)) for i in range(len(names)) if (can & (code == i)).any()]
    drawn = [
        hit[np.concatenate([groups[g] for g in rng.integers(0, len(groups), len(groups))])].mean() for _ in range(1000)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    p = (1 + int((np.array(null) >= value - 1e-12).sum())) / (1 + permutations)
    middle = float(np.mean(null)) if null else float("nan")
    score = Found(value, float(chance[can].mean()), middle, float(low), float(high), p, len(groups), int(can.sum()))
    return score, pd.Series(hit[can], index=np.flatnonzero(can))


def read_raw(folder: Path) -> Profiles:
    """Per-well means of all 516 features with plate, well, batch, compound, concentration and moa."""
    table = pd.read_csv(folder / "ljosa_jbiomolscreen_2013_per_well_mean.csv.gz")
    images = pd.read_csv(folder / "BBBC021_v1_image.csv.gz")
    names = {
        "Image_Metadata_Plate_DAPI": "Plate", "Image_Metadata_Well_DAPI": "Well", "Image_Metadata_Compound": "compound",
        "Image_Metadata_Concentration": "concentration",
    }  # fmt: skip
    wells = images[list(names)].rename(columns=names).drop_duplicates()
    moa = pd.read_csv(folder / "BBBC021_v1_moa.csv")
    wells = wells.merge(moa, on=["compound", "concentration"], how="left")
    wells.loc[wells["compound"] == "DMSO", "moa"] = "DMSO"
    features = [c for c in table.columns if c.startswith(("Cells_", "Nuclei_", "Cytoplasm_"))]
    table = table.rename(columns={"Image_Metadata_Plate": "Plate", "Image_Metadata_Well": "Well"})
    made = split_table(wells.merge(table, on=["Plate", "Well"], validate="1:1"), features)
    return _with_batch(made)


def read_published(folder: Path) -> Profiles:
    """The published MAD-standardised, feature-selected table of the same wells."""
    table = pd.read_csv(folder / "BBBC021_feature_selected_mad_robustize.csv.gz")
    names = {"Metadata_Compound": "Metadata_compound", "Metadata_Concentration": "Metadata_concentration"}
    return _with_batch(split_table(table.rename(columns=names)))


def _with_batch(profiles: Profiles) -> Profiles:
    """The batch is the week that begins the plate's name."""
    week = [plate.split("_")[0] for plate in profiles.column("Plate")]
    return Profiles(profiles.meta.assign(Metadata_Batch=week), profiles.values, profiles.names)


def treatments(wells: Profiles) -> Profiles:
    """Median over the wells of each compound and concentration that has a mechanism."""
    known = wells.rows((wells.column("moa") != "DMSO") & wells.meta["Metadata_moa"].notna().to_numpy())
    return aggregate(known, ["compound", "concentration", "moa"], "median")


def score(
    method: str, table: Profiles, permutations: int, fitted: str = "", matrix: Float[np.ndarray, "n n"] | None = None,
    features: int = 0,
) -> list[dict]:  # fmt: skip
    """Nearest neighbours in both settings, and mAP of the mechanism among compounds."""
    compound, batch = table.column("compound"), table.column("Batch")
    unit = unit_rows(table.values) if matrix is None else table.values
    similar = unit @ unit.T if matrix is None else matrix
    labels = table.column("moa")
    made = []
    for metric, differ in ((NSC, [compound]), (NSCB, [compound, batch])):
        made.append(
            row(method, metric, nearest(similar, labels, differ, compound, 1, permutations)[0], fitted, features)
        )
    if matrix is None:
        one = aggregate(table, ["compound", "moa"])
        near = found(one, SAME_MOA, ["moa"], np.random.default_rng(2), permutations=permutations)
        made.append(row(method, MAP, near, fitted, features))
    return made


def study(data: Path, permutations: int = 199) -> Study:
    """All rows: published table, own normalisations, baselines."""
    folder = data / "bbbc021"
    published, raw = read_published(folder), read_raw(folder)
    made = score("published table (oracle: 94 of 103)", treatments(published), permutations, "", None, 189)
    made[0]["features"] = made[1]["features"] = made[2]["features"] = len(published.names)
    controls = raw.column("moa") == "DMSO"
    refused = []
    for name, steps in CORRECTIONS.items():
        done, how = corrected(raw, steps, controls)
        if done is None:
            refused.append({"method": name, "reason": how})
        else:
            made += score(name, treatments(done), permutations, how, None, len(done.names))
    made += baselines(raw, folder, permutations)
    scores = pd.DataFrame(made)
    tables = {"Treatments whose nearest neighbour has their mechanism, of those that could": _counts(scores)}
    if refused:
        tables["Corrections that cannot be made on this table"] = pd.DataFrame(refused)
    figures = {f"Score {CAPTION}": score_chart(scores)}
    return Study("bbbc021", "BBBC021: nearest neighbours", _text(raw, scores), scores, tables, figures)


def _counts(scores: pd.DataFrame) -> pd.DataFrame:
    """Right and asked treatments of each method in both settings."""
    table = scores[["method"]].drop_duplicates()
    for metric in (NSC, NSCB):
        own = scores[scores["metric"] == metric].set_index("method")
        asked = table["method"].map(own["n_queries"]).astype(int)
        right = (table["method"].map(own["value"]) * asked).round().astype(int)
        table = table.assign(**{f"{metric}: right": right, f"{metric}: of": asked})
    return table


def baselines(raw: Profiles, folder: Path, permutations: int) -> list[dict]:
    """What the number of cells alone, and the structure alone, give."""
    count = np.log(2 * raw.values[:, raw.names.index(NUMBER)] - 1)
    relative = count - pd.Series(count).where(raw.column("moa") == "DMSO").groupby(raw.column("Plate")).transform(
        "median"
    )
    table = treatments(Profiles(raw.meta, relative.to_numpy()[:, None], ("log_cells",)))
    line = Profiles(table.meta, angle_of(table.values[:, 0]), ("cos", "sin"))
    made = score("cell count alone", line, permutations, features=1)
    smiles = pd.read_csv(folder / "BBBC021_v1_compound.csv").set_index("compound")["smiles"].dropna()
    drawn = table.rows(np.isin(table.column("compound"), smiles.index.to_numpy(dtype=object)))
    texts = [str(smiles[c]).replace("\\\\", "\\") for c in drawn.column("compound")]
    bits = morgan_bits(texts)
    alike = tanimoto(bits, bits).astype(np.float64)
    return made + score("structure alone (Tanimoto)", drawn, permutations, matrix=alike)


def _text(raw: Profiles, scores: pd.DataFrame) -> tuple[str, ...]:
    oracle = scores.iloc[:2]["n_queries"].astype(int).tolist()
    return (
        f"{len(raw)} wells of {raw.meta['Metadata_Plate'].nunique()} plates in {raw.meta['Metadata_Batch'].nunique()} "
        "batches (weeks). A treatment is a compound at a concentration: the median over its wells. Similarity: cosine.",
        f"Every treatment was made in one batch only. Not the same compound leaves {oracle[0]} treatments; not the "
        f"same compound nor batch leaves {oracle[1]}: the other mechanisms were tested within one batch, where batch "
        "and mechanism cannot be told apart. The drop between the two columns is what batches lend. Corrections by "
        "batch take the mechanism with the batch for the same reason. Sphering by fewer DMSO wells than features blows "
        "up directions that were never measured.",
        "The cell count is read off the mean running number of the cells of a well, relative to the plate's DMSO; "
        "structure is the Tanimoto similarity of Morgan fingerprints (four compounds have no published structure).",
    )
