"""Who gets which well: the arrow C → T of the simulated world, from randomised to JUMP-like.

The dial is the share of a compound's wells that are tied to it: to three home batches (shared by its mechanism more
often than chance) and to two home positions on the plate. At 0 every well is drawn afresh, so T and C are independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.laboratory import COLUMNS, ROWS
from causal.phenotype import DMSO, stream


@dataclass(frozen=True)
class AllocationConfig:
    seed: int = 20261120
    dial: float = 0.7  # 0 randomised, 1 JUMP-like
    home_batches: int = 3  # JUMP's median of batches an annotated compound is seen in
    home_wells: int = 2
    class_pull: float = 3.0  # how much likelier a mechanism's favourite batches are
    control_share: float = 0.12  # DMSO wells


def _wells(rng: np.random.Generator, formats: np.ndarray, relative: np.ndarray | None = None) -> np.ndarray:
    """Row and column [n, 2] on plates of these formats, uniform or at a relative position [n, 2] in [0, 1)."""
    relative = rng.random((len(formats), 2)) if relative is None else relative
    size = np.array([(ROWS[f], COLUMNS[f]) for f in formats])
    return np.minimum((relative * size).astype(np.int64), size - 1)


def allocate(
    plates: pd.DataFrame, wells: pd.DataFrame, config: AllocationConfig | None = None, *, controls: bool = True
) -> pd.DataFrame:
    """One row per treated well: compound, context columns and seed.

    `plates`: source, batch, plate, plate_format of the plates in use. `wells`: compound, moa and wells (how many that
    compound gets). Controls sit in random wells of all plates. Raises ValueError for a dial outside [0, 1].
    """
    config = config or AllocationConfig()
    if not 0.0 <= config.dial <= 1.0:
        raise ValueError(f"dial: {config.dial} given, 0 (randomised) to 1 (JUMP-like) expected")
    batches = sorted(plates["batch"].unique())
    by_batch = {b: plates[plates["batch"] == b].reset_index(drop=True) for b in batches}
    favourite = {
        moa: stream(config.seed, "favourite", moa).choice(len(batches), 3, replace=False)
        for moa in wells["moa"].unique()
    }
    parts = []
    for compound, moa, n in zip(wells["compound"], wells["moa"], wells["wells"], strict=True):
        rng = stream(config.seed, "allocation", compound)
        weight = np.ones(len(batches))
        weight[favourite[moa]] *= 1.0 + config.class_pull
        home = rng.choice(len(batches), min(config.home_batches, len(batches)), replace=False, p=weight / weight.sum())
        spots = rng.random((config.home_wells, 2))
        tied = rng.random(n) < config.dial
        batch = np.where(tied, rng.choice(home, n), rng.integers(0, len(batches), n))
        position = np.where(tied[:, None], spots[rng.integers(0, config.home_wells, n)], rng.random((n, 2)))
        parts.append(_rows(rng, compound, [by_batch[batches[b]] for b in batch], position))
    if controls:
        total = int(wells["wells"].sum())
        n = round(total * config.control_share / (1.0 - config.control_share))
        rng = stream(config.seed, "allocation", DMSO)
        batch = rng.integers(0, len(batches), n)
        parts.append(_rows(rng, DMSO, [by_batch[batches[b]] for b in batch], rng.random((n, 2))))
    return pd.concat(parts, ignore_index=True)


def _rows(rng: np.random.Generator, compound: str, tables: list[pd.DataFrame], position: np.ndarray) -> pd.DataFrame:
    chosen = pd.DataFrame([t.iloc[rng.integers(0, len(t))] for t in tables])
    spot = _wells(rng, chosen["plate_format"].to_numpy(), position)
    return pd.DataFrame(
        {
            "compound": compound,
            "source": chosen["source"].to_numpy(),
            "batch": chosen["batch"].to_numpy(),
            "plate": chosen["plate"].to_numpy(),
            "plate_format": chosen["plate_format"].to_numpy(np.int64),
            "row": spot[:, 0],
            "column": spot[:, 1],
            "seed": rng.integers(0, 2**63 - 1, len(tables), dtype=np.uint64),
        }
    )
