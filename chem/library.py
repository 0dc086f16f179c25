"""The compound library of the simulated world: two tables in, one checked DataFrame out.

`drugs.csv` holds facts about real drugs (name, structure, mechanism, targets) and two facts of the simulation
(`simulated_second_moa`, `split`). `recombined.csv` holds molecules made from fragments of seen drugs; their mechanism
exists only in the simulation. DMSO, the control, is in neither.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from chem.split import SEEN, SPLITS

DRUG_COLUMNS = ("name", "smiles", "inchikey", "moa", "targets", "simulated_second_moa", "split")
RECOMBINED_COLUMNS = ("smiles", "inchikey", "parents", "moa", "split")
LIBRARY_COLUMNS = ("name", "smiles", "inchikey", "moa", "targets", "simulated_second_moa", "parents", "split", "kind")
DMSO_INCHIKEY = "IAZDPXIOMUYVGZ-UHFFFAOYSA-N"


class LibraryError(ValueError):
    """A library table that is missing, has the wrong columns, or contradicts itself."""


def load_library(folder: Path | str) -> pd.DataFrame:
    """Both tables as one DataFrame of text columns, drugs first; `kind` is "drug" or "recombined".

    Columns: name, smiles, inchikey, moa, targets ("|"-joined), simulated_second_moa, parents ("|"-joined InChIKeys),
    split ("seen", "unseen_random" or "unseen_scaffold"), kind. What a table does not have is "".
    Raises `LibraryError` for a missing file, other columns, duplicates (first block) or recombined molecules that are
    not "seen" or whose parents are not seen drugs.
    """
    root = Path(folder)
    drugs = _read(root / "drugs.csv", DRUG_COLUMNS).assign(parents="", kind="drug")
    recombined = _read(root / "recombined.csv", RECOMBINED_COLUMNS).assign(
        name="", targets="", simulated_second_moa="", kind="recombined"
    )
    library = pd.concat([drugs, recombined], ignore_index=True)[list(LIBRARY_COLUMNS)]
    _check(library)
    return library


def drugs(library: pd.DataFrame) -> pd.DataFrame:
    """The rows of real drugs, numbered from 0."""
    return library[library["kind"] == "drug"].reset_index(drop=True)


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    if not path.is_file():
        raise LibraryError(f"library table {path} does not exist; give the folder that holds drugs.csv.")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if tuple(table.columns) != columns:
        raise LibraryError(f"{path.name}: columns are {list(table.columns)}; expected {list(columns)}.")
    return table


def _check(library: pd.DataFrame) -> None:
    block = library["inchikey"].str[:14]
    if block.duplicated().any():
        first = library.loc[block.duplicated(), "inchikey"].iloc[0]
        raise LibraryError(f"{first} occurs twice (first block of the InChIKey); keep one row per compound.")
    unknown = set(library["split"]) - set(SPLITS)
    if unknown:
        raise LibraryError(f"unknown split {sorted(unknown)}; known are {', '.join(SPLITS)}.")
    classes = set(library.loc[library["kind"] == "drug", "moa"])
    strange = (set(library["moa"]) | set(library["simulated_second_moa"])) - classes - {""}
    if strange:
        raise LibraryError(f"classes {sorted(strange)} have no drug.")
    made = library[library["kind"] == "recombined"]
    if (made["split"] != SEEN).any():
        raise LibraryError("a recombined molecule is not marked 'seen'.")
    seen = set(library.loc[(library["kind"] == "drug") & (library["split"] == SEEN), "inchikey"])
    for parents in made["parents"]:
        if not seen.issuperset(parents.split("|")):
            raise LibraryError(f"a recombined molecule has a parent that is not a seen drug: {parents}.")
