"""Files and folders that are there whole or not at all: written aside, forced to the disk, renamed into place.

What can be made again, with the same bytes, is not forced to the disk one by one (`sync=False`): a kill loses nothing
of it, a power failure the last seconds. A full disk becomes `StorageFull`; what was there before is still there then.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.errors import StorageFull
from service.faults import point

RETRY_S = 30.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def storage() -> Iterator[None]:
    """Turns "no space left on the device" into `StorageFull`; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull("no space is left on the disk of the results: ask again later", RETRY_S) from error
        raise


def write(path: Path, content: bytes, what: str, *, sync: bool = True) -> None:
    """Puts a file with `content` at `path`; `what` names it at the fault points. Raises `StorageFull`, OSError."""

    def fill(aside: Path) -> None:
        aside.write_bytes(content)

    write_by(path, fill, what, sync=sync)


def write_by(path: Path, fill: Callable[[Path], None], what: str, *, sync: bool = True) -> None:
    """Puts a file at `path` that `fill` writes under the temporary name it is given. Raises as `write`."""
    ending = "".join(path.suffixes)  # some formats look at it
    aside = path.with_name(f".part-{path.name.removesuffix(ending)}{ending}")
    with storage():
        try:
            point(f"{what}: writing")
            fill(aside)
            if sync:
                _sync(aside)
            point(f"{what}: written")
            os.replace(aside, path)
            if sync:
                sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise
        point(f"{what}: in place")


def place_folder(source: Path, target: Path, what: str) -> None:
    """Renames a complete folder into place. A folder that is there already is of an earlier, equal attempt: it goes."""
    with storage():
        point(f"{what}: complete")
        if target.exists():
            remove_folder(target, f"{what}: the one before")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
        sync_folder(target.parent)
        point(f"{what}: in place")


def remove_folder(folder: Path, what: str) -> None:
    """Takes a folder away: out of sight in one step, then file by file. A missing folder is no error."""
    point(f"{what}: removing")
    gone = folder.with_name(f".gone-{folder.name}")
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.replace(folder, gone)
    point(f"{what}: out of sight")
    shutil.rmtree(gone, ignore_errors=True)
    point(f"{what}: removed")


def sync_files(folder: Path) -> None:
    """Forces every file of a folder to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)


def sync_folder(folder: Path) -> None:
    """Forces the names in a folder to the disk."""
    _sync(folder)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; 0 when it is not there."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
