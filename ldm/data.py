"""What training reads: a folder of pictures in one memory-mapped array and a table with one row a picture.

pictures.npy   float16 [n, c, h, w] in [-1, 1], or uint8 where 0 is -1 and 255 is 1
rows.parquet   compound (InChIKey), source, batch, plate, plate_format, row, column, seed, split (train | val)
compounds.npy  float32 [m, d] compound vectors; compounds.parquet names their InChIKeys in the same order
about.json     what the pictures are evidence of: evidence ("simulation" or "real") and conditions, in words; without
               it they are a simulation
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

ROW_COLUMNS = ("compound", "source", "batch", "plate_format", "row", "column", "split")


class TrainingDataError(ValueError):
    """Raised when the training folder is incomplete or its parts do not fit together."""


@dataclass(frozen=True)
class TrainingData:
    """Pictures stay on disk (memory-mapped); only the rows that are asked for are read."""

    pictures: np.ndarray
    rows: pd.DataFrame

    def indices(self, split: str) -> Int[np.ndarray, " n"]:
        """Positions of the rows of a split ("train" or "val")."""
        return np.flatnonzero(self.rows["split"].to_numpy() == split)

    def read(self, index: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b c h w"]:
        """The pictures of these rows, float32 in [-1, 1]."""
        return to_float(np.stack([self.pictures[i] for i in index]))

    def crops(self, index: Int[np.ndarray, " b"], size: int, rng: np.random.Generator) -> Float[np.ndarray, "b c s s"]:
        """One random crop of each row, randomly turned by quarters and mirrored, float32 in [-1, 1]."""
        height, width = self.pictures.shape[-2:]
        size = min(size, height, width)
        tops, lefts = rng.integers(0, height - size + 1, len(index)), rng.integers(0, width - size + 1, len(index))
        turns, mirrors = rng.integers(0, 4, len(index)), rng.integers(0, 2, len(index))
        out = np.empty((len(index), self.pictures.shape[1], size, size), dtype=self.pictures.dtype)
        for k, (i, top, left, turn, mirror) in enumerate(zip(index, tops, lefts, turns, mirrors, strict=True)):
            crop = np.rot90(self.pictures[i, :, top : top + size, left : left + size], int(turn), axes=(1, 2))
            out[k] = crop[:, :, ::-1] if mirror else crop
        return to_float(out)


def to_float(stored: np.ndarray) -> Float[np.ndarray, "..."]:
    """Stored pictures as float32 in [-1, 1]: uint8 is spread over the range, floats are taken as they are."""
    if stored.dtype == np.uint8:
        return stored.astype(np.float32) / np.float32(127.5) - np.float32(1.0)
    return stored.astype(np.float32)


def load_data(folder: Path) -> TrainingData:
    """Open a training folder. Raises TrainingDataError when a file is missing, a column is missing or the lengths
    differ.
    """
    for name in ("pictures.npy", "rows.parquet"):
        if not (folder / name).is_file():
            raise TrainingDataError(
                f"training data: {folder} has no {name}; make the folder with dopaint simulate, or give another"
            )
    pictures = np.load(folder / "pictures.npy", mmap_mode="r", allow_pickle=False)
    rows = pd.read_parquet(folder / "rows.parquet")
    missing = [name for name in ROW_COLUMNS if name not in rows.columns]
    if missing:
        raise TrainingDataError(
            f"training data: rows.parquet of {folder} lacks {', '.join(missing)}; expected {', '.join(ROW_COLUMNS)}"
        )
    if pictures.ndim != 4 or len(pictures) != len(rows):
        raise TrainingDataError(
            f"training data: pictures.npy is {pictures.shape} and rows.parquet has {len(rows)} rows; expected [rows, "
            "channels, height, width]"
        )
    return TrainingData(pictures, rows.reset_index(drop=True))


def load_compounds(folder: Path) -> tuple[Float[np.ndarray, "m d"], pd.Index]:
    """Compound vectors [m, d] and their InChIKeys. Raises TrainingDataError when missing or of different lengths."""
    for name in ("compounds.npy", "compounds.parquet"):
        if not (folder / name).is_file():
            raise TrainingDataError(f"training data: {folder} has no {name}; encode the compounds first")
    vectors = np.load(folder / "compounds.npy", allow_pickle=False).astype(np.float32)
    table = pd.read_parquet(folder / "compounds.parquet")
    column = "compound" if "compound" in table.columns else "inchikey"
    keys = pd.Index(table[column].astype(str))
    if len(vectors) != len(keys) or not keys.is_unique or not np.isfinite(vectors).all():
        raise TrainingDataError(
            f"training data: {len(vectors)} compound vectors and {len(keys)} InChIKeys in {folder}; expected one "
            "finite vector for each unique key"
        )
    return vectors, keys


def read_about(folder: Path) -> dict[str, str]:
    """evidence and conditions of a training folder, from its about.json; nothing where it has none, which means a
    simulation. Raises TrainingDataError for other keys.
    """
    path = folder / "about.json"
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or set(content) != {"evidence", "conditions"}:
        raise TrainingDataError(
            f"training data: {path} holds {sorted(content)}, expected evidence and conditions; make the folder again"
        )
    return {key: str(value) for key, value in content.items()}


def philox(seed: int, *counters: int) -> np.random.Generator:
    """A generator that is a function of the seed and up to two counters (step, purpose) only, so that a resumed
    run draws the same numbers.
    """
    key = np.array(
        [np.uint64(seed & 0xFFFFFFFFFFFFFFFF), np.uint64(counters[1] if len(counters) > 1 else 0)], dtype=np.uint64
    )
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, counters[0] if counters else 0, 0]))
