"""TRex as an engine: a base engine's vectors of cells or fields, adapted row by row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float32

from profiling.embedders.embedding import Embedder, InvalidEmbedder, Loader, column_names
from profiling.embedders.trex.fit import load_adaptation
from profiling.embedders.weights import folder_hash, read_card
from profiling.engines.measurement import FieldMeasurement, ObjectTable

REVISION = 1


class TrexEmbedder:
    """The base engine of a folder and the adaptation on top of it; `bases`: engines by name."""

    def __init__(self, folder: Path, bases: dict[str, Loader]) -> None:
        self.adaptation = load_adaptation(folder)
        name = self.adaptation.config.base
        if name not in bases:
            raise InvalidEmbedder(
                f"weights: {folder} adapts tables, not pictures (base {name!r}): use `dopaint embedders adapt` on "
                f"profiles, or train with base set to one of {', '.join(sorted(bases))}"
            )
        self.base: Embedder = bases[name](folder / "base" if (folder / "base").is_dir() else None)
        self._own = folder_hash(read_card(folder, "trex"), REVISION)

    @property
    def hash(self) -> str:
        """sha256 of the adaptation and its base."""
        return hashlib.sha256(f"{self._own} {self.base.hash}".encode()).hexdigest()

    def __enter__(self) -> TrexEmbedder:
        self.base.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.base.__exit__(kind, error, trace)

    def measure(
        self,
        pictures: Float32[np.ndarray, "n c h w"],
        channels: Sequence[str],
        progress: Callable[[int], None] | None = None,
    ) -> list[FieldMeasurement]:
        """The base's measurements with adapted vectors. Raises InvalidEmbedder where the base gives other columns than
        the fit saw (other channels)."""
        return [self._adapted(one) for one in self.base.measure(pictures, channels, progress)]

    def _adapted(self, measured: FieldMeasurement) -> FieldMeasurement:
        objects = {}
        for name, table in measured.objects.items():
            wanted = self.adaptation.names
            have = {f"{name}_{feature}": i for i, feature in enumerate(table.names)}
            have |= {feature: i for i, feature in enumerate(table.names)}
            if missing := [feature for feature in wanted if feature not in have]:
                raise InvalidEmbedder(
                    f"weights: the adaptation wants {len(wanted)} features of {self.adaptation.config.base}, and "
                    f"{missing[0]} is not among the {len(table.names)} it gives: were the channels the same?"
                )
            values = table.values[:, [have[feature] for feature in wanted]]
            width = self.adaptation.config.widths[1]
            vectors = self.adaptation.vectors(values) if len(values) else np.empty((0, width))
            objects[name] = ObjectTable(column_names("trex", width), vectors)
        return FieldMeasurement(measured.outcome, measured.reason, objects=objects)
