"""Finished fields on disk, so that a run that was stopped goes on where it was: one small file a field.

A file is written beside its place and then moved there, so it is whole or not there, also after `kill -9` or a power
cut. Names of columns, the same for thousands of fields, are stored once a set.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from profiling.engines.measurement import ObjectTable

TEMPORARY = ".tmp"


@dataclass(frozen=True)
class Finished:
    """What became of one field: an outcome of `outcomes.OUTCOMES`, why, its tables of objects, and numbers of the
    whole picture."""

    outcome: str
    reason: str = ""
    objects: Mapping[str, ObjectTable] = field(default_factory=dict)
    image: Mapping[str, float] = field(default_factory=dict)


class Shards:
    """The finished fields of one run; `folder` is made if it is not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._columns: dict[str, dict[str, tuple[str, ...]]] = {}
        _sweep(folder)

    def has(self, key: str) -> bool:
        """Whether the field is finished."""
        return self._path(key).is_file()

    def save(self, key: str, finished: Finished) -> None:
        """Keeps a finished field: all of it, or nothing."""
        columns = {name: list(table.names) for name, table in finished.objects.items()}
        text = json.dumps(columns)  # the order of the objects is the order of the columns
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        names = self._folder / f"columns-{digest}.json"
        if not names.is_file():
            write_whole(names, text.encode())
        info = {
            "outcome": finished.outcome,
            "reason": finished.reason,
            "image": dict(finished.image),
            "columns": digest,
        }
        arrays = {f"values/{name}": table.values for name, table in finished.objects.items()}
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        temporary = _temporary(path)
        with temporary.open("wb") as file:
            np.savez(file, info=np.frombuffer(json.dumps(info).encode(), np.uint8), **arrays)  # type: ignore[arg-type]  # the stub takes names for allow_pickle
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def load(self, key: str) -> Finished | None:
        """The finished field, or None: not finished, or damaged on disk after it was written."""
        try:
            with self._path(key).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                info = json.loads(archive["info"].tobytes())
                names = self._names(info["columns"])
                objects = {name: ObjectTable(columns, archive[f"values/{name}"]) for name, columns in names.items()}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        return Finished(info["outcome"], info["reason"], objects, info["image"])

    def drop(self, key: str) -> None:
        """Forgets a field."""
        self._path(key).unlink(missing_ok=True)

    def _names(self, digest: str) -> dict[str, tuple[str, ...]]:
        if digest not in self._columns:
            stored = json.loads((self._folder / f"columns-{digest}.json").read_bytes())
            self._columns[digest] = {name: tuple(columns) for name, columns in stored.items()}
        return self._columns[digest]

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.npz"


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    temporary = _temporary(path)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")


def _sweep(folder: Path) -> None:
    """Removes what a killed process left half written; a process that lives may still be writing."""
    for path in folder.rglob(f"*{TEMPORARY}"):
        writer = path.name.removesuffix(TEMPORARY).rpartition(".")[2]
        if not (writer.isdigit() and Path(f"/proc/{writer}").is_dir()):
            path.unlink(missing_ok=True)
