"""The tables of JUMP-CP (cpg0016): which plates and wells there are, which belong to the paper's data, which compound
is where.

The paper names 48 batches and 832 plates of sources 1, 2, 3, 9 and 11. The published tables give just that under three
rules, which it does not state: every plate type but `DMSO`; not source 1's four `COMPOUND_EMPTY` plates; not a plate
without pictures. Plates of sources 1 and 9 have 1536 wells, all others 384.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

PAPER_SOURCES = ("source_1", "source_2", "source_3", "source_9", "source_11")
WELLS_1536 = ("source_1", "source_9")
DMSO = "JCP2022_033924"
EMPTY = "JCP2022_999999"
NO_WELLS = "no well table"
_WELL = re.compile(r"([A-Z]{1,2})(\d{2})")
_NAMES = {
    "plate": ("Metadata_Source", "Metadata_Batch", "Metadata_Plate", "Metadata_PlateType"),
    "well": ("Metadata_Source", "Metadata_Plate", "Metadata_Well", "Metadata_JCP2022"),
    "compound": ("Metadata_JCP2022", "Metadata_SMILES"),
    "site_count": ("Metadata_Source", "Metadata_Plate", "n_sites"),
}


class InvalidTables(ValueError):
    """Raised when a table of JUMP is missing, lacks a column, or holds a well that cannot be."""


@dataclass(frozen=True)
class Tables:
    """plate, well, compound: as published, columns without `Metadata_`, lower case. sites: pictures of five channels a
    plate, empty where not given.
    """

    plate: pd.DataFrame
    well: pd.DataFrame
    compound: pd.DataFrame
    sites: pd.DataFrame


def read_tables(folder: str | Path) -> Tables:
    """The tables of a folder or address (any that fsspec opens): `plate*.csv*`, `well*.csv*`, `compound*smiles*.csv*`
    and, if there, `*site_count.csv*`; the folder may be a clone of jump-cellpainting/datasets, whose tables lie in
    `metadata`.

    Raises InvalidTables, naming the table, when one is missing or lacks a column.
    """
    import fsspec

    fs, root = fsspec.core.url_to_fs(str(folder))
    names = [
        str(name) for at in (root, f"{root}/metadata", f"{root}/stats") if fs.isdir(at) for name in fs.ls(at, False)
    ]

    def one(kind: str, pattern: str, needed: bool = True) -> pd.DataFrame:
        found = sorted(name for name in names if re.fullmatch(pattern, name.rsplit("/", 1)[-1]))
        if not found and not needed:
            return pd.DataFrame(columns=[_short(c) for c in _NAMES[kind]])
        if not found:
            raise InvalidTables(
                f"tables: {folder} has no {kind} table; get jump-cellpainting/datasets and give its path"
            )
        with fs.open(found[0], "rb", compression="infer") as handle:
            table = pd.read_csv(handle, dtype=str)
        if lacking := [column for column in _NAMES[kind] if column not in table.columns]:
            raise InvalidTables(f"tables: {found[0]} lacks {', '.join(lacking)}; expected {', '.join(_NAMES[kind])}")
        return table[list(_NAMES[kind])].rename(columns=_short)

    sites = one("site_count", r".*site_count\.csv(\.gz)?", needed=False)
    return Tables(
        one("plate", r"plate\.csv(\.gz)?"),
        one("well", r"well(_\w+)?\.csv(\.gz)?"),
        one("compound", r"compound(_smiles)?\.csv(\.gz)?"),
        sites.assign(n_sites=sites["n_sites"].astype(int)),
    )


def _short(column: str) -> str:
    return {"Metadata_PlateType": "plate_type", "Metadata_JCP2022": "compound"}.get(
        column, column.removeprefix("Metadata_").lower()
    )


def select_plates(tables: Tables, sources: Sequence[str] = PAPER_SOURCES) -> pd.DataFrame:
    """The paper's plates of these sources: source, batch, plate, plate_type, plate_format, n_sites (-1 where no table
    says), in order of the table.

    A plate is without pictures when the table of site counts does not name it, or names none. Raises InvalidTables for
    an unknown source.
    """
    known = sorted(tables.plate["source"].unique())
    if unknown := [source for source in sources if source not in known]:
        raise InvalidTables(f"source: got {unknown[0]!r}, expected some of {', '.join(known)}")
    plates = tables.plate[tables.plate["source"].isin(list(sources))]
    plates = plates[plates["plate_type"] != "DMSO"]
    plates = plates[~((plates["source"] == "source_1") & (plates["plate_type"] == "COMPOUND_EMPTY"))]
    if len(tables.sites):
        plates = plates.merge(tables.sites, how="inner", on=["source", "plate"])
        plates = plates[plates["n_sites"] > 0]
    else:
        plates = plates.assign(n_sites=-1)
    return plates.assign(plate_format=[1536 if s in WELLS_1536 else 384 for s in plates["source"]]).reset_index(
        drop=True
    )


def position(well: str) -> tuple[int, int]:
    """Row and column from 0 of "A01", "P24" or "AF48". Raises InvalidTables."""
    match = _WELL.fullmatch(well)
    if match is None:
        raise InvalidTables(f"well: got {well!r}, expected letters and two digits, such as A01 or AF48")
    row = 0
    for letter in match[1]:
        row = row * 26 + ord(letter) - ord("A") + 1
    return row - 1, int(match[2]) - 1


def select_wells(tables: Tables, plates: pd.DataFrame) -> pd.DataFrame:
    """The wells of these plates that the table knows, without empty ones: source, batch, plate, plate_type,
    plate_format, well, row, column (from 0), compound (JCP2022).

    Sources without a well table have no rows; `summary` says which. Raises InvalidTables for a well off its plate.
    """
    columns = ["source", "batch", "plate", "plate_type", "plate_format"]
    wells = plates[columns].merge(tables.well, on=["source", "plate"], how="inner")
    wells = wells[wells["compound"] != EMPTY].reset_index(drop=True)
    names = {name: position(name) for name in wells["well"].unique()}
    wells["row"], wells["column"] = ([names[w][k] for w in wells["well"]] for k in (0, 1))
    small = wells["plate_format"] == 384
    off = small & ((wells["row"] > 15) | (wells["column"] > 23))
    if off.any():
        odd = wells[off].iloc[0]
        raise InvalidTables(f"well: {odd['well']} of plate {odd['plate']}, expected A01 to P24 on a 384-well plate")
    return wells


def summary(tables: Tables, sources: Sequence[str] = PAPER_SOURCES) -> pd.DataFrame:
    """One row a source, and "all": batches, plates, wells, compounds (DMSO among them), and the note "no well table"
    where compounds cannot be told.
    """
    plates = select_plates(tables, sources)
    wells = select_wells(tables, plates)
    rows = []
    for source in (*sources, "all"):
        mine = plates if source == "all" else plates[plates["source"] == source]
        its = wells if source == "all" else wells[wells["source"] == source]
        rows.append(
            {
                "source": source,
                "batches": len(mine[["source", "batch"]].drop_duplicates()),
                "plates": len(mine),
                "wells": len(its),
                "compounds": int(its["compound"].nunique()),
                "note": "" if len(its) else NO_WELLS,
            }
        )
    return pd.DataFrame(rows)
