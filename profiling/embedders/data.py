"""What embedders are trained on: a folder of pictures in one memory-mapped array, and a table with one row a picture.

pictures.npy    uint8, float16 or float32 [n, c, h, w], in any unit: every channel is clipped to its own percentiles
rows.parquet    compound, batch, plate, split (train | val); more where a method asks for it (dose, hours, cell_line)
intensity.json  {"channels": [...]}: the names of the channels, as `dopaint simulate` writes them
targets.npy     float32 [n, k], only for PhenoProfiler: the profile of each picture; targets.json names the features
cells.parquet   made in the run's folder at first use: row, y, x of every detected cell
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from profiling.embedders.augment import clipped
from profiling.embedders.cells import CropConfig, detect
from profiling.embedders.embedding import InvalidEmbedder

ROW_COLUMNS = ("compound", "batch", "plate", "split")


class InvalidTrainingData(InvalidEmbedder):
    """A training folder that is incomplete, or whose parts do not fit together."""


@dataclass(frozen=True)
class TrainingPictures:
    """Pictures stay on disk (memory-mapped); `targets` is empty where there are none. `shown`: the channels that are
    learned from, () all."""

    pictures: np.ndarray
    rows: pd.DataFrame
    channels: tuple[str, ...]
    targets: Float32[np.ndarray, "n k"]
    target_names: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()

    @property
    def learned(self) -> tuple[str, ...]:
        """Names of the channels that are learned from."""
        return self.shown or self.channels

    @property
    def places(self) -> Int[np.ndarray, " c"]:
        """Where those channels are in a picture."""
        return np.array([self.channels.index(name) for name in self.learned])

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, name: str) -> Int[np.ndarray, " m"]:
        """Positions of the rows of a split."""
        return np.flatnonzero(self.rows["split"].to_numpy() == name)

    def read(self, row: int) -> Float32[np.ndarray, "c h w"]:
        """One picture with every channel in [0, 1] between its percentiles."""
        return clipped(np.asarray(self.pictures[row], np.float32))

    def codes(self, *columns: str) -> Int[np.ndarray, " n"]:
        """One whole number for each combination of the columns that are there. Raises InvalidTrainingData."""
        if missing := [c for c in columns if c not in self.rows.columns]:
            raise InvalidTrainingData(
                f"training data: rows.parquet lacks {', '.join(missing)}; it has {', '.join(self.rows.columns)}"
            )
        return self.rows.groupby(list(columns), sort=True, observed=True).ngroup().to_numpy(np.int64)


def load_pictures(folder: Path) -> TrainingPictures:
    """Open a training folder. Raises InvalidTrainingData when a part is missing or has another length."""
    for name in ("pictures.npy", "rows.parquet", "intensity.json"):
        if not (folder / name).is_file():
            raise InvalidTrainingData(
                f"training data: {folder} has no {name}; make the folder with dopaint simulate, or give another"
            )
    pictures = np.load(folder / "pictures.npy", mmap_mode="r", allow_pickle=False)
    rows = pd.read_parquet(folder / "rows.parquet").reset_index(drop=True)
    channels = tuple(json.loads((folder / "intensity.json").read_text(encoding="utf-8"))["channels"])
    if missing := [name for name in ROW_COLUMNS if name not in rows.columns]:
        raise InvalidTrainingData(f"training data: rows.parquet of {folder} lacks {', '.join(missing)}")
    if pictures.ndim != 4 or len(pictures) != len(rows) or pictures.shape[1] != len(channels):
        raise InvalidTrainingData(
            f"training data: pictures.npy is {pictures.shape} for {len(rows)} rows and {len(channels)} channels; "
            "expected [rows, channels, h, w]"
        )
    targets, names = np.empty((len(rows), 0), np.float32), ()
    if (folder / "targets.npy").is_file():
        targets = np.load(folder / "targets.npy", allow_pickle=False).astype(np.float32)
        names = tuple(json.loads((folder / "targets.json").read_text(encoding="utf-8")))
        if targets.shape != (len(rows), len(names)):
            raise InvalidTrainingData(
                f"training data: targets.npy is {targets.shape}, expected {(len(rows), len(names))}: a row a picture, "
                "a column a name of targets.json"
            )
    return TrainingPictures(pictures, rows, channels, targets, names)


@dataclass(frozen=True)
class Cells:
    """Detected centres of all pictures: those of row i are `yx[start[i] : start[i + 1]]`."""

    yx: Float[np.ndarray, "m 2"]
    start: Int[np.ndarray, " n1"]
    with_cells: Int[np.ndarray, " k"] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "with_cells", np.flatnonzero(np.diff(self.start) > 0))

    def one_each(self, rows: Int[np.ndarray, " b"], rng: np.random.Generator) -> Float[np.ndarray, "b 2"]:
        """The centre of one random cell of each row."""
        low, high = self.start[rows], self.start[rows + 1]
        return self.yx[low + np.floor(rng.random(len(rows)) * (high - low)).astype(np.int64)]


def find_cells(
    data: TrainingPictures, config: CropConfig, cache: Path, progress: Callable[[int, int], None] | None = None
) -> Cells:
    """Centres of every picture's cells, kept in `cache` (parquet) with the settings they were found with."""
    said = repr((config.source, config.nuclei, config.diameter, config.read, data.pictures.shape))
    if cache.is_file():
        table = pd.read_parquet(cache)
        if table.attrs.get("settings") == said:
            return _cells(table, len(data))
    found = []
    for i in range(len(data)):
        centres = detect(data.read(i), data.channels, config)
        found.append(pd.DataFrame({"row": i, "y": centres[:, 0], "x": centres[:, 1]}))
        if progress is not None:
            progress(i + 1, len(data))
    table = pd.concat(found, ignore_index=True)
    table.attrs["settings"] = said
    cache.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(cache)
    return _cells(table, len(data))


def _cells(table: pd.DataFrame, n: int) -> Cells:
    start = np.searchsorted(table["row"].to_numpy(), np.arange(n + 1))
    return Cells(table[["y", "x"]].to_numpy(np.float64), start.astype(np.int64))


def stacked(data: TrainingPictures, rows: Int[np.ndarray, " b"], channels: Int[np.ndarray, "b c"]) -> Tensor:
    """Chosen channels of chosen pictures, clipped, as one tensor [b, c, h, w]."""
    out = [
        clipped(np.asarray(data.pictures[int(row)][own], np.float32)) for row, own in zip(rows, channels, strict=True)
    ]
    return torch.from_numpy(np.stack(out))


def philox(seed: int, step: int, purpose: int) -> np.random.Generator:
    """A generator that is a function of seed, step and purpose only, so that a resumed run draws the same numbers."""
    key = np.array([np.uint64(seed), np.uint64(purpose)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, step, 0]))
