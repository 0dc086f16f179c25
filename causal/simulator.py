"""The world with known truth: a structural causal model that paints Cell Painting fields.

C (source, batch, plate, well) → state of the cells and optics; T (compound) → state; state, optics → picture. Every row
of a design owns its exogenous noise (its seed), so two rows that differ in the compound alone are counterfactual twins.
This is a simulation: nothing it says about a compound is evidence about the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal import painter
from causal.laboratory import Laboratory
from causal.painter import CHANNELS, STATE
from causal.phenotype import Compounds

SIZE = 128
CELL_SPREAD = 0.5  # standard deviation of a cell's state about its field's, in steps
FIELD_SPREAD = 0.35  # standard deviation of a field's log count, in steps
STRENGTH_SPREAD = 0.25  # log standard deviation of a responding cell's effect


@dataclass(frozen=True)
class World:
    """One simulated world: its laboratories, its compounds and the side of its pictures in pixels."""

    laboratory: Laboratory
    compounds: Compounds
    size: int = SIZE

    @property
    def plates(self) -> pd.DataFrame:
        """source, batch, plate, plate_format, held_out."""
        return self.laboratory.plates

    def effect(self, rows: pd.DataFrame) -> Float[np.ndarray, "n 16"]:
        """Effect on a typical responding cell of each row: class and structure, scaled by the context's response."""
        index = self.compounds.rows(list(rows["compound"]))
        effect = np.where(index[:, None] < 0, 0.0, self.compounds.effect[index])
        return np.asarray(effect * self.laboratory.response(rows)[:, None])

    def responders(self, rows: pd.DataFrame) -> Float[np.ndarray, " n"]:
        index = self.compounds.rows(list(rows["compound"]))
        return np.where(index < 0, 0.0, self.compounds.responders[index])

    def expected_state(self, rows: pd.DataFrame) -> Float[np.ndarray, "n 16"]:
        """E[cell state | row], by formula: context + share of responders × E[strength] × effect."""
        self.laboratory.check(rows)
        strength = np.exp(0.5 * STRENGTH_SPREAD**2)
        shift = self.effect(rows) * self.responders(rows)[:, None]
        shift[:, 1:] *= strength
        return np.asarray(self.laboratory.state(rows) + shift)

    def paint(
        self, rows: pd.DataFrame, progress: Callable[[int], None] | None = None
    ) -> Float[np.ndarray, "n 5 h w"]:
        """The potential outcome of each row: float32 pictures in [0, 1] camera units, channels as `CHANNELS`.

        `rows` has columns compound, source, batch, plate, plate_format, row, column, seed. Raises UnknownCompound,
        UnknownContext. `progress` is told the number of rows painted so far.
        """
        self.laboratory.check(rows)
        field = self.laboratory.state(rows)
        effect, share = self.effect(rows), self.responders(rows)
        optics = self.laboratory.optics(rows)
        tiles = painter.noise_tiles()
        size, most = self.size, painter.MAX_CELLS
        out = np.empty((len(rows), len(CHANNELS), size, size), np.float32)
        signal = np.empty((len(CHANNELS), size, size), np.float32)
        for i, seed in enumerate(rows["seed"].to_numpy()):
            rng = np.random.Generator(np.random.Philox(key=int(seed)))
            uniform = rng.random((most, 32 + painter.N_UNIFORM + 1), dtype=np.float32)
            normal = rng.standard_normal((most, len(STATE) + 1))
            count_noise = rng.standard_normal()
            pixel = rng.standard_normal((len(CHANNELS), size, size), dtype=np.float32)
            log_count = field[i, 0] + effect[i, 0] * share[i] + FIELD_SPREAD * count_noise
            n = int(np.clip(np.rint(painter.CELLS * np.exp(0.25 * log_count)), 1, most))
            responds = uniform[:n, -1] < share[i]
            strength = np.where(responds, np.exp(STRENGTH_SPREAD * normal[:n, -1]), 0.0)
            state = field[i] + CELL_SPREAD * normal[:n, :-1] + strength[:, None] * effect[i]
            xy = painter.place_cells(uniform[:n, :32], size, painter.MARGIN)
            signal.fill(0.0)
            painter.paint_cells(xy, state, uniform[:n, 32:-1], tiles, size, signal)
            painter.expose(
                signal,
                painter.gaussian_taps(optics.blur[i]),
                optics.gain[i],
                optics.background[i],
                optics.vignette[i],
                optics.centre[i],
                optics.shot[i],
                optics.read[i],
                pixel,
                out[i],
            )
            if progress is not None:
                progress(i + 1)
        return out
