"""The entries of a file of molecules, one at a time: what `chem.records` reads, and parquet.

Every entry gives one record with its number from 1, blank lines included, so that each can be answered for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from chem.records import NAME_COLUMNS, SMILES_COLUMNS, Record, RecordsError, kind_of, opened, records

PARQUET = (".parquet", ".pq")
ROWS_AT_ONCE = 10_000


def read_entries(source: Path, column: str | None = None, name_column: str | None = None) -> Iterator[Record]:
    """Records of a CSV, TSV, SMILES, SDF (each also .gz) or parquet file, memory bounded.

    Raises `RecordsError`: missing, of an unknown kind, broken, or without the column.
    """
    if source.suffix.lower() in PARQUET:
        yield from _parquet(source, column, name_column)
        return
    kind_of(source)
    with opened(source) as (_, text):
        yield from records(source, text, column, name_column, blank_lines=True)


def source_digest(source: Path) -> str:
    """sha256 of the file. Raises `RecordsError` when it is missing."""
    try:
        with source.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise RecordsError(
            f"file {str(source)!r} cannot be read ({error.strerror}): give a file of molecules."
        ) from error


def _parquet(source: Path, column: str | None, name_column: str | None) -> Iterator[Record]:
    try:
        file = pq.ParquetFile(source)
    except (OSError, pa.ArrowInvalid) as error:
        raise RecordsError(f"file {source.name!r} is no parquet file that can be read ({error}).") from error
    with file:
        columns = [str(name) for name in file.schema_arrow.names]
        place = _column(columns, column, SMILES_COLUMNS)
        if place is None:
            raise RecordsError(f"columns are {', '.join(columns) or 'none'}: name the one that holds the SMILES.")
        named = _column(columns, name_column, NAME_COLUMNS)
        if name_column and named is None:
            raise RecordsError(f"there is no column {name_column!r}: the columns are {', '.join(columns)}.")
        row = 0
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=[place, *([named] if named else [])]):
            names = batch.column(1).to_pylist() if named and named != place else [None] * len(batch)
            for text, name in zip(batch.column(0).to_pylist(), names, strict=True):
                row += 1
                yield Record(row, "" if name is None else str(name), "" if text is None else str(text), "smiles")


def _column(columns: list[str], asked: str | None, usual: tuple[str, ...]) -> str | None:
    if asked is not None:
        return asked if asked in columns else None
    lower = {name.strip().lower(): name for name in columns}
    return next((lower[name] for name in usual if name in lower), None)
