"""Paint a screen for embedders: compounds in replicates over batches, doses, times and cell lines; fluorescence or
brightfield at three focal planes; in the layout that `profiling.embedders` trains on, with true nuclei beside it.

Rows of the split "test" come from batches that no other row comes from, and have compounds that no other row has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from causal.allocation import AllocationConfig, allocate
from causal.brightfield import PLANES
from causal.phenotype import DMSO, stream
from causal.simulator import World
from service.errors import InvalidRequest
from service.library import library, world

KINDS = ("fluorescence", "brightfield")
CHUNK = 256
#: Focal planes from below to above, as channels.
PLANE_NAMES = tuple(f"z{i}" for i in range(len(PLANES)))


@dataclass(frozen=True)
class ScreenConfig:
    """`moas` mechanisms of `per_moa` compounds, `unseen` more of each in the test only; wells a compound (at each dose,
    time and line) in training and in the test; `dial`: 0 randomised, 1 confounded as in JUMP. `channels`: painted
    stains; () are the five of Cell Painting."""

    kind: str = "fluorescence"
    moas: int = 10
    per_moa: int = 4
    unseen: int = 1
    wells: int = 12
    test_wells: int = 6
    doses: tuple[float, ...] = (10.0,)
    hours: tuple[float, ...] = (48.0,)
    lines: tuple[str, ...] = ("U2OS-sim",)
    channels: tuple[str, ...] = ()
    dial: float = 0.5
    control_share: float = 0.3
    val_share: float = 0.05
    seed: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidRequest(f"kind: got {self.kind!r}, expected one of {', '.join(KINDS)}")
        if min(self.moas, self.per_moa, self.wells, self.test_wells) < 1 or self.unseen < 0:
            raise InvalidRequest("screen: mechanisms, compounds and wells must be at least 1")


def compounds_of(config: ScreenConfig) -> pd.DataFrame:
    """compound, moa, unseen: the mechanisms with most drugs, and of each the first ones by name."""
    drugs = library().query("kind == 'drug'")
    counts = drugs["moa"].value_counts(sort=False)
    wanted = config.per_moa + config.unseen
    names = sorted(counts[counts >= wanted].index, key=lambda moa: (-counts[moa], moa))[: config.moas]
    if len(names) < config.moas:
        raise InvalidRequest(
            f"screen: {len(names)} mechanisms have {wanted} simulated drugs, expected {config.moas}; ask for fewer"
        )
    parts = []
    for moa in names:
        own = drugs[drugs["moa"] == moa].sort_values("name").head(wanted)
        parts.append(own[["compound", "moa"]].assign(unseen=np.arange(wanted) >= config.per_moa))
    return pd.concat(parts, ignore_index=True)


def design(config: ScreenConfig, painted: World) -> pd.DataFrame:
    """One row a well: compound, moa (None for DMSO), context, well, dose, hours, cell_line, seed, split, and strength:
    the true length of the compound's effect times the share of cells that respond."""
    table = compounds_of(config)
    plates = painted.plates
    parts = []
    for split, own, wells in (
        ("train", plates[~plates["held_out"]], config.wells),
        ("test", plates[plates["held_out"]], config.test_wells),
    ):
        used = table if split == "test" else table[~table["unseen"]]
        for k, (dose, hours, line) in enumerate(
            (d, h, c) for d in config.doses for h in config.hours for c in config.lines
        ):
            allocation = AllocationConfig(
                seed=config.seed * 1000 + k, dial=config.dial, control_share=config.control_share
            )
            rows = allocate(own, used[["compound", "moa"]].assign(wells=wells), allocation)
            parts.append(rows.assign(dose=dose, hours=hours, cell_line=line, split=split))
    rows = pd.concat(parts, ignore_index=True)
    rows["moa"] = rows["compound"].map(table.set_index("compound")["moa"])
    rows["unseen"] = rows["compound"].isin(table.loc[table["unseen"], "compound"])
    index = painted.compounds.rows(list(rows["compound"]))
    size = np.linalg.norm(painted.compounds.effect, axis=1) * painted.compounds.responders
    rows["strength"] = np.where(index < 0, 0.0, size[index])
    rows["well"] = [f"r{r:02d}c{c:02d}" for r, c in zip(rows["row"], rows["column"], strict=True)]
    rng = stream(config.seed, "screen order")
    rows = rows.iloc[rng.permutation(len(rows))].reset_index(drop=True)
    watched = (rows["split"] == "train").to_numpy() & (rng.random(len(rows)) < config.val_share)
    rows.loc[watched, "split"] = "val"
    return rows


def paint(
    out: Path,
    config: ScreenConfig,
    world_config: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> pd.DataFrame:
    """Write pictures.npy, rows.parquet, intensity.json and nuclei.parquet (true centres) to `out`; returns the rows."""
    out.mkdir(parents=True, exist_ok=True)
    painted = world(world_config)
    bright = config.kind == "brightfield"
    if config.channels and not bright:
        painted = replace(painted, channels=config.channels)
    rows = design(config, painted)
    names = PLANE_NAMES if bright else painted.channels
    shape = (len(rows), len(names), painted.size, painted.size)
    part = out / "pictures.part.npy"
    pictures = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=shape)
    nuclei = []
    for start in range(0, len(rows), CHUNK):
        own = rows.iloc[start : start + CHUNK]
        pictures[start : start + len(own)] = painted.paint_brightfield(own) if bright else painted.paint(own)
        for i, field in enumerate(painted.fields(own)):
            inside = ((field.xy >= 0) & (field.xy < painted.size)).all(axis=1)
            yx = field.xy[inside]
            nuclei.append(pd.DataFrame({"row": start + i, "y": yx[:, 0], "x": yx[:, 1]}))
        if progress is not None:
            progress(start + len(own), len(rows), "painting")
    pictures.flush()
    part.rename(out / "pictures.npy")
    rows.to_parquet(out / "rows.parquet")
    pd.concat(nuclei, ignore_index=True).to_parquet(out / "nuclei.parquet")
    told = {"channels": list(names), "kind": config.kind, "evidence": "simulation", "control": DMSO}
    (out / "intensity.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return rows
