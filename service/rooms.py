"""What the pipeline asks of a machine room: paint a compound, measure pictures, know the model's provenance.

`service.engine.ModelRoom` is the real one (weights, CellProfiler); `service.fake.FakeRoom` paints blobs in
microseconds, so that doors, queues and folders can be tried without weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.contexts import Contexts
from chem.molecule import Molecule
from service.reference import Reference

DMSO_SMILES = "CS(C)=O"
DMSO_INCHIKEY = "IAZDPXIOMUYVGZ-UHFFFAOYSA-N"

Tick = Callable[[int], None]
"""Called with the number of pictures done since the last call."""


@dataclass(frozen=True)
class Provenance:
    """SHA-256 of everything that determines a number: weights, encoder, measuring engine, settings of the effect."""

    model: str
    encoder: str
    engine: str
    settings: str

    def document(self) -> dict[str, str]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class ModelCard:
    """What a reader must know of the model: its name, what it was trained on, and under which conditions it holds."""

    name: str
    evidence: str  # "simulation" or "experiment"
    conditions: str  # "simulated", or e.g. "U2OS, 10 uM, 48 h"
    channels: tuple[str, ...]
    picture_size: int  # pixels a side
    micro_batch: int  # pictures the network always runs at once

    @property
    def simulated(self) -> bool:
        """Whether the pictures are those of a simulated world."""
        return self.evidence == "simulation"


@dataclass(frozen=True)
class Standing:
    """Where a molecule stands to what the model knows.

    `in_library`: a training compound or one of the library's unseen drugs; the simulated world has a truth for it.
    `zone`: "in", "edge" or "out"; `basis` says by what (`chem.domain`). `density` (0 to 1) and `expected_error` (the
    held-out error of the zone) are NaN where the model folder has none.
    """

    in_library: bool
    seen: bool
    name: str
    zone: str
    nearest: str
    nearest_inchikey: str
    tanimoto: float
    sentence: str
    scaffold_seen: bool = True
    density: float = float("nan")
    expected_error: float = float("nan")
    basis: str = ""


@dataclass(frozen=True)
class Measured:
    """Raw profiles of n pictures: median over the cells of each, NaN where a picture has no cells.

    `outcomes` are "ok", "no_cells" or "failed"; `reasons` say why when not "ok".
    """

    values: Float[np.ndarray, "n k"]
    names: tuple[str, ...]
    outcomes: tuple[str, ...]
    reasons: tuple[str, ...]


@runtime_checkable
class Room(Protocol):
    """One loaded model and one measuring engine. One thread at a time paints, and one at a time measures."""

    @property
    def card(self) -> ModelCard: ...
    @property
    def workers(self) -> int:
        """Measuring processes."""
        ...

    @property
    def provenance(self) -> Provenance: ...
    @property
    def contexts(self) -> Contexts: ...

    def reference(self) -> Reference:
        """The reference library made with this model and engine. Raises `MissingReference` or `ReferenceMismatch`."""
        ...

    def standing(self, molecule: Molecule) -> Standing: ...

    def vector(self, molecule: Molecule) -> Float[np.ndarray, " d"]: ...

    def paint(self, vector: Float[np.ndarray, " d"], rows: pd.DataFrame, tick: Tick) -> Float[np.ndarray, "n c h w"]:
        """Pictures in [0, 1] of one compound under the contexts and seeds of n design rows."""
        ...

    def paint_rows(
        self, vectors: Float[np.ndarray, "n d"], rows: pd.DataFrame, progress: Tick | None
    ) -> Float[np.ndarray, "n c h w"]:
        """Pictures in [0, 1] of rows of any compounds, each with its own vector; each the same as by `paint`."""
        ...

    def measure(self, pictures: Float[np.ndarray, "n c h w"], tick: Tick) -> Measured: ...

    def measure_each(self, pictures: Float[np.ndarray, "n c h w"], tick: Tick) -> list[Measured]:
        """The same for each picture by itself: no answer depends on what was measured with it."""
        ...

    def warm(self) -> None:
        """Does everything once that is slow the first time."""
        ...
