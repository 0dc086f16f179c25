"""Tables of three levels from finished fields: single cells, fields (median over cells), wells (mean over fields).

Rows are written as they come, a few hundred fields at a time: a screen need not fit into memory. Every field keeps its
row in the field table, whatever became of it, and is counted in its well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from profiling.engines.measurement import ObjectTable
from profiling.profiles import COUNT_CELLS, COUNT_NUCLEI, META, InvalidProfiles, Profiles, aggregate, nan_median
from profiling.shards import Finished
from profiling.tables import FEATURES_KEY

#: From fine to coarse.
LEVELS = ("cell", "field", "well")
OUTCOME, REASON, FLAGS = META + "Outcome", META + "Reason", META + "Flags"
OBJECT_NUMBER = META + "ObjectNumber"
FLUSH_FIELDS = 256
FLUSH_CELLS = 4096
#: Metadata that tell the fields of a well apart.
WITHIN_WELL = ("Site", "Field")

Columns = Mapping[str, tuple[str, ...]]


def paths(out: Path, levels: Sequence[str]) -> dict[str, Path]:
    """Where each level goes: the coarsest to `out`, finer ones beside it as `<name>.field.parquet` and so on."""
    check_levels(levels)
    chosen = [level for level in LEVELS if level in levels]
    finer = {level: out.with_name(f"{out.stem}.{level}{out.suffix}") for level in chosen[:-1]}
    return {**finer, chosen[-1]: out}


def check_levels(levels: Sequence[str]) -> None:
    """Raises InvalidProfiles for no level, or one of an unknown name."""
    if not levels or set(levels) - set(LEVELS):
        raise InvalidProfiles(f"level: got {', '.join(levels) or 'none'}, expected some of {', '.join(LEVELS)}")


def check_wells(levels: Iterable[str], meta: Sequence[str]) -> None:
    """Raises InvalidProfiles if wells are asked for and fields do not say theirs."""
    if "well" in levels and "Well" not in meta:
        raise InvalidProfiles(
            f"level: fields have no Well, only {', '.join(meta) or 'no metadata'}: ask for --level field, or name "
            "{well} in the pattern"
        )


def cell_rows(finished: Finished) -> tuple[np.ndarray, Float[np.ndarray, "n k"]]:
    """The cells of one field as rows: their numbers (from 1), and the columns of all objects side by side.

    A row is an object of "Cells" (of the only object where there are no cells); its nucleus and its cytoplasm are found
    by the engine's Parent_ columns, NaN where it has none.

    Raises:
        InvalidProfiles: several kinds of objects that no Parent_ column ties together.
    """
    main = "Cells" if "Cells" in finished.objects else next(iter(finished.objects))
    table = finished.objects[main]
    parts = []
    for name, other in finished.objects.items():
        if name == main:
            parts.append(table.values)
            continue
        at = _partners(main, table, name, other)
        rows = np.full((len(table.values), len(other.names)), np.nan)
        rows[at >= 0] = other.values[at[at >= 0]]
        parts.append(rows)
    return np.arange(1, len(table.values) + 1), np.concatenate(parts, axis=1)


def _partners(main: str, table: ObjectTable, name: str, other: ObjectTable) -> np.ndarray:
    """For each row of `main` the row of `other` that belongs to it, -1 for none."""
    if f"Parent_{name}" in table.names:
        parent = table.values[:, table.names.index(f"Parent_{name}")]
        at = np.nan_to_num(parent).astype(int) - 1
        return np.where(at < len(other.values), at, -1)
    if f"Parent_{main}" in other.names:
        parent = other.values[:, other.names.index(f"Parent_{main}")]
        owner = np.nan_to_num(parent).astype(int) - 1
        at = np.full(len(table.values), -1)
        inside = (owner >= 0) & (owner < len(at))
        at[owner[inside]] = np.flatnonzero(inside)
        return at
    raise InvalidProfiles(
        f"level: no column ties {name} to {main} (neither Parent_{name} nor Parent_{main}), so cells have no rows; ask "
        "for --level field,well"
    )


def feature_names(columns: Columns) -> tuple[str, ...]:
    """Features of the field table: the counts, then "<Object>_<feature>" in the engine's order."""
    own = [f"{name}_{feature}" for name, features in columns.items() for feature in features]
    return (COUNT_CELLS, COUNT_NUCLEI, *own)


def field_row(finished: Finished, columns: Columns) -> Float[np.ndarray, " k"]:
    """The counts, then the median over the cells of one field; NaN where it was not measured or has no cell.

    Raises:
        InvalidProfiles: the field has other columns than `columns`; an engine must name the same ones always.
    """
    if not finished.objects:
        return np.full(2 + sum(map(len, columns.values())), np.nan)
    if {name: table.names for name, table in finished.objects.items()} != dict(columns):
        raise InvalidProfiles("fields have different columns: they were not measured by one engine with one setting")
    counts = [float(len(finished.objects[o].values)) if o in finished.objects else np.nan for o in ("Cells", "Nuclei")]
    return np.concatenate([counts, *(nan_median(finished.objects[name].values) for name in columns)])


