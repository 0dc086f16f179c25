"""Files of molecules, read one entry at a time: CSV and TSV, SMILES, SDF, each also compressed (.gz).

Every entry of the file gives one record, readable or not: a blank line of a SMILES file and an SDF entry without atoms
are records too, so that what goes out can be laid beside what came in.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from chem.molecule import MAX_BLOCK_CHARACTERS

SMILES_COLUMNS = (
    "smiles", "canonical_smiles", "isomeric_smiles", "metadata_smiles", "smiles_original", "smiles_standardized",
    "structure",
)  # fmt: skip
NAME_COLUMNS = ("name", "id", "compound", "compound_id", "metadata_jcp2022", "broad_id", "pert_iname", "inchikey")
DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
LISTS = (".smi", ".smiles", ".ism", ".txt")
TABLES = (".sdf", ".sd", ".mol")
_LONGEST_FIELD = 2**31 - 1


class RecordsError(ValueError):
    """A file that cannot be read as a list of molecules; the message says why and what to do."""


class Record(NamedTuple):
    """One entry: its number from 1, its name if it has one, what is to be read, and whether that is "smiles" or
    "block" (a mol block).
    """

    row: int
    name: str
    text: str
    kind: str


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], io.TextIOWrapper]]:
    """The file as (bytes on disk, text): `tell` of the first says how far the reading is.

    Letters that are not UTF-8 become U+FFFD, so that they are refused by place. Raises `RecordsError` when the file is
    missing or its compression broken.
    """
    if not path.is_file():
        raise RecordsError(
            f"file {str(path)!r} does not exist: give a CSV, SMILES or SDF file, or one of them with .gz."
        )
    with path.open("rb") as raw:
        packed = path.suffix.lower() == ".gz"
        stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        try:
            yield raw, io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise RecordsError(f"file {path.name!r} is no whole gzip file ({error}): get it again.") from error


def records(
    path: Path,
    text: io.TextIOWrapper,
    column: str | None = None,
    name_column: str | None = None,
    *,
    blank_lines: bool = False,
) -> Iterator[Record]:
    """The records of an opened file; which kind it is says its name.

    column, name_column: of a CSV or TSV, by default the first of the usual names. blank_lines: whether a line of a CSV
    or TSV without anything in it is an entry too, and counted. Raises `RecordsError` for another
    kind of file, or when there is no such column.
    """
    kind = kind_of(path)
    if kind in DELIMITERS:
        return _table(text, DELIMITERS[kind], column, name_column, blank_lines)
    if column or name_column:
        raise RecordsError(f"file {path.name!r} has no columns: leave the column out, or give a CSV or TSV.")
    return _list(text) if kind in LISTS else _blocks(text)


def kind_of(path: Path) -> str:
    """The ending that says how to read the file, without .gz. Raises `RecordsError` for an unknown one."""
    endings = [ending.lower() for ending in path.suffixes]
    kind = (endings[:-1] if endings[-1:] == [".gz"] else endings)[-1:]
    known = (*DELIMITERS, *LISTS, *TABLES)
    if not kind or kind[0] not in known:
        raise RecordsError(f"file {path.name!r} ends with none of {', '.join(known)}, each also with .gz: rename it.")
    return kind[0]


def _table(
    text: io.TextIOWrapper, delimiter: str, column: str | None, name_column: str | None, blank_lines: bool
) -> Iterator[Record]:
    before = csv.field_size_limit(_LONGEST_FIELD)  # a field too long for a SMILES is refused as such, row by row
    try:
        rows = csv.reader(text, delimiter=delimiter)
        header = next(rows, [])
        place = _column(header, column, SMILES_COLUMNS)
        if place is None:
            raise RecordsError(f"columns are {', '.join(header) or 'none'}: name the one that holds the SMILES.")
        named = _column(header, name_column, NAME_COLUMNS)
        if name_column and named is None:
            raise RecordsError(f"there is no column {name_column!r}: the columns are {', '.join(header)}.")
        try:
            for row, fields in enumerate(rows if blank_lines else filter(None, rows), start=1):
                name = fields[named] if named is not None and named < len(fields) else ""
                yield Record(row, name, fields[place] if place < len(fields) else "", "smiles")
        except csv.Error as error:
            raise RecordsError(f"line {rows.line_num} is not CSV ({error}): correct the file.") from error
    finally:
        csv.field_size_limit(before)


def _column(header: list[str], asked: str | None, usual: tuple[str, ...]) -> int | None:
    if asked is not None:
        return header.index(asked) if asked in header else None
    lower = [name.strip().lower() for name in header]
    return next((lower.index(name) for name in usual if name in lower), None)


def _list(text: io.TextIOWrapper) -> Iterator[Record]:
    """Lines `SMILES`, `SMILES name` or `SMILES |extension| name`."""
    for row, line in enumerate(text, start=1):
        smiles, _, rest = line.strip().replace("\t", " ").partition(" ")
        rest = rest.strip()
        end = rest.find("|", 1) if rest.startswith("|") else -1
        if end > 0:
            smiles, rest = f"{smiles} {rest[: end + 1]}", rest[end + 1 :].strip()
        yield Record(row, rest, smiles, "smiles")


def _blocks(text: io.TextIOWrapper) -> Iterator[Record]:
    """Entries of an SDF up to their data fields; what is longer than a mol block may be is cut there and refused."""
    lines: list[str] = []
    row, size, wanted, blank = 1, 0, True, True
    for line in text:
        if line.startswith("$$$$"):
            yield _block(row, lines)
            row, lines, size, wanted, blank = row + 1, [], 0, True, True
            continue
        blank = blank and not line.strip()
        if wanted and size <= MAX_BLOCK_CHARACTERS:
            lines.append(line)
            size += len(line)
        wanted = wanted and not line.startswith("M  END")
    if not blank:
        yield _block(row, lines)


def _block(row: int, lines: list[str]) -> Record:
    return Record(row, lines[0].strip() if lines else "", "".join(lines).replace("\r\n", "\n"), "block")
