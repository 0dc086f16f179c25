"""What a diffusion training starts from: the condition encoder for its data, the autoencoder that the recipe names, and
the rows joined with compound vectors and latents.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ldm.channels import CHANNELS
from ldm.condition import ConditionEncoder
from ldm.config import LATER, ConfigError, from_table
from ldm.data import TrainingData, load_compounds
from ldm.latents import all_statistics
from ldm.objective import TrainingSet
from ldm.sdxl import load_autoencoder
from ldm.unet import UNetConfig


@dataclass(frozen=True)
class ConditionConfig:
    """Size of the condition encoder; the widths of tokens and pooled vector are those of the U-Net. context: False
    trains the control without confounders. plate: give the plate as a token of its own.
    """

    hidden: int = 256
    compound_tokens: int = 1
    fourier: int = 4
    context: bool = field(default=True, metadata=LATER)
    plate: bool = field(default=False, metadata=LATER)


@dataclass(frozen=True)
class LatentsConfig:
    """Which autoencoder: a hub id or folder, a folder within it, and the channels that the pictures have."""

    autoencoder: str
    channels: tuple[str, ...] = CHANNELS
    subfolder: str = ""


def build_condition(
    unet: UNetConfig, config: ConditionConfig, data: TrainingData, vectors: np.ndarray
) -> ConditionEncoder:
    """An untrained encoder for the sources, batches and plate formats of the training rows, standardising by all
    compound vectors.
    """
    rows = data.rows[data.rows["split"] == "train"]
    nested = rows[["source", "batch"]].drop_duplicates().sort_values(["source", "batch"])
    encoder = ConditionEncoder(
        compound_dim=vectors.shape[1],
        sources=tuple(sorted(nested["source"].unique())),
        batches=tuple(nested["batch"]),
        batch_sources=tuple(nested["source"]),
        plate_formats=tuple(int(f) for f in sorted(rows["plate_format"].unique())),
        width=unet.token_width,
        pooled=unet.pooled or 2 * unet.token_width,
        hidden=config.hidden,
        compound_tokens=config.compound_tokens,
        fourier=config.fourier,
        use_context=config.context,
        plates=tuple(sorted(rows["plate"].astype(str).unique())) if config.plate else (),
    )
    encoder.standardise(torch.from_numpy(vectors))
    return encoder


def prepare(condition: ConditionEncoder, data: TrainingData, folder: Path, latents: np.ndarray) -> TrainingSet:
    """Join rows, compound vectors and latents. Held-out rows of batches that no training row has are left out of
    validation: their batch has no embedding.
    """
    vectors, keys = load_compounds(folder)
    rows = data.rows
    known = rows["batch"].isin(condition.batches).to_numpy()
    at = keys.get_indexer(rows["compound"].astype(str))
    if (at < 0).any():
        raise ConfigError(
            f"training data: compound {rows['compound'].iloc[int(np.argmin(at))]} has no vector in compounds.npy; "
            "encode it"
        )
    safe = rows.copy()
    safe.loc[~known, ["source", "batch"]] = [condition.batch_sources[0], condition.batches[0]]
    conditions = condition.conditions(vectors[at], safe)
    train = data.indices("train")
    return TrainingSet(
        latents,
        conditions,
        all_statistics(latents, train),
        train,
        np.flatnonzero((rows["split"] == "val").to_numpy() & known),
    )


def autoencoder_of(tables: dict[str, Any], where: Path, out: Path) -> Path:
    """The folder of the autoencoder that a recipe names in [latents], made ready below `out`; `out`/vae without one.

    Raises ConfigError for an unknown key, AutoencoderError when it cannot be had.
    """
    if "latents" not in tables:
        return out / "vae"
    named = from_table(LatentsConfig, tables["latents"], f"{where} [latents]")
    folder = out / "vae"
    if not (folder / "config.json").is_file():
        load_autoencoder(named.autoencoder, named.channels, named.subfolder).save(folder)
    return folder