class Tables:
    """Writes the levels asked for, field by field; a context manager. Files are whole or not there."""

    def __init__(self, places: Mapping[str, Path], columns: Columns, meta: Sequence[str]) -> None:
        self._places, self._columns = places, columns
        self._names = feature_names(columns)
        self._cell_names = tuple(n for n in self._names if n not in (COUNT_CELLS, COUNT_NUCLEI))
        self._meta = list(meta)
        self._by = [name for name in meta if name not in WITHIN_WELL]
        check_wells(places, meta)
        self._fields: list[tuple[dict[str, str], Float[np.ndarray, " k"], bool]] = []
        self._cells: list[tuple[dict[str, str], np.ndarray, Float[np.ndarray, "n k"]]] = []
        self._last_well: list[str | None] = []
        self.wells = 0

    def __enter__(self) -> Tables:
        self._stack = ExitStack()
        self._writers = {
            level: self._stack.enter_context(_Parquet(path, self._names if level != "cell" else self._cell_names))
            for level, path in self._places.items()
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush_fields()
            self._flush_cells()
        self._stack.__exit__(kind, error, trace)

    def add(
        self, meta: Mapping[str, str], finished: Finished, flags: Sequence[str] = (), excluded: bool = False
    ) -> None:
        """The next field, in order. `flags` of quality control; `excluded`: counted in its well, not averaged there."""
        told = {META + name: meta[name] for name in self._meta}
        well = [meta.get(name) for name in self._by]
        if len(self._fields) >= FLUSH_FIELDS and well != self._last_well:
            self._flush_fields()
        self._last_well = well
        fate = {OUTCOME: finished.outcome, REASON: finished.reason, FLAGS: " ".join(flags)}
        if {"field", "well"} & self._places.keys():
            self._fields.append(({**told, **fate}, field_row(finished, self._columns), excluded))
        if "cell" in self._places and finished.objects:
            numbers, values = cell_rows(finished)
            self._cells.append((told, numbers, values))
            if sum(len(one[1]) for one in self._cells) >= FLUSH_CELLS:
                self._flush_cells()

    def _flush_fields(self) -> None:
        if not self._fields and self._writers.keys() == {"cell"}:
            return
        frame = pd.DataFrame([row for row, _, _ in self._fields], columns=[*self._told(), OUTCOME, REASON, FLAGS])
        values = np.array([row for _, row, _ in self._fields]).reshape(len(self._fields), len(self._names))
        if "field" in self._writers:
            self._writers["field"].write(Profiles(frame, values, self._names))
        if "well" in self._writers and len(frame):
            keys = [META + name for name in self._by]
            use = ~np.array([excluded for _, _, excluded in self._fields])
            wells = aggregate(Profiles(frame[keys], values, self._names), keys, use=use)
            self.wells += len(wells)
            self._writers["well"].write(wells)
        self._fields.clear()

    def _flush_cells(self) -> None:
        if "cell" not in self._writers:
            return
        rows = [{**told, OBJECT_NUMBER: int(n)} for told, numbers, _ in self._cells for n in numbers]
        frame = pd.DataFrame(rows, columns=[*self._told(), OBJECT_NUMBER])
        parts = [values for _, _, values in self._cells]
        values = np.concatenate(parts) if parts else np.empty((0, len(self._cell_names)))
        self._writers["cell"].write(Profiles(frame.astype({OBJECT_NUMBER: np.int64}), values, self._cell_names))
        self._cells.clear()

    def _told(self) -> list[str]:
        return [META + name for name in self._meta]


class _Parquet:
    """One parquet file of profiles, written in row groups and moved to its place when it is whole."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._path, self._names = path, names
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._writer: Any = None

    def __enter__(self) -> _Parquet:
        return self

    def write(self, profiles: Profiles) -> None:
        """One row group."""
        meta = pa.Table.from_pandas(profiles.meta, preserve_index=False)
        columns = [*meta.columns, *(pa.array(profiles.values[:, i]) for i in range(len(self._names)))]
        table = pa.Table.from_arrays(columns, names=[*meta.column_names, *self._names])
        table = table.replace_schema_metadata({FEATURES_KEY: json.dumps(self._names).encode()})
        if self._writer is None:
            self._schema = pa.schema(
                [pa.field(f.name, pa.string() if pa.types.is_null(f.type) else f.type) for f in table.schema],
                metadata=table.schema.metadata,
            )
            self._writer = pq.ParquetWriter(self._temporary, self._schema)
        self._writer.write_table(table.cast(self._schema))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
            if error is None:
                self._temporary.replace(self._path)
            else:
                self._temporary.unlink(missing_ok=True)
