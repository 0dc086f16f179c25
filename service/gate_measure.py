"""Features of the gate's rows, from pictures that are painted block by block and not kept: the truth, the model, and
the truth after the autoencoder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from profiling.profiles import Profiles
from profiling.tables import read_profiles, write_profiles
from service.engine import ModelRoom
from service.errors import InvalidRequest
from service.gate import replicate
from service.library import world

Tell = Callable[[int], None]
"""Told how many pictures were painted and measured since the last call."""

BLOCK = 128  # pictures in memory at once; a multiple of every micro-batch in use
PROOF = 16  # true pictures whose bytes stand for the world in the key of a kept truth


def measured(room: ModelRoom, rows: pd.DataFrame, paint: Callable[[np.ndarray], np.ndarray], tell: Tell) -> Profiles:
    """Raw profiles of all rows; `paint` is given positions of rows and returns their pictures in [0, 1]."""
    parts = []
    for start in range(0, len(rows), BLOCK):
        index = np.arange(start, min(start + BLOCK, len(rows)))
        found = room.measure(paint(index), lambda _: None)
        parts.append(pd.DataFrame(found.values, columns=list(found.names)))
        tell(len(index))
    table = pd.concat(parts, ignore_index=True)
    return Profiles(rows.add_prefix("Metadata_"), table.to_numpy(np.float64), tuple(map(str, table.columns)))


def model_features(room: ModelRoom, rows: pd.DataFrame, tell: Tell) -> Profiles:
    """The model's pictures of the rows, measured."""
    vectors = room.vectors(list(rows["compound"]))

    def paint(index: np.ndarray) -> np.ndarray:
        return room.paint_rows(vectors[index], rows.iloc[index].reset_index(drop=True), None)

    return measured(room, rows, paint, tell)


def autoencoder_features(room: ModelRoom, rows: pd.DataFrame, tell: Tell) -> Profiles:
    """The true pictures of the rows after the autoencoder alone, measured."""

    def paint(index: np.ndarray) -> np.ndarray:
        part = rows.iloc[index].reset_index(drop=True)
        return room.compress(world().paint(part), list(part["source"]))

    return measured(room, rows, paint, tell)


def true_features(room: ModelRoom, rows: pd.DataFrame, tell: Tell) -> Profiles:
    """The true pictures of the rows, measured."""
    return measured(room, rows, lambda index: world().paint(rows.iloc[index].reset_index(drop=True)), tell)


def truth(room: ModelRoom, rows: pd.DataFrame, replicates: int, kept: Path | None, tell: Tell) -> list[Profiles]:
    """`replicates` sets of true profiles of the rows, each with cells and noise of its own.

    kept: a folder that is written, or read where it is there: the truth is the same for every model. Raises
    `InvalidRequest` when the folder is of other rows, another engine or another world.
    """
    key = _key(room, rows, replicates)
    if kept is not None and (kept / "key.json").is_file():
        found = json.loads((kept / "key.json").read_text(encoding="utf-8"))
        if found != key:
            wrong = ", ".join(sorted(name for name in key if found.get(name) != key[name]))
            raise InvalidRequest(
                f"truth {str(kept)!r} was measured with other {wrong}: remove the folder or name another one"
            )
        tell(replicates * len(rows))
        return [read_profiles(kept / f"truth-{k}.parquet") for k in range(replicates)]
    made = [true_features(room, replicate(rows, k), tell) for k in range(replicates)]
    if kept is not None:
        keep(made, key, kept)
    return made


def keep(made: Sequence[Profiles], key: dict[str, object], folder: Path) -> None:
    """Write the truth; the key comes last, so that a folder with a key is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, profiles in enumerate(made):
        write_profiles(profiles, folder / f"truth-{k}.parquet")
    (folder / "key.json").write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")


def _key(room: ModelRoom, rows: pd.DataFrame, replicates: int) -> dict[str, object]:
    """What the truth depends on: rows, engine, and the world, for which the bytes of some of its pictures stand."""
    some = np.linspace(0, len(rows) - 1, min(PROOF, len(rows))).round().astype(int)
    pictures = world().paint(rows.iloc[some].reset_index(drop=True))
    return {
        "rows": hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest(),
        "replicates": replicates,
        "engine": room.provenance.engine,
        "world": hashlib.sha256(pictures.tobytes()).hexdigest(),
    }
