"""Parquet of a batch as bytes: wide tables of features, tables of a fixed schema. Equal content gives equal bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from profiling.profiles import Profiles
from profiling.tables import FEATURES_KEY

CONTROL = "control/profiles.parquet"


def wide(profiles: Profiles, kind: str = "float64") -> bytes:
    """Metadata_ columns, then one column a feature (float64, or float32), in the layout of `profiling.tables`."""
    meta = pa.Table.from_pandas(profiles.meta, preserve_index=False)
    values = np.asarray(profiles.values, dtype=kind)
    columns = [*meta.columns, *(pa.array(np.ascontiguousarray(values[:, i])) for i in range(values.shape[1]))]
    table = pa.Table.from_arrays(columns, names=[*meta.column_names, *profiles.names])
    return _bytes(table.replace_schema_metadata({FEATURES_KEY: json.dumps(profiles.names).encode()}))


def typed(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """Rows of a fixed schema; what a row does not say is null."""
    return _bytes(pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema))


def read_wide(content: bytes) -> pd.DataFrame:
    """The table of `wide` or `typed`."""
    return pq.read_table(io.BytesIO(content)).to_pandas()


def _bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", use_dictionary=False, write_statistics=False)
    return sink.getvalue()
