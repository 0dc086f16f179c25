"""Paint a training set: the observed experiment of the simulated world, in the layout that `ldm` trains on."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.allocation import allocate
from causal.painter import CHANNELS
from causal.phenotype import DMSO, stream
from service.errors import InvalidRequest
from service.library import DMSO_SMILES, library, read_config, world

CHUNK = 256
LIMIT = 4.0  # stored values are clipped to ±LIMIT; -1 and 1 are the 0.1 and 99.9 percentiles of the source's controls


def observed_design(config_path: Path | None = None) -> pd.DataFrame:
    """The wells of the training experiment: seen compounds and controls, on plates of batches that are not held out."""
    config = read_config(config_path)
    table = library()
    seen = table[table["split"] == "seen"]
    wells = seen[["compound", "moa"]].assign(
        wells=np.where(seen["kind"] == "drug", config.drug_wells, config.recombined_wells)
    )
    plates = world(config_path).plates
    design = allocate(plates[~plates["held_out"]], wells, config.allocation)
    rng = stream(config.seed, "order")
    design = design.iloc[rng.permutation(len(design))].reset_index(drop=True)
    design["split"] = np.where(rng.random(len(design)) < config.val_share, "val", "train")
    return design


def _paint(job: tuple[Path | None, pd.DataFrame]) -> Float[np.ndarray, "n c h w"]:
    return world(job[0]).paint(job[1]).astype(np.float16)


def intensity_scale(pictures: np.ndarray, rows: pd.DataFrame, most: int = 200) -> dict[str, dict[str, list[float]]]:
    """0.1 and 99.9 percentiles per (source, channel) over the training controls, in camera units [0, 1]."""
    scale = {}
    for source in sorted(rows["source"].unique()):
        chosen = np.flatnonzero(
            ((rows["compound"] == DMSO) & (rows["source"] == source) & (rows["split"] == "train")).to_numpy()
        )[:most]
        values = np.asarray(pictures[chosen], np.float32).transpose(1, 0, 2, 3).reshape(len(CHANNELS), -1)
        low, high = np.percentile(values, [0.1, 99.9], axis=1)
        scale[source] = {"low": [round(float(v), 6) for v in low], "high": [round(float(v), 6) for v in high]}
    return scale


def simulate(
    out: Path, config_path: Path | None = None, *, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """Write pictures.npy (float16, scaled), rows.parquet, intensity.json, contexts.parquet, compounds.parquet to `out`.

    Returns the rows. The share of pixels outside [-1, 1] is written to intensity.json: they are kept, not clipped.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = observed_design(config_path)
    size = world(config_path).size
    raw = np.lib.format.open_memmap(
        out / "pictures.part.npy", mode="w+", dtype=np.float16, shape=(len(rows), len(CHANNELS), size, size)
    )
    starts = range(0, len(rows), CHUNK)
    with ProcessPoolExecutor(workers) as pool:
        for start, block in zip(
            starts, pool.map(_paint, ((config_path, rows.iloc[s : s + CHUNK]) for s in starts)), strict=True
        ):
            raw[start : start + len(block)] = block
            if progress is not None:
                progress(start + len(block), len(rows))
    scale = intensity_scale(raw, rows)
    low = np.array([scale[s]["low"] for s in rows["source"]], np.float32)[:, :, None, None]
    high = np.array([scale[s]["high"] for s in rows["source"]], np.float32)[:, :, None, None]
    beyond = 0
    for start in starts:
        part = slice(start, start + CHUNK)
        value = (raw[part].astype(np.float32) - low[part]) / (high[part] - low[part]) * 2.0 - 1.0
        beyond += int((np.abs(value) > 1.0).sum())
        raw[part] = np.clip(value, -LIMIT, LIMIT)
    raw.flush()
    (out / "pictures.part.npy").rename(out / "pictures.npy")
    rows.to_parquet(out / "rows.parquet")
    share = beyond / raw.size
    (out / "intensity.json").write_text(
        json.dumps({"channels": list(CHANNELS), "sources": scale, "share_outside": round(share, 6)}, indent=1)
    )
    plates = world(config_path).plates
    plates[~plates["held_out"]].drop(columns="held_out").reset_index(drop=True).to_parquet(out / "contexts.parquet")
    table = library()
    compounds = pd.concat(
        [
            pd.DataFrame({"compound": [DMSO], "smiles": [DMSO_SMILES]}),
            table.loc[table["split"] == "seen", ["compound", "smiles"]],
        ],
        ignore_index=True,
    )
    compounds.to_parquet(out / "compounds.parquet")
    return rows


def encode_compounds(data: Path, encoder: Path) -> None:
    """Write compounds.npy: the vectors of compounds.parquet by the encoder in folder `encoder`.

    A compound without SMILES (the named unknown token of real data) gets the mean of the other vectors: 0 on the
    standardised scale that a model reads. Raises InvalidRequest when no compound has a SMILES.
    """
    from chem.encoder import load_encoder

    table = pd.read_parquet(data / "compounds.parquet")
    known = (table["smiles"].fillna("") != "").to_numpy()
    if not known.any():
        raise InvalidRequest(f"compounds: none of {len(table)} in {data} has a SMILES: there is nothing to encode")
    found = np.asarray(load_encoder(str(encoder)).encode(list(table.loc[known, "smiles"])), np.float32)
    vectors = np.repeat(found.mean(0, keepdims=True), len(table), axis=0)
    vectors[known] = found
    np.save(data / "compounds.npy", vectors)
