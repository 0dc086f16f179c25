"""Build or check configs/library: the compounds of the simulated world.

    python benchmarks/library.py build      writes drugs.csv and recombined.csv (needs DOPAINT_DATA)
    python benchmarks/library.py check      rebuilds both in memory and compares them with the files

Drugs are facts (name, structure, mechanism, targets) from the annotation tables of the Drug Repurposing Hub; a drug is
taken if it has exactly one mechanism there, under every name it has. The choice, the split and the recombination are
seeded: the same tables give the same bytes. The rule for unseen compounds: docs/decisions/0001-unseen-compounds.md.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit import Chem

from chem.library import DRUG_COLUMNS, RECOMBINED_COLUMNS
from chem.molecule import InvalidSmiles, Molecule, standardise
from chem.recombine import Piece, joined, pieces
from chem.split import SEEN, SPLIT_SEED, choose_unseen

FOLDER = Path(__file__).resolve().parent.parent / "configs" / "library"
CLASSES = (
    "Aurora kinase inhibitor", "tubulin polymerization inhibitor", "HDAC inhibitor", "glucocorticoid receptor agonist",
    "EGFR inhibitor", "CDK inhibitor", "PI3K inhibitor", "mTOR inhibitor", "topoisomerase inhibitor",
    "bromodomain inhibitor", "HSP inhibitor", "PARP inhibitor", "MEK inhibitor", "JAK inhibitor",
    "retinoid receptor agonist", "protein synthesis inhibitor", "adrenergic receptor antagonist",
    "calcium channel blocker", "cyclooxygenase inhibitor", "bacterial cell wall synthesis inhibitor",
)  # fmt: skip
MUST = {"AMG900", "paclitaxel"}  # always in, always seen
CLASS_CAP = 24
CLASS_FLOOR = 14
DRUG_ATOMS = (10, 75)
SECOND_MOA_SHARE = 0.08
MADE_PER_CLASS = 70
MADE_ATOMS = (15, 60)
MADE_ACROSS = 0.25
ATTEMPTS = 4000


def hub_drugs(data: Path) -> pd.DataFrame:
    """One row per compound (first InChIKey block) with a single mechanism among CLASSES: name, smiles, moa, targets."""
    folder = data / "repurposing_hub"
    names = pd.read_csv(folder / "repurposing_drugs_20200324_cleaned.txt.gz", sep="\t", quoting=3, dtype=str)
    samples = pd.read_csv(folder / "repurposing_samples_20200324_standardized.csv.gz", dtype=str)
    samples["smiles"] = samples["SMILES_original"].str.split(" ").str[0]
    joined_table = samples.merge(names, on="pert_iname").dropna(subset=["smiles", "moa"])
    wanted = joined_table[joined_table["moa"].isin(CLASSES)]
    cache: dict[str, Molecule | None] = {}

    def read(text: str) -> Molecule | None:
        if text not in cache:
            try:
                cache[text] = standardise(text)
            except InvalidSmiles:
                cache[text] = None
        return cache[text]

    rows = []
    for name, group in wanted.groupby("pert_iname", sort=True):
        molecules = [m for m in map(read, group["smiles"]) if m is not None]
        if molecules:
            votes = Counter(molecules)
            best = min(votes, key=lambda m: (-votes[m], m.inchikey))
            rows.append((name, best.smiles, best.inchikey, group["moa"].iloc[0], group["target"].fillna("").iloc[0]))
    drugs = pd.DataFrame(rows, columns=["name", "smiles", "inchikey", "moa", "targets"])
    drugs["block"] = drugs["inchikey"].str[:14]
    # a block that carries another mechanism under any name of the Hub is not single-mechanism
    hub_block = joined_table["InChIKey_standardized"].fillna("").str[:14]
    mechanisms = joined_table.groupby(hub_block)["moa"].agg(lambda moas: set("|".join(moas).split("|")))
    own = joined_table.groupby("pert_iname")["InChIKey_standardized"].agg(lambda keys: {k[:14] for k in keys.dropna()})
    single = [
        all(mechanisms.get(block, {moa}) <= {moa} for block in own.get(name, set()) | {block})
        for name, block, moa in zip(drugs["name"], drugs["block"], drugs["moa"], strict=True)
    ]
    drugs = drugs[single]
    atoms = drugs["smiles"].map(lambda text: Chem.MolFromSmiles(text).GetNumHeavyAtoms())
    drugs = drugs[atoms.between(*DRUG_ATOMS)]
    drugs = drugs.sort_values(["block", "name"]).drop_duplicates("block")
    return drugs.sort_values(["moa", "name"]).reset_index(drop=True)


def choose_drugs(candidates: pd.DataFrame) -> pd.DataFrame:
    """At most CLASS_CAP drugs a class by a seeded draw, MUST included; split and simulated second mechanism added."""
    chosen = []
    for moa in CLASSES:
        group = candidates[candidates["moa"] == moa]
        rng = np.random.default_rng([SPLIT_SEED, 1, zlib.crc32(moa.encode())])
        order = group.iloc[rng.permutation(len(group))]
        order = pd.concat([order[order["name"].isin(MUST)], order[~order["name"].isin(MUST)]])
        if len(order) < CLASS_FLOOR:
            sys.exit(f"class {moa!r} has only {len(order)} single-mechanism drugs; choose another.")
        chosen.append(order.head(CLASS_CAP).sort_values("name"))
    drugs = pd.concat(chosen, ignore_index=True)
    fixed = drugs.loc[drugs["name"].isin(MUST), "inchikey"]
    drugs["split"] = choose_unseen(
        drugs["inchikey"].tolist(), drugs["smiles"].tolist(), drugs["moa"].tolist(), keep_seen=fixed.tolist()
    )
    rng = np.random.default_rng([SPLIT_SEED, 2])
    second = np.full(len(drugs), "", dtype=object)
    eligible = np.flatnonzero(~drugs["name"].isin(MUST))
    for row in rng.choice(eligible, size=round(SECOND_MOA_SHARE * len(drugs)), replace=False):
        others = [moa for moa in CLASSES if moa != drugs["moa"].iloc[row]]
        second[row] = others[int(rng.integers(len(others)))]
    drugs["simulated_second_moa"] = second
    return drugs[list(DRUG_COLUMNS)]


def recombine(drugs: pd.DataFrame) -> pd.DataFrame:
    """MADE_PER_CLASS molecules a class from pieces of seen drugs; three quarters from two parents of one class."""
    seen = drugs[drugs["split"] == SEEN]
    stock: dict[str, list[Piece]] = {
        moa: [p for row in group.itertuples() for p in pieces(str(row.smiles), str(row.inchikey))]
        for moa, group in seen.groupby("moa")
    }
    taken = set(drugs["inchikey"].str[:14])
    rows = []
    for moa in CLASSES:
        rng = np.random.default_rng([SPLIT_SEED, 3, zlib.crc32(moa.encode())])
        made = 0
        for _ in range(ATTEMPTS):
            if made == MADE_PER_CLASS:
                break
            across = rng.random() < MADE_ACROSS
            other = CLASSES[int(rng.integers(len(CLASSES)))] if across else moa
            if across == (other == moa):
                continue
            first = stock[moa][int(rng.integers(len(stock[moa])))]
            second = stock[other][int(rng.integers(len(stock[other])))]
            if second.heavy_atoms >= first.heavy_atoms or first.parent == second.parent:
                continue
            products = list(joined(first, second))
            if not products:
                continue
            row = _accept(products[int(rng.integers(len(products)))], first, second, moa, taken)
            if row is not None:
                rows.append(row)
                taken.add(row[1][:14])
                made += 1
    return pd.DataFrame(rows, columns=list(RECOMBINED_COLUMNS))


def _accept(text: str, first: Piece, second: Piece, moa: str, taken: set[str]) -> tuple[str, ...] | None:
    try:
        molecule = standardise(text)
    except InvalidSmiles:
        return None
    atoms = Chem.MolFromSmiles(molecule.smiles).GetNumHeavyAtoms()
    if molecule.block in taken or "." in molecule.smiles or not MADE_ATOMS[0] <= atoms <= MADE_ATOMS[1]:
        return None
    return molecule.smiles, molecule.inchikey, f"{first.parent}|{second.parent}", moa, SEEN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["build", "check"])
    verb = parser.parse_args().verb
    if "DOPAINT_DATA" not in os.environ:
        sys.exit("DOPAINT_DATA is not set: it names the folder that holds repurposing_hub/.")
    drugs = choose_drugs(hub_drugs(Path(os.environ["DOPAINT_DATA"])))
    tables = {"drugs.csv": drugs, "recombined.csv": recombine(drugs)}
    for name, table in tables.items():
        text = io.StringIO()
        table.to_csv(text, index=False, lineterminator="\n")
        path = FOLDER / name
        if verb == "build":
            path.write_text(text.getvalue(), encoding="utf-8")
            print(f"{path.name}: {len(table)} rows")
        elif path.read_text(encoding="utf-8") != text.getvalue():
            sys.exit(f"{path.name} differs from what the tables and the seed give.")
    summary = pd.crosstab(drugs["moa"], drugs["split"])
    summary["recombined"] = tables["recombined.csv"]["moa"].value_counts()
    print(summary.to_string())


if __name__ == "__main__":
    main()
