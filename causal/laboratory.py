"""The laboratory half of the simulated world: what source, batch, plate and well do to cells and to pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.painter import CHANNELS, STATE
from causal.phenotype import stream

ROWS = {384: 16, 1536: 32}
COLUMNS = {384: 24, 1536: 48}


class UnknownContext(ValueError):
    """A source, batch, plate or well that the simulated world does not have."""


@dataclass(frozen=True)
class LaboratoryConfig:
    seed: int = 20261120
    sources: int = 3  # the first works with 1536-well plates, the others with 384
    batches: int = 5  # a source; the last one of each source is held out of training
    plates: int = 3  # a batch
    source_state: float = 0.45  # standard deviations of shifts of the cell state, in steps
    batch_state: float = 0.5
    plate_state: float = 0.12
    batch_stain: float = 0.22  # standard deviations of log stain
    plate_stain: float = 0.06
    batch_response: float = 0.25  # standard deviation of the log response factor: the C → P interaction


def plate_table(config: LaboratoryConfig) -> pd.DataFrame:
    """All plates: source, batch, plate, plate_format, held_out."""
    rows = []
    for s in range(1, config.sources + 1):
        for b in range(1, config.batches + 1):
            for p in range(1, config.plates + 1):
                batch = f"S{s}B{b:02d}"
                rows.append((f"S{s}", batch, f"{batch}P{p}", 1536 if s == 1 else 384, b == config.batches))
    return pd.DataFrame(rows, columns=["source", "batch", "plate", "plate_format", "held_out"])


@dataclass(frozen=True)
class Optics:
    """Per row: gain, background [n, 5]; blur [n, 5] in pixels; vignette, shot, read [n]; centre [n, 2]."""

    gain: np.ndarray
    background: np.ndarray
    blur: np.ndarray
    vignette: np.ndarray
    centre: np.ndarray
    shot: np.ndarray
    read: np.ndarray


class Laboratory:
    """All parameters of a world's laboratories, each drawn from a stream named after what it belongs to."""

    def __init__(self, config: LaboratoryConfig | None = None) -> None:
        self.config = config = config or LaboratoryConfig()
        self.plates = plate_table(config)
        k, c = len(STATE), len(CHANNELS)
        self._source: dict[str, dict[str, np.ndarray]] = {}
        self._batch: dict[str, dict[str, np.ndarray]] = {}
        self._plate: dict[str, dict[str, np.ndarray]] = {}
        for source in self.plates["source"].unique():
            rng = stream(config.seed, "source", source)
            self._source[source] = {
                "state": rng.normal(0, config.source_state, k),
                "gain": 0.19 * np.exp(rng.normal(0, 0.3, c)),
                "background": rng.uniform(0.015, 0.05, c),
                "blur": rng.uniform(0.45, 1.0) + rng.uniform(0, 0.25, c),
                "optics": np.array([rng.uniform(0.05, 0.3), rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.15)]),
                "noise": np.array([rng.uniform(2e-4, 9e-4), rng.uniform(0.003, 0.008)]),
            }
        for batch in self.plates["batch"].unique():
            rng = stream(config.seed, "batch", batch)
            self._batch[batch] = {
                "state": rng.normal(0, config.batch_state, k),
                "stain": rng.normal(0, config.batch_stain, c),
                "response": np.exp(rng.normal(0, config.batch_response, 1)),
            }
        for plate in self.plates["plate"].unique():
            rng = stream(config.seed, "plate", plate)
            self._plate[plate] = {
                "state": rng.normal(0, config.plate_state, k),
                "stain": rng.normal(0, config.plate_stain, c),
            }

    def check(self, rows: pd.DataFrame) -> None:
        """Raise UnknownContext unless each row names an existing plate of its batch and a well of its format."""
        key = ["source", "batch", "plate", "plate_format"]
        known = set(self.plates[key].itertuples(index=False, name=None))
        for got in set(rows[key].itertuples(index=False, name=None)) - known:
            raise UnknownContext(
                f"context: {got} is not a (source, batch, plate, format) of this world; see its plates"
            )
        high = rows["plate_format"].map(ROWS).to_numpy()
        wide = rows["plate_format"].map(COLUMNS).to_numpy()
        bad = (rows["row"] < 0) | (rows["row"] >= high) | (rows["column"] < 0) | (rows["column"] >= wide)
        if bad.any():
            first = rows[bad].iloc[0]
            raise UnknownContext(
                f"well: row {first['row']}, column {first['column']} is not on a {first['plate_format']}-well plate; "
                "rows and columns count from 0"
            )

    def position(self, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Relative row and column in [-1, 1] and edge strength in (0, 1]: exp(-distance / 1.5), in 384-well pitches."""
        high = rows["plate_format"].map(ROWS).to_numpy(float)
        wide = rows["plate_format"].map(COLUMNS).to_numpy(float)
        y = (rows["row"].to_numpy(float) + 0.5) / high
        x = (rows["column"].to_numpy(float) + 0.5) / wide
        distance = np.minimum(np.minimum(y, 1 - y) * 16, np.minimum(x, 1 - x) * 24)
        return 2 * y - 1, 2 * x - 1, np.exp(-(distance - 0.25) / 1.5)

    def state(self, rows: pd.DataFrame) -> Float[np.ndarray, "n 16"]:
        """Shift of the cell state by the context of each row (the arrow C → P)."""
        total = np.zeros((len(rows), len(STATE)))
        for table, column in ((self._source, "source"), (self._batch, "batch"), (self._plate, "plate")):
            total += np.stack([table[name]["state"] for name in rows[column]])
        total[:, 0] *= 0.6  # laboratories agree better on density than on the rest
        y, x, edge = self.position(rows)
        at = {name: i for i, name in enumerate(STATE)}
        total[:, at["count"]] += -1.5 * edge
        total[:, at["cell_area"]] += 0.9 * edge
        total[:, at["nucleus_area"]] += 1.0 * edge
        total[:, at["dna_texture"]] += 0.7 * edge
        total[:, at["er_intensity"]] += -0.9 * edge
        total[:, at["mito_intensity"]] += 0.7 * x
        total[:, at["agp_intensity"]] += -0.7 * y
        return total

    def response(self, rows: pd.DataFrame) -> Float[np.ndarray, " n"]:
        """Factor by which the context scales a compound's effect (C → P interaction)."""
        batch = np.array([self._batch[name]["response"][0] for name in rows["batch"]])
        return np.asarray(batch * (1.0 - 0.35 * self.position(rows)[2]))

    def optics(self, rows: pd.DataFrame) -> Optics:
        """Optics and camera of each row (the arrow C → O)."""
        source = [self._source[name] for name in rows["source"]]
        stain = np.stack(
            [
                self._batch[b]["stain"] + self._plate[p]["stain"]
                for b, p in zip(rows["batch"], rows["plate"], strict=True)
            ]
        )
        lens = np.stack([s["optics"] for s in source])
        noise = np.stack([s["noise"] for s in source])
        return Optics(
            gain=np.stack([s["gain"] for s in source]) * np.exp(stain),
            background=np.stack([s["background"] for s in source]),
            blur=np.stack([s["blur"] for s in source]),
            vignette=lens[:, 0],
            centre=lens[:, 1:],
            shot=noise[:, 0],
            read=noise[:, 1],
        )
