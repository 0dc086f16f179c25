"""A painter that replays what a GPU painted: recorded pictures, given out after the time that they took, on no core.

For measuring how well the other stages keep up with a generator that is not there (`benchmarks/batch.py`). A trace is
an .npz file: `pictures` float32 [n, c, h, w] and `seconds`, those of one micro-batch. Results of such a run mean
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from chem.molecule import Molecule
from service.errors import InvalidRequest
from service.rooms import Tick


class Replay:
    """A batch room whose pictures come from a trace; everything else is the room's."""

    def __init__(self, room: Any, trace: str | Path) -> None:
        self._room = room
        try:
            with np.load(trace, allow_pickle=False) as kept:
                self._pictures = np.asarray(kept["pictures"], np.float32)
                self._seconds = float(kept["seconds"])
        except (OSError, KeyError, ValueError) as error:
            raise InvalidRequest(f"trace: {str(trace)!r} is no recorded trace ({error})") from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._room, name)

    def paint_rows_of(
        self, molecules: Sequence[Molecule], vectors: Float[np.ndarray, "n d"], rows: pd.DataFrame, tick: Tick
    ) -> Float[np.ndarray, "n c h w"]:
        """Recorded pictures, chosen by the seed of each row, after the time of the micro-batches they would fill."""
        chosen = (rows["seed"].to_numpy().astype(np.uint64) % np.uint64(len(self._pictures))).astype(np.int64)
        size = self._room.card.micro_batch
        for start in range(0, len(chosen), size):
            time.sleep(self._seconds)
            tick(len(chosen[start : start + size]))
        return np.asarray(self._pictures[chosen])


def record(path: Path, pictures: Float[np.ndarray, "n c h w"], seconds: float) -> None:
    """Keep a trace: pictures, and the seconds of one micro-batch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, pictures=np.asarray(pictures, np.float32), seconds=np.float64(seconds))
