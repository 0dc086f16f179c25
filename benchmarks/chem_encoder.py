"""How good is a molecule vector? Three real tasks, against Morgan fingerprints and a twin with random weights.

    python benchmarks/chem_encoder.py FOLDER [--data DIR] [--tasks library spelling ...]     table, then one JSON line

library    nearest other drug of the same mechanism among the simulated world's 464 drugs (20 classes): leave one out
mechanism  the same on the Repurposing Hub join (DOPAINT_DATA/repurposing_hub): single-mechanism compounds of classes of
           at least 5
activity   MoleculeNet HIV (DOPAINT_DATA/smiles): ROC-AUC of a logistic probe, trained on whole Bemis-Murcko scaffolds,
           tested on others (20 %)
spelling   share of molecules whose second random spelling is the nearest of all (library drugs and 1,000 JUMP SMILES)

Neighbours by cosine after z-scoring each number over all compounds; Tanimoto beside it. The interval is a paired
bootstrap over compounds of the gain over the random twin (95 %): a gain counts when its lower end is above 0. The tasks
that need data which is not there are named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rdkit import rdBase
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from transformers import T5EncoderModel

from chem.corpus import respell
from chem.encoder import T5Encoder, load_encoder
from chem.fingerprint import morgan_bits, morgan_counts, morgan_sketch, tanimoto
from chem.library import drugs, load_library
from chem.molecule import InvalidSmiles, standardise
from chem.split import split_by_group, structure_groups

ROOT = Path(__file__).resolve().parent.parent
CLASS_SIZE = 5
TASKS = ("library", "spelling", "mechanism", "activity")
Vectors = dict[str, Callable[[list[str]], np.ndarray]]


def cosine(vectors: np.ndarray) -> np.ndarray:
    """Cosine similarity of all pairs after z-scoring."""
    scaled = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-8)
    scaled = scaled / (np.linalg.norm(scaled, axis=1, keepdims=True) + 1e-12)
    return scaled @ scaled.T


def neighbour_hits(similarity: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each row: is its most similar other row of the same class?"""
    others = similarity.copy()
    np.fill_diagonal(others, -np.inf)
    return (labels[others.argmax(1)] == labels).astype(float)


def spelling_hits(encode: Callable[[list[str]], np.ndarray], smiles: list[str], seed: int) -> np.ndarray:
    """For each molecule: is the nearest of all second spellings its own?"""
    rng = np.random.default_rng(seed)
    both = encode([respell(text, rng, 0.0) for _ in range(2) for text in smiles])
    cross = cosine(both)[: len(smiles), len(smiles) :]
    return (cross.argmax(1) == np.arange(len(smiles))).astype(float)


def random_twin(encoder: T5Encoder, seed: int) -> T5Encoder:
    """The same architecture and tokenizer with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = T5EncoderModel(encoder.network.config).eval().requires_grad_(False)
    return T5Encoder("random", "", encoder.dim, encoder.tokenizer, network)


def mechanism_table(data: Path) -> pd.DataFrame:
    """Compounds of the Repurposing Hub join with exactly one mechanism, one row a first block: smiles, moa."""
    table = pd.read_csv(data / "repurposing_hub" / "jump_x_repurposing_hub.csv.gz").dropna(subset=["moa", "SMILES"])
    per_block = table.assign(block=table["InChIKey"].str[:14]).groupby("block")
    rows = []
    for _, group in per_block:
        moas = {one for text in group["moa"] for one in str(text).split("|")}
        if len(moas) == 1:
            try:
                rows.append((standardise(str(group["SMILES"].iloc[0])).smiles, moas.pop()))
            except InvalidSmiles:
                continue
    found = pd.DataFrame(rows, columns=["smiles", "moa"])
    return found[found.groupby("moa")["moa"].transform("size") >= CLASS_SIZE].reset_index(drop=True)


def activity_table(data: Path, size: int, seed: int = 0) -> pd.DataFrame:
    """A seeded sample of MoleculeNet HIV, standardised, one row a first block: smiles, inchikey, active."""
    table = pd.read_csv(data / "smiles" / "moleculenet_HIV.csv.gz").sample(frac=1.0, random_state=seed)
    column = next(name for name in table.columns if name.lower() in ("smiles", "mol"))
    rows, seen = [], set()
    for text, active in zip(table[column].astype(str), table["HIV_active"].astype(int), strict=True):
        if len(rows) == size:
            break
        try:
            molecule = standardise(text)
        except InvalidSmiles:
            continue
        if molecule.block not in seen and len(molecule.smiles) <= 200:
            seen.add(molecule.block)
            rows.append((molecule.smiles, molecule.inchikey, active))
    return pd.DataFrame(rows, columns=["smiles", "inchikey", "active"])


def probe(vectors: np.ndarray, active: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Scores of the test rows by a logistic regression on the others (z-scored on them, classes balanced)."""
    mean, deviation = vectors[~test].mean(0), vectors[~test].std(0) + 1e-8
    scaled = (vectors - mean) / deviation
    with np.errstate(all="ignore"):
        model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=300).fit(scaled[~test], active[~test])
    return np.asarray(model.decision_function(scaled[test]))


