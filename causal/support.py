"""Positivity: where a compound was ever seen, and how far each draw extrapolates.

do() averages over contexts; where a compound was never observed in a context the mechanism extrapolates, and every
effect says so. In JUMP an annotated compound is seen in a median of 3 of 48 batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.contexts import PLATE_SHAPES

LEVELS = ("plate", "batch", "source")


@dataclass(frozen=True)
class Support:
    """What the training table holds of each compound, and what share of the draws that supports."""

    table: pd.DataFrame
    """One row per compound: wells, plates, batches, sources, positions seen; plate_share, batch_share, source_share of
    the draws whose plate, batch, source holds the compound; distance (mean extrapolation distance of the draws)."""

    def sentence(self, compound: str) -> str:
        """The support of one compound as a sentence for a report."""
        row = self.table.set_index("compound").loc[compound]
        if row["wells"] == 0:
            return f"{compound} was never seen in training: all draws extrapolate to a new compound"
        return (
            f"{compound} was seen in {row['wells']:.0f} wells, {row['batches']:.0f} batches and {row['sources']:.0f} "
            f"sources; {row['batch_share']:.0%} of the draws lie in a batch that holds it, the rest extrapolate"
        )


def support(training: pd.DataFrame, compounds: Sequence[str], draws: pd.DataFrame) -> Support:
    """Support of each compound's contexts in the training table (positivity).

    Args:
        training: wells seen: columns compound, source, batch, plate, plate_format, row, column.
        compounds: the compounds asked about; one without a well is reported with zeros and distance 1.
        draws: the draws of the design.
    """
    rows = []
    for compound in compounds:
        seen = training[training["compound"] == compound]
        row: dict[str, object] = {
            "compound": compound,
            "wells": len(seen),
            "plates": seen["plate"].nunique(),
            "batches": seen["batch"].nunique(),
            "sources": seen["source"].nunique(),
            "positions": len(seen[["plate_format", "row", "column"]].drop_duplicates()),
        }
        for level in LEVELS:
            row[f"{level}_share"] = float(draws[level].isin(set(seen[level])).mean())
        row["distance"] = float(extrapolation_distance(seen, draws).mean())
        rows.append(row)
    return Support(pd.DataFrame(rows))


def extrapolation_distance(seen: pd.DataFrame, draws: pd.DataFrame) -> Float[np.ndarray, "n"]:
    """How far each draw lies from the nearest well that was seen, in [0, 1].

    The mean of four parts (Gower 1971): another source, another batch, another plate (0 or 1 each), and the distance
    between the positions as a share of the plate's diagonal. 0: this very well; 1: nothing seen at all.
    """
    nearest = np.full(len(draws), 1.0)
    wells = seen[[*LEVELS, "plate_format", "row", "column"]].drop_duplicates()
    y, x = _place(draws)
    for well in wells.itertuples(index=False):
        differs = sum((draws[level].to_numpy() != getattr(well, level)).astype(float) for level in LEVELS)
        height, width = PLATE_SHAPES[well.plate_format]
        there = np.hypot(y - well.row / (height - 1), x - well.column / (width - 1)) / np.sqrt(2)
        nearest = np.minimum(nearest, (differs + there) / 4)
    return nearest


def _place(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Row and column as shares of the plate."""
    shapes = np.array([PLATE_SHAPES[f] for f in rows["plate_format"]]).reshape(-1, 2)
    return rows["row"].to_numpy() / (shapes[:, 0] - 1), rows["column"].to_numpy() / (shapes[:, 1] - 1)
