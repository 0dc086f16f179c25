"""Folders of sub-profiles: made from reference profiles, and a file of profiles scored against them.

These are the commands `dopaint subprofiles` and `dopaint biosimilarity`.

A folder is ours (`subprofiles.parquet`) or one published by mpimp-comas (`med_prof_<label>.tsv` with
`parms_<label>_<share>.txt`).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from profiling.profiles import InvalidProfiles, Profiles
from profiling.protocol import ProtocolConfig, annotate
from profiling.subprofile import CONVENTIONS, SubProfiles, biosimilarity, build, overlap, permuted_features_kept
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


def build_from(profiles: Profiles, labels: pd.DataFrame, config: ProtocolConfig) -> tuple[SubProfiles, pd.DataFrame]:
    """Sub-profiles from every compound that passes the rules of `protocol.annotate`, and the count after each rule.

    `config.references` is the least number of reference compounds of a label that keeps features.
    """
    data = annotate(profiles, labels, config)
    rows, columns = np.nonzero(data.truth)
    words = [data.labels[j] for j in columns]
    values = data.profiles.values[rows]
    sub = build(values, words, data.profiles.names, config.convention, config.references, config.agree)
    return sub, data.funnel


def summary_with_null(
    subprofiles: SubProfiles,
    values: np.ndarray,
    rng: np.random.Generator,
    permutations: int = 1000,
) -> pd.DataFrame:
    """`SubProfiles.summary` and, from random sets of as many rows of `values` [n, k] as the label has references:

    `n_features_permuted` (their mean) and `p` (share of the sets that keep at least as many features). NaN for a label
    without sub-profile, or with more references than rows.
    """
    table = subprofiles.summary()
    nulls: dict[int, np.ndarray] = {}
    for n in sorted({int(n) for n in subprofiles.n_references if subprofiles.min_references <= n <= len(values)}):
        nulls[n] = permuted_features_kept(values, n, rng, permutations, subprofiles.convention, subprofiles.agree)
    kept = zip(subprofiles.n_references.tolist(), subprofiles.n_features.tolist(), strict=True)
    pairs = [
        (float(nulls[n].mean()), float((1 + (nulls[n] >= k).sum()) / (1 + permutations)))
        if n in nulls
        else (np.nan,) * 2
        for n, k in kept
    ]
    return table.assign(n_features_permuted=[a for a, _ in pairs], p=[b for _, b in pairs])


def write_folder(subprofiles: SubProfiles, folder: str | Path, summary: pd.DataFrame | None = None) -> None:
    """subprofiles.parquet, summary.csv, and overlap.csv with one row a pair of labels (Jaccard index, correlation)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    subprofiles.write(folder / FILE)
    (subprofiles.summary() if summary is None else summary).to_csv(folder / "summary.csv", index=False)
    jaccard, correlation = overlap(subprofiles)
    a, b = np.triu_indices(len(subprofiles.labels), k=1)
    words = np.array(subprofiles.labels, dtype=object)
    pairs = {"label1": words[a], "label2": words[b], "jaccard": jaccard[a, b], "correlation": correlation[a, b]}
    pd.DataFrame(pairs).to_csv(folder / "overlap.csv", index=False)
