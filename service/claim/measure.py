"""Pictures to profiles in the claim: block by block, each kept on disk, so that a stopped run measures none twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.painted import FEATURES, simple_features
from causal.painter import CHANNELS
from profiling.profiles import Profiles, field_medians
from profiling.tables import read_profiles, write_profiles
from service.claim.config import ClaimConfig
from service.claim.pictures import Tell, blocks
from service.errors import EngineFailure

Measure = Callable[[np.ndarray], tuple[np.ndarray, tuple[str, ...]]]


@contextmanager
def measurer(config: ClaimConfig) -> Iterator[Measure]:
    """Pictures [n, c, h, w] in camera units to one profile each, [n, k] and k names; NaN where there are no cells."""
    if config.engine == "crude":
        yield lambda pictures: (simple_features(pictures), FEATURES)
        return
    from profiling.engines.fast import FastEngine

    with FastEngine("sim128", config.workers) as engine:

        def measure(pictures: Float[np.ndarray, "n c h w"]) -> tuple[np.ndarray, tuple[str, ...]]:
            found = engine.measure(np.ascontiguousarray(pictures, np.float32), CHANNELS)
            if failed := [one.reason for one in found if one.outcome == "failed"]:
                raise EngineFailure(f"claim: {len(failed)} pictures could not be measured, the first: {failed[0]}")
            table = field_medians(found, pd.DataFrame({"row": range(len(found))}))
            return table.values, table.names

        yield measure


def measure_all(
    config: ClaimConfig, folder: Path, rows: pd.DataFrame, pictures: Callable[[int], Iterator[np.ndarray]], tell: Tell
) -> None:
    """Profiles of the rows to `folder`/profiles.parquet; `pictures(first)` gives them in order, from that block on.

    Blocks that were measured before are skipped. Raises EngineFailure where a picture cannot be measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = blocks(len(rows))
    files = [folder / f"profiles-{number:04d}.parquet" for number in range(len(parts))]
    first = next((number for number, file in enumerate(files) if not file.is_file()), len(files))
    if first < len(files):
        with measurer(config) as measure:
            for part, file, block in zip(parts[first:], files[first:], pictures(first), strict=True):
                values, names = measure(np.clip(block, 0.0, 1.0).astype(np.float32))
                frame = pd.DataFrame(values, columns=list(names))
                frame.to_parquet(file.with_suffix(".part"), index=False)
                os.replace(file.with_suffix(".part"), file)
                tell(part.stop, len(rows))
    frames = [pd.read_parquet(file) for file in files]
    names = tuple(frames[0].columns)
    meta = rows.reset_index(drop=True).add_prefix("Metadata_")
    whole = Profiles(meta, np.concatenate([f[list(names)].to_numpy(np.float64) for f in frames]), names)
    write_profiles(whole, folder / "profiles.parquet")
    for file in files:
        file.unlink()


def profiles_of(folder: Path) -> Profiles:
    """What `measure_all` wrote."""
    return read_profiles(folder / "profiles.parquet")


def rows_of(profiles: Profiles) -> pd.DataFrame:
    """The design rows of profiles, under their own names."""
    return profiles.meta.rename(columns=lambda name: str(name).removeprefix("Metadata_"))
