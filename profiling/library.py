"""Biosimilarity of a file of profiles to a folder of sub-profiles, as the command `dopaint biosimilarity` gives it.

A folder is ours (`subprofiles.parquet`) or one published by mpimp-comas (`med_prof_<label>.tsv` with
`parms_<label>_<share>.txt`).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from profiling.profiles import InvalidProfiles
from profiling.subprofile import CONVENTIONS, SubProfiles, biosimilarity
from profiling.tables import read_profiles, write_table

FILE = "subprofiles.parquet"


def read_published(folder: str | Path) -> SubProfiles:
    """The layout of mpimp-comas/2022_pahl_ziegler_subprofiles: one median profile and one list of features a label.

    The number of reference compounds is not in those files and reads as 0. Convention "reference".
    """
    folder = Path(folder)
    medians: dict[str, pd.Series] = {}
    for path in sorted(folder.glob("med_prof_*.tsv")):
        label = path.stem.removeprefix("med_prof_")
        lists = sorted(folder.glob(f"parms_{label}_*.txt"))
        if len(lists) != 1:
            raise InvalidProfiles(f"folder: expected one file parms_{label}_<share>.txt, found {len(lists)}")
        row = pd.read_csv(path, sep="\t").iloc[0]
        kept = lists[0].read_text().split()
        if missing := [name for name in kept if name not in row.index]:
            raise InvalidProfiles(f"{path.name} lacks {len(missing)} features of {lists[0].name}, first {missing[:3]}")
        medians[label] = row[kept].astype(np.float64)
    if not medians:
        raise InvalidProfiles(f"folder {folder.name!r} has neither {FILE} nor med_prof_<label>.tsv files")
    names = tuple(dict.fromkeys(name for row in medians.values() for name in row.index))
    place = {name: i for i, name in enumerate(names)}
    values, mask = np.zeros((len(medians), len(names))), np.zeros((len(medians), len(names)), dtype=bool)
    for i, row in enumerate(medians.values()):
        at = [place[name] for name in row.index]
        values[i, at], mask[i, at] = row.to_numpy(), True
    none = np.zeros(len(medians), dtype=np.int64)
    return SubProfiles(tuple(medians), names, values, mask, none, "reference", min_references=0)


def read_folder(folder: str | Path) -> SubProfiles:
    """Sub-profiles of a folder, ours or published."""
    own = Path(folder) / FILE
    return SubProfiles.read(own) if own.exists() else read_published(folder)


def score_file(
    profiles: str | Path, subprofiles: str | Path, convention: str | None = None, out: str | Path | None = None
) -> pd.DataFrame:
    """A file of profiles (parquet, CSV, TSV, gz too) and a folder of sub-profiles -> metadata and one column a label.

    `convention` must be that of the folder, or "reference" for sub-profiles that were built as "paper" (and the other
    way round), which changes the similarity only, not the features kept. NaN in a profile are left out pairwise.
    `out` is written where given. Raises `InvalidProfiles` for missing features (named) or an unknown convention.
    """
    library = read_folder(subprofiles)
    if convention is not None:
        if convention not in CONVENTIONS:
            raise InvalidProfiles(f"convention must be one of {list(CONVENTIONS)}, got {convention!r}")
        library = replace(library, convention=convention)
    table = read_profiles(profiles, features=library.names)
    scores = biosimilarity(table.values, library, missing="pairwise")
    made = pd.concat([table.meta, pd.DataFrame(scores, columns=list(library.labels))], axis=1)
    if out is not None:
        write_table(made, out)
    return made
