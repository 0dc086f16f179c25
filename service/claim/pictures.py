"""Pictures of the claim: the observed screens as training folders, and painted blocks that wait to be measured."""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.painter import CHANNELS
from ldm.autoencoder import GroupAutoencoder
from ldm.data import load_data, to_float
from ldm.intensity import IntensityScale
from ldm.latents import cached_latents
from service.claim.config import Claim
from service.claim.design import encoded_compounds, observed_rows, painted_world, training_plates
from service.simulate import LIMIT, intensity_scale

BLOCK = 96  # pictures that are painted or measured between two marks
Tell = Callable[[int, int], None]


def blocks(n: int) -> list[slice]:
    """The rows of each block."""
    return [slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]


def block_file(folder: Path, number: int) -> Path:
    """Where the pictures of a block are."""
    return folder / f"pictures-{number:04d}.npy"


def _paint(job: tuple[Claim, pd.DataFrame]) -> Float[np.ndarray, "n c h w"]:
    return painted_world(job[0]).paint(job[1]).astype(np.float16)


def true_blocks(claim: Claim, rows: pd.DataFrame, first: int = 0) -> Iterator[Float[np.ndarray, "n c h w"]]:
    """The world's own pictures of these rows from block `first` on, painted by the processes that the configuration
    allows, a few blocks ahead at most.
    """
    parts, workers = blocks(len(rows))[first:], claim.config.workers
    if workers == 1:
        own = painted_world(claim)
        yield from (own.paint(rows.iloc[part]).astype(np.float16) for part in parts)
        return
    with ProcessPoolExecutor(workers) as pool:
        waiting: deque[Future[np.ndarray]] = deque()
        for part in parts:
            waiting.append(pool.submit(_paint, (claim, rows.iloc[part])))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def observe(claim: Claim, allocation: str, folder: Path, tell: Tell) -> None:
    """Paint an observed screen into a training folder of `ldm.data`. What is there already is painted again."""
    rows = observed_rows(claim, allocation)
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(rows), len(CHANNELS), claim.config.size, claim.config.size)
    part = folder / "pictures.part.npy"
    raw = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=shape)
    for where, painted in zip(blocks(len(rows)), true_blocks(claim, rows), strict=True):
        raw[where] = painted
        tell(where.stop, len(rows))
    scale = intensity_scale(raw, rows)
    low, high = (np.array([scale[s][k] for s in rows["source"]], np.float32)[:, :, None, None] for k in ("low", "high"))
    for where in blocks(len(rows)):
        value = (raw[where].astype(np.float32) - low[where]) / (high[where] - low[where]) * 2.0 - 1.0
        raw[where] = np.clip(value, -LIMIT, LIMIT)
    raw.flush()
    os.replace(part, folder / "pictures.npy")
    rows.to_parquet(folder / "rows.parquet")
    (folder / "intensity.json").write_text(json.dumps({"channels": list(CHANNELS), "sources": scale}, indent=1))
    training_plates(claim).to_parquet(folder / "contexts.parquet")
    seen = encoded_compounds(claim)
    at = np.flatnonzero(seen["compound"].isin(set(rows["compound"])).to_numpy())
    seen.iloc[at].reset_index(drop=True).to_parquet(folder / "compounds.parquet")
    np.save(folder / "compounds.npy", vectors(claim, folder.parent)[at])


def vectors(claim: Claim, folder: Path) -> Float[np.ndarray, "m d"]:
    """The encoder's vectors of `encoded_compounds`, computed once."""
    path = folder / "vectors.npy"
    if not path.is_file():
        from chem.encoder import load_encoder

        made = load_encoder(str(claim.encoder)).encode(list(encoded_compounds(claim)["smiles"]))
        with path.with_suffix(".part").open("wb") as handle:
            np.save(handle, np.asarray(made, np.float32), allow_pickle=False)
        os.replace(path.with_suffix(".part"), path)
    stored: np.ndarray = np.load(path, allow_pickle=False)
    return stored


def observed_blocks(folder: Path, first: int = 0) -> Iterator[Float[np.ndarray, "n c h w"]]:
    """The pictures of a training folder in camera units, from block `first` on."""
    data, scale = load_data(folder), IntensityScale.load(folder / "intensity.json")
    sources = data.rows["source"].astype(str).tolist()
    for part in blocks(len(data.rows))[first:]:
        yield scale.to_camera(to_float(np.asarray(data.pictures[part])), sources[part])


def encode(claim: Claim, folder: Path) -> None:
    """Latents of a training folder, kept beside it for all its trainings."""
    cached_latents(GroupAutoencoder.load(claim.autoencoder), load_data(folder), folder / "latents")


def share_latents(folder: Path, out: Path) -> None:
    """Put the latents of a training folder where a training looks for them, without a second copy where that can be."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("latents.npy", "latents.json"):
        if not (out / name).is_file():
            try:
                os.link(folder / "latents" / name, out / name)
            except OSError:
                shutil.copyfile(folder / "latents" / name, out / name)


def painted_blocks(folder: Path, n: int, first: int = 0) -> Iterator[Float[np.ndarray, "n c h w"]]:
    """Blocks that a model painted, from block `first` on."""
    for number in range(first, len(blocks(n))):
        yield np.load(block_file(folder, number), allow_pickle=False).astype(np.float32)
