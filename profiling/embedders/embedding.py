"""The slot for learned engines: what an embedder is, and how its vectors become measurements.

An embedder is an engine like any other (`measure`: pictures in, one FieldMeasurement a picture out), so that whatever
reads profiles reads embeddings. Vectors of a whole field are one row of the object "Field"; vectors of cells are rows
of the object "Cells". Their columns are `<embedder>_000`, `<embedder>_001`, ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from profiling.engines.measurement import FieldMeasurement, ObjectTable

FIELD = "Field"
CELLS = "Cells"


class InvalidEmbedder(ValueError):
    """No embedder of that name, a folder that does not hold its weights, or pictures it cannot take."""


@runtime_checkable
class Embedder(Protocol):
    """A loaded model: a context manager that holds whatever it needs (weights, a device, processes).

    `hash` is a sha256 of everything that determines a number: weights, architecture, preprocessing.
    """

    @property
    def hash(self) -> str: ...

    def __enter__(self) -> Embedder: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def measure(
        self,
        pictures: Float32[np.ndarray, "n c h w"],
        channels: Sequence[str],
        progress: Callable[[int], None] | None = None,
    ) -> list[FieldMeasurement]:
        """One FieldMeasurement a picture, in order; `pictures` in [0, 1]. The vector of a picture depends on that
        picture alone, never on the others of the call. `progress` is told how many are done."""
        ...


#: Makes an embedder from the folder of its weights; None for one that has none.
Loader = Callable[[Path | None], Embedder]


def column_names(embedder: str, k: int) -> tuple[str, ...]:
    """`<embedder>_000` to k - 1; at least three digits, so that names sort as numbers."""
    digits = max(3, len(str(k - 1)))
    return tuple(f"{embedder}_{i:0{digits}d}" for i in range(k))


def field_vector(embedder: str, vector: Float[np.ndarray, " k"]) -> FieldMeasurement:
    """The vector of a whole field as a measurement."""
    return FieldMeasurement("ok", objects={FIELD: _table(embedder, vector[None])})


def cell_vectors(embedder: str, vectors: Float[np.ndarray, "n k"]) -> FieldMeasurement:
    """Vectors of the n cells of a field as a measurement; "no_cells" where n is 0 (k must be right all the same)."""
    outcome, reason = ("ok", "") if len(vectors) else ("no_cells", f"no {CELLS} found")
    return FieldMeasurement(outcome, reason, objects={CELLS: _table(embedder, vectors)})  # type: ignore[arg-type]


def _table(embedder: str, vectors: np.ndarray) -> ObjectTable:
    return ObjectTable(column_names(embedder, vectors.shape[1]), vectors.astype(np.float64))


def check_pictures(pictures: np.ndarray, channels: Sequence[str]) -> None:
    """Refuses what is no batch of pictures with named channels. Raises InvalidEmbedder."""
    if pictures.ndim != 4 or pictures.dtype != np.float32:
        raise InvalidEmbedder(
            f"pictures: got {pictures.dtype} with {pictures.ndim} dimensions, expected float32 [n, channels, h, w]"
        )
    if len(channels) != pictures.shape[1] or len(set(channels)) != len(channels) or not all(channels):
        raise InvalidEmbedder(
            f"channels: got {list(channels)} for {pictures.shape[1]} channels, expected one distinct name a channel"
        )
