"""Effects of a library that were computed before: the results of a batch, or one table of effects, read in pieces.

Every piece is a `Profiles` with Metadata_InChIKey and Metadata_SMILES, in control MADs; memory does not grow with the
library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from profiling.profiles import Profiles
from profiling.tables import read_profiles, split_table
from service.batch.manifest import FILE
from service.batch.plan import part_name
from service.batch.store import Store
from service.batch.tables import read_wide
from service.errors import InvalidRequest, ReferenceMismatch
from service.reference import Reference

NEEDED = ("Metadata_InChIKey", "Metadata_SMILES")


@dataclass(frozen=True)
class LibraryEffects:
    """`pieces()` gives the library from the beginning; `manifest` is that of a batch, or empty for a table."""

    name: str
    pieces: Callable[[], Iterator[Profiles]]
    manifest: Mapping[str, Any]

    def on(self, reference: Reference) -> Iterator[tuple[Profiles, Float[np.ndarray, "n k"]]]:
        """Pieces with their values on the features of the reference library; NaN where a feature is not scored.

        Raises `ReferenceMismatch` for a batch of another model or library, `InvalidRequest` for a missing feature.
        """
        if self.manifest:
            check_library(self.manifest, reference)
        unlike = tuple(self.manifest.get("engine", {}).get("not_scored", ()))
        names = reference.profiles.names
        holes = np.array([bool(unlike) and name.endswith(unlike) for name in names], dtype=bool)
        for piece in self.pieces():
            if len(piece):
                values = piece.features(names).values
                yield piece, np.where(holes, np.nan, values)


def open_library(source: str, options: Mapping[str, Any] | None = None) -> LibraryEffects:
    """The address of a finished batch, or a file of effects (parquet, CSV, ...). Raises `InvalidRequest`."""
    path = Path(source)
    if path.is_file():
        table = read_profiles(path)
        _check(table, path.name)
        return LibraryEffects(path.name, lambda: iter([table]), {})
    store = Store(source, options)
    if not store.has(FILE):
        raise InvalidRequest(
            f"library: {source!r} is neither a file of effects nor a finished batch ({FILE} is missing): finish it "
            "with the same `dopaint batch` command"
        )
    manifest = json.loads(store.get(FILE))

    def pieces() -> Iterator[Profiles]:
        for part in range(int(manifest["counts"]["parts"])):
            found = split_table(read_wide(store.get(part_name(part, "effects"))))
            _check(found, source)
            yield found

    return LibraryEffects(source, pieces, manifest)


def check_library(manifest: Mapping[str, Any], reference: Reference) -> None:
    """Raise `ReferenceMismatch` unless the batch was made with the model and engine that the library answers for."""
    there, here = manifest["provenance"], reference.manifest["hashes"]
    wrong = [name for name in ("model", "encoder", "settings") if there[name] != here[name]]
    if manifest["engine"]["library_engine_hash"] != here["engine"]:
        wrong.append("engine")
    if wrong:
        raise ReferenceMismatch(
            f"library: the batch was made with another {' and '.join(wrong)} than the reference library: give the "
            "model it was made with, or run it again"
        )


def _check(table: Profiles, name: str) -> None:
    missing = [column for column in NEEDED if column not in table.meta.columns]
    if missing:
        raise InvalidRequest(f"library: {name!r} has no column {missing[0]}: give a table with {', '.join(NEEDED)}")
