"""A folder as a zip that is sent while it is made: nothing is written to disk, and memory holds one piece at a time.

Entries are stored as they are, since pictures and parquet files are compressed already; their time is fixed, so the
same folder gives the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

PIECE = 256 * 1024
_WHEN = (1980, 1, 1, 0, 0, 0)


class _Pipe(io.RawIOBase):
    """What zipfile writes to; it cannot seek, so sizes and checksums follow each entry."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self._parts.append(piece)
        return len(piece)

    def taken(self) -> bytes:
        parts, self._parts = b"".join(self._parts), []
        return parts


def files_of(folder: Path) -> list[Path]:
    """The files of a result folder; links, and names with a leading dot (still being written), are left out."""
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not path.is_symlink() and not any(part.startswith(".") for part in parts):
            found.append(path)
    return found


def zipped(folder: Path, name: str) -> Iterator[bytes]:
    """The zip of a folder, in pieces; every entry lies below `name`."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path in files_of(folder):
            entry = zipfile.ZipInfo(f"{name}/{path.relative_to(folder).as_posix()}", _WHEN)
            entry.external_attr = 0o644 << 16
            try:
                source = path.open("rb")
            except FileNotFoundError:  # results that expire meanwhile end the list, not the answer
                continue
            with source, archive.open(entry, "w", force_zip64=True) as target:
                while piece := source.read(PIECE):
                    target.write(piece)
                    yield pipe.taken()
            yield pipe.taken()
    yield pipe.taken()
