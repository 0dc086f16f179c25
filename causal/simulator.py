"""The world with known truth: a structural causal model that paints Cell Painting fields.

C (source, batch, plate, well) → state of the cells and optics; T (compound, dose, time) → state; both → picture. Every
row of a design owns its exogenous noise (its seed), so two rows that differ in the compound alone are
counterfactual twins. This is a simulation: nothing it says about a compound is evidence about the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32

from causal import brightfield, painter
from causal.exposure import exposure_factor, line_response, line_state
from causal.laboratory import Laboratory, Optics
from causal.markers import ALL_CHANNELS, check_channels, marker_optics, paint_markers
from causal.painter import CHANNELS, STATE
from causal.phenotype import Compounds

SIZE = 128
CELL_SPREAD = 0.5  # standard deviation of a cell's state about its field's, in steps
FIELD_SPREAD = 0.35  # standard deviation of a field's log count, in steps
STRENGTH_SPREAD = 0.25  # log standard deviation of a responding cell's effect


class Field(NamedTuple):
    """The cells of one row: centres [n, 2] in pixels, states [n, 16], shape noise [n, 16], pixel noise [7, h, w]."""

    xy: np.ndarray
    state: np.ndarray
    shape: np.ndarray
    pixel: np.ndarray


@dataclass(frozen=True)
class World:
    """One simulated world: its laboratories, its compounds, the side of its pictures in pixels and its channels
    (three to seven of `markers.ALL_CHANNELS`; a channel looks the same whatever others are painted).

    A row may also carry dose (µM, default 10), hours (default 48) and cell_line (default "U2OS-sim").
    """

    laboratory: Laboratory
    compounds: Compounds
    size: int = SIZE
    channels: tuple[str, ...] = CHANNELS

    def __post_init__(self) -> None:
        check_channels(self.channels)

    @property
    def plates(self) -> pd.DataFrame:
        """source, batch, plate, plate_format, held_out."""
        return self.laboratory.plates

    def effect(self, rows: pd.DataFrame) -> Float[np.ndarray, "n 16"]:
        """Effect on a responding cell of each row: class and structure, scaled by context, dose, time and line."""
        index = self.compounds.rows(list(rows["compound"]))
        effect = np.where(index[:, None] < 0, 0.0, self.compounds.effect[index])
        ec50 = np.where(index < 0, 0.0, self.compounds.log10_ec50[index])
        factor = self.laboratory.response(rows) * exposure_factor(rows, ec50)
        return np.asarray(effect * factor[:, None] * line_response(rows))

    def responders(self, rows: pd.DataFrame) -> Float[np.ndarray, " n"]:
        """Share of cells that respond to the compound of each row; 0 for DMSO."""
        index = self.compounds.rows(list(rows["compound"]))
        return np.where(index < 0, 0.0, self.compounds.responders[index])

    def field_state(self, rows: pd.DataFrame) -> Float[np.ndarray, "n 16"]:
        """State of an untreated cell in the context of each row, without its own noise."""
        self.laboratory.check(rows)
        return np.asarray(self.laboratory.state(rows) + line_state(rows))

    def expected_state(self, rows: pd.DataFrame) -> Float[np.ndarray, "n 16"]:
        """E[state of a cell | row], by formula: context + share of responders × E[strength] × effect.

        The count axis is the field's: all of it moves by share × effect, without the strength of single cells.
        """
        shift = self.effect(rows) * self.responders(rows)[:, None]
        shift[:, 1:] *= np.exp(0.5 * STRENGTH_SPREAD**2)
        return np.asarray(self.field_state(rows) + shift)

    def fields(self, rows: pd.DataFrame) -> list[Field]:
        """The cells of each row, from its seed: what is painted, before optics and camera."""
        base, effect, share = self.field_state(rows), self.effect(rows), self.responders(rows)
        return [
            self._field(int(seed), base[i], effect[i], float(share[i]))
            for i, seed in enumerate(rows["seed"].to_numpy())
        ]

    def _field(self, seed: int, base: np.ndarray, effect: np.ndarray, share: float) -> Field:
        most = painter.MAX_CELLS
        rng = np.random.Generator(np.random.Philox(key=seed))
        uniform = rng.random((most, 32 + painter.N_UNIFORM + 1), dtype=np.float32)
        normal = rng.standard_normal((most, len(STATE) + 1))
        count_noise = rng.standard_normal()
        pixel = rng.standard_normal((len(ALL_CHANNELS), self.size, self.size), dtype=np.float32)
        log_count = base[0] + effect[0] * share + FIELD_SPREAD * count_noise
        n = int(np.clip(np.rint(painter.CELLS * np.exp(0.25 * log_count)), 1, most))
        strength = np.where(uniform[:n, -1] < share, np.exp(STRENGTH_SPREAD * normal[:n, -1]), 0.0)
        state = base + CELL_SPREAD * normal[:n, :-1] + strength[:, None] * effect
        xy = painter.place_cells(uniform[:n, :32], self.size, painter.MARGIN)
        return Field(xy, state, uniform[:n, 32:-1], pixel)

    def paint(
        self, rows: pd.DataFrame, progress: Callable[[int], None] | None = None
    ) -> Float32[np.ndarray, "n c h w"]:
        """The potential outcome of each row: pictures in [0, 1] camera units, channels as `self.channels`.

        `rows` has columns compound, source, batch, plate, plate_format, row, column, seed. Raises UnknownCompound,
        UnknownContext, UnknownExposure. `progress` is told the number of rows painted so far.
        """
        base, effect, share = self.field_state(rows), self.effect(rows), self.responders(rows)
        index = [ALL_CHANNELS.index(c) for c in self.channels]
        optics = self._optics(rows, index)
        out = np.empty((len(rows), len(index), self.size, self.size), np.float32)
        for i, seed in enumerate(rows["seed"].to_numpy()):
            _picture(self._field(int(seed), base[i], effect[i], float(share[i])), optics, i, index, out[i])
            if progress is not None:
                progress(i + 1)
        return out

    def _optics(self, rows: pd.DataFrame, index: list[int]) -> Optics:
        """Optics of the painted channels; the five of Cell Painting first, then the two further stains."""
        five, more = self.laboratory.optics(rows), marker_optics(self.laboratory.config.seed, rows)
        chosen = {k: np.concatenate([getattr(five, k), v], axis=1)[:, index] for k, v in more.items()}
        return replace(five, **chosen)

    def paint_brightfield(self, rows: pd.DataFrame) -> Float32[np.ndarray, "n z h w"]:
        """The same cells in transmitted light at three focal planes (`brightfield.PLANES`), in [0, 1] camera units."""
        optics = self.laboratory.optics(rows)
        pictures = [
            brightfield.render(f.xy, f.state, f.shape, self.size, float(optics.read[i]), f.pixel)
            for i, f in enumerate(self.fields(rows))
        ]
        return np.stack(pictures)


def _picture(field: Field, optics: Optics, i: int, index: list[int], out: np.ndarray) -> None:
    size = out.shape[-1]
    signal = np.zeros((len(ALL_CHANNELS), size, size), np.float32)
    painter.paint_cells(field.xy, field.state, field.shape, painter.noise_tiles(), size, signal)
    if max(index) >= len(CHANNELS):
        paint_markers(field.xy, field.state, field.shape, painter.noise_tiles(), size, signal[len(CHANNELS) :])
    painter.expose(
        np.ascontiguousarray(signal[index]),
        painter.gaussian_taps(optics.blur[i]),
        optics.gain[i],
        optics.background[i],
        optics.vignette[i],
        optics.centre[i],
        optics.shot[i],
        optics.read[i],
        np.ascontiguousarray(field.pixel[index]),
        out,
    )
