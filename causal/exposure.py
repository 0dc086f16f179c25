"""Dose, time and cell line in the simulated world: how much of a compound's effect a cell sees.

A design without these columns means 10 µM, 48 hours and the first line: what the shipped model was trained on.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.painter import STATE
from causal.phenotype import stream

DOSES = (0.1, 1.0, 3.0, 10.0)  # µM
HOURS = (6.0, 24.0, 48.0)
LINES = ("U2OS-sim", "A549-sim")
HALF_LIFE = 14.0  # hours until half of the full effect


class UnknownExposure(ValueError):
    """A dose, time or cell line that the simulated world does not have."""


def _column(rows: pd.DataFrame, name: str, default: object) -> np.ndarray:
    return rows[name].to_numpy() if name in rows.columns else np.full(len(rows), default)


def exposure_factor(rows: pd.DataFrame, log10_ec50: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Share of the 10 µM, 48 h effect: Hill curve of slope 1 in dose, exponential approach in time.

    Raises UnknownExposure for a dose that is not above 0 or a time below 0.
    """
    dose = _column(rows, "dose", 10.0).astype(float)
    hours = _column(rows, "hours", 48.0).astype(float)
    if not (np.isfinite(dose).all() and (dose > 0).all()):
        raise UnknownExposure(
            f"dose: {dose.min()} µM given, a number above 0 expected; DMSO is the compound for no dose"
        )
    if not (np.isfinite(hours).all() and (hours >= 0).all()):
        raise UnknownExposure(f"hours: {hours.min()} given, 0 or more expected")
    ec50 = 10.0**log10_ec50
    hill = (dose / (dose + ec50)) / (10.0 / (10.0 + ec50))
    rate = np.log(2.0) / HALF_LIFE
    return np.asarray(hill * (1.0 - np.exp(-rate * hours)) / (1.0 - np.exp(-rate * 48.0)))


def _line_index(rows: pd.DataFrame) -> np.ndarray:
    names = _column(rows, "cell_line", LINES[0])
    unknown = sorted({str(n) for n in names} - set(LINES))
    if unknown:
        raise UnknownExposure(f"cell_line: {unknown[0]!r} given, one of {', '.join(LINES)} expected")
    return np.array([LINES.index(str(n)) for n in names])


def line_state(rows: pd.DataFrame) -> Float[np.ndarray, "n 16"]:
    """Shift of the resting state: none for the first line."""
    table = np.zeros((len(LINES), len(STATE)))
    for i, line in enumerate(LINES[1:], 1):
        table[i] = stream("line", line, "state").normal(0, 0.8, len(STATE))
        table[i, 0] *= 0.5
    return table[_line_index(rows)]


def line_response(rows: pd.DataFrame) -> Float[np.ndarray, "n 16"]:
    """Factor per axis on every effect: 1 for the first line, between 0.2 and 1.4 for others."""
    table = np.ones((len(LINES), len(STATE)))
    for i, line in enumerate(LINES[1:], 1):
        table[i] = stream("line", line, "response").uniform(0.2, 1.4, len(STATE))
    return table[_line_index(rows)]