def mean_gain(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, times: int = 2000) -> tuple[float, float, float]:
    """Mean of a - b, and the 95 % interval of a paired bootstrap over rows."""
    gain = a - b
    means = [gain[rng.integers(len(gain), size=len(gain))].mean() for _ in range(times)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(gain.mean()), float(low), float(high)


def auc_gain(
    a: np.ndarray, b: np.ndarray, truth: np.ndarray, rng: np.random.Generator, times: int = 500
) -> tuple[float, float, float]:
    """ROC-AUC of a minus that of b, and the 95 % interval of a paired bootstrap over rows."""
    gains = []
    while len(gains) < times:
        rows = rng.integers(len(truth), size=len(truth))
        if 0 < truth[rows].sum() < len(rows):
            gains.append(roc_auc_score(truth[rows], a[rows]) - roc_auc_score(truth[rows], b[rows]))
    low, high = np.percentile(gains, [2.5, 97.5])
    return float(roc_auc_score(truth, a) - roc_auc_score(truth, b)), float(low), float(high)


def show(task: str, n: int, scores: dict[str, float], gain: tuple[float, float, float], unit: str) -> dict[str, object]:
    """Print one task's lines and give them as a document."""
    print(f"\n{task} (n = {n}, {unit})")
    for name, value in scores.items():
        print(f"  {name:24s} {value:.3f}")
    print(f"  gain over random         {gain[0]:+.3f} [{gain[1]:+.3f}, {gain[2]:+.3f}]", flush=True)
    rounded = dict(zip(("mean", "low", "high"), (round(value, 4) for value in gain), strict=True))
    return {"n": n, "unit": unit, **{name: round(value, 4) for name, value in scores.items()}, "gain": rounded}


def neighbours(task: str, table: pd.DataFrame, vectors: Vectors, rng: np.random.Generator) -> dict[str, object]:
    """The nearest-neighbour task on a table with smiles and moa."""
    smiles, labels = table["smiles"].tolist(), table["moa"].to_numpy()
    bits = morgan_bits(smiles)
    hits = {"morgan bits, tanimoto": neighbour_hits(tanimoto(bits, bits), labels)}
    hits |= {name: neighbour_hits(cosine(encode(smiles)), labels) for name, encode in vectors.items()}
    unit = f"share with a neighbour of the same of {len(set(labels))} classes"
    means = {name: float(one.mean()) for name, one in hits.items()}
    return show(task, len(table), means, mean_gain(hits["encoder"], hits["random twin"], rng), unit)


def _there(path: Path) -> bool:
    if not path.exists():
        print(f"\nleft out: there is no {path.name} in the folder of real data (--data or DOPAINT_DATA)")
    return path.exists()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DOPAINT_DATA", "")))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--activity-size", type=int, default=15_000, help="molecules of the HIV table")
    parser.add_argument("--random-seed", type=int, default=0, help="of the twin's weights")
    arguments = parser.parse_args()
    began = time.monotonic()
    encoder = load_encoder(arguments.folder)
    if not isinstance(encoder, T5Encoder):
        raise SystemExit("the folder holds no T5 encoder: a Morgan sketch has no random twin")
    twin = random_twin(encoder, arguments.random_seed)
    vectors: Vectors = {
        "encoder": lambda texts: encoder.encode(texts, batch_size=32),
        "random twin": lambda texts: twin.encode(texts, batch_size=32),
        "morgan counts": morgan_counts,
        "morgan sketch": lambda texts: morgan_sketch(texts, encoder.dim),
    }
    learned: Vectors = {name: vectors[name] for name in ("encoder", "random twin")}
    rng = np.random.default_rng(0)
    result: dict[str, object] = {"encoder": encoder.hash, "dim": encoder.dim}
    library = drugs(load_library(ROOT / "configs" / "library"))
    if "library" in arguments.tasks:
        result["library"] = neighbours("library", library, vectors, rng)
    spelled = {"library drugs": library["smiles"].tolist()}
    jump = arguments.data / "jump_metadata" / "compound_smiles.csv.gz"
    if jump.is_file():
        table = pd.read_csv(jump)["Metadata_SMILES"].astype(str)
        table = table[table.str.len() <= 200]
        spelled["JUMP"] = table.sample(1000, random_state=0).tolist()
    for name, smiles in spelled.items() if "spelling" in arguments.tasks else ():
        hits = {kind: spelling_hits(encode, smiles, 1) for kind, encode in learned.items()}
        means = {kind: float(one.mean()) for kind, one in hits.items()}
        gain = mean_gain(hits["encoder"], hits["random twin"], rng)
        result[f"spelling, {name}"] = show(f"spelling, {name}", len(smiles), means, gain, "share found again")
    if "mechanism" in arguments.tasks and _there(arguments.data / "repurposing_hub"):
        table = mechanism_table(arguments.data)
        result["mechanism"] = neighbours("mechanism", table, vectors, rng)
    if "activity" in arguments.tasks and _there(arguments.data / "smiles" / "moleculenet_HIV.csv.gz"):
        table = activity_table(arguments.data, arguments.activity_size)
        groups = structure_groups(table["inchikey"].tolist(), table["smiles"].tolist())
        test = np.array(split_by_group(groups, {"train": 0.8, "test": 0.2}, seed=0)) == "test"
        active = table["active"].to_numpy()
        smiles = table["smiles"].tolist()
        scores = {name: probe(encode(smiles), active, test) for name, encode in vectors.items()}
        areas = {name: float(roc_auc_score(active[test], one)) for name, one in scores.items()}
        gain = auc_gain(scores["encoder"], scores["random twin"], active[test], rng)
        unit = f"ROC-AUC, {int(test.sum())} tested, {int(active[test].sum())} of them active"
        result["activity"] = show("activity", len(table), areas, gain, unit)
    result["seconds"] = round(time.monotonic() - began, 1)
    result["versions"] = {"torch": torch.__version__, "rdkit": rdBase.rdkitVersion, "python": platform.python_version()}
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    with rdBase.BlockLogs():
        main()
