"""Corrections made elsewhere, read as a step: fastMNN of batchelor, Seurat, scVI, scanorama's own package, and so on.

    [[step]]
    name = "external"
    path = "fastmnn.parquet"      # a table of profiles: parquet, CSV, TSV (gz too) or .h5ad
    key = ["Plate", "Well"]       # columns that name a row in both tables
    method = "fastMNN, batchelor 1.22"

Whatever it was, it saw all rows at once: transductive. Every row here must be there once, and nothing else is taken
from that file than its numbers.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from profiling.profiles import META, InvalidProfiles, Profiles
from profiling.tables import read_profiles


def external(profiles: Profiles, path: str | Path, key: Sequence[str], method: str) -> Profiles:
    """The rows of `profiles`, in their order and with their metadata, with the features of the file at `path`.

    `method` says what made it; it becomes the column `Metadata_Corrected_By`. Raises `InvalidProfiles` for a row that
    the file does not have, or has twice, or where the key does not tell the rows of `profiles` apart.
    """
    if not method.strip():
        raise InvalidProfiles("method is empty: say what made the file, it stands in the result")
    made = read_profiles(path)
    columns = [c if c.startswith(META) else META + c for c in key]
    for name, table in (("profiles", profiles), ("the file", made)):
        if missing := [c for c in columns if c not in table.meta.columns]:
            raise InvalidProfiles(f"key: {name} has no columns {missing}: it has {list(table.meta.columns)}")
        twice = table.meta[columns].astype(str).duplicated()
        if twice.any():
            first = table.meta.loc[twice, columns].iloc[0].to_dict()
            raise InvalidProfiles(f"key {list(key)} names {int(twice.sum())} rows of {name} twice, such as {first}")
    there = made.meta[columns].astype(str).assign(_row=np.arange(len(made)))
    place = profiles.meta[columns].astype(str).merge(there, on=columns, how="left")["_row"]
    if place.isna().any():
        first = profiles.meta.loc[place.isna().to_numpy(), columns].iloc[0].to_dict()
        raise InvalidProfiles(f"the file lacks {int(place.isna().sum())} of {len(profiles)} rows, such as {first}")
    meta = profiles.meta.assign(**{f"{META}Corrected_By": method})
    return Profiles(meta, made.values[place.to_numpy(dtype=int)], made.names)
