"""CellProfiler's LoadData tables: one row a field, `FileName_X` and `PathName_X` (or `URL_X`) for each channel X.

CSV (gz too) or parquet. Columns `Metadata_...` become metadata; "Orig" before a channel's name is dropped; columns of
illumination functions are left aside. Tables are often moved away from their pictures: a path that does not exist is
looked for below `root`, by ever shorter ends of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

import pandas as pd

from profiling.inputs.field import FieldSet, InvalidInput, Plane, field_set, rename_channels

ENDINGS = (".csv", ".csv.gz", ".parquet")
META = "Metadata_"
_FILE = re.compile(r"(?:Image_)?(?:FileName|URL)_(?:Orig)?(?P<channel>\w+)")
#: Metadata that name a field; a LoadData table may hold dozens of others about the microscope.
KEYS = ("Source", "Batch", "Plate", "Well", "Site")


def read(
    path: Path,
    root: Path | None = None,
    channels: Mapping[str, str] | Sequence[str] | None = None,
    extra: Mapping[str, str] | None = None,
    keep: Sequence[str] = (),
) -> FieldSet:
    """The fields of one table.

    `root`: where the pictures are, if not where the table says; default: the table's own folder. `channels`: the
    channels to read, as names or name → the table's own name. `extra`: metadata for all rows. `keep`: further metadata
    columns beside Source, Batch, Plate, Well and Site.

    Raises:
        InvalidInput: no such table, no `FileName_` columns, no metadata, or not one of its pictures exists.
    """
    found = rows(read_table(path), path, [root or path.parent], channels, extra or {}, keep)
    planes = [plane for _, planes_of in found for plane in planes_of.values()]
    if planes and not any(plane.path.is_file() for plane in planes):
        raise InvalidInput(
            f"load data: none of the {len(planes)} pictures of {path.name} exists, for example {planes[0].path}: say "
            "with --root where they are"
        )
    return field_set(found, what=str(path))


def read_table(path: Path) -> pd.DataFrame:
    """The table as text. Raises InvalidInput for a file that is not there or of another kind."""
    if not path.is_file() or not path.name.lower().endswith(ENDINGS):
        raise InvalidInput(f"load data: {path} is no file that ends in {', '.join(ENDINGS)}")
    if path.name.lower().endswith(".parquet"):
        return pd.read_parquet(path).astype(str)
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def rows(
    table: pd.DataFrame,
    path: Path,
    roots: Sequence[Path],
    channels: Mapping[str, str] | Sequence[str] | None,
    extra: Mapping[str, str],
    keep: Sequence[str] = (),
) -> list[tuple[dict[str, str], dict[str, Plane]]]:
    """Metadata and planes of each row; pictures are looked for below each of `roots`. Raises InvalidInput as `read`
    does."""
    columns: dict[str, str] = {}
    for column in table.columns:
        match = _FILE.fullmatch(str(column))
        if match and not match["channel"].startswith("Illum"):
            columns.setdefault(match["channel"], str(column))
    if not columns:
        raise InvalidInput(f"load data: {path.name} has no column FileName_<channel> or URL_<channel>")
    wanted = channels if channels is None or isinstance(channels, Mapping) else {name: name for name in channels}
    names_of = rename_channels(wanted, columns, path.name)
    described = [name for name in (*KEYS, *keep) if META + name in table.columns]
    if absent := [name for name in keep if name not in described]:
        raise InvalidInput(f"load data: {path.name} has no column {META}{absent[0]}")
    if not described and not extra:
        raise InvalidInput(f"load data: {path.name} has none of the columns {', '.join(META + k for k in KEYS)}")
    place = _Finder(roots)
    found = []
    for row in table.to_dict("records"):
        meta = {name: str(row[META + name]) for name in described}
        planes = {}
        for token, name in names_of.items():
            column = columns[token]
            if text := str(row[column]):
                folder = str(row.get(column.replace("FileName_", "PathName_"), "")) if "FileName_" in column else ""
                planes[name] = Plane(place(folder, text))
        found.append(({**extra, **meta}, planes))
    return found


class _Finder:
    """Where a picture is: where the table says, else below the roots by ever shorter ends of its folder's path."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._folders: dict[str, Path] = {}

    def __call__(self, folder: str, name: str) -> Path:
        if "://" in name:
            address = urlparse(name)
            folder, _, name = unquote(address.netloc.removesuffix(":") + address.path).rpartition("/")
        if folder not in self._folders:
            stated = Path(folder.partition("://")[2] or folder)
            if (
                found := self._find(stated, name)
            ) is None:  # this one is missing; the next one of the folder may not be
                return (stated if stated.is_absolute() else self._roots[0] / stated) / name
            self._folders[folder] = found
        return self._folders[folder] / name

    def _find(self, stated: Path, name: str) -> Path | None:
        if stated.is_absolute() and (stated / name).is_file():
            return stated
        parts = [part for part in stated.parts if part != stated.anchor]
        tried = (root.joinpath(*parts[k:]) for root in self._roots for k in range(len(parts) + 1))
        return next((folder for folder in tried if (folder / name).is_file()), None)
