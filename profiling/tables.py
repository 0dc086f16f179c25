"""Profiles in and out of files: parquet, CSV or TSV (gz too), AnnData (.h5ad).

A file written here names its features in the parquet metadata, so reading never guesses. In a foreign file
metadata are the columns that begin with `Metadata_` and, where the features are named by the reader, all others.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from profiling.damaged import readable
from profiling.profiles import META, InvalidProfiles, Profiles, with_prefix

FEATURES_KEY = b"dopaint.features"
ANNDATA = ".h5ad"
LARGE = 1_000_000  # cells of a table from which Arrow writes it, an order of magnitude faster than pandas
READABLE = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")


def split_table(table: pd.DataFrame, features: Sequence[str] | None = None) -> Profiles:
    """A flat table -> Profiles, given which columns are features.

    Without `features` they are the columns that do not begin with `Metadata_`; all must be numbers, else
    `InvalidProfiles` names the columns. With `features` every other column becomes metadata under the prefix
    `Metadata_`.
    """
    table = table.reset_index(drop=True)
    if features is None:
        features = [c for c in table.columns if not str(c).startswith(META)]
        if wrong := [c for c in features if not pd.api.types.is_numeric_dtype(table[c])]:
            raise InvalidProfiles(
                f"columns {wrong[:5]} are not numbers and do not begin with {META!r}: rename them or name the features"
            )
    if missing := [c for c in features if c not in table.columns]:
        raise InvalidProfiles(f"features: {len(missing)} columns are not in the table, first {missing[:5]}")
    chosen = set(features)
    meta = with_prefix(table[[c for c in table.columns if c not in chosen]])
    return Profiles(meta, table[list(features)].to_numpy(dtype=np.float64), tuple(features))


def read_profiles(path: str | Path, features: Sequence[str] | None = None) -> Profiles:
    """A parquet, CSV or TSV file (gz too) -> Profiles. `features` as in `split_table`; a file of ours names its own."""
    path = Path(path)
    name = path.name.lower()
    if name.endswith(ANNDATA):
        return _chosen(read_anndata(path), features)
    if not name.endswith(READABLE):
        raise InvalidProfiles(
            f"path {path.name!r} has an unknown ending: expected one of {', '.join((*READABLE, ANNDATA))}"
        )
    if not path.is_file():
        raise InvalidProfiles(f"path {str(path)!r} does not exist: expected a file of profiles")
    if name.endswith(".parquet"):
        with readable(path, "parquet"):
            table = pq.read_table(path)
        stored = (table.schema.metadata or {}).get(FEATURES_KEY)
        if features is None and stored is not None:
            features = json.loads(stored)
        return split_table(table.to_pandas(), features)
    separator = "," if ".csv" in name else "\t"
    with readable(path, "a table of text"):
        rows = pd.read_csv(path, sep=separator, low_memory=False)
    return split_table(rows, features)


def read_table(path: str | Path) -> pd.DataFrame:
    """Any table, such as labels of compounds: parquet, CSV or TSV (gz too), told apart by the ending."""
    path = Path(path)
    name = path.name.lower()
    if not name.endswith(READABLE):
        raise InvalidProfiles(f"path {path.name!r} has an unknown ending: expected one of {', '.join(READABLE)}")
    if not path.is_file():
        raise InvalidProfiles(f"path {str(path)!r} does not exist: expected a file")
    if name.endswith(".parquet"):
        with readable(path, "parquet"):
            return pd.read_parquet(path)
    with readable(path, "a table of text"):
        return pd.read_csv(path, sep="," if ".csv" in name else "\t", low_memory=False)


def _chosen(profiles: Profiles, features: Sequence[str] | None) -> Profiles:
    return profiles if features is None else profiles.features(features)


def write_profiles(profiles: Profiles, path: str | Path) -> None:
    """Profiles -> parquet, one column each for metadata and features; the features are named in the file's metadata.

    A path that ends in .h5ad, .csv or .tsv (gz too) gives that format instead.
    """
    name = Path(path).name.lower()
    if name.endswith(ANNDATA):
        _write_anndata(profiles, path)
        return
    if not name.endswith(".parquet"):
        write_table(
            pd.concat([profiles.meta, pd.DataFrame(profiles.values, columns=list(profiles.names))], axis=1), path
        )
        return
    meta = pa.Table.from_pandas(profiles.meta, preserve_index=False)
    columns = [*meta.columns, *(pa.array(profiles.values[:, i]) for i in range(len(profiles.names)))]
    table = pa.Table.from_arrays(columns, names=[*meta.column_names, *profiles.names])
    pq.write_table(table.replace_schema_metadata({FEATURES_KEY: json.dumps(profiles.names).encode()}), Path(path))


def _write_anndata(profiles: Profiles, path: str | Path) -> None:
    made = to_anndata(profiles)
    for name in made.obs.select_dtypes(object).columns:  # .h5ad holds columns of one kind only; none reads as ""
        made.obs[name] = made.obs[name].astype("string").fillna("").astype(object)
    made.write_h5ad(path)


def to_anndata(profiles: Profiles) -> Any:
    """Profiles -> AnnData: `obs` is the metadata, `var_names` the features, `X` the values. Needs the package
    anndata."""
    import anndata

    obs = profiles.meta.copy()
    obs.index = pd.Index([str(i) for i in range(len(obs))])
    return anndata.AnnData(X=profiles.values.copy(), obs=obs, var=pd.DataFrame(index=pd.Index(profiles.names)))


def read_anndata(path: str | Path) -> Profiles:
    """An .h5ad file -> Profiles."""
    if not Path(path).is_file():
        raise InvalidProfiles(f"path {str(path)!r} does not exist: expected an .h5ad file")
    import anndata

    try:
        stored = anndata.read_h5ad(path)
    except OSError as error:  # what HDF5 says of a file that is none, or cut short
        raise InvalidProfiles(
            f"path {str(path)!r} cannot be read as .h5ad: it is damaged, cut short or of another kind; make it again"
        ) from error
    return from_anndata(stored)


def from_anndata(data: Any) -> Profiles:
    """AnnData -> Profiles. Columns of `obs` get the prefix `Metadata_` where it is missing; a sparse `X` is made
    dense."""
    values = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
    meta = with_prefix(pd.DataFrame(data.obs)).reset_index(drop=True)
    return Profiles(meta, values.astype(np.float64), tuple(str(n) for n in data.var_names))


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """A table to parquet, CSV or TSV (gz too), by the ending of the path."""
    path = Path(path)
    name = path.name.lower()
    if not name.endswith(READABLE):
        raise InvalidProfiles(f"path {path.name!r} has an unknown ending: expected one of {', '.join(READABLE)}")
    if name.endswith(".parquet"):
        table.to_parquet(path, index=False)
        return
    separator = "," if ".csv" in name else "\t"
    if table.size < LARGE:
        table.to_csv(path, sep=separator, index=False)
        return
    words = table.select_dtypes(bool).columns
    plain = pa.Table.from_pandas(table.assign(**{c: table[c].astype(str) for c in words}), preserve_index=False)
    with pa.output_stream(path) as file:  # compresses by the ending
        pa_csv.write_csv(plain, file, pa_csv.WriteOptions(delimiter=separator, quoting_style="needed"))
