"""CellProfiler's own outputs -> profiles of fields: a folder of CSV, an SQLite file, or CytoTable's parquet.

Every reader ends in `fields`: the median over the cells of each image, one row an image. Images that the image table
names and that have no cells keep their row, with NaN features and a count of 0.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd

from profiling.damaged import readable
from profiling.profiles import COUNT_CELLS, COUNT_NUCLEI, META, OUTCOME, REASON, InvalidProfiles, Profiles

OBJECTS = ("Nuclei", "Cells", "Cytoplasm")
IMAGE = "ImageNumber"
KEYS = ("TableNumber", IMAGE)


def _keys(table: pd.DataFrame) -> list[str]:
    found = [k for k in KEYS if k in table.columns]
    if IMAGE not in found:
        raise InvalidProfiles(f"a table has no column {IMAGE!r}: it begins with {list(table.columns[:5])}")
    return found


def fields(objects: Mapping[str, pd.DataFrame], images: pd.DataFrame | None = None) -> Profiles:
    """Tables of objects (one row a cell, `ImageNumber` names its image) -> one profile an image.

    Features are "<Object>_<feature>"; a column that already begins with its object's name keeps it. Numbers only;
    `ObjectNumber` and the keys are left out. `images` may add rows without cells and metadata: its columns that begin
    with `Metadata_` or `Image_Metadata_`. Raises `InvalidProfiles` where a table has no `ImageNumber` or two image
    rows share one.
    """
    if not objects:
        raise InvalidProfiles("objects is empty: expected at least one table of Nuclei, Cells or Cytoplasm")
    keys = _keys(next(iter(objects.values())))
    every = [t[keys] for t in objects.values()] + ([images[keys]] if images is not None else [])
    known = pd.concat(every).drop_duplicates().sort_values(keys)
    index = known.set_index(keys).index
    meta = known.reset_index(drop=True).rename(columns={k: META + k for k in keys})
    columns: list[pd.DataFrame] = []
    counts = {}
    for name, table in objects.items():
        skip = {*KEYS, "ObjectNumber", f"{name}_ObjectNumber"}
        numbers = [c for c in table.columns if c not in skip and not str(c).startswith((META, "Image_"))]
        numbers = [c for c in numbers if pd.api.types.is_numeric_dtype(table[c])]
        groups = table.groupby([table[k] for k in keys], sort=True)
        medians = groups[numbers].median().reindex(index)
        columns.append(medians.rename(columns={c: c if c.startswith(f"{name}_") else f"{name}_{c}" for c in numbers}))
        counts[name] = groups.size().reindex(index, fill_value=0).to_numpy(dtype=np.float64)
    if images is not None:
        if images.duplicated(keys).any():
            raise InvalidProfiles(f"images: {int(images.duplicated(keys).sum())} rows repeat an image number")
        described = [c for c in images.columns if str(c).startswith((META, f"Image_{META}"))]
        extra = images.set_index(keys)[described].reindex(index).reset_index(drop=True)
        extra = extra.rename(columns={c: c.removeprefix("Image_") for c in described})
        meta = pd.concat([meta, extra[[c for c in extra.columns if c not in meta.columns]]], axis=1)
    cells = counts.get("Cells", next(iter(counts.values())))
    meta[OUTCOME] = np.where(cells > 0, "ok", "no_cells")
    meta[REASON] = np.where(cells > 0, "", "no cell in the table")
    head = pd.DataFrame({COUNT_CELLS: cells, COUNT_NUCLEI: counts.get("Nuclei", np.full(len(index), np.nan))})
    table = pd.concat([head, *(c.reset_index(drop=True) for c in columns)], axis=1)
    return Profiles(meta, table.to_numpy(dtype=np.float64), tuple(table.columns))


def read_csv_folder(folder: str | Path, objects: Sequence[str] = OBJECTS) -> Profiles:
    """ExportToSpreadsheet: `Nuclei.csv`, `Cells.csv`, `Cytoplasm.csv` and, where it is there, `Image.csv` (gz too)."""
    folder = Path(folder)

    def table(name: str) -> pd.DataFrame | None:
        for path in (folder / f"{name}.csv", folder / f"{name}.csv.gz"):
            if path.exists():
                with readable(path, "a table of text"):
                    return pd.read_csv(path, low_memory=False)
        return None

    found = {name: t for name in objects if (t := table(name)) is not None}
    if not found:
        raise InvalidProfiles(f"folder {folder.name!r} has none of {[f'{o}.csv' for o in objects]} (or .csv.gz)")
    image = table("Image")
    if image is not None and IMAGE not in image.columns:
        if len(image) > 1:
            raise InvalidProfiles("Image.csv has several rows and no ImageNumber: they cannot be told apart")
        image = image.assign(**{IMAGE: next(iter(found.values()))[IMAGE].iloc[0]})
    return fields(found, image)


def read_sqlite(path: str | Path, objects: Sequence[str] = OBJECTS) -> Profiles:
    """ExportToDatabase or cytominer-database: tables Image and one an object (also as `Per_Image`, `Per_Cells` ...)."""
    if not Path(path).exists():
        raise InvalidProfiles(f"path {Path(path).name!r} does not exist")
    with readable(path, "SQLite"), closing(sqlite3.connect(f"file:{Path(path)}?mode=ro", uri=True)) as database:
        names = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}

        def table(name: str) -> pd.DataFrame | None:
            for candidate in (name, f"Per_{name}"):
                if candidate in names:
                    return pd.read_sql_query(f'SELECT * FROM "{candidate}"', database)
            return None

        found = {name: t for name in objects if (t := table(name)) is not None}
        if not found:
            raise InvalidProfiles(f"the database has none of the tables {list(objects)}: it has {sorted(names)}")
        image = table("Image")
    if image is not None and IMAGE not in image.columns:
        image = image.rename(columns={f"Image_{IMAGE}": IMAGE})
    return fields(found, image)


def read_cytotable(path: str | Path, objects: Sequence[str] = OBJECTS) -> Profiles:
    """CytoTable's joined single-cell parquet: one row a cell, columns "<Object>_...", image columns repeated in each
    row."""
    with readable(path, "parquet"):
        table = pd.read_parquet(path)
    renamed = {f"{META}{k}": k for k in KEYS if f"{META}{k}" in table.columns and k not in table.columns}
    table = table.rename(columns=renamed)
    keys = _keys(table)
    found = {o: table[[*keys, *(c for c in table.columns if str(c).startswith(f"{o}_"))]] for o in objects}
    found = {o: t for o, t in found.items() if t.shape[1] > len(keys)}
    described = [c for c in table.columns if str(c).startswith((f"Image_{META}", META))]
    values = table.groupby(keys)[described].nunique(dropna=False)
    steady = [c for c in described if values[c].max() == 1]
    return fields(found, table[[*keys, *steady]].drop_duplicates(keys))


READERS = {"csv": read_csv_folder, "sqlite": read_sqlite, "cytotable": read_cytotable}


def read_cellprofiler(path: str | Path) -> Profiles:
    """A folder of CSV, an `.sqlite` / `.db` file or a `.parquet`, told apart by what they are."""
    path = Path(path)
    if path.is_dir():
        return read_csv_folder(path)
    if path.suffix in (".sqlite", ".db"):
        return read_sqlite(path)
    if path.suffix == ".parquet":
        return read_cytotable(path)
    raise InvalidProfiles(f"path {path.name!r}: expected a folder of CSV, an .sqlite or .db file, or a .parquet")
