"""Fetch a chosen part of the gallery into a mirror with the same keys: resumable, every file with its checksum.

`pulled.csv` of the mirror names key, bytes and sha256 of every file that is there whole; it grows by one line a file,
so a pull that is stopped goes on where it was. Files are written beside their place and renamed. Where the server's
ETag is an MD5 (files that were uploaded in one part) the bytes are compared with it.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from profiling.gallery import Gallery, GalleryError, RemoteField

LIST = "pulled.csv"
_MD5 = re.compile(r"[0-9a-f]{32}")
ATTEMPTS = 3
CHUNK = 1 << 20


class PullError(ValueError):
    """Raised when a file cannot be fetched whole, or cannot be written."""


@dataclass(frozen=True)
class Subset:
    """What to fetch: plates by name, and of them these wells and sites (empty: all)."""

    source: str
    plates: tuple[str, ...]
    wells: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    channels: tuple[str, ...] = ("DNA", "ER", "RNA", "AGP", "Mito")


def chosen(gallery: Gallery, subset: Subset) -> list[RemoteField]:
    """The fields of a subset. Raises GalleryError when a plate is not there or nothing is left."""
    plates = gallery.plates(subset.source)
    known = set(plates["plate"])
    if missing := [plate for plate in subset.plates if plate not in known]:
        shown = ", ".join(sorted(known)[:10])
        raise GalleryError(f"plate: {missing[0]} is not in {subset.source}; the gallery has {shown} and others")
    mine = plates[plates["plate"].isin(subset.plates)] if subset.plates else plates
    fields = [
        one
        for row in mine.drop_duplicates(["batch", "plate"]).itertuples()
        for one in gallery.fields(subset.source, str(row.batch), str(row.plate), subset.channels)
        if (not subset.wells or one.well in subset.wells) and (not subset.sites or one.site in subset.sites)
    ]
    if not fields:
        raise GalleryError(
            f"subset: no field of wells {subset.wells or 'all'}, sites {subset.sites or 'all'}; choose others"
        )
    return fields


def keys(fields: Iterable[RemoteField], gallery: Gallery) -> list[str]:
    """Keys of all files of these fields, without repeats: load_data tables, pictures, illumination functions."""
    fields = list(fields)
    found: dict[str, None] = {}
    for source, batch, plate in dict.fromkeys((one.source, one.batch, one.plate) for one in fields):
        folder = f"cpg0016-jump/{source}/workspace/load_data_csv/{batch}/{plate}"
        found |= dict.fromkeys(f"{folder}/{name}" for name in gallery.names(folder) if name.startswith("load_data"))
    for one in fields:
        found |= dict.fromkeys((*one.pictures.values(), *one.illumination.values()))
    return list(found)


def already(mirror: Path) -> dict[str, tuple[int, str]]:
    """Bytes and sha256 of every file that the mirror's list names; a line that was cut by a stop is left aside."""
    path = mirror / LIST
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as handle:
        rows = [row for row in csv.reader(handle) if len(row) == 3 and row[1].isdigit() and len(row[2]) == 64]
    return {key: (int(size), digest) for key, size, digest in rows}


def sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def verify(mirror: Path) -> list[str]:
    """Keys of the list whose file is missing or is not what was written."""
    return [
        key
        for key, (size, digest) in already(mirror).items()
        if not (path := mirror / key).is_file() or path.stat().st_size != size or sha256(path) != digest
    ]


def fetch(gallery: Gallery, key: str, mirror: Path) -> tuple[int, str]:
    """Fetch one file; returns its bytes and sha256. Raises PullError after three attempts, or when the disk refuses."""
    target = mirror / key
    part = target.with_name(f"{target.name}.part")
    reason = ""
    for _ in range(ATTEMPTS):
        md5, whole, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
        try:
            about = gallery.fs.info(gallery.path(key), refresh=True) if gallery.root.startswith("s3") else {}
            stream = gallery.fs.open(gallery.path(key), "rb")
        except FileNotFoundError as error:
            raise PullError(
                f"pull: {key} is not in the gallery; its load_data table names a file that is not there"
            ) from error
        except OSError as error:
            reason = str(error)
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle = part.open("wb")
        except OSError as error:
            raise PullError(f"pull: {part} cannot be written ({error}); free some disk and start again") from error
        with stream, handle:
            try:
                while block := stream.read(CHUNK):
                    _write(handle.write, block, part)
                    md5.update(block)
                    whole.update(block)
                    size += len(block)
            except OSError as error:
                reason = str(error)
                continue
        wanted, etag = int(about.get("size", size)), str(about.get("ETag", "")).strip('"')
        if size != wanted:
            reason = f"{size} of {wanted} bytes came"
        elif _MD5.fullmatch(etag) and etag != md5.hexdigest():
            reason = f"its MD5 is {md5.hexdigest()}, the gallery says {etag}"
        else:
            os.replace(part, target)
            return size, whole.hexdigest()
    part.unlink(missing_ok=True)
    raise PullError(f"pull: {key} could not be fetched whole ({reason}); start the same command again")


def _write(write: Callable[[bytes], int], block: bytes, part: Path) -> None:
    try:
        write(block)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise PullError(f"pull: {part} cannot be written ({error}); free some disk and start again") from error


def pull(
    gallery: Gallery,
    subset: Subset,
    mirror: Path,
    workers: int = 8,
    progress: Callable[[int, int, str], None] | None = None,
) -> int:
    """Bring every file of the subset into the mirror; returns how many were fetched now.

    A file that the list names is taken as it is when its size and sha256 are those of the list, and fetched again
    otherwise. Raises GalleryError, PullError.
    """
    fields = chosen(gallery, subset)
    wanted, have = keys(fields, gallery), already(mirror)
    mirror.mkdir(parents=True, exist_ok=True)
    missing: Sequence[str] = [
        key
        for key in wanted
        if key not in have
        or not (path := mirror / key).is_file()
        or path.stat().st_size != have[key][0]
        or sha256(path) != have[key][1]
    ]
    done = len(wanted) - len(missing)
    with (mirror / LIST).open("a", newline="", encoding="utf-8") as handle, ThreadPoolExecutor(workers) as pool:
        writer = csv.writer(handle)
        if handle.tell() and not (mirror / LIST).read_bytes().endswith(b"\n"):
            handle.write("\n")  # the last line was cut by a stop
        try:
            for key, (size, digest) in zip(
                missing, pool.map(lambda k: fetch(gallery, k, mirror), missing), strict=True
            ):
                writer.writerow([key, size, digest])
                handle.flush()
                done += 1
                if progress is not None:
                    progress(done, len(wanted), "fetching")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return len(missing)
